"""Island loss: center loss plus a term that makes the centers point away from each other.

Paper: Cai et al., "Island Loss for Learning Discriminative Features in Facial Expression Recognition" (FG 2018); eqs. 5 and 6
of vgg16_gcca's paper:

    L_I    = L_C + lambda_1 L_cos
    L_cos  = sum_j sum_k ((c_j . c_k) / (|c_j| |c_k|) + 1)

over ordered pairs of classes. As in Cai et al., j = k is left out here. vgg16_gcca's paper does not say so, but the difference
is a constant of 2K without gradient.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from mien.losses.base import LOSSES, Loss
from mien.losses.center import center_loss, new_centers, require_features


def center_similarity(centers: Tensor) -> Tensor:
    """Return L_cos, the sum over ordered pairs of different classes of `cos + 1`, in [0, 2K(K - 1)].

    Args:
        centers: One center per class, (K, D), none of them zero.
    """
    unit = F.normalize(centers, dim=1)
    pairs = len(centers) * (len(centers) - 1)
    return unit.sum(0).square().sum() - unit.square().sum() + pairs  # |sum u|^2 is the sum of all products u_j . u_k


def island_loss(features: Tensor, target: Tensor, centers: Tensor, pair_weight: float = 7.0) -> Tensor:
    """Return L_I of eq. 5.

    Args:
        features: Embeddings, (N, D).
        target: Class indices, int64 (N,).
        centers: One center per class, (K, D), none of them zero.
        pair_weight: lambda_1.

    Raises:
        ValueError: The shapes do not fit.
        LabelError: A class outside 0..K-1.
    """
    return center_loss(features, target, centers) + pair_weight * center_similarity(centers)


@LOSSES.register("island")
class IslandLoss(Loss):
    """`island_loss` with learned centers; it has no softmax term.

    Args:
        num_classes: Classes K.
        num_features: Length D of an embedding.
        pair_weight: lambda_1, at least 0; 7 in vgg16_gcca's paper.

    Raises:
        ValueError: `pair_weight` is negative.
    """

    needs_features = True

    def __init__(self, num_classes: int, num_features: int, pair_weight: float = 7.0) -> None:
        super().__init__()
        if not pair_weight >= 0:
            raise ValueError(f"pair_weight must be at least 0, got {pair_weight}")
        self.pair_weight = pair_weight
        self.centers = new_centers(num_classes, num_features)

    def forward(self, logits: Tensor, target: Tensor, features: Tensor | None = None) -> Tensor:
        """Return the loss; `logits` are not used."""
        return island_loss(require_features(features), target, self.centers, self.pair_weight)
