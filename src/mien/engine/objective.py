"""What one training step computes: a network and its loss as one module, so that compiling and DDP see both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mien.datasets.balance import class_weights
from mien.engine.teacher import distillation_loss
from mien.errors import RecipeError
from mien.losses import LOSSES, Loss, create_loss
from mien.models import Model
from mien.recipe import DistillPart, Recipe
from mien.registry import nearest


class Objective(nn.Module):
    """Images and targets in, loss and logits out.

    A loss that reads embeddings gets the mean of the last feature map over its positions, (N, D).

    Args:
        model: The network.
        loss: The loss; its own parameters (class centers) are trained with the network's.
        frozen: Modules of the network, by name or by the beginning of it, that are not trained.
        distill: How much it learns from teachers, if it has any.

    Raises:
        RecipeError: A name in `frozen` begins no module's.
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
        """Switch to training, but leave what is frozen in evaluation: its batch norms keep their statistics."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def forward(self, inputs: Tensor, target: Tensor, taught: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the loss and the logits (N, K) of inputs (N, C, H, W), targets and, with teachers, what they say, (N, K)."""
        loss, logits = self._labelled(inputs, target)
        if self.distill is None or taught is None:
            return loss, logits
        weight = self.distill.weight
        return (1 - weight) * loss + weight * distillation_loss(logits, taught, self.distill.temperature), logits

    def _labelled(self, inputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of the labels and the logits."""
        if not self.loss.needs_features:
            logits = self.model(inputs)
            return self.loss(logits, target), logits
        self.model.check_input(inputs)
        features = self.model.forward_features(inputs)  # (N, D, h, w)
        logits = self.model.forward_head(features)
        return self.loss(logits, target, features.mean((2, 3))), logits


def create_objective(recipe: Recipe, model: Model, target: NDArray[np.int64] | None = None) -> Objective:
    """Return a network with the loss of its recipe.

    Args:
        recipe: The run.
        model: The network.
        target: Classes of the training images, (M,); class weights are counted from them.

    Raises:
        RecipeError: The targets of the recipe (mixed, votes) are none its loss takes, or class weights have nothing to count.
        UnknownNameError: No such loss.
        MienError: An argument the loss does not take.
    """
    part, arguments = recipe.loss, dict(recipe.loss.arguments)
    if part.class_weights is not None:
        if target is None or part.name != "cross_entropy" or "weight" in arguments:
            raise RecipeError("loss.class_weights are counted for cross_entropy alone, where loss.arguments names no weight")
        arguments["weight"] = class_weights(target, model.num_classes, part.class_weights, part.beta).tolist()
    num_features = _num_features(model) if getattr(LOSSES.get(part.name), "needs_features", False) else None
    loss = create_loss(part.name, num_classes=model.num_classes, num_features=num_features, **arguments)
    soft = "augment.mixup" if recipe.augment.mixup else "data.votes" if recipe.data.votes else None
    if soft and not (loss.soft_target or part.name == "cross_entropy"):
        raise RecipeError(f"{soft} gives soft targets, which the loss {part.name} does not take; switch it off")
    if loss.soft_target and not soft:
        raise RecipeError(f"loss.name: {part.name} takes votes; set data.votes on a corpus that has them, or use cross_entropy")
    return Objective(model, loss, recipe.model.frozen, recipe.distill)


def _freeze(model: Model, prefixes: Sequence[str]) -> list[nn.Module]:
    """Stop the training of all modules whose names begin so, and return them."""
    frozen: list[nn.Module] = []
    for prefix in prefixes:
        found = [module for name, module in model.named_modules() if name == prefix or name.startswith(f"{prefix}.")]
        if not found:
            tops = [name for name, _ in model.named_modules() if name and name.count(".") < 2]
            raise RecipeError(f"model.frozen: no module is called {prefix!r}{nearest(prefix, tops)}")
        frozen += found
    for module in frozen:
        module.requires_grad_(False)
    return frozen


@torch.no_grad()
def _num_features(model: Model) -> int:
    """Return the channels D of a network's last feature map; its mean over positions is the embedding losses see."""
    training = model.training
    height, width = model.input_size if getattr(model, "fixed_size", False) else (model.minimum_size, model.minimum_size)
    features = model.eval().forward_features(torch.zeros(1, model.in_channels, height, width))
    model.train(training)
    last = getattr(getattr(model, "backbone", None), "output_fmt", "NCHW") == "NHWC"
    if features.ndim != 4 or last:
        kind = "a feature map with its channels last" if features.ndim == 4 else "tokens instead of a feature map"
        raise RecipeError(f"this network has {kind}, {tuple(features.shape)}; use a loss without class centers")
    return features.shape[1]
