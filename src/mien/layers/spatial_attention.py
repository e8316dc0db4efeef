"""Spatial attention from the mean and the maximum over the channels.

Papers: Woo et al. 2018 (CBAM), eq. 3, `M(F) = sigmoid(conv([avg(F); max(F)]))`, whose kernel is 7x7; Wang and Zhu, "Face
Expression Recognition with Embedded Attention Mechanism and Channel Shuffle", row SA of Table 1 (19 parameters: a 3x3
convolution of two maps into one, with bias).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SpatialAttention(nn.Module):
    """Scale every position of a feature map by one weight in (0, 1).

    Args:
        kernel_size: Side of the convolution over the two pooled maps, odd, px.
    """

    def __init__(self, kernel_size: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2)

    def attention(self, x: Tensor) -> Tensor:
        """Return the weights, (N, 1, H, W) in (0, 1), for a feature map (N, C, H, W)."""
        pooled = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)  # (N, 2, H, W)
        return torch.sigmoid(self.conv(pooled))

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` scaled by its attention, same shape."""
        return x * self.attention(x)
