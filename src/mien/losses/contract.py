"""What every loss of mien offers, the registry they stand in, and the checks of their arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mien.errors import LabelError, MienError
from mien.registry import Registry, check_arguments


class Loss(nn.Module):
    """Base of every loss: one signature, so that one training loop serves all.

    A loss may hold parameters (class centers). They belong to the optimiser, under a learning rate of their own and without
    weight decay, to the checkpoint, and under several processes in the loss's own wrapper, as a network's do.

    Attributes:
        needs_features: The loss reads `features`, embeddings of the images.
        soft_target: The target is votes or probabilities (N, K), not class indices (N,).
    """

    needs_features: ClassVar[bool] = False
    soft_target: ClassVar[bool] = False

    def forward(self, logits: Tensor, target: Tensor, features: Tensor | None = None) -> Tensor:
        """Return the loss, one number.

        Args:
            logits: (N, K), unbounded.
            target: Class indices, int64 (N,), or a distribution over the classes, float (N, K).
            features: Embeddings (N, D), the mean of the last feature map; read by losses that need them only.
        """
        raise NotImplementedError


LOSSES: Registry[Loss] = Registry("loss")


def create_loss(name: str, num_classes: int = 7, num_features: int | None = None, **arguments: Any) -> Loss:
    """Return a new loss.

    Args:
        name: A name from `LOSSES`.
        num_classes: Classes K.
        num_features: Length D of an embedding; needed by losses with class centers, not read by the others.
        **arguments: The loss's own arguments.

    Raises:
        UnknownNameError: No such loss, or no such argument; lists the nearest.
        MienError: An argument the loss does not accept, or no `num_features` where it needs them.

    >>> loss = create_loss("cross_entropy", label_smoothing=0.1)
    >>> round(loss(torch.zeros(2, 7), torch.tensor([0, 3])).item(), 4)  # log 7
    1.9459
    """
    factory = LOSSES.get(name)
    if getattr(factory, "needs_features", False):
        if num_features is None:
            raise MienError(f"loss {name!r} keeps a center for each class: give num_features, the length of an embedding")
        arguments = {"num_classes": num_classes, "num_features": num_features} | arguments
    check_arguments(factory, arguments)
    try:
        loss = factory(**arguments)
    except (TypeError, ValueError) as error:
        raise MienError(f"cannot build loss {name!r}: {error}") from error
    weight = getattr(loss, "weight", None)
    if weight is not None and len(weight) != num_classes:
        raise MienError(f"cannot build loss {name!r}: weight holds {len(weight)} numbers, one a class makes {num_classes}")
    return loss


def full_precision(x: Tensor) -> Tensor:
    """Return half-precision values as float32 and others as they are: a loss is summed in float32 or better."""
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
        raise ValueError(f"class weights must be finite, not negative and not all zero, one a class; got {weight}")
    return values


def check_index_target(rows: Tensor, target: Tensor, num_classes: int) -> None:
    """Check class indices against what they label.

    The range is checked on the CPU alone: on a GPU the look would cost a wait, and CUDA stops at a bad index by itself.

    Args:
        rows: Logits (N, K) or features (N, D).
        target: What ought to be class indices, (N,).
        num_classes: Classes K.

    Raises:
        ValueError: A shape or the type does not fit.
        LabelError: A class outside 0..K-1.
    """
    if rows.ndim != 2 or target.ndim != 1 or len(rows) != len(target) or target.dtype != torch.int64:
        shapes = f"{tuple(rows.shape)} and {str(target.dtype).removeprefix('torch.')} {tuple(target.shape)}"
        raise ValueError(f"expected a row an image and class indices int64 (N,), got {shapes}")
    if target.device.type != "cpu" or torch.compiler.is_compiling() or not len(target):
        return
    wrong = target[(target < 0) | (target >= num_classes)]
    if len(wrong):
        raise LabelError(f"target {int(wrong[0])} is no class: {num_classes} classes are numbered 0 to {num_classes - 1}")


def distribution(logits: Tensor, target: Tensor) -> Tensor:
    """Return votes as probabilities, (N, K), each row summing to 1.

    Args:
        logits: (N, K).
        target: Votes or probabilities, not negative, (N, K).

    Raises:
        ValueError: The shapes differ.
        LabelError: A row is negative somewhere or has no vote (checked on the CPU alone).
    """
    if logits.ndim != 2 or target.shape != logits.shape:
        raise ValueError(f"expected votes of the logits' shape (N, K), got {tuple(target.shape)} for {tuple(logits.shape)}")
    target = target.to(logits.dtype)
    total = target.sum(1, keepdim=True)
    if target.device.type == "cpu" and not torch.compiler.is_compiling():
        bad = ((target < 0).any(1) | ~(total.squeeze(1) > 0)).nonzero()
        if len(bad):
            row = int(bad[0])
            raise LabelError(f"votes of row {row} are no distribution: {target[row].tolist()}; drop images without a vote")
    return target / total
