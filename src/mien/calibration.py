"""From logits to honest probabilities: fitting and applying what `ModelInfo.calibration` stores.

A probability is honest if answers with a confidence of 70 % are right 70 times in a hundred. Three numbers, fitted on the
selection split, make it so without changing any label. The same split gives the limits of prediction sets, which contain the
right expression as often as asked for. A bias for each class can also make rare classes more probable. That changes labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.errors import DataError, InputError

COVERAGES = (0.8, 0.9, 0.95, 0.99)
"""Shares of faces whose prediction set contains the right expression, for which limits are fitted."""

TIE = 1e-6
"""Least lead of the first class, which keeps it the first where a power above 1 makes two distances equal."""

LEAST = 200
"""Smallest number of images to fit on; below it the limit for a coverage of 99 % would be that of a single image."""

MAX_BIAS = 20.0
"""Largest bias of a class."""

BOUNDS = {"temperature": (0.05, 20.0), "power": (0.25, 4.0), "lead": (0.0, 2.0)}
"""Smallest and largest value of what is fitted."""


def calibrated_probs(
    logits: NDArray[np.floating[Any]], calibration: Mapping[str, Any], columns: Sequence[int] | None = None
) -> NDArray[np.float32]:
    """Return the calibrated probabilities of logits, float32 (N, K).

    With the distances d_k = max z - z_k and the temperature T, the power a, the lead b and the bias c of the calibration:

        p_k = exp(-(d_k / T)^a + b [k is the first class with d_k = 0] + c_k) / (the sum of this over the classes)

    Without a calibration T = a = 1 and b = c_k = 0, which is the softmax. T alone is temperature scaling (Guo et al. 2017, "On
    Calibration of Modern Neural Networks"). Only the bias can change the label.

    Args:
        logits: Outputs of the network, (N, K).
        calibration: See `mien.model_info.ModelInfo`.
        columns: Classes to choose among, by index; the probabilities are theirs, in this order. None takes all.

    >>> calibrated_probs(np.array([[1000.0, 1000.0]]), {}).tolist()
    [[0.5, 0.5]]
    """
    bias = np.array(calibration.get("bias", [0.0] * logits.shape[-1]))
    if columns is not None:
        logits, bias = logits[:, columns], bias[list(columns)]
    scores = -(
        ((logits.max(axis=-1, keepdims=True) - logits) / calibration.get("temperature", 1.0)) ** calibration.get("power", 1.0)
    )
    first = np.arange(logits.shape[-1]) == logits.argmax(axis=-1)[..., None]
    lead = max(calibration.get("lead", 0.0), TIE) if calibration else 0.0
    raised = np.exp(scores + lead * first + (bias - bias.max()))
    return (raised / raised.sum(axis=-1, keepdims=True)).astype(np.float32)


def class_bias(frequencies: NDArray[np.floating[Any]], strength: float) -> list[float]:
    """Return by how much to change the log probabilities, so that rare classes are not neglected: K numbers with the mean 0.

    A network learns that a class is rare, and answers with it less often than its faces deserve. The bias is -s log p_k for the
    frequency p_k: with s = 1, the probabilities become those of faces among which all classes are equally frequent (Saerens et
    al. 2002, "Adjusting the Outputs of a Classifier to New a Priori Probabilities").

    Args:
        frequencies: How often the training showed each class, (K,), all above 0.
        strength: s, from 0 (no correction) to 1 (as if all classes had been equally frequent).

    Raises:
        DataError: A class was never shown.
        InputError: The strength is out of range.

    >>> class_bias(np.array([1.0, 9.0]), 1.0)
    [1.0986, -1.0986]
    """
    if not 0 <= strength <= 1:
        raise InputError(f"the strength of the correction must be from 0 to 1, got {strength:g}")
    if not (frequencies > 0).all():
        raise DataError("the training split has no image of some class, so its frequency cannot be corrected for")
    log = np.log(frequencies / frequencies.sum())
    return [round(float(value), 4) + 0.0 for value in strength * (log.mean() - log)]


def unbiased(calibration: Mapping[str, Any]) -> dict[str, Any]:
    """Return a calibration without its bias, for probabilities that fit the uneven classes of the training."""
    return {key: value for key, value in calibration.items() if key != "bias"}


def fit_calibration(
    logits: NDArray[np.floating[Any]],
    target: NDArray[np.integer[Any]],
    bias: list[float] | None = None,
) -> dict[str, Any]:
    """Return the calibration with the smallest cross-entropy, and the limits of prediction sets.

    Args:
        logits: Of images that the network was not trained on, (N, K).
        target: Their classes, (N,).
        bias: How the probabilities are changed afterwards, see `class_bias`.

    Returns:
        `temperature`, `power` and `lead` (see `calibrated_probs`), the `bias` if given, and `set_limits`: by
        coverage, such as `"0.9"`, the smallest probability of a class in the set. It is the quantile of split conformal
        prediction (Sadinle et al. 2019, "Least Ambiguous Set-Valued Classifiers"): the set of a new image contains its class
        with at least that probability.

    Raises:
        DataError: There are fewer than `LEAST` images.
    """
    if len(target) < LEAST:
        raise DataError(f"calibration needs at least {LEAST} images that the model was not trained on, got {len(target)}")
    from scipy.optimize import minimize  # here: only the train extra has it

    rows, precise = np.arange(len(target)), logits.astype(np.float64)

    def loss(values: NDArray[np.float64]) -> float:
        right = calibrated_probs(precise, dict(zip(BOUNDS, values, strict=True)))[rows, target]
        return float(-np.log(np.maximum(right, 1e-30)).mean())

    best = minimize(loss, [1.0, 1.0, 0.1], method="Nelder-Mead", bounds=list(BOUNDS.values())).x
    fitted: dict[str, Any] = {name: round(float(value), 4) for name, value in zip(BOUNDS, best, strict=True)}
    if bias is not None:
        fitted["bias"] = bias
    right = np.sort(calibrated_probs(logits, fitted)[rows, target])  # the probability of the right class
    ranks = {coverage: int((1 - coverage) * (len(right) + 1)) for coverage in COVERAGES}
    fitted["set_limits"] = {str(coverage): float(right[rank - 1]) for coverage, rank in ranks.items()}
    return fitted


def set_limit(calibration: Mapping[str, Any], coverage: float) -> float:
    """Return the smallest probability of a class in a prediction set of that coverage.

    Raises:
        InputError: The model has no limit for that coverage.
    """
    limits = {float(key): value for key, value in calibration.get("set_limits", {}).items()}
    if coverage not in limits:
        known = f"choose one of {', '.join(map(str, limits))}" if limits else "calibrate it first with mien calibrate"
        raise InputError(f"coverage {coverage:g}: this model has no limit for it; {known}")
    return float(limits[coverage])


def prediction_set(probs: NDArray[np.float32], limit: float) -> NDArray[np.int64]:
    """Return the classes with a probability of at least the limit, and always the first, most probable one first, (k,)."""
    order = np.argsort(-probs, kind="stable")
    return order[: max(1, int((probs >= limit).sum()))]
