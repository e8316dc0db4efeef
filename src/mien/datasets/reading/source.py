"""Reading a corpus where it lies: a folder, a zip archive, a gzipped table; nothing is unpacked to disk.

`pathlib.Path` and `zipfile.Path` answer to the same names, so readers go through either without knowing which, and see the
same files in the same order. Whatever is wrong with an archive is a `DataError`, with a picture in it an `InputError`.
"""

from __future__ import annotations

import gzip
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from mien.errors import DataError, InputError
from mien.image import ENDINGS, read_image

Tree = Path | zipfile.Path
"""A file or folder, on disk or inside a zip archive."""

MAX_PICTURE = 200_000_000
"""Bytes of the largest picture file that is read out of an archive."""

MAX_TABLE = 8_000_000_000
"""Bytes of the largest table, uncompressed."""

UNREADABLE = (
    OSError, EOFError, RuntimeError, NotImplementedError, struct.error, zlib.error, lzma.LZMAError, zipfile.BadZipFile,
    tarfile.TarError,
)  # fmt: skip
"""What the standard library raises of a file or an archive that is missing, damaged, cut short or encrypted."""

MAX_DEPTH = 64
"""Folders in folders of an archive; no corpus has as many, an archive made to waste memory has."""

_MEMBERS: WeakKeyDictionary[zipfile.ZipFile, dict[str, list[str]]] = WeakKeyDictionary()
"""The names directly in each folder of the archives that are open: asking the archive looks at all its names every time."""


def reason(error: BaseException) -> str:
    """Return why something could not be read, on one line."""
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__


def open_tree(source: Path) -> Tree:
    """Return a folder, or the inside of a zip archive.

    Raises:
        DataError: It is neither, or the archive is damaged.
    """
    if source.is_dir():
        return source
    try:
        archive = _open_zip(source)
    except Exception as error:  # zipfile raises anything on damaged archives
        raise DataError(f"{source}: is neither a folder nor a zip archive that can be read ({reason(error)})") from None
    for name in archive.namelist():
        if "//" in name or name.count("/") > MAX_DEPTH:
            archive.close()
            raise DataError(f"{source}: holds the name {name[:80]!r}, which no corpus has; is the archive damaged?")
    return zipfile.Path(archive)


def _open_zip(source: Path) -> zipfile.ZipFile:
    """Open an archive, its names with forward slashes, as Windows does not always write them, and without `./` before them."""
    archive = zipfile.ZipFile(source)
    for info in archive.filelist:
        name = info.filename.replace("\\", "/")
        while name.startswith("./"):
            name = name[2:]
        info.filename = name
    archive.NameToInfo = {info.filename: info for info in archive.filelist}
    return archive


def is_archive(source: Path) -> bool:
    """Return whether a file is a zip archive."""
    return source.is_file() and zipfile.is_zipfile(source)


@contextmanager
def open_table(source: Path, suffix: str = ".csv", prefer: Sequence[str] = ()) -> Iterator[BinaryIO]:
    """Open a table for reading: a plain file, gzipped (`.gz`), or the only one of its suffix in a `.zip` or `.tar.gz`.

    Args:
        source: The file.
        suffix: Suffix of the table inside an archive.
        prefer: Names of the table to take of an archive that holds several, the best first.

    Raises:
        DataError: The file cannot be read, also while the block reads it; or an archive holds none or several such tables.
    """
    with ExitStack() as stack:
        try:
            yield _open_table(source, suffix, prefer, stack)
        except UNREADABLE as error:
            raise DataError(f"{source}: cannot be read ({reason(error)})") from None


