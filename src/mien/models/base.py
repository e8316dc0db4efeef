"""The base class of all networks, their registry, and an adapter for any timm network."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from mien.errors import MienError, UnknownNameError
from mien.registry import Registry, check_arguments

TIMM = "timm/"
"""Prefix of the names of timm's networks, as in `timm/resnet18`."""


class Model(nn.Module, ABC):
    """Base class of all networks: a feature extractor, then a head whose last layer is `classifier`.

    Attributes:
        num_classes: Number of classes K.
        in_channels: 1 (grey) or 3 (RGB).
        input_size: Height and width the network was designed for, px. Larger inputs and most smaller ones work as well.
        minimum_size: Smallest height and width, px; below it, a layer of stride 2 would see a single position.
        classifier: The last layer, which gives the logits; linear or convolutional.
        layered: Whether the layers run one after another in the order they are built. Layer-wise learning rates need that.
        imagenet: Name of torchvision's ImageNet weights that fit at least a part of the network; None if there are none.
    """

    num_classes: int
    in_channels: int
    input_size: tuple[int, int]
    minimum_size: int
    classifier: nn.Linear | nn.Conv2d
    layered: bool = True
    imagenet: str | None = None

    @abstractmethod
    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map (N, D, h, w) for images (N, C, H, W)."""

    @abstractmethod
    def forward_head(self, features: Tensor) -> Tensor:
        """Return logits (N, K) for a feature map (N, D, h, w)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K) for images (N, C, H, W).

        Raises:
            MienError: The images have another number of channels, or are too small.
        """
        self.check_input(x)
        return self.forward_head(self.forward_features(x))

    def check_input(self, x: Tensor) -> None:
        """Check that the network can take images of this shape.

        Raises:
            MienError: Wrong number of dimensions or channels, or smaller than `minimum_size`.
        """
        shape, minimum = tuple(x.shape), self.minimum_size
        if len(shape) != 4 or shape[1] != self.in_channels:
            raise MienError(
                f"this network takes images of shape (N, {self.in_channels}, H, W), got {shape}; "
                "convert them, or create the network with another in_channels"
            )
        if shape[2] < minimum or shape[3] < minimum:
            raise MienError(
                f"images of {shape[2]}x{shape[3]} px are too small for this network; resize to {minimum}x{minimum} or more"
            )

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last layer by a new, untrained one for another number of classes.

        Raises:
            MienError: Fewer than two classes.
        """
        check_classes(num_classes)
        old = self.classifier
        new: nn.Linear | nn.Conv2d
        if isinstance(old, nn.Conv2d):
            new = nn.Conv2d(old.in_channels, num_classes, old.kernel_size, padding=old.padding)  # type: ignore[arg-type]
        else:
            new = nn.Linear(old.in_features, num_classes)
        self.classifier = new.to(old.weight)
        self.num_classes = num_classes

    def classifier_names(self) -> list[str]:
        """Return the names of the parameters with one row per class."""
        return [f"classifier.{name}" for name, _ in self.classifier.named_parameters()]

    def published_name(self, name: str) -> str:
        """Return the name of one of this network's parameters in published weights."""
        return name

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters without weight decay, in addition to biases and norms."""
        return set()

    def simplify(self) -> None:
        """Simplify the network in place for export: it computes the same function in fewer steps."""

    def attention_maps(self, x: Tensor) -> dict[str, Tensor]:
        """Return the attention maps for images (N, C, H, W): (N, h, w) in [0, 1] by name, shallowest first.

        Empty for a network without attention. Call it in evaluation mode.
        """
        return {}

    @property
    @abstractmethod
    def cam_layer(self) -> nn.Module:
        """The layer whose output (N, D, h, w) Grad-CAM should weight."""


class TimmModel(Model):
    """Adapter that makes a timm network a `Model`.

    The features of a transformer are those of timm, often tokens (N, L, D).

    Args:
        backbone: The timm network. Its parameters keep timm's names after `backbone.`, so that timm's weights can be loaded.
        in_channels: Channels of the input.
        input_size: Height and width the network was designed for, px.
        fixed_size: Whether it takes only that size.
    """

    def __init__(self, backbone: Any, in_channels: int, input_size: tuple[int, int], fixed_size: bool = False) -> None:
        super().__init__()
        self.backbone = backbone
        self.num_classes = self.backbone.num_classes
        self.in_channels = in_channels
        self.input_size = input_size
        self.fixed_size = fixed_size
        stages: Any = getattr(backbone, "feature_info", None) or [{"reduction": 1}]
        self.minimum_size = stages[-1]["reduction"]  # the total stride

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map (N, D, h, w), or timm's tokens (N, L, D), for images (N, C, H, W)."""
        return self.backbone.forward_features(x)

    def forward_head(self, features: Tensor) -> Tensor:
        """Return logits (N, K) for the output of `forward_features`."""
        return self.backbone.forward_head(features)

    def check_input(self, x: Tensor) -> None:
        """Check that the network can take images of this shape.

        Raises:
            MienError: Wrong number of dimensions or channels, too small, or not the fixed size.
        """
        super().check_input(x)
        if self.fixed_size and tuple(x.shape[2:]) != self.input_size:
            raise MienError(
                f"this network takes images of {self.input_size[0]}x{self.input_size[1]} px only, "
                f"got {x.shape[2]}x{x.shape[3]}; resize them, or create the network with input_size"
            )

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last layer by a new, untrained one for another number of classes.

        Raises:
            MienError: Fewer than two classes.
        """
        check_classes(num_classes)
        like = next(self.backbone.parameters())
        self.backbone.reset_classifier(num_classes)
        self.backbone.to(like)
        self.num_classes = num_classes

    def classifier_names(self) -> list[str]:
        """Return the names of the parameters with one row per class."""
        found = self.backbone.get_classifier()
        layers = found if isinstance(found, tuple) else (found,)  # a network with two heads
        rows = {id(weight) for layer in layers for weight in layer.parameters() if len(weight) == self.num_classes}
        return [name for name, weight in self.named_parameters() if id(weight) in rows]

    def published_name(self, name: str) -> str:
        """Return timm's name of a parameter, which is also torchvision's for the networks both have."""
        return name.removeprefix("backbone.")

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters without weight decay: those timm lists and the slopes of PReLU (He et al. 2015)."""
        listed = self.backbone.no_weight_decay() if hasattr(self.backbone, "no_weight_decay") else set()
        slopes = {f"{name}.weight" for name, module in self.named_modules() if isinstance(module, nn.PReLU)}
        return {f"backbone.{name}" for name in listed} | slopes

    @property
    def cam_layer(self) -> nn.Module:
        """The last stage in timm's `feature_info`, or else the last convolution."""
        stages = getattr(self.backbone, "feature_info", None)
        if stages:
            return self.backbone.get_submodule(stages[-1]["module"])
        convolutions = [module for module in self.backbone.modules() if isinstance(module, nn.Conv2d)]
        if not convolutions:
            raise MienError(f"{type(self.backbone).__name__} has no feature map for Grad-CAM; choose a convolutional network")
        return convolutions[-1]


