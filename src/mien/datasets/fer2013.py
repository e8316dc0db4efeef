"""FER2013 from the files people have: the Kaggle `fer2013.csv` or folders of pictures.

Source: Goodfellow et al. 2013, "Challenges in Representation Learning". 48x48 grey, seven classes; 28,709 Training,
3,589 PublicTest and 3,589 PrivateTest rows. Standard protocol: fit on train, select on public_test, report private_test once.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mien.datasets.corpus import CORPORA
from mien.errors import DataError
from mien.labels import canonical, label_set

SIDE = 48
SPLITS = ("train", "public_test", "private_test")
USAGE = {"Training": 0, "PublicTest": 1, "PrivateTest": 2}

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int8], tuple[str, ...]]


@CORPORA.register("fer2013")
def read_fer2013(source: Path) -> Arrays:
    """Return images (N, 48, 48), targets (N,), split numbers (N,) and the split names of a copy of FER2013.

    Args:
        source: `fer2013.csv` (columns emotion, pixels, Usage), or a folder with `train/<class>/*` and `test/<class>/*`. Files
            of a folder whose names begin with Training_, PublicTest_ or PrivateTest_ go to that split; other files of
            `test` go to private_test.

    Raises:
        DataError: A row or file is bad; names it and says why.
    """
    return _read_folders(source) if source.is_dir() else _read_csv(source)


def _read_csv(source: Path) -> Arrays:
    images: list[NDArray[np.uint8]] = []
    target: list[int] = []
    split: list[int] = []
    try:
        with source.open("rb") as file:
            header = [name.strip().strip(b'"') for name in file.readline().lstrip(b"\xef\xbb\xbf").split(b",")]
            if header != [b"emotion", b"pixels", b"Usage"]:
                raise DataError(f"{source}: its first line is not 'emotion,pixels,Usage'; is it the Kaggle fer2013.csv?")
            for number, line in enumerate(file, start=2):
                if line.strip():
                    label, pixels, usage = _parse_row(line, f"{source}: row {number}")
                    images.append(pixels)
                    target.append(label)
                    split.append(usage)
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror})") from None
    if not images:
        raise DataError(f"{source}: holds no rows after its header; is the file complete?")
    return np.stack(images), np.array(target, np.int64), np.array(split, np.int8), SPLITS


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


def _read_folders(source: Path) -> Arrays:
    classes = {name: i for i, name in enumerate(label_set("fer2013"))}
    images: list[NDArray[np.uint8]] = []
    target: list[int] = []
    split: list[int] = []
    for part, default in (("train", 0), ("test", 2)):
        for folder in sorted(p for p in (source / part).glob("*") if p.is_dir()):
            expression = canonical(folder.name)
            if expression not in classes:
                raise DataError(f"{folder}: is not a class of fer2013 ({', '.join(classes)})")
            for file in sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")):
                images.append(_read_picture(file))
                target.append(classes[expression])
                split.append(USAGE.get(file.name.split("_")[0], default))
    if not images:
        raise DataError(f"{source}: holds no pictures under train/<class> or test/<class>; is it a FER2013 folder?")
    return np.stack(images), np.array(target, np.int64), np.array(split, np.int8), SPLITS


def _read_picture(file: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(file) as picture:
            pixels = np.asarray(picture.convert("L"))
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read as a picture ({error}); remove it or copy it again") from None
    if pixels.shape != (SIDE, SIDE):
        raise DataError(f"{file}: is {pixels.shape[1]}x{pixels.shape[0]} px, not 48x48 as FER2013's pictures are")
    return pixels
