"""FER2013 from the files people have: the Kaggle `fer2013.csv` or folders of pictures.

Source: Goodfellow et al. 2013, "Challenges in Representation Learning". 48x48 grey, seven classes; 28,709 Training,
3,589 PublicTest and 3,589 PrivateTest rows. Standard protocol: fit on train, select on public_test, report private_test once.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mien.datasets.corpus import CORPORA, Listing, Rows
from mien.datasets.source import Tree, folders, is_archive, open_table, open_tree, pictures
from mien.errors import DataError
from mien.labels import canonical, label_set

SIDE = 48
SPLITS = ("train", "public_test", "private_test")
USAGE = {"Training": 0, "PublicTest": 1, "PrivateTest": 2}


@CORPORA.register("fer2013")
def read_fer2013(source: Path) -> Listing:
    """Return what a copy of FER2013 holds: splits train, public_test and private_test.

    Args:
        source: `fer2013.csv` (columns emotion, pixels, Usage), or a folder with `train/<class>/*` and `test/<class>/*`. Files
            of a folder whose names begin with Training_, PublicTest_ or PrivateTest_ go to that split; other files of
            `test` go to private_test.

    Raises:
        DataError: A row or file is bad; names it and says why.
    """
    return _read_folders(source) if _holds_folders(source) else _read_csv(source)


def _holds_folders(source: Path) -> bool:
    return source.is_dir() or (is_archive(source) and any((open_tree(source) / part).is_dir() for part in ("train", "test")))


def _read_csv(source: Path) -> Listing:
    images: list[NDArray[np.uint8]] = []
    target: list[int] = []
    split: list[int] = []
    with open_table(source) as file:
        header = [name.strip().strip(b'"') for name in file.readline().lstrip(b"\xef\xbb\xbf").split(b",")]
        if header != [b"emotion", b"pixels", b"Usage"]:
            raise DataError(f"{source}: its first line is not 'emotion,pixels,Usage'; is it the Kaggle fer2013.csv?")
        for number, line in enumerate(file, start=2):
            if line.strip():
                label, pixels, usage = _parse_row(line, f"{source}: row {number}")
                images.append(pixels)
                target.append(label)
                split.append(usage)
    if not images:
        raise DataError(f"{source}: holds no rows after its header; is the file complete?")
    rows = Rows(label_set("fer2013"), np.array(target, np.int64), np.array(split, np.int8), SPLITS)
    return Listing(rows, np.stack(images))


def _parse_row(line: bytes, where: str) -> tuple[int, NDArray[np.uint8], int]:
    """Return label, pixels (48, 48) and split number of a row of the Kaggle file."""
    fields = [field.strip().strip(b'"') for field in line.split(b",")]
    if len(fields) != 3:
        raise DataError(f"{where} has {len(fields)} fields, not 3 (emotion, pixels, Usage)")
    label, pixels, usage = fields
    classes = label_set("fer2013")
    if not (label.isascii() and label.isdigit() and int(label) < len(classes)):
        raise DataError(
            f"{where} has the class {label.decode('utf-8', 'replace')!r}, not a number from 0 to {len(classes) - 1}"
        )
    if usage.decode("ascii", "replace") not in USAGE:
        raise DataError(f"{where} has the Usage {usage.decode('utf-8', 'replace')!r}, not one of {', '.join(USAGE)}")
    try:
        values = np.array(pixels.split(), dtype=np.int32)
    except (ValueError, OverflowError):
        raise DataError(f"{where} has a pixel that is not a whole number") from None
    if len(values) != SIDE * SIDE:
        raise DataError(f"{where} has {len(values):,} pixels, not {SIDE * SIDE:,} (48x48)")
    if values.min() < 0 or values.max() > 255:
        raise DataError(f"{where} has a pixel outside 0-255 ({values.min()} to {values.max()})")
    return int(label), values.astype(np.uint8).reshape(SIDE, SIDE), USAGE[usage.decode()]


def _read_folders(source: Path) -> Listing:
    classes = {name: i for i, name in enumerate(label_set("fer2013"))}
    files: list[Tree] = []
    target: list[int] = []
    split: list[int] = []
    tree = open_tree(source)
    for part, default in (("train", 0), ("test", 2)):
        for folder in folders(tree / part) if (tree / part).is_dir() else []:
            expression = canonical(folder.name)
            if expression not in classes:
                raise DataError(f"{folder}: is not a class of fer2013 ({', '.join(classes)})")
            for file in pictures(folder):
                files.append(file)
                target.append(classes[expression])
                split.append(USAGE.get(file.name.split("_")[0], default))
    if not files:
        raise DataError(f"{source}: holds no pictures under train/<class> or test/<class>; is it a FER2013 folder?")
    return Listing(Rows(label_set("fer2013"), np.array(target, np.int64), np.array(split, np.int8), SPLITS), files)