MODELS: Registry[Model] = Registry("model")


def create_model(name: str, num_classes: int = 7, **arguments: Any) -> Model:
    """Return a new network.

    Args:
        name: A name from `names()`, or `timm/` followed by the name of any timm network.
        num_classes: Number of classes, at least 2.
        **arguments: Arguments of the architecture, such as switches for ablations. timm networks take `in_channels` (3 by
            default), `input_size` (height, width) and timm's arguments.

    Raises:
        UnknownNameError: The network or an argument is unknown; the message suggests the nearest name.
        MienError: Fewer than two classes, or an argument the network does not accept.

    >>> sum(p.numel() for p in create_model("sa_csp_ca").parameters())
    1906382
    """
    check_classes(num_classes)
    factory = _timm_factory(name) if name.startswith(TIMM) else MODELS.get(name)
    check_arguments(factory, arguments)
    try:
        return factory(num_classes=num_classes, **arguments)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise MienError(f"cannot build {name!r}: {error}") from error


def names() -> list[str]:
    """Return the names of mien's own networks."""
    return MODELS.names()


def check_classes(num_classes: int) -> None:
    """Check that there are at least two classes.

    Raises:
        MienError: Fewer than two classes.
    """
    if num_classes < 2:
        raise MienError(f"a classifier needs at least 2 classes, got num_classes={num_classes}")


def _timm_factory(name: str) -> Callable[..., Model]:
    import timm

    if not timm.is_model(name.removeprefix(TIMM)):
        close = difflib.get_close_matches(name.removeprefix(TIMM), timm.list_models(), n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(repr(TIMM + other) for other in close)}? " if close else ""
        raise UnknownNameError(f"unknown model {name!r}; {hint}timm.list_models() lists them all")
    return partial(_timm_model, name.removeprefix(TIMM))


def _timm_model(
    name: str, num_classes: int, in_channels: int = 3, input_size: Sequence[int] | None = None, **arguments: Any
) -> TimmModel:
    import timm

    facts = timm.get_pretrained_cfg(name, allow_unregistered=True)
    fixed = bool(facts and facts.fixed_input_size)
    size = tuple(input_size or (facts.input_size[1:] if facts else (224, 224)))
    if len(size) != 2:
        raise ValueError(f"input_size must be a height and a width, got {input_size}")
    if fixed and input_size:
        arguments["img_size"] = size
    network = timm.create_model(name, num_classes=num_classes, in_chans=in_channels, **arguments)
    return TimmModel(network, in_channels, size, fixed)
