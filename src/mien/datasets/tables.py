"""Tables: the rows of any CSV file, and tables of pixels such as Kaggle's `fer2013.csv` and `ckextended.csv`.

Every error names the row and says what is wrong with it.
"""

from __future__ import annotations

import csv
import gzip
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from mien.datasets.files import Tree, open_zip
from mien.errors import DataError, reason
from mien.registry import nearest

DELIMITERS = (",", ";", "\t")

MAX_LINE = 1 << 20
"""Bytes of the longest line, so that a file without line ends cannot fill the memory; a FER2013 row has about 8,400."""

MAX_TABLE = 8_000_000_000
"""Bytes of the largest table of pixels, uncompressed."""

MAX_ROWS = 200_000
"""Rows of the largest table of pixels: half a gigabyte at 48x48, five times as many as FER2013 has."""

UNREADABLE = (
    OSError, EOFError, RuntimeError, struct.error, zlib.error, lzma.LZMAError, zipfile.BadZipFile,
    tarfile.TarError,
)  # fmt: skip
"""What the standard library raises for a file or archive that is missing, damaged, truncated or encrypted."""

COLUMNS = ("emotion", "pixels", "Usage")

USAGE = {"Training": 0, "PublicTest": 1, "PrivateTest": 2}
"""FER2013's words for its splits, with each split's number; FER+ and `ckextended.csv` use them too."""

BLANK = b' \t\r\n\v\f"'
"""What may surround a field of a table of pixels."""


# CSV files


