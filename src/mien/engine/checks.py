"""What is wrong with a run, found out before anything is trained."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from mien.atomic import check_place
from mien.checkpoint import read_info
from mien.datasets import Corpus
from mien.engine.optim import check_optimizer
from mien.errors import CheckpointError, RecipeError, UnknownNameError
from mien.losses import LOSSES
from mien.models import MODELS
from mien.models.contract import TIMM
from mien.recipe import Recipe
from mien.registry import Registry, check_arguments
from mien.weights import bundled


def check_names(recipe: Recipe) -> None:
    """Check the names that registries and networks know, before anything is read.

    Raises:
        RecipeError: The network, the loss, the optimiser or an argument of the first two is unknown; names the nearest. Or the
            step is to be compiled and there is no compiler.
    """
    if recipe.train.compile and not torch.cuda.is_available():
        _check_compiler()
    model, loss = recipe.model, recipe.loss
    if not model.name.startswith(TIMM):
        _check_part("model", model.name, model.arguments, MODELS, ("num_classes",))
    _check_part("loss", loss.name, loss.arguments, LOSSES, ("num_classes", "num_features"))
    check_optimizer(recipe.optim)


def check_files(recipe: Recipe, out: Path) -> None:
    """Check now what would be found out once the corpus was read: files that are not there, a folder that cannot be written.

    Raises:
        CheckpointError: The start or a teacher is missing.
        OutputError: The folder cannot be written.
    """
    named = [("model.start", recipe.model.start)] if recipe.model.start not in (None, "imagenet") else []
    named += [
        ("distill.teachers", path) for path in (recipe.distill.teachers if recipe.distill else []) if path not in bundled()
    ]
    for key, path in named:
        if path and not Path(path).exists():
            raise CheckpointError(f"{key}: {path}: no such checkpoint; see the recipe's deviations for how to make it")
    check_place(out)


def check_start(path: Path, corpus: Corpus) -> None:
    """Refuse weights of the same images split otherwise: they may have seen what this run is measured on.

    Args:
        path: The file a run starts from.
        corpus: What the run is trained on.

    Raises:
        RecipeError: They were trained on other rows.
        CheckpointError: The file is of another version.
    """
    info = read_info(path)
    if info and info.data_fingerprint == corpus.fingerprint and info.split_fingerprint not in ("", corpus.split_fingerprint):
        raise RecipeError(
            f"model.start: {path} was trained on other rows of {corpus.name} and may know this run's test images; "
            "train it with the same data.protocol"
        )


def _check_compiler() -> None:
    compiler = os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    if shutil.which(compiler) is None:
        raise RecipeError(
            f"train.compile: there is no C++ compiler ({compiler}); install it, or do without: --set train.compile=false"
        )


def _check_part(key: str, name: str, arguments: dict[str, Any], registry: Registry[Any], given: tuple[str, ...]) -> None:
    try:
        check_arguments(registry.get(name), arguments, given)
    except UnknownNameError as error:
        raise RecipeError(f"{key}.{'arguments' if name in registry else 'name'}: {error}") from None
