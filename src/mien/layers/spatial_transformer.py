"""Spatial transformer: look at the input, choose an affine window, sample it.

Papers: Jaderberg et al. 2015, section 3 and eq. 1; Khoirullah et al., "Facial Expression Recognition Using Convolutional
Neural Network with Attention Module", Fig. 4 and eq. 1: `(x_s, y_s) = theta (x_t, y_t, 1)`, coordinates in [-1, 1]. The
localisation network is two convolutions of 64 filters and a regression. The paper leaves open, and ours takes from PyTorch's
own tutorial: kernels of 7x7 and 5x5, each followed by ReLU and a 2x2 max-pool; the first is of stride 2, for images of
224 px. The regression reads a 4x4 grid of cells, so that it knows where things are. It gives theta's difference from the
identity: zero at the start, kept at full precision in bfloat16, and decayed towards no transformation. Positions outside the
image read as zero.

The difference is a hundredth of what the regression says, because theta moves every pixel at once: at the rates a backbone
needs, an undamped window had left the image within a hundred steps on FER2013 and never came back.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GRID = 4
"""Cells a side the regression reads."""

DAMPING = 0.01
"""What the regression's answer is multiplied with."""


class SpatialTransformer(nn.Module):
    """Resample an image through the affine window its localisation network chooses; the identity until trained.

    Args:
        channels: Channels of the input.
        width: Filters of either convolution of the localisation network.
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
        """Return the windows, bilinearly sampled, same shape as `x`."""
        return _sample(x, self.theta(x))

    def coverage(self, x: Tensor) -> Tensor:
        """Return how much of each position of `x` (N, C, H, W) the window reads: (N, H, W) in [0, 1], 1 for the most read.

        It is the gradient of the sampled sum of an image by that image. All zero where the window lies outside.
        """
        with torch.inference_mode(False), torch.enable_grad():
            blank = torch.ones(len(x), 1, *x.shape[2:], device=x.device, dtype=self.identity.dtype, requires_grad=True)
            sampled = _sample(blank, self.theta(x.detach().clone()).detach())
            (read,) = torch.autograd.grad(sampled.sum(), blank)
        most = read.amax((1, 2, 3), keepdim=True)
        return (read / most.clamp(min=torch.finfo(read.dtype).tiny))[:, 0]


def _sample(x: Tensor, theta: Tensor) -> Tensor:
    return F.grid_sample(x, _grid(theta, *x.shape[2:]).to(x.dtype), align_corners=False)


def _grid(theta: Tensor, height: int, width: int) -> Tensor:
    """Return where each pixel is read, (N, H, W, 2): torch's `affine_grid`, which autocast would round to bfloat16."""
    across, down = ((2 * torch.arange(n, device=theta.device, dtype=theta.dtype) + 1) / n - 1 for n in (width, height))
    by_x, by_y, shift = theta[..., None, None].unbind(2)  # each (N, 2, 1, 1)
    return (by_x * across + by_y * down[:, None] + shift).movedim(1, 3)
