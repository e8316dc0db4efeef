"""vgg16_gcca: VGG-16 with channel attention in every block, an edge path, a partial decoder and reverse attention.

Paper: Chen and Chen, "A Framework for Facial Expression Recognition Combining Contextual Information and Attention Mechanism",
Figs. 1-4, eqs. 1-4, Table 1. The joint loss of its last row is `mien.losses.joint`.

The paper draws the parts, but gives neither widths nor the order of fusion nor the layers before the classes. Its parts come
from segmentation networks (Wu et al. 2019; Chen et al. 2018), where every map has a target; here all learn from the class.
Where the paper is silent, we chose:

- GCCA is at the end of a block, before its pooling; C_1 to C_5 are its outputs.
- Lateral outputs: C_i of block 3, 4 or 5 through a 3x3 convolution to 64 channels, batch norm and ReLU.
- The edge map of block 2 is concatenated with the C_i of each lateral output (`edge="lateral"`). So section 2.2 and Fig. 2
  describe it: lateral branches of blocks 2 to 5, fused at the end. Section 2.1 can also be read to send it into the backbone
  ("directed to the last three high-level blocks within the backbone network"). `edge="backbone"` does that: the map is
  concatenated with the input of blocks 3, 4 and 5, and the lateral outputs have C_i alone.
- Fusion: C_5 and the three lateral outputs are concatenated at C_5's size and averaged over the positions; a linear layer
  follows. C_5 is included so that every row of Table 1 has all the features of row 1.
- The decoder adds its features, weighted by the sigmoid of its global map P_d. With reverse attention, the lateral outputs get
  the rest: their C_i becomes R_i.
- The prediction that eq. 4 upsamples is P_d for level 5. For a lower level i it is a 3x3 convolution of the lateral output of
  level i + 1, plus the prediction before it.
- Dropout of 0.001 (section 3.3) is before the linear layer.
- VGG-16 starts from random weights, as the paper does not mention others. It has no batch norm, like the original.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mien.layers.csp import conv_bn
from mien.layers.edge import EdgePath
from mien.layers.feature_map import resize
from mien.layers.gcca import GCCA
from mien.layers.partial_decoder import PartialDecoder
from mien.layers.reverse_attention import ReverseAttention
from mien.layers.vgg import BLOCKS, vgg16_features
from mien.models.base import MODELS, Model

LEVELS = (5, 4, 3)
"""Blocks with a lateral output, coarse to fine."""

EDGES = ("lateral", "backbone")
"""Where the edge map can enter."""


class Fusion(nn.Module):
    """Fuse C_2 to C_5 into one feature map.

    Args:
        partial_decoder: Add the decoder's features.
        reverse_attention: Erase from C_3 to C_5 what the coarser prediction marks; needs the decoder.
        edge: Where the edge map enters: `lateral` or `backbone`.
        width: Channels of a lateral output.

    Attributes:
        out_channels: Channels of the fused map.
    """

    def __init__(self, partial_decoder: bool, reverse_attention: bool, edge: str = "lateral", width: int = 64) -> None:
        super().__init__()
        self.edge = EdgePath(BLOCKS[1])
        self.decoder = PartialDecoder(BLOCKS[2:]) if partial_decoder else None
        self.reverse = ReverseAttention() if reverse_attention else None
        self.edge_in_lateral = edge == "lateral"
        self.lateral = nn.ModuleDict(
            {
                str(level): nn.Sequential(*conv_bn(BLOCKS[level - 1] + self.edge_in_lateral, width, 3), nn.ReLU())
                for level in LEVELS
            }
        )
        predicting = LEVELS[:-1] if reverse_attention else ()
        self.predict = nn.ModuleDict({str(level): nn.Conv2d(width, 1, 3, padding=1) for level in predicting})
        self.out_channels = BLOCKS[4] + len(LEVELS) * width + (self.decoder.out_channels if self.decoder else 0)

    def trace(self, blocks: list[Tensor]) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Return the maps to fuse, (N, D_j, h_j, w_j), and the attention maps in (0, 1), (N, 1, h, w) by name.

        Args:
            blocks: C_1 to C_5, each (N, C_i, H/2^(i-1), W/2^(i-1)).
        """
        parts, maps = [blocks[4]], {}
        prediction: Tensor | None = None
        if self.decoder is not None:
            prediction, decoded = self.decoder(*blocks[2:])
            maps["global"] = torch.sigmoid(prediction)
            parts.append(decoded * maps["global"])
        edge = self.edge(blocks[1]) if self.edge_in_lateral else None
        for level in LEVELS:
            features = blocks[level - 1]
            if self.reverse is not None and prediction is not None:
                maps[f"reverse_{level}"] = self.reverse.attention(features, prediction)
                features = features * maps[f"reverse_{level}"]
            if edge is not None:
                features = torch.cat([features, resize(edge, features)], dim=1)
            parts.append(self.lateral[str(level)](features))
            if prediction is not None and str(level) in self.predict:
                prediction = self.predict[str(level)](parts[-1]) + resize(prediction, parts[-1])
        return parts, maps

    def forward(self, blocks: list[Tensor]) -> Tensor:
        """Return the fused feature map at the size of C_5."""
        parts, _ = self.trace(blocks)
        return torch.cat([resize(part, blocks[4]) for part in parts], dim=1)


