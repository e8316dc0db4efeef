"""FER+'s votes: read from their file, turned into labels, or used to soften FER2013's labels.

Source: Barsoum et al. 2016, "Training Deep Networks for Facial Expression Recognition with Crowd-Sourced Label Distribution",
and github.com/microsoft/FERPlus, `_process_data`. Ten people voted on each of FER2013's images. The rules:

- Outliers: a single vote for a class is dropped.
- `majority`: the class with more than half of the remaining votes, else unknown.
- `distribution` (there the modes `crossentropy` and `probability`): classes are taken by votes, largest first, equal ones
  together, until they hold three quarters of the remaining votes or are three. Unknown and NF end this, and count only if they
  come first. A row is unknown if more than three classes were taken, or if they hold half of the votes or less.
- Eight classes: rows that are unknown or NF, or have no image name, are left out; the rest is scaled to a sum of 1.

With ten classes, as in stn-resnet50, no row is left out: one without a majority is unknown, one without an image name has ten
votes for NF. That paper only says "ten labels", so its rule for rows without a majority may differ. `min_agreement` is ours,
not the paper's: it counts the winner's share of all votes, outliers included.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from mien.datasets.files import Tree, file_names, is_archive
from mien.datasets.tables import USAGE, csv_rows
from mien.errors import DataError

VOTES_FILE = "fer2013new.csv"

COLUMNS = (
    "neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF",
)  # fmt: skip
"""Names of the votes in FER+'s files, in the order of the label set `ferplus10`."""

UNKNOWN = 8


@dataclass(frozen=True, slots=True, eq=False)
class Votes:
    """The votes in a file.

    Attributes:
        names: File name of each image; empty where the row is not a face.
        counts: Votes for each of `COLUMNS`, int64 (N, 10).
        usage: FER2013's word for the split of each row; empty where the file does not name splits.
    """

    names: tuple[str, ...]
    counts: NDArray[np.int64]
    usage: tuple[str, ...] = ()


# Files


def find_votes(source: Path, votes: str | None = None) -> Tree:
    """Return the file of votes for a table: in its folder or archive, next to it, or at a path of its own.

    Args:
        source: The table, or a folder or zip archive with it.
        votes: Name of the file there, or its path; `VOTES_FILE` by default.

    Raises:
        DataError: There is none; says where to get it.
    """
    name = votes or VOTES_FILE
    if is_archive(source):
        tree, names = file_names(source, [])
        for inside in names:
            if PurePosixPath(inside).name == name:
                return tree / inside
    next_to = (source if source.is_dir() else source.parent) / name
    for file in (next_to, Path(name)) if votes else (next_to,):
        if os.path.isfile(file):  # noqa: PTH113 (a Path raises for a name that is too long)
            return file
    raise DataError(
        f"{next_to}: no such file; get FER+'s votes from github.com/microsoft/FERPlus, or pass their path as `votes`"
    )


def read_votes(file: Tree) -> Votes:
    """Return the votes in `fer2013new.csv`: a row for each row of FER2013's table, in its order.

    Raises:
        DataError: A row is wrong, or it is another file; says which and why.
    """
    rows = csv_rows(file)
    if next(rows, (0, []))[1] != ["Usage", "Image name", *COLUMNS]:
        raise DataError(f"{file}: its first line is not 'Usage,Image name,{','.join(COLUMNS)}'; is it {VOTES_FILE}?")
    found, usage = list[tuple[int, str, list[str]]](), list[str]()
    for number, (word, name, *votes) in rows:
        if word not in USAGE:
            raise DataError(f"{file}: row {number} has the Usage {word[:40]!r}, not one of {', '.join(USAGE)}")
        found.append((number, name, votes))
        usage.append(word)
    return count_votes(file, found, tuple(usage))


