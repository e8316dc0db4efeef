"""Mixup of a batch: timm's, of classes or of distributions over them.

Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization".
"""

from __future__ import annotations

import torch
from timm.data.mixup import Mixup
from torch import Tensor
from torch.nn import functional as F

from mien.errors import RecipeError
from mien.recipe import Recipe


def create_mixup(recipe: Recipe, classes: int, processes: int) -> Mixup | None:
    """Return the mixup of a recipe, or None if it wants none. It draws from numpy's global state.

    Raises:
        RecipeError: A process's part of a batch is odd; images are mixed in pairs.
    """
    if not recipe.augment.mixup:
        return None
    if recipe.train.batch_size // processes % 2:
        raise RecipeError(
            f"augment.mixup mixes pairs, and train.batch_size {recipe.train.batch_size} over {processes} processes is odd; "
            "make it even"
        )
    return Mixup(mixup_alpha=recipe.augment.mixup, label_smoothing=0.0, num_classes=classes)


def mix(mixup: Mixup, x: Tensor, target: Tensor, taught: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return images, targets and what teachers said of the images before, all mixed in the same shares.

    Args:
        mixup: What shares are drawn from.
        x: Images (N, C, H, W).
        target: Classes (N,) or distributions over them (N, K); distributions come back.
        taught: Probabilities (N, K), or None.
    """
    places = torch.arange(len(x), device=x.device)
    x, shares = Mixup(mixup_alpha=mixup.mixup_alpha, label_smoothing=0.0, num_classes=len(x))(x, places)  # (N, N)
    known = target if target.ndim == 2 else F.one_hot(target, mixup.num_classes).float()
    return x, shares @ known, None if taught is None else shares @ taught
