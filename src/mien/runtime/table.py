"""Predictions as a table: one row a face, always the same columns; CSV, Parquet, JSON lines or a pandas DataFrame.

Rows are plain dicts and go through one at a time, so a table of any length needs little memory.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO

import numpy as np

from mien.atomic import atomic_path
from mien.errors import LabelError, OutputError, require
from mien.structures import Face, Prediction

Row = dict[str, Any]
"""A row by column name, in the order of `columns`: str, int, float, bool or None, nothing else."""


class Column(NamedTuple):
    """What a column holds."""

    name: str
    kind: Literal["text", "integer", "number", "boolean"]
    unit: str
    meaning: str


_PLACES = {
    "left_eye": "the eye on the left of the image (the person's right)",
    "right_eye": "the eye on the right of the image",
    "nose": "the tip of the nose",
    "left_mouth": "the corner of the mouth on the left of the image",
    "right_mouth": "the corner of the mouth on the right of the image",
}

SCHEMA = (
    Column("source", "text", "", "the file or name as it was given; empty if the picture came from memory"),
    Column("frame", "integer", "", "number of the video's frame, from 0; empty for a picture"),
    Column("time", "number", "s", "when the frame is shown, from the video's start; empty for a picture"),
    Column("track", "integer", "", "number of the person followed through the video, from 1; empty for a picture"),
    Column("face", "integer", "", "number of the face within its picture or frame, from 1"),
    Column("left", "number", "px", "left edge of the face's box; empty for a ready crop"),
    Column("top", "number", "px", "top edge"),
    Column("right", "number", "px", "right edge"),
    Column("bottom", "number", "px", "bottom edge"),
    *(
        Column(f"{place}_{axis}", "number", "px", f"{meaning}, {'from the left edge' if axis == 'x' else 'from the top edge'}")
        for place, meaning in _PLACES.items()
        for axis in "xy"
    ),
    Column("score", "number", "0 to 1", "how sure the detector is of the face; empty for a ready crop"),
    Column("label", "text", "", "the most probable expression"),
    Column("confidence", "number", "0 to 1", "probability of `label`"),
    Column("unsure", "boolean", "", "whether `confidence` is below what was asked for"),
)
"""The first columns, always in this order; one column a class follows, by the model's output index."""

_NAMES = tuple(column.name for column in SCHEMA)

FORMATS = (".csv", ".parquet", ".jsonl")
"""Endings a table may be written with."""

_ARROW = {"text": "string", "integer": "int64", "number": "float64", "boolean": "bool_"}
_PANDAS = {"text": "string", "integer": "Int64", "number": "float64", "boolean": "bool"}

_FORMULA = tuple("=+-@\t\r＝＋－＠")
"""Signs that make a spreadsheet take a cell for a formula."""

_CHUNK = 4_096
"""Rows turned into Arrow's arrays at once."""

_ROW_GROUP = 16 * _CHUNK
"""Rows of a Parquet file's row group."""


def class_column(name: str) -> Column:
    """Return what the column of a class holds."""
    return Column(name, "number", "0 to 1", f"probability of {name}")


def columns(classes: Sequence[str]) -> list[str]:
    """Return the names of the table's columns.

    >>> columns(["happy", "sad"])[-4:]
    ['confidence', 'unsure', 'happy', 'sad']

    Raises:
        LabelError: A class cannot name a column: it is there twice, has the name of another column, is empty or unprintable,
            or begins like a spreadsheet's formula.
    """
    return list(_names(tuple(classes)))


@lru_cache(maxsize=8)
def _names(classes: tuple[str, ...]) -> tuple[str, ...]:
    for name in classes:
        if name in _NAMES or classes.count(name) > 1:
            raise LabelError(f"class {name!r} has the name of another column of the table; rename it in the model")
        if not name or not name.isprintable() or name.startswith(_FORMULA):
            raise LabelError(f"class {name!r} cannot name a column of a table; rename it in the model")
    return (*_NAMES, *classes)


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
    return dict(zip(_names(p.classes), (*values, p.label, max(probs), p.unsure, *probs), strict=True))


