"""Tables of pixels: `emotion,pixels,Usage`, the pixels as text, as Kaggle's `fer2013.csv` and `ckextended.csv` have them.

A table is read a block of whole lines at a time. A block that is regular, numbers with single spaces between them, is decoded
by array arithmetic on its bytes; any other is read again row by row, and the row that is bad is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from mien.datasets.source import MAX_TABLE, open_table
from mien.errors import DataError

COLUMNS = ("emotion", "pixels", "Usage")

BLOCK = 1 << 20
"""Bytes read at a time, and the most a line may have; a row of 48x48 pixels has about 8,400."""

GROUP = 32
"""Rows decoded at a time: few enough for their arrays to stay in the processor's cache."""

MAX_ROWS = 200_000
"""Rows of the largest table: as many faces of 48x48 as fit in half a gigabyte, five times those of FER2013."""


@dataclass(frozen=True, slots=True, eq=False)
class PixelTable:
    """What a table of pixels holds.

    Attributes:
        images: Grey, uint8 (N, side, side).
        target: Class index, int64 (N,).
        split: Split number of each row, int8 (N,).
    """

    images: NDArray[np.uint8]
    target: NDArray[np.int64]
    split: NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class _Layout:
    """How a table's rows read: where its columns stand and what may stand in them."""

    columns: tuple[int, ...]
    fields: int
    classes: Sequence[str]
    usage: Mapping[str, int]
    side: int


@dataclass(slots=True)
class _Parts:
    """The rows read so far, in pieces."""

    images: list[NDArray[np.uint8]]
    target: list[int]
    split: list[int]


def read_pixel_table(
    source: Path, classes: Sequence[str], usage: Mapping[str, int], *, side: int = 48, prefer: Sequence[str] = ()
) -> PixelTable:
    """Return the rows of a table with the columns emotion, pixels and Usage, in any order.

    Args:
        source: The table; plain, gzipped, or in a zip or tar archive (see `mien.datasets.source.open_table`).
        classes: The classes, by the number in the column emotion.
        usage: Split number by the word in the column Usage.
        side: Height and width of an image, px.
        prefer: Names of the table to take of an archive that holds several.

    Raises:
        DataError: The file or a row cannot be read; names it and says why.
    """
    parts = _Parts([], [], [])
    with open_table(source, prefer=prefer) as file:
        names = _header(file.readline(BLOCK), source)
        layout = _Layout(tuple(names.index(name) for name in COLUMNS), len(names), classes, usage, side)
        for number, lines in _blocks(file, source):
            if not _read_regular(lines, layout, parts):
                _read_carefully(lines, layout, parts, source, number)
            if len(parts.target) > MAX_ROWS:
                raise DataError(f"{source}: has more than {MAX_ROWS:,} rows; split it, or pass a folder of pictures")
    if not parts.target:
        raise DataError(f"{source}: holds no rows after its header; is the file complete?")
    images = np.concatenate(parts.images).reshape(-1, side, side)
    return PixelTable(images, np.array(parts.target, np.int64), np.array(parts.split, np.int8))


def refuse_utf16(start: bytes, source: object) -> None:
    """Raise a `DataError` if a table's first bytes are UTF-16 or UTF-32, as some spreadsheets write them."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in start[:64]:
        raise DataError(f"{source}: is UTF-16 or binary, not UTF-8; save it again as 'CSV UTF-8'")


def _header(line: bytes, source: Path) -> list[str]:
    """Return the names of the columns."""
    refuse_utf16(line, source)
    text = line.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    names = [_clean(name) for name in text.split(",")]
    if all(names.count(name) == 1 for name in COLUMNS):
        return names
    for mark, word in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if set(COLUMNS) <= {_clean(name) for name in text.split(mark)}:
            raise DataError(f"{source}: its columns are separated by {word}; save it again with commas")
    raise DataError(f"{source}: its first line is not 'emotion,pixels,Usage' (in any order); is it the right file?")


def _clean(text: str) -> str:
    return text.strip().strip('"').strip()


def _blocks(file: BinaryIO, source: Path) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the lines of a table, some at a time, and the number of the first; the header is row 1."""
    number, size, rest = 2, 0, b""
    while block := file.read(BLOCK):
        size += len(block)
        if size > MAX_TABLE:
            raise DataError(f"{source}: unpacks to more than {MAX_TABLE // 10**9} GB; is it the right file?")
        lines = (rest + block).split(b"\n")
        rest = lines.pop()
        if len(rest) > BLOCK:
            raise DataError(f"{source}: row {number + len(lines)} is longer than a megabyte; is it a table of pixels?")
        yield number, lines
        number += len(lines)
    yield number, [rest]


