"""Protocols: which rows of a corpus are for training, which select the best epoch, and which are the test.

Each function takes a corpus and returns it with other splits, named train, val (if wanted) and test. A row with split -1 is in
none of them and stays out. Validation rows come from training, never from the test. scikit-learn draws shares and folds, seeded
by a `RandomState`, whose numbers NumPy promises never to change. `mien.datasets.protocols.protocol_file` stores the rows
themselves, and `mien.datasets.protocols.mapped` changes the classes.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any, Literal, get_args

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from mien.datasets.corpus import Corpus
from mien.errors import DataError, require
from mien.labels import nfc
from mien.registry import Registry, nearest

PROTOCOLS: Registry[Corpus] = Registry("protocol")

Unit = Literal["image", "sequence", "subject"]
"""What a protocol keeps in one split."""

OUT = -1
"""Split index of a row that is in no split."""

_MAPPED = re.compile("^(?:labels of .*?; )+")
"""What `mapped` puts before a protocol's name; it does not concern the splits and stays when they are replaced."""


def apply_protocol(corpus: Corpus, part: Mapping[str, Any]) -> Corpus:
    """Return a corpus with the splits of one protocol. Call it again to apply another protocol to the result.

    Args:
        corpus: The corpus.
        part: One protocol as in a recipe: its `name` and arguments, such as
            `{"name": "kfold", "folds": 10, "fold": 3, "by": "subject"}`.

    Raises:
        UnknownNameError: There is no such protocol; lists the nearest names.
        DataError: An argument is unknown, missing or out of range, or the corpus cannot be split in this way.
    """
    arguments = {str(key): value for key, value in part.items()}
    name = str(arguments.pop("name", ""))
    make = PROTOCOLS.get(name)
    known = dict(list(inspect.signature(make).parameters.items())[1:])
    for key in arguments:
        if key not in known:
            raise DataError(f"the protocol {name} has no argument {key!r}{nearest(key, list(known))}")
    for key, parameter in known.items():
        if parameter.default is inspect.Parameter.empty and key not in arguments:
            raise DataError(f"the protocol {name} needs the argument {key!r}")
    return make(corpus, **arguments)


@PROTOCOLS.register("official")
def official(corpus: Corpus, val: float = 0.0, by: Unit | None = None, seed: int = 0) -> Corpus:
    """Return a corpus with the splits its authors gave it.

    Args:
        corpus: The corpus, as loaded.
        val: Share of train that becomes val; 0 leaves the splits as they are. Otherwise an official val without a test
            (AffectNet, whose test is not published) becomes the test, because papers report it.
        by: What stays together: an image, a sequence or a subject; by default a sequence if the corpus names them, else an
            image.
        seed: Seed of the draw.

    Raises:
        DataError: The splits were replaced before, or `val` is given and the corpus has val and test already, or no train.
    """
    _check(val=val, by=by, seed=seed)
    labels, protocol = _parts(corpus)
    if protocol != "official":
        raise DataError(f"the official splits of {corpus.name} were replaced ({corpus.protocol}); load it again")
    if not val:
        return corpus
    rest = ("test",) if corpus.splits == ("train", "val") else corpus.splits[1:]
    if corpus.splits[0] != "train" or "val" in rest:
        raise DataError(f"{corpus.name} has the splits {', '.join(corpus.splits)}; leave val out, or use another protocol")
    split = np.where(corpus.rows.split > 0, corpus.rows.split + 1, corpus.rows.split)
    train = np.flatnonzero(split == 0)
    by = _unit_of(corpus, train, by)
    split[_take_share(corpus, train, val, by, RandomState(seed))] = 1
    return _with_splits(corpus, split, ("train", "val", *rest), f"{labels}official{_of_val(val, by)}, seed {seed}")


