"""Statistics of measured accuracies: mean and deviation over runs, intervals, and paired tests; by SciPy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a row compares with the reference row, on the same images.

    Attributes:
        difference: Accuracy of the row minus that of the reference, in [-1, 1].
        p: McNemar's exact two-sided p-value, on the runs of the first common seed. It is not corrected for the number of rows.
        interval: 95 % bootstrap interval of the difference over seeds; None with fewer than three common seeds.
    """

    difference: float
    p: float
    interval: Interval | None = None


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the standard deviation with divisor N, as in equations 8 and 9 of Chen and Chen (vgg16_gcca).

    >>> mean_and_deviation([0.70, 0.72])
    (0.71, 0.01)
    """
    return round(float(np.mean(values)), 12), round(float(np.std(values)), 12)


def interval_of_runs(values: Sequence[float]) -> Interval:
    """Return the 95 % interval of the mean of several independent runs, by Student's t. It needs two values."""
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    return float(low), float(high)


def interval_of_images(correct: int, images: int, level: float = 0.95) -> Interval:
    """Return the Wilson interval of an accuracy, from the number of images alone.

    It says how far another sample of images may move the figure; it does not know how much another seed would.
    """
    found = stats.binomtest(correct, images).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)


def interval_of_sum(figures: Sequence[tuple[float, Interval]], weights: Sequence[float]) -> Interval:
    """Return the interval of a weighted sum of independent figures, such as a difference or a mean, from their own intervals.

    With figures f_i in (l_i, u_i) and positive weights w_i, the lower end is sum w_i f_i - sqrt(sum (w_i (f_i - l_i))^2), and
    the upper one mirrors it; a negative weight exchanges l_i and u_i (Zou, Huang, Zhang 2009, "A note on confidence interval
    estimation for a linear function of binomial proportions"). The difference of two Wilson intervals is Newcombe's (1998).

    Args:
        figures: Each figure with its interval, all of one level.
        weights: The weight of each figure.
    """
    values = np.array([value for value, _ in figures]) * weights
    ends = np.sort(np.array([interval for _, interval in figures]) * np.asarray(weights)[:, None], axis=1)
    low, high = np.sqrt(((values[:, None] - ends) ** 2).sum(0))
    return float(values.sum() - low), float(values.sum() + high)


def mcnemar(row: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    """Return McNemar's exact two-sided p-value.

    Args:
        row: Whether each image is classified correctly, (N,).
        reference: The same by the other network, on the same images.
    """
    only_row, only_reference = int((row & ~reference).sum()), int((reference & ~row).sum())
    if only_row + only_reference == 0:
        return 1.0
    return float(stats.binomtest(only_row, only_row + only_reference).pvalue)


def bootstrap_of_seeds(differences: Sequence[float]) -> Interval:
    """Return the 95 % interval of the mean difference of runs paired by seed, by the bias-corrected bootstrap.

    Args:
        differences: Accuracy of the row minus accuracy of the reference, one per seed; three or more.
    """
    if np.ptp(differences) == 0:
        return float(differences[0]), float(differences[0])
    found = stats.bootstrap(
        (np.asarray(differences),), np.mean, n_resamples=9_999, rng=np.random.default_rng(0)
    ).confidence_interval
    return float(found.low), float(found.high)


def interval_of_units(differences: NDArray[np.float64], units: NDArray[np.str_]) -> Interval:
    """Return the 95 % bootstrap interval of a mean difference over images, drawing all images of a unit together.

    Args:
        differences: Of two networks on each image, such as 1 if only the first is right and -1 if only the second is, (N,).
        units: The person in each image, whose images are alike, or the image itself, (N,).
    """
    _, unit = np.unique(units, return_inverse=True)
    sums, counts = np.bincount(unit, differences), np.bincount(unit)
    random = np.random.default_rng(0)
    draws = (random.integers(0, len(counts), len(counts)) for _ in range(9_999))
    low, high = np.percentile([sums[drawn].sum() / counts[drawn].sum() for drawn in draws], (2.5, 97.5))
    return float(low), float(high)


def risk_coverage(
    confidence: NDArray[np.floating], right: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the error rate if only the most confident answers count: coverages, ascending, and their risks, each (N,).

    The mean risk over all coverages is the AURC, the area under this curve (Geifman, Uziel and El-Yaniv 2019, "Bias-Reduced
    Uncertainty Estimation for Deep Neural Classifiers", section 2). Of answers with the same confidence, the first come first.

    Args:
        confidence: Confidence of each answer, (N,).
        right: Whether it is right, (N,).

    >>> [values.tolist() for values in risk_coverage(np.array([0.5, 0.9]), np.array([False, True]))]
    [[0.5, 1.0], [0.0, 0.5]]
    """
    kept = np.arange(1, len(right) + 1)
    return kept / len(right), np.cumsum(~right[np.argsort(-confidence, kind="stable")]) / kept
