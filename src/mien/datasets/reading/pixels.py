"""Tables of pixels: `emotion,pixels,Usage`, the pixels as text, as Kaggle's `fer2013.csv` and `ckextended.csv` have them.

A table is read a block of whole lines at a time. A block that is regular, numbers with single spaces between them, is decoded
by array arithmetic on its bytes; any other is read again row by row, and the row that is bad is named.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from mien.datasets.reading.digits import decode_regular
from mien.datasets.reading.source import MAX_TABLE, open_table
from mien.errors import DataError

COLUMNS = ("emotion", "pixels", "Usage")

BLOCK = 1 << 18
"""Bytes read at a time: few enough for the arrays made of them to stay in the processor's cache."""

THREADS = min(4, os.cpu_count() or 1)
"""Threads that decode blocks: array arithmetic lets others run."""

MAX_LINE = 1 << 20
"""Bytes of the longest row; one of 48x48 pixels has about 8,400."""

LINE_END = b"\n"

BLANK = b' \t\r\n\v\f"'
"""What may stand around a field."""

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


def read_pixel_table(
    source: Path, classes: Sequence[str], usage: Mapping[str, int], *, side: int = 48, prefer: Sequence[str] = ()
) -> PixelTable:
    """Return the rows of a table with the columns emotion, pixels and Usage, in any order.

    Args:
        source: The table; plain, gzipped, or in a zip or tar archive (see `mien.datasets.reading.source.open_table`).
        classes: The classes, by the number in the column emotion.
        usage: Split number by the word in the column Usage.
        side: Height and width of an image, px.
        prefer: Names of the table to take of an archive that holds several.

    Raises:
        DataError: The file or a row cannot be read; names it and says why.
    """
    pieces, count = list[PixelTable](), 0
    with open_table(source, prefer=prefer) as file:
        names = _header(file.readline(MAX_LINE), source)
        layout = _Layout(tuple(names.index(name) for name in COLUMNS), len(names), classes, usage, side)
        for number, block, regular in _ahead(_blocks(file, source), layout):
            pieces.append(regular.result() or _read_carefully(block, layout, source, number))
            count += len(pieces[-1].target)
            if count > MAX_ROWS:
                raise DataError(f"{source}: has more than {MAX_ROWS:,} rows; split it, or pass a folder of pictures")
    if not count:
        raise DataError(f"{source}: holds no rows after its header; is the file complete?")
    images = np.concatenate([piece.images for piece in pieces])
    return PixelTable(images, *(np.concatenate([getattr(piece, key) for piece in pieces]) for key in ("target", "split")))


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
    return text.strip(BLANK.decode())


def _blocks(file: BinaryIO, source: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a table, whole, some at a time, and the number of the first; the header is row 1."""
    number, size = 2, 0
    while block := file.read(BLOCK):
        end = b"" if block.endswith(b"\n") else file.readline(MAX_LINE)
        if len(end) == MAX_LINE and not end.endswith(b"\n"):
            raise DataError(f"{source}: row {number + _count_lines(block)} is longer than a megabyte; is it a table of pixels?")
        block += end
        size += len(block)
        if size > MAX_TABLE:
            raise DataError(f"{source}: unpacks to more than {MAX_TABLE // 10**9} GB; is it the right file?")
        yield number, block
        number += _count_lines(block)


def _count_lines(block: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(block, np.uint8) == LINE_END[0]))  # five times as fast as `bytes.count`


def _ahead(blocks: Iterator[tuple[int, bytes]], layout: _Layout) -> Iterator[tuple[int, bytes, Future[PixelTable | None]]]:
    """Yield blocks with what `_read_regular` makes of them, in order; threads decode some blocks ahead."""
    waiting: deque[tuple[int, bytes, Future[PixelTable | None]]] = deque()
    with ThreadPoolExecutor(THREADS) as pool:
        for number, block in blocks:
            waiting.append((number, block, pool.submit(_read_regular, block, layout)))
            if len(waiting) > 2 * THREADS:
                yield waiting.popleft()
        yield from waiting


def _read_regular(block: bytes, layout: _Layout) -> PixelTable | None:
    """Return the rows of a block, or None if any is not regular."""
    labels = {str(i).encode(): i for i in range(len(layout.classes))}
    usage = {word.encode(): i for word, i in layout.usage.items()}
    view = memoryview(block)  # parts of it are no copies
    target, texts, split = list[int](), list[memoryview](), list[int]()
    for row in _spans(block):
        if len(row) != layout.fields:
            return None
        label, pixels, word = (slice(*row[i]) for i in layout.columns)
        target.append(labels.get(block[label].strip(BLANK), -1))
        split.append(usage.get(block[word].strip(BLANK), -1))
        texts.append(view[_trimmed(block, pixels)])
    images = None if -1 in target or -1 in split else decode_regular(texts, layout.side**2)
    return None if images is None else _piece(images, target, split, layout)


def _piece(images: NDArray[np.uint8], target: list[int], split: list[int], layout: _Layout) -> PixelTable:
    shape = (len(target), layout.side, layout.side)
    return PixelTable(images.reshape(shape), np.array(target, np.int64), np.array(split, np.int8))


def _spans(block: bytes) -> Iterator[list[tuple[int, int]]]:
    """Yield, for each line that is not blank, where its fields begin and end."""
    start = 0
    while start < len(block):
        end = block.find(LINE_END, start)
        end = len(block) if end < 0 else end
        row = []
        while (comma := block.find(b",", start, end)) >= 0:
            row.append((start, comma))
            start = comma + 1
        if row or block[start:end].strip():
            yield [*row, (start, end)]
        start = end + 1


def _trimmed(block: bytes, field: slice) -> slice:
    """Return where a field begins and ends without what may stand around it."""
    start, end = field.start, field.stop
    while start < end and block[start] in BLANK:
        start += 1
    while start < end and block[end - 1] in BLANK:
        end -= 1
    return slice(start, end)


def _read_carefully(block: bytes, layout: _Layout, source: Path, number: int) -> PixelTable:
    """Return the rows of a block, read one by one; `number` is that of the first."""
    lines = enumerate(block.split(LINE_END), start=number)
    rows = [_parse_row(line, layout, f"{source}: row {row}") for row, line in lines if line.strip()]
    images = np.array([pixels for _, pixels, _ in rows], np.uint8)
    return _piece(images, [label for label, _, _ in rows], [usage for _, _, usage in rows], layout)


def _parse_row(line: bytes, layout: _Layout, where: str) -> tuple[int, NDArray[np.uint8], int]:
    """Return class, pixels (side * side,) and split number of a row."""
    fields = [field.strip(BLANK) for field in line.split(b",")]
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
    """Return the pixels of a row, (side * side,)."""
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
    return values.astype(np.uint8)


def _shown(field: bytes) -> str:
    """Return a field as an error shows it."""
    text = field.decode("utf-8", "replace")
    return repr(text if len(text) <= 40 else f"{text[:40]}...")
