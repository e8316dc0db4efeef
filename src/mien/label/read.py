"""How one unit is read: its pictures and videos, in order, as sources for `Recognizer.stream`.

Threads read ahead, so that recognition rarely waits for the network. Files of this machine are opened by the recognizer.
"""

from __future__ import annotations

import posixpath
import tarfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice, repeat
from pathlib import Path
from typing import Any, TypeVar

from mien.errors import InputError, reason, require
from mien.folders import is_shown
from mien.label.plan import Unit, find_column
from mien.label.stores import REQUESTS, File, check_unchanged, file_error, local_file, local_path, open_file, open_store
from mien.video.container import TemporaryCopy, scheme_of
from mien.video.sources import Source, by_ending

T = TypeVar("T")

MAX_PICTURE_BYTES = 256 * 2**20
"""Size of the largest file of a picture that is read into memory."""

ROWS = 16
"""Rows of a Parquet file that are decoded at once."""

Load = Callable[[], Source]
"""Reads one picture or video; if that fails, it returns a source with an error."""


def read_unit(unit: Unit, column: str | None) -> Iterator[Source]:
    """Yield the pictures and videos of a unit in order; `column` is that of Parquet files.

    Raises:
        DataError: A store cannot be read.
    """
    loads = _loads(unit, column)
    listed = _call_ahead(repeat(partial(next, loads, None)), threads=1)  # one thread reads the shard or table in order
    yield from _call_ahead(listed, threads=REQUESTS)  # the others fetch what it names


def _call_ahead(calls: Iterable[Callable[[], T | None]], threads: int) -> Iterator[T]:
    """Yield what the calls return, in their order, until one returns None; threads make the next calls ahead."""
    remaining = iter(calls)
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque(pool.submit(call) for call in islice(remaining, REQUESTS))
        while waiting and (result := waiting.popleft().result()) is not None:
            waiting.extend(pool.submit(call) for call in islice(remaining, 1))
            yield result


def _loads(unit: Unit, column: str | None) -> Iterator[Load]:
    """Yield what reads each picture or video of a unit; of a file that breaks off, also its error."""
    if unit.kind in ("picture", "video"):
        yield from (partial(_load_file, file) for file in unit.files)
        return
    (file,) = unit.files
    try:
        yield from _members(file) if unit.kind == "shard" else _rows(file, column, unit)
    except Exception as error:
        yield partial(Source, file.name, "error", error=file_error(file.name, error))


def _load_file(file: File) -> Source:
    """Return the source of a picture or video: its path, or its content if it is in a store."""
    is_video = by_ending(file.name) == "video"
    try:
        if (local := local_path(file.name)) is not None:
            check_unchanged(file, local_file(local))
            return Source(file.name, "video" if is_video else "picture", local)
        if is_video:
            with open_file(file) as stream:
                return Source(file.name, "video", TemporaryCopy(stream))
        _check_size(file.name, file.size or 0)
        fs, path = open_store(file.name)
        end = file.size or None  # without an end, s3fs first asks for the size
        content = fs.cat_file(path, start=0 if end else None, end=end)
        check_unchanged(file, file._replace(size=len(content)))  # its ETag would take another request
        return Source(file.name, "picture", content)
    except Exception as error:
        return Source(file.name, "error", error=file_error(file.name, error))


def _check_size(name: str, size: int) -> None:
    if size > MAX_PICTURE_BYTES:
        raise InputError(
            f"{name}: is larger than the {MAX_PICTURE_BYTES // 2**20} MiB mien reads of a picture; make it smaller"
        )


def _members(file: File) -> Iterator[Load]:
    """Yield the pictures and videos in a tar shard."""
    count = 0
    with open_file(file) as stream:
        try:
            tar: Any = tarfile.TarFile(fileobj=stream)
            while (member := tar.next()) is not None:
                tar.members.clear()  # else memory grows with each
                kind = by_ending(member.name) if member.isreg() and is_shown(posixpath.basename(member.name)) else None
                if kind is None:
                    continue
                name, content = f"{file.name}::{member.name}", tar.extractfile(member)
                try:
                    if kind == "picture":
                        _check_size(name, member.size)
                    yield partial(Source, name, kind, content.read() if kind == "picture" else TemporaryCopy(content))
                except InputError as error:
                    yield partial(Source, name, "error", error=error)
                count += 1
            stream.seek(tar.offset)
            if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # the mark at the end of a tar file
                raise tarfile.ReadError("its end is missing")
        except tarfile.TarError as error:
            text = (
                f"{file.name}: is truncated or corrupt ({reason(error)}) after {count:,} pictures and videos, which were read"
            )
            raise InputError(f"{text}; copy or download it again") from None
    if not count:
        raise InputError(f"{file.name}: contains no picture or video with a known ending")


def _rows(file: File, column: str | None, unit: Unit) -> Iterator[Load]:
    """Yield the pictures in a row group of a Parquet file."""
    with open_file(file) as stream:
        table = require("pyarrow.parquet", "label").ParquetFile(stream)
        column = find_column(table.schema_arrow, column, file.name)
        number = unit.first_row
        for batch in table.iter_batches(ROWS, row_groups=[unit.row_group], columns=[column], use_threads=False):
            for value in batch.column(0).to_pylist():
                yield partial(_load_value, value, f"{file.name}::{number}", file.name)
                number += 1


def _load_value(value: Any, name: str, table: str) -> Source:
    """Return the source of a cell: the content of a picture, or a path or address, relative to its Parquet file."""
    if isinstance(value, dict):  # as Hugging Face's datasets store a picture
        value = value.get("bytes") or value.get("path")
    if not value:
        return Source(name, "error", error=InputError(f"{name}: is empty"))
    if isinstance(value, bytes):
        return Source(name, "picture", value)
    if scheme_of(value) is None:
        value = f"{table.rpartition('/')[0]}/{value}" if "/" in table and not Path(value).is_absolute() else value
    return _load_file(File(value))
