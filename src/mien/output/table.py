"""Predictions as a table: one row a face, always the same columns; CSV, Parquet, JSON lines or a pandas DataFrame.

Rows are plain dicts and go through one at a time, so a table of any length needs little memory.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mien.atomic import atomic_path
from mien.errors import InputError, OutputError, require
from mien.output.cells import UnixLines, csv_text, readable
from mien.output.columns import NAMES, SCHEMA, Row, class_column, column_names, columns
from mien.structures import Face, Prediction

FORMATS = (".csv", ".parquet", ".jsonl")
"""Endings a table may be written with."""

_ARROW = {"text": "string", "integer": "int64", "number": "float64", "boolean": "bool_"}
_PANDAS = {"text": "string", "integer": "Int64", "number": "float64", "boolean": "bool"}

_CHUNK = 4_096
"""Rows turned into Arrow's arrays at once."""

_ROW_GROUP = 16 * _CHUNK
"""Rows of a Parquet file's row group."""


def row(prediction: Prediction, number: int = 1) -> Row:
    """Return the row of one face.

    Px are rounded to 2 decimals, times, scores and probabilities to 6.

    Args:
        prediction: What the recognizer returned.
        number: Number of the face within its picture or frame, from 1.
    """
    p = prediction
    values = (p.source, p.frame, _rounded(p.time), p.track, number, *_places(p.face))
    probs = np.round(p.probs.astype(np.float64), 6).tolist()
    return dict(zip(column_names(p.classes), (*values, p.label, max(probs), p.unsure, *probs), strict=True))


def _places(face: Face | None) -> list[float | None]:
    """Return box, landmarks and score, 15 values."""
    if face is None:
        return [None] * 15
    marks = [None] * 10 if face.landmarks is None else _pixels(face.landmarks)
    return [*_pixels(face.box_xyxy), *marks, _rounded(face.score)]


def _pixels(values: np.ndarray) -> list[float]:
    return (np.round(values.astype(np.float64), 2) + 0.0).ravel().tolist()  # + 0.0, because -0.0 looks odd


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), 6)


Items = Iterable["Prediction | Row | Items"]
"""Predictions, rows, or lists of them, as `Recognizer.predict` gives one for each of several sources."""


def rows(items: Items) -> Iterator[Row]:
    """Yield one row a face, with the keys of `columns` in their order; rows among the items pass as they are.

    `face` counts from 1 through predictions that follow each other and are of one source and frame, so the faces of a
    picture must stand together. It begins anew with every list among the items: give those of pictures in memory, which have
    no names, as a list each.

    Raises:
        InputError: An item is none of these.
    """
    place, number = None, 0
    for item in items:
        if isinstance(item, (list, tuple)):
            place = None
            yield from rows(item)
        elif not isinstance(item, (Prediction, dict)):
            raise InputError(f"a table is made of predictions, got {type(item).__name__}; give what Recognizer.predict returns")
        elif isinstance(item, Prediction):
            here = (item.source, item.frame)
            number = number + 1 if here == place else 1
            place = here
            yield row(item, number)
        else:
            yield item


def check_table(path: str | os.PathLike[str], classes: Sequence[str]) -> None:
    """Raise now what `write_table` would raise after hours of work: an unknown ending, a missing package, a bad class.

    Raises:
        OutputError: The ending is none of `FORMATS`.
        MissingExtraError: The ending is `.parquet` and pyarrow is not installed.
        LabelError: A class cannot name a column.
    """
    columns(classes)
    if _ending(path) == ".parquet":
        require("pyarrow", "tables")


def write_table(
    path: str | os.PathLike[str],
    items: Items,
    classes: Sequence[str],
    about: Mapping[str, str] | None = None,
) -> int:
    """Write a table, whole or not at all, and return its number of rows; none is a table too.

    Args:
        path: The file; its ending says which format: `.csv`, `.parquet` or `.jsonl`.
        items: Predictions, rows as `rows` yields them, or lists of them; taken one at a time.
        classes: The model's classes, by output index.
        about: What a Parquet file says of itself, such as the model and the smoothing; the other formats have no place for it.

    Raises:
        OutputError: The ending is unknown or the file cannot be written.
        MissingExtraError: Parquet was asked for and pyarrow is not installed.
        LabelError: A class cannot name a column.
    """
    check_table(path, classes)
    names = column_names(tuple(classes))
    count = 0

    def values() -> Iterator[list[Any]]:
        nonlocal count
        for entry in rows(items):
            yield _values(entry, names)
            count += 1

    with atomic_path(path) as beside:
        _WRITERS[_ending(path)](beside, values(), names, dict(about or {}))
    return count


