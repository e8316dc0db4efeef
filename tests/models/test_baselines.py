import functools

import pytest
import torch
from torch import nn

from mien.errors import MienError
from mien.layers.cbam import CBAM
from mien.models import create_model


@functools.cache
def build(name: str, **arguments) -> nn.Module:
    with torch.device("meta"):
        return create_model(name, **arguments)


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        ("resnet50", 7, 23_522_375),
        ("resnet50_se", 7, 26_053_367),
        ("resnet50_cbam", 7, 26_038_903),
        ("vggface", 7, 134_289_223),
        ("vggface", 2622, 145_002_878),
        ("vanilla_cnn", 7, 1_921_991),
        ("efficientnet_b0", 7, 4_016_515),
    ],
)
def test_parameters(name: str, classes: int, parameters: int):
    assert sum(p.numel() for p in build(name, num_classes=classes).parameters()) == parameters


def test_resnet50_is_torchvisions_too():
    from torchvision.models import resnet50

    ours = [p.shape for p in build("resnet50").backbone.parameters()]
    with torch.device("meta"):
        assert ours == [p.shape for p in resnet50(num_classes=7).parameters()]


def test_vanilla_cnn_is_three_stages_of_three_convolutions():
    stages = build("vanilla_cnn").stages
    assert [sum(isinstance(part, nn.Conv2d) for part in stage) for stage in stages] == [3, 3, 3]


def test_vanilla_cnn_sees_46_px():
    """The last convolution, at a position in the middle: a face of 48 px, but not one that was enlarged."""
    torch.manual_seed(0)
    model = create_model("vanilla_cnn").double().eval()
    x = torch.rand(1, 1, 64, 64, dtype=torch.float64, requires_grad=True)
    features = model.stages[2][:-1](model.stages[:2](x))
    (read,) = torch.autograd.grad(features[0, :, 8, 8].sum(), x)
    columns = read[0, 0].abs().amax(0).nonzero()
    assert int(columns.max() - columns.min()) + 1 == 46


@pytest.mark.parametrize(("side", "positions"), [(224, 7), (112, 3), (48, 1)])
def test_vggface_needs_224_px(side: int, positions: int):
    """Its first hidden layer reads 7x7 positions; the recipes' size is the only one here that gives as many."""
    model = build("vggface")
    assert model.backbone.features(torch.zeros(1, 3, side, side, device="meta")).shape[2:] == (positions, positions)
    assert model.backbone.pre_logits.fc1.kernel_size == (7, 7)


def test_vggface_drops_half_of_both_hidden_layers():
    model = build("vggface")
    assert sum(isinstance(module, nn.BatchNorm2d) for module in model.modules()) == 0
    assert sorted(module.p for module in model.modules() if isinstance(module, nn.Dropout)) == [0.5, 0.5]


def test_resnet50_cbam_attends_inside_each_bottleneck():
    model = build("resnet50_cbam").eval()
    assert {type(block.se) for stage in range(1, 5) for block in getattr(model.backbone, f"layer{stage}")} == {CBAM}
    assert sum(isinstance(module, CBAM) for module in model.modules()) == 16
    maps = model.attention_maps(torch.zeros(1, 3, 64, 64, device="meta"))
    assert [value.shape[-1] for value in maps.values()] == [16] * 3 + [8] * 4 + [4] * 6 + [2] * 3


@pytest.mark.parametrize("name", ["resnet50", "resnet50_se", "resnet50_cbam", "stn_resnet50"])
def test_a_small_stem_keeps_more_positions(name: str):
    x = torch.zeros(2, 1, 48, 48, device="meta")
    assert build(name, in_channels=1).forward_features(x).shape == (2, 2048, 2, 2)
    small = build(name, in_channels=1, stem="small")
    assert small.forward_features(x).shape == (2, 2048, 3, 3)
    assert (small.input_size, small.minimum_size) == ((48, 48), 16)
    with pytest.raises(MienError, match="stem must be 'imagenet' or 'small', got 'tiny'"):
        build(name, stem="tiny")
