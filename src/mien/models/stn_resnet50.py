"""stn_resnet50: a spatial transformer in front of ResNet-50.

Paper: Khoirullah et al., "Facial Expression Recognition Using Convolutional Neural Network with Attention Module", Figs. 4-5
and Table IV. ResNet-50 is timm's, unchanged, with timm's names in `backbone`, so that ImageNet weights can be loaded.
Where the paper is silent, we chose:

- Images: three channels, 224x224 px as for ImageNet weights. Any size from 32 px works; the recipes use 112 px, which leaves
  the last stage 4x4 positions. Their baselines have other sizes (`mien.models.vggface`, `mien.models.vanilla_cnn`).
- The transformer samples the input image and keeps its size. What is open in its localisation network, and why theta is
  damped, is in `mien.layers.spatial_transformer`.
- Optimizers: the paper names no framework, so the recipes use what Keras and PyTorch have in common. SGD and RMSprop have no
  momentum, and the Adam family has betas of 0.9 and 0.999.
"""

from __future__ import annotations

from torch import Tensor, nn

from mien.layers.spatial_transformer import SpatialTransformer
from mien.layers.stem import fit_stem
from mien.models.base import MODELS, TimmModel


@MODELS.register("stn_resnet50")
class STNResNet50(TimmModel):
    """The network of Fig. 5.

    Args:
        num_classes: Classes K.
        in_channels: Channels of the input.
        attention: Include the spatial transformer; without it this is `resnet50`.
        stem: `imagenet`, or `small` for faces of about 48 to 64 px.

    Raises:
        ValueError: Unknown stem.
    """

    layered = False
    imagenet = "ResNet50_Weights.IMAGENET1K_V1"

    def __init__(self, num_classes: int = 7, in_channels: int = 3, attention: bool = True, stem: str = "imagenet") -> None:
        import timm

        network = timm.create_model("resnet50", num_classes=num_classes, in_chans=in_channels)
        fit_stem(network, stem)
        super().__init__(network, in_channels, (224, 224) if stem == "imagenet" else (48, 48))
        self.transformer = SpatialTransformer(in_channels) if attention else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the feature map (N, 2048, H/32, W/32) for images (N, C, H, W); H/16 with the small stem, rounded up."""
        return self.backbone.forward_features(self.transformer(x))

    def theta(self, x: Tensor) -> Tensor:
        """Return the sampled window as affine maps (N, 2, 3) from output to input coordinates, both in [-1, 1].

        Without the transformer it is the identity.
        """
        self.check_input(x)
        if isinstance(self.transformer, SpatialTransformer):
            return self.transformer.theta(x)
        return x.new_tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).expand(len(x), 2, 3)

    def attention_maps(self, x: Tensor) -> dict[str, Tensor]:
        """Return how much of each pixel the transformer reads, (N, H, W); empty without the transformer."""
        self.check_input(x)
        if isinstance(self.transformer, SpatialTransformer):
            return {"spatial_transformer": self.transformer.coverage(x)}
        return {}
