"""Mixup of a batch: timm's, of classes or of distributions over them.

Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization".
"""

from __future__ import annotations

import torch
from timm.data.mixup import Mixup
from torch import Tensor

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


def mix(mixup: Mixup, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return mixed images (N, C, H, W) and targets (N, K), from classes (N,) or from distributions (N, K)."""
    if target.ndim == 1:
        mixed: tuple[Tensor, Tensor] = mixup(x, target)
        return mixed
    places = torch.arange(len(x), device=x.device)
    x, shares = Mixup(mixup_alpha=mixup.mixup_alpha, label_smoothing=0.0, num_classes=len(x))(x, places)  # (N, N)
    return x, shares @ target
