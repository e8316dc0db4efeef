"""`ModelInfo`, the facts that are stored with weights, and the digest that protects both.

Label order and preprocessing are properties of a model. Stored with it, they cannot differ from those it was trained with.
The digest covers every byte of the file, so a bit that flips in a weight is noticed before the file is used.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import unicodedata
from dataclasses import asdict, dataclass, field
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from mien.calibration import BOUNDS, MAX_BIAS
from mien.errors import CheckpointError, reason
from mien.labels import nfc
from mien.preprocess import PreprocessSpec
from mien.text import printable

FORMAT = 1
"""Version of the stored format; other versions are refused."""

METADATA_KEY = "mien"
"""Key under which safetensors and ONNX files hold the JSON."""

PRECISIONS = ("fp32", "int8")
"""What the networks of files compute in."""

DIGEST_KEY = "mien_digest"
"""Key of the digest: a second key in ONNX files. safetensors does not keep the order of keys, so there it is in the JSON."""

NO_DIGEST = "0" * 64
"""Value of the digest while it is computed."""

_DIGEST = re.compile(DIGEST_KEY.encode() + rb'(?:\x12@|\\": \\")([0-9a-f]{64})(?![0-9a-f])')
"""The digest as ONNX files (protobuf) and safetensors files (JSON within JSON) contain it."""

_TEXTS = ("arch", "label_set", "precision", "data_fingerprint", "split_fingerprint", "commit", "mien_version")
_KINDS = dict.fromkeys(_TEXTS, str) | dict.fromkeys(("arguments", "recipe", "results", "calibration"), dict)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Identity and provenance of a set of weights.

    Attributes:
        arch: Registered name of the architecture.
        arguments: Arguments the architecture was built with, except `num_classes`.
        classes: The classes, by output index.
        label_set: Name of the corpus whose labels the classes are.
        preprocess: What happens to a face crop before the network.
        precision: `"fp32"` or `"int8"`.
        recipe: The recipe that trained it, as JSON types; empty if unknown.
        data_fingerprint: Fingerprint of the corpus it was trained on; empty if unknown.
        split_fingerprint: Digest of which image was in which split; empty if unknown.
        commit: Commit of the code that trained it; empty if unknown.
        mien_version: Version of mien that wrote the file.
        results: Measured figures by split, such as `{"public_test": {"accuracy": 0.71}}`.
        calibration: How logits become calibrated probabilities, as `mien.calibration.fit_calibration` returns it, and the
            `split` and number of `images` it was fitted on; empty if it was not.

    Raises:
        CheckpointError: `calibration` has an unknown key, a value out of range, or another number of classes.
    """

    arch: str
    arguments: dict[str, Any]
    classes: tuple[str, ...]
    label_set: str
    preprocess: PreprocessSpec
    precision: str = "fp32"
    recipe: dict[str, Any] = field(default_factory=dict)
    data_fingerprint: str = ""
    split_fingerprint: str = ""
    commit: str = ""
    mien_version: str = ""
    results: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_calibration(self.calibration)
        if len(self.calibration.get("bias", self.classes)) != len(self.classes):
            raise CheckpointError(f"calibration.bias must have {len(self.classes)} numbers, one for each class")

    def to_json(self, **more: str) -> str:
        """Return the facts as they are stored, with more entries."""
        return json.dumps({"format": FORMAT, **asdict(self), **more}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | None, source: str, has_digest: bool = True) -> ModelInfo:
        """Return what `to_json` wrote.

        Args:
            text: The stored facts; None if a file has none.
            source: The file, for error messages.
            has_digest: Whether the file has a digest, see `check_digest`. If it has none, a note is logged.

        Raises:
            CheckpointError: The facts are missing, corrupt or of another format version, or the digest was removed.
        """
        if text is None:
            raise CheckpointError(f"{source}: has no mien metadata; write it with `mien train` or `mien export`")
        try:
            values = json.loads(text)
            json.dumps(values, ensure_ascii=False).encode()  # refuses half characters, which no file can hold
            version = values.pop("format")
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
            raise CheckpointError(f"{source}: its mien metadata is corrupt; train or export it again") from None
        if version != FORMAT:
            raise CheckpointError(
                f"{source}: was written in format {version}, this version of mien reads format {FORMAT}; "
                + ("upgrade with pip install -U mien" if isinstance(version, int) and version > FORMAT else "export it again")
            )
        try:
            if not has_digest and "calibration" in values:  # both came in the same version
                raise CheckpointError("its digest was removed; copy the file again, or export it again")
            values.pop(DIGEST_KEY, None)
            values["classes"] = _checked_classes(values["classes"])
            values["preprocess"] = PreprocessSpec.from_dict(values["preprocess"])
            info = cls(**values)
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{source}: its mien metadata has a missing or unknown field ({error})") from None
        except CheckpointError as error:
            raise CheckpointError(f"{source}: {error}") from None
        found = {key: (getattr(info, key), kind) for key, kind in _KINDS.items()}
        if isinstance(info.recipe, dict):
            found["recipe.data"] = (info.recipe.get("data", {}), dict)
        for key, (value, kind) in found.items():
            if not isinstance(value, kind):
                raise CheckpointError(
                    f"{source}: {key} in its mien metadata is not a {kind.__name__}; train or export it again"
                )
        if info.precision not in PRECISIONS:
            raise CheckpointError(f"{source}: its precision {info.precision!r} is not one of {', '.join(PRECISIONS)}")
        if not has_digest:
            logging.getLogger("mien").warning(
                "note: %s has no digest, so damage to it may go unnoticed; train or export it again to add one",
                printable(source),
            )
        return info


