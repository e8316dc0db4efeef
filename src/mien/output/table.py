"""Predictions as a table: one row per face, always the same columns, as CSV, Parquet, JSON lines or a pandas DataFrame.

`SCHEMA` and `columns` say what a row contains. `row` makes one from a `Prediction`, `rows` numbers the faces of each picture,
and `write_table` writes them. Rows are dicts and pass through one at a time, so memory does not grow with the table.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO

import numpy as np

from mien.atomic import atomic_path
from mien.errors import InputError, LabelError, OutputError, require
from mien.structures import Prediction, Reading
from mien.text import FORMULA_SIGNS, escape_formula, escape_invalid_utf8, escape_json

FORMATS = (".csv", ".parquet", ".jsonl")
"""File endings of a table."""

Row = dict[str, Any]
"""A row by column name, in the order of `columns`; every value is a str, int, float, bool or None."""

Items = Iterable["Prediction | Row | Items"]
"""Predictions, rows, or lists of them, such as the lists that `Recognizer.predict` gives for several sources."""


class Column(NamedTuple):
    """What a column contains."""

    name: str
    kind: Literal["text", "integer", "number", "boolean"]
    unit: str
    meaning: str


_LANDMARKS = {
    "left_eye": "the eye on the left of the image (the person's right)",
    "right_eye": "the eye on the right of the image",
    "nose": "the tip of the nose",
    "left_mouth": "the corner of the mouth on the left of the image",
    "right_mouth": "the corner of the mouth on the right of the image",
}

SCHEMA = (
    Column(
        "source",
        "text",
        "",
        "the path as given; of an address the scheme, host and path; for data in memory its number, such as `picture 2`",
    ),
    Column("frame", "integer", "", "number of the video's frame, from 0; empty for a picture"),
    Column("time", "number", "s", "when the frame is shown, from the video's start; empty for a picture"),
    Column("track", "integer", "", "number of the person followed through the video, from 1; empty for a picture"),
    Column("face", "integer", "", "number of the face within its picture or frame, from 1"),
    Column("left", "number", "px", "left edge of the face's box; empty for a ready crop"),
    Column("top", "number", "px", "top edge"),
    Column("right", "number", "px", "right edge"),
    Column("bottom", "number", "px", "bottom edge"),
    *(
        Column(f"{name}_{axis}", "number", "px", f"{meaning}, {'from the left edge' if axis == 'x' else 'from the top edge'}")
        for name, meaning in _LANDMARKS.items()
        for axis in "xy"
    ),
    Column("score", "number", "0 to 1", "how sure the detector is that this is a face; empty for a ready crop"),
    Column("size", "number", "px", "shorter side of the face's box, or of a ready crop"),
    Column(
        "sharpness",
        "number",
        "grey levels",
        "detail of the whole face as the network sees it: standard deviation of its Laplacian at 40 x 40 px",
    ),
    Column("detail", "number", "grey levels", "the same at the left eye, the right eye or the mouth, whichever has the least"),
    Column("brightness", "number", "0 to 255", "mean grey level of the face"),
    Column("yaw", "number", "degrees", "how far the face is turned to the right of the image; empty without landmarks"),
    Column("roll", "number", "degrees", "how far the face is tilted clockwise, -180 to 180; empty without landmarks"),
    Column("cut", "number", "0 to 1", "share of the face's box that is outside the picture; empty for a ready crop"),
    Column("label", "text", "", "the most probable expression"),
    Column("confidence", "number", "0 to 1", "probability of `label`"),
    Column(
        "unsure",
        "boolean",
        "",
        "whether `confidence` is below the limit: `--unsure-below` (0.5), plus 0.2 if an eye, the mouth or a quarter of the "
        "face is hidden; always if there is nothing to see or the video's frame is damaged",
    ),
    Column("set", "text", "", "with `--coverage`: the expressions it may be, the most probable first, separated by `; `"),
)
"""The first columns, always in this order; one column per class follows, in the order of the model's outputs."""

NAMES = tuple(column.name for column in SCHEMA)

_QUALITY = NAMES[NAMES.index("size") : NAMES.index("label")]

_ARROW_TYPES = {"text": "string", "integer": "int64", "number": "float64", "boolean": "bool_"}
_PANDAS_TYPES = {"text": "string", "integer": "Int64", "number": "float64", "boolean": "bool"}

_CHUNK = 4_096
"""Rows converted to Arrow arrays at once."""

_ROW_GROUP = 16 * _CHUNK
"""Rows per row group of a Parquet file."""


def columns(classes: Sequence[str]) -> list[str]:
    """Return the column names of a table.

    >>> columns(["happy", "sad"])[-4:]
    ['unsure', 'set', 'happy', 'sad']

    Raises:
        LabelError: A class cannot be a column name: it is a duplicate, the name of another column, empty, unprintable, or
            begins like a spreadsheet formula.
    """
    return list(_column_names(tuple(classes)))