def to_dataframe(items: Items, classes: Sequence[str] | None = None) -> Any:
    """Return a `pandas.DataFrame` with one row a face.

    Args:
        items: Predictions, rows as `rows` yields them, or lists of them.
        classes: The model's classes, by output index; needed only where there may be no face at all.

    Raises:
        MissingExtraError: pandas is not installed.
    """
    pandas = require("pandas", "tables")
    table = list(rows(items))
    names = columns(classes) if classes is not None else list(table[0] if table else NAMES)
    lines = [_values(entry, names) for entry in table]
    cells = zip(*lines, strict=True) if lines else ([] for _ in names)
    series = {}
    for name, kind, column in zip(names, _kinds(names), cells, strict=True):
        shown = [readable(cell) for cell in column] if kind == "text" else list(column)
        series[name] = pandas.Series(shown, dtype=_PANDAS[kind])
    return pandas.DataFrame(series)


def json_line(entry: Row) -> str:
    """Return a row as one line of JSON, without the line's end."""
    plain = {name: readable(value) if isinstance(value, str) else _plain(value) for name, value in entry.items()}
    return json.dumps(plain, ensure_ascii=False, allow_nan=False)


def _values(entry: Row, names: Sequence[str]) -> list[Any]:
    """Return a row's values in the columns' order."""
    if len(entry) != len(names) or not all(name in entry for name in names):
        raise ValueError(f"a row must have the columns {', '.join(names)}, got {', '.join(entry)}")
    return [_plain(entry[name]) for name in names]


def _plain(value: Any) -> Any:
    """Return a value; None for a number that is none."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _kinds(names: Sequence[str]) -> list[str]:
    return [*(column.kind for column in SCHEMA), *["number"] * (len(names) - len(SCHEMA))]


def _ending(path: str | os.PathLike[str]) -> str:
    ending = Path(path).suffix.lower()
    if ending not in FORMATS:
        raise OutputError(f"{path}: a table's name must end in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}; choose one of them")
    return ending


Lines = Iterator[list[Any]]


def _write_csv(path: Path, lines: Lines, names: Sequence[str], about: dict[str, str]) -> None:
    # A file name that is not valid UTF-8 keeps its bytes.
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(UnixLines(file))
        writer.writerow(names)
        writer.writerows([_csv_cell(value) for value in line] for line in lines)


def _csv_cell(value: Any) -> Any:
    if isinstance(value, str):
        return csv_text(value)
    return str(value).lower() if isinstance(value, bool) else value


def _write_jsonl(path: Path, lines: Lines, names: Sequence[str], about: dict[str, str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        file.writelines(json_line(dict(zip(names, line, strict=True))) + "\n" for line in lines)


def _write_parquet(path: Path, lines: Lines, names: Sequence[str], about: dict[str, str]) -> None:
    arrow, parquet = require("pyarrow", "tables"), require("pyarrow.parquet", "tables")
    schema = _arrow_schema(arrow, names, about)
    with parquet.ParquetWriter(path, schema) as writer:
        group: list[Any] = []
        while chunk := list(islice(lines, _CHUNK)):
            group.append(_arrow_batch(arrow, schema, chunk))
            if len(group) * _CHUNK >= _ROW_GROUP:
                writer.write_table(arrow.Table.from_batches(group), row_group_size=_ROW_GROUP)
                group = []
        if group:
            writer.write_table(arrow.Table.from_batches(group), row_group_size=_ROW_GROUP)


def _arrow_schema(arrow: Any, names: Sequence[str], about: dict[str, str]) -> Any:
    described = [*SCHEMA, *map(class_column, names[len(SCHEMA) :])]
    required = {"face", "label", "confidence", "unsure", *names[len(SCHEMA) :]}
    fields = [
        arrow.field(
            column.name,
            getattr(arrow, _ARROW[column.kind])(),
            nullable=column.name not in required,
            metadata={"unit": column.unit, "meaning": column.meaning},
        )
        for column in described
    ]
    return arrow.schema(fields, metadata=about)


def _arrow_batch(arrow: Any, schema: Any, chunk: list[list[Any]]) -> Any:
    arrays = []
    for field, cells in zip(schema, zip(*chunk, strict=True), strict=True):
        shown = [readable(cell) for cell in cells] if field.type == arrow.string() else cells
        arrays.append(arrow.array(shown, field.type))
    return arrow.record_batch(arrays, schema=schema)


_WRITERS: dict[str, Callable[[Path, Lines, Sequence[str], dict[str, str]], None]] = {
    ".csv": _write_csv,
    ".parquet": _write_parquet,
    ".jsonl": _write_jsonl,
}
