"""Evaluation of a network on a split: a results file and the predictions behind it.

Every metric is given twice: on the whole split (standard), and without the images that have a byte-identical twin among the
training images (twin-free). Near twins are counted, and not left out. Network and data may have other classes: they are
matched by name. `mien.leakage` says what is known about the images that trained the network.
"""

from __future__ import annotations

import csv
import datetime
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import mien
from mien import metrics
from mien.atomic import atomic_path, write_json
from mien.calibration import calibrated_probs, prediction_set
from mien.datasets import Corpus
from mien.errors import CheckpointError, DataError, LabelError, RecipeError
from mien.groups import Groups, measure_groups
from mien.labels import label_set, mapping
from mien.languages import translate
from mien.leakage import protocol_of, require_same_split, training_data
from mien.model_info import ModelInfo
from mien.predict.backend import Backend, crop_logits
from mien.predict.ensemble import EnsembleBackend
from mien.predict.onnx_backend import OnnxBackend
from mien.provenance import current_commit, hardware, versions
from mien.recipe import parse_recipe, recipe_hash
from mien.results import digest, predictions_path
from mien.statistics import interval_of_images
from mien.text import escape_formula
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
        classes: The K classes that were measured.
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
    """Return calibrated probabilities (N, K) of the corpus's K classes for every image of a split, averaged over its views.

    Raises:
        LabelError: The network lacks a class of the corpus.
        DataError: The corpus has no such split.
        CheckpointError: A logit is nan or infinite.
    """
    found = mapping(corpus.classes, backend.info.classes)
    columns = [column for column in found if column is not None]
    if len(columns) < len(found):
        raise LabelError(
            f"the model has the classes {', '.join(backend.info.classes)}, but {corpus.name} has {', '.join(corpus.classes)}; "
            "evaluate the model on a corpus of its own label set"
        )
    return _predict(backend, corpus, corpus.where(split), columns, split, view, on_step)


def _predict(
    backend: Backend,
    corpus: Corpus,
    rows: NDArray[np.int64],
    columns: list[int],
    split: str,
    view: View,
    on_step: Callable[[int, int], None] | None,
) -> NDArray[np.float32]:
    """Return probabilities over some of a network's outputs, the `columns`, for some images of a split."""
    parts = []
    for start in range(0, len(rows), BATCH):
        images = [views(image, view) for image in corpus.read(rows[start : start + BATCH])]
        logits = [crop_logits(backend, list(crops)) for crops in zip(*images, strict=True)]
        if not np.isfinite(logits).all():
            raise CheckpointError(
                f"the logits of this {backend.info.arch} are nan or infinite for some images of {split}, so its training has "
                "diverged; train it again with a lower optim.lr"
            )
        parts.append(np.mean([calibrated_probs(each, backend.info.calibration, columns) for each in logits], 0))
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
    map_to: str | None = None,
    options: dict[str, Any] | None = None,
    training: Corpus | None = None,
    groups: Groups | None = None,
) -> Evaluation:
    """Return the predictions and metrics of a network on a split.

    Classes are matched by name. Images of a class that is not measured are left out and counted.

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
        map_to: Name of the label set whose classes are measured, as far as the network has them. The network then chooses
            among these only. By default all classes of the network are measured.
        options: Options the corpus was read with; None if it was read as the network's recipe says. Stored in the results, to
            measure again.
        training: The data that trained the network, if they are at hand and are not the corpus, to count the images it has
            seen.
        groups: The groups of the corpus's images; see `mien.groups.read_groups`.

    Raises:
        LabelError: The network and the corpus have fewer than two classes in common, or the label set is unknown.
        DataError: The corpus has no such split or is not the published corpus it was read as, the network may have been
            trained on its test images, `training` is not what trained it, or a column of `groups` makes no groups.
        CheckpointError: A logit is nan or infinite.
    """
    info, rows, unknown = backend.info, corpus.where(split), dict[str, int]()
    protocol = protocol_of(info, corpus, split)
    require_same_split(info, corpus)
    classes, columns, index = _measured_classes(info, corpus, map_to)
    for ours, name in enumerate(corpus.classes):
        if index[ours] < 0 and (count := int((corpus.target[rows] == ours).sum())):
            unknown[name] = count
    rows = rows[index[corpus.target[rows]] >= 0]
    if not len(rows):
        raise LabelError(f"{corpus.name} has no image of the classes {', '.join(classes)} in {split}; choose another split")
    if groups is not None:
        groups.check(rows)
    probs = _predict(backend, corpus, rows, columns, split, view, on_step)
    target = index[corpus.target[rows]]
    if votes is not None:
        votes = np.stack([votes[:, i] if i is not None else 0 * votes[:, 0] for i in mapping(classes, corpus.classes)], 1)
    known, seen = training_data(info, corpus, rows, protocol, training)
    free = np.zeros(len(rows), np.bool_) if seen is None else ~seen["exact"]

    by_group = {}
    if groups is not None:
        by_group = {name: measure_groups(groups, name, rows, target, probs, classes) for name in groups.columns}

    def report(keep: NDArray[np.bool_]) -> dict[str, Any]:
        chosen = None if votes is None else votes[rows[keep]]
        part = metrics.classification_report(probs[keep], target[keep], classes, chosen)
        correct = int((probs[keep].argmax(1) == target[keep]).sum())
        return part | {"accuracy_interval": list(interval_of_images(correct, part["images"]))}

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
            "protocol": protocol,
            "split": split,
            "split_file": None if options is not None else _split_file(info.recipe),
            "fingerprint": corpus.fingerprint,
            "split_fingerprint": corpus.split_fingerprint,
            "images": len(rows),
            "left_out": len(corpus.skipped),
            "options": options,
            "map_to": map_to,
            "unknown_classes": unknown,
            "absent_classes": [name for i, name in enumerate(classes) if not (target == i).any()],
        },
        "twins": {"training": known, **({} if seen is None else {kind: int(found.sum()) for kind, found in seen.items()})},
        "training": _training(weights.parent) if weights else None,
        "study": study,
        "backend": "onnx" if isinstance(backend, OnnxBackend | EnsembleBackend) else "torch",
        "precision": info.precision,
        "view": view,
        "standard": report(np.ones(len(rows), np.bool_)),
        "twin_free": report(free) if free.any() else None,
        "sets": _set_coverage(probs, target, info.calibration.get("set_limits", {})),
        "classes": list(classes),
        "confusion": metrics.confusion(probs, target, len(classes)).tolist(),
        "groups": by_group or None,
        "detection": None if groups is None or groups.found is None else _detection_rate(groups.found),
        "hardware": hardware() | {"device": backend.device},
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": current_commit(),
        "mien_version": mien.__version__,
        "versions": {"mien": mien.__version__} | versions(),
    }
    results["digest"] = digest(results)
    return Evaluation(rows, target, probs, classes, results)


