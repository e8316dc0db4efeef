"""Evaluation of a network on a split: a results file and the predictions behind it.

Every metric is given twice: on the whole split (standard), and without the images that have a byte-identical twin in the
training split (twin-free).
"""

from __future__ import annotations

import csv
import datetime
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import mien
from mien import metrics
from mien.atomic import atomic_path
from mien.calibration import calibrated_probs, prediction_set
from mien.datasets import Corpus
from mien.errors import CheckpointError, DataError, LabelError, RecipeError
from mien.model_info import ModelInfo
from mien.predict.onnx_backend import OnnxBackend
from mien.predict.recognizer import Backend
from mien.preprocess import preprocess
from mien.provenance import current_commit, hardware, versions
from mien.recipe import parse_recipe, recipe_hash
from mien.results import digest, predictions_path
from mien.weights import sha256

View = Literal["single", "mirror", "ten"]
"""How often an image is looked at: as it is; also mirrored; or as its four corners and centre, mirrored or not."""

TEN_VIEW_SIDE = 44 / 48
"""Side of the squares of `ten`, as a share of the image; 44 of 48 px is usual on FER2013."""

BATCH = 64
"""Images per batch; the feature maps of the largest networks take 13 MB per image and layer."""


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """The predictions of a network on a split, and the metrics.

    Attributes:
        rows: Row numbers in the corpus, (N,).
        target: True classes, (N,).
        probs: Probabilities, (N, K).
        classes: The K classes.
        results: Metrics and their provenance, as JSON types.
    """

    rows: NDArray[np.int64]
    target: NDArray[np.int64]
    probs: NDArray[np.float32]
    classes: tuple[str, ...]
    results: dict[str, Any]


def predict_split(
    backend: Backend, corpus: Corpus, split: str, on_step: Callable[[int, int], None] | None = None, view: View = "single"
) -> NDArray[np.float32]:
    """Return calibrated probabilities (N, K) for every image of a split, averaged over its views.

    Raises:
        LabelError: The network and the corpus differ in their classes or in the order of them.
        DataError: The corpus has no such split.
        CheckpointError: A logit is nan or infinite.
    """
    if backend.info.classes != corpus.classes:
        raise LabelError(
            f"the model has the classes {', '.join(backend.info.classes)}, but {corpus.name} has {', '.join(corpus.classes)}; "
            "evaluate the model on a corpus of its own label set"
        )
    rows = corpus.where(split)
    parts = []
    for start in range(0, len(rows), BATCH):
        images = [views(image, view) for image in corpus.read(rows[start : start + BATCH])]
        logits = [backend.logits(preprocess(list(crops), backend.info.preprocess)) for crops in zip(*images, strict=True)]
        if not np.isfinite(logits).all():
            raise CheckpointError(
                f"the logits of this {backend.info.arch} are nan or infinite for some images of {split}, so its training has "
                "diverged; train it again with a lower optim.lr"
            )
        parts.append(np.mean([calibrated_probs(each, backend.info.calibration) for each in logits], 0))
        if on_step is not None:
            on_step(min(start + BATCH, len(rows)), len(rows))
    return np.concatenate(parts)


def views(image: NDArray[np.uint8], view: View) -> list[NDArray[np.uint8]]:
    """Return the views of an image (H, W) or (H, W, 3)."""
    if view == "single":
        return [image]
    if view == "mirror":
        return [image, image[:, ::-1]]
    height, width = (round(TEN_VIEW_SIDE * side) for side in image.shape[:2])
    down, right = image.shape[0] - height, image.shape[1] - width
    corners = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
    squares = [image[y : y + height, x : x + width] for y, x in corners]
    return [*squares, *(square[:, ::-1] for square in squares)]


