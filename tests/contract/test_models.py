"""What every registered network must do.

One instance a network, woken (see `network`) and shared by its tests, at the least size it takes.
"""

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.errors import MienError, UnknownNameError
from mien.models import Model, create_model, names

pytestmark = pytest.mark.filterwarnings("ignore:TF32 acceleration")  # of switching oneDNN off

SYSTEMS = {"resnet50_cbam_erf", "resemotenet", "stn_resnet50", "vgg16_gcca", "sa_csp_ca"}
GOLDEN = Path(__file__).parent / "golden.json"
"""The first of two images' logits, in float64 at seed 0. A new network's are printed by the test that misses them."""

LARGE = 50_000_000
"""Parameters from which on a network runs without oneDNN, which would copy all weights."""


@pytest.fixture(scope="module", params=names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def network(name: str, trim_memory: Callable[[], None]) -> Iterator[Model]:
    """A network at seed 0, in evaluation mode, with no batch norm at the zero that timm starts some of them at."""
    torch.manual_seed(0)
    model = create_model(name).eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data = torch.linspace(0.5, 1.5, len(module.weight))
    with torch.backends.mkldnn.flags(enabled=sum(p.numel() for p in model.parameters()) < LARGE):
        yield model
    model.to_empty(device="meta")  # pytest may hold it a little longer, but the next network needs the memory
    trim_memory()


@pytest.fixture(scope="module")
def images(network: Model) -> Tensor:
    side = network.minimum_size
    return torch.linspace(0, 400, 2 * network.in_channels * side * side).sin().reshape(2, network.in_channels, side, side)


@contextmanager
def large_in_parts(network: Model) -> Iterator[list[nn.Conv2d]]:
    """Let the largest layers cast their filters part by part: a cast copy of all filters of one takes up to 0.8 GB."""

    def convolve(layer: nn.Conv2d, x: Tensor) -> Tensor:
        weights = layer.weight.chunk(32)
        biases = [None] * 32 if layer.bias is None else layer.bias.to(x.dtype).chunk(32)
        part = torch.empty_like(weights[0], dtype=x.dtype)
        maps = [F.conv2d(x, part.copy_(w), b, layer.stride, layer.padding) for w, b in zip(weights, biases, strict=True)]
        return torch.cat(maps, dim=1)

    large = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 1 << 22]
    for layer in large:
        layer.forward = partial(convolve, layer)
    yield large
    for layer in large:
        del layer.forward


@contextmanager
def in_float64(network: Model) -> Iterator[None]:
    """Let a network compute in float64."""
    with large_in_parts(network) as large:
        holders = [layer for layer in network.modules() if [*layer.parameters(False), *layer.buffers(False)]]
        small = [layer for layer in holders if layer not in large]
        for layer in small:
            layer.double()
        yield
        for layer in small:
            layer.float()


