"""The cost of a network, layer by layer: parameters, multiply-accumulates (MACs) and memory of the activations.

Hooks count them while one image passes. MACs are those of convolutions, `out * in/groups * kh * kw`, and linear layers,
`out * in`; `torch.utils.flop_counter` counts two FLOPs per MAC. Activations are counted as in torchsummary: the float32 outputs
of all modules but containers; its "forward/backward pass size" is twice that. Operations outside modules, such as additions,
are not counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mien.models.base import Model, TimmModel

WEIGHT_LAYERS = (nn.Conv2d, nn.Linear)
CONTAINERS = (nn.Sequential, nn.ModuleList)


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a layer or of a whole network for one image.

    Attributes:
        name: Name of the module, such as `blocks.2`; empty for the whole network.
        operator: Class of the module, such as `CSPBlock`.
        input_shape: Shape of the input without the batch, such as (32, 20, 20).
        output_shape: Shape of the output without the batch.
        parameters: Number of parameters.
        macs: Multiply-accumulates of its convolutions and linear layers.
        activation_bytes: Memory of its modules' outputs in float32, bytes.
    """

    name: str
    operator: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    parameters: int
    macs: int
    activation_bytes: int


def layer_costs(model: Model, size: tuple[int, int] | None = None) -> list[Cost]:
    """Return the cost of each layer, in the order they run.

    A layer is a block, an attention, or a convolution with its batch norm and activation; containers of several convolutions
    or linear layers are opened. The model may be on the meta device.

    Args:
        model: The network; not changed.
        size: Height and width of the image, px; by default `model.input_size`.

    Raises:
        MienError: The size is too small.
    """
    layers = dict(_layers(model))
    macs, outputs = dict.fromkeys(layers, 0), dict.fromkeys(layers, 0)
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def count(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            outputs[name] += output.numel()
            if isinstance(module, nn.Conv2d):
                macs[name] += output.numel() * module.weight[0].numel()
            elif isinstance(module, nn.Linear):
                macs[name] += output.numel() * module.in_features

    def record_shapes(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        shapes[name] = _shape(inputs), _shape(output)

    hooks = [layer.register_forward_hook(partial(record_shapes, name)) for name, layer in layers.items()]
    for name, layer in layers.items():
        parts = [part for part in layer.modules() if not isinstance(part, CONTAINERS)]
        hooks += [part.register_forward_hook(partial(count, name)) for part in parts]
    training, like = model.training, next(model.parameters())
    image = torch.zeros(1, model.in_channels, *(size or model.input_size), device=like.device, dtype=like.dtype)
    try:
        with torch.no_grad():
            model.eval()(image)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return [
        Cost(
            name=name,
            operator=" ".join(type(part).__name__ for part in (layer if isinstance(layer, nn.Sequential) else [layer])),
            input_shape=shapes[name][0],
            output_shape=shapes[name][1],
            parameters=sum(p.numel() for p in layer.parameters()),
            macs=macs[name],
            activation_bytes=4 * outputs[name],  # float32
        )
        for name, layer in ((name, layers[name]) for name in shapes)  # in the order they ran
    ]


def model_cost(model: Model, size: tuple[int, int] | None = None) -> Cost:
    """Return the cost of the whole network, the sum over its layers.

    Args:
        model: The network; not changed.
        size: Height and width of the image, px; by default `model.input_size`.

    Raises:
        MienError: The size is too small.
    """
    layers = layer_costs(model, size)
    return Cost(
        name="",
        operator=type(model).__name__,
        input_shape=(model.in_channels, *(size or model.input_size)),
        output_shape=(model.num_classes,),
        parameters=sum(p.numel() for p in model.parameters()),
        macs=sum(layer.macs for layer in layers),
        activation_bytes=sum(layer.activation_bytes for layer in layers),
    )


def _layers(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        several = isinstance(child, CONTAINERS) and sum(isinstance(part, WEIGHT_LAYERS) for part in child.modules()) > 1
        if several or (isinstance(module, TimmModel) and child is module.backbone):
            yield from _layers(child, f"{prefix}{name}.")
        else:
            yield prefix + name, child


def _shape(value: Any) -> tuple[int, ...]:
    """Return the shape of a tensor, or of the first of several, without the batch."""
    return tuple(value.shape[1:]) if isinstance(value, Tensor) else _shape(value[0])
