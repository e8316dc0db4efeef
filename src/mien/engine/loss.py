"""The loss of one training step: network, loss of the labels and distillation as one module.

They are one module so that torch.compile and distributed training wrap all of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mien.datasets.balance import class_weights
from mien.engine.distill import distillation_loss
from mien.errors import RecipeError
from mien.losses import LOSSES, Loss, create_loss
from mien.models import Model
from mien.recipe import Recipe
from mien.recipe_parts import DistillPart
from mien.registry import nearest

NORMS = "norms"
"""Stands for all batch norms in `frozen`: they keep their statistics, and their weights are trained."""


class Objective(nn.Module):
    """Map network inputs and targets to the loss and the logits.

    Args:
        model: The network.
        loss: The loss of the labels. Its own parameters (class centers) are trained along with the network's.
        frozen: Modules of the network that are not trained: their names, the first parts of their names, or `NORMS`.
        distill: Weight and temperature of distillation; None without teachers.

    Raises:
        RecipeError: No module has a name in `frozen`.
    """

    model: Model
    loss: Loss

    def __init__(self, model: Model, loss: Loss, frozen: Sequence[str] = (), distill: DistillPart | None = None) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.distill = distill
        self.frozen = _freeze(model, frozen)

    def train(self, mode: bool = True) -> Objective:
        """Set the training mode, but leave frozen modules in evaluation mode: their batch norms keep their statistics."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def forward(self, inputs: Tensor, target: Tensor, teacher_probs: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the loss, one number, and the logits, (N, K).

        A loss with class centers also gets the embeddings (N, D): the last feature map averaged over its positions.

        Args:
            inputs: Preprocessed images, (N, C, H, W).
            target: Class indices (N,), or probabilities (N, K).
            teacher_probs: Softened probabilities of the teachers, (N, K).
        """
        if self.loss.needs_features:
            self.model.check_input(inputs)
            features = self.model.forward_features(inputs)  # (N, D, h, w)
            logits = self.model.forward_head(features)
            loss = self.loss(logits, target, features.mean((2, 3)))
        else:
            logits = self.model(inputs)
            loss = self.loss(logits, target)
        if self.distill is not None and teacher_probs is not None:
            weight = self.distill.weight
            loss = (1 - weight) * loss + weight * distillation_loss(logits, teacher_probs, self.distill.temperature)
        return loss, logits


def create_objective(recipe: Recipe, model: Model, target: NDArray[np.int64] | None = None) -> Objective:
    """Return a network with the loss of its recipe.

    Args:
        recipe: The recipe.
        model: The network.
        target: Class indices of the training images, (M,); needed if the recipe weighs the classes.

    Raises:
        RecipeError: The loss does not take the recipe's targets (mixup, votes) or class weights, or the network has no
            embeddings for it.
        UnknownNameError: Unknown loss.
        MienError: The loss does not accept an argument.
    """
    part, arguments = recipe.loss, dict(recipe.loss.arguments)
    if part.class_weights is not None:
        if target is None or part.name != "cross_entropy" or "weight" in arguments:
            raise RecipeError(
                "loss.class_weights needs loss.name cross_entropy and no loss.arguments.weight; change one of them"
            )
        arguments["weight"] = class_weights(target, model.num_classes, part.class_weights, part.beta).tolist()
    num_features = _num_features(model) if getattr(LOSSES.get(part.name), "needs_features", False) else None
    loss = create_loss(part.name, num_classes=model.num_classes, num_features=num_features, **arguments)
    soft = "augment.mixup" if recipe.augment.mixup else "data.votes" if recipe.data.votes else None
    if soft and not (loss.soft_target or part.name == "cross_entropy"):
        raise RecipeError(f"{soft} makes soft targets, which the loss {part.name} does not take; switch it off")
    if loss.soft_target and not soft:
        raise RecipeError(f"loss.name: {part.name} needs votes; set data.votes on a corpus that has them, or use cross_entropy")
    return Objective(model, loss, recipe.model.frozen, recipe.distill)


def _freeze(model: Model, prefixes: Sequence[str]) -> list[nn.Module]:
    """Stop the training of all modules with these prefixes; return them, and all batch norms if `norms` is among them."""
    frozen: list[nn.Module] = []
    for prefix in prefixes:
        if prefix == NORMS:
            continue
        found = [module for name, module in model.named_modules() if name == prefix or name.startswith(f"{prefix}.")]
        if not found:
            top_names = [name for name, _ in model.named_modules() if name and name.count(".") < 2]
            raise RecipeError(f"model.frozen: no module is called {prefix!r}{nearest(prefix, top_names)}")
        frozen += found
    for module in frozen:
        module.requires_grad_(False)
    if NORMS in prefixes:
        frozen += [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    return frozen


@torch.no_grad()
def _num_features(model: Model) -> int:
    """Return the number of channels D of a network's last feature map, which is the length of an embedding."""
    training = model.training
    height, width = model.input_size if getattr(model, "fixed_size", False) else (model.minimum_size, model.minimum_size)
    features = model.eval().forward_features(torch.zeros(1, model.in_channels, height, width))
    model.train(training)
    channels_last = getattr(getattr(model, "backbone", None), "output_fmt", "NCHW") == "NHWC"
    if features.ndim != 4 or channels_last:
        kind = "a feature map with its channels last" if features.ndim == 4 else "tokens instead of a feature map"
        raise RecipeError(f"this network has {kind}, {tuple(features.shape)}; use a loss without class centers")
    return features.shape[1]
