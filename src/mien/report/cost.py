"""What a network costs: its parameters, and how long one face takes, measured here or read from a benchmark's run."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mien.errors import DataError, require
from mien.report.inputs import Measured

if TYPE_CHECKING:
    from mien.models import Model

MEASURED_SECONDS = 1.0
"""Time to measure each network, seconds; the slowest takes about 0.3 s per image."""

ENGINES = {"eager": "torch", "fp32": "ONNX Runtime", "int8": "ONNX Runtime"}
"""What ran a network, by the name of its engine in the benchmark of inference."""


@dataclass(frozen=True)
class Latencies:
    """How long one face takes in each of several networks."""

    milliseconds: dict[str, float]  # median by network; see `of`
    machine: str  # the software and the processor

    def of(self, measured: Measured) -> float:
        """Return the latency of a measured network, ms."""
        return self.milliseconds[_network(measured)]


def count_parameters(measured: Measured) -> int:
    """Return the number of parameters of a measured network."""
    return sum(parameter.numel() for parameter in _create(measured, "meta").parameters())


def measure_latencies(measured: Sequence[Measured], on_step: Callable[[int, int], None] | None = None) -> Latencies:
    """Return the latency of each network on this machine: torch, float32, one thread, random weights, without preprocessing.

    Args:
        measured: The networks; each gets one image of the size it was measured with.
        on_step: Called with the number of networks done and the number of networks in total.

    Raises:
        DataError: A network is quantized, which torch cannot run.
    """
    torch = require("torch", "train")
    from mien.provenance import hardware

    networks = {_network(each): each for each in measured}  # the seeds of a study share one
    found = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for number, (name, each) in enumerate(networks.items(), 1):
            if each.first["precision"] == "int8":
                raise DataError(
                    f"{each.paths[0]}: its network is quantized, which torch cannot time; run benchmarks/inference.py "
                    "and give its file with --latency"
                )
            found[name] = _time_one_face(_create(each, "cpu"), each.first["model"]["input"])
            if on_step is not None:
                on_step(number, len(networks))
    finally:
        torch.set_num_threads(threads)
    return Latencies(found, f"torch, float32, 1 thread, {hardware()['processor']}")


def read_latencies(measured: Sequence[Measured], runs: Sequence[Path]) -> Latencies:
    """Return the latency of each network from runs of `benchmarks/inference.py`.

    A run fits a measurement if network, arguments and input size are the same; the weights do not matter for speed.

    Args:
        measured: The networks.
        runs: Files of `benchmarks/runs/`, all of one machine.

    Raises:
        DataError: A file is not such a run, the runs are of several machines, or no run fits a network.
    """
    from mien.predict.onnx_backend import OnnxBackend
    from mien.weights import resolve

    known: dict[str, float] = {}
    machines = set()
    for path in runs:
        values = _read_benchmark(path)
        machines.add(values["hardware"]["processor"])
        info = OnnxBackend(resolve(values["model"].split(" and ")[0]), threads=1).info
        model = {"arch": info.arch, "arguments": info.arguments, "input": list(info.preprocess.size)}
        times = values["one_face_one_thread"]["ms"]
        known |= {_key(model, name): times[f"{name} network"]["median"] for name in ENGINES if f"{name} network" in times}
    if len(machines) > 1:
        raise DataError(f"the benchmarks are of several machines ({', '.join(sorted(machines))}); give those of one")
    for each in measured:
        if _network(each) not in known:
            raise DataError(
                f"{each.paths[0]}: no file given with --latency timed its network ({each.first['model']['arch']}, "
                f"{_engine(each.first)}); add one that did, or leave --latency out to measure all networks here"
            )
    engines = sorted({ENGINES[_engine(each.first)] for each in measured})
    return Latencies(known, f"{' and '.join(engines)}, 1 thread, {machines.pop()}")


def _create(measured: Measured, device: str) -> Model:
    torch = require("torch", "train")
    from mien.models import create_model

    model = measured.first["model"]
    with torch.device(device):
        return create_model(model["arch"], num_classes=len(measured.first["classes"]), **model["arguments"])


def _time_one_face(model: Model, size: Sequence[int]) -> float:
    """Return the median time of one image (C, *size) in a network, ms."""
    import torch

    image = torch.zeros(1, model.in_channels, *size)
    seconds: list[float] = []
    with torch.inference_mode():
        model.eval()(image)  # the first call also prepares the kernels
        while sum(seconds) < MEASURED_SECONDS or len(seconds) < 3:
            start = time.perf_counter()
            model(image)
            seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds)


def _read_benchmark(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["name"] == "inference" and values["hardware"]["processor"] and values["one_face_one_thread"]["ms"]:
            return dict(values)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise DataError(f"{path}: is not a run of benchmarks/inference.py; give such a file from benchmarks/runs/")


def _network(measured: Measured) -> str:
    return _key(measured.first["model"], _engine(measured.first))


def _engine(results: dict[str, Any]) -> str:
    return "int8" if results["precision"] == "int8" else "fp32" if results["backend"] == "onnx" else "eager"


def _key(model: dict[str, Any], engine: str) -> str:
    return json.dumps([model["arch"], model["arguments"], model["input"], engine], sort_keys=True)
