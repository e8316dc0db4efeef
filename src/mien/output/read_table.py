"""Reads a table of `mien predict` again, row by row: `.csv`, `.parquet` or `.jsonl`."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mien.errors import DataError, reason, require
from mien.output.table import FORMATS, NAMES, Row

NEEDED = ("source", "time", "track", "label")
"""Columns that a table must have, apart from one per expression."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table that is being read.

    It has one row per face, in the order of the file, and may have one without a `label` for each frame without a face. A row
    has the columns of `NEEDED`, `frame` (or None) and the expressions.
    """

    classes: tuple[str, ...]  # the expressions that it has columns for
    rows: Iterator[Row]
    all_frames: bool = False  # the file says that it has a row for each frame


def read_rows(path: str | os.PathLike[str], one_person: bool = False) -> Table:
    """Open a table of `mien predict`, `.csv`, `.parquet` or `.jsonl`; it is read row by row.

    Args:
        path: The table.
        one_person: Every video shows one person: all its tracks become person 1.

    Raises:
        DataError: The table cannot be read, lacks a column, or has a value that cannot be; or its rows are not in order of
            time. Wrong rows are found when they are read.
        MissingExtraError: The table is Parquet and pyarrow is not installed.
    """
    if Path(path).suffix.lower() not in FORMATS:
        raise DataError(f"{path}: is no table mien can read; give a {', '.join(FORMATS)} that mien predict --out wrote")
    try:
        names, entries, all_frames = _open(Path(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({reason(error)}); check the path") from None
    missing = [name for name in NEEDED if name not in names]
    classes = tuple(name for name in names if name not in NAMES)
    if missing or not classes:
        what = f"no column {missing[0]}" if missing else "no column of an expression"
        found = f"found: {', '.join(names[:6])}" if names else "it is empty"
        raise DataError(f"{path}: has {what} ({found}); give a table that mien predict --out wrote")
    return Table(classes, _checked(path, entries, classes, one_person), all_frames)


def _open(path: Path) -> tuple[list[str], Iterator[Row], bool]:
    """Return the columns of a table, its rows, and whether it says that it has all frames."""
    ending = path.suffix.lower()
    if ending == ".parquet":
        parquet = require("pyarrow.parquet", "tables")
        try:
            file = parquet.ParquetFile(path)
        except ValueError as error:  # pyarrow's errors are of this kind
            raise DataError(f"{path}: is not a Parquet file, or it is corrupt ({reason(error)})") from None
        names = list(file.schema_arrow.names)
        wanted = [name for name in names if name in (*NEEDED, "frame") or name not in NAMES]
        about = file.schema_arrow.metadata or {}
        return names, _parquet_rows(path, file, wanted), about.get(b"all_frames") == b"True"
    if ending == ".csv":
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            names = next(csv.reader(file), [])
        return names, csv_rows(path), False
    return list(next(_json_rows(path), {})), _json_rows(path), False


def csv_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a CSV file as dicts of texts.

    Raises:
        DataError: It is not CSV.
    """
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        try:
            yield from csv.DictReader(file)
        except csv.Error as error:
            raise DataError(f"{path}: is not a CSV table ({error})") from None


def _parquet_rows(path: Path, file: Any, columns: list[str]) -> Iterator[Row]:
    try:
        for batch in file.iter_batches(4096, columns=columns):
            yield from batch.to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
        raise DataError(f"{path}: is corrupt ({reason(error)}); write it again") from None


def _json_rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8", errors="surrogateescape") as file:
        for number, line in enumerate(file, 1):
            try:
                entry = json.loads(line)
                if not isinstance(entry, dict):
                    raise ValueError("not an object")
            except ValueError as error:
                raise DataError(f"{path}: line {number} is not a row in JSON ({error})") from None
            yield entry


def _checked(path: object, entries: Iterator[Row], classes: tuple[str, ...], one_person: bool) -> Iterator[Row]:
    """Yield the rows with numbers for texts, after checking them."""
    last: dict[str, float] = {}
    last_face: dict[str, float] = {}
    for number, raw in enumerate(entries, 1):
        where = f"{path}: row {number}"
        entry: Row = {"source": str(raw.get("source")), "label": raw.get("label") or None}
        for name in ("time", "track", "frame", *classes):
            try:
                entry[name] = number_in(raw.get(name) if name == "frame" else raw[name])
            except (TypeError, ValueError, KeyError):
                raise DataError(
                    f"{where}: the cell {name} is {raw.get(name)!r}, not a number; mien takes columns that are not its own for "
                    "expressions, so leave out columns that you added"
                ) from None
        source, time, track, label = entry["source"], entry["time"], entry["track"], entry["label"]
        if label is None and (time is None or track is not None):
            raise DataError(f"{where}: has no label; the table is truncated or was changed")
        entry["track"] = None if track is None else int(track)
        if time is None:
            yield entry  # a picture
            continue
        if time < last.get(source, -math.inf):
            raise DataError(
                f"{where}: {source} goes back from {last[source]:g} s to {time:g} s; sort the rows by source and frame"
            )
        last[source] = time
        if label is not None:
            values = [entry[name] for name in classes]
            if label not in classes or not all(value is not None and 0 <= value <= 1 for value in values):
                raise DataError(
                    f"{where}: its label is {label!r} and its probabilities are {values}; columns other than those of mien "
                    f"are taken for expressions, so leave out columns that you added ({', '.join(classes)})"
                )
            if track is None:
                raise DataError(f"{where}: a face of a video has no track; write the table with mien predict")
            if one_person:
                if last_face.get(source) == time:
                    advice = "predict with --max-faces 1, or leave --one-person out"
                    raise DataError(f"{where}: {source} shows two faces at {time:g} s; {advice}")
                last_face[source] = time
                entry["track"] = 1
        yield entry


def number_in(value: Any) -> float | None:
    """Return the number in a cell; None if it is empty. Raises a `ValueError` for anything else."""
    number = math.nan if value is None or value == "" else float(value)
    if math.isinf(number):
        raise ValueError("infinite")
    return None if math.isnan(number) else number
