"""sa_csp_ca: spatial attention, channel split and shuffle, channel attention; 1.9 M parameters.

Paper: Wang and Zhu, "Face Expression Recognition with Embedded Attention Mechanism and Channel Shuffle", Tables 1 and 2.
Every row of Table 1 has the paper's parameter count (1,906,382 in all). The inside of the CSP block is a reconstruction, and
two have these counts (`mien.layers.csp`). With `block="fuse"`, `groups` changes nothing that a network can learn; with
`block="gate"` it does. The parts of the paper that we have give no training recipe, and do not say where the softmax is applied
in training. Here the head returns logits and the loss contains the softmax.
"""

from __future__ import annotations

from torch import Tensor, nn

from mien.layers.channel_attention import ChannelAttention
from mien.layers.csp import CSPBlock, conv_bn
from mien.layers.spatial_attention import SpatialAttention
from mien.models.base import MODELS, Model

BLOCKS = ((24, 1), (32, 2), (72, 2), (216, 2), (360, 2), (512, 2))
"""Output channels and stride of the six CSP blocks of Table 1."""


@MODELS.register("sa_csp_ca")
class SaCspCa(Model):
    """The network of Table 1; its arguments select the seven rows of Table 2.

    Args:
        num_classes: Classes K.
        in_channels: Channels of the input; the paper's is 1.
        spatial_attention: Include the SA row.
        channel_attention: Include the CA row.
        groups: Groups of the channel shuffle, one of 1, 2, 4, 8; None for no shuffle (rows Base and SA+Base+CA).
        block: How a CSP block joins its paths, `fuse` or `gate`. Checkpoints without this argument have `fuse`.

    Raises:
        ValueError: `groups` does not divide every block's channels, or `block` is unknown.
    """

    input_size = (40, 40)
    minimum_size = 17

    def __init__(
        self,
        num_classes: int = 7,
        in_channels: int = 1,
        spatial_attention: bool = True,
        channel_attention: bool = True,
        groups: int | None = 4,
        block: str = "fuse",
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.stem = nn.Sequential(*conv_bn(in_channels, 8, 3), nn.ReLU())
        self.spatial_attention = SpatialAttention(3) if spatial_attention else nn.Identity()
        blocks: list[nn.Module] = []
        channels = 8
        for outputs, stride in BLOCKS:
            blocks.append(CSPBlock(channels, outputs, stride, groups, block))
            channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.channel_attention = ChannelAttention(channels, reduction=2) if channel_attention else nn.Identity()
        self.classifier = nn.Conv2d(channels, num_classes, 3, padding=1)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the feature map after channel attention, (N, 512, H/32, W/32) for images (N, C, H, W)."""
        return self.channel_attention(self.blocks(self.spatial_attention(self.stem(x))))

    def simplify(self) -> None:
        """Fold each block's channel shuffle into its fusing convolution, where it has one."""
        for block in self.blocks:
            if isinstance(block, CSPBlock):
                block.fold_shuffle()

    def forward_head(self, features: Tensor) -> Tensor:
        """Return logits (N, K)."""
        return self.classifier(features).mean((2, 3))

    def attention_maps(self, x: Tensor) -> dict[str, Tensor]:
        """Return the map of the SA row, (N, H, W), at the resolution of the images; empty without that row."""
        if not isinstance(self.spatial_attention, SpatialAttention):
            return {}
        self.check_input(x)
        return {"spatial_attention": self.spatial_attention.attention(self.stem(x))[:, 0]}

    @property
    def cam_layer(self) -> nn.Module:
        """The fourth block, with 5x5 positions at 40x40 px; the last has only 2x2."""
        return self.blocks[3]
