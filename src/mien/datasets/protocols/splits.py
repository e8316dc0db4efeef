"""Protocols: which rows of a corpus are for training, which for choosing the best epoch, and which for the test.

Each function takes a corpus and returns it with other splits, called train, val (if asked for) and test; a row of split -1 is
in none of them and stays out. The validation rows are taken out of training, never out of test. Folds and draws are
scikit-learn's, seeded from a `RandomState` of their own, whose numbers NumPy promises never to change;
`mien.datasets.protocols.protocol_file` keeps the rows themselves, and `mien.datasets.protocols.mapped` changes the classes.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from mien.datasets.corpus import Corpus
from mien.datasets.protocols.folds import Unit, carve, deal, unit_of, units
from mien.errors import DataError
from mien.registry import Registry, nearest

PROTOCOLS: Registry[Corpus] = Registry("protocol")

OUT = -1
"""Split index of a row that is in no split."""

_MAPPED = re.compile("^(?:labels of .*?; )+")
"""What `mapped` puts before a protocol's name; it says nothing of the splits and stays when they are replaced."""


def apply_protocol(corpus: Corpus, part: Mapping[str, Any]) -> Corpus:
    """Return a corpus split as a recipe says; protocols follow one another where this is called again.

    Args:
        corpus: The corpus.
        part: `name` and the protocol's own arguments, such as `{"name": "kfold", "folds": 10, "fold": 3, "by": "subject"}`.

    Raises:
        UnknownNameError: No such protocol; names the nearest.
        DataError: An argument is unknown, missing or out of range, or the corpus cannot be split so.
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
    """Return a corpus with the splits its makers gave it.

    Args:
        corpus: The corpus, as loaded.
        val: Share of train that becomes val; 0 leaves the splits alone. Makers' validation rows (AffectNet, whose test rows are
            not given out) are the test then: they are what papers report.
        by: What stays on one side: an image, a sequence or a subject; None is a sequence where the corpus names them, else an
            image.
        seed: Seed of the draw.

    Raises:
        DataError: The splits were replaced before, or `val` is asked of a corpus that has val and test, or no train.
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
    by = unit_of(corpus, train, by)
    split[carve(corpus, train, val, by, RandomState(seed))] = 1
    return _with_splits(corpus, split, ("train", "val", *rest), f"{labels}official{_of_val(val, by)}, seed {seed}")


@PROTOCOLS.register("random_split")
def random_split(corpus: Corpus, test: float = 0.2, val: float = 0.0, seed: int = 0, by: Unit | None = None) -> Corpus:
    """Return a corpus with a random test split that holds the same share of every class.

    Args:
        corpus: The corpus; its own splits are put together first.
        test: Share of the images that becomes test, in (0, 1); by sequence or subject the nearest that is so many of at most
            20 folds.
        val: Share of the rest that becomes val, in [0, 1), whole units of `by`.
        seed: Seed of the draw.
        by: What stays on one side: an image, a sequence or a subject; None is a sequence where the corpus names them, else an
            image.

    Raises:
        DataError: The corpus names no subjects or sequences or has one only, a share is out of range, or a class has one image
            only.
    """
    _check(test=test, val=val, seed=seed, by=by)
    random, rows = RandomState(seed), _in_use(corpus)
    by = unit_of(corpus, rows, by)
    name = f"random {_percent(test)} test by {by}{_of_val(val, by)}, seed {seed}"
    return _resplit(corpus, carve(corpus, rows, test, by, random), val, by, random, name)


@PROTOCOLS.register("kfold")
def kfold(corpus: Corpus, folds: int = 10, fold: int = 0, by: Unit | None = None, val: float = 0.0, seed: int = 0) -> Corpus:
    """Return a corpus whose test split is one of k folds; the folds of a seed are disjoint and together are the corpus.

    Args:
        corpus: The corpus; its own splits are put together first.
        folds: How many folds.
        fold: Which one is test, from 0.
        by: What stays in one fold: an image, a sequence or a subject; None is a sequence where the corpus names them, else an
            image. Images are dealt out class by class; sequences and subjects so that the folds' classes are as alike as can
            be.
        val: Share of the other folds that becomes val, whole units of `by`.
        seed: Seed of the folds and of the validation rows.

    Raises:
        DataError: The corpus names no subjects or sequences, has fewer of them than folds, or an argument is out of range.
    """
    _check(folds=folds, fold=fold, by=by, val=val, seed=seed)
    if fold >= folds:
        raise DataError(f"the protocol's fold is {fold}; of {folds} folds the last is {folds - 1}")
    random = RandomState(seed)
    rows = _in_use(corpus)
    by = unit_of(corpus, rows, by)
    test = rows[deal(corpus, rows, folds, by, random) == fold]
    return _resplit(corpus, test, val, by, random, f"{folds}-fold by {by}, fold {fold}{_of_val(val, by)}, seed {seed}")


