"""AffectNet from the files people have: the trees with a file for each annotation, or the older tables.

Source: Mollahosseini, Hasani, Mahoor 2017, "AffectNet: A Database for Facial Expression, Valence, and Arousal Computing in the
Wild". Faces of 224x224 px in colour; eight classes, or seven without contempt, with valence and arousal; 283,901 images of the
seven to train on and 500 a class to report on. It has no test set: what is selected on `val` must not be reported on it.
"""

from __future__ import annotations

import io
import math
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from mien.datasets.corpus import CORPORA, Listing, Rows
from mien.datasets.reading.csv_rows import csv_rows, find_columns
from mien.datasets.reading.source import UNREADABLE, Tree, folders, open_tree, pictures, read_small, reason
from mien.errors import DataError, InputError
from mien.labels import label_set

SIDE = 224
SPLITS = ("train", "val")
TREES = ("train_set", "val_set")
TABLES = ("training.csv", "validation.csv")
IMAGES = "Manually_Annotated_Images"
COLUMNS = ("subDirectory_filePath", "expression", "valence", "arousal")
LAYOUT = (
    "train_set/images/*.jpg with train_set/annotations/*_exp.npy, *_val.npy and *_aro.npy (and val_set), or training.csv and "
    f"validation.csv with {IMAGES}"
)

CODES = 11
"""Codes of an expression: the eight classes, 8 none, 9 uncertain, 10 no face."""

MAX_NUMBER = 4096
"""Bytes of the largest file that holds one number; the usual ones have under 200."""


