"""Answers to uneven classes: weights for the loss, weights for drawing, and the order of an epoch drawn by them.

Source of the effective number: Cui et al. 2019, "Class-Balanced Loss Based on Effective Number of Samples", equations 2 and 4.
A class without an image gets weight 0: it is never drawn, and no target asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mien.errors import DataError, RecipeError
from mien.registry import nearest

WeightScheme = Literal["inverse", "effective"]
SamplingScheme = Literal["weighted", "balanced"]


def class_weights(
    target: ArrayLike, num_classes: int, scheme: WeightScheme = "inverse", beta: float = 0.999
) -> NDArray[np.float32]:
    """Return what each class's loss is multiplied by, float32 (num_classes,), of mean 1 over the classes with an image.

    Args:
        target: Class indices of the training images, (N,).
        num_classes: Number of classes.
        scheme: `inverse`: 1 / n for a class of n images. `effective`: (1 - beta) / (1 - beta**n), which goes from equal weights
            to `inverse` as beta goes from 0 to 1.
        beta: Of `effective`, in [0, 1).

    Raises:
        DataError: No target, or one outside the classes.
        RecipeError: Unknown scheme, or beta out of range.

    >>> class_weights([0, 0, 0, 1], 2).tolist()
    [0.5, 1.5]
    """
    _known(scheme, list(get_args(WeightScheme)))
    if not 0 <= beta < 1:
        raise RecipeError(f"beta is {beta}; it goes from 0 to below 1, such as 0.999")
    counts = _counts(target, num_classes)
    present = counts > 0
    size = counts[present].astype(np.float64)
    weights = np.zeros(num_classes)
    weights[present] = 1 / size if scheme == "inverse" else (1 - beta) / (1 - beta**size)
    return (weights / weights[present].mean()).astype(np.float32)


def sampling_weights(target: ArrayLike, num_classes: int, scheme: SamplingScheme) -> NDArray[np.float64]:
    """Return how probable each image is in a draw, float64 (N,), of sum 1.

    Args:
        target: Class indices of the training images, (N,).
        num_classes: Number of classes.
        scheme: `balanced`: 1 / n for an image of a class of n, so every class is drawn equally often. `weighted`: 1 / sqrt(n),
            half way there.

    Raises:
        DataError: No target, or one outside the classes.
        RecipeError: Unknown scheme.

    >>> sampling_weights([0, 0, 1], 2, "balanced").tolist()
    [0.25, 0.25, 0.5]
    """
    _known(scheme, list(get_args(SamplingScheme)))
    size = _counts(target, num_classes)[np.asarray(target)].astype(np.float64)
    weights = 1 / size if scheme == "balanced" else 1 / np.sqrt(size)
    return weights / weights.sum()


def epoch_order(target: ArrayLike, weights: ArrayLike | None, seed: int | Sequence[int]) -> NDArray[np.int64]:
    """Return the rows of one epoch in the order they are seen, int64 (N,).

    Rows are drawn systematically: of N draws a row of probability p gets N p, rounded down or up, and so does each class. That
    is what independent draws give on average, without their luck. Equal weights give every row once.

    Args:
        target: Class indices, (N,).
        weights: How probable each row is, (N,), of any sum; None for every row once.
        seed: Seed of this epoch; a run passes its own seed and the epoch's number.

    Raises:
        DataError: The weights are not N finite numbers from 0 on with one above it.
    """
    random = np.random.default_rng(seed)
    classes = np.asarray(target)
    order = random.permutation(len(classes))
    if weights is None:
        return order.astype(np.int64)
    shares = np.asarray(weights, np.float64)
    if shares.shape != classes.shape or not np.isfinite(shares).all() or (shares < 0).any() or not shares.any():
        raise DataError(f"sampling weights must be {len(classes):,} finite numbers from 0 on, one of them above it")
    order = order[np.argsort(classes[order], kind="stable")]  # classes lie together, so each gets its share too
    ends = np.cumsum(shares[order])
    points = (np.arange(len(order)) + random.random()) * (ends[-1] / len(order))
    last = np.searchsorted(ends, ends[-1])  # rounding may put the last point on the end of the line
    picks = np.minimum(np.searchsorted(ends, points, side="right"), last)
    return random.permutation(order[picks]).astype(np.int64)


def _counts(target: ArrayLike, num_classes: int) -> NDArray[np.int64]:
    values = np.asarray(target)
    if values.ndim != 1 or len(values) == 0:
        raise DataError("no image to balance; the training split is empty")
    if values.min() < 0 or values.max() >= num_classes:
        raise DataError(f"targets go from {values.min()} to {values.max()}, outside the {num_classes} classes")
    return np.bincount(values, minlength=num_classes)


def _known(scheme: str, schemes: list[str]) -> None:
    if scheme not in schemes:
        raise RecipeError(f"unknown scheme {scheme!r}{nearest(str(scheme), schemes)}")
