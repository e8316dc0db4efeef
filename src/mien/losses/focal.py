"""Focal loss: cross-entropy with less weight on images the network is sure of.

Paper: Lin et al., "Focal Loss for Dense Object Detection" (ICCV 2017), eqs. 4 and 5: `FL(p_t) = -a_t (1 - p_t)^gamma log(p_t)`,
here over a softmax of K classes. The mean over a batch divides by the sum of a_t, as in torch's weighted cross-entropy, so that
gamma = 0 is cross-entropy.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mien.losses.base import LOSSES, Loss, check_index_target, class_weights, full_precision


def focal_loss(logits: Tensor, target: Tensor, gamma: float = 2.0, weight: Tensor | None = None) -> Tensor:
    """Return the mean focal loss of a batch.

    log(1 - p_t) is computed as the log-sum-exp of the other classes, so that the gradient is finite even where p_t rounds to 1
    and gamma is below 1.

    Args:
        logits: (N, K), K at least 2.
        target: Class indices, int64 (N,).
        gamma: Exponent, at least 0.
        weight: a_t, one weight per class, (K,).

    Raises:
        ValueError: The shapes do not fit.
        LabelError: A class outside 0..K-1.
    """
    check_index_target(logits, target, logits.shape[-1])
    log_probs = F.log_softmax(full_precision(logits), dim=1)  # (N, K)
    column = target.unsqueeze(1)
    log_p = log_probs.gather(1, column).squeeze(1)
    log_rest = log_probs.scatter(1, column, -torch.inf).logsumexp(1)  # log(1 - p_t)
    losses = -torch.exp(gamma * log_rest) * log_p
    if weight is None:
        return losses.mean()
    scale = weight.to(losses.dtype)[target]
    return (scale * losses).sum() / scale.sum()


@LOSSES.register("focal")
class FocalLoss(Loss):
    """`focal_loss` as a module.

    Args:
        gamma: Exponent, at least 0; 2 in the paper.
        weight: One weight per class, K numbers; None for equal weights.

    Raises:
        ValueError: `gamma` or a weight is negative.
    """

    def __init__(self, gamma: float = 2.0, weight: Sequence[float] | None = None) -> None:
        super().__init__()
        if not gamma >= 0:
            raise ValueError(f"gamma must be at least 0, got {gamma}")
        self.gamma = gamma
        self.weight: Tensor | None
        self.register_buffer("weight", class_weights(weight), persistent=False)

    def forward(self, logits: Tensor, target: Tensor, features: Tensor | None = None) -> Tensor:
        """Return the loss; `features` are not used."""
        return focal_loss(logits, target, self.gamma, self.weight)
