"""vanilla_cnn: three stages of three convolutions, the simplest baseline of the stn_resnet50 paper.

Paper: Khoirullah et al., "Facial Expression Recognition Using Convolutional Neural Network with Attention Module", section
III.A, which gives only three stages of three convolutions and "2 million parameters". Here: 3x3 convolutions with batch norm
and ReLU, widths 64, 128, 256, a 2x2 max-pool after each stage, average pooling and one linear layer; 1.9 M parameters. Grey
images of 48x48 px, FER2013's size: the last convolution sees 46 px, so a whole face, but only a part of an enlarged one.
"""

from __future__ import annotations

from torch import Tensor, nn

from mien.layers.csp import conv_bn
from mien.models.base import MODELS, Model

STAGES = (64, 128, 256)


@MODELS.register("vanilla_cnn")
class VanillaCNN(Model):
    """Convolutions with max-pooling, average pooling, one linear layer.

    Args:
        num_classes: Classes K.
        in_channels: Channels of the input.
    """

    input_size = (48, 48)
    minimum_size = 8

    def __init__(self, num_classes: int = 7, in_channels: int = 1) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.in_channels = in_channels
        widths = (in_channels, *STAGES)
        self.stages = nn.Sequential(*(_stage(a, b) for a, b in zip(widths, STAGES, strict=False)))
        self.classifier = nn.Linear(STAGES[-1], num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the feature map (N, 256, H/8, W/8) for images (N, C, H, W)."""
        return self.stages(x)

    def forward_head(self, features: Tensor) -> Tensor:
        """Return logits (N, K)."""
        return self.classifier(features.mean((2, 3)))

    @property
    def cam_layer(self) -> nn.Module:
        """The last stage."""
        return self.stages[-1]


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (inputs, outputs, outputs):
        layers += [*conv_bn(width, outputs, 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(2))
