"""Rows of a CSV file, one at a time, each with its number; whatever is wrong with one is a `DataError` that names it."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from mien.datasets.reading.pixels import refuse_utf16
from mien.errors import DataError
from mien.registry import nearest

DELIMITERS = (",", ";", "\t")

MAX_LINE = 1 << 20
"""Bytes of the longest line: a file without line ends must not fill the memory."""


def csv_rows(file: BinaryIO, source: object) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of each row, its line in the file from 1, and its fields; the names of the columns first.

    The fields are stripped of spaces; blank lines are left out. The delimiter is the one that the first line has most of.

    Args:
        file: The file, UTF-8, with or without a byte-order mark.
        source: Its name, for errors.

    Raises:
        DataError: The encoding is another, a quotation mark is not closed, or a row has more or fewer fields than columns.
    """
    lines = _lines(file, source)
    header = next(lines, "")
    delimiter = max(DELIMITERS, key=header.count)
    number = 1
    try:
        names = next(csv.reader([header], delimiter=delimiter), [])
        if not any(name.strip() for name in names):
            raise DataError(f"{source}: has no first line with the names of its columns; is the file complete?")
        yield 1, [name.strip() for name in names]
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        for fields in reader:
            number = reader.line_num + 1
            if fields and len(fields) != len(names):
                raise DataError(f"{source}: row {number} has {len(fields)} fields, not {len(names)}")
            if fields:
                yield number, [field.strip() for field in fields]
    except csv.Error as error:
        raise DataError(f"{source}: cannot be read after row {number} ({error}); check its quotation marks") from None


def _lines(file: BinaryIO, source: object) -> Iterator[str]:
    number = 0
    while line := file.readline(MAX_LINE):
        number += 1
        if number == 1:
            refuse_utf16(line, source)
            line = line.removeprefix(b"\xef\xbb\xbf")
        if len(line) == MAX_LINE:
            raise DataError(f"{source}: row {number} is longer than a megabyte; is it a table of files?")
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{source}: row {number} is not in UTF-8 (byte 0x{line[error.start]:02x}), perhaps in Windows-1252 or Latin-1; "
                "save the file again as 'CSV UTF-8'"
            ) from None
        yield text


def find_columns(names: Sequence[str], wanted: Sequence[str], source: object) -> list[int]:
    """Return where columns stand; upper and lower case are the same.

    Raises:
        DataError: One is missing, or there more than once.
    """
    words = [name.lower() for name in names]
    for name in wanted:
        if name.lower() not in words:
            raise DataError(f"{source}: has no column {name!r}{nearest(name, list(names))}")
        if words.count(name.lower()) > 1:
            raise DataError(f"{source}: has the column {name!r} more than once")
    return [words.index(name.lower()) for name in wanted]
