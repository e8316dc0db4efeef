"""resnet50_cbam_erf: ResNet-50 with PReLU, hierarchical shortcuts, and CBAM-ERF after every bottleneck.

Paper: Shang, "Facial Expression Recognition method based on residual network and attention mechanism". ResNet-50 is timm's;
every ReLU is a PReLU, the four projecting shortcuts are hierarchical (`mien.layers.hierarchical_shortcut`), and a CBAM-ERF
follows each of the 16 bottlenecks (section 3.3: "after each bottleneck"; CBAM's own place is inside, before the addition).

The paper is silent on these; we chose: one slope per PReLU, 0.25 at the start (He et al. 2015); reduction 16 and a 7x7 kernel
as in CBAM; grey images of 48x48 px, FER2013's size, with a 3x3 stem of stride 1 (`mien.layers.stem`); four groups in a
shortcut as in Res2Net. The paper gives no training recipe.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from mien.layers.cbam import CBAM, spatial_maps
from mien.layers.cbam_erf import CBAMERF
from mien.layers.hierarchical_shortcut import HierarchicalShortcut
from mien.layers.stem import fit_stem
from mien.models.base import MODELS, TimmModel

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"prelu": nn.PReLU, "relu": nn.ReLU}
SHORTCUTS = ("hierarchical", "projection")
ATTENTIONS: dict[str, Callable[[int], CBAM]] = {"cbam_erf": CBAMERF, "cbam": CBAM}


@MODELS.register("resnet50_cbam_erf")
class ResNet50CBAMERF(TimmModel):
    """The paper's network; each argument switches one part off.

    Args:
        num_classes: Classes K.
        in_channels: Channels of the input; FER2013 and CK+ are grey.
        activation: `prelu`, or ResNet's own `relu`.
        shortcut: `hierarchical`, or ResNet's own `projection`, a strided 1x1 convolution.
        attention: `cbam_erf`, `cbam` (ReLU inside), or None.
        stem: `small` for faces of about 48 to 64 px, `imagenet` for 224 px.

    Raises:
        ValueError: An argument has another value.
    """

    imagenet = "ResNet50_Weights.IMAGENET1K_V1"

    def __init__(
        self,
        num_classes: int = 7,
        in_channels: int = 1,
        activation: str = "prelu",
        shortcut: str = "hierarchical",
        attention: str | None = "cbam_erf",
        stem: str = "small",
    ) -> None:
        import timm

        _one_of("activation", activation, tuple(ACTIVATIONS))
        _one_of("shortcut", shortcut, SHORTCUTS)
        _one_of("attention", attention, (*ATTENTIONS, None))
        network: Any = timm.create_model("resnet50", num_classes=num_classes, in_chans=in_channels, act_layer=activation)
        fit_stem(network, stem)
        stages = [network.layer1, network.layer2, network.layer3, network.layer4]
        if shortcut == "hierarchical":
            for stage in stages:
                stage[0].downsample = _hierarchical(stage[0], ACTIVATIONS[activation])
        if attention is not None:
            for stage in stages:
                for i, block in enumerate(stage):
                    stage[i] = nn.Sequential(block, ATTENTIONS[attention](block.conv3.out_channels))
        super().__init__(network, in_channels, (48, 48) if stem == "small" else (224, 224))

    def published_name(self, name: str) -> str:
        """Return torchvision's name of a parameter; here a bottleneck is the first of a pair with its attention."""
        return re.sub(r"^(layer\d\.\d+)\.0\.", r"\1.", super().published_name(name))

    def attention_maps(self, x: Tensor) -> dict[str, Tensor]:
        """Return the 16 spatial maps, `layer1.0` (N, H/2, W/2) to `layer4.2` (N, H/16, W/16); empty without attention.

        With the ImageNet stem they are (N, H/4, W/4) to (N, H/32, W/32).
        """
        self.check_input(x)
        return spatial_maps(self.backbone, lambda: self.forward_features(x))


def _hierarchical(block: Any, activation: Callable[[], nn.Module]) -> HierarchicalShortcut:
    return HierarchicalShortcut(block.conv1.in_channels, block.conv3.out_channels, block.stride, activation=activation)


def _one_of(name: str, value: str | None, known: tuple[str | None, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")
