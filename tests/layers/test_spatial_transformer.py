import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from mien.layers.spatial_transformer import DAMPING, SpatialTransformer, _grid

TILT = [-0.2, 0.1, 0.05, -0.1, -0.3, 0.1]
"""A window turned, shrunk and moved, as theta's difference from the identity."""


def transformer(offset: list[float], channels: int = 2) -> SpatialTransformer:
    torch.manual_seed(0)
    layer = SpatialTransformer(channels, width=4).double()
    with torch.no_grad():
        layer.regression.bias.copy_(torch.tensor(offset, dtype=torch.float64) / DAMPING)
    return layer


def by_the_equations(x: NDArray[np.float64], theta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Eq. 1 and a bilinear sampler, pixel by pixel; pixel centres at (2 i + 1) / size - 1."""
    _, height, width = x.shape
    y = np.zeros_like(x)
    for i, j in np.ndindex(height, width):
        x_s, y_s = theta @ [(2 * j + 1) / width - 1, (2 * i + 1) / height - 1, 1]
        row, column = ((y_s + 1) * height - 1) / 2, ((x_s + 1) * width - 1) / 2
        for r, c in np.ndindex(height, width):
            y[:, i, j] += x[:, r, c] * max(0, 1 - abs(row - r)) * max(0, 1 - abs(column - c))
    return y


def test_it_is_the_identity_at_the_start():
    torch.manual_seed(0)
    layer = SpatialTransformer(3, width=8)
    for size in ((9, 9), (17, 12)):
        x = torch.randn(2, 3, *size)
        assert torch.equal(layer.theta(x), torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(2, 2, 3))
        torch.testing.assert_close(layer(x), x, rtol=0, atol=1e-5)
        torch.testing.assert_close(layer.coverage(x), torch.ones(2, *size), rtol=0, atol=1e-5)


def test_it_follows_its_equations():
    layer, x = transformer(TILT), torch.randn(2, 2, 6, 5, dtype=torch.float64)
    theta = layer.theta(x).detach().numpy()
    np.testing.assert_allclose(theta[0], np.eye(2, 3) + np.reshape(TILT, (2, 3)), atol=1e-6)
    expected = np.stack([by_the_equations(*pair) for pair in zip(x.numpy(), theta, strict=True)])
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, atol=1e-10)


def test_gradients_are_exact():
    layer = transformer(TILT)
    with torch.no_grad():
        layer.regression.weight.normal_(std=0.02 / DAMPING)
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


def test_coverage_is_how_much_of_each_position_is_read():
    layer, x = transformer(TILT), torch.randn(1, 2, 6, 6, dtype=torch.float64)
    theta = layer.theta(x)[0].detach().numpy()
    positions = np.eye(36).reshape(36, 6, 6)
    read = by_the_equations(positions, theta).sum((1, 2)).reshape(6, 6)
    np.testing.assert_allclose(layer.coverage(x)[0].numpy(), read / read.max(), atol=1e-10)
    with torch.inference_mode():
        torch.testing.assert_close(layer.coverage(x.clone()), layer.coverage(x))


def test_coverage_of_a_window_outside_is_zero():
    layer = transformer([0, 0, 5, 0, 0, 5])
    assert layer.coverage(torch.randn(1, 2, 6, 6, dtype=torch.float64)).abs().max() == 0


def test_the_grid_is_torchs():
    theta = torch.eye(2, 3).double() + torch.randn(3, 2, 3, dtype=torch.float64) / 3
    for height, width in ((6, 5), (1, 9)):
        torch.testing.assert_close(
            _grid(theta, height, width), F.affine_grid(theta, [3, 1, height, width], align_corners=False)
        )


def test_the_window_keeps_its_precision_in_bfloat16():
    layer, x = transformer([0.0] * 6).float(), torch.rand(1, 2, 112, 112)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(layer(x), x, rtol=0, atol=1e-4)
    moved = transformer([0.002, 0, 0, 0, 0, 0]).float()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert (moved(x) - x).abs().max() > 0.02  # a tenth of a pixel, at the left and right


def test_theta_keeps_its_precision_in_bfloat16():
    layer, x = transformer([0, 0, 0.001, 0, 0, 0]).float(), torch.randn(1, 2, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.theta(x)[0, 0, 2].item() == pytest.approx(0.001, rel=0.01)


def test_training_makes_theta_follow_a_shift():
    """A bright square stands left or right; the target is the same square in the middle."""
    torch.manual_seed(0)
    layer = SpatialTransformer(1, width=4)
    x = torch.zeros(2, 1, 16, 16)
    x[0, :, 5:11, 2:8] = 1
    x[1, :, 5:11, 8:14] = 1
    target = torch.zeros(2, 1, 16, 16)
    target[:, :, 5:11, 5:11] = 1
    optimizer = torch.optim.Adam(layer.parameters(), 0.05)
    losses = []
    for _ in range(60):
        loss = (layer(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    left, right = layer.theta(x)[:, 0, 2].tolist()
    assert losses[-1] < 0.5 * losses[0]
    assert left < -0.1 < 0.1 < right


def test_a_backbones_rate_does_not_throw_the_window_out_of_the_image():
    """Rough gradients of images of noise; undamped, theta ends more than ten image sides away."""
    torch.manual_seed(0)
    layer = SpatialTransformer(3)
    optimizer = torch.optim.SGD(layer.parameters(), 0.02, momentum=0.9)
    x, wanted = torch.randn(8, 3, 48, 48), torch.randn(100, 3, 48, 48)
    for each in wanted:
        loss = (layer(x) * each).mean((1, 2, 3)).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (layer.theta(x) - layer.identity).abs().max() < 0.2
