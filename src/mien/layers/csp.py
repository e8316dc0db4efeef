"""Channel shuffle and the CSP block of sa_csp_ca: split the channels, process the halves differently, join and shuffle.

Paper: Wang and Zhu, "Face Expression Recognition with Embedded Attention Mechanism and Channel Shuffle", rows CSP_BLOCK of
Table 1. Shuffle: Zhang et al. 2018 (ShuffleNet), Fig. 1.

The paper does not print the inside of the block, so **this inside is a reconstruction** from its parameter counts. The six
rows have `11/2 I^2 + 1/2 I O + O^2 + 47/2 I + 2 O` parameters for I input and O output channels, which with h = I / 2 is

    22 h^2 + h O + O^2 + 47 h + 2 O

The block below has these counts term by term: two 3x3 (18 h^2) and two 1x1 convolutions (4 h^2) in the deep path; a 1x1
convolution h -> O/2 at the end of each path (h O) with batch norm (2 O); three depthwise 3x3 kernels of h channels (27 h);
batch norm over 10 h channels (20 h). Two readings of the O^2 term fit all six rows, and the block offers both:

- `fuse`: a dense 1x1 convolution after the shuffle. It can undo the shuffle (see `fold_shuffle`), so networks that differ only
  in `groups` can learn the same functions.
- `gate`: squeeze and excitation without bias, of reduction 2, which is the form of the paper's own CA row. The shuffle follows
  it and feeds the next block's split, as in ShuffleNet V2 (Ma et al. 2018). Without a shuffle, the light halves of all blocks
  and the deep halves form two networks that meet only in the gates. So `groups` changes what can be learned.

The paper's forward/backward pass size by torchsummary is 9.46 MB. With this placement of activations, the closest of those
tried, it is 9.453 MB with `fuse` and 9.467 MB with `gate` (9.461 if the CA row also pools the mean alone, as the gate does).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mien.layers.squeeze_excite import SqueezeExcite

BLOCKS = ("fuse", "gate")


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Return a convolution without bias, padded to keep the size at stride 1, and its batch norm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class ChannelShuffle(nn.Module):
    """Interleave `groups` groups of channels; no parameters.

    Args:
        channels: Channels of the input, a multiple of `groups`.
        groups: Number of groups; 1 keeps the order.

    Raises:
        ValueError: `channels` is not divisible by `groups`.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        if groups < 1 or channels % groups:
            raise ValueError(f"{channels} channels cannot be shuffled in {groups} groups; choose a divisor of {channels}")
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` (N, C, H, W) with channel `i * C/g + j` moved to `j * g + i`."""
        if self.groups == 1:
            return x
        count, channels, height, width = x.shape
        grouped = x.reshape(count, self.groups, channels // self.groups, height, width)
        return grouped.transpose(1, 2).reshape(count, channels, height, width)


class CSPBlock(nn.Module):
    """Split the channels in two, run the halves through a light and a deep path, and join them by a convolution or a gate.

    Args:
        inputs: Input channels I, even.
        outputs: Output channels O, even.
        stride: 1, or 2 to halve the size (rounding up).
        groups: Groups of the channel shuffle; None for no shuffle.
        block: `fuse` shuffles the joined channels, then mixes them by a 1x1 convolution; `gate` scales them, then shuffles.

    Raises:
        ValueError: Unknown `block`, or `groups` does not divide the output channels.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int | None, block: str = "fuse") -> None:
        super().__init__()
        if block not in BLOCKS:
            raise ValueError(f"block must be {' or '.join(map(repr, BLOCKS))}, got {block!r}")
        half = inputs // 2
        self.activate = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU())
        self.light = nn.Sequential(
            *conv_bn(half, half, 3, stride, groups=half),
            *conv_bn(half, outputs // 2, 1),
            nn.ReLU(),
        )
        self.residual = nn.Sequential(*conv_bn(half, half, 3), nn.ReLU(), *conv_bn(half, half, 3))
        self.deep = nn.Sequential(
            *conv_bn(half, inputs, 1),
            nn.ReLU(),
            *conv_bn(inputs, inputs, 3, stride, groups=inputs),
            nn.ReLU(),
            *conv_bn(inputs, half, 1),
            nn.ReLU(),
            *conv_bn(half, outputs // 2, 1),
            nn.ReLU(),
        )
        self.shuffle = nn.Identity() if groups is None else ChannelShuffle(outputs, groups)
        self.block = block
        if block == "fuse":
            self.fuse = nn.Conv2d(outputs, outputs, 1, bias=False)
        else:
            self.gate = SqueezeExcite(outputs, reduction=2)

    def forward(self, x: Tensor) -> Tensor:
        """Return a feature map (N, O, H/s, W/s) from one of (N, I, H, W)."""
        light, deep = self.activate(x).chunk(2, dim=1)  # (N, I/2, H, W) each
        deep = deep + self.residual(deep)
        joined = torch.cat([self.light(light), self.deep(deep)], dim=1)  # (N, O, H/s, W/s)
        return self.fuse(self.shuffle(joined)) if self.block == "fuse" else self.shuffle(self.gate(joined))

    @torch.no_grad()
    def fold_shuffle(self) -> None:
        """Move the shuffle into the weights of the fusing convolution, which computes the same function faster.

        A block with a gate has no such convolution and stays as it is.
        """
        if self.block != "fuse":
            return
        order = self.shuffle(torch.arange(self.fuse.in_channels).reshape(1, -1, 1, 1)).flatten()
        self.fuse.weight[:, order] = self.fuse.weight.clone()
        self.shuffle = nn.Identity()
