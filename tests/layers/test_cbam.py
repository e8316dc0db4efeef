import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from mien.layers.cbam import CBAM, spatial_maps
from mien.layers.cbam_erf import CBAMERF


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-x))


def relu(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(x, 0)


def serf(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.vectorize(lambda v: v * math.erf(math.log(1 + math.exp(v))))(x)


def by_the_equations(layer: CBAM, x: NDArray[np.float64], activation) -> NDArray[np.float64]:
    """CBAM's eqs. 1 to 3, position by position."""
    w0, w1 = (part.weight.detach().numpy()[:, :, 0, 0] for part in (layer.channel.squeeze, layer.channel.excite))
    flat = x.reshape(*x.shape[:2], -1)
    scores = sum(activation(descriptor @ w0.T) @ w1.T for descriptor in (flat.mean(2), flat.max(2)))
    x = x * sigmoid(scores)[:, :, None, None]
    kernel, bias = layer.spatial.conv.weight.detach().numpy()[0], layer.spatial.conv.bias.item()
    maps = np.pad(np.stack([x.mean(1), x.max(1)], axis=1), ((0, 0), (0, 0), (3, 3), (3, 3)))
    weights = np.empty((len(x), *x.shape[2:]))
    for i, j in np.ndindex(*x.shape[2:]):
        weights[:, i, j] = sigmoid((maps[:, :, i : i + 7, j : j + 7] * kernel).sum((1, 2, 3)) + bias)
    return x * weights[:, None]


@pytest.mark.parametrize(("kind", "activation"), [(CBAM, relu), (CBAMERF, serf)])
def test_it_follows_its_equations(kind: type[CBAM], activation):
    torch.manual_seed(0)
    layer = kind(8, reduction=4).double()
    x = torch.randn(2, 8, 5, 6, dtype=torch.float64)
    np.testing.assert_allclose(layer(x).detach().numpy(), by_the_equations(layer, x.numpy(), activation), rtol=1e-10)


@pytest.mark.parametrize("kind", [CBAM, CBAMERF])
def test_gradients_are_exact(kind: type[CBAM]):
    torch.manual_seed(0)
    x = torch.randn(1, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(kind(4, reduction=2).double(), (x,))


@pytest.mark.parametrize("kind", [CBAM, CBAMERF])
def test_channels_the_reduction_does_not_divide_are_refused(kind: type[CBAM]):
    with pytest.raises(ValueError, match="24 channels cannot be reduced 16 times"):
        kind(24)


def test_serf_keeps_alive_what_relu_switches_off():
    torch.manual_seed(0)
    plain, erf = CBAM(8, 8), CBAMERF(8, 8)
    erf.load_state_dict(plain.state_dict())
    x = -torch.sign(plain.channel.squeeze.weight.detach()) + torch.zeros(1, 8, 2, 2)  # the one hidden unit is negative
    for layer, dead in ((plain, True), (erf, False)):
        layer(x).sum().backward()
        assert (layer.channel.squeeze.weight.grad.abs().sum() == 0) == dead


def test_the_maps_of_a_network_carry_the_names_of_their_holders():
    network = nn.ModuleDict({"first": nn.Sequential(nn.Conv2d(3, 8, 3), CBAM(8, 4)), "second": nn.Sequential(CBAM(8, 4))})
    x = torch.randn(2, 3, 7, 7)
    maps = spatial_maps(network, lambda: network["second"](network["first"](x)))
    assert {name: tuple(value.shape) for name, value in maps.items()} == {"first": (2, 5, 5), "second": (2, 5, 5)}
    expected = network["first"][1].attention(network["first"][0](x))[:, 0]
    torch.testing.assert_close(maps["first"], expected)
    assert not any(module._forward_hooks for module in network.modules())