def evaluate(
    backend: Backend,
    corpus: Corpus,
    split: str,
    weights: Path | None = None,
    on_step: Callable[[int, int], None] | None = None,
    *,
    view: View = "single",
    votes: NDArray[np.int64] | None = None,
    study: dict[str, Any] | None = None,
) -> Evaluation:
    """Return the predictions and metrics of a network on a split.

    Args:
        backend: The network.
        corpus: The corpus.
        split: One of its splits.
        weights: The file of the network. Its SHA-256 is stored in the results, and what the `history.csv` next to it says
            about the training.
        on_step: Called with the number of images done and the number of images in total.
        view: How often each image is looked at. Published figures are of a single view unless they say otherwise.
        votes: How many people chose each class, for every row of the corpus, (rows, K); see `mien.datasets.vote_counts`.
        study: What this evaluation is part of: `name`, `row`, `scale` and `fold` of a study; stored in the results.

    Raises:
        LabelError: The network and the corpus differ in their classes or in the order of them.
        DataError: The corpus has no such split, or the network may have been trained on its test images.
        CheckpointError: A logit is nan or infinite.
    """
    _require_same_split(backend.info, corpus)
    probs = predict_split(backend, corpus, split, on_step, view)
    rows, classes = corpus.where(split), corpus.classes
    target, info = corpus.target[rows], backend.info
    twin_free = corpus.twin_free(split, info.recipe.get("data", {}).get("train", "train"))

    def report(keep: NDArray[np.bool_]) -> dict[str, Any]:
        chosen = None if votes is None else votes[rows[keep]]
        return metrics.classification_report(probs[keep], target[keep], classes, chosen)

    results = {
        "model": {
            "arch": info.arch,
            "arguments": info.arguments,
            "recipe": info.recipe.get("name", ""),
            "recipe_hash": _hash_of(info.recipe),
            "seed": info.recipe.get("seed"),
            "input": list(info.preprocess.size),
            "commit": info.commit,
            "weights_sha256": sha256(weights) if weights else None,
        },
        "data": {
            "corpus": corpus.name,
            "protocol": corpus.protocol,
            "split": split,
            "split_file": _split_file(info.recipe),
            "fingerprint": corpus.fingerprint,
            "split_fingerprint": corpus.split_fingerprint,
            "images": len(rows),
            "left_out": len(corpus.skipped),
        },
        "training": _training(weights.parent) if weights else None,
        "study": study,
        "backend": "onnx" if isinstance(backend, OnnxBackend) else "torch",
        "precision": info.precision,
        "view": view,
        "standard": report(np.ones(len(rows), np.bool_)),
        "twin_free": None if twin_free is None or not twin_free.any() else report(twin_free),
        "sets": _set_coverage(probs, target, info.calibration.get("set_limits", {})),
        "classes": list(classes),
        "confusion": metrics.confusion(probs, target, len(classes)).tolist(),
        "hardware": hardware() | {"device": backend.device},
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": current_commit(),
        "mien_version": mien.__version__,
        "versions": {"mien": mien.__version__} | versions(),
    }
    results["digest"] = digest(results)
    return Evaluation(rows, target, probs, classes, results)


def _set_coverage(
    probs: NDArray[np.float32], target: NDArray[np.int64], limits: dict[str, float]
) -> dict[str, dict[str, float]] | None:
    """Return, by the coverage asked for, how often the prediction set has the right class, and its mean size."""
    found = {}
    for coverage, limit in limits.items():
        sets = [prediction_set(each, limit) for each in probs]
        right = np.mean([label in each for label, each in zip(target, sets, strict=True)])
        found[coverage] = {"coverage": float(right), "size": float(np.mean([len(each) for each in sets]))}
    return found or None


def _hash_of(recipe: dict[str, Any]) -> str | None:
    """Return the hash of the recipe in a model's file; None if it has none, or one of an older format."""
    try:
        return recipe_hash(parse_recipe(recipe, "the model's recipe"))
    except RecipeError:
        return None


def _training(run: Path) -> dict[str, Any] | None:
    """Return how a run was trained, from the history in its folder; None if there is none."""
    if not (run / "history.csv").is_file():
        return None
    from mien.engine.history import best_epoch, read_history  # here: it loads what training needs

    try:
        epochs = read_history(run)
    except DataError:  # of another program
        return None
    seconds = round(sum(epoch.seconds for epoch in epochs), 1)
    return {"epochs": len(epochs), "best_epoch": best_epoch(epochs).epoch, "seconds": seconds} if epochs else None


def _split_file(recipe: dict[str, Any]) -> str | None:
    """Return the name of the protocol file that a recipe takes its splits from."""
    protocol = recipe.get("data", {}).get("protocol") or []
    steps = protocol if isinstance(protocol, list) else [protocol]
    return next((Path(step["path"]).name for step in steps if step.get("name") == "file"), None)


def _require_same_split(info: ModelInfo, corpus: Corpus) -> None:
    """Refuse a corpus whose test images the model may have been trained on.

    Official splits are the same in every copy of a corpus. Random splits must be those the model was trained with.
    """
    random = corpus.protocol != "official" or info.recipe.get("data", {}).get("protocol")
    if random and corpus.split_fingerprint != info.split_fingerprint:
        raise DataError(
            f"{corpus.name} is split by {corpus.protocol}, but the model was trained on another split, so it may have seen "
            "these test images; evaluate it with the protocol and the copy of the corpus that trained it"
        )


def write_evaluation(path: Path, evaluation: Evaluation) -> list[Path]:
    """Write the results (JSON), and next to them `<stem>-predictions.csv`; return the paths.

    The results are written last: where they are, the predictions are complete.

    Raises:
        OutputError: A file cannot be written.
    """
    predictions = predictions_path(path)
    with atomic_path(predictions) as tmp_path, tmp_path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "target", "label", *evaluation.classes])
        for row, target, probs in zip(evaluation.rows, evaluation.target, evaluation.probs, strict=True):
            names = evaluation.classes[target], evaluation.classes[int(probs.argmax())]
            writer.writerow([int(row), *names, *(f"{p:.5f}" for p in probs)])
    with atomic_path(path) as tmp_path:
        tmp_path.write_text(json.dumps(evaluation.results, indent=1) + "\n", encoding="utf-8")
    return [path, predictions]
