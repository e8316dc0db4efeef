"""Export of a checkpoint to ONNX, in float32 and in int8, with the model's facts in the file and its logits checked.

Int8 is ONNX Runtime's static quantisation (QDQ, unsigned activations, signed weights per channel), calibrated on images of the
training split.
"""

from __future__ import annotations

import copy
import json
import logging
import shutil
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
from mien.model_info import DIGEST_KEY, METADATA_KEY, NO_DIGEST, ModelInfo, write_digest
from mien.models import Model
from mien.predict.onnx_backend import OnnxBackend
from mien.preprocess import preprocess
from mien.weights import card_path, read_card, sha256

OPSET = 18
MAX_NARROW_CHANNELS = 8
"""Convolutions with at most this many input channels stay in float32 in an int8 file, because int8 makes them slower."""

MIN_HALF_SIZE = 256
"""Smallest weight that is rounded to float16, in numbers; for less, the extra `Cast` node is not worth it."""

TOLERANCE = 1e-4
"""Largest accepted difference of a logit between torch and the float32 file."""

HALF_TOLERANCE = 0.05
"""Largest accepted difference of a logit between torch and a half-size file; of a probability, it is 0.025."""

HALF_AGREEMENT = 0.98
"""Smallest accepted share of images to which torch and a half-size file give the same label."""

BATCH = 64
"""Images per batch when torch and an exported file are compared."""


@dataclass(frozen=True, slots=True)
class Export:
    """An exported file.

    Attributes:
        path: The file.
        info: The facts stored in it.
        max_difference: Largest absolute difference of a logit from torch.
        agreement: Share of the compared images to which both give the same label.
    """

    path: Path
    info: ModelInfo
    max_difference: float
    agreement: float


def export_onnx(
    checkpoint: str | Path, path: Path, probe: list[NDArray[np.uint8]] | None = None, half_size: bool = False
) -> Export:
    """Write a checkpoint as a float32 ONNX file, after checking that its logits equal those of torch.

    Args:
        checkpoint: A safetensors file or the folder of a run.
        path: The `.onnx` file to write. An older card next to it is deleted.
        probe: Face crops to compare the logits on; by default 64 images of noise.
        half_size: Store the weights in float16, which halves the file. It still computes in float32. The returned difference of
            logits includes the rounding.

    Raises:
        CheckpointError: The checkpoint cannot be read.
        MienError: A logit differs from torch by more than 1e-4. With `half_size`: a weight does not fit float16, a logit
            differs by more than 0.05, or more than one label in fifty changes.
        OutputError: The file cannot be written.
    """
    backend = TorchBackend(checkpoint, device="cpu")
    info = replace(backend.info, precision="fp32", mien_version=mien.__version__)
    probe = probe or list(np.random.default_rng(0).integers(0, 256, (64, 48, 48), dtype=np.uint8))
    with atomic_path(path) as tmp_path:
        _trace(backend.model, info, tmp_path)
        store_info(tmp_path, info)
        difference, agreement = _compare(backend, tmp_path, probe)
        if not difference <= TOLERANCE:  # also refuses nan
            raise MienError(f"{path}: not written, its logits differ from torch by {difference:.2g}; please report this model")
        if half_size:
            _halve(tmp_path, path)
            store_info(tmp_path, info)
            difference, agreement = _compare(backend, tmp_path, probe)
            if not (agreement >= HALF_AGREEMENT and difference <= HALF_TOLERANCE):  # also refuses nan
                raise MienError(f"{path}: not written, float16 changes its predictions; export it without --half-size")
        card_path(path).unlink(missing_ok=True)  # it describes the file that is replaced
    return Export(path, info, difference, agreement)


def _halve(path: Path, name: Path) -> None:
    """Round the float32 weights of an ONNX file to float16, in place. `name` is the file's final name, for the error.

    A `Cast` node turns each weight back to float32; ONNX Runtime runs it once, when it opens the file.
    """
    model = onnx.load(str(path))
    graph, casts = model.graph, []
    for weights in graph.initializer:
        if weights.data_type != TensorProto.FLOAT or np.prod(weights.dims) < MIN_HALF_SIZE:
            continue
        values = numpy_helper.to_array(weights)
        if not np.abs(values).max() <= np.finfo(np.float16).max:  # also refuses nan
            raise MienError(f"{name}: not written, {weights.name} does not fit float16; export it without --half-size")
        full, half = weights.name, f"{weights.name}_half"
        weights.CopyFrom(numpy_helper.from_array(values.astype(np.float16), half))
        casts.append(helper.make_node("Cast", [half], [full], f"{full}_cast", to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, str(path))


def _widen_weights(half: Path, path: Path) -> None:
    """Write a file of half the size with float32 weights; ONNX Runtime before 1.31 quantises no weights behind a cast."""
    model = onnx.load(str(half))
    halves = {weights.name: weights for weights in model.graph.initializer if weights.data_type == TensorProto.FLOAT16}
    for node in [node for node in model.graph.node if node.op_type == "Cast" and node.input[0] in halves]:
        weights = halves[node.input[0]]
        weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights).astype(np.float32), node.output[0]))
        model.graph.node.remove(node)
    onnx.save(model, str(path))


