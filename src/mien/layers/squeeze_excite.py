"""Squeeze and excitation: channel attention from the mean over the positions.

Papers: Hu et al. 2018 (SENet), eqs. 2-4, reduction 16; Roy et al., "ResEmoteNet", eqs. 2-6, whose linear layers have no bias:
`Y = sigmoid(W2 relu(W1 avg(X))) * X`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mien.layers.channel_attention import reduced


class SqueezeExcite(nn.Module):
    """Scale every channel of a feature map by one weight in (0, 1).

    Args:
        channels: Channels of the input, a multiple of `reduction`.
        reduction: Ratio of the channels to the hidden layer.

    Raises:
        ValueError: `channels` is not divisible by `reduction`.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = reduced(channels, reduction)
        self.squeeze = nn.Linear(channels, hidden, bias=False)
        self.excite = nn.Linear(hidden, channels, bias=False)

    def attention(self, x: Tensor) -> Tensor:
        """Return the weights, (N, C, 1, 1) in (0, 1), for a feature map (N, C, H, W)."""
        weights = torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3))))))  # (N, C)
        return weights[:, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` scaled by its attention, same shape."""
        return x * self.attention(x)