def _open_table(source: Path, suffix: str, prefer: Sequence[str], stack: ExitStack) -> BinaryIO:
    if zipfile.is_zipfile(source):
        archive = stack.enter_context(_open_zip(source))
        names = [info.filename for info in archive.infolist() if _is_table(info.filename, suffix)]
        name = _only(names, source, suffix, prefer)
        if archive.getinfo(name).file_size > MAX_TABLE:
            raise DataError(f"{source}: {name} unpacks to more than {MAX_TABLE // 10**9} GB; is it the right archive?")
        return cast(BinaryIO, stack.enter_context(archive.open(name)))
    if source.name.endswith((".tar.gz", ".tgz", ".tar")):
        tar = stack.enter_context(tarfile.open(source))  # noqa: SIM115 (the stack closes it)
        name = _only(_tables(tar, suffix, prefer), source, suffix, prefer)
        return cast(BinaryIO, stack.enter_context(cast(IO[bytes], tar.extractfile(name))))
    if source.suffix == ".gz":
        return cast(BinaryIO, stack.enter_context(gzip.open(source)))
    return stack.enter_context(source.open("rb"))


def _is_table(name: str, suffix: str) -> bool:
    path = Path(name)
    return path.suffix.lower() == suffix and not path.name.startswith(".") and "__MACOSX" not in path.parts


def _tables(tar: tarfile.TarFile, suffix: str, prefer: Sequence[str]) -> list[str]:
    """Return the tables of a tar archive; stop at the best, because to look further is to decompress it all."""
    names: list[str] = []
    for member in tar:
        if member.isfile() and _is_table(member.name, suffix):
            names.append(member.name)
            if prefer and Path(member.name).name == prefer[0]:
                break
    return names


def _only(names: list[str], source: Path, suffix: str, prefer: Sequence[str]) -> str:
    for wanted in prefer:
        for name in names:
            if Path(name).name == wanted:
                return name
    if len(names) != 1:
        found = ", ".join(names[:5]) or "none"
        raise DataError(f"{source}: should hold one {suffix} file, holds {len(names)} ({found}); unpack it and pass the file")
    return names[0]


def folders(tree: Tree) -> list[Tree]:
    """Return the folders in a folder, hidden ones apart, by name.

    Raises:
        DataError: The folder cannot be read.
    """
    if isinstance(tree, zipfile.Path):
        return [zipfile.Path(tree.root, name) for name in _members(tree) if name.endswith("/")]
    return [Path(entry.path) for entry in sorted(scan(tree), key=_name) if is_folder(entry)]


