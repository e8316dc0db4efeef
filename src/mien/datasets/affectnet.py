"""AffectNet from the files people have: the trees with a file for each annotation, or the older tables.

Source: Mollahosseini, Hasani, Mahoor 2017, "AffectNet: A Database for Facial Expression, Valence, and Arousal Computing in the
Wild". Faces of 224x224 px in colour; eight classes, or seven without contempt, with valence and arousal; 283,901 images of the
seven to train on and 500 per class to report on. It has no test set, so a model selected on `val` must not be reported on it.
"""

from __future__ import annotations

import io
import math
import posixpath
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from mien.datasets.corpus import CORPORA, Listing, Rows
from mien.datasets.files import Tree, is_picture, open_tree, read_bytes, walk
from mien.datasets.tables import csv_rows, find_columns
from mien.errors import DataError, InputError, reason
from mien.labels import label_set

SIDE = 224
SPLITS = ("train", "val")
TREES = ("train_set", "val_set")
TABLES = ("training.csv", "validation.csv")
TABLE_FOLDERS = ("", "Manually_Annotated_file_lists/", "Manually_Annotated/")
IMAGES = "Manually_Annotated_Images"
COLUMNS = ("subDirectory_filePath", "expression", "valence", "arousal")
LAYOUT = (
    "train_set/images/*.jpg with train_set/annotations/*_exp.npy, *_val.npy and *_aro.npy (and val_set), or training.csv and "
    f"validation.csv with {IMAGES}"
)

CODES = 11
"""Number of codes for an expression: the eight classes, then 8 none, 9 uncertain, 10 no face."""

MAX_NUMBER = 4096
"""Bytes of the largest file with one number; the usual ones have under 200."""


_Picture = tuple[Tree, int, int, tuple[float, ...]]
"""A picture: its file, its class, its split, and its valence and arousal."""


@CORPORA.register("affectnet")
def read_affectnet(source: Path, classes: int = 8) -> Listing:
    """Return the content of a copy of AffectNet, in colour, 224x224 px: splits train and val, with valence and arousal.

    Args:
        source: A folder, or a zip archive of it, with `train_set/images/0.jpg` and `train_set/annotations/0_exp.npy`,
            `0_val.npy`, `0_aro.npy` (and `val_set`). Or with the older `training.csv` and `validation.csv`, which may be in
            `Manually_Annotated_file_lists`, and `Manually_Annotated_Images`, whose pictures are stored whole: the option
            `faces` crops the face. A picture whose annotations are missing or damaged is left out and listed.
        classes: 8, or 7 without contempt.

    Raises:
        DataError: A row is wrong, an annotation is out of range, or the files are missing.
    """
    if classes not in (7, 8):
        raise DataError(f"affectnet: classes is {classes!r}; choose 7 or 8")
    found, skipped, tree = list[_Picture](), list[str](), open_tree(source)
    names = sorted(name for name in walk(tree, skipped) if not name.endswith(".npy"))
    top = {name.partition("/")[0] for name in names if "/" in name}
    outer = top.pop() if len(top) == 1 else ""
    prefix = f"{outer}/" if outer and outer not in (*TREES, IMAGES, "Manually_Annotated") else ""
    folders = {name for name in names if name.endswith("/")}
    if any(f"{prefix}{part}/" in folders for part in TREES):
        for split, part in enumerate(TREES):
            _read_tree(
                tree, [name for name in names if name.startswith(f"{prefix}{part}/images/")], split, classes, found, skipped
            )
    else:
        _read_tables(source, tree, prefix, set(names), classes, found, skipped)
    if not found:
        why = f"; the first left out: {skipped[0]}" if skipped else ""
        raise DataError(f"{source}: contains no picture with annotations{why}")
    files, target, parts, values = zip(*found, strict=True)
    targets, splits, valence_arousal = np.array(target, np.int64), np.array(parts, np.int8), np.array(values, np.float32)
    rows = Rows(label_set(f"affectnet{classes}"), targets, splits, SPLITS, valence_arousal=valence_arousal)
    return Listing(rows, files, (SIDE, SIDE), colour=True, skipped=tuple(skipped))


