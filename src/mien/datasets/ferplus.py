"""FER+: FER2013's faces with ten people's votes each, as `fer2013new.csv` next to `fer2013.csv` or as Microsoft's folders.

Source: Barsoum et al. 2016, "Training Deep Networks for Facial Expression Recognition with Crowd-Sourced Label Distribution".
The rules that turn votes into labels are in `mien.datasets.votes`.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from mien.datasets.cache import load_corpus
from mien.datasets.corpus import CORPORA, Corpus, Listing, Rows
from mien.datasets.fer2013 import SPLITS, TABLES, find_fer2013_table, read_fer2013_table
from mien.datasets.files import Tree, file_names, is_archive
from mien.datasets.tables import csv_rows
from mien.datasets.votes import (
    COLUMNS,
    UNKNOWN,
    VOTES_FILE,
    Votes,
    count_votes,
    distribution,
    find_votes,
    majority,
    read_votes,
    require_same_rows,
)
from mien.errors import DataError
from mien.labels import label_set, mapping

FOLDERS = {"FER2013Train": 0, "FER2013Valid": 1, "FER2013Test": 2}
LABEL_SETS = {8: "ferplus", 10: "ferplus10"}
TARGETS = ("majority", "distribution")


@CORPORA.register("ferplus", files_next_to=(VOTES_FILE,))
def read_ferplus(
    source: Path, classes: int = 8, targets: str = "majority", min_agreement: float = 0.0, votes: str | None = None
) -> Listing:
    """Return the content of a copy of FER+: splits train, public_test and private_test.

    Args:
        source: A folder or zip archive with `fer2013.csv` and `fer2013new.csv`; or `fer2013.csv`, in any form `read_fer2013`
            takes, with `fer2013new.csv` next to it; or a folder or zip archive with Microsoft's `FER2013Train/label.csv`,
            `FER2013Valid` and `FER2013Test` and their pictures.
        classes: 8, or 10 with unknown and NF ("not a face").
        targets: `"majority"`: one class per image; or `"distribution"`: `Rows.votes`, with the largest (the first of equal
            ones) as the class.
        min_agreement: Leave out rows whose class has a smaller share of all votes, 0 to 1.
        votes: Name of the file of votes in that folder or archive or next to the table, or its path.

    Raises:
        DataError: An option, file or row is wrong, or the two files do not belong together.
    """
    if classes not in LABEL_SETS:
        raise DataError(f"ferplus: classes is {classes!r}; choose 8, or 10 with unknown and not a face")
    if targets not in TARGETS:
        raise DataError(f"ferplus: targets is {targets!r}; choose {' or '.join(TARGETS)}")
    if not 0 <= min_agreement <= 1:
        raise DataError(f"ferplus: min_agreement is {min_agreement!r}; give a share of the votes, 0 to 1")
    if is_archive(source):
        file = source if any(PurePosixPath(name).name in TABLES for name in file_names(source, [])[1]) else None
    else:
        file = find_fer2013_table(source)
    if file is not None:
        found = read_votes(find_votes(file, votes))
        table = read_fer2013_table(file)
        require_same_rows(source, table.split, found)
        rows, keep = label_rows(found, table.split, classes, targets, min_agreement)
        return Listing(rows, table.images[keep], origins=tuple(f"row {i}" for i in np.flatnonzero(keep)))
    files, found, split, skipped = _read_folders(source)
    rows, keep = label_rows(found, split, classes, targets, min_agreement)
    return Listing(rows, [files[i] for i in np.flatnonzero(keep)], skipped=skipped)


def label_rows(
    votes: Votes, split: NDArray[np.int8], classes: int, targets: str, min_agreement: float
) -> tuple[Rows, NDArray[np.bool_]]:
    """Return the rows that get a label, and which of all rows they are, bool (N,); options as in `read_ferplus`."""
    shares = majority(votes.counts) if targets == "majority" else distribution(votes.counts)
    target = shares.argmax(axis=1)
    winner = votes.counts[np.arange(len(target)), target]
    keep = winner >= min_agreement * votes.counts.sum(axis=1) - 1e-9
    if classes == 8:
        keep &= (target < UNKNOWN) & np.array([bool(name) for name in votes.names])
    kept = shares[keep, :classes]
    soft = None if targets == "majority" else (kept / kept.sum(axis=1, keepdims=True)).astype(np.float32)
    return Rows(label_set(LABEL_SETS[classes]), target[keep].astype(np.int64), split[keep], SPLITS, votes=soft), keep


def _read_folders(source: Path) -> tuple[list[Tree], Votes, NDArray[np.int8], tuple[str, ...]]:
    """Return the pictures of Microsoft's folders, their votes and splits, and a line for each that is missing."""
    skipped: list[str] = []
    tree, names = file_names(source, skipped)
    labels = [path for path in map(PurePosixPath, names) if path.name == "label.csv" and path.parent.name in FOLDERS]
    if len({path.parent.name for path in labels}) < len(labels):
        raise DataError(f"{source}: contains several copies of FER+ ({', '.join(map(str, labels[:6]))}); pass one of them")
    present = set(names)
    found = list[tuple[Tree, str, NDArray[np.int64], int]]()
    for path in sorted(labels, key=lambda path: FOLDERS[path.parent.name]):  # training first, as the rows of FER2013
        votes = _read_labels(tree / str(path))
        for name, count in zip(votes.names, votes.counts, strict=True):
            picture = str(path.parent / name)
            if picture not in present:
                skipped.append(f"{picture}: is named in {path} but does not exist")
            else:
                found.append((tree / picture, name, count, FOLDERS[path.parent.name]))
    if not found:
        raise DataError(
            f"{source}: contains neither fer2013.csv nor pictures named in FER2013Train/label.csv; "
            f"pass the folder with fer2013.csv and {VOTES_FILE}"
        )
    files, image_names, counts, split = zip(*found, strict=True)
    return list(files), Votes(image_names, np.array(counts)), np.array(split, np.int8), tuple(skipped)


