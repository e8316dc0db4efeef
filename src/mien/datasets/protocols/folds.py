"""Shares and folds of a corpus, drawn by scikit-learn: by image, by sequence or by subject."""

from __future__ import annotations

import warnings
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from mien.datasets.corpus import Corpus
from mien.errors import DataError, require

Unit = Literal["image", "sequence", "subject"]


def unit_of(corpus: Corpus, rows: NDArray[np.int64], by: Unit | None) -> Unit:
    """Return what stays on one side: `by`, or if that is None a sequence where some rows name theirs, else an image.

    Copies of one photo and neighbouring frames are one sequence, so nobody trains on their like unless they ask for it.
    """
    if by is not None:
        return by
    names = corpus.rows.sequences
    return "sequence" if names and any(names[row] for row in rows) else "image"


def carve(corpus: Corpus, rows: NDArray[np.int64], share: float, by: Unit, random: RandomState) -> NDArray[np.int64]:
    """Return a share of some rows, whole units of `by`.

    Of sequences or subjects it is the nearest share that is so many of at most 20 folds.

    Raises:
        DataError: The rows cannot be divided so.
    """
    if len(rows) == 0:
        raise DataError(f"{corpus.name}: the test split takes every image, which leaves train empty")
    if by == "image":
        return draw(corpus, rows, share, random)
    most = max(2, min(20, len(np.unique(units(corpus, rows, by))), int(np.bincount(corpus.target[rows]).max())))
    part = Fraction(share).limit_denominator(most)
    part = min(max(part, Fraction(1, most)), 1 - Fraction(1, most))
    return rows[deal(corpus, rows, part.denominator, by, random) < part.numerator]


def draw(corpus: Corpus, rows: NDArray[np.int64], share: float, random: RandomState) -> NDArray[np.int64]:
    """Return a share of some rows, of every class alike.

    Raises:
        DataError: A class has one image, or one side would have fewer images than there are classes.
    """
    target = corpus.target[rows]
    counts = np.bincount(target, minlength=len(corpus.classes))
    for name, count in zip(corpus.classes, counts, strict=True):
        if count == 1:
            raise DataError(f"{corpus.name} has one image of {name} to split; it takes two, one for each side")
    drawn = int(np.ceil(share * len(rows)))
    if min(drawn, len(rows) - drawn) < np.count_nonzero(counts):
        raise DataError(
            f"{corpus.name}: {100 * share:g} % of {len(rows):,} images leaves a side with fewer images than classes"
        )
    splitter = require("sklearn.model_selection", "train").StratifiedShuffleSplit(1, test_size=share, random_state=random)
    _, chosen = next(splitter.split(target, target))
    return rows[chosen]


def deal(corpus: Corpus, rows: NDArray[np.int64], folds: int, by: Unit, random: RandomState) -> NDArray[np.int64]:
    """Return the fold of each of some rows, int64 (len(rows),).

    Images are dealt out class by class; sequences and subjects so that the folds' classes are as alike as can be.

    Raises:
        DataError: There are fewer units, or fewer images of every class, than folds.
    """
    target, unit = corpus.target[rows], units(corpus, rows, by)
    for what, found in ((f"{by}s", unit.max() + 1), ("images of its largest class", np.bincount(target).max())):
        if folds > found:
            raise DataError(f"{corpus.name} cannot be put into {folds} folds by {by}: the number of {what} is {found}")
    selection = require("sklearn.model_selection", "train")
    if by == "image":
        splitter = selection.StratifiedKFold(folds, shuffle=True, random_state=random)
    else:  # its own shuffling loses the balance before scikit-learn 1.8: shuffle the units' numbers, which break its ties
        splitter, unit = selection.StratifiedGroupKFold(folds), random.permutation(unit.max() + 1)[unit]
    fold = np.empty(len(rows), np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer images than folds is absent from some of them
        for i, (_, chosen) in enumerate(splitter.split(target, target, None if by == "image" else unit)):
            fold[chosen] = i
    return fold


def units(corpus: Corpus, rows: NDArray[np.int64], by: Unit) -> NDArray[np.int64]:
    """Return a number, from 0, for the image, sequence or subject of each of some rows, int64 (len(rows),).

    Raises:
        DataError: The corpus does not tell the sequence or subject of one of them.
    """
    if by == "image":
        return np.arange(len(rows))
    names = corpus.rows.subjects if by == "subject" else corpus.rows.sequences
    for row in rows:
        if not names or not names[row]:
            which = corpus.origin(row) if names else "its images"
            raise DataError(f"{corpus.name} does not tell the {by} of {which}, so it cannot be split by {by}; use by: image")
    people = corpus.rows.subjects if by == "sequence" else ()  # two people may each have a sequence 001
    if people:
        nobodys = {names[row] for row in rows if not people[row]}
        if mixed := sorted(nobodys & {names[row] for row in rows if people[row]}):
            raise DataError(
                f"{corpus.name}: some images of the sequence {mixed[0]} name a subject and others none, so they cannot be kept "
                "together; complete the subjects"
            )
    keys = [(people[row] if people else "", names[row]) for row in rows]
    numbers = {key: i for i, key in enumerate(sorted(set(keys)))}
    return np.array([numbers[key] for key in keys], np.int64)
