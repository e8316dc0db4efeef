"""resnet50, resnet50_se, resnet50_cbam: ResNet-50 without attention, with SE and with CBAM; baselines in the papers.

Papers: He et al. 2016 (resnet50: 23,522,375 parameters at 7 classes and 3 channels); Hu et al. 2018 (SE-ResNet-50); Woo et
al. 2018 (CBAM inside each bottleneck, before the addition). The networks are timm's, with its initial weights: the last norm of
a bottleneck starts at zero, so that at first a bottleneck is its shortcut. The CBAM is `mien.layers.cbam`. The networks are
designed for 224x224 px and take any size from 32 px; use `stem="small"` for faces of about 48 to 64 px (`mien.layers.stem`).
"""

from __future__ import annotations

from torch import Tensor

from mien.layers.cbam import CBAM, attend_inside, spatial_maps
from mien.layers.stem import fit_stem
from mien.models.base import MODELS, TimmModel


class ResNet(TimmModel):
    """A ResNet of timm.

    Args:
        variant: Its name in timm.
        num_classes: Classes K.
        in_channels: Channels of the input.
        stem: `imagenet`, or `small` for faces of about 48 to 64 px.

    Raises:
        ValueError: Unknown stem.
    """

    imagenet = "ResNet50_Weights.IMAGENET1K_V1"

    def __init__(self, variant: str, num_classes: int, in_channels: int, stem: str) -> None:
        import timm

        network = timm.create_model(variant, num_classes=num_classes, in_chans=in_channels)
        fit_stem(network, stem)
        super().__init__(network, in_channels, (224, 224) if stem == "imagenet" else (48, 48))

    def attention_maps(self, x: Tensor) -> dict[str, Tensor]:
        """Return the spatial map of each bottleneck's CBAM, `layer1.0` to `layer4.2`; empty without CBAM."""
        self.check_input(x)
        return spatial_maps(self.backbone, lambda: self.forward_features(x))


@MODELS.register("resnet50")
def resnet50(num_classes: int = 7, in_channels: int = 3, stem: str = "imagenet") -> ResNet:
    """Return ResNet-50."""
    return ResNet("resnet50", num_classes, in_channels, stem)


@MODELS.register("resnet50_se")
def resnet50_se(num_classes: int = 7, in_channels: int = 3, stem: str = "imagenet") -> ResNet:
    """Return ResNet-50 with squeeze and excitation in each bottleneck."""
    return ResNet("seresnet50", num_classes, in_channels, stem)


@MODELS.register("resnet50_cbam")
def resnet50_cbam(num_classes: int = 7, in_channels: int = 3, stem: str = "imagenet") -> ResNet:
    """Return ResNet-50 with CBAM in each bottleneck."""
    model = ResNet("resnet50", num_classes, in_channels, stem)
    attend_inside(model.backbone, CBAM)
    return model
