"""The weights of MTCNN's three networks, out of the installed `mtcnn` wheel (MIT licence, Iván de Paz Centeno).

They are joblib pickles, and a pickle can run code: nothing is unpickled before the SHA-256 of every byte of it is the known
one. The `mtcnn` package is located but never imported, because importing it needs TensorFlow.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
from pathlib import Path

import joblib
import numpy as np
from numpy.typing import NDArray

from mien.errors import CheckpointError

SHA256: dict[str, str] = {
    "pnet": "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5",
    "rnet": "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee",
    "onet": "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3",
}
"""SHA-256 of each network's weights file in mtcnn 1.0."""

LAYERS: dict[str, tuple[str, ...]] = {
    "pnet": ("conv1", "conv2", "conv3", "box", "logits"),
    "rnet": ("conv1", "conv2", "conv3", "dense", "box", "logits"),
    "onet": ("conv1", "conv2", "conv3", "conv4", "dense", "box", "landmarks", "logits"),
}
"""Layers in the order of the file; each has a weight and a bias, all but the last two or three (the outputs) a PReLU slope."""

ADVICE = "; run: pip install --force-reinstall 'mtcnn==1.0.*'"


def weights_folder() -> Path:
    """Return the folder of the installed `mtcnn` wheel that holds the weights.

    Raises:
        CheckpointError: The wheel is not installed.
    """
    spec = importlib.util.find_spec("mtcnn")
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointError(f"the face detector's weights come in the package mtcnn, which is not installed{ADVICE}")
    return Path(spec.submodule_search_locations[0]) / "assets" / "weights"


def load_weights(network: str, folder: Path | None = None) -> dict[str, NDArray[np.float32]]:
    """Return the weights of `"pnet"`, `"rnet"` or `"onet"` by their names in the ONNX graph.

    Convolutions come as (out, in, rows, columns), dense layers as (in, out), slopes of PReLU as (channels, 1, 1) or (width,).

    Args:
        network: One of the three.
        folder: Where the `.lz4` files lie; the installed wheel if None.

    Raises:
        CheckpointError: The file is missing, unreadable or not the known one.
    """
    arrays = iter(joblib.load(io.BytesIO(_checked(network, folder or weights_folder()))))
    weights = {}
    for layer in LAYERS[network]:
        weight, weights[f"{layer}.bias"] = next(arrays), next(arrays)
        weights[f"{layer}.weight"] = weight.transpose(3, 2, 0, 1) if weight.ndim == 4 else weight
        if layer.startswith(("conv", "dense")):
            slope = next(arrays)
            weights[f"{layer}.slope"] = slope.reshape(-1, 1, 1) if slope.ndim == 3 else slope
    return {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in weights.items()}


def _checked(network: str, folder: Path) -> bytes:
    """Return a weights file's bytes once their hash is the known one."""
    path = folder / f"{network}.lz4"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read the face detector's weights ({error.strerror}){ADVICE}") from None
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256[network]:
        raise CheckpointError(
            f"{path}: damaged or of another version (SHA-256 {found[:16]}, not {SHA256[network][:16]}){ADVICE}"
        )
    return data
