"""FER+'s votes as a file, `fer2013new.csv`: what ten people said of each row of FER2013's table, in the table's order.

Source: Barsoum et al. 2016, and github.com/microsoft/FERPlus. `ferplus` makes its labels of them, `fer2013` softens its own.
"""

from __future__ import annotations

import csv
import io
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from mien.datasets.reading.source import Tree, is_archive
from mien.datasets.reading.split_names import USAGE
from mien.datasets.reading.tree import file_names, read_text
from mien.datasets.votes import COLUMNS
from mien.errors import DataError

VOTES_FILE = "fer2013new.csv"


@dataclass(frozen=True, slots=True, eq=False)
class Votes:
    """The votes of a file.

    Attributes:
        names: File name of each image; empty where the row is no face.
        counts: Votes for each of `COLUMNS`, int64 (N, 10).
        usage: The split each row is said to be of, by FER2013's word; empty where the file does not say.
    """

    names: tuple[str, ...]
    counts: NDArray[np.int64]
    usage: tuple[str, ...] = ()


def find_votes(source: Path, votes: str | None = None) -> Tree:
    """Return the file of votes that belongs to a table: in its folder or archive, beside it, or elsewhere.

    Args:
        source: The table, or a folder or zip archive with it.
        votes: Name of the file there, or its path; by default `VOTES_FILE`.

    Raises:
        DataError: There is none; says where to get it.
    """
    name = votes or VOTES_FILE
    if is_archive(source) and (inside := _inside(source, name)) is not None:
        return inside
    beside = (source if source.is_dir() else source.parent) / name
    for file in (beside, Path(name)) if votes else (beside,):
        if os.path.isfile(file):  # noqa: PTH113 (a Path's raises of a long name)
            return file
    raise DataError(
        f"{beside}: no such file; get FER+'s votes from github.com/microsoft/FERPlus, or pass their path as `votes`"
    )


def _inside(source: Path, name: str) -> zipfile.Path | None:
    """Return the file of votes in an archive."""
    tree, names = file_names(source, [])
    found = [tree / each for each in names if PurePosixPath(each).name == name]
    return found[0] if found and isinstance(found[0], zipfile.Path) else None


def read_votes(file: Tree) -> Votes:
    """Return what `fer2013new.csv` holds.

    Raises:
        DataError: A row is bad, or the file is another; names it.
    """
    rows = csv_rows(file)
    header = rows[0][1] if rows else []
    if header != ["Usage", "Image name", *COLUMNS]:
        raise DataError(f"{file}: its first line is not 'Usage,Image name,{','.join(COLUMNS)}', UTF-8; is it {VOTES_FILE}?")
    for number, row in rows[1:]:
        if len(row) != len(header):
            raise DataError(f"{file}: row {number} has {len(row)} fields separated by commas, not {len(header)}")
        if row[0] not in USAGE:
            raise DataError(f"{file}: row {number} has the Usage {row[0][:40]!r}, not one of {', '.join(USAGE)}")
    usage = tuple(row[0] for _, row in rows[1:])
    return count_votes(file, [(number, row[1], row[2:]) for number, row in rows[1:]], usage)


def csv_rows(file: Tree) -> list[tuple[int, list[str]]]:
    """Return the rows of a small table that are not blank, each with its number.

    Raises:
        DataError: It cannot be read.
    """
    reader = csv.reader(io.StringIO(read_text(file), newline=""))
    try:
        return [(reader.line_num, [field.strip() for field in row]) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise DataError(f"{file}: row {reader.line_num} cannot be read ({error})") from None


def count_votes(file: Tree, rows: list[tuple[int, str, list[str]]], usage: tuple[str, ...] = ()) -> Votes:
    """Return the votes of rows of (row number, image name, votes).

    Raises:
        DataError: A vote is no whole number, or a row has none.
    """
    for number, _, votes in rows:
        for vote in votes:
            if not (vote.isascii() and vote.isdigit() and len(vote) <= 9):
                raise DataError(f"{file}: row {number} has the vote {vote[:40]!r}, not a whole number")
        if not any(map(int, votes)):
            raise DataError(f"{file}: row {number} has no votes")
    counts = np.array([[int(vote) for vote in votes] for _, _, votes in rows], np.int64).reshape(-1, len(COLUMNS))
    return Votes(tuple(name for _, name, _ in rows), counts, usage)


def require_same_rows(source: Path, split: NDArray[np.int8], votes: Votes) -> None:
    """Refuse votes that are not of this table, row for row.

    Raises:
        DataError: They are more or fewer, or a row is of another split.
    """
    if len(split) != len(votes.usage):
        raise DataError(
            f"{source}: has {len(split):,} faces, but {VOTES_FILE} has {len(votes.usage):,} rows; are both complete?"
        )
    differ = np.flatnonzero(split != np.array([USAGE[word] for word in votes.usage]))
    if len(differ):
        row = int(differ[0])
        raise DataError(
            f"{source}: face {row + 1} is not of {votes.usage[row]}, as in {VOTES_FILE}; both must be in their original order"
        )
