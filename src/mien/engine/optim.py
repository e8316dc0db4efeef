"""Optimiser, learning-rate schedule and averaged weights, by timm, from a recipe."""

from __future__ import annotations

from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim import Optimizer

from mien.errors import RecipeError
from mien.recipe import OptimPart, Recipe


def create_optimizer(part: OptimPart, model: nn.Module) -> Optimizer:
    """Return the optimiser of a recipe; biases, norms and what the model names do not decay.

    Raises:
        RecipeError: timm knows no optimiser of this name.
    """
    try:
        return create_optimizer_v2(
            model, opt=part.name, lr=part.lr, weight_decay=part.weight_decay, momentum=part.momentum, filter_bias_and_bn=True
        )
    except (ValueError, AssertionError) as error:
        raise RecipeError(f"optim.name: {error}; timm.optim.list_optimizers() gives the names") from None


def create_schedule(part: OptimPart, optimizer: Optimizer, steps_per_epoch: int, epochs: int) -> Scheduler:
    """Return the schedule of a recipe; call its `step_update(n)` after n optimiser steps."""
    steps = steps_per_epoch * epochs
    floor = part.lr if part.schedule == "constant" else 0.0
    return CosineLRScheduler(
        optimizer,
        t_initial=max(steps, 1),
        lr_min=floor,
        warmup_t=round(part.warmup_epochs * steps_per_epoch),
        warmup_lr_init=part.lr / 100,
        t_in_epochs=False,
    )


def create_average(recipe: Recipe, model: nn.Module) -> ModelEmaV3 | None:
    """Return the moving average of a model's weights and buffers, or None if the recipe wants none."""
    if not recipe.train.ema_decay:
        return None
    return ModelEmaV3(model, decay=recipe.train.ema_decay, use_warmup=True, foreach=True)
