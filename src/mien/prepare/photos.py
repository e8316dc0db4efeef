"""The photos of a folder, each with its label, its split, and the name of its pictures.

Layouts: `train/<class>/*` with `val` and `test`; `<class>/*`; loose photos without labels. Deeper folders are kept.
"""

from __future__ import annotations

import os
import re
import zlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mien.datasets.files import is_picture, split_name, tree_order, walk
from mien.errors import DataError
from mien.labels import LABEL_SETS, canonical

ALL = "all"
"""The split of photos without split folders."""

EXPRESSIONS = {expression for classes in LABEL_SETS.values() for expression in classes}

COPY = re.compile(r"~(\d+|[nhv][+-]\d\d)$")
"""End of the name of a further face (`~2`) or of an augmented copy (`~h+05`), before the suffix."""

MAX_NAME = 200
"""Bytes of the longest name that is kept; systems allow 255, and a mark and a suffix follow."""


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo to prepare.

    Attributes:
        name: Its path in its folder, with forward slashes.
        label: Its class, as its folder spells it; empty if it has none.
        split: `train`, `val`, `test` and so on; `all` without split folders.
        stem: The path of its pictures, without mark and suffix.
        file_state: Its size, bytes, and time of change, ns.
    """

    name: str
    label: str
    split: str
    stem: str
    file_state: str


def find_photos(source: Path, skipped: list[str], *, training: bool = False) -> list[Photo]:
    """Return the photos of a folder, by name.

    Args:
        source: The folder.
        skipped: Gets a line for each link that is not followed, and for each photo outside the folders that give its class.
        training: Without split folders, all photos are for training, and their pictures go to `train`.

    Raises:
        DataError: It is not a folder, cannot be read, contains no photo, or has split folders next to or inside others, or a
            folder around everything.
    """
    paths = _paths(source, skipped)
    split = _has_splits(source, paths)
    placed = [_place(path, split) for path in paths]
    with_classes = any(label for _, label in placed)
    photos = []
    for path, (part, label), name in zip(paths, placed, _names(paths), strict=True):
        if (split and not part) or (with_classes and not label):
            skipped.append(f"{path}: is outside the folders that give the {'split' if split and not part else 'class'}")
            continue
        stem = f"train/{name}" if training and not split else name
        in_split = split_name(part) or ("train" if training else ALL)
        photos.append(Photo(str(path), label, in_split, stem, _file_state(source / path)))
    return photos


def _paths(source: Path, skipped: list[str]) -> list[PurePosixPath]:
    """Return the paths of all photos in a folder."""
    if not source.is_dir():
        raise DataError(f"{source}: is not a folder of photos; unpack an archive first")
    links: list[str] = []
    names = sorted(filter(is_picture, walk(source, links)), key=tree_order)
    skipped += [line.removeprefix(f"{source}{os.sep}") for line in links]
    if not names:
        raise DataError(f"{source}: contains no photos (.jpg, .png and the like); is it the right folder?")
    return [PurePosixPath(name) for name in names]


def _file_state(file: Path) -> str:
    try:
        stat = file.stat()
    except OSError:  # it is gone; reading it will say so
        return ""
    return f"{stat.st_size}:{stat.st_mtime_ns}"


def _has_splits(source: Path, paths: list[PurePosixPath]) -> bool:
    """Return whether the outermost folders are splits."""
    outer = sorted({path.parts[0] for path in paths if len(path.parts) > 1})
    splits = [name for name in outer if split_name(name)]
    if splits and splits != outer:
        other = next(name for name in outer if name not in splits)
        raise DataError(f"{source}: has the split folder {splits[0]!r} next to {other!r}; keep only folders of one kind there")
    inner = [path for path in paths if len(path.parts) > 2 and split_name(path.parts[1])]
    if inner and not splits:
        folder, part = inner[0].parts[:2]
        raise DataError(
            f"{source / folder}: has the split folder {part!r}; pass the folder with the split folders, "
            "which have the classes in them ('train/happy/photo.jpg')"
        )
    if len(outer) == 1 and not splits and canonical(outer[0]) not in EXPRESSIONS and all(len(path.parts) > 2 for path in paths):
        raise DataError(f"{source}: its only folder, {outer[0]!r}, contains folders and no photos; pass {source / outer[0]}")
    return bool(splits)


def _place(path: PurePosixPath, split: bool) -> tuple[str, str]:
    """Return the names of the split's folder and of the class's; empty if there is none."""
    folders = path.parts[:-1]
    part, rest = (folders[:1], folders[1:]) if split else ((), folders)
    return "".join(part), _utf8("".join(rest[:1]))


def _names(paths: list[PurePosixPath]) -> list[str]:
    """Return the path of each photo's pictures, without mark and suffix; they differ even if case does not count.

    `a.jpg` becomes `a`. Photos that would share a name, or whose name ends like a copy's, keep their suffix (`a.jpg` and
    `a.png`). If that is not enough, a checksum of the name is added.

    >>> _names([PurePosixPath(name) for name in ("b.jpg", "a.jpg", "a.png", "c~2.jpg")])
    ['b', 'a.jpg', 'a.png', 'c~2.jpg']
    """
    choices = [(path.stem, path.name, f"{path.name}-{_checksum(path)}") for path in paths]
    level = [1 if COPY.search(path.stem) else 0 for path in paths]
    while True:
        names = [_utf8(str(path.with_name(_short(c[i])))) for path, c, i in zip(paths, choices, level, strict=True)]
        clash = _clashing(names, level)
        if not clash:
            return names
        for i in clash:
            level[i] += 1


def _clashing(names: list[str], level: list[int]) -> list[int]:
    """Return which names must change: of those that are alike, the ones that were changed least."""
    alike: dict[str, list[int]] = defaultdict(list)
    for i, name in enumerate(names):
        alike[name.casefold()].append(i)
    groups = [group for group in alike.values() if len(group) > 1]
    return [i for group in groups for i in group if level[i] == min(level[k] for k in group) < 2]


def _checksum(path: PurePosixPath) -> str:
    return f"{zlib.crc32(os.fsencode(str(path))):08x}"


def _utf8(name: str) -> str:
    """Return a name without bytes that are not UTF-8, which a manifest cannot contain."""
    return os.fsencode(name).decode("utf-8", "replace")


def _short(name: str) -> str:
    """Return a name, shortened if it leaves no room for mark and suffix."""
    return name if len(os.fsencode(name)) <= MAX_NAME else f"{name[:40]}-{_checksum(PurePosixPath(name))}"