@PROTOCOLS.register("leave_one_subject_out")
def leave_one_subject_out(corpus: Corpus, subject: str, val: float = 0.0, seed: int = 0, by: Unit | None = None) -> Corpus:
    """Return a corpus whose test split is one person.

    Args:
        corpus: The corpus; its own splits are put together first.
        subject: One of `subjects(corpus)`.
        val: Share of the others' images that becomes val, whole units of `by`.
        seed: Seed of the validation rows.
        by: What stays in val or in train: an image, a sequence or a subject; None is a subject, as of the test.

    Raises:
        DataError: The corpus names no subjects, or not this one.
    """
    _check(val=val, seed=seed, by=by)
    by = by or "subject"
    if not isinstance(subject, str):
        raise DataError(f"leave_one_subject_out's subject is {subject!r}; give its name as text, subject: '{subject}'")
    known = subjects(corpus)
    if subject not in known:
        raise DataError(f"{corpus.name} has no subject {subject!r}; its {len(known)} go from {known[0]!r} to {known[-1]!r}")
    test = [row for row in _in_use(corpus) if corpus.rows.subjects[row] == subject]
    name = f"leave one subject out, {subject}" + (f"{_of_val(val, by)}, seed {seed}" if val else "")
    return _resplit(corpus, np.array(test), val, by, RandomState(seed), name)


@PROTOCOLS.register("balanced")
def balanced(corpus: Corpus, per_class: int, split: str = "train", seed: int = 0) -> Corpus:
    """Return a corpus of which one split keeps the same number of images of every class; its other images go to no split.

    Of one seed, a smaller subset is part of every larger one.

    Args:
        corpus: The corpus, already split.
        per_class: Images kept of each class.
        split: The split that is made smaller.
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
    units(corpus, _in_use(corpus), "subject")
    return tuple(sorted({corpus.rows.subjects[row] for row in _in_use(corpus)}))


def _resplit(corpus: Corpus, test: NDArray[Any], val: float, by: Unit, random: RandomState, name: str) -> Corpus:
    """Return a corpus of which `test` is the test split and the other rows in use are train and, by share, val."""
    names = ("train", "val", "test") if val else ("train", "test")
    split = np.minimum(corpus.rows.split, 0)  # 0, or OUT
    split[test] = len(names) - 1
    if val:
        split[carve(corpus, np.flatnonzero(split == 0), val, by, random)] = 1
    labels, protocol = _parts(corpus)
    if protocol != "official" and ((split == OUT) & (corpus.target >= 0)).any():  # a subset was taken before
        labels = f"{corpus.protocol}; "
    return _with_splits(corpus, split, names, labels + name)


def _with_splits(corpus: Corpus, split: NDArray[np.int8], names: tuple[str, ...], protocol: str) -> Corpus:
    for i, name in enumerate(names):
        if not (split == i).any():
            raise DataError(f"{corpus.name}: the protocol '{protocol}' leaves {name} empty; take fewer folds or other shares")
    return replace(corpus, rows=replace(corpus.rows, split=split, splits=names), protocol=protocol)


def _parts(corpus: Corpus) -> tuple[str, str]:
    """Return what a corpus's protocol says of its labels, to be put before a name, and what it says of its splits."""
    protocol = _MAPPED.sub("", corpus.protocol)
    return corpus.protocol.removesuffix(protocol), protocol


def _in_use(corpus: Corpus) -> NDArray[np.int64]:
    rows = np.flatnonzero(corpus.rows.split != OUT)
    if len(rows) == 0:
        raise DataError(f"{corpus.name}: none of its images is in a split")
    return rows


def _check(**arguments: Any) -> None:
    """Refuse an argument out of its range."""
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


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def _of_val(val: float, by: str) -> str:
    return f", {_percent(val)} of train for val by {by}" if val else ""
