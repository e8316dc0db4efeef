"""The attention that a network really computed, layer by layer.

All attention layers in `mien.layers` have one method for this: `attention(x)` returns the weights that `forward(x)` multiplies
its input by, (N, 1, h, w) for positions or (N, C, 1, 1) for channels. A forward hook asks each layer for its weights on the
input it got. timm's squeeze-and-excitation layers have no such method; there, a second hook records what their gate returned.
Maps that a network computes outside such layers, as reverse attention and the spatial transformer do, come from its
`attention_maps`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mien.errors import InputError
from mien.explain.base import METHODS, Maps, require_network

if TYPE_CHECKING:
    from mien.predict.backend import Backend


@METHODS.register("attention")
def attention(backend: Backend, batch: NDArray[np.float32], target: NDArray[np.int64], seed: int = 0) -> Maps:
    """Return the map of every attention layer; what the network attends to does not depend on the class.

    The map of channel attention, which has no positions, is the mean absolute response of the weighted channels.

    Raises:
        InputError: The network is exported, or has no attention.
    """
    network = require_network(backend, "attention")
    import torch

    images = torch.from_numpy(batch).to(next(network.parameters()).device)
    maps: dict[str, Any] = {}
    channels: dict[str, Any] = {}
    gates: dict[Any, Any] = {}

    def record(name: str) -> Any:
        def hook(layer: Any, inputs: Any, output: Any) -> None:
            weights = gates[layer.gate] if _is_timm_se(layer) else layer.attention(inputs[0])
            if weights.shape[1] == 1:
                maps[name] = weights[:, 0]
            else:
                channels[name] = weights.flatten(1)
                maps[name] = (weights * inputs[0]).abs().mean(1)

        return hook

    hooks = []
    for name, layer in network.named_modules():
        if _is_timm_se(layer):
            hooks.append(layer.gate.register_forward_hook(lambda gate, inputs, output: gates.update({gate: output})))
        if _is_timm_se(layer) or _has_weights(layer):
            hooks.append(layer.register_forward_hook(record(name.removeprefix("backbone."))))
    try:
        with torch.no_grad():
            network(images)
    finally:
        for hook in hooks:
            hook.remove()
    with torch.no_grad():
        own = network.attention_maps(images)
        theta = network.theta(images) if "spatial_transformer" in own else None
    maps |= {name: each for name, each in own.items() if not any(f"{known}.".startswith(f"{name}.") for known in maps)}
    if not maps:
        raise InputError(f"{backend.info.arch} computes no attention; choose the method grad_cam, layer_cam, occlusion or rise")
    boxes = None
    if theta is not None:
        corners = np.array([[-1, 1, 1, -1], [-1, -1, 1, 1], [1, 1, 1, 1]])
        boxes = (np.einsum("nij,jk->nki", theta.cpu().numpy(), corners) + 1) / 2
    return Maps({name: _array(each) for name, each in maps.items()}, {k: _array(v) for k, v in channels.items()}, boxes)


def has_attention(network: Any) -> bool:
    """Return whether a network has a layer that computes attention."""
    from mien.layers.reverse_attention import ReverseAttention
    from mien.layers.spatial_transformer import SpatialTransformer

    others = (ReverseAttention, SpatialTransformer)
    return any(_has_weights(layer) or _is_timm_se(layer) or isinstance(layer, others) for layer in network.modules())


def _has_weights(layer: Any) -> bool:
    """Return whether a layer multiplies its input by `attention(x)` itself, not by that of layers inside it, as CBAM does."""
    from mien.layers.channel_attention import ChannelAttention
    from mien.layers.gcca import GCCA
    from mien.layers.spatial_attention import SpatialAttention
    from mien.layers.squeeze_excite import SqueezeExcite

    return isinstance(layer, (ChannelAttention, GCCA, SpatialAttention, SqueezeExcite))


def _is_timm_se(layer: Any) -> bool:
    """Return whether a layer is one of timm's kinds of squeeze and excitation, as in SE-ResNet and EfficientNet."""
    from timm.layers import EffectiveSEModule, SEModule
    from timm.models._efficientnet_blocks import SqueezeExcite

    return isinstance(layer, (EffectiveSEModule, SEModule, SqueezeExcite))


def _array(values: Any) -> NDArray[np.float32]:
    return values.float().cpu().numpy()
