"""What spreading the grey levels of dark and pale faces costs and gains, by `min_contrast` of the preprocessing.

    python -m benchmarks.contrast fer2013.csv

For each model: accuracy on FER2013's PublicTest as it is, and on some of its faces in the dark and with little contrast. The
value is chosen on PublicTest as it is: the largest that costs no model more than a tenth of a point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.balance import MODELS
from benchmarks.fer2013 import Crop, add_arguments, load_sample
from benchmarks.record import Row, argument_parser, write_run
from benchmarks.robustness import DAMAGES
from mien import weights
from mien.calibration import calibrated_probs
from mien.predict.onnx_backend import OnnxBackend
from mien.preprocess import PreprocessSpec, preprocess

VALUES = (0.0, 0.1, 0.125, 0.15, 0.175, 0.2, 0.225)

TOLERANCE = 0.001
"""Largest loss of accuracy on PublicTest of a model, as a share."""

STRENGTHS = {"dark": (0.3, 0.2, 0.1, 0.05), "contrast": (0.3, 0.2, 0.1, 0.05)}
"""Damages of `benchmarks.robustness` and their strengths."""


def accuracy(backend: OnnxBackend, crops: Sequence[Crop], target: NDArray[np.int64], spec: PreprocessSpec) -> float:
    """Return the share of crops recognised with another preprocessing than the model's own."""
    logits = [backend.logits(preprocess(crops[i : i + 64], spec)) for i in range(0, len(crops), 64)]
    answers = calibrated_probs(np.concatenate(logits), backend.info.calibration).argmax(1)
    return round(float((answers == target).mean()), 4)


def main() -> None:
    parser = argument_parser(__doc__)
    add_arguments(parser, number=1000)
    arguments = parser.parse_args()
    whole, some = load_sample(arguments), load_sample(arguments, number=50 if arguments.quick else arguments.number)
    sets = {"public_test": (list(whole.images), whole.target)}
    for name, strengths in STRENGTHS.items():
        for strength in strengths:
            random = [np.random.default_rng((arguments.seed, i)) for i in range(len(some.images))]
            crops = [DAMAGES[name].apply(face, strength, each) for face, each in zip(some.images, random, strict=True)]
            sets[f"{name} {strength:g}"] = crops, some.target
    models: dict[str, dict[str, Any]] = {}
    for name in MODELS[:1] if arguments.quick else MODELS:
        backend = OnnxBackend(path := weights.resolve(name), arguments.threads)
        models[name] = {"sha256": weights.sha256(path), "values": {}}
        for value in VALUES:
            spec = replace(backend.info.preprocess, min_contrast=value)
            models[name]["values"][str(value)] = found = {key: accuracy(backend, *faces, spec) for key, faces in sets.items()}
            print(name, value, found, flush=True)

    def largest_loss(value: float) -> float:
        found = [model["values"] for model in models.values()]
        return max(each["0.0"]["public_test"] - each[str(value)]["public_test"] for each in found)

    chosen = max(value for value in VALUES if largest_loss(value) <= TOLERANCE)
    rows: list[Row] = [
        (f"min_contrast {value:g}: largest loss on public_test", f"{largest_loss(value):.2%}", "") for value in VALUES
    ]
    write_run("contrast", {"models": models, "chosen": chosen, "degraded_faces": len(some.images)}, rows, arguments)


if __name__ == "__main__":
    main()
