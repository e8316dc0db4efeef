"""Cross-entropy against votes: the target is the distribution of ten people's votes instead of the majority.

Paper: Barsoum et al., "Training Deep Networks for Facial Expression Recognition with Crowd-Sourced Label Distribution" (ICMI
2016), section 4.4 (cross-entropy loss on the distribution, FER+).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from mien.losses.base import LOSSES, Loss, distribution, full_precision


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean over a batch of `-sum_k t_k log p_k`.

    Args:
        logits: (N, K).
        target: Votes or probabilities, not negative, (N, K); each row is scaled to sum to 1.

    Raises:
        ValueError: The shapes differ.
        LabelError: A row is not a distribution.
    """
    logits = full_precision(logits)
    return F.cross_entropy(logits, distribution(logits, target))


@LOSSES.register("soft_cross_entropy")
class SoftCrossEntropyLoss(Loss):
    """`soft_cross_entropy` as a module."""

    soft_target = True

    def forward(self, logits: Tensor, target: Tensor, features: Tensor | None = None) -> Tensor:
        """Return the loss; `features` are not used."""
        return soft_cross_entropy(logits, target)
