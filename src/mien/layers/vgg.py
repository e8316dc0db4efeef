"""The convolutions of VGG-16, up to the last pooling, which is left out.

Paper: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (2015), Table 1, column D.
Layers, initialisation and names of the parameters are torchvision's: `0.weight` here is `features.0.weight` in torchvision's
`vgg16`.
"""

from __future__ import annotations

from torch import nn
from torchvision.models.vgg import cfgs, make_layers

BLOCKS = (64, 128, 256, 512, 512)
"""Channels of the five blocks."""


def vgg16_features(in_channels: int = 3) -> nn.Sequential:
    """Return the 13 convolutions, their ReLUs and the poolings between the five blocks, initialised as in torchvision.

    Images (N, C, H, W), H and W at least 16 px, give a map (N, 512, H/16, W/16), rounded down.

    Raises:
        ValueError: `in_channels` is below 1.
    """
    if in_channels < 1:
        raise ValueError(f"in_channels must be at least 1, got {in_channels}")
    features = make_layers(cfgs["D"])[:-1]
    features[-1] = nn.ReLU()  # not in place, because Grad-CAM needs its output
    if in_channels != 3:
        features[0] = nn.Conv2d(in_channels, BLOCKS[0], 3, padding=1)
    for layer in features:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.get_parameter("bias"))
    return features
