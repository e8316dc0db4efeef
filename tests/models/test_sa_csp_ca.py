import pytest
import torch
from torch import nn

from mien.errors import MienError
from mien.layers.csp import BLOCKS
from mien.models import create_model
from mien.models.cost import model_cost

ROWS = [88, 19, 1260, 5204, 12864, 85068, 430884, 1076588, 262144, 32263]
TABLE_2 = [
    {"spatial_attention": False, "channel_attention": False, "groups": None},
    {"spatial_attention": False, "channel_attention": False, "groups": 1},
    {"spatial_attention": False, "channel_attention": False, "groups": 2},
    {"spatial_attention": False, "channel_attention": False, "groups": 4},
    {"spatial_attention": False, "channel_attention": False, "groups": 8},
    {"groups": None},
    {"groups": 4},
]
GOLDEN = [0.0126056071, 0.0200132224, -0.0056565085, 0.026071356, 0.0670161634, 0.0136162002, -0.0477027556]


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("block", BLOCKS)
def test_every_row_of_table_1_has_its_parameters(block: str):
    model = create_model("sa_csp_ca", block=block)
    rows = [model.stem, model.spatial_attention, *model.blocks, model.channel_attention, model.classifier]
    assert [count(row) for row in rows] == ROWS
    assert count(model) == sum(ROWS) == 1_906_382


@pytest.mark.parametrize("block", BLOCKS)
def test_shapes_are_those_of_table_1(block: str):
    model = create_model("sa_csp_ca", block=block).eval()
    x = model.spatial_attention(model.stem(torch.zeros(1, 1, 40, 40)))
    shapes = [tuple(x.shape[1:])]
    for part in model.blocks:
        x = part(x)
        shapes.append(tuple(x.shape[1:]))
    expected = [(8, 40, 40), (24, 40, 40), (32, 20, 20), (72, 10, 10), (216, 5, 5), (360, 3, 3), (512, 2, 2)]
    assert shapes == expected
    assert model.classifier(model.channel_attention(x)).shape == (1, 7, 2, 2)


@pytest.mark.parametrize(("block", "size"), [("fuse", 9.453), ("gate", 9.467)])
def test_forward_backward_pass_size_is_near_the_papers(block: str, size: float):
    """torchsummary's figure: outputs of every module but containers, times two, in MiB of float32; the paper prints 9.46."""
    model, outputs = create_model("sa_csp_ca", block=block).eval(), []
    for module in model.modules():
        if module is not model and not isinstance(module, nn.Sequential):
            module.register_forward_hook(lambda module, inputs, output: outputs.append(output.numel()))
    model(torch.zeros(1, 1, 40, 40))
    measured = sum(outputs) * 2 * 4 / 2**20
    assert measured == model_cost(model).activation_bytes * 2 / 2**20
    assert measured == pytest.approx(size, abs=0.0005)
    assert measured == pytest.approx(9.46, abs=0.01)


@pytest.mark.parametrize("arguments", TABLE_2, ids=str)
@pytest.mark.parametrize("block", BLOCKS)
def test_every_row_of_table_2_is_one_call(arguments: dict, block: str):
    with torch.device("meta"):
        model = create_model("sa_csp_ca", block=block, **arguments)
    attention = (19 if arguments.get("spatial_attention", True) else 0) + (
        262144 if arguments.get("channel_attention", True) else 0
    )
    assert count(model) == 1_906_382 - 262_163 + attention
    assert model(torch.zeros(2, 1, 40, 40, device="meta")).shape == (2, 7)


@pytest.mark.parametrize("block", BLOCKS)
def test_groups_change_the_answer_but_no_parameter(block: str):
    outputs = []
    for groups in (None, 2, 4, 8):
        torch.manual_seed(0)
        outputs.append(
            create_model("sa_csp_ca", groups=groups, block=block)(torch.linspace(-1, 1, 3200).reshape(2, 1, 40, 40)).detach()
        )
    assert all((a - b).abs().max() > 1e-4 for i, a in enumerate(outputs) for b in outputs[:i])


@pytest.mark.parametrize("groups", [2, 4, 8])
def test_with_fuse_permuted_weights_undo_the_shuffle(groups: int):
    """Networks that differ in groups alone can learn the same functions. With `gate` they cannot (tests/layers/test_csp.py)."""
    torch.manual_seed(0)
    base = create_model("sa_csp_ca", groups=None).double().eval()
    shuffled = create_model("sa_csp_ca", groups=groups).double().eval()
    weights = base.state_dict()
    for i, block in enumerate(shuffled.blocks):
        order = block.shuffle(torch.arange(block.fuse.in_channels).reshape(1, -1, 1, 1)).flatten()
        weights[f"blocks.{i}.fuse.weight"] = weights[f"blocks.{i}.fuse.weight"][:, order]
    shuffled.load_state_dict(weights)
    x = torch.linspace(-1, 1, 3200, dtype=torch.float64).reshape(2, 1, 40, 40)
    torch.testing.assert_close(shuffled(x), base(x))


def test_a_network_without_the_argument_fuses():
    """Checkpoints from before the argument say nothing of it."""
    assert "blocks.0.fuse.weight" in create_model("sa_csp_ca", groups=4).state_dict()


def test_an_unknown_block_is_refused():
    with pytest.raises(MienError, match="block must be 'fuse' or 'gate', got 'other'"):
        create_model("sa_csp_ca", block="other")


def test_golden_logits():
    torch.manual_seed(0)
    model = create_model("sa_csp_ca").double()
    x = torch.linspace(-1, 1, 3200, dtype=torch.float64).reshape(2, 1, 40, 40)
    torch.testing.assert_close(model(x)[0].detach(), torch.tensor(GOLDEN, dtype=torch.float64), rtol=1e-5, atol=1e-9)