def csv_rows(table: Tree) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a CSV file, each with its line number, from 1, and its fields without surrounding spaces.

    Blank lines are left out. The delimiter is the comma, semicolon or tab that the first row has most of.

    Args:
        table: The file, UTF-8, with or without a byte-order mark.

    Raises:
        DataError: It cannot be read, has no rows or another encoding, a quotation mark is not closed, or a row does not have
            as many fields as the first.
    """
    number, width = 0, 0
    try:
        with table.open("rb") as file:
            lines, blank = _lines(cast(BinaryIO, file), table), 0
            for first in lines:
                if first.strip():
                    break
                blank += 1
            else:
                raise DataError(f"{table}: contains no rows; is the file complete?")
            reader = csv.reader(chain([first], lines), delimiter=max(DELIMITERS, key=first.count), strict=True)
            for row in reader:
                fields = [field.strip() for field in row]
                if not any(fields) and len(fields) < 2:
                    continue
                number, width = blank + reader.line_num, width or len(fields)
                if len(fields) != width:
                    raise DataError(f"{table}: row {number} has {len(fields)} fields, not {width}")
                yield number, fields
    except csv.Error as error:
        raise DataError(f"{table}: cannot be read from row {number + 1} on ({error}); check its quotation marks") from None
    except UNREADABLE as error:
        raise DataError(f"{table}: cannot be read ({reason(error)})") from None


def _lines(file: BinaryIO, table: Tree) -> Iterator[str]:
    """Yield the lines of a file as text."""
    number = 0
    while line := file.readline(MAX_LINE):
        number += 1
        if number == 1:
            _refuse_utf16(line, table)
            line = line.removeprefix(b"\xef\xbb\xbf")
        if len(line) == MAX_LINE:
            raise DataError(f"{table}: row {number} is longer than a megabyte; is it a table of files?")
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{table}: row {number} is not in UTF-8 (byte 0x{line[error.start]:02x}), perhaps in Windows-1252 or Latin-1; "
                "save the file again as 'CSV UTF-8'"
            ) from None


def _refuse_utf16(start: bytes, table: object) -> None:
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in start[:64]:
        raise DataError(f"{table}: is UTF-16 or binary, not UTF-8; save it again as 'CSV UTF-8'")


def find_columns(names: Sequence[str], wanted: Sequence[str], table: object) -> list[int]:
    """Return the positions of columns, whose case does not matter.

    Raises:
        DataError: A column is missing, or there more than once.
    """
    words = [name.lower() for name in names]
    for name in wanted:
        if name.lower() not in words:
            raise DataError(f"{table}: has no column {name!r}{nearest(name, list(names))}")
        if words.count(name.lower()) > 1:
            raise DataError(f"{table}: has the column {name!r} more than once")
    return [words.index(name.lower()) for name in wanted]


# Tables of pixels


@dataclass(frozen=True, slots=True, eq=False)
class PixelTable:
    """The content of a table of pixels.

    Attributes:
        images: Grey, uint8 (N, side, side).
        target: Class index, int64 (N,).
        split: Split number of each row, int8 (N,).
    """

    images: NDArray[np.uint8]
    target: NDArray[np.int64]
    split: NDArray[np.int8]


def read_pixel_table(
    source: Path,
    classes: Sequence[str],
    usage: Mapping[str, int] = USAGE,
    *,
    side: int = 48,
    prefer: Sequence[str] = (),
) -> PixelTable:
    """Return the rows of a table with the columns emotion, pixels and Usage, in any order.

    Args:
        source: The table as CSV, plain, gzipped (`.gz`), or as the only `.csv` in a `.zip`, `.tar` or `.tar.gz`.
        classes: The classes, by their number in the column emotion.
        usage: Split number of each word in the column Usage.
        side: Height and width of an image, px.
        prefer: Names of the table to take from an archive with several, the preferred one first.

    Raises:
        DataError: The file or a row cannot be read; says which and why.
    """
    images, targets, splits, size = list[NDArray[np.uint8]](), list[int](), list[int](), 0
    with _open_table(source, prefer) as file:
        names = _pixel_columns(file.readline(MAX_LINE), source)
        label_at, pixels_at, usage_at = (names.index(name) for name in COLUMNS)
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), b""), start=2):
            size += len(line)
            if size > MAX_TABLE:
                raise DataError(f"{source}: unpacks to more than {MAX_TABLE // 10**9} GB; is it the right file?")
            if len(line) == MAX_LINE:
                raise DataError(f"{source}: row {number} is longer than a megabyte; is it a table of pixels?")
            if not line.strip():
                continue
            where = f"{source}: row {number}"
            fields = [field.strip(BLANK) for field in line.split(b",")]
            if len(fields) != len(names):
                raise DataError(f"{where} has {len(fields)} fields separated by commas, not {len(names)}")
            label, word = fields[label_at], fields[usage_at].decode("utf-8", "replace")
            if not (label.isdigit() and len(label) <= 3 and int(label) < len(classes)):
                raise DataError(f"{where} has the class {_shown(label)}, not a number from 0 to {len(classes) - 1}")
            if word not in usage:
                raise DataError(f"{where} has the Usage {_shown(fields[usage_at])}, not one of {', '.join(usage)}")
            if len(targets) == MAX_ROWS:
                raise DataError(f"{source}: has more than {MAX_ROWS:,} rows; split it, or pass a folder of pictures")
            images.append(_parse_pixels(fields[pixels_at], side, where))
            targets.append(int(label))
            splits.append(usage[word])
    if not images:
        raise DataError(f"{source}: contains no rows after its header; is the file complete?")
    return PixelTable(np.stack(images), np.array(targets, np.int64), np.array(splits, np.int8))


def _parse_pixels(text: bytes, side: int, where: str) -> NDArray[np.uint8]:
    """Return the pixels of a row, uint8 (side, side)."""
    if text.translate(None, b"0123456789 \t"):  # something else is in it: find out what
        for word in text.split():
            if not word.removeprefix(b"-").isdigit():
                raise DataError(f"{where} has a pixel that is not a whole number ({_shown(word)})")
        text = b" ".join(text.split())  # other white space, or numbers below 0
    values = np.fromstring(text, np.int64, sep=" ") if text else np.empty(0, np.int64)  # type: ignore[call-overload]
    if len(values) != side**2:
        raise DataError(f"{where} has {len(values):,} pixels, not {side**2:,} ({side}x{side})")
    if values.min() < 0 or values.max() > 255:
        raise DataError(f"{where} has a pixel outside 0-255 ({values.min()} to {values.max()})")
    return values.astype(np.uint8).reshape(side, side)


def _pixel_columns(line: bytes, source: Path) -> list[str]:
    """Return the names of the columns."""
    _refuse_utf16(line, source)
    text = line.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    names = [name.strip(BLANK.decode()) for name in text.split(",")]
    if all(names.count(name) == 1 for name in COLUMNS):
        return names
    for mark, word in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if set(COLUMNS) <= {name.strip(BLANK.decode()) for name in text.split(mark)}:
            raise DataError(f"{source}: its columns are separated by {word}; save it again with commas")
    raise DataError(f"{source}: its first line is not 'emotion,pixels,Usage' (in any order); is it the right file?")


def _shown(field: bytes) -> str:
    """Return a field as an error shows it."""
    text = field.decode("utf-8", "replace")
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


@contextmanager
def _open_table(source: Path, prefer: Sequence[str]) -> Iterator[BinaryIO]:
    """Open a table, which may be gzipped or in an archive.

    Raises:
        DataError: The file cannot be read, also while the block reads it; or an archive contains no table, or several.
    """
    with ExitStack() as stack:
        try:
            if zipfile.is_zipfile(source):
                archive = stack.enter_context(open_zip(source))
                name = _only_table(archive.namelist(), source, prefer)
                if archive.getinfo(name).file_size > MAX_TABLE:
                    raise DataError(f"{source}: {name} unpacks to more than {MAX_TABLE // 10**9} GB; is it the right archive?")
                file = stack.enter_context(archive.open(name))
            elif source.name.endswith((".tar.gz", ".tgz", ".tar")):
                tar = stack.enter_context(tarfile.open(source))
                file = stack.enter_context(
                    cast(IO[bytes], tar.extractfile(_only_table(_tar_names(tar, prefer), source, prefer)))
                )
            elif source.suffix == ".gz":
                file = stack.enter_context(cast(IO[bytes], gzip.open(source)))  # noqa: SIM115 (as above)
            else:
                file = stack.enter_context(source.open("rb"))
            yield cast(BinaryIO, file)
        except UNREADABLE as error:
            raise DataError(f"{source}: cannot be read ({reason(error)})") from None


def _tar_names(tar: tarfile.TarFile, prefer: Sequence[str]) -> Iterator[str]:
    """Yield the files of a tar archive, up to the preferred table: to look further is to decompress everything."""
    for member in tar:
        if member.isfile():
            yield member.name
            if prefer and PurePosixPath(member.name).name == prefer[0]:
                return


def _only_table(names: Iterable[str], source: Path, prefer: Sequence[str]) -> str:
    """Return the table in an archive: a preferred one, else the only one."""
    tables = {name: PurePosixPath(name) for name in names if name.lower().endswith(".csv") and "__MACOSX" not in name}
    tables = {name: path for name, path in tables.items() if not path.name.startswith(".")}
    for wanted in prefer:
        for name, path in tables.items():
            if path.name == wanted:
                return name
    if len(tables) != 1:
        found = ", ".join([*tables][:5]) or "none"
        raise DataError(f"{source}: should contain one .csv file, not {len(tables)} ({found}); unpack it and pass the file")
    return next(iter(tables))
