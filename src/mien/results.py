"""Results files, as `mien evaluate` writes them: how they are read, checked and compared.

A results file ends with a digest of its content, so that a change made by hand is noticed. Files of earlier versions have no
digest and lack other keys; these are read as None.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.errors import DataError, EditedError, reason
from mien.text import escape_formula

_SAME_DATA = {
    "corpus": "corpora",
    "fingerprint": "data",
    "protocol": "protocols",
    "split": "splits",
    "split_fingerprint": "drawn splits",
}
"""Entries of `data` that must agree before figures are averaged, with the word for them in messages."""

_REQUIRED = {
    dict: ("model", "data", "standard", "hardware"),
    list: ("classes", "confusion"),
    str: ("backend", "precision"),
}
"""Keys of every results file, by type."""

_LATER_KEYS = {
    "model": ("recipe_hash",),
    "data": ("split_file", "options", "map_to", "unknown_classes", "absent_classes"),
    "standard": ("kappa", "fpr", "votes_agreement", "accuracy_interval"),
    "twin_free": ("kappa", "fpr", "votes_agreement", "accuracy_interval"),
}
"""Keys that files of earlier versions lack, by section."""


def digest(results: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the content of a results file, without its own entry `digest`, in hexadecimal.

    It covers keys and values, not spaces, line breaks or the order of the keys.
    """
    content = {key: value for key, value in results.items() if key != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_results(path: Path) -> dict[str, Any]:
    """Return the content of a results file. Keys that files of earlier versions lack are None.

    Raises:
        DataError: The file is missing or is not a results file.
        EditedError: It was changed after `mien evaluate` wrote it.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({reason(error)}); give a results file of mien evaluate") from None
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or not all(isinstance(values.get(k), kind) for kind in _REQUIRED for k in _REQUIRED[kind]):
        raise DataError(f"{path}: is not a results file; give a .json file that mien evaluate wrote")
    has_digest = "digest" in values or "versions" in values  # both came in the same version
    if has_digest and values.get("digest") != digest(values):
        raise EditedError(
            f"{path}: was edited by hand after mien evaluate wrote it (its digest does not match its content); restore it, or "
            "evaluate the model again"
        )
    for key in ("training", "versions", "study", "digest", "twins", "groups", "detection"):
        values.setdefault(key, None)
    for section, keys in _LATER_KEYS.items():
        for key in keys if values.get(section) else ():
            values[section].setdefault(key, None)
    return values


def predictions_path(path: Path) -> Path:
    """Return the path of the predictions that belong to a results file: `<stem>-predictions.csv` next to it."""
    return path.with_name(f"{path.stem}-predictions.csv")


def read_predictions(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return the predictions behind a results file.

    Args:
        path: The results file. The predictions are read from `<stem>-predictions.csv` next to it.

    Returns:
        Row numbers in the corpus (N,), true classes (N,) and probabilities (N, K). The file has five decimals, so a row of
        probabilities sums to 1 within 0.0001. The largest one is always that of the class that was predicted.

    Raises:
        DataError: A file is missing or damaged.
        EditedError: The results were changed, or the predictions do not give their confusion matrix.
    """
    results, file = read_results(path), predictions_path(path)
    classes = [escape_formula(name) for name in results["classes"]]
    index = {name: i for i, name in enumerate(classes)}
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            head, *lines = csv.reader(stream)
        if head != ["row", "target", "label", *classes]:
            raise ValueError("other columns")
        rows = np.array([int(line[0]) for line in lines], np.int64)
        target, label = (np.array([index[line[column]] for line in lines], np.int64) for column in (1, 2))
        probs = np.array([line[3:] for line in lines], np.float32).reshape(-1, len(classes))
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({reason(error)}); evaluate the model again to write it") from None
    except (ValueError, KeyError, IndexError):
        raise DataError(f"{file}: is not a file of predictions, or is damaged; evaluate the model again to write it") from None
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (target, label), 1)
    each = np.arange(len(label))
    if confusion.tolist() != results["confusion"] or (probs[each, label] < probs.max(1, initial=0)).any():
        raise EditedError(f"{file}: does not belong to {path.name}, or was changed; evaluate the model again to write both")
    equal = probs.argmax(1) != label  # two classes with the same five decimals: the predicted one gets the next larger number
    probs[each[equal], label[equal]] = np.nextafter(probs[equal].max(1), np.float32(2))
    return rows, target, probs


def require_same_data(results: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Refuse results that were not measured on the same images, before their figures are averaged or compared.

    Args:
        results: Contents of results files.
        names: A name for each of them, such as its path, for the message.

    Raises:
        DataError: Two of them differ in corpus, data fingerprint, protocol, split or split fingerprint; names the two.
    """
    for values, name in zip(results[1:], names[1:], strict=True):
        for key, word in _SAME_DATA.items():
            ours, theirs = (each["data"].get(key) for each in (results[0], values))
            if ours != theirs:
                raise DataError(
                    f"{names[0]} and {name} were measured on different {word} ({ours} and {theirs}), so their figures must not "
                    "be averaged; evaluate both models on the same data and split"
                )
