"""Metrics of a classifier from its probabilities, by torchmetrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional import classification

BINS = 15
"""Bins of the expected calibration error."""


def classification_report(probs: NDArray[np.float32], target: NDArray[np.int64], classes: Sequence[str]) -> dict[str, Any]:
    """Return the metrics of mien's results files, each in [0, 1].

    Args:
        probs: Probabilities, (N, K).
        target: Class indices, (N,).
        classes: The K classes by index.

    Returns:
        `images`, `accuracy`, `macro_f1` (mean F1 of the classes), `uar` (mean recall of the classes: balanced accuracy), `ece`
        (expected calibration error, 15 bins) and `recall` by class. A class without images has recall None and is left out of
        the means.
    """
    p, t, k = torch.from_numpy(np.asarray(probs)), torch.from_numpy(np.asarray(target)), len(classes)
    present = torch.bincount(t, minlength=k) > 0
    recall = classification.multiclass_recall(p, t, k, average="none")
    f1 = classification.multiclass_f1_score(p, t, k, average="none")
    return {
        "images": len(target),
        "accuracy": classification.multiclass_accuracy(p, t, k, average="micro").item(),
        "macro_f1": f1[present].mean().item(),
        "uar": recall[present].mean().item(),
        "ece": classification.multiclass_calibration_error(p, t, k, n_bins=BINS).item(),
        "recall": {
            name: value if there else None for name, value, there in zip(classes, recall.tolist(), present, strict=True)
        },
    }


def confusion(probs: NDArray[np.float32], target: NDArray[np.int64], num_classes: int) -> NDArray[np.int64]:
    """Return the confusion matrix, counts (K, K): rows are true classes, columns are predicted ones."""
    counts = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(counts, (target, probs.argmax(1)), 1)
    return counts