def _read_regular(lines: Sequence[bytes], layout: _Layout, parts: _Parts) -> bool:
    """Add regular lines to `parts`; return False, and add none, if any is not regular."""
    labels = {str(i).encode(): i for i in range(len(layout.classes))}
    usage = {word.encode(): i for word, i in layout.usage.items()}
    label_at, pixels_at, usage_at = layout.columns
    rows = [line.split(b",") for line in lines if line and not line.isspace()]
    if any(len(row) != layout.fields for row in rows):
        return False
    target = [labels.get(_clean_bytes(row[label_at]), -1) for row in rows]
    split = [usage.get(_clean_bytes(row[usage_at]), -1) for row in rows]
    if -1 in target or -1 in split:
        return False
    texts = [_clean_bytes(row[pixels_at]) for row in rows]
    images = [decode_regular(texts[i : i + GROUP], layout.side**2) for i in range(0, len(texts), GROUP)]
    if any(group is None for group in images):
        return False
    parts.images += [group for group in images if group is not None]
    parts.target += target
    parts.split += split
    return True


def _clean_bytes(field: bytes) -> bytes:
    return field.strip().strip(b'"').strip()


def decode_regular(texts: Sequence[bytes], size: int) -> NDArray[np.uint8] | None:
    """Return the numbers in some texts, uint8 (N, size), or None if any text is not regular.

    A regular text is `size` numbers from 0 to 255 with one space between two of them.

    >>> decode_regular([b"0 31 255", b"4 5 6"], 3)
    array([[  0,  31, 255],
           [  4,   5,   6]], dtype=uint8)

    Args:
        texts: The texts.
        size: How many numbers each should hold.
    """
    if not texts:
        return np.empty((0, size), np.uint8)
    codes = np.frombuffer(b"0\n" + b"\n".join(texts) + b"\n", np.uint8)  # two bytes before the first number, see below
    digits = codes - np.uint8(ord("0"))  # what stands before "0" wraps round to more than 9
    is_digit = digits < 10
    stops = np.flatnonzero(~is_digit)  # what follows each number
    if not _is_regular(codes, stops, len(texts), size):
        return None
    digits *= is_digit
    low = digits[1:-1] * np.uint8(10) + digits[2:]  # of the number up to each byte, its last two digits,
    high = digits[:-2] * is_digit[1:-1] * is_digit[2:]  # and its hundreds
    values = high * np.uint8(100) + low
    if high.max() > 2 or (values < low).any():  # over 299, or wrapped round
        return None
    return values[stops[1:] - 3].reshape(len(texts), size)


def _is_regular(codes: NDArray[np.uint8], stops: NDArray[np.int64], rows: int, size: int) -> bool:
    """Return whether `size` numbers of one to three digits stand on each line, one space between two of them."""
    if len(stops) != rows * size + 1 or np.count_nonzero(codes == ord(" ")) != rows * (size - 1):
        return False
    steps = np.diff(stops)
    return bool(steps.min() > 1 and steps.max() < 5 and (codes[stops[::size]] == ord("\n")).all())


def _read_carefully(lines: Sequence[bytes], layout: _Layout, parts: _Parts, source: Path, number: int) -> None:
    """Add lines to `parts` one by one; `number` is the row number of the first."""
    for row, line in enumerate(lines, start=number):
        if line.strip():
            label, pixels, usage = _parse_row(line, layout, f"{source}: row {row}")
            parts.images.append(pixels)
            parts.target.append(label)
            parts.split.append(usage)


def _parse_row(line: bytes, layout: _Layout, where: str) -> tuple[int, NDArray[np.uint8], int]:
    """Return class, pixels (1, side * side) and split number of a row."""
    fields = [_clean_bytes(field) for field in line.split(b",")]
    if len(fields) != layout.fields:
        raise DataError(f"{where} has {len(fields)} fields separated by commas, not {layout.fields}")
    label, pixels, usage = (fields[i] for i in layout.columns)
    last = len(layout.classes) - 1
    if not (label.isdigit() and len(label) <= 3 and int(label) <= last):
        raise DataError(f"{where} has the class {_shown(label)}, not a number from 0 to {last}")
    if usage.decode("utf-8", "replace") not in layout.usage:
        raise DataError(f"{where} has the Usage {_shown(usage)}, not one of {', '.join(layout.usage)}")
    return int(label), _parse_pixels(pixels, layout.side, where), layout.usage[usage.decode()]


def _parse_pixels(text: bytes, side: int, where: str) -> NDArray[np.uint8]:
    """Return the pixels of a row, (1, side * side)."""
    words = text.split()
    if len(words) > 2 * side**2:
        raise DataError(f"{where} has {len(words):,} pixels, not {side**2:,} ({side}x{side})")
    for word in words:
        if not word.removeprefix(b"-").isdigit() or len(word) > 9:
            raise DataError(f"{where} has a pixel that is not a whole number ({_shown(word)})")
    if len(words) != side**2:
        raise DataError(f"{where} has {len(words):,} pixels, not {side**2:,} ({side}x{side})")
    values = np.array([int(word) for word in words])
    if values.min() < 0 or values.max() > 255:
        raise DataError(f"{where} has a pixel outside 0-255 ({values.min()} to {values.max()})")
    return values.astype(np.uint8)[None]


def _shown(field: bytes) -> str:
    """Return a field as an error shows it."""
    text = field.decode("utf-8", "replace")
    return repr(text if len(text) <= 40 else f"{text[:40]}...")
