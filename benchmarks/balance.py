"""What the correction for uneven classes costs and gains, by strength: `mien calibrate --balance`.

    python -m benchmarks.balance fer2013.csv --ckplus CK+48

For each model: accuracy, balanced accuracy and calibration error on FER2013's PublicTest, where the classes are as uneven as in
training; accuracy on CK+48, as given and padded, where they are not; and both accuracies on degraded faces, the mean over the
degradations of `benchmarks.robustness`. The strength is chosen on PublicTest alone: the best mean of accuracy and balanced
accuracy over the models.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.fer2013 import Crop, load_sample
from benchmarks.record import Row, argument_parser, write_run
from benchmarks.robustness import DAMAGES
from mien import weights
from mien.calibration import calibrated_probs, class_bias, fit_calibration
from mien.datasets import load_corpus
from mien.labels import mapping
from mien.metrics import classification_report
from mien.predict.backend import crop_logits
from mien.predict.onnx_backend import OnnxBackend
from mien.weights import sha256

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)

MODELS = ("dlib_resnet-fer2013-small", "sa_csp_ca-fer2013", "dlib_resnet-fer2013")

Faces = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Logits of some faces and their classes, both by the model's classes."""


def logits_of(backend: OnnxBackend, crops: Sequence[Crop]) -> NDArray[np.float32]:
    """Return the logits of crops, without any calibration, (N, K)."""
    return np.concatenate([crop_logits(backend, crops[i : i + 64]) for i in range(0, len(crops), 64)])


def ckplus(backend: OnnxBackend, source: Path, pad: int) -> Faces:
    """Return the faces of CK+48 whose classes the model knows."""
    corpus = load_corpus("ckplus", source, options={"pad": pad} if pad else {})
    index = mapping(corpus.classes, backend.info.classes)
    rows = np.array([row for row, label in enumerate(corpus.target) if index[label] is not None])
    return logits_of(backend, list(corpus.read(rows))), np.array([index[label] for label in corpus.target[rows]])


def degraded(backend: OnnxBackend, images: Crop, target: NDArray[np.int64], seed: int) -> list[Faces]:
    """Return the faces degraded in every way and strength."""
    found = []
    for damage in DAMAGES.values():
        for strength in damage.strengths:
            crops = [damage.apply(face, strength, np.random.default_rng((seed, i))) for i, face in enumerate(images)]
            found.append((logits_of(backend, crops), target))
    return found


def scores(faces: Faces, calibration: dict[str, Any]) -> tuple[float, float]:
    """Return accuracy and balanced accuracy."""
    logits, target = faces
    right = calibrated_probs(logits, calibration).argmax(1) == target
    return float(right.mean()), float(np.mean([right[target == label].mean() for label in np.unique(target)]))


def measure(backend: OnnxBackend, arguments: Any) -> dict[str, Any]:
    """Return the figures of a model, by strength."""
    whole = load_sample(arguments)
    some = load_sample(arguments, number=arguments.number)
    corpus = load_corpus("fer2013", arguments.fer2013)
    frequencies = np.bincount(corpus.target[corpus.where("train")]).astype(float)
    public = logits_of(backend, list(whole.images)), whole.target
    sets = {"ckplus48": ckplus(backend, arguments.ckplus, 0), "ckplus48 padded": ckplus(backend, arguments.ckplus, 4)}
    changed = degraded(backend, some.images, some.target, arguments.seed)
    found = {}
    for strength in STRENGTHS:
        fitted = fit_calibration(*public, class_bias(frequencies, strength))
        probs = calibrated_probs(public[0], fitted)
        figures = {"public_test": scores(public, fitted)} | {name: scores(faces, fitted) for name, faces in sets.items()}
        figures["degraded"] = tuple(np.mean([scores(faces, fitted) for faces in changed], axis=0).tolist())
        entry: dict[str, Any] = {name: {"accuracy": round(a, 4), "uar": round(u, 4)} for name, (a, u) in figures.items()}
        entry["public_test"]["ece"] = round(classification_report(probs, whole.target, backend.info.classes)["ece"], 4)
        found[str(strength)] = entry
    return found


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("fer2013", type=Path, help="fer2013.csv")
    parser.add_argument("--ckplus", type=Path, required=True, help="CK+48, a folder or archive")
    parser.add_argument("--number", type=int, default=1000, help="faces of PublicTest that are degraded")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.number = 50
    models = {}
    for name in MODELS[:1] if arguments.quick else MODELS:
        backend = OnnxBackend(path := weights.resolve(name), 2)
        models[name] = {"sha256": sha256(path), "strengths": measure(backend, arguments)}
        print(name, models[name]["strengths"], flush=True)

    def mean(strength: str) -> float:
        figures = [model["strengths"][strength]["public_test"] for model in models.values()]
        return float(np.mean([(each["accuracy"] + each["uar"]) / 2 for each in figures]))

    best = max(map(str, STRENGTHS), key=mean)
    rows: list[Row] = [
        (f"strength {each}: mean of accuracy and balanced accuracy", f"{mean(each):.2%}", "") for each in map(str, STRENGTHS)
    ]
    write_run("balance", {"models": models, "chosen": float(best), "degraded_faces": arguments.number}, rows, arguments)


if __name__ == "__main__":
    main()
