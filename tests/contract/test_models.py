"""What every registered network must do.

One instance a network, woken (see `network`) and shared by its tests, at the least size it takes.
"""

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mien.errors import MienError, UnknownNameError
from mien.models import Model, create_model, names

SYSTEMS = {"resnet50_cbam_erf", "resemotenet", "stn_resnet50", "vgg16_gcca", "sa_csp_ca"}
GOLDEN = Path(__file__).parent / "golden.json"
"""The first of two images' logits, in float64 at seed 0. A new network's are printed by the test that misses them."""


@pytest.fixture(scope="module", params=names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def network(name: str) -> Model:
    """A network at seed 0, in evaluation mode, with no batch norm at the zero that timm starts some of them at."""
    torch.manual_seed(0)
    model = create_model(name).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data = torch.linspace(0.5, 1.5, len(module.weight))
    return model


@pytest.fixture(scope="module")
def images(network: Model) -> Tensor:
    side = network.minimum_size
    return torch.linspace(0, 400, 2 * network.in_channels * side * side).sin().reshape(2, network.in_channels, side, side)


@pytest.fixture(scope="module")
def exact(network: Model, images: Tensor) -> Tensor:
    """The logits in float64."""
    with torch.no_grad():
        logits = network.double()(images.double())
    network.float()
    return logits


def test_golden_logits(name: str, exact: Tensor):
    golden = json.loads(GOLDEN.read_text())
    assert name in golden, f'add to {GOLDEN.name}: "{name}": {exact[0].tolist()}'
    torch.testing.assert_close(exact[0], torch.tensor(golden[name], dtype=torch.float64), rtol=1e-5, atol=1e-9)


def test_forward_is_features_then_head(network: Model, images: Tensor, exact: Tensor):
    with torch.no_grad():
        features = network.forward_features(images)
        logits = network.forward_head(features)
    assert features.ndim == 4
    assert logits.shape == (2, network.num_classes) == (2, 7)
    torch.testing.assert_close(logits.double(), exact, rtol=1e-3, atol=1e-4 * exact.abs().max().item())


def test_batched_equals_single(network: Model, images: Tensor, exact: Tensor):
    with torch.no_grad():
        single = network.double()(images[:1].double())
    network.float()
    torch.testing.assert_close(single[0], exact[0])


def test_simplified_it_says_the_same(network: Model, images: Tensor, exact: Tensor):
    simple = copy.deepcopy(network).double()
    simple.simplify()
    with torch.no_grad():
        torch.testing.assert_close(simple(images.double()), exact)


def test_bfloat16_autocast(network: Model, images: Tensor):
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert torch.isfinite(network(images)).all()


def test_attention_maps_are_maps(name: str, network: Model, images: Tensor):
    with torch.no_grad():
        maps = network.attention_maps(images)
        alone = network.attention_maps(images[:1])
    assert maps or name not in SYSTEMS
    for key, value in maps.items():
        assert value.ndim == 3, key
        assert len(value) == 2
        assert 0 <= value.min() <= value.max() <= 1
        torch.testing.assert_close(alone[key][0], value[0], rtol=1e-3, atol=1e-4)


def test_grad_cam_has_a_layer_to_weigh(network: Model, images: Tensor):
    kept: list[Tensor] = []
    hook = network.cam_layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    logits = network(images)
    hook.remove()
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), kept)
    assert gradient.ndim == 4
    assert gradient.abs().sum() > 0


def test_every_parameter_gets_a_gradient(network: Model, images: Tensor):
    network.train()(torch.cat([images, -images])).square().mean().backward()
    without = [key for key, p in network.named_parameters() if p.grad is None]
    network.zero_grad()
    network.eval()
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


def test_other_classes_and_channels(name: str):
    with torch.device("meta"):
        model = create_model(name, num_classes=5, in_channels=1).double()
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
