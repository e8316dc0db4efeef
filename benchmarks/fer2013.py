"""FER2013's PublicTest faces for the benchmarks that measure accuracy. PrivateTest is never used to select."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien.datasets import load_corpus
from mien.labels import label_set, mapping
from mien.predict.recognizer import Recognizer
from mien.weights import sha256

SIDE = 48
"""Side of a face, px."""

Crop = NDArray[np.uint8]


@dataclass(frozen=True)
class Sample:
    """Some faces of one split.

    Attributes:
        images: Grey, uint8 (N, 48, 48).
        target: Class index, (N,).
        twin_free: Whether no byte-identical image lies in training, (N,).
        about: Corpus, split, number, seed and fingerprint, for the JSON.
    """

    images: Crop
    target: NDArray[np.int64]
    twin_free: NDArray[np.bool_]
    about: dict[str, Any]


def load_sample(arguments: argparse.Namespace, split: str = "public_test", number: int | None = None) -> Sample:
    """Return a random sample of a split in the corpus's order, the whole split if it is not larger.

    Args:
        arguments: With `fer2013` (the corpus's file) and `seed`.
        split: `"public_test"` or `"train"`.
        number: How many faces at most; None takes all.
    """
    corpus = load_corpus("fer2013", arguments.fer2013)
    rows, twin_free = corpus.where(split), corpus.twin_free(split)
    if twin_free is None or split == "train":
        twin_free = np.ones(len(rows), np.bool_)
    chosen = np.sort(np.random.default_rng(arguments.seed).permutation(len(rows))[:number])
    about = {
        "corpus": "fer2013",
        "split": split,
        "images": len(chosen),
        "seed": arguments.seed,
        "fingerprint": corpus.fingerprint,
    }
    return Sample(corpus.read(rows[chosen]), corpus.target[rows[chosen]], twin_free[chosen], about)


def add_arguments(parser: argparse.ArgumentParser, number: int | None = None) -> None:
    """Add what these benchmarks share: the corpus, the model, the seed and the number of faces."""
    parser.add_argument("fer2013", type=Path, help="fer2013.csv")
    parser.add_argument("--model", help="a bundled name or an .onnx file (the default model)")
    parser.add_argument("--number", type=int, default=number, help=f"faces of PublicTest ({number or 'all'})")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)


def score(recognizer: Recognizer, crops: Sequence[Crop], sample: Sample) -> dict[str, float]:
    """Return accuracy, accuracy on the faces without a twin in training, and mean confidence, as shares."""
    return outcome(recognizer, crops, sample)[0]


def outcome(recognizer: Recognizer, crops: Sequence[Crop], sample: Sample) -> tuple[dict[str, float], NDArray[np.bool_]]:
    """Return the score and which faces were recognised, (N,)."""
    probs = recognizer.probabilities(crops)
    answer = np.array([-1 if i is None else i for i in mapping(recognizer.classes, label_set("fer2013"))])
    right = answer[probs.argmax(axis=1)] == sample.target
    scores = {
        "accuracy": round(float(right.mean()), 4),
        "accuracy_twin_free": round(float(right[sample.twin_free].mean()), 4),
        "confidence": round(float(probs.max(axis=1).mean()), 4),
    }
    return scores, right


def about_model(recognizer: Recognizer) -> dict[str, Any]:
    """Return which model was measured."""
    info, path = recognizer.backend.info, getattr(recognizer.backend, "path", None)
    return {
        "file": path.name if path else "",
        "sha256": sha256(path) if path else None,
        "arch": info.arch,
        "precision": info.precision,
        "preprocess": info.preprocess.to_dict(),
    }


def enlarged(face: Crop, times: int) -> Crop:
    """Return a face as RGB, `times` as large and continued at its edges by half its side, uint8 (2s, 2s, 3): a whole head."""
    side = SIDE * times
    large = np.asarray(Image.fromarray(face).convert("RGB").resize((side, side), Image.Resampling.BICUBIC))
    return np.pad(large, ((side // 2, side // 2), (side // 2, side // 2), (0, 0)), mode="edge")
