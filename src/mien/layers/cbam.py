"""CBAM: channel attention, then spatial attention.

Paper: Woo et al. 2018, "CBAM: Convolutional Block Attention Module", eq. 1: `F' = Mc(F) * F`, `F'' = Ms(F') * F'`; reduction
16 and a 7x7 kernel. As in its equations, not its code, the spatial convolution has a bias and no batch norm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from mien.layers.channel_attention import ChannelAttention
from mien.layers.spatial_attention import SpatialAttention


class CBAM(nn.Module):
    """Scale a feature map by its channel attention, then by its spatial attention.

    Args:
        channels: Channels of the input, a multiple of `reduction`.
        reduction: Ratio of the channels to the hidden layer of the channel attention.
        kernel_size: Side of the spatial attention's convolution, odd, px.
        activation: Function inside the channel attention.
        channel_max_pool: Let the channel attention pool the maximum as well as the mean.

    Raises:
        ValueError: `channels` is not divisible by `reduction`.
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        kernel_size: int = 7,
        activation: Callable[[Tensor], Tensor] = torch.relu,
        channel_max_pool: bool = True,
    ) -> None:
        super().__init__()
        self.channel = ChannelAttention(channels, reduction, activation, channel_max_pool)
        self.spatial = SpatialAttention(kernel_size)

    def attention(self, x: Tensor) -> Tensor:
        """Return the spatial weights, (N, 1, H, W) in (0, 1), for a feature map (N, C, H, W)."""
        return self.spatial.attention(self.channel(x))

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` (N, C, H, W) scaled by both attentions, same shape."""
        return self.spatial(self.channel(x))


def attend_inside(network: Any, attention: Callable[[int], CBAM]) -> None:
    """Put an attention at the end of each residual branch of a timm ResNet, before the addition (Woo et al. 2018, Fig. 3).

    It keeps its own initial weights. Those that timm gives to all convolutions would saturate a third of its channel weights.

    Args:
        network: A timm ResNet of bottlenecks, changed in place.
        attention: Function from a number of channels to an attention.
    """
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        for block in stage:
            block.se = attention(block.conv3.out_channels)


def spatial_maps(network: nn.Module, run: Callable[[], object]) -> dict[str, Tensor]:
    """Return the spatial weights (N, h, w) of each CBAM in a network, recorded while `run()` runs the network.

    The keys are the names of the modules that contain a CBAM, such as `layer1.0`.
    """
    maps: dict[str, Tensor] = {}

    def recorder(name: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
        def record(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            maps[name] = cast(CBAM, module).attention(inputs[0])[:, 0]

        return record

    found = [(name.rpartition(".")[0], module) for name, module in network.named_modules() if isinstance(module, CBAM)]
    hooks = [module.register_forward_hook(recorder(name)) for name, module in found]
    try:
        if found:
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return maps
