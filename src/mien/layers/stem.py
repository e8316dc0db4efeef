"""The first layer of a ResNet: the original for ImageNet, or one for small faces."""

from __future__ import annotations

from typing import Any

from torch import nn

STEMS = ("imagenet", "small")


def fit_stem(network: Any, stem: str) -> None:
    """Set the stem of a timm ResNet to suit the size of its images.

    He et al. 2016 designed the 7x7 convolution of stride 2 for 224 px; at 48 px it leaves the last stage only 2x2 positions.
    `small` is a 3x3 convolution of stride 1, the usual choice for small images; it leaves 3x3. The max-pool is kept.

    Args:
        network: A timm ResNet, changed in place.
        stem: `imagenet` or `small`.

    Raises:
        ValueError: Unknown stem.
    """
    if stem not in STEMS:
        raise ValueError(f"stem must be {' or '.join(map(repr, STEMS))}, got {stem!r}")
    if stem == "small":
        old = network.conv1
        network.conv1 = nn.Conv2d(old.in_channels, old.out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        for stage in network.feature_info:
            stage["reduction"] //= 2
