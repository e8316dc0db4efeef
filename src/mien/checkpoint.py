"""Saving and loading checkpoints, which are safetensors files with the model's facts (`ModelInfo`) in their metadata."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mien.atomic import atomic_path
from mien.errors import CheckpointError, MienError, reason
from mien.model_info import DIGEST_KEY, METADATA_KEY, NO_DIGEST, ModelInfo, check_file_digest, write_digest
from mien.models import Model, create_model

LOSS_PREFIX = "loss."
"""Prefix of the loss's own parameters (class centers); a network is loaded without them."""


def save_checkpoint(path: str | os.PathLike[str], weights: dict[str, Tensor], info: ModelInfo) -> None:
    """Write weights with the facts of their model and a digest of both. The file is complete or not there at all.

    Raises:
        OutputError: The file cannot be written.
    """
    tensors, seen = dict[str, Tensor](), set[int]()
    for name, tensor in weights.items():
        dense = tensor.detach().cpu().contiguous()
        shared = dense.untyped_storage().data_ptr() in seen  # safetensors refuses tensors that share their memory
        tensors[name] = dense.clone() if shared else dense
        seen.add(dense.untyped_storage().data_ptr())
    with atomic_path(path) as tmp_path:
        try:
            save_file(tensors, tmp_path, metadata={METADATA_KEY: info.to_json(**{DIGEST_KEY: NO_DIGEST})})
            write_digest(tmp_path)
        except SafetensorError as error:  # a full disk, a read-only folder
            raise _os_error(error) from None


def save_state(path: str | os.PathLike[str], state: dict[str, Any]) -> None:
    """Write the state a run resumes from, tensors and simple values. The file is complete or not there at all.

    The state is written straight to the file. A copy in memory would need as much as weights, moving average and optimizer.

    Raises:
        OutputError: The file cannot be written.
    """
    with atomic_path(path) as tmp_path, tmp_path.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # torch wraps the error of a failed write
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def load_checkpoint(path: str | os.PathLike[str]) -> tuple[Model, ModelInfo]:
    """Return a trained network in evaluation mode, and its metadata (classes, preprocessing, recipe).

    Args:
        path: A safetensors file, or the folder of a run (its best epoch is loaded).

    Raises:
        CheckpointError: The file is missing, corrupt or of another format version, or its weights do not fit its architecture.
    """
    file = _weights_file(path)
    if not file.is_file():
        raise CheckpointError(
            f"{file}: no such checkpoint; pass a .safetensors file or the folder of a run that has finished an epoch"
        )
    has_digest = check_file_digest(file)
    try:
        with safe_open(file, framework="pt") as tensors:
            metadata = (tensors.metadata() or {}).get(METADATA_KEY)
            names = [name for name in tensors.keys() if not name.startswith(LOSS_PREFIX)]  # noqa: SIM118 (not a mapping)
            weights = {name: tensors.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise _not_safetensors(file, error) from None
    info = ModelInfo.from_json(metadata, str(file), has_digest)
    try:
        model = create_model(info.arch, num_classes=len(info.classes), **info.arguments)
    except (MienError, TypeError, ValueError, RuntimeError, MemoryError) as error:  # arguments that make no network
        raise CheckpointError(f"{file}: {error}") from None
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{file}: its weights do not fit {info.arch} ({str(error).splitlines()[-1].strip()})") from None
    return model.eval(), info


def read_info(path: str | os.PathLike[str]) -> ModelInfo | None:
    """Return the facts in a checkpoint, a run's best epoch or an exported file; None for weights that mien did not write.

    Raises:
        CheckpointError: The file is corrupt or of another format version.
    """
    file = _weights_file(path)
    if file.suffix not in (".safetensors", ".onnx"):
        return None
    has_digest = check_file_digest(file)
    try:
        if file.suffix == ".onnx":
            return ModelInfo.from_json(_onnx_metadata(file), str(file), has_digest)
        with safe_open(file, framework="pt") as tensors:
            metadata = (tensors.metadata() or {}).get(METADATA_KEY)
    except (SafetensorError, OSError) as error:
        raise _not_safetensors(file, error) from None
    return None if metadata is None else ModelInfo.from_json(metadata, str(file), has_digest)


def _onnx_metadata(file: Path) -> str | None:
    import onnx

    try:
        found = onnx.load(str(file), load_external_data=False).metadata_props
    except Exception as error:  # protobuf raises its own errors on damaged files
        raise CheckpointError(f"{file}: is corrupt or not an ONNX file ({reason(error)}); copy the file again") from None
    return next((entry.value for entry in found if entry.key == METADATA_KEY), None)


def _weights_file(path: str | os.PathLike[str]) -> Path:
    """Return the path itself if it is a file, or the best epoch of a run's folder."""
    return Path(path) / "best.safetensors" if Path(path).is_dir() else Path(path)


def _not_safetensors(file: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{file}: is not a safetensors file, or is corrupt ({error}); check the path, or copy the file again"
    )


def _os_error(error: SafetensorError) -> OSError:
    """Return the system error inside one of safetensors, such as a full disk, as an `OSError`."""
    number = re.search(r"os error (\d+)", str(error))
    return OSError(str(error)) if number is None else OSError(int(number[1]), os.strerror(int(number[1])))
