import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from mien.layers.hierarchical_shortcut import HierarchicalShortcut


def shortcut(stride: int = 2, activation=nn.PReLU) -> HierarchicalShortcut:
    """A small one whose batch norms do something, in float64."""
    torch.manual_seed(0)
    layer = HierarchicalShortcut(8, 6, stride, activation=activation).double().eval()
    for module in layer.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_mean, module.running_var, module.weight.data, module.bias.data):
                values.copy_(torch.rand(len(values)) + 0.5)
    return layer


def norm(x: NDArray[np.float64], layer: nn.BatchNorm2d) -> NDArray[np.float64]:
    mean, var, weight, bias = (
        v.detach().numpy()[None, :, None, None] for v in (layer.running_mean, layer.running_var, layer.weight, layer.bias)
    )
    return (x - mean) / np.sqrt(var + layer.eps) * weight + bias


def conv3(x: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    y = np.empty((len(x), len(weight), *x.shape[2:]))
    for i, j in np.ndindex(*x.shape[2:]):
        y[:, :, i, j] = np.einsum("nchw,ochw->no", padded[:, :, i : i + 3, j : j + 3], weight)
    return y


def by_the_equations(layer: HierarchicalShortcut, x: NDArray[np.float64], stride: int) -> NDArray[np.float64]:
    outputs = []
    for i, part in enumerate(np.split(x, 4, axis=1)):
        if i == 0:
            outputs.append(part)
            continue
        conv, batch_norm, prelu = layer.steps[i - 1]
        y = norm(conv3(part + outputs[-1], conv.weight.detach().numpy()), batch_norm)
        outputs.append(np.where(y > 0, y, prelu.weight.item() * y))
    joined = np.concatenate(outputs, axis=1)
    cells = [(i, j) for i in range(0, x.shape[2], stride) for j in range(0, x.shape[3], stride)]
    pooled = np.stack([joined[:, :, i : i + stride, j : j + stride].mean((2, 3)) for i, j in cells], axis=2)
    fused = np.einsum("ncp,oc->nop", pooled, layer.fuse[0].weight.detach().numpy()[:, :, 0, 0])
    return norm(fused.reshape(len(x), -1, -(-x.shape[2] // stride), -(-x.shape[3] // stride)), layer.fuse[1])


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(4, 6), (5, 5), (3, 2)])
def test_it_follows_its_equations(stride: int, size: tuple[int, int]):
    layer = shortcut(stride)
    x = torch.randn(2, 8, *size, dtype=torch.float64)
    np.testing.assert_allclose(layer(x).detach().numpy(), by_the_equations(layer, x.numpy(), stride), rtol=1e-10)


def test_gradients_are_exact():
    x = torch.randn(1, 8, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(shortcut(), (x,))


@pytest.mark.parametrize("activation", [nn.PReLU, nn.ReLU])
@pytest.mark.parametrize("size", [(8, 8), (5, 5), (3, 3), (2, 2)])
def test_every_input_position_has_a_gradient(activation, size: tuple[int, int]):
    x = torch.randn(2, 8, *size, dtype=torch.float64, requires_grad=True)
    y = shortcut(activation=activation)(x)
    (y * torch.randn_like(y)).sum().backward()
    assert (x.grad.abs().sum(1) > 0).all()


def test_a_strided_projection_skips_three_quarters():
    """What the layer is for: the same test finds the plain shortcut wanting."""
    x = torch.randn(1, 8, 8, 8, requires_grad=True)
    nn.Conv2d(8, 6, 1, stride=2)(x).sum().backward()
    assert (x.grad.abs().sum(1) > 0).float().mean() == 0.25


def test_every_parameter_takes_part():
    layer = HierarchicalShortcut(8, 6)
    layer(torch.randn(4, 8, 6, 6)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())


def test_channels_the_groups_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="10 channels cannot be split in 4 groups; choose a divisor of 10"):
        HierarchicalShortcut(10, 6)
