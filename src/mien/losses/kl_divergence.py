"""Kullback-Leibler divergence from votes: soft cross-entropy minus the entropy of the votes, so 0 is a perfect prediction.

Its gradient is that of soft cross-entropy (Barsoum et al. 2016, FER+).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from mien.losses.base import LOSSES, Loss, distribution, full_precision


def kl_divergence(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean over a batch of `sum_k t_k (log t_k - log p_k)`, at least 0.

    Args:
        logits: (N, K).
        target: Votes or probabilities, not negative, (N, K); each row is scaled to sum to 1.

    Raises:
        ValueError: The shapes differ.
        LabelError: A row is not a distribution.
    """
    logits = full_precision(logits)
    return F.kl_div(F.log_softmax(logits, dim=1), distribution(logits, target), reduction="batchmean")


@LOSSES.register("kl_divergence")
class KLDivergenceLoss(Loss):
    """`kl_divergence` as a module."""

    soft_target = True

    def forward(self, logits: Tensor, target: Tensor, features: Tensor | None = None) -> Tensor:
        """Return the loss; `features` are not used."""
        return kl_divergence(logits, target)
