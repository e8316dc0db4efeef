"""Weights on disk: a safetensors file whose metadata says what they are (`mien.model_info.ModelInfo`)."""

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
from mien.errors import CheckpointError, MienError
from mien.model_info import METADATA_KEY, ModelInfo
from mien.models import Model, create_model

LOSS = "loss."
"""What the names of a loss's own parameters (class centers) begin with; a network is loaded without them."""


def save_checkpoint(path: str | os.PathLike[str], weights: dict[str, Tensor], info: ModelInfo) -> None:
    """Write weights and what they are; the file appears whole or not at all.

    Raises:
        OutputError: The file cannot be written.
    """
    tensors, seen = dict[str, Tensor](), set[int]()
    for name, tensor in weights.items():
        plain = tensor.detach().cpu().contiguous()
        shared = plain.untyped_storage().data_ptr() in seen  # a safetensors file holds no tensor twice
        tensors[name] = plain.clone() if shared else plain
        seen.add(plain.untyped_storage().data_ptr())
    with atomic_path(path) as beside:
        try:
            save_file(tensors, beside, metadata={METADATA_KEY: info.to_json()})
        except SafetensorError as error:  # a full disk, a read-only folder
            raise _os_error(error) from None


def save_state(path: str | os.PathLike[str], state: dict[str, Any]) -> None:
    """Write what a run needs to go on, tensors and plain values; the file appears whole or not at all.

    It goes straight to the file: a copy in memory would be as large as weights, average and optimiser together.

    Raises:
        OutputError: The file cannot be written.
    """
    with atomic_path(path) as beside, beside.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # torch's of a write that failed
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def load_checkpoint(path: str | os.PathLike[str]) -> tuple[Model, ModelInfo]:
    """Return a network in evaluation mode with its weights, and what it is.

    Args:
        path: A safetensors file, or the folder of a run (its best epoch is taken).

    Raises:
        CheckpointError: Missing, damaged, of another format version, or of another architecture than it says.
    """
    file = _weights_file(path)
    if not file.is_file():
        raise CheckpointError(
            f"{file}: no such checkpoint; pass a .safetensors file or the folder of a run that has finished an epoch"
        )
    try:
        with safe_open(file, framework="pt") as tensors:
            metadata = (tensors.metadata() or {}).get(METADATA_KEY)
            names = [name for name in tensors.keys() if not name.startswith(LOSS)]  # noqa: SIM118 (not a mapping)
            weights = {name: tensors.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: is not a safetensors file or is damaged ({error})") from None
    info = ModelInfo.from_json(metadata, str(file))
    try:
        model = create_model(info.arch, num_classes=len(info.classes), **info.arguments)
    except (MienError, TypeError) as error:  # TypeError: an argument that is given already
        raise CheckpointError(f"{file}: {error}") from None
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{file}: its weights do not fit {info.arch} ({str(error).splitlines()[-1].strip()})") from None
    return model.eval(), info


def read_info(path: str | os.PathLike[str]) -> ModelInfo | None:
    """Return what a file of weights, or a run's best epoch, says of itself; None of one that mien did not write.

    Raises:
        CheckpointError: It is of another format version.
    """
    file = _weights_file(path)
    if file.suffix != ".safetensors":
        return None
    with safe_open(file, framework="pt") as tensors:
        metadata = (tensors.metadata() or {}).get(METADATA_KEY)
    return None if metadata is None else ModelInfo.from_json(metadata, str(file))


def _weights_file(path: str | os.PathLike[str]) -> Path:
    """Return a file of weights as it is, of a run's folder its best epoch."""
    return Path(path) / "best.safetensors" if Path(path).is_dir() else Path(path)


def _os_error(error: SafetensorError) -> OSError:
    """Return what the system said, such as that the disk is full, as Python says it."""
    number = re.search(r"os error (\d+)", str(error))
    return OSError(str(error)) if number is None else OSError(int(number[1]), os.strerror(int(number[1])))
