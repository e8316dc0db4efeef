import functools

import pytest
import torch
from torch import nn

from mien.errors import MienError
from mien.layers.cbam import CBAM
from mien.layers.cbam_erf import CBAMERF
from mien.layers.hierarchical_shortcut import HierarchicalShortcut
from mien.models import create_model

PLAIN = {"activation": "relu", "shortcut": "projection", "attention": None}
CBAM_PARAMETERS = sum(blocks * (2 * c * c // 16 + 99) for blocks, c in ((3, 256), (4, 512), (6, 1024), (3, 2048)))


@functools.cache
def build(**arguments) -> nn.Module:
    with torch.device("meta"):
        return create_model("resnet50_cbam_erf", **arguments)


def count(model: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in model.modules())


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_it_is_made_of_the_papers_parts():
    model = build()
    assert count(model, nn.ReLU) == 0
    assert count(model, nn.PReLU) == 49 + 4 * 3  # ResNet-50's own and three in each shortcut
    assert count(model, CBAMERF) == 16
    assert count(model, HierarchicalShortcut) == 4
    assert parameters(model) == 28_362_260


def test_an_attention_follows_each_bottleneck():
    stages = [getattr(build().backbone, f"layer{i}") for i in (1, 2, 3, 4)]
    assert [len(stage) for stage in stages] == [3, 4, 6, 3]
    assert {tuple(type(part).__name__ for part in block) for stage in stages for block in stage} == {("Bottleneck", "CBAMERF")}


@pytest.mark.parametrize(
    ("arguments", "added"),
    [
        ({}, 0),
        ({"activation": "prelu"}, 49),
        ({"attention": "cbam"}, CBAM_PARAMETERS),
        ({"attention": "cbam_erf"}, CBAM_PARAMETERS),
        ({"stem": "imagenet"}, 64 * (49 - 9)),
    ],
    ids=str,
)
def test_its_parts_are_arguments(arguments: dict, added: int):
    model = build(**(PLAIN | arguments))
    assert parameters(model) == 23_522_375 - 64 * (3 * 49 - 9) + added  # ResNet-50's, with a grey 3x3 stem
    assert count(model, CBAM) == (16 if "attention" in arguments else 0)
    assert count(model, nn.PReLU) == (49 if "activation" in arguments else 0)


def test_shortcuts_of_relu_have_no_prelu():
    model = build(activation="relu")
    assert (count(model, nn.PReLU), count(model, HierarchicalShortcut)) == (0, 4)


def test_maps_shrink_from_24_to_3_at_48_px():
    maps = build().eval().attention_maps(torch.zeros(2, 1, 48, 48, device="meta"))
    assert list(maps)[:4] == ["layer1.0", "layer1.1", "layer1.2", "layer2.0"]
    assert [value.shape[-1] for value in maps.values()] == [24] * 3 + [12] * 4 + [6] * 6 + [3] * 3
    assert build(attention=None).attention_maps(torch.zeros(1, 1, 48, 48, device="meta")) == {}


def test_slopes_do_not_decay():
    assert len(build().no_weight_decay()) == 61


@pytest.mark.parametrize("argument", ["activation", "shortcut", "attention", "stem"])
def test_an_unknown_part_is_refused(argument: str):
    with pytest.raises(MienError, match=f"{argument} must be .*got 'other'"):
        build(**{argument: "other"})