def pictures(tree: Tree) -> list[Tree]:
    """Return the picture files directly in a folder, by name; dead links too, so that reading them says so.

    Raises:
        DataError: The folder cannot be read.
    """
    if isinstance(tree, zipfile.Path):
        return [zipfile.Path(tree.root, name) for name in _members(tree) if _is_picture(name)]
    found = (entry for entry in scan(tree) if _is_picture(entry.name) and not is_folder(entry))
    return [Path(entry.path) for entry in sorted(found, key=_name)]


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in ENDINGS  # noqa: PTH122 (a million names: a Path each would take seconds)


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def scan(folder: str | os.PathLike[str]) -> Iterator[os.DirEntry[str]]:
    """Yield what is in a folder on disk, hidden files apart, in no order.

    Raises:
        DataError: The folder cannot be read.
    """
    try:
        with os.scandir(os.fspath(folder)) as entries:
            yield from (entry for entry in entries if _is_shown(entry.name))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({reason(error)}); check its owner and mode") from None


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_dead(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a link to nothing, or to itself."""
    return entry.is_symlink() and not os.path.exists(entry.path)  # noqa: PTH110 (a Path's raises of a link to itself)


def _is_shown(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def _members(tree: zipfile.Path) -> list[str]:
    """Return the full names of what is in a folder of an archive, hidden files apart, in the order they have on disk."""
    if tree.root not in _MEMBERS:
        found: dict[str, set[str]] = defaultdict(set)  # an archive may hold a name twice
        for name in tree.root.namelist():
            parent, _, own = name.rstrip("/").rpartition("/")
            if own and _is_shown(own):
                found[parent].add(name)
        _MEMBERS[tree.root] = {key: sorted(names, key=lambda name: name.rstrip("/")) for key, names in found.items()}
    return _MEMBERS[tree.root].get(tree.at.rstrip("/"), [])


class Walk:
    """A way through a folder or archive on which no folder is entered twice.

    A link to a folder elsewhere is followed, once. A link into the tree, or to a folder above it, is not: what it leads to is
    met at its own place, with its own label.

    Args:
        root: The folder or archive.
        skipped: A line is added for each link that is not followed.
        apart: A folder that is not entered.
    """

    def __init__(self, root: Tree, skipped: list[str], apart: Path | None = None) -> None:
        self.skipped = skipped
        self._root = os.path.realpath(root) if isinstance(root, Path) else ""
        self._entered = {_identity(folder) for folder in (root, apart) if isinstance(folder, Path)}

    def folders(self, tree: Tree) -> list[Tree]:
        """Return the folders in a folder that are to be entered, by name.

        Raises:
            DataError: The folder cannot be read.
        """
        if isinstance(tree, zipfile.Path):
            return folders(tree)
        found: list[Tree] = []
        for entry in sorted((entry for entry in scan(tree) if is_folder(entry) or entry.is_symlink()), key=_name):
            if is_folder(entry) and self._enter(Path(entry.path)):
                found.append(Path(entry.path))
            elif _is_dead(entry) and not _is_picture(entry.name):
                self.skipped.append(f"{entry.path}: is a link to nothing")
        return found

    def _enter(self, folder: Path) -> bool:
        inside = False
        if folder.is_symlink():
            real = os.path.realpath(folder)
            inside = os.path.commonpath((real, self._root)) in (real, self._root)
        if inside or _identity(folder) in self._entered:
            self.skipped.append(f"{folder}: is a link to a folder that is read elsewhere or holds this one; not followed")
            return False
        self._entered.add(_identity(folder))
        return True

    def everywhere(self, tree: Tree) -> Iterator[Tree]:
        """Yield a folder and all folders in it, by name, the outer ones first.

        Raises:
            DataError: A folder cannot be read.
        """
        waiting = [tree]
        while waiting:  # not by recursion: folders may lie deeper than Python's stack
            here = waiting.pop()
            yield here
            waiting += reversed(self.folders(here))

    def pictures(self, tree: Tree) -> Iterator[Tree]:
        """Yield the picture files of a folder and of the folders in it.

        Raises:
            DataError: A folder cannot be read.
        """
        for folder in self.everywhere(tree):
            yield from pictures(folder)


def _identity(folder: Path) -> tuple[int, int] | None:
    """Return what tells a folder from all others, whatever path leads to it; None if it is not there."""
    try:
        stat = folder.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def walk(tree: Tree, skipped: list[str]) -> Iterator[Tree]:
    """Yield the picture files of a folder and of the folders in it, by name; see `Walk`."""
    yield from Walk(tree, skipped).pictures(tree)


def read_small(tree: Tree, limit: int) -> bytes:
    """Return a file that is to be small.

    Args:
        tree: The file.
        limit: Its size at most, bytes, unpacked; an archive that lies about the size is damaged.

    Raises:
        InputError: It is missing, damaged, encrypted or larger.
    """
    try:
        if isinstance(tree, Path):
            with tree.open("rb") as file:
                data = file.read(limit + 1)
        else:
            data = b"" if (size := tree.root.getinfo(tree.at).file_size) > limit else tree.root.read(tree.at)
    except KeyError:
        raise InputError(f"{tree}: is not in the archive") from None
    except Exception as error:  # zipfile raises anything on damaged archives
        raise InputError(f"{tree}: cannot be read ({reason(error)})") from None
    if (len(data) if isinstance(tree, Path) else size) > limit:
        raise InputError(f"{tree}: holds more than {limit:,} bytes")
    return data


def read_picture(tree: Tree) -> NDArray[np.uint8]:
    """Return a picture file as RGB, uint8 (H, W, 3); see `mien.image.read_image`.

    Raises:
        InputError: It is no picture, damaged or too large.
    """
    if isinstance(tree, Path):
        return read_image(tree)
    data = read_small(tree, MAX_PICTURE)
    try:
        return read_image(data)
    except InputError as error:
        raise InputError(f"{tree}: {str(error).removeprefix('this picture (bytes): ')}") from None
