"""Ready 48x48 crops per second in fp32, int8 and eager torch, and the latency of one face on one thread.

    python -m benchmarks.inference

Three levels, from the network alone to what a user calls. All engines and levels take turns, round after round:

- network: preprocessed float32 batch in, logits out
- probabilities: uint8 crops through preprocessing, network and softmax (`Recognizer.probabilities`)
- predict_faces: the same, and a `Prediction` for each face (`Recognizer.predict_faces`)

Two more calls measure what the levels add: preprocessing, and creating the predictions.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.networks import Pair, checkpoint_for, find_pair, grey_crops
from benchmarks.record import Row, argument_parser, write_run
from benchmarks.timing import Seconds, interleaved, milliseconds, ratio
from mien.engine.torch_backend import TorchBackend
from mien.predict.backend import Backend
from mien.predict.onnx_backend import OnnxBackend
from mien.predict.recognizer import Recognizer
from mien.preprocess import preprocess
from mien.structures import Prediction

ENGINES = ("eager", "fp32", "int8")
LEVELS = ("network", "probabilities", "predict_faces")


def load(pair: Pair, checkpoint: Path, threads: int) -> dict[str, Backend]:
    """Return the three engines; torch's number of threads is the whole process's."""
    torch.set_num_threads(threads)
    cpu = ["CPUExecutionProvider"]
    return {
        "eager": TorchBackend(checkpoint, device="cpu"),
        "fp32": OnnxBackend(pair.fp32, threads, cpu),
        "int8": OnnxBackend(pair.int8, threads, cpu),
    }


def calls(backends: dict[str, Backend], number: int) -> dict[str, Callable[[], object]]:
    """Return every engine at every level, and the two parts, on `number` crops."""
    crops, spec = grey_crops(number), backends["fp32"].info.preprocess
    batch, classes = preprocess(crops, spec), backends["fp32"].info.classes
    probs = Recognizer(backends["fp32"], detector=None, batch_size=number).probabilities(crops)
    found: dict[str, Callable[[], object]] = {}
    for engine, backend in backends.items():
        recognizer = Recognizer(backend, detector=None, batch_size=number)
        found[f"{engine} network"] = partial(backend.logits, batch)
        found[f"{engine} probabilities"] = partial(recognizer.probabilities, crops)
        found[f"{engine} predict_faces"] = partial(recognizer.predict_faces, crops)
    found["preprocess"] = partial(preprocess, crops, spec)
    found["predictions"] = lambda: [Prediction(classes, p) for p in probs]
    return found


def figures(seconds: dict[str, Seconds], number: int) -> dict[str, Any]:
    """Return times a call, crops a second, and how many times as fast as eager torch each engine is."""
    return {
        "ms": {name: milliseconds(times) for name, times in seconds.items()},
        "crops_per_second": {
            f"{engine} {level}": round(number / float(np.median(seconds[f"{engine} {level}"])))
            for engine in ENGINES
            for level in LEVELS
        },
        "times_eager": {
            f"{engine} {level}": ratio(seconds[f"eager {level}"], seconds[f"{engine} {level}"])
            for engine in ENGINES[1:]
            for level in LEVELS
        },
        "int8_times_fp32": {level: ratio(seconds[f"fp32 {level}"], seconds[f"int8 {level}"]) for level in LEVELS},
    }


def summary(batch: dict[str, Any], one: dict[str, Any], arguments: argparse.Namespace) -> list[Row]:
    rate, faster, ms = batch["crops_per_second"], batch["times_eager"], one["ms"]
    where = f"{arguments.batch} crops, {arguments.threads} threads"
    aims = {"fp32": ("2,500", "under 1 ms")}
    rows = [(f"{e} crops/s, predict_faces, {where}", f"{rate[f'{e} predict_faces']:,}", aims.get(e, ("",))[0]) for e in ENGINES]
    for engine, aim in (("fp32", ""), ("int8", "3x")):
        rows.append((f"{engine} / eager torch, {where}", f"{faster[f'{engine} predict_faces']:.2f}x", aim))
    for engine in ENGINES:
        times, aim = ms[f"{engine} predict_faces"], aims.get(engine, ("", ""))[1]
        rows.append(
            (f"{engine} latency of a face, 1 thread, median / p95", f"{times['median']:.3f} / {times['p95']:.3f} ms", aim)
        )
    return rows


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--model", help="fp32 model: a bundled name or an .onnx file")
    parser.add_argument("--int8", help="int8 model: a bundled name or an .onnx file")
    parser.add_argument("--checkpoint", type=Path, help="checkpoint for torch; by default the same network, random weights")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    rounds = 3 if arguments.quick else 25
    with tempfile.TemporaryDirectory() as name:
        pair = find_pair(arguments.model, arguments.int8, Path(name))
        checkpoint = arguments.checkpoint or checkpoint_for(pair, Path(name))
        many = interleaved(calls(load(pair, checkpoint, arguments.threads), arguments.batch), rounds, repeats=3)
        one = interleaved(calls(load(pair, checkpoint, threads=1), 1), rounds, repeats=20)
    batch, single = figures(many, arguments.batch), figures(one, 1)
    found = {"model": pair.origin, "rounds": rounds, "batch": batch, "one_face_one_thread": single}
    write_run("inference", found, summary(batch, single, arguments), arguments)


if __name__ == "__main__":
    main()
