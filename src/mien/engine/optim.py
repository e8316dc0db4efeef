"""Optimiser, learning-rate schedule and averaged weights, by timm, from a recipe."""

from __future__ import annotations

from typing import Any, Literal

from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers, param_groups_weight_decay
from timm.scheduler import CosineLRScheduler, StepLRScheduler
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from mien.errors import RecipeError
from mien.losses import Loss
from mien.models import Model
from mien.recipe import OptimPart, Recipe
from mien.registry import nearest

OF_LOSS = "of_loss"
"""Key of the group of the loss's own parameters."""


def check_optimizer(part: OptimPart) -> None:
    """Refuse a name that timm knows no optimiser by.

    Raises:
        RecipeError: There is none; names the nearest.
    """
    known = [str(name) for name in list_optimizers()]
    if part.name.lower() not in known:
        raise RecipeError(f"optim.name: unknown optimizer {part.name!r}{nearest(part.name, known)}")


def create_optimizer(recipe: Recipe, model: Model, loss: Loss) -> Optimizer:
    """Return the optimiser of a recipe; biases, norms, what the model names and the loss's own parameters do not decay.

    Raises:
        RecipeError: The optimiser refuses what the recipe gives it, such as no momentum for Nesterov's.
    """
    part = recipe.optim
    groups = _groups(part, model)
    if own := list(loss.parameters()):
        groups.append({"params": own, "weight_decay": 0.0, "lr": recipe.loss.lr, OF_LOSS: True})
    more: dict[str, Any] = {"fused": True} if part.name in ("sgd", "momentum") else {}  # one pass over each weight
    try:
        if (info := get_optimizer_info(part.name)).has_betas and info.num_betas == 2:
            more["betas"] = (part.momentum, 0.999)
        return create_optimizer_v2(groups, opt=part.name, lr=part.lr, weight_decay=0.0, momentum=part.momentum, **more)
    except (ValueError, AssertionError) as error:
        raise RecipeError(f"optim: {part.name} refuses its values: {error}") from None


def current_rate(optimizer: Optimizer) -> float:
    """Return the rate of the network's next step; with layer decay that of its last layer, which is the largest."""
    return max(group["lr"] for group in optimizer.param_groups if OF_LOSS not in group)


def _groups(part: OptimPart, model: Model) -> list[dict[str, Any]]:
    """Return the network's parameters by weight decay and, with layer decay, each layer's with its own rate."""
    groups = param_groups_weight_decay(model, part.weight_decay, no_weight_decay_list=model.no_weight_decay())
    if part.layer_decay == 1:
        return groups
    if not model.layered:
        raise RecipeError(
            f"optim.layer_decay: the layers of {type(model).__name__} do not stand one upon the other; set it to 1"
        )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    layers = list(dict.fromkeys(_layer(model, name) for name in names.values()))  # in the order they are built
    split: dict[tuple[int, int], dict[str, Any]] = {}
    for number, group in enumerate(groups):
        for parameter in group["params"]:
            depth = layers.index(_layer(model, names[id(parameter)]))
            rate = part.lr * part.layer_decay ** (len(layers) - 1 - depth)
            split.setdefault((number, depth), group | {"params": [], "lr": rate})["params"].append(parameter)
    return list(split.values())


def _layer(model: Model, name: str) -> str:
    """Return the layer a parameter belongs to: a top module, or an entry of a numbered one, such as `blocks.2`."""
    top, *rest = model.published_name(name).split(".")
    return f"{top}.{rest[0]}" if rest and rest[0].isdigit() else top


def create_schedule(part: OptimPart, optimizer: Optimizer, steps_per_epoch: int, epochs: int) -> Scheduler | None:
    """Return the schedule of a recipe, or None for a plateau's; call its `step_update(n)` after n optimiser steps."""
    warmup: dict[str, Any] = {"warmup_lr_init": part.lr / 100, "warmup_t": round(part.warmup_epochs * steps_per_epoch)}
    steps = max(steps_per_epoch * epochs, 1)
    if part.schedule == "cosine":
        return CosineLRScheduler(optimizer, t_initial=steps, t_in_epochs=False, **warmup)
    if part.schedule == "constant":
        return StepLRScheduler(optimizer, decay_t=steps, decay_rate=1.0, t_in_epochs=False, **warmup)
    return None


def create_plateau(part: OptimPart, optimizer: Optimizer) -> ReduceLROnPlateau | None:
    """Return the plateau schedule of a recipe, or None for another; call its `step(metric)` after each epoch."""
    if part.schedule != "plateau":
        return None
    mode: Literal["min", "max"] = "max" if part.plateau_metric == "accuracy" else "min"
    return ReduceLROnPlateau(optimizer, mode, part.plateau_factor, part.plateau_patience, threshold=0.0, eps=0.0)


def create_average(recipe: Recipe, model: nn.Module) -> ModelEmaV3 | None:
    """Return the moving average of a model's weights and buffers, or None if the recipe wants none."""
    if not recipe.train.ema_decay:
        return None
    return ModelEmaV3(model, decay=recipe.train.ema_decay, use_warmup=True, foreach=True)
