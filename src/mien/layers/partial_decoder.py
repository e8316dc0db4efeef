"""Partial decoder: aggregate three high-level feature maps into one global map.

Paper: Chen and Chen, "A Framework for Facial Expression Recognition Combining Contextual Information and Attention Mechanism",
section 2.4, `P_d = pd(C_3, C_4, C_5)`; the decoder is that of Wu, Su and Huang, "Cascaded Partial Decoder for Fast and Accurate
Salient Object Detection" (CVPR 2019), Fig. 3. With `u` for an upsampling and `*` for the product of two maps:

    a5 = c5;  a4 = conv(u(c5)) * c4;  a3 = conv(u(c5)) * conv(u(c4)) * c3
    b4 = conv([a4, conv(u(a5))])                                    2w channels, C_4's size
    b3 = conv([a3, conv(u(b4))])                                    3w channels, C_3's size
    D  = conv(b3);  P_d = 1x1 conv(D)

where c_i is C_i reduced to w channels and every `conv` is a 3x3 convolution with batch norm and no activation. Deviations: a
1x1 convolution with batch norm and ReLU reduces C_i to w channels (Wu et al. use receptive-field blocks, which the paper does
not mention), and maps are resized to exactly the size of the other factor, so odd sizes fit. w = 32 as in Wu et al.

Checked against the lines above written out in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mien.layers.csp import conv_bn
from mien.layers.feature_map import require_map, resize


def _conv3(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(*conv_bn(inputs, outputs, 3))


class PartialDecoder(nn.Module):
    """Aggregate C_3, C_4 and C_5; deeper maps are used more often.

    Args:
        channels: Channels of C_3, C_4 and C_5.
        width: Channels w to which each is reduced.

    Attributes:
        out_channels: Channels of the aggregated features, 3w.

    Raises:
        ValueError: Not three numbers of channels, or one below 1.
    """

    def __init__(self, channels: tuple[int, int, int], width: int = 32) -> None:
        super().__init__()
        if len(channels) != 3 or min(*channels, width) < 1:
            raise ValueError(f"a partial decoder takes the channels of C_3, C_4 and C_5 and a width, got {channels}, {width=}")
        self.channels, self.out_channels = tuple(channels), 3 * width
        self.reduce = nn.ModuleList(nn.Sequential(*conv_bn(c, width, 1), nn.ReLU()) for c in channels)
        self.multiply_5_4, self.multiply_5_3, self.multiply_4_3 = (_conv3(width, width) for _ in range(3))
        self.append_5, self.append_4 = _conv3(width, width), _conv3(2 * width, 2 * width)
        self.join_4, self.join_3 = _conv3(2 * width, 2 * width), _conv3(3 * width, 3 * width)
        self.refine = _conv3(3 * width, 3 * width)
        self.predict = nn.Conv2d(3 * width, 1, 1)

    def aggregate(self, c3: Tensor, c4: Tensor, c5: Tensor) -> Tensor:
        """Return the aggregated features D, (N, 3w, H, W), at the size of C_3."""
        for x, channels, name in zip((c3, c4, c5), self.channels, ("C_3", "C_4", "C_5"), strict=True):
            require_map(x, channels, name)
        c3, c4, c5 = (reduce(x) for reduce, x in zip(self.reduce, (c3, c4, c5), strict=True))  # w channels each
        a4 = self.multiply_5_4(resize(c5, c4)) * c4
        a3 = self.multiply_5_3(resize(c5, c3)) * self.multiply_4_3(resize(c4, c3)) * c3
        b4 = self.join_4(torch.cat([a4, self.append_5(resize(c5, c4))], dim=1))  # 2w channels
        b3 = self.join_3(torch.cat([a3, self.append_4(resize(b4, c3))], dim=1))  # 3w channels
        return self.refine(b3)

    def forward(self, c3: Tensor, c4: Tensor, c5: Tensor) -> tuple[Tensor, Tensor]:
        """Return the global map P_d, (N, 1, H, W), unbounded, and the features it is computed from.

        Args:
            c3: C_3, (N, C, H, W).
            c4: C_4, (N, C', H', W'), coarser.
            c5: C_5, (N, C'', H'', W''), coarser still.

        Returns:
            P_d (N, 1, H, W) and D (N, 3w, H, W), both at the size of C_3.

        Raises:
            ValueError: A map has another number of channels.
        """
        features = self.aggregate(c3, c4, c5)
        return self.predict(features), features