@PROTOCOLS.register("random_split")
def random_split(corpus: Corpus, test: float = 0.2, val: float = 0.0, seed: int = 0, by: Unit | None = None) -> Corpus:
    """Return a corpus with a random test split that has the same share of every class.

    Args:
        corpus: The corpus; its own splits are merged first.
        test: Share of the images that becomes test, in (0, 1); by sequence or subject, the nearest share that a number of at
            most 20 folds makes.
        val: Share of the rest that becomes val, in [0, 1), whole units of `by`.
        seed: Seed of the draw.
        by: What stays together: an image, a sequence or a subject; by default a sequence if the corpus names them, else an
            image.

    Raises:
        DataError: The corpus does not name its subjects or sequences or has only one, a share is out of range, or a class has
            only one image.
    """
    _check(test=test, val=val, seed=seed, by=by)
    random, rows = RandomState(seed), _in_use(corpus)
    by = _unit_of(corpus, rows, by)
    name = f"random {100 * test:g} % test by {by}{_of_val(val, by)}, seed {seed}"
    return _resplit(corpus, _take_share(corpus, rows, test, by, random), val, by, random, name)


@PROTOCOLS.register("kfold")
def kfold(corpus: Corpus, folds: int = 10, fold: int = 0, by: Unit | None = None, val: float = 0.0, seed: int = 0) -> Corpus:
    """Return a corpus whose test split is one of k folds; the folds of one seed are disjoint and together are the corpus.

    Args:
        corpus: The corpus; its own splits are merged first.
        folds: Number of folds.
        fold: Which one is test, from 0.
        by: What stays together: an image, a sequence or a subject; by default a sequence if the corpus names them, else an
            image. Folds are as alike in their classes as possible.
        val: Share of the other folds that becomes val, whole units of `by`.
        seed: Seed of the folds and of the validation rows.

    Raises:
        DataError: The corpus does not name its subjects or sequences, has fewer than folds, or an argument is out of range.
    """
    _check(folds=folds, fold=fold, by=by, val=val, seed=seed)
    if fold >= folds:
        raise DataError(f"the protocol's fold is {fold}; the last of {folds} folds is {folds - 1}")
    random = RandomState(seed)
    rows = _in_use(corpus)
    by = _unit_of(corpus, rows, by)
    test = rows[_assign_folds(corpus, rows, folds, by, random) == fold]
    return _resplit(corpus, test, val, by, random, f"{folds}-fold by {by}, fold {fold}{_of_val(val, by)}, seed {seed}")


@PROTOCOLS.register("leave_one_subject_out")
def leave_one_subject_out(corpus: Corpus, subject: str, val: float = 0.0, seed: int = 0, by: Unit | None = None) -> Corpus:
    """Return a corpus whose test split is one person.

    Args:
        corpus: The corpus; its own splits are merged first.
        subject: One of `subjects(corpus)`.
        val: Share of the others' images that becomes val, whole units of `by`.
        seed: Seed of the validation rows.
        by: What stays together in val or in train: an image, a sequence or a subject; by default a subject.

    Raises:
        DataError: The corpus does not name its subjects, or does not have this one.
    """
    _check(val=val, seed=seed, by=by)
    by = by or "subject"
    if not isinstance(subject, str):
        raise DataError(f"leave_one_subject_out's subject is {subject!r}; give its name as text, subject: '{subject}'")
    known, subject = subjects(corpus), nfc(subject)
    if subject not in known:
        raise DataError(f"{corpus.name} has no subject {subject!r}; it has {len(known)}, from {known[0]!r} to {known[-1]!r}")
    test = [row for row in _in_use(corpus) if corpus.rows.subjects[row] == subject]
    name = f"leave one subject out, {subject}" + (f"{_of_val(val, by)}, seed {seed}" if val else "")
    return _resplit(corpus, np.array(test), val, by, RandomState(seed), name)


@PROTOCOLS.register("balanced")
def balanced(corpus: Corpus, per_class: int, split: str = "train", seed: int = 0) -> Corpus:
    """Return a corpus with the same number of images per class in one split; the others of that split go to no split.

    With one seed, a smaller subset is part of every larger one.

    Args:
        corpus: The corpus, already split.
        per_class: Number of images to keep per class.
        split: The split to reduce.
        seed: Seed of the draw.

    Raises:
        DataError: The split does not exist, or has too few images of a class.
    """
    _check(per_class=per_class, seed=seed)
    rows, random = corpus.where(split), RandomState(seed)
    changed = corpus.rows.split.copy()
    for target, name in enumerate(corpus.classes):
        ours = rows[corpus.target[rows] == target]
        if len(ours) < per_class:
            raise DataError(f"{corpus.name} has {len(ours):,} images of {name} in {split}, not {per_class:,}; lower per_class")
        changed[random.permutation(ours)[per_class:]] = OUT
    protocol = f"{corpus.protocol}; {per_class} images a class in {split}, seed {seed}"
    return replace(corpus, rows=replace(corpus.rows, split=changed), protocol=protocol)


