"""resnet50_cbam_erf: ResNet-50 with PReLU, hierarchical shortcuts, and a CBAM-ERF in every bottleneck.

Paper: Shang, "Facial Expression Recognition method based on residual network and attention mechanism". ResNet-50 is timm's;
every ReLU is a PReLU, the four projecting shortcuts are hierarchical (`mien.layers.hierarchical_shortcut`), and each of the 16
bottlenecks has a CBAM-ERF.

Where the attention is: no figure shows it. Section 3.3 puts it "after each bottleneck" and says that the network "maintains
residual learning principles", which section 3.2 explains as "identity mapping" along connections that "preserve gradient flow".
Both hold if the attention follows the three convolutions of a bottleneck and precedes the addition, as in CBAM (Woo et al.
2018, Fig. 3). This is `placement="inside"`. Attention after the addition (`placement="after"`) fits "between successive
residual layers" better, but scales the shortcut too, by about a quarter in each block.

Measured on 64 faces of FER2013 at the initial weights: with `inside`, the standard deviation of every block's output is 0.60
to 0.68 and the norm of the stem's gradient 1.3, both as without attention. With `after`, they are 0.18 to 0.54 and 128 if the
last norm of a bottleneck starts at one, as it does here. If it starts at zero, they fall to 0.0004 and 0.1.

On these the paper is silent or unclear, and we chose:

- The channel attention pools the mean and the maximum, as in CBAM, which the paper names. Its text mentions "adaptive global
  average pooling" alone; that is `channel_max_pool=False`.
- One slope per PReLU, 0.25 at the start (He et al. 2015). Reduction 16 and a 7x7 kernel, as in CBAM. Four groups in a
  shortcut, as in Res2Net.
- Grey images of 48x48 px, FER2013's size, with a 3x3 stem of stride 1 (`mien.layers.stem`).

The paper gives no training recipe.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from mien.layers.cbam import CBAM, attend_inside, spatial_maps
from mien.layers.cbam_erf import CBAMERF
from mien.layers.hierarchical_shortcut import HierarchicalShortcut
from mien.layers.stem import fit_stem
from mien.models.base import MODELS, TimmModel

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"prelu": nn.PReLU, "relu": nn.ReLU}
SHORTCUTS = ("hierarchical", "projection")
ATTENTIONS: dict[str, type[CBAM]] = {"cbam_erf": CBAMERF, "cbam": CBAM}
PLACEMENTS = ("inside", "after")


@MODELS.register("resnet50_cbam_erf")
class ResNet50CBAMERF(TimmModel):
    """The paper's network; each argument switches one part off.

    Args:
        num_classes: Classes K.
        in_channels: Channels of the input; FER2013 and CK+ are grey.
        activation: `prelu`, or ResNet's own `relu`.
        shortcut: `hierarchical`, or ResNet's own `projection`, a strided 1x1 convolution.
        attention: `cbam_erf`, `cbam` (with ReLU instead of Serf), or None.
        placement: Attention `inside` the residual branch, before the addition, or `after` the addition. With `after`, the last
            norm of each bottleneck starts at one; at zero, as otherwise, each block would quarter the signal.
        channel_max_pool: Let the channel attention pool the maximum as well as the mean.
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
        placement: str = "inside",
        channel_max_pool: bool = True,
        stem: str = "small",
    ) -> None:
        import timm

        _one_of("activation", activation, tuple(ACTIVATIONS))
        _one_of("shortcut", shortcut, SHORTCUTS)
        _one_of("attention", attention, (*ATTENTIONS, None))
        _one_of("placement", placement, PLACEMENTS)
        after = attention is not None and placement == "after"
        network: Any = timm.create_model(
            "resnet50", num_classes=num_classes, in_chans=in_channels, act_layer=activation, zero_init_last=not after
        )
        fit_stem(network, stem)
        stages = [network.layer1, network.layer2, network.layer3, network.layer4]
        if shortcut == "hierarchical":
            for stage in stages:
                stage[0].downsample = _hierarchical(stage[0], ACTIVATIONS[activation])
        if attention is not None:
            create = partial(ATTENTIONS[attention], channel_max_pool=channel_max_pool)
            if after:
                for stage in stages:
                    for i, block in enumerate(stage):
                        stage[i] = nn.Sequential(block, create(block.conv3.out_channels))
            else:
                attend_inside(network, create)
        super().__init__(network, in_channels, (48, 48) if stem == "small" else (224, 224))

    def published_name(self, name: str) -> str:
        """Return torchvision's name of a parameter; with `placement="after"` a bottleneck is the first of a pair."""
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
