"""The files of a corpus, in a folder or a zip archive: one walk over their names, and the content of a picture or a text.

Nothing is unpacked to disk. `pathlib.Path` and `zipfile.Path` share the methods that readers use, so a reader need not know
which it has. A damaged archive raises `DataError`; a damaged picture raises `InputError`, so that it can be left out.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mien.errors import DataError, InputError, reason
from mien.folders import is_shown, walk_folder
from mien.image import ENDINGS, Budget, open_image

Tree = Path | zipfile.Path
"""A file or folder, on disk or inside a zip archive."""

MAX_PICTURE = 200_000_000
"""Bytes of the largest picture file that is read from an archive."""

MAX_TEXT = 50_000_000
"""Bytes of the largest text file that is read whole; RAF-DB's list of labels has 0.3 million."""

MAX_DEPTH = 64
"""Nested folders in an archive. No corpus has as many; an archive made to exhaust memory does."""

_unpacked = Budget(MAX_PICTURE)  # bytes of the picture files that threads hold unpacked at the same time

SPLIT_NAMES: dict[str, str] = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "eval": "val", "evaluation": "val",
    "publictest": "public_test", "public_test": "public_test",
    "test": "test", "testing": "test",
    "privatetest": "private_test", "private_test": "private_test",
}  # fmt: skip
"""mien's name of a split by its usual spellings, lower case; training first, the split that is reported last."""


def split_name(word: str) -> str | None:
    """Return the split that a folder's name or a table's word means, or None.

    >>> split_name("Valid"), split_name("PublicTest"), split_name("happy")
    ('val', 'public_test', None)
    """
    return SPLIT_NAMES.get(word.lower())


def is_picture(name: str) -> bool:
    """Return whether a file name ends like a picture's."""
    return os.path.splitext(name)[1].lower() in ENDINGS  # noqa: PTH122 (a Path for each of a million names takes seconds)


def is_archive(source: Path) -> bool:
    """Return whether a file is a zip archive."""
    return source.is_file() and zipfile.is_zipfile(source)


def open_tree(source: Path) -> Tree:
    """Return a folder, or the inside of a zip archive.

    Raises:
        DataError: It is neither, or the archive is damaged.
    """
    if source.is_dir():
        return source
    try:
        archive = open_zip(source)
    except Exception as error:  # zipfile raises anything on damaged archives
        raise DataError(f"{source}: is neither a folder nor a zip archive that can be read ({reason(error)})") from None
    for name in archive.namelist():
        if "//" in name or name.count("/") > MAX_DEPTH:
            archive.close()
            raise DataError(f"{source}: contains the name {name[:80]!r}, which no corpus has; the archive may be damaged")
    return zipfile.Path(archive)


def open_zip(source: Path) -> zipfile.ZipFile:
    """Open an archive whose names use forward slashes and do not begin with `./`; Windows tools write both otherwise."""
    archive = zipfile.ZipFile(source)
    for info in archive.filelist:
        name = info.filename.replace("\\", "/")
        while name.startswith("./"):
            name = name[2:]
        info.filename = name
    archive.NameToInfo = {info.filename: info for info in archive.filelist}
    return archive


def file_names(source: Path, skipped: list[str]) -> tuple[Tree, list[str]]:
    """Return a folder or zip archive, opened, and the sorted names of all files in it; see `walk`.

    Raises:
        DataError: It is neither, the archive is damaged, or a folder cannot be read.
    """
    tree = open_tree(source)
    return tree, sorted(name for name in walk(tree, skipped) if not name.endswith("/"))


def walk(tree: Tree, skipped: list[str], exclude: Path | None = None) -> Iterator[str]:
    """Yield every file and folder in a folder or archive, in no order: relative, with forward slashes, folders ending in `/`.

    Hidden entries and macOS's `__MACOSX` are left out; for links, and the other arguments, see `walk_folder`.

    Raises:
        DataError: A folder cannot be read.
    """
    if isinstance(tree, zipfile.Path):
        for name in set(tree.root.namelist()):  # an archive may contain a name twice
            if all(map(is_shown, name.split("/"))):
                yield name
        return
    for folder, folders, files in walk_folder(tree, skipped, _refuse, exclude):
        inside = Path(folder).relative_to(tree).as_posix()
        prefix = "" if inside == "." else f"{inside}/"
        yield from (prefix + name for name in files)
        yield from (f"{prefix}{name}/" for name in folders)


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be read ({reason(error)}); check its owner and mode") from None


def tree_order(name: str) -> tuple[list[str], str]:
    """Return what sorts names so that the files of a folder come first, and then its folders, each whole.

    >>> sorted(["b.png", "a.x/z.png", "a/y.png", "a/b/x.png"], key=tree_order)
    ['b.png', 'a/y.png', 'a/b/x.png', 'a.x/z.png']
    """
    return name.split("/")[:-1], name


def find_table(folder: Path, names: Sequence[str]) -> Path | None:
    """Return a table in a folder, or in the only folder in it that has one, as an unpacked archive does; else None.

    Args:
        folder: The folder. If it contains split folders, it is one of pictures, and no other folder is searched.
        names: Names of the table, the preferred one first.

    Raises:
        DataError: The folder cannot be read, or several folders in it have such a table.
    """
    _, inner, _ = next(walk_folder(folder, [], _refuse))
    if any(split_name(name) for name in inner):
        inner = []
    found = []
    for place in (folder, *(folder / name for name in inner)):
        tables = [place / name for name in names if (place / name).is_file()]
        if tables and place == folder:
            return tables[0]
        found += tables[:1]
    if len(found) > 1:
        raise DataError(
            f"{folder}: contains {', '.join(str(file.relative_to(folder)) for file in found[:5])}; pass one of them"
        )
    return found[0] if found else None


def read_bytes(file: Tree, limit: int) -> bytes:
    """Return the content of a file.

    Args:
        file: The file.
        limit: Its largest size, bytes. The size that an archive states is checked before anything is unpacked.

    Raises:
        InputError: It is missing, damaged, encrypted or larger.
    """
    try:
        if isinstance(file, Path):
            with file.open("rb") as stream:
                data = stream.read(limit + 1)
            size = len(data)
        else:
            size = file.root.getinfo(file.at).file_size
            data = file.root.read(file.at) if size <= limit else b""
    except KeyError:
        raise InputError(f"{file}: is not in the archive") from None
    except Exception as error:  # zipfile raises anything on damaged archives
        raise InputError(f"{file}: cannot be read ({reason(error)})") from None
    if size > limit:
        raise InputError(f"{file}: is larger than {limit:,} bytes")
    return data


def read_text(file: Tree) -> str:
    """Return the text of a small file, UTF-8; other bytes become U+FFFD.

    Raises:
        DataError: It cannot be read, or is too large for a file of labels.
    """
    try:
        return read_bytes(file, MAX_TEXT).decode("utf-8-sig", "replace")
    except InputError as error:
        raise DataError(f"{error}; check that it is the right file of labels") from None


@contextmanager
def open_picture(file: Tree) -> Iterator[NDArray[np.uint8]]:
    """Yield a picture file as RGB, uint8 (H, W, 3); see `mien.image.open_image`.

    Raises:
        InputError: It is not a picture, or is damaged or too large.
    """
    if isinstance(file, Path):
        with open_image(file) as pixels:
            yield pixels
        return
    size = getattr(file.root.NameToInfo.get(file.at), "file_size", 0)
    with _unpacked.hold(size), open_image(read_bytes(file, MAX_PICTURE), str(file)) as pixels:
        yield pixels
