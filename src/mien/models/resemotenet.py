"""resemotenet: a small convolutional network, squeeze and excitation, three residual blocks, four linear layers.

Paper: Roy et al., "ResEmoteNet: Bridging Accuracy and Loss Reduction in Facial Emotion Recognition", Fig. 1 and eqs. 1-9.
Where the paper is silent, this follows its authors' public code: every convolution has a bias, the linear layers of squeeze
and excitation have none, dropout is 0.2 after the pools of stages 1 and 2 and 0.5 in the head. 80,238,599 parameters at 7
classes. In training the two disagree: the paper reduces the learning rate on a plateau over 80 epochs, and the authors' script
has no scheduler and stops early. The recipes follow the paper.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from mien.layers.squeeze_excite import SqueezeExcite
from mien.models.base import MODELS, Model

STAGES = (64, 128, 256)
BLOCKS = (512, 1024, 2048)
HEAD = (1024, 512, 256)


@MODELS.register("resemotenet")
class ResEmoteNet(Model):
    """The network of Fig. 1b. The paper repeats grey images to three channels.

    Args:
        num_classes: Classes K.
        in_channels: Channels of the input.
    """

    input_size = (64, 64)
    minimum_size = 40

    def __init__(self, num_classes: int = 7, in_channels: int = 3) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.in_channels = in_channels
        widths = (in_channels, *STAGES)
        self.stages = nn.Sequential(*(_stage(a, b, 0.2 if b < 256 else 0.0) for a, b in zip(widths, STAGES, strict=False)))
        self.squeeze_excite = SqueezeExcite(STAGES[-1], reduction=16)
        widths = (STAGES[-1], *BLOCKS)
        self.blocks = nn.Sequential(*(ResidualBlock(a, b) for a, b in zip(widths, BLOCKS, strict=False)))
        widths = (BLOCKS[-1], *HEAD)
        self.head = nn.Sequential(*(_hidden(a, b) for a, b in zip(widths, HEAD, strict=False)))
        self.classifier = nn.Linear(HEAD[-1], num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the feature map (N, 2048, H/64, W/64) for images (N, C, H, W); sizes are rounded down to H/8, then up."""
        return self.blocks(self.squeeze_excite(self.stages(x)))

    def forward_head(self, features: Tensor) -> Tensor:
        """Return logits (N, K)."""
        return self.classifier(self.head(features.mean((2, 3))))

    def attention_maps(self, x: Tensor) -> dict[str, Tensor]:
        """Return the mean response of the channels weighted by squeeze and excitation, (N, H/8, W/8), scaled to maximum 1.

        The attention itself has no positions, only one weight per channel. The responses are never negative here.
        """
        self.check_input(x)
        response = self.squeeze_excite(self.stages(x)).mean(1)  # (N, H/8, W/8)
        return {"squeeze_excite": response / response.amax((1, 2), keepdim=True).clamp(min=1e-12)}

    @property
    def cam_layer(self) -> nn.Module:
        """Squeeze and excitation: 8x8 positions at 64x64 px, where the last block has one."""
        return self.squeeze_excite


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions plus a 1x1 convolution as shortcut, both of stride 2.

    Args:
        inputs: Input channels I.
        outputs: Output channels O.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=2), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return a feature map (N, O, H/2, W/2), sizes rounded up, from one of (N, I, H, W)."""
        return F.relu(self.residual(x) + self.shortcut(x))


def _stage(inputs: int, outputs: int, dropout: float) -> nn.Sequential:
    layers = [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Dropout(dropout))


def _hidden(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(0.5))
