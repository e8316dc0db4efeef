"""Channel attention over the average and the maximum of the positions.

Paper: Wang and Zhu, "Face Expression Recognition with Embedded Attention Mechanism and Channel Shuffle", row CA of
Table 1 (512 channels, reduction 2, no bias: 262,144 parameters); the form is CBAM's (Woo et al. 2018, eq. 2), whose reduction
is 16.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ChannelAttention(nn.Module):
    """Scale every channel of a feature map by one weight in (0, 1).

    Both pooled descriptors pass through one shared two-layer perceptron without bias.

    Args:
        channels: Channels of the input.
        reduction: Factor the hidden layer is narrower by.
    """

    def __init__(self, channels: int, reduction: int = 2) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.excite = nn.Conv2d(channels // reduction, channels, 1, bias=False)

    def _mlp(self, descriptor: Tensor) -> Tensor:
        return self.excite(torch.relu(self.squeeze(descriptor)))

    def attention(self, x: Tensor) -> Tensor:
        """Return the weights, (N, C, 1, 1) in (0, 1), for a feature map (N, C, H, W)."""
        average = x.mean((2, 3), keepdim=True)
        maximum = x.amax((2, 3), keepdim=True)
        return torch.sigmoid(self._mlp(average) + self._mlp(maximum))

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` scaled by its attention, same shape."""
        return x * self.attention(x)
