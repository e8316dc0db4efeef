"""The base class of all losses, their registry, and the checks they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mien.errors import LabelError, MienError
from mien.registry import Registry, check_arguments


class Loss(nn.Module, ABC):
    """Base class of all losses: one signature, so that one training loop serves all.

    A loss may have parameters (class centers). They are trained with a learning rate of their own, without weight decay and
    without clipping of their gradient, and are stored in the checkpoint.

    Attributes:
        needs_features: Whether the loss uses `features`, the embeddings of the images.
        soft_target: Whether the target must be votes or probabilities (N, K) instead of class indices (N,).
    """

    needs_features: ClassVar[bool] = False
    soft_target: ClassVar[bool] = False

    @abstractmethod
    def forward(self, logits: Tensor, target: Tensor, features: Tensor | None = None) -> Tensor:
        """Return the loss, one number.

        Args:
            logits: (N, K), unbounded.
            target: Class indices, int64 (N,), or a distribution over the classes, float (N, K).
            features: Embeddings (N, D), the mean of the last feature map over its positions; for losses with `needs_features`.
        """


LOSSES: Registry[Loss] = Registry("loss")


def create_loss(name: str, num_classes: int = 7, num_features: int | None = None, **arguments: Any) -> Loss:
    """Return a new loss.

    Args:
        name: A name from `LOSSES`.
        num_classes: Classes K.
        num_features: Length D of an embedding; only used, and required, by losses with class centers.
        **arguments: The loss's own arguments.

    Raises:
        UnknownNameError: Unknown loss or argument; names the nearest.
        MienError: The loss does not accept an argument, or needs `num_features`.

    >>> loss = create_loss("cross_entropy", label_smoothing=0.1)
    >>> round(loss(torch.zeros(2, 7), torch.tensor([0, 3])).item(), 4)  # log 7
    1.9459
    """
    factory = LOSSES.get(name)
    if getattr(factory, "needs_features", False):
        if num_features is None:
            raise MienError(f"loss {name!r} has class centers: give num_features, the length of an embedding")
        arguments = {"num_classes": num_classes, "num_features": num_features} | arguments
    check_arguments(factory, arguments)
    try:
        loss = factory(**arguments)
    except (TypeError, ValueError) as error:
        raise MienError(f"cannot build loss {name!r}: {error}") from error
    weight = getattr(loss, "weight", None)
    if weight is not None and len(weight) != num_classes:
        raise MienError(f"cannot build loss {name!r}: weight has {len(weight)} numbers, but there are {num_classes} classes")
    return loss


def full_precision(x: Tensor) -> Tensor:
    """Return half-precision values as float32 and others unchanged, so that a loss is summed in float32 or better."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def class_weights(weight: Sequence[float] | None) -> Tensor | None:
    """Return class weights as a tensor (K,).

    Raises:
        ValueError: A weight is negative or not finite, or none is positive.
    """
    if weight is None:
        return None
    values = torch.as_tensor(weight, dtype=torch.float32)
    if values.ndim != 1 or not bool(torch.isfinite(values).all()) or bool((values < 0).any()) or not bool(values.any()):
        raise ValueError(f"class weights must be finite, not negative and not all zero, one per class; got {weight}")
    return values


def check_index_target(rows: Tensor, target: Tensor, num_classes: int) -> None:
    """Check class indices.

    The range is checked on the CPU only: on a GPU the check would have to wait, and CUDA reports a bad index itself.

    Args:
        rows: Logits (N, K) or features (N, D) of the same images.
        target: Class indices, int64 (N,).
        num_classes: Classes K.

    Raises:
        ValueError: A shape or the dtype does not fit.
        LabelError: A class outside 0..K-1.
    """
    if rows.ndim != 2 or target.ndim != 1 or len(rows) != len(target) or target.dtype != torch.int64:
        shapes = f"{tuple(rows.shape)} and {str(target.dtype).removeprefix('torch.')} {tuple(target.shape)}"
        raise ValueError(f"expected one row per image and class indices int64 (N,), got {shapes}")
    if target.device.type != "cpu" or torch.compiler.is_compiling() or not len(target):
        return
    wrong = target[(target < 0) | (target >= num_classes)]
    if len(wrong):
        raise LabelError(
            f"target {int(wrong[0])} is not a class: the {num_classes} classes are numbered 0 to {num_classes - 1}"
        )


def distribution(logits: Tensor, target: Tensor) -> Tensor:
    """Return votes as probabilities, (N, K), each row summing to 1.

    Args:
        logits: (N, K).
        target: Votes or probabilities, not negative, (N, K).

    Raises:
        ValueError: The shapes differ.
        LabelError: A row has a negative value or no vote (checked on the CPU only).
    """
    if logits.ndim != 2 or target.shape != logits.shape:
        raise ValueError(f"expected votes of the logits' shape (N, K), got {tuple(target.shape)} for {tuple(logits.shape)}")
    target = target.to(logits.dtype)
    total = target.sum(1, keepdim=True)
    if target.device.type == "cpu" and not torch.compiler.is_compiling():
        bad = ((target < 0).any(1) | ~(total.squeeze(1) > 0)).nonzero()
        if len(bad):
            row = int(bad[0])
            raise LabelError(f"votes of row {row} are not a distribution: {target[row].tolist()}; remove images without votes")
    return target / total
