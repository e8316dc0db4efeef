"""What a loaded model is to the rest of mien, and how one is opened."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from mien import weights
from mien.errors import CheckpointError
from mien.predict.ensemble import EnsembleBackend
from mien.predict.onnx_backend import OnnxBackend
from mien.preprocess import preprocess

if TYPE_CHECKING:
    from mien.model_info import ModelInfo


class Backend(Protocol):
    """A loaded network: what it is, and its logits for a batch."""

    @property
    def info(self) -> ModelInfo:
        """The network's classes, preprocessing and provenance."""
        ...

    @property
    def device(self) -> str:
        """What it runs on: `cpu`, or the name of the GPU."""
        ...

    def logits(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits, float32 (N, K), of preprocessed crops, float32 (N, C, h, w)."""
        ...


def open_backend(
    model: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    providers: str | Sequence[str] | None = None,
) -> OnnxBackend | EnsembleBackend:
    """Return a loaded model.

    Args:
        model: Name of a bundled model, `ensemble` for all of them together, path of an `.onnx` file, or `hf://user/model` (see
            `mien.weights.hub`); None takes the default model.
        threads: Threads of one run; None takes every core this process may use.
        providers: Execution providers, as `OnnxBackend` takes them.

    Raises:
        CheckpointError: The model is missing or damaged.
        InputError: The model does not run on one of `providers`.
        MissingExtraError: The installed ONNX Runtime does not have one of `providers`.
        UnknownNameError: The model is unknown.
    """
    if model is not None and os.fspath(model) in (weights.ENSEMBLE, str(weights.ensemble_file())):
        return EnsembleBackend(threads=threads, providers=providers)
    path = weights.default_weights() if model is None else weights.resolve(model)
    try:
        return OnnxBackend(path, threads, providers)
    except CheckpointError as error:
        if str(model).startswith(weights.HUB):  # the path in the cache does not say what the user asked for
            raise CheckpointError(f"{model}: {error}; to download it again, delete {path.parents[2]}") from None
        raise


def crop_logits(backend: Backend, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Return the logits, float32 (N, K), of ready face crops, prepared as the backend needs them.

    A backend that prepares crops in its own way has a method `crop_logits`, as the ensemble does.
    """
    own = getattr(backend, "crop_logits", None)
    return own(crops) if own is not None else backend.logits(preprocess(crops, backend.info.preprocess))
