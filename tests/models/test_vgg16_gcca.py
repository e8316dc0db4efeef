import copy
import functools
from itertools import pairwise

import pytest
import torch
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from mien.errors import MienError
from mien.losses import create_loss
from mien.models import create_model

PARTS = ("multi_feature", "gcca", "partial_decoder", "reverse_attention")
ROWS = {row: {part: i < on for i, part in enumerate(PARTS)} for row, on in enumerate((0, 1, 2, 3, 4, 4), start=1)}
"""Table 1: each row switches the next part on; row 6 is row 5 with the joint loss."""


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def conv(inputs: int, outputs: int, kernel: int = 3) -> int:
    """Parameters of a convolution without bias and its batch norm."""
    return inputs * outputs * kernel**2 + 2 * outputs


def images(size: int = 32, rows: int = 2, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.linspace(-2, 2, rows * 3 * size * size, dtype=dtype).sin().reshape(rows, 3, size, size)


@pytest.fixture(scope="module")
def full() -> nn.Module:
    torch.manual_seed(0)
    return create_model("vgg16_gcca").eval()


@pytest.fixture(scope="module")
def vgg16() -> nn.Module:
    torch.manual_seed(0)
    return create_model("vgg16").eval()


@functools.cache
def without_memory(row: int) -> nn.Module:
    """A row of Table 1 for what shapes alone tell."""
    with torch.device("meta"):
        return create_model("vgg16_gcca", **ROWS[row])


@pytest.mark.parametrize("row", ROWS)
def test_every_row_of_table_1_is_one_call(row: int):
    model, x = without_memory(row).train(), images().to("meta")
    with torch.device("meta"):
        loss = create_loss("joint" if row == 6 else "cross_entropy", 7, model.classifier.in_features)
    logits, embedding = model(x), model.forward_features(x).mean((2, 3))
    assert logits.shape == (2, 7)
    assert embedding.shape == (2, {1: 512, 2: 704, 3: 704}.get(row, 800))
    loss(logits, torch.zeros(2, dtype=torch.int64, device="meta"), embedding).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_parameters_grow_by_what_each_row_adds():
    counts = [count(without_memory(row)) for row in ROWS]
    fusion = (128 * 9 + 1) + sum(conv(channels + 1, 64) for channels in (256, 512, 512)) + 3 * 64 * 7
    gcca = sum(3 * c + c + c * c // 16 + c // 16 + c * c // 16 + c for c in (64, 128, 256, 512, 512))
    decoder = sum(conv(c, 32, 1) for c in (256, 512, 512)) + 4 * conv(32, 32) + 2 * conv(64, 64) + 2 * conv(96, 96)
    steps = [fusion, gcca, decoder + 96 + 1 + 96 * 7, 2 * (64 * 9 + 1), 0]
    assert counts[0] == 14_718_279
    assert [b - a for a, b in pairwise(counts)] == steps


def in_backbone(dtype: torch.dtype = torch.float32, **parts: bool) -> nn.Module:
    torch.manual_seed(0)
    return create_model("vgg16_gcca", edge="backbone", **parts).to(dtype)


@pytest.mark.parametrize("row", [2, 5])
def test_the_edge_map_can_enter_the_backbone(row: int):
    with torch.device("meta"):
        model, x = in_backbone(**ROWS[row]), images()
        assert model(x).shape == (2, 7)
        model(x).sum().backward()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []
    blocks = [tuple(block.shape) for block in model.forward_blocks(x)]
    assert blocks == [tuple(block.shape) for block in without_memory(row).forward_blocks(images().to("meta"))]
    moved = 9 * (64 * 3 - 256 - 512 - 512)  # from the input of three lateral outputs to that of three blocks
    assert count(without_memory(row)) - count(model) == moved
    assert set(without_memory(row).state_dict()) - set(model.state_dict()) == set()


def test_the_edge_map_is_concatenated_with_the_input_of_blocks_3_to_5():
    """The first convolution of block 3 is one convolution over its input and the edge map."""
    model = in_backbone(torch.float64).eval()
    c2 = images(16, dtype=torch.float64).repeat(1, 43, 1, 1)[:, :128]
    x = nn.functional.max_pool2d(c2, 2)
    edge = nn.functional.adaptive_avg_pool2d(model.fusion.edge(c2), x.shape[2:])
    first = next(layer for layer in model.features if getattr(layer, "out_channels", 0) == 256)
    kernel = torch.cat([first.weight, model.edge_inputs["3"].weight], dim=1)
    expected = nn.functional.conv2d(torch.cat([x, edge], dim=1), kernel, first.bias, padding=1)
    torch.testing.assert_close(first(x) + model._from_edge([torch.zeros(0), c2], x), expected)


@pytest.mark.parametrize("edge", ["lateral", "backbone"])
def test_the_edge_map_changes_what_its_reading_says(edge: str):
    """Through the backbone it reaches C_3 and C_5; through the lateral outputs only what is fused."""
    torch.manual_seed(0)
    model = create_model("vgg16_gcca", edge=edge).eval()
    x = images()
    before = [*model.forward_blocks(x), model.forward_features(x)]
    with torch.no_grad():
        model.fusion.edge.conv.bias += 1
    after = [*model.forward_blocks(x), model.forward_features(x)]
    same = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert same == [True, True, *[edge == "lateral"] * 3, False]


def test_row_1_is_vgg16(vgg16: nn.Module):
    row = create_model("vgg16_gcca", **ROWS[1])
    assert [(name, p.shape) for name, p in vgg16.named_parameters()] == [(name, p.shape) for name, p in row.named_parameters()]
    row.load_state_dict(vgg16.state_dict())
    x = images(48)
    torch.manual_seed(1)
    expected = vgg16.train()(x)
    torch.manual_seed(1)
    assert torch.equal(row(x), expected)
    assert torch.equal(row.eval()(x), vgg16.eval()(x))


def test_vgg16_is_torchvisions_without_last_pool_and_fully_connected_layers(vgg16: nn.Module):
    model = copy.deepcopy(vgg16).double()
    with torch.device("meta"):
        theirs = make_layers(cfgs["D"])  # `features` of torchvision's vgg16
    theirs.load_state_dict(model.features.state_dict(), assign=True)
    x = images(dtype=torch.float64)
    torch.testing.assert_close(model(x), model.classifier(theirs[:-1](x).mean((2, 3))))
    assert isinstance(theirs[-1], nn.MaxPool2d)


@pytest.mark.parametrize("name", ["vgg16", "vgg16_gcca"])
def test_embedding_is_what_the_classifier_sees(full: nn.Module, vgg16: nn.Module, name: str):
    model, x = vgg16 if name == "vgg16" else full, images()
    torch.testing.assert_close(model.classifier(model.forward_features(x).mean((2, 3))), model(x))


def test_evaluation_is_deterministic_and_training_is_seeded(full: nn.Module):
    model, x = copy.deepcopy(full).train(), images()
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(model(x))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    model.eval()
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("size", [(32, 32), (50, 35)])
def test_attention_maps_are_those_of_reverse_attention_and_decoder(full: nn.Module, size: tuple[int, int]):
    x = torch.randn(2, 3, *size)
    maps = full.attention_maps(x)
    sizes = [(size[0] // d, size[1] // d) for d in (4, 8, 16, 4)]
    assert {name: tuple(m.shape) for name, m in maps.items()} == {
        name: (2, *s) for name, s in zip(("reverse_3", "reverse_4", "reverse_5", "global"), sizes, strict=True)
    }
    assert all(0 <= m.min() <= m.max() <= 1 for m in maps.values())
    mean = torch.nn.functional.adaptive_avg_pool2d(torch.logit(maps["global"].double()).unsqueeze(1), sizes[2]).squeeze(1)
    torch.testing.assert_close(maps["reverse_5"].double(), 1 - torch.sigmoid(mean), rtol=1e-4, atol=1e-5)


def test_only_rows_that_have_them_give_attention_maps():
    names = {row: list(without_memory(row).eval().attention_maps(images().to("meta"))) for row in (1, 3, 4)}
    assert names == {1: [], 3: [], 4: ["global"]}


def test_what_is_predicted_is_erased(full: nn.Module):
    """Where the global map is sure everywhere, reverse attention leaves nothing of C_5; where it marks nothing, all of it."""
    decoder, bias = full.fusion.decoder.predict, full.fusion.decoder.predict.bias.detach().clone()
    for shift, left in ((1000.0, 0.0), (-1000.0, 1.0)):
        decoder.bias.data.fill_(shift)
        assert (full.attention_maps(images())["reverse_5"] == left).all()
    decoder.bias.data.copy_(bias)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"multi_feature": False}, "partial_decoder needs multi_feature"),
        ({"partial_decoder": False}, "reverse_attention needs partial_decoder"),
        ({"in_channels": 0}, "in_channels must be at least 1"),
        ({"edge": "both"}, "edge must be 'lateral' or 'backbone', got 'both'"),
    ],
)
def test_a_part_without_what_it_needs_is_refused(arguments: dict, message: str):
    with pytest.raises(MienError, match=message):
        create_model("vgg16_gcca", **arguments)


@pytest.mark.parametrize(("name", "least"), [("vgg16", 16), ("vgg16_gcca", 32)])
def test_the_smallest_image_fits_and_a_smaller_one_is_refused(name: str, least: int):
    with torch.device("meta"):
        model = create_model(name, in_channels=1)
        assert model(torch.zeros(1, 1, least, least)).shape == (1, 7)
        with pytest.raises(MienError, match="too small"):
            model(torch.zeros(1, 1, least, least - 1))


@pytest.mark.slow
def test_one_graph(full: nn.Module):
    x = images()
    torch.testing.assert_close(torch.compile(full, fullgraph=True, backend="eager")(x), full(x))
