"""RAF-DB, single-label part, from the files people have: the official tree or Kaggle's.

Source: Li, Deng, Du 2017, "Reliable Crowdsourcing and Deep Locality-Preserving Learning for Expression Recognition in
the Wild". Aligned faces of 100x100 px in colour, seven classes counted from 1; 12,271 to train on and 3,068 to test on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from mien.datasets.corpus import CORPORA, Listing, Rows
from mien.datasets.files import Tree, file_names, is_picture, read_text
from mien.errors import DataError
from mien.labels import label_set
from mien.registry import nearest

SIDE = 100
SPLITS = ("train", "test")
LABELS = ("list_patition_label.txt", "list_partition_label.txt")
"""The official list of labels, misspelt as it is, and corrected."""

COUNTS = {"train": (1290, 281, 717, 4772, 1982, 705, 2524), "test": (329, 74, 160, 1185, 478, 162, 680)}
"""Images of each class in each official split."""

ATTRIBUTES = {
    "gender": ("male", "female", "unsure"),
    "race": ("Caucasian", "African-American", "Asian"),
    "age": ("0-3", "4-19", "20-39", "40-69", "70+"),
}
"""What `Annotation/manual` says of each face, in the order of its lines, and the words by number."""

MANUAL = "_manu_attri.txt"
"""End of the names in `Annotation/manual`: five lines with a landmark each, then the number of each attribute."""

LAYOUT = (
    "EmoLabel/list_patition_label.txt with Image/aligned/train_00001_aligned.jpg, or train/1 to train/7 with test/1 to test/7"
)


def read_attributes(source: Path, files: Sequence[str], wanted: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Return the gender, race or age of each picture, as RAF-DB's annotators saw it; "" where its file is missing.

    Args:
        source: The folder or zip archive.
        files: The pictures in it.
        wanted: Some of `gender`, `race` and `age`.

    Raises:
        DataError: The attribute is unknown, or its files are missing or wrong.
    """
    for name in wanted:
        if name not in ATTRIBUTES:
            raise DataError(
                f"rafdb has no column {name!r}{nearest(name, list(ATTRIBUTES))}; for others, give a table with --groups"
            )
    tree, names = file_names(source, [])
    notes = {PurePosixPath(name).name: name for name in names if name.endswith(MANUAL) and "compound" not in name.split("/")}
    if not notes:
        raise DataError(f"{source}: contains no Annotation/manual; unpack RAF-DB's manual.zip there to group by {wanted[0]}")
    values: dict[str, list[str]] = {name: [] for name in wanted}
    for file in files:
        note = notes.get(PurePosixPath(file).stem.removesuffix("_aligned") + MANUAL)
        found = dict.fromkeys(ATTRIBUTES, "") if note is None else _parse_note(read_text(tree / note), str(tree / note))
        for name in wanted:
            values[name].append(found[name])
    return values