def count_votes(file: Tree, rows: Sequence[tuple[int, str, list[str]]], usage: tuple[str, ...] = ()) -> Votes:
    """Return the votes in rows of (row number, image name, votes as text).

    Raises:
        DataError: A vote is not a whole number, or a row has no votes.
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
    """Refuse votes that do not belong to the rows of a table.

    Raises:
        DataError: Their number differs, or a row is in another split.
    """
    if len(split) != len(votes.usage):
        raise DataError(
            f"{source}: has {len(split):,} faces, but {VOTES_FILE} has {len(votes.usage):,} rows; are both complete?"
        )
    differ = np.flatnonzero(split != np.array([USAGE[word] for word in votes.usage]))
    if len(differ):
        row = int(differ[0])
        raise DataError(
            f"{source}: {VOTES_FILE} puts face {row + 1} in {votes.usage[row]}, the table does not; "
            "both must be in their original order"
        )


# Labels


def majority(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return 1 for the class with more than half of the votes without outliers, else for unknown, (N, 10).

    >>> majority(np.array([[0, 6, 1, 1, 1, 1, 0, 0, 0, 0], [4, 4, 2, 0, 0, 0, 0, 0, 0, 0]])).argmax(axis=1)
    array([1, 8])

    Args:
        counts: Votes for each of `COLUMNS`, (N, 10).
    """
    left = np.where(counts > 1, counts, 0)
    clear = 2 * left.max(axis=1) > left.sum(axis=1)
    return np.eye(len(COLUMNS))[np.where(clear, left.argmax(axis=1), UNKNOWN)]


def distribution(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the shares of the classes with the largest votes, (N, 10), rows of sum 1; see the rule above.

    >>> distribution(np.array([[5, 0, 0, 3, 1, 0, 0, 0, 1, 0]]))[0].tolist()
    [0.625, 0.0, 0.0, 0.375, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]

    Args:
        counts: Votes for each of `COLUMNS`, (N, 10).
    """
    left = np.where(counts > 1, counts, 0)
    patterns, which = np.unique(left, axis=0, return_inverse=True)  # many rows are alike
    shares = np.array([_leading(pattern) for pattern in patterns]).reshape(-1, len(COLUMNS))
    return (shares / shares.sum(axis=1, keepdims=True))[which.reshape(-1)]


def _leading(left: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the votes that count in one row without outliers, (10,)."""
    taken = np.zeros(len(COLUMNS))
    for level in sorted(set(left[left > 0].tolist()), reverse=True):
        if taken.sum() >= 0.75 * left.sum() or np.count_nonzero(taken) >= 3:
            break
        equal = np.flatnonzero(left == level)
        taken[equal[equal < UNKNOWN]] = level
        if equal[-1] >= UNKNOWN:
            if not taken.any():
                taken[equal[0]] = level
            break
    clear = taken.sum() > 0.5 * left.sum() and np.count_nonzero(taken) <= 3
    return taken if clear else np.eye(len(COLUMNS))[UNKNOWN]


# FER2013's labels, softened


def soften(
    counts: NDArray[np.int64], target: NDArray[np.int64], train: NDArray[np.bool_], num_classes: int
) -> NDArray[np.float32]:
    """Return soft labels for FER2013: half of each row's own label and half of `expected_labels`, float32 (N, K).

    FER2013's labels are noisy: the best guess from ten people's votes meets 67.2 % of PublicTest's. A label's deviation from
    its expectation given the image is noise, and the votes tell a good part of that expectation. The mean of the soft labels
    is that of the labels, so they keep FER2013's habits of labelling, unlike FER+'s own labels.

    Args:
        counts: Votes, (N, V).
        target: FER2013's label of each row, (N,).
        train: The rows to fit on, (N,); they have two classes or more.
        num_classes: K; a class that no row of `train` has is never expected.
    """
    return ((np.eye(num_classes)[target] + expected_labels(counts, target, train, num_classes)) / 2).astype(np.float32)


def expected_labels(
    counts: NDArray[np.int64], target: NDArray[np.int64], train: NDArray[np.bool_], num_classes: int
) -> NDArray[np.float64]:
    """Return P(label | votes) of each row, (N, K), by logistic regression on `train` alone; arguments as in `soften`."""
    from sklearn.linear_model import LogisticRegression  # here: importing it takes a second, and few need it

    features = np.concatenate([np.sqrt(counts), counts], axis=1)
    model = LogisticRegression(max_iter=5000).fit(features[train], target[train])
    expected = np.zeros((len(counts), num_classes))
    expected[:, model.classes_] = model.predict_proba(features)
    return expected
