"""What a folder of photos says of each: its label, its split, and the name its pictures get.

Layouts: `train/<class>/*` with `val`, `test` beside it; `<class>/*`; loose photos without labels. Deeper folders are kept.
"""

from __future__ import annotations

import os
import re
import zlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mien.datasets.reading.source import walk
from mien.datasets.reading.split_names import SPLIT_NAMES
from mien.errors import DataError
from mien.labels import LABEL_SETS, canonical

ALL = "all"
"""The split of photos that are in none."""

EXPRESSIONS = {expression for classes in LABEL_SETS.values() for expression in classes}

COPY = re.compile(r"~(\d+|[nhv][+-]\d\d)$")
"""How the name of a further face (`~2`) or of an augmented copy (`~h+05`) ends, before its suffix."""

LONGEST = 200
"""Bytes of the longest name that is kept; systems allow 255, and a mark and a suffix follow."""


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo to be prepared.

    Attributes:
        name: Its path in its folder, with forward slashes.
        label: Its class, as its folder spells it; empty without.
        split: `train`, `val`, `test`; `all` without split folders.
        target: The path its pictures get, without mark and suffix.
        stat: Its size, bytes, and time of change, ns.
    """

    name: str
    label: str
    split: str
    target: str
    stat: str


def find_photos(source: Path, skipped: list[str], *, training: bool = False) -> list[Photo]:
    """Return the photos of a folder, by name.

    Args:
        source: The folder.
        skipped: A line is added for each link to a folder above it, and for each photo outside the folders that say its class.
        training: Take a folder without split folders for training photos: their pictures go to `train`.

    Raises:
        DataError: It is no folder, cannot be read, holds no photo, or holds split folders beside or below others
            or a folder around everything.
    """
    paths = _paths(source, skipped)
    split = _has_splits(source, paths)
    placed = [_place(path, split) for path in paths]
    with_classes = any(label for _, label in placed)
    photos = []
    for path, (part, label), name in zip(paths, placed, _names(paths), strict=True):
        if (split and not part) or (with_classes and not label):
            skipped.append(f"{path}: lies outside the folders that say {'split' if split and not part else 'class'}")
            continue
        target = f"train/{name}" if training and not split else name
        in_split = SPLIT_NAMES[part.lower()] if part else "train" if training else ALL
        photos.append(Photo(str(path), label, in_split, target, _stat(source / path)))
    return photos


def _paths(source: Path, skipped: list[str]) -> list[PurePosixPath]:
    """Return the paths of all photos in a folder."""
    if not source.is_dir():
        raise DataError(f"{source}: is no folder of photos; unpack an archive first")
    links: list[str] = []
    found = [PurePosixPath(Path(str(file)).relative_to(source).as_posix()) for file in walk(source, links)]
    skipped += [line.removeprefix(f"{source}{os.sep}") for line in links]
    if not found:
        raise DataError(f"{source}: holds no photos (.jpg, .png and the like); is it the right folder?")
    return found


def _stat(file: Path) -> str:
    try:
        stat = file.stat()
    except OSError:  # it went away; reading it will say so
        return ""
    return f"{stat.st_size}:{stat.st_mtime_ns}"


def _has_splits(source: Path, paths: list[PurePosixPath]) -> bool:
    """Return whether the outermost folders are splits."""
    outer = sorted({path.parts[0] for path in paths if len(path.parts) > 1})
    splits = [name for name in outer if name.lower() in SPLIT_NAMES]
    if splits and splits != outer:
        other = next(name for name in outer if name not in splits)
        raise DataError(f"{source}: holds the split folder {splits[0]!r} beside {other!r}; keep folders of one kind there")
    inner = [path for path in paths if len(path.parts) > 2 and path.parts[1].lower() in SPLIT_NAMES]
    if inner and not splits:
        folder, part = inner[0].parts[:2]
        raise DataError(
            f"{source / folder}: holds the split folder {part!r}; pass the folder that holds the split folders, "
            "with the classes in each ('train/happy/photo.jpg')"
        )
    if len(outer) == 1 and not splits and canonical(outer[0]) not in EXPRESSIONS and all(len(path.parts) > 2 for path in paths):
        raise DataError(f"{source}: its only folder, {outer[0]!r}, holds folders and no photos; pass {source / outer[0]}")
    return bool(splits)


def _place(path: PurePosixPath, split: bool) -> tuple[str, str]:
    """Return the split's folder and the class's, each empty without."""
    folders = path.parts[:-1]
    part, rest = (folders[:1], folders[1:]) if split else ((), folders)
    return "".join(part), _utf8("".join(rest[:1]))


def _names(paths: list[PurePosixPath]) -> list[str]:
    """Return the path each photo's pictures get, without mark and suffix; no two alike, even where case does not count.

    `a.jpg` becomes `a`. Photos that would share a name, or whose name ends like a copy's, keep their suffix (`a.jpg` and
    `a.png`), and a number made from the name if that is not enough.

    >>> _names([PurePosixPath(name) for name in ("b.jpg", "a.jpg", "a.png", "c~2.jpg")])
    ['b', 'a.jpg', 'a.png', 'c~2.jpg']
    """
    choices = [(path.stem, path.name, f"{path.name}-{_number(path)}") for path in paths]
    level = [1 if COPY.search(path.stem) else 0 for path in paths]
    while True:
        names = [_utf8(str(path.with_name(_short(c[i])))) for path, c, i in zip(paths, choices, level, strict=True)]
        clash = _clashing(names, level)
        if not clash:
            return names
        for i in clash:
            level[i] += 1


def _clashing(names: list[str], level: list[int]) -> list[int]:
    """Return which names must change: of those that are alike, the plainest."""
    alike: dict[str, list[int]] = defaultdict(list)
    for i, name in enumerate(names):
        alike[name.casefold()].append(i)
    groups = [group for group in alike.values() if len(group) > 1]
    return [i for group in groups for i in group if level[i] == min(level[k] for k in group) < 2]


def _number(path: PurePosixPath) -> str:
    return f"{zlib.crc32(os.fsencode(str(path))):08x}"


def _utf8(name: str) -> str:
    """Return a name without bytes that are no UTF-8, for they could not stand in a manifest."""
    return os.fsencode(name).decode("utf-8", "replace")


def _short(name: str) -> str:
    """Return a name that leaves room for mark and suffix."""
    return name if len(os.fsencode(name)) <= LONGEST else f"{name[:40]}-{_number(PurePosixPath(name))}"