def _read_tree(tree: Tree, names: list[str], split: int, classes: int, found: list[_Picture], skipped: list[str]) -> None:
    """Add the pictures of `train_set/images` or `val_set/images`."""
    for name in names:
        folder, own = posixpath.split(name)
        if not is_picture(own) or posixpath.basename(folder) != "images":
            continue
        stem = f"{posixpath.dirname(folder)}/annotations/{posixpath.splitext(own)[0]}"
        expression, *others = (tree / f"{stem}_{kind}.npy" for kind in ("exp", "val", "aro"))
        try:
            code = _parse_code(read_number(expression), f"{expression}:")
            if code < classes:
                values = tuple(_in_range(read_number(file), f"{file}:") for file in others)
                found.append((tree / name, code, split, values))
        except InputError as error:
            skipped.append(f"{tree / name}: {error}")


def _parse_code(value: float, where: str) -> int:
    if value not in range(CODES):
        raise DataError(f"{where} has the expression {value:g}, not a whole number from 0 to {CODES - 1}")
    return int(value)


def _in_range(value: float, where: str) -> float:
    if not -1 <= value <= 1:
        raise DataError(f"{where} has the value {value:g}; valence and arousal are from -1 to 1")
    return value


def read_number(file: Tree) -> float:
    """Return the number in a `.npy` file that contains one number, or a text of one.

    Raises:
        InputError: It is missing, damaged, too large for a number, or contains something else.
    """
    data = read_bytes(file, MAX_NUMBER)
    try:
        return _number(data)
    except Exception as error:  # numpy raises anything on damaged headers
        raise InputError(f"{file}: contains no number ({reason(error)})") from None


@lru_cache(1 << 16)
def _number(data: bytes) -> float:
    """Return the number in the bytes of a `.npy` file; most of AffectNet's million are equal, and are parsed once."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read_header(stream)
    if math.prod(shape) != 1 or kind.kind not in "USiuf":
        raise ValueError(f"shape {shape}, type {kind}")
    value = np.frombuffer(data, kind, 1, stream.tell())[0]  # never unpickled: objects were refused above
    return float(value.decode() if isinstance(value, bytes) else value)


def _read_tables(
    source: Path, tree: Tree, prefix: str, names: set[str], classes: int, found: list[_Picture], skipped: list[str]
) -> None:
    """Add the rows of the older tables. A picture that a row names again, in whatever split, is left out and listed."""
    images = next(
        (f"{prefix}{folder}{IMAGES}" for folder in TABLE_FOLDERS[::-1] if f"{prefix}{folder}{IMAGES}/" in names), None
    )
    tables = [(split, f"{prefix}{folder}{name}") for split, name in enumerate(TABLES) for folder in TABLE_FOLDERS]
    tables = [(split, name) for split, name in tables if name in names]
    if images is None or not tables:
        raise DataError(f"{source}: contains no AffectNet; expected {LAYOUT}")
    for (split, name), (other, again) in pairwise(tables):
        if split == other:
            raise DataError(f"{tree / name} and {tree / again}: two copies of one table; remove one of them")
    seen: dict[str, str] = {}  # the row of each picture
    for split, name in tables:
        table = tree / name
        rows = csv_rows(table)
        columns = find_columns(next(rows)[1], COLUMNS, table)
        for number, fields in rows:
            where = f"{table}: row {number}"
            path, *texts = (fields[at] for at in columns)
            picture = posixpath.normpath(path)
            try:
                value, valence, arousal = (float(text) for text in texts)
            except ValueError:
                raise DataError(
                    f"{where} has an expression, a valence or an arousal that is not a number ({', '.join(texts)})"
                ) from None
            if not path:
                raise DataError(f"{where} has an empty {COLUMNS[0]}")
            code = _parse_code(value, where)
            if code >= classes:
                continue
            if picture in seen:
                skipped.append(f"{where} names {picture} again, after {seen[picture].removeprefix(f'{table}: ')}")
                continue
            seen[picture] = where
            values = _in_range(valence, where), _in_range(arousal, where)
            found.append((tree / f"{images}/{picture}", code, split, values))
