"""The label sets of the corpora, each in its corpus's own order, and mappings between them.

Mixing up the order of classes is a frequent silent error in this field. So label sets are mapped by name, never by index.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from mien.errors import LabelError
from mien.registry import nearest

LABEL_SETS: dict[str, tuple[str, ...]] = {
    "fer2013": ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"),
    "ferplus": ("neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", "contempt"),
    "ferplus10": (
        "neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", "contempt", "unknown", "not a face",
    ),
    "ckplus": ("angry", "contempt", "disgust", "fear", "happy", "sad", "surprise"),
    "rafdb": ("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral"),
    "affectnet7": ("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry"),
    "affectnet8": ("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry", "contempt"),
}  # fmt: skip
"""Classes of each label set, by index. RAF-DB's files count from 1; its reader subtracts 1."""

SYNONYMS: dict[str, str] = {
    "anger": "angry",
    "happiness": "happy",
    "sadness": "sad",
    "surprised": "surprise",
    "fearful": "fear",
    "disgusted": "disgust",
    "nf": "not a face",
}
"""Other words that the corpora use for the same expression."""


def label_set(name: str) -> tuple[str, ...]:
    """Return the classes of a label set, by index.

    >>> label_set("fer2013")[3]
    'happy'

    Raises:
        LabelError: There is no such label set; the message lists similar names.
    """
    if name not in LABEL_SETS:
        raise LabelError(f"unknown label set {name!r}{nearest(name, list(LABEL_SETS))}")
    return LABEL_SETS[name]


def nfc(name: str) -> str:
    """Return a name in Unicode's composed form (NFC), so that two spellings of one accented letter are equal.

    >>> nfc("de\u0301gou\u0302t") == "d\u00e9go\u00fbt"
    True
    """
    return unicodedata.normalize("NFC", name)


def canonical(expression: str) -> str:
    """Return mien's word for an expression.

    >>> canonical("Happiness")
    'happy'
    """
    word = nfc(nfc(expression).strip().lower())
    return SYNONYMS.get(word, word)


def mapping(source: Sequence[str], target: Sequence[str]) -> list[int | None]:
    """Return the index in `target` of each class of `source`, matched by name; None if `target` does not have it.

    >>> mapping(["happiness", "contempt"], label_set("fer2013"))
    [3, None]
    """
    index = {canonical(name): i for i, name in enumerate(target)}
    return [index.get(canonical(name)) for name in source]