def _parse_note(text: str, file: str) -> dict[str, str]:
    """Return the attributes in a file of `Annotation/manual`."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) != 8:
        raise DataError(f"{file}: has {len(lines)} lines, not 8 (five landmarks, then gender, race and age)")
    found = {}
    for line, (name, words) in zip(lines[5:], ATTRIBUTES.items(), strict=True):
        if line not in map(str, range(len(words))):
            raise DataError(f"{file}: has the {name} {line!r}, not a number from 0 to {len(words) - 1}")
        found[name] = words[int(line)]
    return found


@CORPORA.register("rafdb", counts=COUNTS, columns=read_attributes)
def read_rafdb(source: Path) -> Listing:
    """Return the content of a copy of RAF-DB, in colour, 100x100 px: splits train and test.

    Args:
        source: A folder, or a zip archive of it, with `EmoLabel/list_patition_label.txt` and `Image/aligned` (or the folder
            `basic` with both), or with Kaggle's `DATASET/train/1` to `7` and `DATASET/test/1` to `7`, whose tables
            (`train_labels.csv`) are not needed. A listed picture that is missing is left out and listed, and so is one of
            Kaggle's tree that is neither in `train` nor in `test`.

    Raises:
        DataError: A row of the list is wrong or given twice, a folder is not a class, or there is no picture.
    """
    skipped: list[str] = []
    tree, names = file_names(source, skipped)
    lists = [name for name in names if PurePosixPath(name).name in LABELS and "compound" not in PurePosixPath(name).parts]
    if len(lists) > 1:
        raise DataError(f"{source}: contains several lists of labels ({', '.join(lists)}); pass the folder of one of them")
    found = _read_list(source, tree, lists[0], set(names), skipped) if lists else _read_folders(source, tree, names, skipped)
    target = np.array([label for _, label, _ in found], np.int64)
    split = np.array([split for _, _, split in found], np.int8)
    files = [tree / name for name, _, _ in found]
    return Listing(Rows(label_set("rafdb"), target, split, SPLITS), files, (SIDE, SIDE), colour=True, skipped=tuple(skipped))


def _read_list(source: Path, tree: Tree, labels: str, names: set[str], skipped: list[str]) -> list[tuple[str, int, int]]:
    """Return (file, class, split) of the pictures that the official list names and the source has."""
    found: list[tuple[str, int, int]] = []
    aligned = PurePosixPath(labels).parent.parent / "Image" / "aligned"
    rows = _parse_list(read_text(tree / labels), str(tree / labels))
    for name, (number, label) in rows.items():
        picture = str(aligned / f"{PurePosixPath(name).stem}_aligned{PurePosixPath(name).suffix}")
        if picture in names:
            found.append((picture, label, SPLITS.index(name.split("_")[0])))
        else:
            skipped.append(f"{labels}: row {number}: {picture} is missing")
    if not found:
        raise DataError(
            f"{source}: none of the {len(rows):,} pictures that {labels} lists is in {aligned}; "
            f"unpack aligned.zip there (expected: {LAYOUT})"
        )
    return found


def _parse_list(text: str, file: str) -> dict[str, tuple[int, int]]:
    """Return the row number, from 1, and the class, from 0, of each picture in the list."""
    rows: dict[str, tuple[int, int]] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not (fields := line.split()):
            continue
        where = f"{file}: row {number}"
        if len(fields) != 2:
            raise DataError(f"{where} has {len(fields)} fields, not 2 (train_00001.jpg 5)")
        name, label = fields
        if not re.fullmatch(r"(train|test)_[^/\\]+\.\w+", name):
            raise DataError(f"{where} names {name!r}, not a picture such as train_00001.jpg or test_0001.jpg")
        if not re.fullmatch("[1-7]", label):
            raise DataError(f"{where} has the class {label!r}, not a number from 1 to 7")
        if name in rows:
            raise DataError(f"{file}: rows {rows[name][0]} and {number} both name {name}; remove one of them")
        rows[name] = (number, int(label) - 1)
    if not rows:
        raise DataError(f"{file}: contains no rows; is the file complete?")
    return rows


def _read_folders(source: Path, tree: Tree, names: list[str], skipped: list[str]) -> list[tuple[str, int, int]]:
    """Return (file, class, split) of the pictures in Kaggle's tree."""
    found: list[tuple[str, int, int]] = []
    copies: set[str] = set()
    for name in filter(is_picture, names):
        path = PurePosixPath(name)
        if len(path.parts) < 3 or path.parts[-3] not in SPLITS:
            skipped.append(f"{name}: is not in a folder such as train/1 or test/1")
            continue
        if not re.fullmatch("[1-7]", path.parts[-2]):
            raise DataError(f"{tree / str(path.parent)}: is not a class of RAF-DB; its folders are named 1 to 7")
        found.append((name, int(path.parts[-2]) - 1, SPLITS.index(path.parts[-3])))
        copies.add(str(path.parents[2]))
    if not found:
        raise DataError(f"{source}: contains no RAF-DB; expected {LAYOUT}")
    if len(copies) > 1:
        raise DataError(f"{source}: contains several copies ({', '.join(sorted(copies))}); pass the folder of one of them")
    return sorted(found, key=lambda entry: (entry[2], entry[0]))
