"""efficientnet_b0: a baseline of the resnet50_cbam_erf paper, which does not say which EfficientNet it means.

Paper: Tan and Le 2019, Table 1. The network is timm's. Designed for 224x224 px; takes any size from 32 px.
"""

from __future__ import annotations

from mien.models.base import MODELS, TimmModel


@MODELS.register("efficientnet_b0")
class EfficientNetB0(TimmModel):
    """EfficientNet-B0, the smallest EfficientNet.

    Args:
        num_classes: Classes K.
        in_channels: Channels of the input.
    """

    def __init__(self, num_classes: int = 7, in_channels: int = 3) -> None:
        import timm

        network = timm.create_model("efficientnet_b0", num_classes=num_classes, in_chans=in_channels)
        super().__init__(network, in_channels, (224, 224))
