"""Calibration of a model file: its probabilities are fitted on the selection split, and the file is written again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from mien.calibration import calibrated_probs, fit_calibration
from mien.checkpoint import save_checkpoint
from mien.datasets import Corpus
from mien.engine.export import restamp
from mien.engine.torch_backend import TorchBackend
from mien.errors import DataError
from mien.evaluate import predict_split
from mien.metrics import classification_report
from mien.model_info import ModelInfo
from mien.predict.onnx_backend import OnnxBackend


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was stored in a model file.

    Attributes:
        values: The new `calibration` of the file.
        ece: Expected calibration error on the selection split, without calibration and with it.
    """

    values: dict[str, Any]
    ece: tuple[float, float]


def calibrate(path: Path, corpus: Corpus, on_step: Callable[[int, int], None] | None = None) -> Calibration:
    """Fit the calibration of an `.onnx` or `.safetensors` file on the selection split, and store it in the file.

    The logits stay as they are, and so do the labels. The card of an `.onnx` file is written again too.

    Args:
        path: The model file.
        corpus: The data that the model was trained on.
        on_step: Called with the number of images done and the number of images in total.

    Raises:
        DataError: It is not the data that the model was trained on, has no selection split, or too few images in it.
        LabelError: The network and the corpus differ in their classes.
        CheckpointError: The file cannot be read.
        OutputError: The file cannot be written.
    """
    backend = OnnxBackend(path) if path.suffix == ".onnx" else TorchBackend(path)
    info, split = backend.info, _selection_split(backend.info, corpus)
    backend.info = replace(info, calibration={})
    logits = np.log(np.maximum(predict_split(backend, corpus, split, on_step), 1e-30))  # but for a constant of each image
    target = corpus.target[corpus.where(split)]
    values = fit_calibration(logits, target) | {"split": split, "images": len(target)}
    probs = (calibrated_probs(logits, each) for each in ({}, values))
    before, after = (classification_report(each, target, corpus.classes)["ece"] for each in probs)
    info = replace(info, calibration=values)
    if path.suffix == ".onnx":
        restamp(path, info)
    else:
        weights = {name: tensor.clone() for name, tensor in load_file(path).items()}  # Windows replaces no file that is mapped
        save_checkpoint(path, weights, info)
    return Calibration(values, (before, after))


def _selection_split(info: ModelInfo, corpus: Corpus) -> str:
    split = info.recipe.get("data", {}).get("select")
    if split is None:
        raise DataError(
            "this model was trained without a selection split (data.select), so there is nothing to calibrate it on; train it "
            "with one"
        )
    if corpus.fingerprint != info.data_fingerprint or corpus.split_fingerprint != info.split_fingerprint:
        raise DataError(
            f"this copy of {corpus.name} is not the data that trained the model, which may have seen these images of {split}; "
            "give the same data and protocol"
        )
    return str(split)
