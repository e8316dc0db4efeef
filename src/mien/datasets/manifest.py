"""Any table of pictures: a CSV or Parquet file with the columns path and label, and split, subject and sequence if known.

Paths are relative to the table. A picture that is missing or broken is left out and listed. A row that is wrong is an error:
whatever made one wrong row may have made others that go unnoticed. `table_columns` reads any other column when it is asked for.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
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


def table_columns(
    table: Path, wanted: Sequence[str], files: Sequence[str], count: int, base: Path
) -> Mapping[str, Sequence[str]]:
    """Return columns of a table for the pictures of a corpus, (count,) each; "" for a picture that the table does not name.

    Args:
        table: A CSV or Parquet file with the wanted columns, and `path` (relative to `base` or to the table) or `row` (from 0).
        wanted: Names of columns.
        files: `Corpus.files`; empty for a corpus that is a table of pixels.
        count: Number of pictures.
        base: The folder that `files` are relative to.

    Raises:
        DataError: The table cannot be read, lacks a column, names a picture twice, or names none of the pictures.
    """
    key = "path"

    def choose(names: Sequence[str], source: Path) -> dict[str, int]:
        nonlocal key
        words = [name.lower() for name in names]
        key = "path" if files and "path" in words else "row"
        if key not in words:
            keys = "'path' or 'row'" if files else "'row'"
            raise DataError(f"{source}: has no column {keys} to say which image a row is about; it has {', '.join(names)}")
        return dict(zip(["", *wanted], find_columns(names, [key, *wanted], source), strict=True))

    by_path = {os.path.abspath(base / file): index for index, file in enumerate(files)}  # noqa: PTH100 (links stay as they are)
    by_row = {str(index): index for index in range(count)}
    values, seen = {name: [""] * count for name in wanted}, dict[int, int]()
    for number, row in read_rows(table, choose):
        index = by_row.get(row[""]) if key == "row" else None
        if key == "path":
            places = [os.path.abspath(folder / row[""]) for folder in (base, table.parent)]  # noqa: PTH100
            index = next((by_path[place] for place in places if place in by_path), None)
        if index is None:
            continue
        if index in seen:
            raise DataError(f"{table}: rows {seen[index]} and {number} are about the same image, {row['']}; remove one of them")
        seen[index] = number
        for name in wanted:
            values[name][index] = nfc(row[name])
    if not seen:
        example = f"rows from 0 to {count - 1}"
        if key == "path":
            example = f"paths such as {files[0]}, relative to {base} or to the table"
        raise DataError(f"{table}: names none of the {count:,} images; give {example}")
    return values


def _own_columns(source: Path, files: Sequence[str], wanted: Sequence[str]) -> Mapping[str, Sequence[str]]:
    return table_columns(source, wanted, files, len(files), source.parent)


@CORPORA.register("manifest", lists_pictures=True, own_data=True, columns=_own_columns)
def read_manifest(source: Path, label_set: str | None = None) -> Listing:
    """Return the pictures that a table names, in colour, 224x224 px.

    Args:
        source: A CSV file in UTF-8, separated by commas, semicolons or tabs, or a Parquet file. It has the columns path
            (relative to the file) and label, and may have split, subject and sequence. `table_columns` reads others.
        label_set: Name of the label set whose order the classes have; by default they are in alphabetical order.

    Raises:
        DataError: A column is missing, or a row is wrong or names a picture again; gives the row's number, from 1: the line
            of a CSV file, the row of a Parquet file.
        LabelError: There is no such label set.
        MissingExtraError: The file is Parquet and pyarrow is not installed.
    """
    classes = None if label_set is None else labels.label_set(label_set)
    found, seen, others = list[Labelled](), dict[str, int](), dict[str, list[str]]()
    for number, row in read_rows(source, _columns):
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


def read_rows(source: Path, choose: Callable[[Sequence[str], Path], dict[str, int]]) -> Iterator[Row]:
    """Yield the rows of a CSV or Parquet file.

    Args:
        source: The file.
        choose: Given the names of the columns and the file, returns the position of each wanted column.

    Raises:
        DataError: The file cannot be read.
        MissingExtraError: It is Parquet and pyarrow is not installed.
    """
    if source.is_dir():
        raise DataError(f"{source}: is a folder; pass the CSV or Parquet file, or read it as the corpus 'folder'")
    try:
        with source.open("rb") as file:
            is_parquet = file.read(4) == b"PAR1"
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({reason(error)})") from None
    if is_parquet:
        yield from _parquet_rows(source, choose)
        return
    rows = csv_rows(source)
    columns = choose(next(rows)[1], source)
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


def _parquet_rows(source: Path, choose: Callable[[Sequence[str], Path], dict[str, int]]) -> Iterator[Row]:
    parquet = require("pyarrow.parquet", "train")
    number = 0
    try:
        with parquet.ParquetFile(source) as table:
            names = table.schema_arrow.names
            columns = {column: names[at] for column, at in choose(names, source).items()}
            for batch in table.iter_batches(BATCH, columns=list(columns.values())):
                values = [batch.column(name).to_pylist() for name in columns.values()]
                for fields in zip(*values, strict=True):
                    number += 1
                    pairs = zip(columns, fields, strict=True)
                    yield number, {column: _text(value, column, source, number) for column, value in pairs}
    except DataError:
        raise
    except Exception as error:  # pyarrow raises anything on damaged files
        raise DataError(f"{source}: cannot be read as Parquet ({reason(error)})") from None


def _text(value: Any, column: str, source: Path, number: int) -> str:
    """Return a field of a Parquet file as text."""
    if value is None:
        return ""
    if column in (*REQUIRED, *OPTIONAL) and not isinstance(value, (str, int)):
        raise DataError(f"{source}: row {number} contains {type(value).__name__}, not text")
    return str(value).strip()
