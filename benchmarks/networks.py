"""The networks that benchmarks run: the bundled pair, given files, or a pair with random weights if none is bundled.

Speed does not depend on the values of the weights, so random ones serve as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mien import weights
from mien.checkpoint import save_checkpoint
from mien.labels import label_set
from mien.model_info import ModelInfo
from mien.models import create_model
from mien.predict.onnx_backend import OnnxBackend
from mien.recipe import load_recipe


@dataclass(frozen=True)
class Pair:
    """The same network in both precisions, and where its weights come from."""

    fp32: Path
    int8: Path
    origin: str


def find_pair(fp32: str | None, int8: str | None, folder: Path) -> Pair:
    """Return the named pair, else the bundled one, else one with random weights written into `folder`."""
    names = (fp32 or weights.DEFAULT, int8 or f"{fp32 or weights.DEFAULT}-int8")
    if fp32 or int8 or all(name in weights.bundled() for name in names):
        return Pair(weights.resolve(names[0]), weights.resolve(names[1]), f"{names[0]} and {names[1]}")
    return random_pair(folder)


def random_pair(folder: Path) -> Pair:
    """Write a sa_csp_ca with random weights as a checkpoint and export it in both precisions."""
    from mien.engine.export import export_int8, export_onnx

    recipe = load_recipe("sa_csp_ca/fer2013")
    info = ModelInfo(
        recipe.model.name, recipe.model.arguments, label_set("fer2013"), "fer2013", recipe.preprocess.spec(), mien_version="0"
    )
    checkpoint = random_checkpoint(info, folder)
    pair = Pair(folder / "random.onnx", folder / "random-int8.onnx", "random weights")
    export_onnx(checkpoint, pair.fp32)
    export_int8(checkpoint, pair.fp32, pair.int8, grey_crops(256))
    return pair


def random_checkpoint(info: ModelInfo, folder: Path) -> Path:
    """Write a checkpoint of the same architecture with random weights."""
    torch.manual_seed(0)
    path = folder / "random.safetensors"
    model = create_model(info.arch, num_classes=len(info.classes), **info.arguments)
    save_checkpoint(path, model.state_dict(), info)
    return path


def checkpoint_for(pair: Pair, folder: Path) -> Path:
    """Return a checkpoint of the pair's architecture for torch to run."""
    return random_checkpoint(OnnxBackend(pair.fp32, threads=1).info, folder)


def grey_crops(number: int, side: int = 48) -> list[NDArray[np.uint8]]:
    """Return noise as face crops, uint8 (side, side)."""
    return list(np.random.default_rng(0).integers(0, 256, (number, side, side), dtype=np.uint8))
