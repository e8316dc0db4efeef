"""Metrics of a classifier from its probabilities, by torchmetrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional import classification

BINS = 15
"""Bins of the expected calibration error."""


def classification_report(
    probs: NDArray[np.float32],
    target: NDArray[np.int64],
    classes: Sequence[str],
    votes: NDArray[np.int64] | None = None,
) -> dict[str, Any]:
    """Return the metrics of mien's results files, each in [0, 1], except `kappa`, which is in [-1, 1].

    Args:
        probs: Probabilities, (N, K).
        target: Class indices, (N,).
        classes: The K classes by index.
        votes: How many people chose each class, (N, K).

    Returns:
        `images`, `accuracy`, `macro_f1` (mean F1 of the classes), `uar` (mean recall of the classes: balanced accuracy),
        `kappa` (Cohen's kappa: agreement with the labels beyond chance), `ece` (expected calibration error, 15 bins) and
        `votes_agreement` (see `agreement_with_votes`; None without votes). By class, `recall` and `fpr` (false positive rate:
        the share of the other classes' images that get this class). A class without images has recall None and is left out of
        the means. `kappa`, and the `fpr` of a class, are None if all images are of one class.
    """
    p, t, k = torch.from_numpy(np.asarray(probs)), torch.from_numpy(np.asarray(target)), len(classes)
    count = torch.bincount(t, minlength=k)
    present, others = count > 0, count < len(target)
    recall = classification.multiclass_recall(p, t, k, average="none")
    fpr = 1 - classification.multiclass_specificity(p, t, k, average="none")
    f1 = classification.multiclass_f1_score(p, t, k, average="none")
    kappa = classification.multiclass_cohen_kappa(p, t, k).item()
    return {
        "images": len(target),
        "accuracy": classification.multiclass_accuracy(p, t, k, average="micro").item(),
        "macro_f1": f1[present].mean().item(),
        "uar": recall[present].mean().item(),
        "kappa": None if math.isnan(kappa) else kappa,
        "ece": classification.multiclass_calibration_error(p, t, k, n_bins=BINS).item(),
        "votes_agreement": None if votes is None else agreement_with_votes(np.asarray(probs), votes),
        "recall": _by_class(classes, recall, present),
        "fpr": _by_class(classes, fpr, others),
    }


def _by_class(classes: Sequence[str], values: Tensor, known: Tensor) -> dict[str, float | None]:
    return {name: value if there else None for name, value, there in zip(classes, values.tolist(), known, strict=True)}


def agreement_with_votes(probs: NDArray[np.float32], votes: NDArray[np.int64]) -> float | None:
    """Return how often a person who voted on an image chose the class that is predicted for it: the mean over the images.

    Args:
        probs: Probabilities, (N, K).
        votes: How many people chose each class, (N, K). An image without votes is left out.

    Returns:
        The mean share of an image's votes that its predicted class has, in [0, 1]; None if no image has votes.
    """
    total = votes.sum(1)
    chosen = votes[np.arange(len(votes)), probs.argmax(1)]
    return float((chosen[total > 0] / total[total > 0]).mean()) if total.any() else None


def confusion(probs: NDArray[np.float32], target: NDArray[np.int64], num_classes: int) -> NDArray[np.int64]:
    """Return the confusion matrix, counts (K, K): rows are true classes, columns are predicted ones."""
    counts = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(counts, (target, probs.argmax(1)), 1)
    return counts