def _detection_rate(found: NDArray[np.bool_]) -> dict[str, Any]:
    """Return how many marked faces of photos were found."""
    count, faces = int(found.sum()), len(found)
    return {"faces": faces, "found": count, "rate": count / faces, "interval": list(interval_of_images(count, faces))}


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


def _measured_classes(
    info: ModelInfo, corpus: Corpus, map_to: str | None
) -> tuple[tuple[str, ...], list[int], NDArray[np.int64]]:
    """Return the measured classes, their outputs of the network, and the measured class of each of the corpus's, or -1."""
    wanted = info.classes if map_to is None else label_set(map_to)
    found = {name: column for name, column in zip(wanted, mapping(wanted, info.classes), strict=True) if column is not None}
    classes = tuple(found)
    index = np.array([-1 if i is None else i for i in mapping(corpus.classes, classes)], np.int64)
    if len(classes) < 2 or (index >= 0).sum() < 2:
        words = f", and {map_to} has {', '.join(wanted)}" if map_to else ""
        raise LabelError(
            f"the model has the classes {', '.join(info.classes)}, but {corpus.name} has {', '.join(corpus.classes)}{words}; "
            "evaluate it on data of which it knows two classes or more"
        )
    return classes, list(found.values()), index


def notes(results: dict[str, Any]) -> list[str]:
    """Return what a reader of the figures must know about the data, in sentences, the most important first."""
    data, twins, images = results["data"], results["twins"], results["standard"]["images"]
    lines, exact = [], twins.get("exact")
    if exact == images:
        text = "every image is one that trained the model, so the figures say nothing about other images"
        lines.append(f"WARNING: {translate(text)}")
    elif exact is not None:
        text = (
            "{count} of {all} images have a byte-identical copy among the training images (twin-free is without them); {more} "
            "more are nearly the same or mirrored, and are not left out"
        )
        lines.append(translate(text, count=f"{exact:,}", all=f"{images:,}", more=f"{twins['any'] - exact:,}"))
    if twins["training"] in ("unknown", "unverified"):
        text = (
            "the fingerprints do not show that these are the data that trained the model, so it may have seen some of the "
            "images; to count them, give its training data with --training-data"
        )
        lines.append(f"WARNING: {translate(text)}")
    if (detection := results["detection"]) and detection["found"] < detection["faces"]:
        text = "{count} of {all} marked faces were not found; the other figures are about those found"
        missed = detection["faces"] - detection["found"]
        lines.append(translate(text, count=f"{missed:,}", all=f"{detection['faces']:,}"))
    if data["unknown_classes"]:
        shown = ", ".join(
            translate("{count} of {name}", count=f"{count:,}", name=translate(name))
            for name, count in data["unknown_classes"].items()
        )
        lines.append(translate("left out, because the model has no such class or it is not measured: {classes}", classes=shown))
    if data["absent_classes"]:
        absent = ", ".join(map(translate, data["absent_classes"]))
        lines.append(translate("no image shows {classes}, but the model may answer so", classes=absent))
    return lines


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


def write_evaluation(path: Path, evaluation: Evaluation) -> list[Path]:
    """Write the results (JSON), and next to them `<stem>-predictions.csv`; return the paths.

    The results are written last: where they are, the predictions are complete.

    Raises:
        OutputError: A file cannot be written.
    """
    predictions = predictions_path(path)
    with atomic_path(predictions) as tmp_path, tmp_path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "target", "label", *map(escape_formula, evaluation.classes)])
        for row, target, probs in zip(evaluation.rows, evaluation.target, evaluation.probs, strict=True):
            names = evaluation.classes[target], evaluation.classes[int(probs.argmax())]
            writer.writerow([int(row), *map(escape_formula, names), *(f"{p:.5f}" for p in probs)])
    write_json(path, evaluation.results)
    return [path, predictions]
