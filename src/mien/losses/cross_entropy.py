"""Cross-entropy with class weights and label smoothing: torch's, with checked targets and sums in float32.

Label smoothing: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (CVPR 2016), section 7. As in
torch, the mean over a batch divides by the sum of the weights of its targets if they are class indices, and by their number if
they are probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from mien.losses.base import LOSSES, Loss, check_index_target, class_weights, full_precision


def cross_entropy(logits: Tensor, target: Tensor, weight: Tensor | None = None, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean cross-entropy of a batch.

    Args:
        logits: (N, K).
        target: Class indices, int64 (N,), or probabilities, float (N, K), as from mixup.
        weight: One weight per class, (K,).
        label_smoothing: Share of the probability spread over all classes, in [0, 1].

    Raises:
        ValueError: The shapes do not fit.
        LabelError: A class outside 0..K-1.
    """
    logits = full_precision(logits)
    if target.is_floating_point():
        if target.shape != logits.shape:
            raise ValueError(
                f"expected probabilities of the logits' shape, got {tuple(target.shape)} for {tuple(logits.shape)}"
            )
        target = target.to(logits.dtype)
    else:
        check_index_target(logits, target, logits.shape[-1])
    weight = None if weight is None else weight.to(logits.dtype)
    return F.cross_entropy(logits, target, weight, label_smoothing=label_smoothing)


@LOSSES.register("cross_entropy")
class CrossEntropyLoss(Loss):
    """`cross_entropy` as a module.

    Args:
        weight: One weight per class, K numbers; None for equal weights.
        label_smoothing: In [0, 1).

    Raises:
        ValueError: A weight is negative or `label_smoothing` is out of range.
    """

    def __init__(self, weight: Sequence[float] | None = None, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
        self.label_smoothing = label_smoothing
        self.weight: Tensor | None
        self.register_buffer("weight", class_weights(weight), persistent=False)

    def forward(self, logits: Tensor, target: Tensor, features: Tensor | None = None) -> Tensor:
        """Return the loss; `features` are not used."""
        return cross_entropy(logits, target, self.weight, self.label_smoothing)
