"""Optimizer, learning-rate schedule and moving average of the weights, by timm and torch, from a recipe."""

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
from mien.recipe import Recipe
from mien.recipe_parts import OptimPart
from mien.registry import nearest

LOSS_GROUP = "of_loss"
"""Key that marks the parameter group of the loss's own parameters."""


def check_optimizer(part: OptimPart) -> None:
    """Check that timm has an optimizer of this name.

    Raises:
        RecipeError: It has none; names the nearest.
    """
    known = [str(name) for name in list_optimizers()]
    if part.name.lower() not in known:
        raise RecipeError(f"optim.name: unknown optimizer {part.name!r}{nearest(part.name, known)}")


def create_optimizer(recipe: Recipe, model: Model, loss: Loss) -> Optimizer:
    """Return the optimizer of a recipe.

    Weight decay leaves out biases, norms, the parameters in `model.no_weight_decay()` and the loss's own parameters. An
    optimizer with Nesterov momentum, such as timm's sgd, is plain without momentum.

    Raises:
        RecipeError: The optimizer does not accept a value of the recipe.
    """
    part = recipe.optim
    groups = _parameter_groups(part, model)
    if loss_parameters := list(loss.parameters()):
        groups.append({"params": loss_parameters, "weight_decay": 0.0, "lr": recipe.loss.lr, LOSS_GROUP: True})
    fused = part.name in ("sgd", "momentum", "adam", "adamw")  # one pass over each weight
    extra: dict[str, Any] = {"fused": True} if fused else {}
    try:
        if (info := get_optimizer_info(part.name)).has_betas and info.num_betas == 2:
            extra["betas"] = (part.momentum, 0.999)
        if part.momentum == 0 and info.has_momentum and (info.defaults or {}).get("nesterov"):
            extra["nesterov"] = False
        return create_optimizer_v2(groups, opt=part.name, lr=part.lr, weight_decay=0.0, momentum=part.momentum, **extra)
    except (ValueError, AssertionError) as error:
        raise RecipeError(f"optim: {part.name} does not accept these values: {error}") from None


def current_lr(optimizer: Optimizer) -> float:
    """Return the network's learning rate for the next step; with layer decay the rate of the last layer, the largest."""
    return max(group["lr"] for group in optimizer.param_groups if LOSS_GROUP not in group)


def clip_gradients(optimizer: Optimizer, max_norm: float) -> None:
    """Scale the gradient of the network down to a norm of at most `max_norm`.

    The loss's own parameters neither count nor are scaled: else large gradients of class centers would slow the network down.
    """
    network = [weight for group in optimizer.param_groups if LOSS_GROUP not in group for weight in group["params"]]
    nn.utils.clip_grad_norm_(network, max_norm)


def _parameter_groups(part: OptimPart, model: Model) -> list[dict[str, Any]]:
    """Return the network's parameters grouped by weight decay and, with layer decay, by layer with a rate for each."""
    groups = param_groups_weight_decay(model, part.weight_decay, no_weight_decay_list=model.no_weight_decay())
    if part.layer_decay == 1:
        return groups
    if not model.layered:
        raise RecipeError(
            f"optim.layer_decay: {type(model).__name__} is not a simple sequence of layers; set optim.layer_decay to 1"
        )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    layers = list(dict.fromkeys(_layer(model, name) for name in names.values()))  # in the order they are built
    split: dict[tuple[int, int], dict[str, Any]] = {}
    for number, group in enumerate(groups):
        for parameter in group["params"]:
            depth = layers.index(_layer(model, names[id(parameter)]))
            lr = part.lr * part.layer_decay ** (len(layers) - 1 - depth)
            split.setdefault((number, depth), group | {"params": [], "lr": lr})["params"].append(parameter)
    return list(split.values())


def _layer(model: Model, name: str) -> str:
    """Return the layer a parameter belongs to: a top-level module, or an entry of a numbered one such as `blocks.2`."""
    top, *rest = model.published_name(name).split(".")
    return f"{top}.{rest[0]}" if rest and rest[0].isdigit() else top


def create_schedule(part: OptimPart, optimizer: Optimizer, steps_per_epoch: int, epochs: int) -> Scheduler | None:
    """Return the cosine or constant schedule of a recipe; call `step_update(n)` after n steps. None for `plateau`."""
    warmup: dict[str, Any] = {"warmup_lr_init": part.lr / 100, "warmup_t": round(part.warmup_epochs * steps_per_epoch)}
    steps = max(steps_per_epoch * epochs, 1)
    if part.schedule == "cosine":
        return CosineLRScheduler(optimizer, t_initial=steps, t_in_epochs=False, **warmup)
    if part.schedule == "constant":
        return StepLRScheduler(optimizer, decay_t=steps, decay_rate=1.0, t_in_epochs=False, **warmup)
    return None


def create_plateau(part: OptimPart, optimizer: Optimizer) -> ReduceLROnPlateau | None:
    """Return the plateau schedule of a recipe; call `step(metric)` after each epoch. None for other schedules."""
    if part.schedule != "plateau":
        return None
    mode: Literal["min", "max"] = "max" if part.plateau_metric == "accuracy" else "min"
    return ReduceLROnPlateau(optimizer, mode, part.plateau_factor, part.plateau_patience, threshold=0.0, eps=0.0)


def create_ema(recipe: Recipe, model: nn.Module) -> ModelEmaV3 | None:
    """Return the exponential moving average of a model's weights and buffers, or None if the recipe has none."""
    if not recipe.train.ema_decay:
        return None
    return ModelEmaV3(model, decay=recipe.train.ema_decay, use_warmup=True, foreach=True)