def check_calibration(values: Any) -> None:
    """Check the calibration of a model.

    Raises:
        CheckpointError: It is not a dictionary, has an unknown key, or a value is out of range.
    """
    if not isinstance(values, dict):
        raise CheckpointError(f"calibration must be a dictionary, got {type(values).__name__}; calibrate the model again")
    for key, value in values.items():
        if key == "set_limits" and isinstance(value, dict):
            numbers = {f"{key}.{name}": (each, 0.0, 1.0) for name, each in value.items()}
            if not all(re.fullmatch(r"0\.\d+", name) for name in value):
                raise CheckpointError(f"calibration.set_limits has coverages from 0 to 1 such as 0.9, got {', '.join(value)}")
        elif key == "bias" and isinstance(value, list):
            numbers = {f"{key}[{i}]": (each, -MAX_BIAS, MAX_BIAS) for i, each in enumerate(value)}
        elif key in BOUNDS or key == "images":
            numbers = {key: (value, *BOUNDS.get(key, (1.0, 1e12)))}
        elif key == "split" and isinstance(value, str):
            continue
        else:
            raise CheckpointError(f"unknown key {key!r} in calibration; upgrade with pip install -U mien")
        for name, (number, low, high) in numbers.items():
            if isinstance(number, bool) or not isinstance(number, int | float) or not low <= number <= high:
                raise CheckpointError(f"calibration.{name} must be a number from {low:g} to {high:g}, got {number!r}")


def _checked_classes(classes: Any) -> tuple[str, ...]:
    if not (isinstance(classes, list) and classes and all(isinstance(name, str) for name in classes)):
        raise CheckpointError("its classes are not a list of names; train or export it again")
    for name in classes:
        if not name.strip() or any(unicodedata.category(sign) == "Cc" for sign in name):
            raise CheckpointError(f"its class {name!r} is empty or has control characters; train or export it again")
    names = tuple(map(nfc, classes))
    if len(set(names)) < len(names):
        raise CheckpointError(f"its classes {classes} are not all different; train or export it again")
    return names


def check_digest(content: bytes | mmap, source: str) -> bool:
    """Return whether the content of a model file has a digest, after comparing it with the content.

    The digest is the SHA-256 of the file while the 64 digits of the digest are zeros.

    Raises:
        CheckpointError: The digest is not that of the content: the file was damaged or changed.
    """
    found = _find_digest(content)
    if found is not None and found[1].decode() != _digest(content, found.start(1)):
        raise CheckpointError(
            f"{source}: is corrupt or was changed after mien wrote it (its digest does not match its content); "
            "copy the file again, or export it again"
        )
    return found is not None


def check_file_digest(path: Path) -> bool:
    """Return what `check_digest` returns for the content of a file, which is not read into memory at once.

    Raises:
        CheckpointError: The file cannot be read, or its digest is not that of its content.
    """
    try:
        with path.open("rb") as file:
            if not path.stat().st_size:
                return False
            with mmap(file.fileno(), 0, access=ACCESS_READ) as content:
                return check_digest(content, str(path))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({reason(error)})") from None


def write_digest(path: Path) -> None:
    """Replace the zeros, or the older digest, after `mien_digest` in a model file by the digest of its content."""
    with path.open("r+b") as file, mmap(file.fileno(), 0) as content:
        found = _find_digest(content)
        if found is None:
            raise ValueError(f"{path}: has no room for a digest")
        start, end = found.span(1)
        content[start:end] = _digest(content, start).encode()


def _find_digest(content: bytes | mmap) -> re.Match[bytes] | None:
    start = content.rfind(DIGEST_KEY.encode())
    return None if start < 0 else _DIGEST.match(content, start)


def _digest(content: bytes | mmap, start: int) -> str:
    with memoryview(content) as view:
        total = hashlib.sha256(view[:start])
        total.update(NO_DIGEST.encode())
        total.update(view[start + len(NO_DIGEST) :])
    return total.hexdigest()
