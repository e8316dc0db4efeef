"""From a backend and a split to figures: a results file, the predictions behind it and a confusion matrix.

Every figure is given twice: on the whole split (standard) and on its images without a byte-identical twin in training.
"""

from __future__ import annotations

import csv
import datetime
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import mien
from mien import metrics
from mien.atomic import atomic_path
from mien.datasets import Corpus
from mien.errors import CheckpointError, DataError, LabelError
from mien.model_info import ModelInfo
from mien.predict.onnx_backend import OnnxBackend
from mien.predict.recognizer import Backend, softmax
from mien.preprocess import preprocess
from mien.provenance import current_commit, hardware
from mien.weights import sha256

BATCH = 64
"""Images of a batch; the maps of the largest networks take 13 MB an image and layer."""


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What a network said of a split.

    Attributes:
        rows: Row numbers in the corpus, (N,).
        target: True classes, (N,).
        probs: Probabilities, (N, K).
        classes: The K classes.
        results: The figures and where they come from, as plain JSON types.
    """

    rows: NDArray[np.int64]
    target: NDArray[np.int64]
    probs: NDArray[np.float32]
    classes: tuple[str, ...]
    results: dict[str, Any]


def predict_split(
    backend: Backend, corpus: Corpus, split: str, on_step: Callable[[int, int], None] | None = None
) -> NDArray[np.float32]:
    """Return logits (N, K) of every image of a split, single view.

    Raises:
        LabelError: The network's classes are not the corpus's, in its order.
        DataError: The corpus has no such split.
        CheckpointError: The network answers with something that is no number.
    """
    if backend.info.classes != corpus.classes:
        raise LabelError(
            f"the model tells apart {', '.join(backend.info.classes)}; {corpus.name} has {', '.join(corpus.classes)}: "
            "evaluate it on a corpus of its own label set"
        )
    rows = corpus.where(split)
    parts = []
    for start in range(0, len(rows), BATCH):
        crops = list(corpus.read(rows[start : start + BATCH]))
        parts.append(backend.logits(preprocess(crops, backend.info.preprocess)))
        if on_step is not None:
            on_step(min(start + BATCH, len(rows)), len(rows))
    logits = np.concatenate(parts)
    if not np.isfinite(logits).all():
        raise CheckpointError(
            f"this {backend.info.arch} answers some images of {split} with nan or infinity: its training went astray; "
            "train it again, at a lower rate"
        )
    return logits


def evaluate(
    backend: Backend,
    corpus: Corpus,
    split: str,
    weights: Path | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Return the figures of a network on a split.

    Args:
        backend: The network.
        corpus: The corpus.
        split: One of its splits.
        weights: The file the network came from; its digest goes into the results.
        on_step: Called with the images done and their number.

    Raises:
        LabelError: The network's classes are not the corpus's, in its order.
        DataError: The corpus has no such split, or is split otherwise than the one that trained the network.
        CheckpointError: The network answers with something that is no number.
    """
    _require_same_split(backend.info, corpus)
    probs = softmax(predict_split(backend, corpus, split, on_step))
    rows, classes = corpus.where(split), corpus.classes
    target, free = corpus.target[rows], corpus.twin_free(split, backend.info.recipe.get("data", {}).get("train", "train"))
    results = {
        "model": _describe(backend.info) | {"weights_sha256": sha256(weights) if weights else None},
        "data": {
            "corpus": corpus.name,
            "protocol": corpus.protocol,
            "split": split,
            "fingerprint": corpus.fingerprint,
            "split_fingerprint": corpus.split_fingerprint,
            "images": len(rows),
            "left_out": len(corpus.skipped),
        },
        "backend": "onnx" if isinstance(backend, OnnxBackend) else "torch",
        "precision": backend.info.precision,
        "view": "single",
        "standard": metrics.classification_report(probs, target, classes),
        "twin_free": None
        if free is None or not free.any()
        else metrics.classification_report(probs[free], target[free], classes),
        "classes": list(classes),
        "confusion": metrics.confusion(probs, target, len(classes)).tolist(),
        "hardware": hardware() | {"device": backend.device},
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": current_commit(),
        "mien_version": mien.__version__,
    }
    return Evaluation(rows, target, probs, classes, results)


def _require_same_split(info: ModelInfo, corpus: Corpus) -> None:
    """Refuse a corpus whose test images the model may have been trained on, because either's splits are drawn.

    Official splits are the same in every copy of a corpus; drawn ones are those of the copy they were drawn from.
    """
    drawn = corpus.protocol != "official" or info.recipe.get("data", {}).get("protocol")
    if drawn and corpus.split_fingerprint != info.split_fingerprint:
        raise DataError(
            f"{corpus.name} is split by {corpus.protocol}, and the model was trained on other rows than this split's train; "
            "evaluate it on the very copy of the corpus, and the protocol, that trained it"
        )


def _describe(info: ModelInfo) -> dict[str, Any]:
    return {
        "arch": info.arch,
        "arguments": info.arguments,
        "recipe": info.recipe.get("name", ""),
        "seed": info.recipe.get("seed"),
        "input": list(info.preprocess.size),
        "commit": info.commit,
    }


def write_evaluation(path: Path, evaluation: Evaluation) -> list[Path]:
    """Write `<path>` (JSON), `<stem>-predictions.csv` and `<stem>-confusion.png` beside it; return the three.

    Raises:
        OutputError: A file cannot be written.
    """
    predictions, picture = path.with_name(f"{path.stem}-predictions.csv"), path.with_name(f"{path.stem}-confusion.png")
    with atomic_path(path) as beside:
        beside.write_text(json.dumps(evaluation.results, indent=1) + "\n", encoding="utf-8")
    with atomic_path(predictions) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "target", "label", *evaluation.classes])
        for row, target, probs in zip(evaluation.rows, evaluation.target, evaluation.probs, strict=True):
            names = evaluation.classes[target], evaluation.classes[int(probs.argmax())]
            writer.writerow([int(row), *names, *(f"{p:.5f}" for p in probs)])
    with atomic_path(picture) as beside:
        draw_confusion(beside, evaluation)
    return [path, predictions, picture]


def draw_confusion(path: Path, evaluation: Evaluation) -> None:
    """Draw the confusion matrix: recall per row in per cent, the counts below."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    counts = np.array(evaluation.results["confusion"])
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    model, data, standard = (evaluation.results[key] for key in ("model", "data", "standard"))
    figure = Figure(figsize=(6.4, 5.8), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for i, j in np.ndindex(*counts.shape):
        colour = "white" if shares[i, j] > 0.5 else "black"
        axes.text(j, i, f"{100 * shares[i, j]:.0f} %\n{counts[i, j]}", ha="center", va="center", color=colour, fontsize=8)
    ticks = range(len(evaluation.classes))
    axes.set_xticks(ticks, evaluation.classes, rotation=45, ha="right")
    axes.set_yticks(ticks, evaluation.classes)
    axes.set(xlabel="recognised", ylabel="true")
    axes.set_title(
        f"{model['arch']} ({evaluation.results['precision']}) on {data['corpus']} {data['split']}: "
        f"{100 * standard['accuracy']:.2f} % of {standard['images']:,}",
        fontsize=10,
    )
    figure.savefig(path, dpi=130, format="png")
