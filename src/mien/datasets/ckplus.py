"""CK+ from the files people have: the official tree, the folder `CK+48`, or Kaggle's `ckextended.csv`.

Source: Lucey et al. 2010, "The Extended Cohn-Kanade Dataset (CK+)". 593 sequences from neutral to the peak of an expression,
327 of them labelled with one of seven expressions, of 118 subjects; papers use the last three frames of each. There are no
official splits; `mien.datasets.protocols.splits` makes folds by subject.
"""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from mien.datasets.corpus import CORPORA, Listing, Rows
from mien.datasets.files import Tree, file_names, find_table, is_archive, is_picture, read_text
from mien.datasets.tables import read_pixel_table
from mien.errors import DataError
from mien.labels import canonical, label_set

IMAGES = "cohn-kanade-images"
EMOTION = "_emotion.txt"
PEAK_FRAMES = 3
"""Number of last frames of each sequence that papers use."""

TABLE = "ckextended.csv"
TABLE_CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral", "contempt")
"""Classes of `ckextended.csv`, by the number in its column emotion."""

TABLE_SPLITS = ("train", "public_test", "private_test")

LAYOUT = (
    "cohn-kanade-images/S005/001/S005_001_00000011.png with Emotion/S005/001/S005_001_00000011_emotion.txt, "
    "or CK+48/anger/S010_004_00000017.png, or ckextended.csv"
)


class Frame(NamedTuple):
    """A picture of a sequence; `sequence` begins with its subject, because subjects share the numbers of their sequences."""

    subject: str
    sequence: str
    number: int
    name: str


@CORPORA.register("ckplus")
def read_ckplus(source: Path, frames: int | None = None, contempt: bool = True, neutral: bool = False) -> Listing:
    """Return the content of a copy of CK+, in grey, with the subject and sequence of each image: one split, all.

    Args:
        source: One of three, the first two as a folder, one above it, or a zip archive:
            the official tree, `cohn-kanade-images` next to `Emotion`, whose faces are cropped and stored in 224x224 px;
            the folder `CK+48`, `<class>/S<subject>_<sequence>_<frame>.png`, 48x48 px;
            `ckextended.csv`, or the folder or archive with it, 48x48 px, which does not name subjects and has the splits
            train, public_test and private_test.
        frames: Last frames taken from each labelled sequence; by default three from the official tree, all from `CK+48`.
        contempt: Keep the class contempt.
        neutral: Add the class neutral, last: the first frame of each sequence that is kept; from `ckextended.csv` its own rows.

    Raises:
        DataError: A file or row is wrong, a folder is not a class, or the source does not have such frames.
    """
    if frames is not None and frames < 1:
        raise DataError(f"ckplus: frames is {frames!r}; give a number of frames, 1 or more")
    classes = tuple(name for name in label_set("ckplus") if contempt or name != "contempt")
    if (table := _table(source)) is not None:
        return _read_table(table, (*classes, "neutral") if neutral else classes, frames)
    skipped: list[str] = []
    tree, names = file_names(source, skipped)
    if any(name.lower().endswith(EMOTION) for name in names):
        return _read_official(source, tree, names, classes, frames or PEAK_FRAMES, neutral, skipped)
    if neutral:
        raise DataError(f"{source}: has no neutral frames; leave neutral out, or use the official tree")
    return _read_ck48(source, tree, names, classes, frames, skipped)


def _table(source: Path) -> Path | None:
    """Return the table of pixels: the source, or a file in it; None if the source contains pictures."""
    if source.is_dir():
        return find_table(source, (TABLE,))
    if is_archive(source):
        return source if any(PurePosixPath(name).name == TABLE for name in file_names(source, [])[1]) else None
    return None if source.suffix.lower() == ".zip" else source


def _read_table(table: Path, classes: tuple[str, ...], frames: int | None) -> Listing:
    if frames is not None:
        raise DataError(f"{table}: does not name sequences; leave frames out")
    read = read_pixel_table(table, TABLE_CLASSES, prefer=(TABLE,))
    order = np.array([classes.index(name) if name in classes else -1 for name in TABLE_CLASSES], np.int64)
    target = order[read.target]
    rows = Rows(classes, target, read.split, TABLE_SPLITS)
    origins = tuple(f"row {i}" for i in np.flatnonzero(target >= 0))
    return Listing(rows.take(target >= 0), read.images[target >= 0], origins=origins)


def _read_official(
    source: Path, tree: Tree, names: list[str], classes: tuple[str, ...], count: int, neutral: bool, skipped: list[str]
) -> Listing:
    inside = IMAGES in source.name.lower()
    sequences = _sequences(tree, [name for name in names if inside or IMAGES in name.lower()], skipped)
    labels = _labels(tree, names)
    chosen: list[tuple[Frame, str]] = []
    for sequence, (file, expression) in sorted(labels.items()):
        if sequence not in sequences:
            skipped.append(f"{file}: the pictures of its sequence {sequence} are missing")
        elif expression in classes:
            chosen += _take(sequences[sequence], expression, count, neutral)
    if not labels.keys() & sequences.keys():
        raise DataError(f"{source}: none of its {len(labels):,} labelled sequences has pictures; expected {LAYOUT}")
    rows = _rows(chosen, (*classes, "neutral") if neutral else classes)
    return Listing(rows, [tree / frame.name for frame, _ in chosen], (224, 224), faces=True, skipped=tuple(skipped))


