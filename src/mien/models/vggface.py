"""vggface: the VGG-16 face network, a baseline of the stn_resnet50 paper.

Paper: Parkhi et al. 2015, "Deep Face Recognition", Table 3, network D: VGG-16 without batch norm, dropout 0.5 after the two
hidden layers of 4,096. It has 145.0 M parameters with the paper's 2,622 identities and 134,289,223 with 7 classes. The network
is timm's, with new weights. It halves the image five times, and its first hidden layer reads a map of 7x7, so it needs 224 px.
It takes any size from 32 px, but then positions of a smaller map are repeated: 3x3 at 112 px, a single one at 48 px.
"""

from __future__ import annotations

from mien.models.base import MODELS, TimmModel


@MODELS.register("vggface")
class VGGFace(TimmModel):
    """VGG-16 as Parkhi et al. trained it on faces.

    Args:
        num_classes: Classes K.
        in_channels: Channels of the input.
    """

    imagenet = "VGG16_Weights.IMAGENET1K_V1"

    def __init__(self, num_classes: int = 7, in_channels: int = 3) -> None:
        import timm

        network = timm.create_model("vgg16", num_classes=num_classes, in_chans=in_channels, drop_rate=0.5)
        super().__init__(network, in_channels, (224, 224))
