"""Ways to handle uneven classes: weights for the loss, weights for sampling, and the order of a sampled epoch.

Source of the effective number: Cui et al. 2019, "Class-Balanced Loss Based on Effective Number of Samples", equations 2 and 4.
A class without images gets weight 0.
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
    """Return the weight of each class in the loss, float32 (num_classes,), with mean 1 over the classes that have images.

    Args:
        target: Class indices of the training images, (N,).
        num_classes: Number of classes.
        scheme: `inverse` is 1 / n for a class with n images. `effective` is (1 - beta) / (1 - beta**n), which moves from equal
            weights to `inverse` as beta moves from 0 to 1.
        beta: For `effective`, in [0, 1).

    Raises:
        DataError: There is no target, or one is not a class.
        RecipeError: The scheme is unknown, or beta is out of range.

    >>> class_weights([0, 0, 0, 1], 2).tolist()
    [0.5, 1.5]
    """
    _known(scheme, list(get_args(WeightScheme)))
    if not 0 <= beta < 1:
        raise RecipeError(f"beta is {beta}; give a number from 0 to below 1, such as 0.999")
    counts = _counts(target, num_classes)
    present = counts > 0
    size = counts[present].astype(np.float64)
    weights = np.zeros(num_classes)
    weights[present] = 1 / size if scheme == "inverse" else (1 - beta) / (1 - beta**size)
    return (weights / weights[present].mean()).astype(np.float32)


def sampling_weights(target: ArrayLike, num_classes: int, scheme: SamplingScheme) -> NDArray[np.float64]:
    """Return the probability of each image in a draw, float64 (N,), of sum 1.

    Args:
        target: Class indices of the training images, (N,).
        num_classes: Number of classes.
        scheme: `balanced` is 1 / n for an image of a class with n, so every class is drawn equally often. `weighted` is
            1 / sqrt(n), half way there.

    Raises:
        DataError: There is no target, or one is not a class.
        RecipeError: The scheme is unknown.

    >>> sampling_weights([0, 0, 1], 2, "balanced").tolist()
    [0.25, 0.25, 0.5]
    """
    _known(scheme, list(get_args(SamplingScheme)))
    size = _counts(target, num_classes)[np.asarray(target)].astype(np.float64)
    weights = 1 / size if scheme == "balanced" else 1 / np.sqrt(size)
    return weights / weights.sum()


def epoch_order(target: ArrayLike, weights: ArrayLike | None, seed: int | Sequence[int]) -> NDArray[np.int64]:
    """Return the rows of one epoch in their order, int64 (N,).

    Rows are sampled systematically: of N draws, a row of probability p gets N p, rounded down or up, and so does each class.
    Independent draws give the same on average, with more variance. Equal weights give every row once.

    Args:
        target: Class indices, (N,).
        weights: Probability of each row, (N,), of any sum; None for every row once.
        seed: Seed of this epoch; a run passes its own seed and the epoch's number.

    Raises:
        DataError: The weights are not N finite numbers of at least 0, one of them positive.
    """
    random = np.random.default_rng(seed)
    classes = np.asarray(target)
    order = random.permutation(len(classes))
    if weights is None:
        return order.astype(np.int64)
    shares = np.asarray(weights, np.float64)
    if shares.shape != classes.shape or not np.isfinite(shares).all() or (shares < 0).any() or not shares.any():
        raise DataError(f"sampling weights must be {len(classes):,} finite numbers of at least 0, one of them positive")
    order = order[np.argsort(classes[order], kind="stable")]  # classes are adjacent, so each gets its share too
    ends = np.cumsum(shares[order])
    points = (np.arange(len(order)) + random.random()) * (ends[-1] / len(order))
    last = np.searchsorted(ends, ends[-1])  # rounding may put the last point at the very end
    picks = np.minimum(np.searchsorted(ends, points, side="right"), last)
    return random.permutation(order[picks]).astype(np.int64)


def _counts(target: ArrayLike, num_classes: int) -> NDArray[np.int64]:
    values = np.asarray(target)
    if values.ndim != 1 or len(values) == 0:
        raise DataError("there are no images to balance; the training split is empty")
    if values.min() < 0 or values.max() >= num_classes:
        raise DataError(f"targets are {values.min()} to {values.max()}, outside the {num_classes} classes")
    return np.bincount(values, minlength=num_classes)


def _known(scheme: str, schemes: list[str]) -> None:
    if scheme not in schemes:
        raise RecipeError(f"unknown scheme {scheme!r}{nearest(str(scheme), schemes)}")
