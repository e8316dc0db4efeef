"""The bundled models: `.onnx` files, each with a card (`.json`) that has its SHA-256."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mien.errors import CheckpointError, UnknownNameError
from mien.registry import nearest

if TYPE_CHECKING:
    from mien.model_info import ModelInfo

FOLDER = Path(__file__).parent
"""The folder of the bundled models."""

DEFAULT = "dlib_resnet-fer2013-small"
"""The model that recognition uses by default."""

ENSEMBLE = "ensemble"
"""Name of the ensemble of bundled models, see `mien.predict.ensemble`."""


HUB = "hf://"
"""What the address of a model on the Hugging Face Hub begins with, see `mien.weights.hub`."""


def bundled() -> dict[str, Path]:
    """Return the `.onnx` file of each bundled model, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.onnx"))}


def is_named(model: str) -> bool:
    """Return whether this is the name of a bundled model or an address on the Hub, and so not a path."""
    return model in bundled() or model.startswith(HUB)


def files() -> dict[str, Path]:
    """Return the file of each bundled model by name, the default first, and of the ensemble, if it is there."""
    names = sorted(bundled().items(), key=lambda item: item[0] != DEFAULT)
    return dict(names) | ({ENSEMBLE: ensemble_file()} if ensemble_file().is_file() else {})


def ensemble_file() -> Path:
    """Return the file that names the members of the ensemble."""
    return FOLDER / f"{ENSEMBLE}.json"


def default_weights() -> Path:
    """Return the file of the default model, after checking its SHA-256.

    Raises:
        CheckpointError: It is missing or corrupt.
    """
    if DEFAULT not in bundled():
        raise CheckpointError(
            f"the bundled model {DEFAULT} is missing from this install; run: pip install --force-reinstall mien"
        )
    return resolve(DEFAULT)


def resolve(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the `.onnx` file of a bundled model, whose SHA-256 is checked, of a path, or of an address on the Hub.

    The ensemble is no single file; `mien.predict.open_backend` opens it.

    Raises:
        CheckpointError: The file is missing, is corrupt, cannot be downloaded or is a training checkpoint.
        UnknownNameError: It is neither a bundled model nor a file; the message lists similar names.
    """
    name, path = os.fspath(name_or_path), Path(name_or_path)
    models = bundled()
    if name.startswith(HUB):
        from mien.weights.hub import download

        return download(name)
    if name in models:
        verify(models[name])
        return models[name]
    if name == ENSEMBLE:
        raise CheckpointError(f"the ensemble is several models, not one file; here, choose one of {', '.join(models)}")
    if path.suffix == ".safetensors":
        raise CheckpointError(f"{path}: is a training checkpoint; turn it into an .onnx file with: mien export {path}")
    if path.suffix == ".onnx" or path.is_file():
        if not path.is_file():
            raise CheckpointError(f"{path}: no such model file")
        return path
    raise UnknownNameError(f"unknown model {name!r}{nearest(name, [*models, ENSEMBLE])}; or give the path of an .onnx file")


def model_file(name_or_path: str | os.PathLike[str]) -> Path:
    """Return what `resolve` returns, or the file of the ensemble.

    Raises:
        CheckpointError: The file is missing, is corrupt or is a training checkpoint.
        UnknownNameError: It is neither a bundled model, nor the ensemble, nor a file.
    """
    return ensemble_file() if os.fspath(name_or_path) == ENSEMBLE else resolve(name_or_path)


def card_path(model: Path) -> Path:
    """Return the path of an `.onnx` file's card, which may not exist."""
    return model.with_suffix(".json")


def read_card(model: Path) -> dict[str, Any]:
    """Return an `.onnx` file's card; empty if it has none.

    Raises:
        CheckpointError: The card is corrupt.
    """
    path = card_path(model)
    if not path.is_file():
        return {}
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        card = None
    if not isinstance(card, dict):
        raise CheckpointError(f"{path}: this model card is corrupt; install or export the model again")
    return card


def check_card(model: Path, content: bytes, info: ModelInfo) -> None:
    """Check that the card next to an `.onnx` file, if there is one, describes this file.

    Raises:
        CheckpointError: The card is corrupt or describes another file; names what differs.
    """
    card = read_card(model)
    if "sha256" not in card:  # none, or a file of something else
        return
    stored = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "arch": info.arch,
        "precision": info.precision,
        "classes": list(info.classes),
    }
    if differing := [key for key, value in stored.items() if card.get(key, value) != value]:
        raise CheckpointError(
            f"{model}: is not the file that its card {card_path(model).name} describes ({', '.join(differing)} differ); "
            "copy both again, or delete the card"
        )


def known_sha256(model: Path) -> list[str]:
    """Return the SHA-256 of an `.onnx` file and of earlier files with the same network, whose metadata alone was rewritten."""
    return [sha256(model), *read_card(model).get("former_sha256", [])]


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(model: Path) -> None:
    """Check an `.onnx` file against the SHA-256 on its card.

    Raises:
        CheckpointError: There is no card, or the file is not the one it describes.
    """
    expected = read_card(model).get("sha256")
    if expected is None:
        raise CheckpointError(f"{model}: has no card with its SHA-256; run: pip install --force-reinstall mien")
    if sha256(model) != expected:
        raise CheckpointError(
            f"{model}: is corrupt (its SHA-256 is not the one on its card); run: pip install --force-reinstall mien"
        )