@lru_cache(maxsize=8)
def _column_names(classes: tuple[str, ...]) -> tuple[str, ...]:
    for name in classes:
        if name in NAMES or classes.count(name) > 1:
            raise LabelError(f"class {name!r} has the name of another column of the table; rename it in the model")
        if not name or not name.isprintable() or name.startswith(FORMULA_SIGNS):
            raise LabelError(f"class {name!r} cannot be the name of a table's column; rename it in the model")
    return (*NAMES, *classes)


def row(prediction: Prediction, number: int = 1) -> Row:
    """Return the row of one face: px and quality rounded to 2 decimals; times, scores and probabilities to 6.

    Args:
        prediction: What the recognizer returned.
        number: Number of the face within its picture or frame, from 1.
    """
    p, face = prediction, prediction.face
    box = [None] * 4 if face is None else _rounded_pixels(face.box_xyxy)
    landmarks = [None] * 10 if face is None or face.landmarks is None else _rounded_pixels(face.landmarks)
    score = None if face is None else _rounded(face.score)
    probs = np.round(p.probs.astype(np.float64), 6).tolist()
    where = (p.source, p.frame, _rounded(p.time), p.track, number, *box, *landmarks, score)
    measured = {} if p.quality is None else p.quality.to_dict()
    quality = map(measured.get, _QUALITY)
    answer = (p.label, max(probs), p.unsure, None if p.set is None else "; ".join(p.set))
    return dict(zip(_column_names(p.classes), (*where, *quality, *answer, *probs), strict=True))


def empty_row(classes: Sequence[str], source: str, frame: int, time: float | None) -> Row:
    """Return the row of a video's frame without a face, for a table with all frames: the other cells are empty."""
    return dict.fromkeys(_column_names(tuple(classes))) | {"source": source, "frame": frame, "time": _rounded(time)}


def _rounded_pixels(values: np.ndarray) -> list[Any]:
    return (np.round(values.astype(np.float64), 2) + 0.0).ravel().tolist()  # + 0.0 turns -0.0 into 0.0


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), 6)


def rows(items: Items) -> Iterator[Row]:
    """Yield one row per face; rows among the items pass unchanged.

    `face` counts from 1 through consecutive predictions of the same source and frame, and starts again with every list among
    the items. Pictures in memory have no names, so give the predictions of each as a list.

    Raises:
        InputError: An item is none of these.
    """
    previous, number = None, 0
    for item in items:
        if isinstance(item, (list, tuple)):
            previous = None
            yield from rows(item)
        elif isinstance(item, Prediction):
            number = number + 1 if (item.source, item.frame) == previous else 1
            previous = (item.source, item.frame)
            yield row(item, number)
        elif isinstance(item, dict):
            yield item
        else:
            raise InputError(f"a table is made of predictions, got {type(item).__name__}; give what Recognizer.predict returns")


def reading_rows(reading: Reading, classes: Sequence[str], all_frames: bool = False) -> Iterator[Row]:
    """Yield the rows of one picture or frame.

    Args:
        reading: What `Recognizer.stream` yielded.
        classes: The model's classes, by output index.
        all_frames: Yield an `empty_row` for a video's frame without a face.
    """
    frame = reading.frame
    if all_frames and not reading.predictions and frame is not None and frame.index is not None:
        yield empty_row(classes, reading.source, frame.index, frame.time)
    yield from rows(reading.predictions)


def check_table(path: str | os.PathLike[str], classes: Sequence[str]) -> str:
    """Return a table's ending, in lower case; raise the errors of `write_table` that can be known before hours of work.

    Raises:
        OutputError: The ending is none of `FORMATS`.
        MissingExtraError: The ending is `.parquet` and pyarrow is not installed.
        LabelError: A class cannot be a column name.
    """
    columns(classes)
    ending = check_ending(path, "table", FORMATS)
    if ending == ".parquet":
        require("pyarrow", "tables")
    return ending


def check_ending(path: str | os.PathLike[str], kind: str, formats: Sequence[str]) -> str:
    """Return the ending of a file of that kind, in lower case.

    Raises:
        OutputError: It is none of `formats`.
    """
    ending = Path(path).suffix.lower()
    if ending not in formats:
        known = f"{', '.join(formats[:-1])} or {formats[-1]}"
        raise OutputError(f"{path}: a {kind}'s name must end in {known}; choose one of them")
    return ending


