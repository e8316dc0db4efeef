import numpy as np
import pytest
import torch

from mien.layers.squeeze_excite import SqueezeExcite


def test_it_follows_its_equations():
    torch.manual_seed(0)
    layer = SqueezeExcite(6, reduction=3).double()
    x = torch.randn(2, 6, 3, 5, dtype=torch.float64)
    first, second, values = layer.squeeze.weight.detach().numpy(), layer.excite.weight.detach().numpy(), x.numpy()
    z = values.sum((2, 3)) / 15  # eq. 2
    s = 1 / (1 + np.exp(-np.maximum(z @ first.T, 0) @ second.T))  # eqs. 3-5
    np.testing.assert_allclose(layer(x).detach().numpy(), values * s[:, :, None, None], rtol=1e-12)  # eq. 6


def test_parameters_are_those_of_two_layers_without_bias():
    assert sum(p.numel() for p in SqueezeExcite(256, 16).parameters()) == 2 * 256 * 16


def test_gradients_are_exact():
    torch.manual_seed(0)
    x = torch.randn(1, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(SqueezeExcite(4, 2).double(), (x,))


def test_channels_the_reduction_does_not_divide_are_refused():
    with pytest.raises(ValueError, match="24 channels cannot be reduced 16 times; choose a divisor of 24"):
        SqueezeExcite(24)