@MODELS.register("vgg16_gcca")
class VGG16GCCA(Model):
    """The network of Fig. 1; its arguments select the rows of Table 1, from model 1 with all parts off.

    The parameters in `features` have torchvision's names. In training, GCCA draws from torch's generator.

    Args:
        num_classes: Classes K.
        in_channels: Channels of the input; the paper's is 3, RGB.
        multi_feature: Fuse lateral outputs of blocks 2 to 5 (model 2).
        gcca: Group convolutional channel attention in each of the five blocks (model 3).
        partial_decoder: The decoder over blocks 3 to 5 (model 4); needs `multi_feature`.
        reverse_attention: Reverse attention at blocks 5, 4, 3 (models 5 and 6); needs `partial_decoder`.
        dropout: Rate at which values of the embedding are dropped in training.
        edge: Where the edge map of block 2 enters: the `lateral` outputs, or blocks 3 to 5 of the `backbone`. Without
            `multi_feature` there is no edge map.

    Raises:
        ValueError: A part is on without the part it needs, or `edge` is unknown.
    """

    input_size = (224, 224)
    minimum_size = 32
    layered = False
    imagenet = "VGG16_Weights.IMAGENET1K_V1"

    def __init__(
        self,
        num_classes: int = 7,
        in_channels: int = 3,
        multi_feature: bool = True,
        gcca: bool = True,
        partial_decoder: bool = True,
        reverse_attention: bool = True,
        dropout: float = 0.001,
        edge: str = "lateral",
    ) -> None:
        super().__init__()
        if edge not in EDGES:
            raise ValueError(f"edge must be {' or '.join(map(repr, EDGES))}, got {edge!r}")
        if partial_decoder and not multi_feature:
            raise ValueError("partial_decoder needs multi_feature; switch multi_feature on or partial_decoder off")
        if reverse_attention and not partial_decoder:
            raise ValueError("reverse_attention needs partial_decoder; switch partial_decoder on or reverse_attention off")
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.features = vgg16_features(in_channels)
        self.attention = nn.ModuleList(GCCA(channels) if gcca else nn.Identity() for channels in BLOCKS)
        self.fusion = Fusion(partial_decoder, reverse_attention, edge) if multi_feature else None
        # conv([x, edge]) is conv(x) + conv'(edge): so VGG-16's convolutions keep their shape, and only conv' is new
        inside = sorted(LEVELS) if multi_feature and edge == "backbone" else []
        self.edge_inputs = nn.ModuleDict({str(k): nn.Conv2d(1, BLOCKS[k - 1], 3, padding=1, bias=False) for k in inside})
        for layer in self.edge_inputs.values():
            nn.init.kaiming_normal_(layer.get_parameter("weight"), mode="fan_out", nonlinearity="relu")  # as in vgg16_features
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(self.fusion.out_channels if self.fusion else BLOCKS[4], num_classes)
        nn.init.normal_(self.classifier.weight, 0, 0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward_blocks(self, x: Tensor) -> list[Tensor]:
        """Return C_1 to C_5, each (N, C_i, H/2^(i-1), W/2^(i-1)), for images (N, C, H, W)."""
        blocks: list[Tensor] = []
        from_edge: Tensor | None = None  # what the edge map adds to the first convolution of a block
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                x = self.attention[len(blocks)](x)
                blocks.append(x)
                x = layer(x)
                from_edge = self._from_edge(blocks, x)
            else:
                x = layer(x) if from_edge is None else layer(x) + from_edge
                from_edge = None
        return [*blocks, self.attention[4](x)]

    def _from_edge(self, blocks: list[Tensor], x: Tensor) -> Tensor | None:
        """Return the edge map's part of the next block's first convolution; `x` is that block's input without it."""
        level = str(len(blocks) + 1)
        if self.fusion is None or level not in self.edge_inputs:
            return None
        return self.edge_inputs[level](resize(self.fusion.edge(blocks[1]), x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the fused feature map, (N, D, H/16, W/16), for images (N, C, H, W).

        D is 800; 704 without the decoder, 512 without fusion.
        """
        blocks = self.forward_blocks(x)
        return blocks[4] if self.fusion is None else self.fusion(blocks)

    def forward_head(self, features: Tensor) -> Tensor:
        """Return logits (N, K) for a feature map (N, D, h, w)."""
        return self.classifier(self.dropout(features.mean((2, 3))))

    def attention_maps(self, x: Tensor) -> dict[str, Tensor]:
        """Return the maps of reverse attention, A_3 to A_5, and the sigmoid of the global map P_d; empty if they are off.

        Args:
            x: Images, (N, C, H, W).

        Returns:
            `reverse_3` (N, H/4, W/4), `reverse_4` (N, H/8, W/8), `reverse_5` (N, H/16, W/16) and `global` (N, H/4, W/4).
        """
        self.check_input(x)
        if self.fusion is None:
            return {}
        _, maps = self.fusion.trace(self.forward_blocks(x))
        return {name: maps[name].squeeze(1) for name in ("reverse_3", "reverse_4", "reverse_5", "global") if name in maps}

    @property
    def cam_layer(self) -> nn.Module:
        """The fusion, or the last block's attention without fusion."""
        return self.attention[4] if self.fusion is None else self.fusion
