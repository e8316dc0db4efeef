"""Channel attention from the mean and the maximum over the positions.

Papers: Woo et al. 2018 (CBAM), eq. 2, `M(F) = sigmoid(W1 relu(W0 avg(F)) + W1 relu(W0 max(F)))`, whose reduction is 16; Wang
and Zhu, "Face Expression Recognition with Embedded Attention Mechanism and Channel Shuffle", row CA of Table 1 (512 channels,
reduction 2, no bias: 262,144 parameters).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class ChannelAttention(nn.Module):
    """Scale every channel of a feature map by one weight in (0, 1).

    The pooled descriptors pass through the same two-layer perceptron without bias.

    Args:
        channels: Channels of the input, a multiple of `reduction`.
        reduction: Ratio of the channels to the hidden layer.
        activation: Function between the two layers.
        max_pool: Pool the maximum over the positions as well as the mean.

    Raises:
        ValueError: `channels` is not divisible by `reduction`.
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 2,
        activation: Callable[[Tensor], Tensor] = torch.relu,
        max_pool: bool = True,
    ) -> None:
        super().__init__()
        self.max_pool = max_pool
        self.activation = activation
        hidden = reduced(channels, reduction)
        self.squeeze = nn.Conv2d(channels, hidden, 1, bias=False)
        self.excite = nn.Conv2d(hidden, channels, 1, bias=False)

    def _mlp(self, descriptor: Tensor) -> Tensor:
        return self.excite(self.activation(self.squeeze(descriptor)))

    def attention(self, x: Tensor) -> Tensor:
        """Return the weights, (N, C, 1, 1) in (0, 1), for a feature map (N, C, H, W)."""
        scores = self._mlp(x.mean((2, 3), keepdim=True))
        if self.max_pool:
            scores = scores + self._mlp(x.amax((2, 3), keepdim=True))
        return torch.sigmoid(scores)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` scaled by its attention, same shape."""
        return x * self.attention(x)


def reduced(channels: int, reduction: int) -> int:
    """Return the width of an attention's hidden layer, `channels / reduction`.

    Raises:
        ValueError: `channels` is not divisible by `reduction`.

    >>> reduced(256, 16)
    16
    """
    if reduction < 1 or channels % reduction:
        raise ValueError(f"{channels} channels cannot be reduced {reduction} times; choose a divisor of {channels}")
    return channels // reduction
