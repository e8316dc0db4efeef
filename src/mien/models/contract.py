"""What every network of mien offers, and the registry they stand in."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mien.errors import MienError
from mien.registry import Registry


class Model(nn.Module):
    """Base of every network: features, then a head.

    Attributes:
        num_classes: Classes K the head tells apart.
        in_channels: 1 (grey) or 3 (RGB).
        input_size: Height and width the network was designed for, px.
    """

    num_classes: int
    in_channels: int
    input_size: tuple[int, int]

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map (N, D, h, w) for images (N, C, H, W)."""
        raise NotImplementedError

    def forward_head(self, features: Tensor) -> Tensor:
        """Return logits (N, K) for a feature map (N, D, h, w)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K) for images (N, C, H, W)."""
        return self.forward_head(self.forward_features(x))

    def no_weight_decay(self) -> set[str]:
        """Return names of parameters that must not decay, beside biases and norms."""
        return set()


MODELS: Registry[Model] = Registry("model")


def create_model(name: str, num_classes: int = 7, **arguments: Any) -> Model:
    """Return a new network.

    Args:
        name: A name from `names()`.
        num_classes: Classes it tells apart, at least 2.
        **arguments: The architecture's own arguments (its ablations among them).

    Raises:
        UnknownNameError: No such network.
        MienError: Fewer than two classes, or an argument the network does not take or accept.

    >>> sum(p.numel() for p in create_model("sa_csp_ca").parameters())
    1906382
    """
    if num_classes < 2:
        raise MienError(f"a classifier needs at least 2 classes, got num_classes={num_classes}")
    factory = MODELS.get(name)
    try:
        return factory(num_classes=num_classes, **arguments)
    except (TypeError, ValueError) as error:
        raise MienError(f"cannot build {name!r}: {error}") from error


def names() -> list[str]:
    """Return the names `create_model` knows."""
    return MODELS.names()
