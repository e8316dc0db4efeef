"""Losses by name: `create_loss("joint", num_features=800)`.

Each file has a pure function and a thin module. `center` and `island` have no softmax term: they train the embedding but not
the classifier. `joint` adds the softmax term; with `pair_weight=0` it is softmax with center loss.
"""

from __future__ import annotations

from mien.losses.center import CenterLoss, center_loss
from mien.losses.contract import LOSSES, Loss, create_loss
from mien.losses.cross_entropy import CrossEntropyLoss, cross_entropy
from mien.losses.focal import FocalLoss, focal_loss
from mien.losses.island import IslandLoss, center_similarity, island_loss
from mien.losses.joint import JointLoss, joint_loss
from mien.losses.kl_divergence import KLDivergenceLoss, kl_divergence
from mien.losses.soft_cross_entropy import SoftCrossEntropyLoss, soft_cross_entropy

__all__ = [
    "LOSSES",
    "CenterLoss",
    "CrossEntropyLoss",
    "FocalLoss",
    "IslandLoss",
    "JointLoss",
    "KLDivergenceLoss",
    "Loss",
    "SoftCrossEntropyLoss",
    "center_loss",
    "center_similarity",
    "create_loss",
    "cross_entropy",
    "focal_loss",
    "island_loss",
    "joint_loss",
    "kl_divergence",
    "soft_cross_entropy",
]
