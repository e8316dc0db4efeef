"""Center loss: pull embeddings to the center of their class.

Paper: Wen et al., "A Discriminative Feature Learning Approach for Deep Face Recognition" (ECCV 2016), eq. 2,
`L_C = 1/2 sum_i |x_i - c_{y_i}|^2`; L_C in eq. 5 of vgg16_gcca's paper. Two deviations: the sum over the batch is a mean,
as in torch's cross-entropy, so that its weight means the same at every batch size. And the centers are parameters that an
optimizer moves along the gradient. Wen et al. move a center by `alpha * sum(c - x) / (1 + n)` over the n images of its class;
SGD of learning rate r on this loss moves it in the same direction, by `r * sum(c - x) / N`, 1 / (1 - m) times as far with
momentum m. With K classes of equal size and n >> 1, alpha is about r / (K (1 - m)).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.losses.base import LOSSES, Loss, check_index_target, full_precision


def center_loss(features: Tensor, target: Tensor, centers: Tensor) -> Tensor:
    """Return half the mean squared distance of embeddings from the centers of their classes.

    Args:
        features: Embeddings, (N, D).
        target: Class indices, int64 (N,).
        centers: One center per class, (K, D).

    Raises:
        ValueError: The shapes do not fit.
        LabelError: A class outside 0..K-1.
    """
    check_index_target(features, target, len(centers))
    if features.shape[1] != centers.shape[1]:
        raise ValueError(f"embeddings have {features.shape[1]} features, centers {centers.shape[1]}; num_features must match")
    return (full_precision(features) - F.embedding(target, centers)).square().sum(1).mean() / 2


def new_centers(num_classes: int, num_features: int) -> nn.Parameter:
    """Return random centers, (K, D), of length about 1. The island loss needs them apart from the first step.

    Raises:
        ValueError: Fewer than two classes, or no features.
    """
    if num_classes < 2 or num_features < 1:
        raise ValueError(f"centers need at least 2 classes and 1 feature, got {num_classes=} and {num_features=}")
    return nn.Parameter(torch.randn(num_classes, num_features) / num_features**0.5)


def require_features(features: Tensor | None) -> Tensor:
    """Return the features, or raise a `ValueError` if there are none."""
    if features is None:
        raise ValueError("this loss has class centers: call it with features, the embeddings (N, D) before the classifier")
    return features


@LOSSES.register("center")
class CenterLoss(Loss):
    """`center_loss` with learned centers; it has no softmax term.

    Args:
        num_classes: Classes K.
        num_features: Length D of an embedding.
    """

    needs_features = True

    def __init__(self, num_classes: int, num_features: int) -> None:
        super().__init__()
        self.centers = new_centers(num_classes, num_features)

    def forward(self, logits: Tensor, target: Tensor, features: Tensor | None = None) -> Tensor:
        """Return the loss; `logits` are not used."""
        return center_loss(require_features(features), target, self.centers)