def _take(frames: list[Frame], expression: str, count: int, neutral: bool) -> list[tuple[Frame, str]]:
    """Return the last frames of a sequence, after its first one as neutral if wanted; no frame twice."""
    if neutral and len(frames) > 1:
        first, *others = frames
        return [(first, "neutral"), *((frame, expression) for frame in others[-count:])]
    return [(frame, expression) for frame in frames[-count:]]


def _labels(tree: Tree, names: list[str]) -> dict[str, tuple[str, str]]:
    """Return the file and the expression of each labelled sequence."""
    labels: dict[str, tuple[str, str]] = {}
    for name in names:
        if not name.lower().endswith(EMOTION):
            continue
        frame = _frame(name, PurePosixPath(name).name[: -len(EMOTION)])
        if frame is None:
            raise DataError(f"{tree / name}: is not named like S005_001_00000011_emotion.txt")
        if frame.sequence in labels:
            raise DataError(f"{labels[frame.sequence][0]} and {name} both label the sequence {frame.sequence}; remove one")
        labels[frame.sequence] = (name, _expression(tree / name))
    return labels


def _expression(file: Tree) -> str:
    """Return the expression in a label file, whose content is a number such as 3.0000000e+00."""
    text, classes = read_text(file).strip(), label_set("ckplus")
    try:
        number = float(text)
    except ValueError:
        number = 0
    if number not in range(1, len(classes) + 1):
        raise DataError(f"{file}: contains {text[:40]!r}, not the number of an expression, 1 to {len(classes)}")
    return classes[int(number) - 1]


def _read_ck48(
    source: Path, tree: Tree, names: list[str], classes: tuple[str, ...], count: int | None, skipped: list[str]
) -> Listing:
    chosen: list[tuple[Frame, str]] = []
    for frames in _sequences(tree, names, skipped).values():
        expressions = {_folder_class(tree / frame.name): frame.name for frame in frames}
        if len(expressions) > 1:
            raise DataError(f"{source}: {' and '.join(expressions.values())} give one sequence two expressions; remove one")
        (expression,) = expressions
        if expression in classes:
            chosen += _take(frames, expression, count or len(frames), neutral=False)
    if not chosen:
        others = f" ({len(skipped):,} entries are something else; the first: {skipped[0]})" if skipped else ""
        raise DataError(f"{source}: contains no CK+{others}; expected {LAYOUT}")
    return Listing(_rows(chosen, classes), [tree / frame.name for frame, _ in chosen], skipped=tuple(skipped))


def _folder_class(file: Tree) -> str:
    """Return the expression that a picture's folder names."""
    folder = Path(str(file)).parent
    if (expression := canonical(folder.name)) not in label_set("ckplus"):
        raise DataError(f"{folder}: is not a class of CK+ ({', '.join(label_set('ckplus'))}); expected {LAYOUT}")
    return expression


def _sequences(tree: Tree, names: list[str], skipped: list[str]) -> dict[str, list[Frame]]:
    """Return the frames of each sequence in order, by the names of their files; other pictures are listed in `skipped`."""
    frames: dict[tuple[str, int], Frame] = {}
    for name in filter(is_picture, names):
        frame = _frame(name, PurePosixPath(name).stem)
        if frame is None:
            skipped.append(f"{tree / name}: is not named like S005_001_00000011.png")
            continue
        if (first := frames.setdefault((frame.sequence, frame.number), frame)) is not frame:
            raise DataError(f"{tree / first.name} and {tree / name} are the same frame; remove one of them")
    return {key: list(group) for key, group in groupby(sorted(frames.values()), key=lambda frame: frame.sequence)}


def _frame(name: str, stem: str) -> Frame | None:
    """Return the frame that a file's stem names, with numbers as wide as the official ones, so that S5 is S005."""
    if (match := re.fullmatch(r"S(\d{1,9})_(\d{1,9})_(\d{1,9})", stem, re.ASCII | re.IGNORECASE)) is None:
        return None
    subject, sequence, number = (int(part) for part in match.groups())
    return Frame(f"S{subject:03}", f"S{subject:03}_{sequence:03}", number, name)


def _rows(chosen: list[tuple[Frame, str]], classes: tuple[str, ...]) -> Rows:
    return Rows(
        classes,
        np.array([classes.index(expression) for _, expression in chosen], np.int64),
        np.zeros(len(chosen), np.int8),
        ("all",),
        subjects=tuple(frame.subject for frame, _ in chosen),
        sequences=tuple(frame.sequence for frame, _ in chosen),
    )
