"""From a checkpoint to ONNX, in float32 and in int8, with the model's facts inside the file and parity proven.

Int8 is ONNX Runtime's static quantisation (QDQ, unsigned activations, signed weights per channel), calibrated on images of the
training split.
"""

from __future__ import annotations

import copy
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import mien
from mien.atomic import atomic_path
from mien.datasets import Corpus
from mien.engine.torch_backend import TorchBackend
from mien.errors import MienError
from mien.model_info import METADATA_KEY, ModelInfo
from mien.models import Model
from mien.predict.onnx_backend import OnnxBackend
from mien.preprocess import preprocess
from mien.weights import card_path, sha256

OPSET = 18
NARROW = 8
"""Convolutions with at most this many input channels stay in float32 in an int8 file: there they are faster so."""

LARGE = 256
"""Numbers of a weight at least, for float16 to be worth a `Cast`."""

HALF_AGREES = 0.98
"""Share of the compared images of which a file in half the size must give the same label."""

HALF_TOLERANCE = 0.05
"""Largest difference of a logit between torch and a file in half the size: of a probability, 0.025."""

COMPARED = 64
"""Images of a batch on which torch and an exported file are compared."""

TOLERANCE = 1e-4
"""Largest difference of a logit between torch and the float32 file that an export accepts."""


@dataclass(frozen=True, slots=True)
class Export:
    """An exported file.

    Attributes:
        path: The file.
        info: What it holds.
        max_difference: Largest absolute difference of a logit from torch's.
        agreement: Share of the probed images that both give the same label.
    """

    path: Path
    info: ModelInfo
    max_difference: float
    agreement: float


def export_onnx(
    checkpoint: str | Path, path: Path, probe: list[NDArray[np.uint8]] | None = None, half_size: bool = False
) -> Export:
    """Write a checkpoint as a float32 ONNX file, and prove parity.

    Args:
        checkpoint: A safetensors file or the folder of a run.
        path: The `.onnx` file to write.
        probe: Face crops both are compared on; by default 64 images of noise.
        half_size: Round the weights to float16, for half the bytes, after parity was proven. The file computes in float32; the
            difference of logits returned is that of the rounded file.

    Raises:
        CheckpointError: The checkpoint cannot be read.
        MienError: The written file's logits differ from torch's by more than 1e-4, or float16 does not hold a weight
            or changes a logit by more than 0.05 or the label of more than one image in fifty.
        OutputError: The file cannot be written.
    """
    backend = TorchBackend(checkpoint, device="cpu")
    info = replace(backend.info, precision="fp32", mien_version=mien.__version__)
    with atomic_path(path) as beside:
        _trace(backend.model, info, beside)
        _stamp(beside, info)
        difference, agreement = _compare(backend, beside, probe or _noise())
        if not difference <= TOLERANCE:  # nor is nan
            raise MienError(
                f"{path}: not written, its logits differ from torch's by {difference:.2g}; please report this model"
            )
        if half_size:
            _halve(beside, path)
            difference, agreement = _compare(backend, beside, probe or _noise())
            if not (agreement >= HALF_AGREES and difference <= HALF_TOLERANCE):  # nor is nan
                raise MienError(f"{path}: not written, float16 changes what it says; export it in full size")
    return Export(path, info, difference, agreement)