@dataclass(slots=True)
class _Found:
    """What was found so far, an entry a picture; pictures of no class are left out.

    `seen` holds the row that each picture of a table was named in, of all tables: one picture must not lie in two splits.
    """

    classes: int
    files: list[Tree] = field(default_factory=list)
    target: list[int] = field(default_factory=list)
    split: list[int] = field(default_factory=list)
    emotion: list[tuple[float, float]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    seen: dict[str, str] = field(default_factory=dict)

    def listing(self) -> Listing:
        rows = Rows(
            label_set(f"affectnet{self.classes}"),
            np.array(self.target, np.int64),
            np.array(self.split, np.int8),
            SPLITS,
            valence_arousal=np.array(self.emotion, np.float32).reshape(-1, 2),
        )
        return Listing(rows, self.files, (SIDE, SIDE), colour=True, skipped=tuple(self.skipped))


@CORPORA.register("affectnet")
def read_affectnet(source: Path, classes: int = 8) -> Listing:
    """Return what a copy of AffectNet holds, in colour, 224x224 px: splits train and val, with valence and arousal.

    Args:
        source: A folder, or a zip archive of it, with `train_set/images/0.jpg` and `train_set/annotations/0_exp.npy`,
            `0_val.npy`, `0_aro.npy` (and `val_set`); or with the older `training.csv` and `validation.csv`, which may lie in
            `Manually_Annotated_file_lists`, and `Manually_Annotated_Images`, whose pictures are stored whole: the option
            `faces` cuts out the face. A picture whose annotations are missing or broken is left out and noted.
        classes: 8, or 7 to leave contempt out.

    Raises:
        DataError: A row is bad, an annotation is out of range, or the files are not there; names it.
    """
    if type(classes) is not int or classes not in (7, 8):
        raise DataError(f"affectnet: classes is {classes!r}; it has 7 or 8")
    tree, found = _inside(open_tree(source)), _Found(classes)
    names = {folder.name: folder for folder in folders(tree)}
    for split, name in enumerate(TREES):
        if name in names:
            _read_tree(names[name], split, found)
    if not any(name in names for name in TREES) and not _read_tables(tree, found):
        raise DataError(f"{source}: holds no AffectNet; expected {LAYOUT}")
    if not found.files:
        why = f"; the first left out: {found.skipped[0]}" if found.skipped else ""
        raise DataError(f"{source}: holds no picture with annotations{why}")
    return found.listing()


def _inside(tree: Tree) -> Tree:
    """Return a folder, or the only one in it that stands around everything."""
    inner = folders(tree)
    return inner[0] if len(inner) == 1 and inner[0].name not in (*TREES, IMAGES, "Manually_Annotated") else tree


def _read_tree(tree: Tree, split: int, found: _Found) -> None:
    """Add the pictures of `train_set` or `val_set`."""
    annotations = tree / "annotations"
    for file in pictures(tree / "images") if (tree / "images").is_dir() else ():
        stem = posixpath.splitext(file.name)[0]
        expression, *emotion = (annotations / f"{stem}_{kind}.npy" for kind in ("exp", "val", "aro"))
        try:
            code = _code(read_number(expression), f"{expression}:")
            if code < found.classes:
                values = [_in_range(read_number(number), f"{number}:") for number in emotion]
                _add(found, file, code, split, values)
        except InputError as error:
            found.skipped.append(f"{file}: {error}")


def _add(found: _Found, file: Tree, code: int, split: int, emotion: Sequence[float]) -> None:
    found.files.append(file)
    found.target.append(code)
    found.split.append(split)
    found.emotion.append((emotion[0], emotion[1]))


def _code(value: float, where: str) -> int:
    if value not in range(CODES):
        raise DataError(f"{where} has the expression {value:g}, not a whole number from 0 to {CODES - 1}")
    return int(value)


def _in_range(value: float, where: str) -> float:
    if not -1 <= value <= 1:
        raise DataError(f"{where} has the value {value:g}, valence and arousal are from -1 to 1")
    return value


def read_number(file: Tree) -> float:
    """Return the number in a `.npy` file, which holds one number or one text of a number.

    Raises:
        InputError: It is missing, damaged, larger than a number is, or holds something else.
    """
    data = read_small(file, MAX_NUMBER)
    try:
        return _number(data)
    except Exception as error:  # numpy raises anything on damaged headers
        raise InputError(f"{file}: holds no number ({reason(error)})") from None


@lru_cache(1 << 16)
def _number(data: bytes) -> float:
    """Return the number in the bytes of a `.npy` file; most of AffectNet's million are alike, and are read once."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read_header(stream)
    if math.prod(shape) != 1 or kind.kind not in "USiuf":
        raise ValueError(f"shape {shape}, type {kind}")
    value = np.frombuffer(data, kind, 1, stream.tell())[0]  # never unpickled: objects were refused above
    return float(value.decode() if isinstance(value, bytes) else value)


def _read_tables(tree: Tree, found: _Found) -> bool:
    """Add the rows of the older tables; return whether there were any tables."""
    places = [tree, tree / "Manually_Annotated_file_lists", tree / "Manually_Annotated"]
    images = next((place / IMAGES for place in reversed(places) if (place / IMAGES).is_dir()), None)
    tables = [(split, place / name) for split, name in enumerate(TABLES) for place in places if (place / name).is_file()]
    if images is None or not tables:
        return False
    for (split, table), (other, again) in pairwise(tables):
        if split == other:
            raise DataError(f"{table} and {again}: two copies of one table; remove one of them")
    for split, table in tables:
        try:
            with table.open("rb") as file:
                _read_rows(csv_rows(cast(BinaryIO, file), table), table, images, split, found)
        except UNREADABLE as error:
            raise DataError(f"{table}: cannot be read ({reason(error)})") from None
    return True


def _read_rows(rows: Iterator[tuple[int, list[str]]], table: Tree, images: Tree, split: int, found: _Found) -> None:
    """Add the rows of a table; a picture that it or an earlier table names already is left out and noted."""
    columns = find_columns(next(rows)[1], COLUMNS, table)
    for number, fields in rows:
        where = f"{table}: row {number}"
        path, *texts = (fields[at] for at in columns)
        name = posixpath.normpath(path)
        try:
            code, *emotion = (float(text) for text in texts)
        except ValueError:
            raise DataError(
                f"{where} has an expression, a valence or an arousal that is no number ({', '.join(texts)})"
            ) from None
        if not path:
            raise DataError(f"{where} has an empty {COLUMNS[0]}")
        if _code(code, where) >= found.classes:
            continue
        if name in found.seen:
            found.skipped.append(f"{where} names {name} again, which {found.seen[name].removeprefix(f'{table}: ')} names")
            continue
        found.seen[name] = where
        _add(found, images / name, int(code), split, [_in_range(value, where) for value in emotion])