def write_table(
    path: str | os.PathLike[str],
    items: Items,
    classes: Sequence[str],
    about: Mapping[str, str] | None = None,
    all_frames: bool = False,
) -> int:
    """Write a table, completely or not at all, and return its number of rows, which may be 0.

    Args:
        path: The file; its ending chooses the format: `.csv`, `.parquet` or `.jsonl`.
        items: Predictions, rows as `rows` yields them, or lists of them; taken one at a time.
        classes: The model's classes, by output index.
        about: Metadata for a Parquet file, such as the model and the smoothing; the other formats have no place for it.
            What the caller adds to it while the items are taken is written too.
        all_frames: The items may include an `empty_row`, so every column of a Parquet file may be empty.

    Raises:
        OutputError: The ending is unknown or the file cannot be written.
        MissingExtraError: Parquet was asked for and pyarrow is not installed.
        LabelError: A class cannot be a column name.
    """
    ending, names = check_table(path, classes), _column_names(tuple(classes))
    count = 0

    def counted() -> Iterator[list[Any]]:
        nonlocal count
        for entry in rows(items):
            yield _values(entry, names)
            count += 1

    with atomic_path(path) as tmp_path:
        if ending == ".csv":
            write_csv(tmp_path, names, counted())
        elif ending == ".parquet":
            _write_parquet(tmp_path, names, counted(), about or {}, all_frames)
        else:
            with tmp_path.open("w", newline="", encoding="utf-8") as file:
                file.writelines(json_line(dict(zip(names, line, strict=True))) + "\n" for line in counted())
    return count


def to_dataframe(items: Items, classes: Sequence[str] | None = None) -> Any:
    """Return a `pandas.DataFrame` with one row per face.

    Args:
        items: Predictions, rows as `rows` yields them, or lists of them.
        classes: The model's classes, by output index; needed only if there may be no face at all.

    Raises:
        MissingExtraError: pandas is not installed.
    """
    pandas = require("pandas", "tables")
    table = list(rows(items))
    names = columns(classes) if classes is not None else list(table[0] if table else NAMES)
    lines = [list(map(_clean, _values(entry, names))) for entry in table]
    kinds = {column.name: _PANDAS_TYPES[column.kind] for column in _described(names)}
    if any(entry["label"] is None for entry in table):
        kinds |= {"unsure": "boolean"}  # which may be empty
    return pandas.DataFrame(lines, columns=names, dtype=object).astype(kinds)


def json_line(entry: Row, ascii_only: bool = False) -> str:
    """Return a row as one line of JSON, without the line break."""
    line = json.dumps({name: _clean(value) for name, value in entry.items()}, ensure_ascii=ascii_only, allow_nan=False)
    return escape_json(line)


def write_csv(path: Path, header: Sequence[str], lines: Iterable[Iterable[Any]]) -> None:
    """Write a CSV file of mien's form: UTF-8, lines that end in a line feed, `true` and `false`, no formulas.

    A file name that is not valid UTF-8 keeps its bytes.
    """
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(_LineFeeds(file))
        writer.writerow(header)
        writer.writerows(map(_csv_cell, line) for line in lines)


def _csv_cell(value: Any) -> Any:
    if isinstance(value, str):
        return escape_formula(value)
    return str(value).lower() if isinstance(value, bool) else _clean(value)


class _LineFeeds:
    """A file for `csv.writer` whose lines end in a line feed; with `lineterminator` it would not quote a carriage return."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, line: str) -> int:
        return self.file.write(line.removesuffix("\r\n") + "\n")


def _values(entry: Row, names: Sequence[str]) -> list[Any]:
    if len(entry) != len(names) or not all(name in entry for name in names):
        raise ValueError(f"a row must have the columns {', '.join(names)}, got {', '.join(entry)}")
    return [entry[name] for name in names]


def _clean(value: Any) -> Any:
    """Return a value that every format can store: a text is valid UTF-8; None replaces NaN and infinity."""
    if isinstance(value, str):
        return escape_invalid_utf8(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _described(names: Sequence[str]) -> list[Column]:
    classes = names[len(SCHEMA) :]
    return [*SCHEMA, *(Column(name, "number", "0 to 1", f"probability of {name}") for name in classes)]


def _write_parquet(
    path: Path, names: Sequence[str], lines: Iterator[list[Any]], about: Mapping[str, str], all_frames: bool
) -> None:
    arrow, parquet = require("pyarrow", "tables"), require("pyarrow.parquet", "tables")
    nullable = set(names) if all_frames else set(NAMES) - {"face", "label", "confidence", "unsure"}
    fields = [
        arrow.field(
            column.name,
            getattr(arrow, _ARROW_TYPES[column.kind])(),
            nullable=column.name in nullable,
            metadata={"unit": column.unit, "meaning": column.meaning},
        )
        for column in _described(names)
    ]
    schema = arrow.schema(fields, metadata=dict(about))

    def batch(chunk: list[list[Any]]) -> Any:
        values = zip(*chunk, strict=True)
        return arrow.record_batch(
            [arrow.array(map(_clean, v), f.type) for v, f in zip(values, fields, strict=True)], schema=schema
        )

    with path.open("wb") as file, parquet.ParquetWriter(file, schema) as writer:  # pyarrow opens no path that is not UTF-8
        batches = (batch(chunk) for chunk in iter(lambda: list(islice(lines, _CHUNK)), []))
        while group := list(islice(batches, _ROW_GROUP // _CHUNK)):
            writer.write_table(arrow.Table.from_batches(group), row_group_size=_ROW_GROUP)
        if added := {key: about[key] for key in about if key.encode() not in (schema.metadata or {})}:
            writer.add_key_value_metadata(added)