@pytest.fixture(scope="module")
def exact(network: Model, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The logits in float64: of the batch, of its first image alone, and of the batch after simplification."""
    with in_float64(network):
        batch, single = network(images.double()), network(images[:1].double())
    if type(network).simplify is Model.simplify:  # it changes nothing
        return batch, single, batch
    simple = copy.deepcopy(network)
    simple.simplify()
    return batch, single, simple.double()(images.double())


@pytest.fixture(scope="module")
def shapes(name: str) -> Model:
    """The network for one channel and five classes, without memory: for what shapes alone tell."""
    with torch.device("meta"):
        return create_model(name, num_classes=5, in_channels=1)


def test_golden_logits(name: str, exact: tuple[Tensor, ...]):
    golden = json.loads(GOLDEN.read_text())
    assert name in golden, f'add to {GOLDEN.name}: "{name}": {exact[0][0].tolist()}'
    torch.testing.assert_close(exact[0][0], torch.tensor(golden[name], dtype=torch.float64), rtol=1e-5, atol=1e-9)


def test_forward_is_features_then_head(network: Model, images: Tensor, exact: tuple[Tensor, ...]):
    features = network.forward_features(images)
    logits = network.forward_head(features)
    assert features.ndim == 4
    assert logits.shape == (2, network.num_classes) == (2, 7)
    torch.testing.assert_close(logits.double(), exact[0], rtol=1e-3, atol=1e-4 * exact[0].abs().max().item())


def test_batched_equals_single(exact: tuple[Tensor, ...]):
    batch, single, _ = exact
    torch.testing.assert_close(single[0], batch[0])


def test_simplified_it_says_the_same(exact: tuple[Tensor, ...]):
    batch, _, simple = exact
    torch.testing.assert_close(simple, batch)


def test_bfloat16_autocast(network: Model, images: Tensor):
    with large_in_parts(network), torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(network(images)).all()


def test_attention_maps_are_maps(name: str, network: Model, images: Tensor):
    maps = network.attention_maps(images)
    assert maps or name not in SYSTEMS
    if not maps:
        return
    alone = network.attention_maps(images[:1])
    for key, value in maps.items():
        assert value.ndim == 3, key
        assert len(value) == 2
        assert 0 <= value.min() <= value.max() <= 1
        torch.testing.assert_close(alone[key][0], value[0], rtol=1e-3, atol=1e-4)


def test_grad_cam_has_a_layer_to_weight(network: Model, images: Tensor):
    kept: list[Tensor] = []
    hook = network.cam_layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    logits = network(images.clone().requires_grad_())
    hook.remove()
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), kept)
    assert gradient.ndim == 4
    assert gradient.abs().sum() > 0


def test_every_parameter_gets_a_gradient(shapes: Model):
    with torch.device("meta"):
        shapes.train()(torch.zeros(4, 1, *shapes.input_size)).square().mean().backward()
    without = [key for key, p in shapes.named_parameters() if p.grad is None]
    shapes.zero_grad()
    assert without == []


def test_what_must_not_decay_are_its_parameters(network: Model):
    assert network.no_weight_decay() <= {key for key, _ in network.named_parameters()}


def test_other_channels_are_refused(network: Model):
    other, side = 4 - network.in_channels, network.minimum_size
    with pytest.raises(MienError, match=rf"takes images of shape \(N, {network.in_channels}, H, W\), got \(2, {other}"):
        network(torch.zeros(2, other, side, side))


@pytest.mark.parametrize("shape", [(-1, 0), (0, -1)])
def test_a_size_too_small_is_refused(network: Model, shape: tuple[int, int]):
    least = network.minimum_size
    height, width = least + shape[0], least + shape[1]
    with pytest.raises(
        MienError, match=f"{height}x{width} px are too small for this network; resize to {least}x{least} or more"
    ):
        network(torch.zeros(2, network.in_channels, height, width))


def test_its_own_size_is_large_enough(network: Model):
    assert min(network.input_size) >= network.minimum_size


def test_other_classes_and_channels(shapes: Model):
    model = copy.deepcopy(shapes).eval().double()
    with torch.device("meta"):
        x = torch.zeros(2, 1, *model.input_size, dtype=torch.float64)
        assert model(x).shape == (2, 5)
        model.reset_classifier(11)
        assert model(x).shape == (2, model.num_classes) == (2, 11)
    assert {(p.dtype, p.device.type) for p in model.parameters()} == {(torch.float64, "meta")}
    with pytest.raises(MienError, match="at least 2 classes, got num_classes=1"):
        model.reset_classifier(1)


@pytest.mark.parametrize("classes", [0, 1, -1])
def test_fewer_than_two_classes_are_refused(name: str, classes: int):
    with pytest.raises(MienError, match="at least 2 classes"):
        create_model(name, num_classes=classes)


def test_an_unknown_argument_is_refused(name: str):
    with torch.device("meta"), pytest.raises(MienError, match="no_such_argument"):
        create_model(name, no_such_argument=1)


def test_an_unknown_name_lists_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'sa_csp_ca'"):
        create_model("sa_csp")
