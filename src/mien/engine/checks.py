"""Checks of a run before it trains: names and files before the corpus is read, then the corpus, then the start weights.

Each finds in seconds an error that would otherwise appear after minutes, or never.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mien.atomic import check_outputs, check_place
from mien.checkpoint import read_info
from mien.datasets import Corpus
from mien.datasets.row_list import read_row_list
from mien.engine.optim import check_optimizer
from mien.errors import CheckpointError, DataError, OutputError, RecipeError, UnknownNameError
from mien.losses import LOSSES
from mien.models import MODELS
from mien.models.base import TIMM
from mien.recipe import Recipe
from mien.registry import Registry, check_arguments
from mien.weights import is_named

RUN_FILES = ("recipe.yaml", "best.safetensors", "last.ckpt", "history.csv", "curves.png")
"""What a run writes into its folder."""

TEST_SPLITS = ("test", "private_test")
"""Splits that no run may train on or select by."""


def check_names(recipe: Recipe) -> None:
    """Check the names in a recipe.

    Raises:
        RecipeError: The network, the loss, the optimizer or an argument of the first two is unknown; names the nearest. Or the
            recipe compiles and there is no compiler.
    """
    if recipe.train.compile and not torch.cuda.is_available():
        compiler = os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
        if shutil.which(compiler) is None:
            raise RecipeError(
                f"train.compile: no C++ compiler found ({compiler}); install one, or add --set train.compile=false"
            )
    model, loss = recipe.model, recipe.loss
    if not model.name.startswith(TIMM):
        _check_part("model", model.name, model.arguments, MODELS, ("num_classes",))
    _check_part("loss", loss.name, loss.arguments, LOSSES, ("num_classes", "num_features"))
    check_optimizer(recipe.optim)


def check_files(recipe: Recipe, out: Path, inputs: Sequence[Path] = ()) -> None:
    """Check that the files a recipe names exist, and that the run's folder can be written without overwriting any of them.

    Args:
        recipe: The recipe.
        out: The run's folder.
        inputs: Other files that the run reads.

    Raises:
        CheckpointError: The start weights or a teacher are missing.
        OutputError: The folder cannot be written, or the run would replace what it reads, or the weights of another run.
    """
    teachers = recipe.distill.teachers if recipe.distill else []
    named = [("model.start", recipe.model.start), *(("distill.teachers", path) for path in teachers)]
    named = [(key, path) for key, path in named if path not in (None, "imagenet") and not is_named(path)]
    for key, path in named:
        if path and not Path(path).exists():
            raise CheckpointError(f"{key}: {path}: no such checkpoint; the recipe's deviations say how to make it")
    check_place(out)
    files = [Path(path) / "best.safetensors" if Path(path).is_dir() else Path(path) for _, path in named if path]
    check_outputs([out / name for name in RUN_FILES], [*files, *(path for path in inputs if path.is_file())])
    if (out / "best.safetensors").is_file() and not (out / "last.ckpt").is_file():
        raise OutputError(f"{out}: holds trained weights, but no last.ckpt to resume from; choose another --out, or move them")


def check_data(recipe: Recipe, corpus: Corpus, processes: int) -> None:
    """Check that a recipe fits its corpus and the number of processes.

    Raises:
        RecipeError: The batch cannot be shared, the training split is smaller than a batch, the recipe uses a test split, or
            it wants votes and the corpus has none.
        DataError: The corpus has no such split, or a row list does not belong to it.
    """
    batch_size = recipe.train.batch_size
    if batch_size % processes:
        raise RecipeError(
            f"train.batch_size is {batch_size}, which {processes} processes cannot share evenly; choose another --devices or "
            "another batch size"
        )
    if batch_size < 2 * processes:
        raise RecipeError("train.batch_size: batch norms need at least 2 images per process; make it larger")
    if recipe.augment.mixup and batch_size // processes % 2:
        raise RecipeError(
            f"augment.mixup mixes pairs, but train.batch_size {batch_size} gives each of {processes} process(es) an odd number "
            "of images; change the batch size"
        )
    for key, split in (("train", recipe.data.train), ("select", recipe.data.select)):
        if split in TEST_SPLITS:
            raise RecipeError(f"data.{key}: {split} is a test split; measure on it once, at the end, with mien evaluate")
    count = len(training_rows(recipe, corpus)[0])
    if recipe.data.select is not None:
        corpus.where(recipe.data.select)
    if count < batch_size:
        raise RecipeError(f"train.batch_size is {batch_size}, but the training split has {count} images; make it smaller")
    if recipe.data.votes and corpus.rows.votes is None:
        raise RecipeError(f"data.votes: {corpus.name} has one label per image and no votes; set it to false")


def training_rows(recipe: Recipe, corpus: Corpus) -> tuple[NDArray[np.int64], NDArray[np.float64] | None]:
    """Return the rows that a recipe trains on, ascending, (R,), and how often each is drawn relative to the others, (R,).

    The weights are None if the recipe names no list of them. A row that the list does not name has weight 1.

    Raises:
        DataError: The corpus has no such split, or a list is not of this corpus or names no image of the split.
    """
    part = recipe.data
    rows, weights = corpus.where(part.train), None
    if part.exclude is not None:
        kept = rows[~np.isin(rows, list(read_row_list(part.exclude, corpus)))]
        if len(kept) in (0, len(rows)):
            found = "every image" if len(kept) == 0 else "no image"
            raise DataError(f"data.exclude: {part.exclude} names {found} of {part.train}; give a list of some of its images")
        rows = kept
    if part.weights is not None:
        listed = read_row_list(part.weights, corpus, weighted=True)
        weights = np.array([listed.get(row, 1.0) for row in rows.tolist()])
        if not (np.isin(rows, list(listed)).any() and weights.any()):
            found = "gives weight 0 to every image" if not weights.any() else "names no image"
            raise DataError(f"data.weights: {part.weights} {found} of {part.train}; give a list of some of its images")
    return rows, weights


def check_start(path: Path, corpus: Corpus) -> None:
    """Refuse start weights that may have been trained on this run's test images: same corpus, other split.

    Args:
        path: The file of start weights.
        corpus: The run's corpus.

    Raises:
        RecipeError: They were trained on another split of the corpus.
        CheckpointError: The file is of another format version.
    """
    info = read_info(path)
    if info and info.data_fingerprint == corpus.fingerprint and info.split_fingerprint not in ("", corpus.split_fingerprint):
        raise RecipeError(
            f"model.start: {path} was trained on another split of {corpus.name}, so it may have seen this run's test images; "
            "train it with the same data.protocol"
        )


def _check_part(key: str, name: str, arguments: dict[str, Any], registry: Registry[Any], given: tuple[str, ...]) -> None:
    try:
        check_arguments(registry.get(name), arguments, given)
    except UnknownNameError as error:
        raise RecipeError(f"{key}.{'arguments' if name in registry else 'name'}: {error}") from None