def subjects(corpus: Corpus) -> tuple[str, ...]:
    """Return the people in a corpus, by name.

    Raises:
        DataError: The corpus does not name them.
    """
    _unit_numbers(corpus, _in_use(corpus), "subject")
    return tuple(sorted({corpus.rows.subjects[row] for row in _in_use(corpus)}))


# Shares and folds


def _unit_of(corpus: Corpus, rows: NDArray[np.int64], by: Unit | None) -> Unit:
    """Return what stays together: `by`, or by default a sequence if any of the rows names one, else an image.

    Copies of a photo and neighbouring frames are one sequence, so nobody trains on near copies of a test image by accident.
    """
    if by is not None:
        return by
    names = corpus.rows.sequences
    return "sequence" if names and any(names[row] for row in rows) else "image"


def _take_share(corpus: Corpus, rows: NDArray[np.int64], share: float, by: Unit, random: RandomState) -> NDArray[np.int64]:
    """Return a share of some rows, in whole units: of sequences or subjects, so many of at most 20 folds."""
    if len(rows) == 0:
        raise DataError(f"{corpus.name}: the test split takes every image, which leaves train empty")
    if by == "image":
        return _draw(corpus, rows, share, random)
    max_folds = max(2, min(20, len(np.unique(_unit_numbers(corpus, rows, by))), int(np.bincount(corpus.target[rows]).max())))
    part = Fraction(share).limit_denominator(max_folds)
    part = min(max(part, Fraction(1, max_folds)), 1 - Fraction(1, max_folds))
    return rows[_assign_folds(corpus, rows, part.denominator, by, random) < part.numerator]


def _draw(corpus: Corpus, rows: NDArray[np.int64], share: float, random: RandomState) -> NDArray[np.int64]:
    """Return a share of some rows, the same share of every class."""
    target = corpus.target[rows]
    counts = np.bincount(target, minlength=len(corpus.classes))
    for name, count in zip(corpus.classes, counts, strict=True):
        if count == 1:
            raise DataError(f"{corpus.name} has one image of {name} to split; it needs two, one for each side")
    drawn = int(np.ceil(share * len(rows)))
    if min(drawn, len(rows) - drawn) < np.count_nonzero(counts):
        raise DataError(
            f"{corpus.name}: {100 * share:g} % of {len(rows):,} images leaves one side with fewer images than classes"
        )
    splitter = require("sklearn.model_selection", "train").StratifiedShuffleSplit(1, test_size=share, random_state=random)
    _, chosen = next(splitter.split(target, target))
    return rows[chosen]