def export_int8(checkpoint: str | Path, fp32: Path, path: Path, calibration: list[NDArray[np.uint8]]) -> Export:
    """Write an int8 version of an exported float32 file.

    Args:
        checkpoint: The checkpoint of `fp32`; the logits are compared with it.
        fp32: The float32 file.
        path: The `.onnx` file to write. An older card next to it is deleted.
        calibration: Face crops of the training split, which set the ranges of the activations.

    Raises:
        CheckpointError: A file cannot be read.
        OutputError: The file cannot be written.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    backend = TorchBackend(checkpoint, device="cpu")
    info = replace(backend.info, precision="int8", mien_version=mien.__version__, results={})  # they were measured in float32
    with atomic_path(path) as tmp_path, tempfile.TemporaryDirectory() as folder, _silent_quantiser():
        whole, prepared = Path(folder) / "whole.onnx", Path(folder) / "prepared.onnx"
        _widen_weights(fp32, whole)
        quant_pre_process(str(whole), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(tmp_path),
            _Calibration(calibration, info),
            quant_format=QuantFormat.QDQ,
            nodes_to_exclude=_narrow_convolutions(prepared),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        store_info(tmp_path, info)
        difference, agreement = _compare(backend, tmp_path, calibration[:512])
        card_path(path).unlink(missing_ok=True)  # it describes the file that is replaced
    return Export(path, info, difference, agreement)


def store_info(path: Path, info: ModelInfo) -> None:
    """Store the model's facts and a new digest in an ONNX file, in place, and remove what exporters leave in it.

    Whatever changes the facts or the network of a file must call this, or mien will refuse the file. Its card has to be
    written again too (`write_card`).
    """
    model = onnx.load(str(path))
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]  # stack traces of the exporter: long, and full of local paths
        part.doc_string = ""
    helper.set_model_props(model, {METADATA_KEY: info.to_json(), DIGEST_KEY: NO_DIGEST})
    model.producer_name, model.producer_version = "mien", info.mien_version
    onnx.save(model, str(path))
    write_digest(path)


def write_card(export: Export, **facts: Any) -> Path:
    """Write the card of an exported file next to it: its digest, size, provenance and results; return its path.

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
    return _write_json(card_path(export.path), card)


def _write_json(path: Path, values: dict[str, Any]) -> Path:
    with atomic_path(path) as tmp_path:
        tmp_path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return path


def restamp(path: Path, info: ModelInfo) -> None:
    """Store other facts in an exported file, with a new digest and a new card. The network stays the same.

    The card keeps the SHA-256 of the file as it was, so that results measured with it still belong to the file: unless its
    answers change with another preprocessing or another bias of the classes.

    Raises:
        OutputError: The file cannot be written.
    """
    card, before = read_card(path), sha256(path)
    old = OnnxBackend(path).info
    same = old.preprocess == info.preprocess and old.calibration.get("bias") == info.calibration.get("bias")
    with atomic_path(path) as tmp_path:
        shutil.copyfile(path, tmp_path)
        store_info(tmp_path, info)
        card_path(path).unlink(missing_ok=True)  # it describes the file that is replaced
    if card and (now := sha256(path)) != before:
        former = [each for each in (*card.get("former_sha256", []), before) if each != now] if same else []
        card |= {"sha256": now, "bytes": path.stat().st_size, "recipe": info.recipe.get("name", ""), "former_sha256": former}
    if card:
        _write_json(card_path(path), card)


def calibration_crops(corpus: Corpus, split: str = "train", count: int = 1024) -> list[NDArray[np.uint8]]:
    """Return images of a split to calibrate on, drawn with a fixed seed.

    Raises:
        DataError: The corpus has no such split.
    """
    rows = corpus.where(split)
    chosen = np.random.default_rng(0).choice(rows, min(count, len(rows)), replace=False)
    return list(corpus.read(np.sort(chosen)))


class _Calibration:
    """Preprocessed batches for the quantiser (its `CalibrationDataReader` interface)."""

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
        warnings.simplefilter("ignore")  # deprecations in the exporter's own code
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
def _silent_quantiser() -> Iterator[None]:
    """Hide the warnings that the quantiser logs for every model, such as that batch norms are not quantised per channel."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _narrow_convolutions(path: Path) -> list[str]:
    """Return the names of the convolutions with at most `MAX_NARROW_CHANNELS` input channels."""
    graph = onnx.load(str(path)).graph
    widths = {weights.name: weights.dims[1] for weights in graph.initializer if len(weights.dims) == 4}
    found = []
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1] in widths:
            groups = next((a.i for a in node.attribute if a.name == "group"), 1)
            if widths[node.input[1]] * groups <= MAX_NARROW_CHANNELS:
                found.append(node.name)
    return found


def _compare(backend: TorchBackend, path: Path, crops: list[NDArray[np.uint8]]) -> tuple[float, float]:
    """Return the largest difference of a logit, and the share of equal labels, between torch and an ONNX file."""
    exported = OnnxBackend(path, providers=["CPUExecutionProvider"])
    batches = [preprocess(crops[i : i + BATCH], backend.info.preprocess) for i in range(0, len(crops), BATCH)]
    expected, logits = (np.concatenate([each.logits(batch) for batch in batches]) for each in (backend, exported))
    return float(np.abs(expected - logits).max()), float((expected.argmax(1) == logits.argmax(1)).mean())