def _halve(path: Path, name: Path) -> None:
    """Round the float32 weights of an ONNX file to float16, in place; a `Cast` in the graph makes float32 of them again.

    ONNX Runtime casts once, when it opens the file. An error calls the file `name`.
    """
    model = onnx.load(str(path))
    graph, casts = model.graph, []
    for weights in graph.initializer:
        if weights.data_type != TensorProto.FLOAT or np.prod(weights.dims) < LARGE:
            continue
        values = numpy_helper.to_array(weights)
        if not np.abs(values).max() <= np.finfo(np.float16).max:  # nor is nan
            raise MienError(f"{name}: not written, {weights.name} does not fit float16; export it in full size")
        whole, half = weights.name, f"{weights.name}_half"
        weights.CopyFrom(numpy_helper.from_array(values.astype(np.float16), half))
        casts.append(helper.make_node("Cast", [half], [whole], f"{whole}_cast", to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, str(path))


def export_int8(checkpoint: str | Path, fp32: Path, path: Path, calibration: list[NDArray[np.uint8]]) -> Export:
    """Write an int8 version of an exported float32 file.

    Args:
        checkpoint: What `fp32` was exported from; the difference of logits is measured against it.
        fp32: The float32 file.
        path: The `.onnx` file to write.
        calibration: Face crops of the training split that set the ranges of activations.

    Raises:
        CheckpointError: A file cannot be read.
        OutputError: The file cannot be written.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    backend = TorchBackend(checkpoint, device="cpu")
    info = replace(backend.info, precision="int8", mien_version=mien.__version__, results={})  # those are of float32
    with atomic_path(path) as beside, tempfile.TemporaryDirectory() as folder, _no_remarks():
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(fp32), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(beside),
            _Calibration(calibration, info),
            quant_format=QuantFormat.QDQ,
            nodes_to_exclude=_narrow_convolutions(prepared),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        _stamp(beside, info)
        difference, agreement = _compare(backend, beside, calibration[:512])
    return Export(path, info, difference, agreement)


def write_card(export: Export, **facts: Any) -> Path:
    """Write the card of an exported file beside it: its digest, size, identity and measured figures.

    Args:
        export: The exported file.
        **facts: More entries, such as `parameters` and `results`.
    """
    info = export.info
    card = {
        "sha256": sha256(export.path),
        "bytes": export.path.stat().st_size,
        "arch": info.arch,
        "precision": info.precision,
        "classes": list(info.classes),
        "recipe": info.recipe.get("name", ""),
        "seed": info.recipe.get("seed"),
        "data_fingerprint": info.data_fingerprint,
        "commit": info.commit,
        "max_logit_difference_from_torch": export.max_difference,
        "labels_equal_to_torch": export.agreement,
        "results": info.results,
    } | facts
    path = card_path(export.path)
    with atomic_path(path) as beside:
        beside.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    return path


def calibration_crops(corpus: Corpus, split: str = "train", count: int = 1024) -> list[NDArray[np.uint8]]:
    """Return training images to calibrate on, drawn with a fixed seed.

    Raises:
        DataError: The corpus has no such split.
    """
    rows = corpus.where(split)
    chosen = np.random.default_rng(0).choice(rows, min(count, len(rows)), replace=False)
    return list(corpus.read(np.sort(chosen)))


class _Calibration:
    """Hands preprocessed batches to the quantizer, as its abstract `CalibrationDataReader` does."""

    def __init__(self, crops: list[NDArray[np.uint8]], info: ModelInfo) -> None:
        self.batches: Iterator[dict[str, NDArray[np.float32]]] = (
            {"image": preprocess(crops[i : i + 64], info.preprocess)} for i in range(0, len(crops), 64)
        )

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """Return the next batch, or None after the last."""
        return next(self.batches, None)


def _trace(model: Model, info: ModelInfo, path: Path) -> None:
    example = torch.zeros(2, info.preprocess.channels, *info.preprocess.size)
    batch = torch.export.Dim("batch", min=1)
    model = copy.deepcopy(model)
    model.simplify()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        torch.onnx.export(
            model,
            (example,),
            str(path),
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: batch},),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


@contextmanager
def _no_remarks() -> Iterator[None]:
    """Keep to itself what the quantiser remarks on every model, such as that a batch norm is not quantised per channel."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _narrow_convolutions(path: Path) -> list[str]:
    """Return the names of the convolutions with so few input channels that int8 makes them slower, not faster."""
    graph = onnx.load(str(path)).graph
    widths = {weights.name: weights.dims[1] for weights in graph.initializer if len(weights.dims) == 4}
    found = []
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1] in widths:
            groups = next((a.i for a in node.attribute if a.name == "group"), 1)
            if widths[node.input[1]] * groups <= NARROW:
                found.append(node.name)
    return found


def _stamp(path: Path, info: ModelInfo) -> None:
    model = onnx.load(str(path))
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]  # the exporter's stack traces: long, and full of this machine's paths
        part.doc_string = ""
    helper.set_model_props(model, {METADATA_KEY: info.to_json()})
    model.producer_name, model.producer_version = "mien", info.mien_version
    onnx.save(model, str(path))


def _compare(backend: TorchBackend, path: Path, crops: list[NDArray[np.uint8]]) -> tuple[float, float]:
    """Return the largest difference of a logit and the share of equal labels between torch and an ONNX file."""
    exported = OnnxBackend(path, providers=["CPUExecutionProvider"])
    batches = [preprocess(crops[i : i + COMPARED], backend.info.preprocess) for i in range(0, len(crops), COMPARED)]
    ours, theirs = (np.concatenate([each.logits(batch) for batch in batches]) for each in (backend, exported))
    return float(np.abs(ours - theirs).max()), float((ours.argmax(1) == theirs.argmax(1)).mean())


def _noise() -> list[NDArray[np.uint8]]:
    return list(np.random.default_rng(0).integers(0, 256, (64, 48, 48), dtype=np.uint8))
