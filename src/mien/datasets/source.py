"""Reading a corpus where it lies: a folder, a zip archive, a gzipped table; nothing is unpacked to disk.

`pathlib.Path` and `zipfile.Path` answer to the same names, so readers walk either without knowing which.
"""

from __future__ import annotations

import gzip
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from mien.errors import DataError, InputError
from mien.image import read_image

Tree = Path | zipfile.Path
"""A file or folder, on disk or inside a zip archive."""

PICTURES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".pgm", ".ppm", ".gif", ".avif"))
"""Suffixes of pictures, lower case; other files of a folder are not looked at."""

MAX_PICTURE = 200_000_000
"""Bytes of the largest picture file that is read out of an archive."""

MAX_TABLE = 8_000_000_000
"""Bytes of the largest table, uncompressed."""

UNREADABLE = (OSError, EOFError, RuntimeError, NotImplementedError, zlib.error, zipfile.BadZipFile, tarfile.TarError)
"""What the standard library raises of a file or an archive that is missing, damaged, cut short or encrypted."""


def open_tree(source: Path) -> Tree:
    """Return a folder, or the inside of a zip archive.

    Raises:
        DataError: It is neither, or the archive is damaged.
    """
    if source.is_dir():
        return source
    try:
        return zipfile.Path(source)
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise DataError(f"{source}: is neither a folder nor a zip archive that can be read ({error})") from None


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
            raise DataError(f"{source}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def _open_table(source: Path, suffix: str, prefer: Sequence[str], stack: ExitStack) -> BinaryIO:
    if zipfile.is_zipfile(source):
        archive = stack.enter_context(zipfile.ZipFile(source))
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
    """Return the folders in a folder, hidden ones apart, by name."""
    return sorted((child for child in tree.iterdir() if child.is_dir() and _shown(child)), key=lambda child: child.name)


def pictures(tree: Tree) -> list[Tree]:
    """Return the picture files directly in a folder, by name."""
    return sorted((child for child in tree.iterdir() if _is_picture(child)), key=lambda child: child.name)


def walk(tree: Tree, skipped: list[str]) -> Iterator[Tree]:
    """Yield the picture files of a folder and of the folders in it, by name.

    Args:
        tree: The folder.
        skipped: A line is added for each link that leads back to a folder above it.
    """
    yield from _walk(tree, skipped, ())


def _walk(tree: Tree, skipped: list[str], above: tuple[str, ...]) -> Iterator[Tree]:
    if isinstance(tree, Path):
        real = os.path.realpath(tree)
        if real in above:
            skipped.append(f"{tree}: is a link to a folder above it")
            return
        above = (*above, real)
    yield from pictures(tree)
    for folder in folders(tree):
        yield from _walk(folder, skipped, above)


def _shown(tree: Tree) -> bool:
    return not tree.name.startswith(".") and tree.name != "__MACOSX"


def _is_picture(tree: Tree) -> bool:
    return Path(tree.name).suffix.lower() in PICTURES and _shown(tree) and tree.is_file()


def read_picture(tree: Tree) -> NDArray[np.uint8]:
    """Return a picture file as RGB, uint8 (H, W, 3); see `mien.image.read_image`.

    Raises:
        InputError: It is no picture, damaged or too large.
    """
    if isinstance(tree, Path):
        return read_image(tree)
    info = tree.root.getinfo(tree.at)
    if info.file_size > MAX_PICTURE:
        raise InputError(f"{tree}: unpacks to more than {MAX_PICTURE // 10**6} MB")
    try:
        return read_image(tree.read_bytes())
    except InputError as error:
        raise InputError(f"{tree}: {str(error).removeprefix('this picture (bytes): ')}") from None
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise InputError(f"{tree}: cannot be read from its archive ({error})") from None