def _places(face: Face | None) -> list[float | None]:
    """Return box, landmarks and score, 15 values."""
    if face is None:
        return [None] * 15
    marks = [None] * 10 if face.landmarks is None else _pixels(face.landmarks)
    return [*_pixels(face.box_xyxy), *marks, _rounded(face.score)]


def _pixels(values: np.ndarray) -> list[float | None]:
    return (np.round(values.astype(np.float64), 2) + 0.0).ravel().tolist()  # + 0.0, because -0.0 looks odd


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), 6)


def rows(items: Iterable[Prediction | Row]) -> Iterator[Row]:
    """Yield one row a face, with the keys of `columns` in their order; rows among the items pass as they are.

    `face` counts from 1 through predictions that follow each other and are of one source and frame, so the faces of a
    picture must stand together.
    """
    place, number = None, 0
    for item in items:
        if isinstance(item, Prediction):
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
    items: Iterable[Prediction | Row],
    classes: Sequence[str],
    about: Mapping[str, str] | None = None,
) -> int:
    """Write a table, whole or not at all, and return its number of rows; none is a table too.

    Args:
        path: The file; its ending says which format: `.csv`, `.parquet` or `.jsonl`.
        items: Predictions, or rows as `rows` yields them; taken one at a time.
        classes: The model's classes, by output index.
        about: What a Parquet file says of itself, such as the model and the smoothing; the other formats have no place for it.

    Raises:
        OutputError: The ending is unknown or the file cannot be written.
        MissingExtraError: Parquet was asked for and pyarrow is not installed.
        LabelError: A class cannot name a column.
    """
    check_table(path, classes)
    names = _names(tuple(classes))
    count = 0

    def values() -> Iterator[list[Any]]:
        nonlocal count
        for entry in rows(items):
            yield _values(entry, names)
            count += 1

    with atomic_path(path) as beside:
        _WRITERS[_ending(path)](beside, values(), names, dict(about or {}))
    return count


def to_dataframe(items: Iterable[Prediction | Row], classes: Sequence[str] | None = None) -> Any:
    """Return a `pandas.DataFrame` with one row a face.

    Args:
        items: Predictions, or rows as `rows` yields them.
        classes: The model's classes, by output index; needed only where there may be no face at all.

    Raises:
        MissingExtraError: pandas is not installed.
    """
    pandas = require("pandas", "tables")
    table = list(rows(items))
    names = columns(classes) if classes is not None else list(table[0] if table else _NAMES)
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


def readable(text: str | None) -> str | None:
    r"""Return a text as valid Unicode: a byte of a file name that is no UTF-8 becomes `\x` and its two digits.

    >>> readable("caf\udce9.jpg")
    'caf\\xe9.jpg'
    """
    return None if text is None else _bytes(text).decode("utf-8", "backslashreplace")


def _bytes(text: str) -> bytes:
    """Return the bytes of a file name; surrogates that stand for no byte, which no file name has, are spelled out."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace")


def csv_text(text: str) -> str:
    """Return a source as it stands in CSV: one that a spreadsheet would take for a formula gets `./` before it.

    A path names the same file with it. `-`, which stands for standard input, stays.

    >>> csv_text("=1+1.jpg")
    './=1+1.jpg'
    """
    guarded = f"./{text}" if text.startswith(_FORMULA) and text != "-" else text
    return _bytes(guarded).decode("utf-8", "surrogateescape")


def _values(entry: Row, names: Sequence[str]) -> list[Any]:
    """Return a row's values in the columns' order."""
    if len(entry) != len(names) or not all(name in entry for name in names):
        raise ValueError(f"a row must have the columns {', '.join(names)}, got {', '.join(entry)}")
    return [_plain(entry[name]) for name in names]


def _plain(value: Any) -> Any:
    """Return a value; None for a number that is none."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _kinds(names: Sequence[str]) -> list[str]:
    return [column.kind for column in SCHEMA] + ["number"] * (len(names) - len(SCHEMA))


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


class UnixLines:
    """A file whose lines end in a line feed alone; asked for that itself, `csv` leaves a carriage return in a name unquoted."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, line: str) -> int:
        """Write one line of `csv`'s."""
        return self.file.write(line[: -len("\r\n")] + "\n")


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
