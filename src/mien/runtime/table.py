"""Predictions as a table: rows, CSV, JSON."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from mien.atomic import atomic_path
from mien.structures import Prediction

COLUMNS = ("source", "face", "left", "top", "right", "bottom", "score", "label", "confidence")
"""The first columns, always in this order; one column a class follows, by output index."""


def columns(classes: Sequence[str]) -> list[str]:
    """Return the names of the table's columns.

    >>> columns(["happy", "sad"])[-3:]
    ['confidence', 'happy', 'sad']
    """
    return [*COLUMNS, *classes]


def rows(predictions: Iterable[Prediction]) -> list[dict[str, Any]]:
    """Return one row a face, with the keys of `columns` in their order.

    `face` counts from 1 within a source. Box in px of the image; it and the detector's `score` are None for a ready crop.
    """
    count: Counter[str | None] = Counter()
    table = []
    for prediction in predictions:
        count[prediction.source] += 1
        table.append(_row(prediction, count[prediction.source]))
    return table


def _row(prediction: Prediction, number: int) -> dict[str, Any]:
    face = prediction.face
    box = [None] * 4 if face is None else [round(float(edge), 2) for edge in face.box_xyxy]
    score = None if face is None else round(face.score, 6)
    probs = [round(float(p), 6) for p in prediction.probs]
    values = [prediction.source, number, *box, score, prediction.label, round(prediction.confidence, 6), *probs]
    return dict(zip(columns(prediction.classes), values, strict=True))


def write_csv(path: str | os.PathLike[str], predictions: Iterable[Prediction], classes: Sequence[str]) -> None:
    """Write predictions as CSV (UTF-8), whole or not at all; with no predictions, the header alone.

    Args:
        path: The file.
        predictions: What the recognizer returned.
        classes: The model's classes, by output index.

    Raises:
        OutputError: The file cannot be written.
    """
    # A file name that is not valid UTF-8 keeps its bytes.
    with (
        atomic_path(path) as beside,
        beside.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.DictWriter(file, columns(classes))
        writer.writeheader()
        writer.writerows(rows(predictions))


def to_json(predictions: Iterable[Prediction]) -> str:
    """Return predictions as a JSON list of `Prediction.to_dict`."""
    return json.dumps([prediction.to_dict() for prediction in predictions], indent=1)


def write_json(path: str | os.PathLike[str], predictions: Iterable[Prediction]) -> None:
    """Write predictions as a JSON list, whole or not at all.

    Raises:
        OutputError: The file cannot be written.
    """
    with atomic_path(path) as beside:
        beside.write_text(to_json(predictions) + "\n", encoding="utf-8")
