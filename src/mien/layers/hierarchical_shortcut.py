"""Hierarchical projection shortcut: the projection of a residual block that uses all of its input, at several scales.

Paper: Shang, "Facial Expression Recognition method based on residual network and attention mechanism", section 3.2 and Fig.
2c. A 1x1 convolution of stride 2 ignores three quarters of its input. The paper "progressively groups filters and applies
multi-scale feature fusion" along "hierarchical residual-like pathways" but prints no equation. Ours follows Res2Net (Gao et
al. 2021, eq. 1), whose words these are, with S groups of channels:

    y_1 = x_1,    y_i = act(norm(conv3x3(x_i + y_(i-1))))    for i = 2 .. S
    out = norm(conv1x1(pool([y_1; ..; y_S])))

The pool averages each stride x stride cell (none at stride 1), so that every position counts. At odd sizes the last cell is
smaller, and the size is rounded up as by the strided convolution.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mien.layers.csp import conv_bn


class HierarchicalShortcut(nn.Module):
    """Project a feature map to other channels and a smaller size without skipping a position.

    Args:
        inputs: Input channels I, a multiple of `scales`.
        outputs: Output channels O.
        stride: Factor by which the size is reduced.
        scales: Groups S of channels; the last passes S - 1 convolutions of 3x3.
        activation: Class of the activation after each convolution.

    Raises:
        ValueError: `inputs` is not divisible by `scales`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int = 2,
        scales: int = 4,
        activation: Callable[[], nn.Module] = nn.PReLU,
    ) -> None:
        super().__init__()
        if scales < 1 or inputs % scales:
            raise ValueError(f"{inputs} channels cannot be split in {scales} groups; choose a divisor of {inputs}")
        width = inputs // scales
        self.scales = scales
        self.steps = nn.ModuleList(nn.Sequential(*conv_bn(width, width, 3), activation()) for _ in range(scales - 1))
        self.pool = nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
        self.fuse = nn.Sequential(*conv_bn(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return a feature map (N, O, H/s, W/s), sizes rounded up, from one of (N, I, H, W)."""
        first, *others = x.chunk(self.scales, dim=1)  # (N, I/S, H, W) each
        outputs = [first]
        for step, part in zip(self.steps, others, strict=True):
            outputs.append(step(part + outputs[-1]))
        return self.fuse(self.pool(torch.cat(outputs, dim=1)))
