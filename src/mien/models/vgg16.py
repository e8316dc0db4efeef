"""vgg16: VGG-16 without its last pooling and fully connected layers, model 1 of vgg16_gcca's Table 1.

Papers: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (2015), column D; Chen and
Chen, "A Framework for Facial Expression Recognition Combining Contextual Information and Attention Mechanism", Table 1.
14,718,279 parameters at 7 classes. Deviations: the paper does not say what follows the convolutions, here average
pooling and one linear layer, with the dropout of 0.001 (section 3.3) before that layer.
"""

from __future__ import annotations

from torch import Tensor, nn

from mien.layers.vgg import BLOCKS, vgg16_features
from mien.models.base import MODELS, Model


@MODELS.register("vgg16")
class VGG16(Model):
    """VGG-16's convolutions, average pooling, a linear layer.

    The parameters in `features` have torchvision's names.

    Args:
        num_classes: Classes K.
        in_channels: Channels of the input; the paper's is 3, RGB.
        dropout: Rate at which values of the embedding are dropped in training.
    """

    input_size = (224, 224)
    minimum_size = 16
    imagenet = "VGG16_Weights.IMAGENET1K_V1"

    def __init__(self, num_classes: int = 7, in_channels: int = 3, dropout: float = 0.001) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.features = vgg16_features(in_channels)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(BLOCKS[-1], num_classes)
        nn.init.normal_(self.classifier.weight, 0, 0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last block's feature map, (N, 512, H/16, W/16), for images (N, C, H, W)."""
        return self.features(x)

    def forward_head(self, features: Tensor) -> Tensor:
        """Return logits (N, K) for a feature map (N, 512, h, w)."""
        return self.classifier(self.dropout(features.mean((2, 3))))

    @property
    def cam_layer(self) -> nn.Module:
        """The ReLU of the last block."""
        return self.features[-1]
