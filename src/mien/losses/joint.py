"""The joint loss of vgg16_gcca: softmax plus island loss.

Paper: Chen and Chen, "A Framework for Facial Expression Recognition Combining Contextual Information and Attention Mechanism",
eqs. 5-7: `L = L_s + lambda (L_C + lambda_1 L_cos)`, lambda = 0.005 and lambda_1 = 7 (Fig. 6). The paper prints neither L_C nor
whether L_s and L_C are sums or means over a batch; here they are means (`mien.losses.center`). With `pair_weight=0` it is
softmax with center loss (Wen et al. 2016, eq. 5).

lambda weighs what the network learns, not how fast the centers move: as in Wen et al., whose centers have a rate alpha of their
own, the gradient of a center is that of L_I. So a sweep over lambda (Fig. 6a) changes one thing. `mien.losses.center` relates
the learning rate of the centers to alpha.
"""

from __future__ import annotations

from torch import Tensor

from mien.losses.base import LOSSES, Loss
from mien.losses.center import new_centers, require_features
from mien.losses.cross_entropy import cross_entropy
from mien.losses.island import island_loss


def joint_loss(
    logits: Tensor,
    target: Tensor,
    features: Tensor,
    centers: Tensor,
    island_weight: float = 0.005,
    pair_weight: float = 7.0,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return L of eq. 7.

    The gradient of the centers is that of L_I, without the factor lambda. All other gradients are those of L.

    Args:
        logits: (N, K).
        target: Class indices, int64 (N,).
        features: Embeddings, (N, D).
        centers: One center per class, (K, D), none of them zero.
        island_weight: lambda.
        pair_weight: lambda_1.
        label_smoothing: Of the softmax term, in [0, 1].

    Raises:
        ValueError: The shapes do not fit.
        LabelError: A class outside 0..K-1.
    """
    softmax = cross_entropy(logits, target, label_smoothing=label_smoothing)
    for_network = island_loss(features, target, centers.detach(), pair_weight)
    for_centers = island_loss(features.detach(), target, centers, pair_weight)
    return softmax + island_weight * for_network + (for_centers - for_centers.detach())  # the last term is 0


@LOSSES.register("joint")
class JointLoss(Loss):
    """`joint_loss` with learned centers.

    Args:
        num_classes: Classes K.
        num_features: Length D of an embedding.
        island_weight: lambda, at least 0; 0.005 in the paper.
        pair_weight: lambda_1, at least 0; 7 in the paper.
        label_smoothing: Of the softmax term, in [0, 1); 0 in the paper.

    Raises:
        ValueError: A weight is negative, or `label_smoothing` is out of range.
    """

    needs_features = True

    def __init__(
        self,
        num_classes: int,
        num_features: int,
        island_weight: float = 0.005,
        pair_weight: float = 7.0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if not (island_weight >= 0 and pair_weight >= 0 and 0 <= label_smoothing < 1):
            given = f"{island_weight=}, {pair_weight=}, {label_smoothing=}"
            raise ValueError(f"weights must be at least 0 and label_smoothing in [0, 1), got {given}")
        self.island_weight, self.pair_weight, self.label_smoothing = island_weight, pair_weight, label_smoothing
        self.centers = new_centers(num_classes, num_features)

    def forward(self, logits: Tensor, target: Tensor, features: Tensor | None = None) -> Tensor:
        """Return the loss."""
        weights = (self.island_weight, self.pair_weight, self.label_smoothing)
        return joint_loss(logits, target, require_features(features), self.centers, *weights)
