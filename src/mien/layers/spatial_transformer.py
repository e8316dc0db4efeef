"""Spatial transformer: predict an affine window from the input and sample it.

Papers: Jaderberg et al. 2015, section 3 and eq. 1; Khoirullah et al., "Facial Expression Recognition Using Convolutional
Neural Network with Attention Module", Fig. 4 and eq. 1: `(x_s, y_s) = theta (x_t, y_t, 1)`, coordinates in [-1, 1]. The
localisation network is two convolutions of 64 filters and a regression. Where the paper is silent, this follows PyTorch's
tutorial: kernels of 7x7 and 5x5, each followed by ReLU and a 2x2 max-pool; the first has stride 2, for images of 224 px. The
regression gets a 4x4 grid of cells, so that it has spatial information. It predicts theta minus the identity: zero at the
start, precise in bfloat16, and decayed towards no transformation. Positions outside the image are zero.

The output of the regression is multiplied by 0.01, because theta moves every pixel at once. Without that factor, at the
learning rates a backbone needs, the window left the image within a hundred steps on FER2013 and never came back.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GRID = 4
"""Cells per side of the regression's input."""

DAMPING = 0.01
"""Factor of the regression's output."""


class SpatialTransformer(nn.Module):
    """Resample an image through an affine window that its localisation network predicts; the identity until trained.

    Args:
        channels: Channels of the input.
        width: Filters of each convolution of the localisation network.
    """

    identity: Tensor

    def __init__(self, channels: int, width: int = 64) -> None:
        super().__init__()
        self.localisation = nn.Sequential(
            nn.Conv2d(channels, width, 7, stride=2, padding=3),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(width, width, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.AdaptiveAvgPool2d(GRID),
            nn.Flatten(),
        )
        self.regression = nn.Linear(width * GRID**2, 6)
        nn.init.zeros_(self.regression.weight)
        nn.init.zeros_(self.regression.bias)
        self.register_buffer("identity", torch.eye(2, 3), persistent=False)

    def theta(self, x: Tensor) -> Tensor:
        """Return the affine maps (N, 2, 3) from output to input coordinates, both in [-1, 1], for images (N, C, H, W).

        The sampling box's corners are `theta @ (±1, ±1, 1)`, x before y.
        """
        return self.identity + DAMPING * self.regression(self.localisation(x)).reshape(-1, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return the bilinearly sampled windows, same shape as `x`."""
        return _sample(x, self.theta(x))

    def coverage(self, x: Tensor) -> Tensor:
        """Return how much each position of `x` (N, C, H, W) contributes to the window: (N, H, W) in [0, 1], maximum 1.

        It is the gradient of the sum of the sampled image with respect to the image. All zero for a window outside the image.
        """
        with torch.inference_mode(False), torch.enable_grad():
            blank = torch.ones(len(x), 1, *x.shape[2:], device=x.device, dtype=self.identity.dtype, requires_grad=True)
            sampled = _sample(blank, self.theta(x.detach().clone()).detach())
            (read,) = torch.autograd.grad(sampled.sum(), blank)
        maximum = read.amax((1, 2, 3), keepdim=True)
        return (read / maximum.clamp(min=torch.finfo(read.dtype).tiny))[:, 0]


def _sample(x: Tensor, theta: Tensor) -> Tensor:
    return F.grid_sample(x, _grid(theta, *x.shape[2:]).to(x.dtype), align_corners=False)


def _grid(theta: Tensor, height: int, width: int) -> Tensor:
    """Return torch's `affine_grid`, (N, H, W, 2), without the rounding to bfloat16 under autocast."""
    across, down = ((2 * torch.arange(n, device=theta.device, dtype=theta.dtype) + 1) / n - 1 for n in (width, height))
    by_x, by_y, shift = theta[..., None, None].unbind(2)  # each (N, 2, 1, 1)
    return (by_x * across + by_y * down[:, None] + shift).movedim(1, 3)
