"""Any table of pictures: a CSV or Parquet file with the columns path and label, and split, subject and sequence where known.

Paths are relative to the table. A picture that is missing or broken is left out and noted; a row that is wrong is an error,
because a table with one wrong row has been made by something that may have got others wrong unseen.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from mien.datasets.cache import ELSEWHERE
from mien.datasets.corpus import CORPORA, Listing
from mien.datasets.folder import ALL, SIDE, Labelled, known_classes
from mien.datasets.reading.csv_rows import csv_rows, find_columns
from mien.datasets.reading.source import reason
from mien.datasets.reading.split_names import split_name
from mien.errors import DataError, require
from mien.labels import canonical
from mien.registry import nearest

REQUIRED = ("path", "label")
OPTIONAL = ("split", "subject", "sequence")

MAX_SPLITS = 100
"""Splits of a manifest at most; more of them are a column of something else."""

BATCH = 10_000
"""Rows of a Parquet file that are held at a time."""

Row = tuple[int, dict[str, str]]
"""The number of a row, and its fields by column."""

ELSEWHERE.add("manifest")


@CORPORA.register("manifest")
def read_manifest(source: Path, label_set: str | None = None) -> Listing:
    """Return the pictures a table names, in colour, 224x224 px.

    Args:
        source: A CSV file in UTF-8, separated by commas, semicolons or tabs, or a Parquet file. It has the columns path
            (relative to the file) and label, and may have split, subject and sequence; others are not looked at.
        label_set: Name of the label set whose order the classes have; else they are in alphabetical order.

    Raises:
        DataError: A column is missing, a row is bad or names a picture again; names the row: of a CSV its line, of a Parquet
            file its number, both from 1.
        LabelError: No such label set.
        MissingExtraError: The file is Parquet and pyarrow is not installed.
    """
    known = known_classes(label_set)
    found, seen, others = Labelled(), dict[str, int](), dict[str, list[str]]()
    for number, row in _rows(source):
        where = f"{source}: row {number}"
        file, expression, split = _parse(row, where, source.parent, label_set, known)
        if file in seen:
            raise DataError(f"{where} names {row['path']} again, which row {seen[file]} names; remove one of them")
        seen[file] = number
        found.add(Path(file), expression, split)
        for column in ("subject", "sequence"):
            if column in row:
                others.setdefault(f"{column}s", []).append(row[column])
    if not seen:
        raise DataError(f"{source}: holds no rows; is the file complete?")
    if len(set(found.splits)) > MAX_SPLITS:
        raise DataError(f"{source}: its column 'split' holds more than {MAX_SPLITS} different words; is it the right column?")
    rows = found.rows(known, **{name: tuple(values) for name, values in others.items()})
    return Listing(rows, found.files, (SIDE, SIDE), colour=True)


def _parse(
    row: dict[str, str], where: str, base: Path, label_set: str | None, known: Sequence[str] | None
) -> tuple[str, str, str]:
    """Return the file, the expression and the split of a row."""
    for column in (*REQUIRED, *(["split"] if "split" in row else [])):
        if not row[column]:
            raise DataError(f"{where} has an empty {column}")
    if "\0" in row["path"]:
        raise DataError(f"{where} has a path with a NUL character in it; is the file damaged?")
    expression = canonical(row["label"])
    if known is not None and expression not in known:
        raise DataError(f"{where} has the label {row['label']!r}, which {label_set} lacks{nearest(expression, list(known))}")
    split = row.get("split", ALL)
    return os.path.normpath(base / row["path"]), expression, split_name(split) or split


def _rows(source: Path) -> Iterator[Row]:
    """Yield the rows of a table of either kind; every row has the required columns, and no column that is not known."""
    if source.is_dir():
        raise DataError(f"{source}: is a folder; pass the CSV or Parquet file, or read it with the corpus 'folder'")
    try:
        with source.open("rb") as file:
            if file.read(4) == b"PAR1":
                yield from _parquet_rows(source)
            else:
                file.seek(0)
                yield from _csv_rows(file, source)
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({reason(error)})") from None


def _columns(names: Sequence[str], source: Path) -> dict[str, int]:
    """Return where the known columns stand."""
    words = [name.lower() for name in names]
    for column in OPTIONAL:
        if column not in words and (near := difflib.get_close_matches(column, words, n=1, cutoff=0.8)):
            raise DataError(f"{source}: has a column {near[0]!r}; call it {column!r}, or something that is not so near to it")
    wanted = [*REQUIRED, *(column for column in OPTIONAL if column in words)]
    return dict(zip(wanted, find_columns(names, wanted, source), strict=True))


def _csv_rows(file: BinaryIO, source: Path) -> Iterator[Row]:
    rows = csv_rows(file, source)
    columns = _columns(next(rows)[1], source)
    for number, fields in rows:
        yield number, {column: fields[at] for column, at in columns.items()}


def _parquet_rows(source: Path) -> Iterator[Row]:
    parquet = require("pyarrow.parquet", "train")
    number = 0
    try:
        with parquet.ParquetFile(source) as table:
            names = table.schema_arrow.names
            columns = {column: names[at] for column, at in _columns(names, source).items()}
            for batch in table.iter_batches(BATCH, columns=list(columns.values())):
                values = [batch.column(name).to_pylist() for name in columns.values()]
                for fields in zip(*values, strict=True):
                    number += 1
                    yield number, {column: _text(value, source, number) for column, value in zip(columns, fields, strict=True)}
    except DataError:
        raise
    except Exception as error:  # pyarrow raises anything on damaged files
        raise DataError(f"{source}: cannot be read as Parquet ({reason(error)})") from None


def _text(value: Any, source: Path, number: int) -> str:
    """Return a field of a Parquet file as text."""
    if value is None:
        return ""
    if not isinstance(value, (str, int)):
        raise DataError(f"{source}: row {number} holds {type(value).__name__} where text is expected")
    return str(value).strip()
