"""Any folder of pictures sorted by expression: `<class>/*`, or `train/<class>/*` with `val` and `test` beside it.

What a folder is called says what its pictures show; how an expression is spelt does not matter (`Happiness`, `happy`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mien import labels
from mien.datasets.corpus import CORPORA, Listing, Rows
from mien.datasets.reading.source import Tree, Walk, folders, open_tree, pictures
from mien.datasets.reading.split_names import SPLIT_NAMES
from mien.errors import DataError
from mien.labels import canonical
from mien.registry import nearest

SIDE = 224

ALL = "all"
"""The split of a corpus that has none."""


@dataclass(slots=True)
class Labelled:
    """What was found so far, an entry a picture.

    Attributes:
        files: The picture files.
        expressions: What each shows, in mien's words.
        splits: The split of each.
        skipped: A line for each entry that was left out.
    """

    files: list[Tree] = field(default_factory=list)
    expressions: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def add(self, file: Tree, expression: str, split: str) -> None:
        """Add a picture."""
        self.files.append(file)
        self.expressions.append(expression)
        self.splits.append(split)

    def rows(self, known: Sequence[str] | None, **others: Any) -> Rows:
        """Return the rows of a corpus.

        Args:
            known: Its classes, in order; None takes what was found, in alphabetical order.
            others: Further fields of `Rows`.
        """
        classes = tuple(known or sorted(set(self.expressions)))
        splits = in_order(self.splits)
        target, split = ({name: i for i, name in enumerate(names)} for names in (classes, splits))
        return Rows(
            classes,
            np.array([target[name] for name in self.expressions], np.int64),
            np.array([split[name] for name in self.splits], np.int8),
            splits,
            **others,
        )


def in_order(splits: Iterable[str]) -> tuple[str, ...]:
    """Return the names of splits, each once: training first, test after validation, then others by name.

    >>> in_order(["test", "extra", "train", "test"])
    ('train', 'test', 'extra')
    """
    usual = list(dict.fromkeys(SPLIT_NAMES.values()))
    return tuple(sorted(set(splits), key=lambda name: (usual.index(name) if name in usual else len(usual), name)))


@CORPORA.register("folder")
def read_folder(source: Path, label_set: str | None = None) -> Listing:
    """Return what a folder of pictures sorted by expression holds, in colour, 224x224 px.

    Args:
        source: A folder, or a zip archive of it, with `<class>/*`, or with `train`, `val` and `test` (any of them, in the usual
            spellings) that each hold `<class>/*`. Pictures deeper in a class's folder count; a folder around everything does
            not. Links are followed as `mien.datasets.reading.source.Walk` says.
        label_set: Name of the label set whose order the classes have; else they are in alphabetical order.

    Raises:
        DataError: A folder is not of the label set, split folders lie beside others, or there is no picture.
        LabelError: No such label set.
    """
    known = known_classes(label_set)
    tree, found = open_tree(source), Labelled()
    walk = Walk(tree, found.skipped)
    for split, outer, inner in _parts(source, tree, walk):
        found.skipped += (f"{file}: lies in no folder of a class" for file in pictures(outer))
        for folder in inner:
            expression = canonical(folder.name)
            if known is not None and expression not in known:
                raise DataError(f"{folder}: is not a class of {label_set}{nearest(expression, list(known))}")
            _read_class(folder, expression, split, walk, found)
    if not found.files:
        raise DataError(f"{source}: holds no pictures under <class> or train/<class>; is it the right folder?")
    return Listing(found.rows(known), found.files, (SIDE, SIDE), colour=True, skipped=tuple(found.skipped))


def known_classes(label_set: str | None) -> tuple[str, ...] | None:
    """Return the classes of a label set, None where none is given.

    Raises:
        DataError: It is no name.
        LabelError: No such label set.
    """
    if label_set is not None and not isinstance(label_set, str):
        raise DataError(f"label_set is {label_set!r}; give the name of one, such as 'fer2013'")
    return None if label_set is None else labels.label_set(label_set)


def _read_class(folder: Tree, expression: str, split: str, walk: Walk, found: Labelled) -> None:
    before = len(found.files)
    for file in walk.pictures(folder):
        found.add(file, expression, split)
    if len(found.files) == before:
        found.skipped.append(f"{folder}: holds no picture")


def _parts(source: Path, tree: Tree, walk: Walk) -> list[tuple[str, Tree, list[Tree]]]:
    """Return each split, its folder and the folders of classes in it."""
    inner = walk.folders(tree)
    while len(inner) == 1 and _surrounds(inner[0]):
        tree = inner[0]
        inner = walk.folders(tree)
    splits = [folder for folder in inner if folder.name.lower() in SPLIT_NAMES]
    if not splits:
        return [(ALL, tree, inner)]
    if splits != inner:
        other = next(folder.name for folder in inner if folder not in splits)
        raise DataError(f"{source}: holds the split folder {splits[0].name!r} beside {other!r}; keep folders of one kind there")
    order = list(SPLIT_NAMES)
    splits.sort(key=lambda folder: order.index(folder.name.lower()))
    return [(SPLIT_NAMES[folder.name.lower()], folder, walk.folders(folder)) for folder in splits]


def _surrounds(folder: Tree) -> bool:
    """Return whether the only folder there is stands around everything, and for no split or class."""
    words = {word for names in labels.LABEL_SETS.values() for word in names}
    if folder.name.lower() in SPLIT_NAMES or canonical(folder.name) in words:
        return False
    return bool(folders(folder)) and not pictures(folder)
