"""Calibration of a model file: its probabilities are fitted on the selection split, and the file is written again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file

from mien.calibration import calibrated_probs, class_bias, fit_calibration
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
        before: What `mien.metrics.classification_report` measures on the selection split without calibration.
        after: The same with it.
    """

    values: dict[str, Any]
    before: dict[str, Any]
    after: dict[str, Any]


def calibrate(
    path: Path, corpus: Corpus, on_step: Callable[[int, int], None] | None = None, *, balance: float = 0.0
) -> Calibration:
    """Fit the calibration of an `.onnx` or `.safetensors` file on the selection split, and store it in the file.

    The network stays as it is, and without `balance` the labels too. The card of an `.onnx` file is written again.

    Args:
        path: The model file.
        corpus: The data that the model was trained on.
        on_step: Called with the number of images done and the number of images in total.
        balance: How far to correct for uneven classes of the training split, 0 to 1 (see `mien.calibration.class_bias`).

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
    bias = class_bias(frequencies(info, corpus), balance) if balance else None
    values = fit_calibration(logits, target, bias) | {
        "split": split,
        "images": len(target),
    }
    probs = (calibrated_probs(logits, each) for each in ({}, values))
    before, after = (classification_report(each, target, corpus.classes) for each in probs)
    info = replace(info, calibration=values)
    if path.suffix == ".onnx":
        restamp(path, info)
    else:
        weights = {name: tensor.clone() for name, tensor in load_file(path).items()}  # Windows replaces no file that is mapped
        save_checkpoint(path, weights, info)
    return Calibration(values, before, after)


def frequencies(info: ModelInfo, corpus: Corpus) -> NDArray[np.float64]:
    """Return how often the training of a model drew each class, (K,), up to a factor."""
    part = info.recipe["data"]
    counts = np.bincount(corpus.target[corpus.where(part["train"])], minlength=len(corpus.classes))
    power = {"natural": 1.0, "weighted": 0.5, "balanced": 0.0}[part.get("sampling", "natural")]
    return counts.astype(np.float64) ** power


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