def _assign_folds(corpus: Corpus, rows: NDArray[np.int64], folds: int, by: Unit, random: RandomState) -> NDArray[np.int64]:
    """Return the fold of each of some rows, int64 (len(rows),); the folds are as alike in their classes as possible."""
    target, unit = corpus.target[rows], _unit_numbers(corpus, rows, by)
    for what, found in ((f"{by}s", unit.max() + 1), ("images of its largest class", np.bincount(target).max())):
        if folds > found:
            raise DataError(f"{corpus.name} cannot be divided into {folds} folds by {by}: the number of {what} is {found}")
    selection = require("sklearn.model_selection", "train")
    if by == "image":
        splitter = selection.StratifiedKFold(folds, shuffle=True, random_state=random)
    else:  # before scikit-learn 1.8 its own shuffling loses the balance; the units' numbers break ties, so shuffle those
        splitter, unit = selection.StratifiedGroupKFold(folds), random.permutation(unit.max() + 1)[unit]
    fold = np.empty(len(rows), np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer images than folds is missing in some
        for i, (_, chosen) in enumerate(splitter.split(target, target, None if by == "image" else unit)):
            fold[chosen] = i
    return fold


def _unit_numbers(corpus: Corpus, rows: NDArray[np.int64], by: Unit) -> NDArray[np.int64]:
    """Return the number, from 0, of the image, sequence or subject of each of some rows, int64 (len(rows),)."""
    if by == "image":
        return np.arange(len(rows))
    names = corpus.rows.subjects if by == "subject" else corpus.rows.sequences
    for row in rows:
        if not names or not names[row]:
            which = corpus.origin(row) if names else "its images"
            raise DataError(f"{corpus.name} does not name the {by} of {which}, so it cannot be split by {by}; use by: image")
    people = corpus.rows.subjects if by == "sequence" else ()  # two people may both have a sequence 001
    if people:
        unnamed = {names[row] for row in rows if not people[row]}
        if mixed := sorted(unnamed & {names[row] for row in rows if people[row]}):
            raise DataError(
                f"{corpus.name}: some images of the sequence {mixed[0]} have a subject and others do not, so they cannot stay "
                "together; complete the subjects"
            )
    keys = [(people[row] if people else "", names[row]) for row in rows]
    numbers = {key: i for i, key in enumerate(sorted(set(keys)))}
    return np.array([numbers[key] for key in keys], np.int64)


# Parts of the protocols


def _resplit(corpus: Corpus, test: NDArray[Any], val: float, by: Unit, random: RandomState, name: str) -> Corpus:
    """Return a corpus with the test split `test`; the other rows in use are train and, by share, val."""
    names = ("train", "val", "test") if val else ("train", "test")
    split = np.minimum(corpus.rows.split, 0)  # 0, or OUT
    split[test] = len(names) - 1
    if val:
        split[_take_share(corpus, np.flatnonzero(split == 0), val, by, random)] = 1
    labels, protocol = _parts(corpus)
    if protocol != "official" and ((split == OUT) & (corpus.target >= 0)).any():  # a subset was taken before
        labels = f"{corpus.protocol}; "
    return _with_splits(corpus, split, names, labels + name)


def _with_splits(corpus: Corpus, split: NDArray[np.int8], names: tuple[str, ...], protocol: str) -> Corpus:
    for i, name in enumerate(names):
        if not (split == i).any():
            raise DataError(f"{corpus.name}: the protocol '{protocol}' leaves {name} empty; use fewer folds or other shares")
    return replace(corpus, rows=replace(corpus.rows, split=split, splits=names), protocol=protocol)


def _parts(corpus: Corpus) -> tuple[str, str]:
    """Return the parts of a protocol's name: about the labels, which goes before another name, and about the splits."""
    protocol = _MAPPED.sub("", corpus.protocol)
    return corpus.protocol.removesuffix(protocol), protocol


def _in_use(corpus: Corpus) -> NDArray[np.int64]:
    rows = np.flatnonzero(corpus.rows.split != OUT)
    if len(rows) == 0:
        raise DataError(f"{corpus.name}: none of its images is in a split")
    return rows


def _check(**arguments: Any) -> None:
    """Refuse an argument that is out of range."""
    units = list(get_args(Unit))
    lowest = {"folds": 2, "fold": 0, "per_class": 1, "seed": 0}
    for key, value in arguments.items():
        if key == "by":
            if value is not None and value not in units:
                raise DataError(f"the protocol's by is {value!r}{nearest(str(value), units)}")
        elif key in lowest:
            if not (_is_number(value, int) and lowest[key] <= value < 2**32):
                raise DataError(f"the protocol's {key} is {value!r}, not a whole number from {lowest[key]} to 2**32 - 1")
        elif not (_is_number(value, float) and (0 <= value < 1 if key == "val" else 0 < value < 1)):
            raise DataError(f"the protocol's {key} is {value!r}, not a share between 0 and 1")


def _is_number(value: Any, kind: type) -> bool:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return whole or (kind is float and isinstance(value, float))


def _of_val(val: float, by: str) -> str:
    return f", {100 * val:g} % of train for val by {by}" if val else ""