def _read_labels(file: Tree) -> Votes:
    """Return the votes in a `label.csv`: an image name, in older copies its box (always the whole image), and the votes."""
    rows, seen = list(csv_rows(file)), dict[str, int]()
    for number, row in rows:
        if len(row) not in (1 + len(COLUMNS), 2 + len(COLUMNS)):
            raise DataError(f"{file}: row {number} has {len(row)} fields, not an image name, its box and {len(COLUMNS)} votes")
        if seen.setdefault(row[0], number) != number:
            raise DataError(f"{file}: row {number} names {row[0][:80]!r} again, as row {seen[row[0]]} does")
    return count_votes(file, [(number, row[0], row[-len(COLUMNS) :]) for number, row in rows])


# FER+'s votes on FER2013, to compare predictions with


def vote_counts(corpus: Corpus, source: Path) -> NDArray[np.int64] | None:
    """Return how many of FER+'s ten people chose each class, for every row of FER2013.

    Votes for a class that the corpus does not have (contempt, unknown, not a face) are left out, so a row may have none.

    Args:
        corpus: FER2013, split in any way.
        source: What it was loaded from. The votes are read from `fer2013new.csv` in it or next to it.

    Returns:
        Votes by the classes of the corpus, int64 (rows, K); None for another corpus, for pictures instead of the table, for a
        class that FER+ does not have, and where there is no such file.

    Raises:
        DataError: The file is damaged or does not belong to this table.
    """
    columns = [column for column in mapping(corpus.classes, label_set("ferplus10")) if column is not None]
    votes = fer2013_votes(corpus, source) if len(columns) == len(corpus.classes) else None
    return None if votes is None else votes.counts[:, columns]


def fer2013_votes(corpus: Corpus, source: Path, file: str | None = None) -> Votes | None:
    """Return FER+'s votes for every row of FER2013, all ten columns.

    Args:
        corpus: FER2013, split in any way.
        source: What it was loaded from.
        file: The file of votes, as of `find_votes`; by default `fer2013new.csv` in the source or next to it, if it is there.

    Returns:
        The votes; None without a file for another corpus, for pictures instead of the table, and where there is no such file.

    Raises:
        DataError: The file is damaged or does not belong to this table, or one is given that cannot be used.
    """
    table = find_fer2013_table(source) if corpus.name == "fer2013" else None
    if table is None:
        if file is None:
            return None
        raise DataError(f"{file}: FER+'s votes belong to FER2013's table fer2013.csv, which {source} is not; leave them out")
    try:
        found = find_votes(table, file)
    except DataError:
        if file is None:
            return None
        raise
    votes = read_votes(found)
    require_same_rows(source, load_corpus("fer2013", source, soft_labels=False).rows.split, votes)
    return votes
