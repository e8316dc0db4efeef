"""dlib_resnet: the face-recognition network of dlib, pretrained on three million faces.

Source: King 2017, dlib's `dnn_face_recognition_ex.cpp`: a ResNet-34 (He et al. 2016) with fewer layers and half the filters,
29 convolutions in all. Its weights are in the public domain and on PyPI in `face_recognition_models`;
`scripts/convert_dlib.py` makes start weights of them. Shortcuts have no weights: they pad channels with zeros and halve the
size by averaging. Deviation: strided convolutions are padded, so that every size from 33 px works (fewer blocks: smaller sizes
too); designed for 150 px.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

from mien.layers.csp import conv_bn
from mien.models.base import MODELS, Model

BLOCKS = (
    ((32, 1),) * 3 + ((64, 2),) + ((64, 1),) * 3 + ((128, 2),) + ((128, 1),) * 2 + ((256, 2),) + ((256, 1),) * 2 + ((256, 2),)
)
"""Output channels and stride of the residual blocks."""


@MODELS.register("dlib_resnet")
class DlibResNet(Model):
    """A residual network whose shortcuts have no weights.

    Args:
        num_classes: Classes K.
        in_channels: Channels of the input.
        depth: Number of residual blocks, counted from the first; by default all 14. The last blocks hold most of the parameters
            and tell people apart rather than expressions.

    Raises:
        ValueError: `depth` is not in 1 to 14.
    """

    input_size = (150, 150)

    def __init__(self, num_classes: int = 7, in_channels: int = 3, depth: int = len(BLOCKS)) -> None:
        super().__init__()
        if not 1 <= depth <= len(BLOCKS):
            raise ValueError(f"depth is the number of residual blocks, 1 to {len(BLOCKS)}, got {depth}")
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.stem = nn.Sequential(*conv_bn(in_channels, 32, 7, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.minimum_size = 2 * math.prod(stride for _, stride in BLOCKS[:depth]) + 1
        widths = (32, *(width for width, _ in BLOCKS))
        self.blocks = nn.Sequential(*(Block(a, b, s) for a, (b, s) in zip(widths, BLOCKS[:depth], strict=False)))
        self.classifier = nn.Linear(widths[depth], num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the feature map for images (N, C, H, W): (N, 256, H/64, W/64) with all blocks."""
        return self.blocks(self.stem(x))

    def forward_head(self, features: Tensor) -> Tensor:
        """Return logits (N, K)."""
        return self.classifier(features.mean((2, 3)))

    @property
    def cam_layer(self) -> nn.Module:
        """The last block but one; the last block of the full network has only 2x2 positions at its input size."""
        return self.blocks[max(len(self.blocks) - 2, 0)]


class Block(nn.Module):
    """Two 3x3 convolutions plus a shortcut: the input, averaged if the block halves the size, padded with zero channels.

    Args:
        inputs: Input channels I.
        outputs: Output channels O, at least I.
        stride: 1, or 2 to halve height and width.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.deep = nn.Sequential(*conv_bn(inputs, outputs, 3, stride), nn.ReLU(), *conv_bn(outputs, outputs, 3))
        self.stride, self.new = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """Return a feature map (N, O, H/s, W/s), sizes rounded up, from one of (N, I, H, W)."""
        # Without this, ONNX Runtime before 1.29 counts the pixels that `ceil_mode` adds at the border.
        short = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False) if self.stride == 2 else x
        if self.new:
            short = F.pad(short, (0, 0, 0, 0, 0, self.new))
        return F.relu(self.deep(x) + short)
