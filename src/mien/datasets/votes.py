"""From FER+'s votes to labels: the rules of its paper and of the code published with it.

Source: Barsoum et al. 2016, "Training Deep Networks for Facial Expression Recognition with Crowd-Sourced Label Distribution",
and github.com/microsoft/FERPlus, `_process_data`. Ten people voted on each image.

- Outliers: a class with a single vote has none.
- `majority`: the class with more than half of the votes that are left, else unknown.
- `distribution` (there the modes `crossentropy` and `probability`): classes are taken by their votes, equals together, until
  they hold three quarters of what is left or are three. Unknown and NF end this, and count only if they come first. The row
  is unknown if more than three were taken, or if these hold no more than half.
- Eight classes: rows that come out unknown or NF, and rows without an image name, are left out; the rest sums to 1.

With ten classes, as in stn-resnet50, nothing is left out: a row without a majority is unknown, one without an image name has
ten votes for NF. That paper says "ten labels" and no more, so its rule for rows without a majority may be another.
`min_agreement` is ours, not the paper's: it counts the winner's votes among all votes, outliers too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

COLUMNS = (
    "neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF",
)  # fmt: skip
"""Names of the votes in FER+'s files, in the order of the label set `ferplus10`."""

UNKNOWN = 8


def majority(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return 1 for the class with more than half of the votes without outliers, else for unknown.

    >>> majority(np.array([[0, 6, 1, 1, 1, 1, 0, 0, 0, 0], [4, 4, 2, 0, 0, 0, 0, 0, 0, 0]])).argmax(axis=1)
    array([1, 8])

    Args:
        counts: Votes for each of `COLUMNS`, (N, 10).
    """
    left = np.where(counts > 1, counts, 0)
    clear = 2 * left.max(axis=1) > left.sum(axis=1)
    return np.eye(len(COLUMNS))[np.where(clear, left.argmax(axis=1), UNKNOWN)]


def distribution(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of each class among those with most votes, (N, 10), rows of sum 1; see the rule above.

    >>> distribution(np.array([[5, 0, 0, 3, 1, 0, 0, 0, 1, 0]]))[0].tolist()
    [0.625, 0.0, 0.0, 0.375, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]

    Args:
        counts: Votes for each of `COLUMNS`, (N, 10).
    """
    left = np.where(counts > 1, counts, 0)
    patterns, which = np.unique(left, axis=0, return_inverse=True)  # most rows are like another one
    shares = np.array([_leading(pattern) for pattern in patterns]).reshape(-1, len(COLUMNS))
    return (shares / shares.sum(axis=1, keepdims=True))[which.reshape(-1)]


def _leading(left: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the votes that count of one row without outliers, (10,)."""
    taken = np.zeros(len(COLUMNS))
    for level in sorted(set(left[left > 0].tolist()), reverse=True):
        if taken.sum() >= 0.75 * left.sum() or np.count_nonzero(taken) >= 3:
            break
        equal = np.flatnonzero(left == level)
        taken[equal[equal < UNKNOWN]] = level
        if equal[-1] >= UNKNOWN:
            if not taken.any():
                taken[equal[0]] = level
            break
    clear = taken.sum() > 0.5 * left.sum() and np.count_nonzero(taken) <= 3
    return taken if clear else np.eye(len(COLUMNS))[UNKNOWN]
