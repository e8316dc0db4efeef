"""Any folder of pictures sorted by expression: `<class>/*`, or `train/<class>/*` with `val` and `test`.

The name of a folder says what its pictures show. How an expression is spelt does not matter (`Happiness`, `happy`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mien import labels
from mien.datasets.corpus import CORPORA, Listing, Rows
from mien.datasets.files import SPLIT_NAMES, Tree, is_picture, open_tree, split_name, tree_order, walk
from mien.errors import DataError
from mien.labels import canonical, nfc
from mien.registry import nearest

SIDE = 224

ALL = "all"
"""The split of a corpus without splits."""


Labelled = tuple[Tree, str, str]
"""A picture file, the expression it shows in mien's words, and its split."""


def labelled_rows(found: Sequence[Labelled], classes: Sequence[str] | None, **others: Any) -> Rows:
    """Return the rows of a corpus.

    Args:
        found: Its pictures.
        classes: Its classes, in order; by default those that were found, in alphabetical order.
        others: Further fields of `Rows`.
    """
    _, expressions, parts = zip(*found, strict=True)
    classes, splits = tuple(classes or sorted(set(expressions))), sort_splits(parts)
    target = np.array([classes.index(name) for name in expressions], np.int64)
    return Rows(classes, target, np.array([splits.index(name) for name in parts], np.int8), splits, **others)


def sort_splits(splits: Iterable[str]) -> tuple[str, ...]:
    """Return the names of splits, each once: training first, test after validation, then others by name.

    >>> sort_splits(["test", "extra", "train", "test"])
    ('train', 'test', 'extra')
    """
    usual = list(dict.fromkeys(SPLIT_NAMES.values()))
    return tuple(sorted(set(splits), key=lambda name: (usual.index(name) if name in usual else len(usual), name)))


@CORPORA.register("folder", own_data=True)
def read_folder(source: Path, label_set: str | None = None, subject: str | None = None) -> Listing:
    """Return the pictures of a folder that is sorted by expression, in colour, 224x224 px.

    Args:
        source: A folder, or a zip archive of it, with `<class>/*`, or with `train`, `val` and `test` (any of them, in the usual
            spellings) that each contain `<class>/*`. Pictures deeper in a class's folder count, and a folder around everything
            does not matter. Links are followed as `mien.datasets.files.walk` says.
        label_set: Name of the label set whose order the classes have; by default they are in alphabetical order.
        subject: Regular expression that finds the person in a picture's path below its class's folder: its first group, or all
            of it without groups. `"S[0-9]+"` finds S010 in `happy/S010_006_00000014.png`. By default people are unknown.

    Raises:
        DataError: A folder is not in the label set, split folders are next to others, there is no picture, or `subject` is
            not a regular expression or finds nobody in a path.
        LabelError: There is no such label set.
    """
    classes = None if label_set is None else labels.label_set(label_set)
    found, skipped, subjects = list[Labelled](), list[str](), list[str]()
    try:
        person = None if subject is None else re.compile(subject)
    except re.error as error:
        raise DataError(f"subject: {subject!r} is not a regular expression ({error}); an example is 'S[0-9]+'") from None
    tree = open_tree(source)
    names = sorted(walk(tree, skipped), key=tree_order)
    pictures = [name for name in names if is_picture(name)]
    folders: dict[str, list[str]] = defaultdict(list)  # the names of the folders in each folder, which ends in "/"
    for name in names:
        if name.endswith("/"):
            parent, _, own = name[:-1].rpartition("/")
            if own:
                folders[f"{parent}/" if parent else ""].append(own)

    top = ""
    while len(folders[top]) == 1 and _is_wrapper(f"{top}{folders[top][0]}/", folders, pictures):
        top += f"{folders[top][0]}/"
    splits = [name for name in folders[top] if split_name(name)]
    if splits and splits != folders[top]:
        other = next(name for name in folders[top] if name not in splits)
        raise DataError(f"{source}: has the split folder {splits[0]!r} next to {other!r}; keep only folders of one kind there")
    splits.sort(key=lambda name: list(SPLIT_NAMES).index(name.lower()))
    for split, part in [(split_name(name) or ALL, f"{top}{name}/") for name in splits] or [(ALL, top)]:
        by_class: dict[str, list[str]] = defaultdict(list)
        for name in pictures:
            if name.startswith(part):
                folder, _, rest = name[len(part) :].partition("/")
                if rest:
                    by_class[folder].append(name)
                else:
                    skipped.append(f"{tree / name}: is not in the folder of a class")
        for folder in folders[part]:
            where, expression = tree / f"{part}{folder}", canonical(folder)
            if classes is not None and expression not in classes:
                raise DataError(f"{where}: is not a class of {label_set}{nearest(expression, list(classes))}")
            if not by_class[folder]:
                skipped.append(f"{where}: contains no picture")
            for name in by_class[folder]:
                found.append((tree / name, expression, split))
                if person is not None:
                    match = person.search(nfc(name[len(part) + len(folder) + 1 :]))
                    subjects.append("" if match is None else match[1 if person.groups else 0] or "")
                    if not subjects[-1]:
                        raise DataError(f"{tree / name}: subject {subject!r} finds nobody in this name; change the expression")
    if not found:
        raise DataError(f"{source}: contains no pictures under <class> or train/<class>; is it the right folder?")
    files = [file for file, _, _ in found]
    rows = labelled_rows(found, classes, subjects=tuple(subjects))
    return Listing(rows, files, (SIDE, SIDE), colour=True, skipped=tuple(skipped))


def _is_wrapper(folder: str, folders: dict[str, list[str]], pictures: Sequence[str]) -> bool:
    """Return whether the only folder there is surrounds everything, and is not a split or class itself."""
    own = folder.rstrip("/").rpartition("/")[2]
    known = {word for names in labels.LABEL_SETS.values() for word in names}
    if split_name(own) or canonical(own) in known:
        return False
    return bool(folders[folder]) and not any(name.startswith(folder) and "/" not in name[len(folder) :] for name in pictures)
