"""An execution provider of ONNX Runtime against its CPU provider: equal answers, and processor time per face crop.

    pip uninstall onnxruntime; pip install onnxruntime-openvino
    python -m benchmarks.providers fer2013.csv --provider openvino

The faces are the first of FER2013's public_test. The time is that of the processor (all threads of this process), so other work
on the machine matters less. It says nothing about a GPU. Both providers take turns, on one thread.
"""

from __future__ import annotations

import csv
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.record import Row, argument_parser, write_run
from mien import weights
from mien.predict.recognizer import Recognizer
from mien.preprocess import preprocess

FACES = 200
BATCHES = {1: 100, 64: 20}
"""Rounds by size of the batch."""


def read_faces(path: Path) -> list[NDArray[np.uint8]]:
    """Return the first faces of public_test, uint8 (48, 48)."""
    with path.open() as file:
        rows = (row["pixels"] for row in csv.DictReader(file) if row["Usage"] == "PublicTest")
        return [np.array(pixels.split(), np.uint8).reshape(48, 48) for pixels, _ in zip(rows, range(FACES), strict=False)]


def compare(model: str, provider: str, faces: list[NDArray[np.uint8]], quick: bool) -> dict[str, Any]:
    """Return how far the answers differ, and the median time of a crop by size of the batch."""
    both = {name: Recognizer(model, detector=None, providers=name, threads=1) for name in (provider, "cpu")}
    ours, theirs = (recognizer.probabilities(faces) for recognizer in both.values())
    found: dict[str, Any] = {
        "max_probability_difference": float(np.abs(ours - theirs).max()),
        "equal_labels": int((ours.argmax(1) == theirs.argmax(1)).sum()),
    }
    for size, rounds in BATCHES.items():
        batch = preprocess(faces[:size], both["cpu"].backend.info.preprocess)
        seconds: dict[str, list[float]] = {name: [] for name in both}
        for _ in range(4 if quick else rounds):
            for name, recognizer in both.items():
                run = partial(recognizer.backend.logits, batch)
                run()
                start = time.process_time()
                run()
                seconds[name].append(time.process_time() - start)
        times = {name: np.array(each) / size * 1e3 for name, each in seconds.items()}
        quartiles = np.percentile(times["cpu"] / times[provider], [25, 50, 75]).round(2).tolist()
        medians = {name: round(float(np.median(each)), 3) for name, each in times.items()}
        found[f"batch_{size}"] = {"ms_per_crop": medians, "cpu_time_divided_by_its_own": quartiles}
    return found


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("data", type=Path, help="fer2013.csv")
    parser.add_argument("--provider", default="openvino")
    arguments = parser.parse_args()
    faces = read_faces(arguments.data)
    models = {name: compare(name, arguments.provider, faces, arguments.quick) for name in weights.bundled()}
    summary: list[Row] = []
    for name, found in models.items():
        summary.append((f"{name}: largest difference of a probability", f"{found['max_probability_difference']:.2g}", ""))
        summary.append((f"{name}: equal labels", f"{found['equal_labels']} of {len(faces)}", ""))
        for size in BATCHES:
            low, middle, high = found[f"batch_{size}"]["cpu_time_divided_by_its_own"]
            summary.append((f"{name}: times as fast as cpu, batch of {size}", f"{middle} ({low} to {high})", ""))
    write_run("providers", {"faces": len(faces), "models": models}, summary, arguments)


if __name__ == "__main__":
    main()
