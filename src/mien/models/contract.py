"""What every network of mien offers, the registry they stand in, and any timm network under the same contract."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from mien.errors import MienError, UnknownNameError
from mien.registry import Registry, check_arguments

TIMM = "timm/"
"""What a name begins with that is timm's, as in `timm/resnet18`."""


class Model(nn.Module):
    """Base of every network: features, then a head whose last layer is `classifier`.

    Attributes:
        num_classes: Classes K the head tells apart.
        in_channels: 1 (grey) or 3 (RGB).
        input_size: Height and width the network was designed for, px; larger ones and most smaller ones do as well.
        minimum_size: Least height and width, px: below it, a layer of stride 2 would be left with a single position.
        classifier: The layer that gives the logits, linear or convolutional.
        layered: Its layers are built in the order in which they stand one upon the other.
        imagenet: Name of torchvision's ImageNet weights that fit it, at least in part; None if there are none.
    """

    num_classes: int
    in_channels: int
    input_size: tuple[int, int]
    minimum_size: int
    classifier: nn.Linear | nn.Conv2d
    layered: bool = True
    imagenet: str | None = None

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map (N, D, h, w) for images (N, C, H, W)."""
        raise NotImplementedError

    def forward_head(self, features: Tensor) -> Tensor:
        """Return logits (N, K) for a feature map (N, D, h, w)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K) for images (N, C, H, W).

        Raises:
            MienError: The images have another number of channels, or are too small.
        """
        self.check_input(x)
        return self.forward_head(self.forward_features(x))

    def check_input(self, x: Tensor) -> None:
        """Refuse images (N, C, H, W) the network cannot take.

        Raises:
            MienError: Another number of dimensions or channels, or fewer px than `minimum_size`.
        """
        shape, least = tuple(x.shape), self.minimum_size
        if len(shape) != 4 or shape[1] != self.in_channels:
            raise MienError(
                f"this network takes images of shape (N, {self.in_channels}, H, W), got {shape}; "
                f"convert them, or create the network with in_channels"
            )
        if shape[2] < least or shape[3] < least:
            raise MienError(
                f"images of {shape[2]}x{shape[3]} px are too small for this network; resize to {least}x{least} or more"
            )

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last layer by a new one, not trained yet, for another number of classes.

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

    def published_name(self, name: str) -> str:
        """Return what published weights call one of this network's parameters."""
        return name

    def no_weight_decay(self) -> set[str]:
        """Return names of parameters that must not decay, beside biases and norms."""
        return set()

    def simplify(self) -> None:
        """Rewrite the network, in place, into one that computes the same with less work; for export, not for training."""

    def attention_maps(self, x: Tensor) -> dict[str, Tensor]:
        """Return what the network attends to in images (N, C, H, W): maps (N, h, w) in [0, 1] by name, shallowest first.

        Empty for a network without attention. Call it in evaluation mode; an image's map does not depend on its batch.
        """
        return {}

    @property
    def cam_layer(self) -> nn.Module:
        """The layer whose output (N, D, h, w) Grad-CAM should weigh."""
        raise NotImplementedError


class TimmModel(Model):
    """A network with timm's interface (`forward_features`, `forward_head`, `reset_classifier`, `feature_info`) as a `Model`.

    For transformers the features are what timm gives, often tokens (N, L, D).

    Args:
        backbone: The network; its parameters keep timm's names behind `backbone.`, so that timm's weights load into it.
        in_channels: Channels of its input.
        input_size: Height and width it was designed for, px.
        fixed_size: Whether it takes no other size.
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
        """Return logits (N, K) for what `forward_features` gave."""
        return self.backbone.forward_head(features)

    def check_input(self, x: Tensor) -> None:
        """Refuse images (N, C, H, W) the network cannot take.

        Raises:
            MienError: Another number of dimensions or channels, too few px, or another size where it is fixed.
        """
        super().check_input(x)
        if self.fixed_size and tuple(x.shape[2:]) != self.input_size:
            raise MienError(
                f"this network takes images of {self.input_size[0]}x{self.input_size[1]} px only, "
                f"got {x.shape[2]}x{x.shape[3]}; resize them, or create the network with input_size"
            )

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last layer by a new one, not trained yet, for another number of classes.

        Raises:
            MienError: Fewer than two classes.
        """
        check_classes(num_classes)
        like = next(self.backbone.parameters())
        self.backbone.reset_classifier(num_classes)
        self.backbone.to(like)
        self.num_classes = num_classes

    def published_name(self, name: str) -> str:
        """Return timm's name of a parameter, torchvision's too for the networks both have."""
        return name.removeprefix("backbone.")

    def no_weight_decay(self) -> set[str]:
        """Return names of parameters that must not decay: those timm lists and the slopes of PReLU (He et al. 2015)."""
        listed = self.backbone.no_weight_decay() if hasattr(self.backbone, "no_weight_decay") else set()
        slopes = {f"{name}.weight" for name, module in self.named_modules() if isinstance(module, nn.PReLU)}
        return {f"backbone.{name}" for name in listed} | slopes

    @property
    def cam_layer(self) -> nn.Module:
        """The last stage that timm lists, or else the last convolution."""
        stages = getattr(self.backbone, "feature_info", None)
        if stages:
            return self.backbone.get_submodule(stages[-1]["module"])
        convolutions = [module for module in self.backbone.modules() if isinstance(module, nn.Conv2d)]
        if not convolutions:
            raise MienError(f"{type(self.backbone).__name__} has no feature map to weigh; choose a convolutional network")
        return convolutions[-1]


MODELS: Registry[Model] = Registry("model")


def create_model(name: str, num_classes: int = 7, **arguments: Any) -> Model:
    """Return a new network.

    Args:
        name: A name from `names()`, or `timm/` and the name of any network of timm.
        num_classes: Classes it tells apart, at least 2.
        **arguments: The architecture's own arguments (its ablations among them). Networks of timm take `in_channels` (3),
            `input_size` (height, width) and timm's arguments.

    Raises:
        UnknownNameError: No such network, or no such argument; lists the nearest.
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
    """Return the names `create_model` knows, beside those of timm."""
    return MODELS.names()


def check_classes(num_classes: int) -> None:
    """Refuse a number of classes nothing can be told apart with.

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
        raise ValueError(f"input_size is a height and a width, got {input_size}")
    if fixed and input_size:
        arguments["img_size"] = size
    network = timm.create_model(name, num_classes=num_classes, in_chans=in_channels, **arguments)
    return TimmModel(network, in_channels, size, fixed)
