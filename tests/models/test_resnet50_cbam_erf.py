import functools
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

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


def bottlenecks(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if type(module).__name__ == "Bottleneck"]


def test_each_bottleneck_attends_before_its_addition():
    torch.manual_seed(0)
    block = create_model("resnet50_cbam_erf").backbone.layer2[1].double().eval()
    nn.init.normal_(block.bn3.weight)
    x = torch.randn(2, 512, 3, 3, dtype=torch.float64)
    branch = block.bn3(block.conv3(block.act2(block.bn2(block.conv2(block.act1(block.bn1(block.conv1(x))))))))
    torch.testing.assert_close(block(x), block.act3(block.se(branch) + x))
    assert {type(block.se) for block in bottlenecks(build())} == {CBAMERF}


def test_attention_can_follow_the_addition():
    stages = [getattr(build(placement="after").backbone, f"layer{i}") for i in (1, 2, 3, 4)]
    assert [len(stage) for stage in stages] == [3, 4, 6, 3]
    assert {tuple(type(part).__name__ for part in block) for stage in stages for block in stage} == {("Bottleneck", "CBAMERF")}
    assert parameters(build(placement="after")) == parameters(build())


def start(change: Callable[[nn.Module], object] = lambda model: None, **arguments) -> tuple[list[float], float]:
    """Return the standard deviation of each of the 16 blocks' outputs and the norm of the stem's gradient, before training."""
    torch.manual_seed(0)
    model = create_model("resnet50_cbam_erf", **arguments).train()
    change(model)
    random = torch.Generator().manual_seed(0)
    images = F.interpolate(torch.randn(4, 1, 6, 6, generator=random), (48, 48), mode="bicubic")  # smooth, as faces are
    scales: list[float] = []
    for stage in (getattr(model.backbone, f"layer{i}") for i in (1, 2, 3, 4)):
        for block in stage:
            block.register_forward_hook(lambda module, inputs, output: scales.append(output.std().item()))
    loss = F.cross_entropy(model(images), torch.arange(4))
    (gradient,) = torch.autograd.grad(loss, model.backbone.conv1.weight)
    return scales, gradient.norm().item()


def test_at_the_start_the_signal_keeps_its_scale_and_the_stem_gets_the_gradient_it_has_without_attention():
    scales, gradient = start()
    without, gradient_without = start(attention=None)
    assert len(scales) == 16
    assert max(scales) < 1.5 * min(scales)
    assert scales == pytest.approx(without, rel=0.02)
    assert gradient == pytest.approx(gradient_without, rel=0.1)
    assert gradient > 1


def test_after_the_addition_norms_that_start_at_one_keep_the_scale():
    scales, gradient = start(placement="after")
    assert max(scales) < 5 * min(scales)
    assert gradient > 1
    zeroed, gradient_zeroed = start(lambda model: [block.zero_init_last() for block in bottlenecks(model)], placement="after")
    assert min(zeroed) < 0.01 * max(zeroed), "what the norms are for"
    assert gradient_zeroed < 0.3


def test_the_channel_attention_can_pool_the_mean_alone():
    """The paper's text mentions "adaptive global average pooling" alone; CBAM also pools the maximum."""
    pools = {
        value: {module.channel.max_pool for module in build(channel_max_pool=value).modules() if isinstance(module, CBAM)}
        for value in (True, False)
    }
    assert pools == {True: {True}, False: {False}}


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
    after = build(placement="after").eval().attention_maps(torch.zeros(2, 1, 48, 48, device="meta"))
    assert {name: value.shape for name, value in after.items()} == {name: value.shape for name, value in maps.items()}
    assert build(attention=None).attention_maps(torch.zeros(1, 1, 48, 48, device="meta")) == {}


def test_slopes_do_not_decay():
    assert len(build().no_weight_decay()) == 61


@pytest.mark.parametrize("argument", ["activation", "shortcut", "attention", "placement", "stem"])
def test_an_unknown_part_is_refused(argument: str):
    with pytest.raises(MienError, match=f"{argument} must be .*got 'other'"):
        build(**{argument: "other"})
