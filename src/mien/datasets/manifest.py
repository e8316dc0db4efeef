"""Any table of pictures: a CSV or Parquet file with the columns path and label, and split, subject and sequence if known.

Paths are relative to the table. A picture that is missing or broken is left out and listed. A row that is wrong is an error:
whatever made one wrong row may have made others that go unnoticed.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mien import labels
from mien.datasets.corpus import CORPORA, Listing
from mien.datasets.files import split_name
from mien.datasets.folder import ALL, SIDE, Labelled, labelled_rows
from mien.datasets.tables import csv_rows, find_columns
from mien.errors import DataError, reason, require
from mien.labels import canonical, nfc
from mien.registry import nearest

REQUIRED = ("path", "label")
OPTIONAL = ("split", "subject", "sequence")

MAX_SPLITS = 100
"""Most splits of a manifest; a column with more of them means something else."""

BATCH = 10_000
"""Rows of a Parquet file that are in memory at a time."""

Row = tuple[int, dict[str, str]]
"""The number of a row, and its fields by column."""


@CORPORA.register("manifest", lists_pictures=True, own_data=True)
def read_manifest(source: Path, label_set: str | None = None) -> Listing:
    """Return the pictures that a table names, in colour, 224x224 px.

    Args:
        source: A CSV file in UTF-8, separated by commas, semicolons or tabs, or a Parquet file. It has the columns path
            (relative to the file) and label, and may have split, subject and sequence; others are ignored.
        label_set: Name of the label set whose order the classes have; by default they are in alphabetical order.

    Raises:
        DataError: A column is missing, or a row is wrong or names a picture again; gives the row's number, from 1: the line
            of a CSV file, the row of a Parquet file.
        LabelError: There is no such label set.
        MissingExtraError: The file is Parquet and pyarrow is not installed.
    """
    classes = None if label_set is None else labels.label_set(label_set)
    found, seen, others = list[Labelled](), dict[str, int](), dict[str, list[str]]()
    for number, row in _rows(source):
        where = f"{source}: row {number}"
        for column in (*REQUIRED, "split"):
            if row.get(column) == "":
                raise DataError(f"{where} has an empty {column}")
        if "\0" in row["path"]:
            raise DataError(f"{where} has a path with a NUL character; is the file damaged?")
        expression = canonical(row["label"])
        if classes is not None and expression not in classes:
            raise DataError(
                f"{where} has the label {row['label']!r}, which {label_set} does not have{nearest(expression, list(classes))}"
            )
        file = os.path.normpath(source.parent / row["path"])
        if file in seen:
            raise DataError(f"{where} names {row['path']} again, after row {seen[file]}; remove one of them")
        seen[file] = number
        split = nfc(row.get("split", ALL))
        found.append((Path(file), expression, split_name(split) or split))
        for column in ("subject", "sequence"):
            if column in row:
                others.setdefault(f"{column}s", []).append(nfc(row[column]))
    if not seen:
        raise DataError(f"{source}: contains no rows after its header; is the file complete?")
    if len({split for _, _, split in found}) > MAX_SPLITS:
        raise DataError(f"{source}: its column 'split' has more than {MAX_SPLITS} different words; is it the right column?")
    rows = labelled_rows(found, classes, **{name: tuple(values) for name, values in others.items()})
    return Listing(rows, [file for file, _, _ in found], (SIDE, SIDE), colour=True)


def _rows(source: Path) -> Iterator[Row]:
    """Yield the rows of a table of either kind, with its known columns only."""
    if source.is_dir():
        raise DataError(f"{source}: is a folder; pass the CSV or Parquet file, or read it as the corpus 'folder'")
    try:
        with source.open("rb") as file:
            is_parquet = file.read(4) == b"PAR1"
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({reason(error)})") from None
    if is_parquet:
        yield from _parquet_rows(source)
        return
    rows = csv_rows(source)
    columns = _columns(next(rows)[1], source)
    for number, fields in rows:
        yield number, {column: fields[at] for column, at in columns.items()}


def _columns(names: Sequence[str], source: Path) -> dict[str, int]:
    """Return the positions of the known columns."""
    words = [name.lower() for name in names]
    for column in OPTIONAL:
        if column not in words and (near := difflib.get_close_matches(column, words, n=1, cutoff=0.8)):
            raise DataError(f"{source}: has a column {near[0]!r}; rename it to {column!r}, or to something less similar")
    wanted = [*REQUIRED, *(column for column in OPTIONAL if column in words)]
    return dict(zip(wanted, find_columns(names, wanted, source), strict=True))


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
        raise DataError(f"{source}: row {number} contains {type(value).__name__}, not text")
    return str(value).strip()
