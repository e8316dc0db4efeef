"""What a job reads: pictures, videos, tar shards and Parquet files, in folders of this machine or in object stores.

`plan_units` lists the files once and divides them into units. `read_unit` yields the pictures and videos of a unit for
`Recognizer.stream`; threads read them ahead of the recognition.

An `InputError` concerns one input, which is listed while the job continues. A `DataError`, such as for credentials that have
expired, stops the job: the next run continues it.
"""

from __future__ import annotations

import errno
import glob
import os
import posixpath
import re
import tarfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice, repeat
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, TypeVar

from mien.errors import DataError, InputError, MienError, MissingExtraError, reason, require
from mien.folders import is_shown, walk_folder
from mien.video.container import TemporaryCopy, scheme_of
from mien.video.sources import Source, by_ending, drawn

T = TypeVar("T")

Kind = Literal["picture", "video", "shard", "parquet"]

MANIFEST, PARTS = "manifest.json", "faces"
"""The plan of a job and the folder of its parts, in its folder."""

READERS = 8
"""Threads that read pictures from an object store, and pictures that are read ahead."""

MAX_PICTURE_BYTES = 256 * 2**20
"""Size of the largest file of a picture that is read into memory."""

READABLE = re.compile(r"(large_)?(binary|string)(_view)?|struct<bytes: binary.*|dictionary<values=(large_)?string.*")
"""Arrow's types of columns that contain pictures or paths; the struct is that of Hugging Face's datasets."""

ROWS = 16
"""Rows of a Parquet file that are decoded at once."""


class File(NamedTuple):
    """A file of the collection, as it was when the job was planned.

    Attributes:
        name: Its path as given, or its address.
        size: Its size in bytes; None if nobody looked, as for the paths in a Parquet file.
        version: Its time of change, or an object's ETag.
    """

    name: str
    size: int | None = None
    version: str = ""


class Unit(NamedTuple):
    """A part of a job that is done completely or not at all.

    Attributes:
        number: Its number, from 0.
        kind: "picture" for a group of pictures, or one video, one shard, or one row group of a Parquet file.
        files: What it reads.
        row_group: Number of the row group.
        first_row: Number of the row group's first row in the file.
    """

    number: int
    kind: Kind
    files: Sequence[File]
    row_group: int = 0
    first_row: int = 0


# Planning ---------------------------------------------------------------------------------------------------------------


def plan_units(sources: Sequence[str], column: str | None, unit_size: int, errors: list[tuple[str, str]]) -> list[Unit]:
    """Return the units of a job, the same for the same files.

    Args:
        sources: Files, folders and patterns, each a path or an address that fsspec can open.
        column: The column of Parquet files to read; None takes the only one of bytes.
        unit_size: Pictures per unit.
        errors: Gets the name of each file and folder that cannot be read, and the reason.

    Raises:
        InputError: A source is missing or contains nothing to read.
        DataError: An object store cannot be read, or a Parquet file lacks the column.
    """
    groups: list[tuple[Kind, list[File]]] = []
    pictures: list[File] = []
    for kind, file in _list_files(sources, errors):
        if kind != "picture":
            groups.append((kind, [file]))
            continue
        if not pictures or len(pictures) == unit_size:
            groups.append((kind, pictures := []))
        pictures.append(file)
    tables = [file for kind, (file, *_) in groups if kind == "parquet"]
    with ThreadPoolExecutor(READERS) as pool:
        row_groups = dict(zip(tables, pool.map(partial(_row_groups, column=column), tables), strict=True))
    units: list[Unit] = []
    for kind, files in groups:
        if kind != "parquet":
            units.append(Unit(len(units), kind, files))
            continue
        counts, first = row_groups[files[0]], 0
        if isinstance(counts, InputError):
            errors.append((files[0].name, str(counts)))
            continue
        for i, count in enumerate(counts):
            units.append(Unit(len(units), kind, files, i, first))
            first += count
    return units


def _list_files(sources: Sequence[str], errors: list[tuple[str, str]]) -> Iterator[tuple[Kind, File]]:
    """Yield every file that is named, in order, the same one once."""
    seen = set[str]()
    for source in sources:
        found = False
        for file in _list_local(source, errors) if local_path(source) is not None else _list_store(source):
            kind = kind_of(file.name)
            if kind is None and file.name == source:
                raise InputError(
                    f"{source}: is not a picture, video, .tar or .parquet by its ending; rename it or leave it out"
                )
            key = os.path.abspath(file.name) if local_path(file.name) is not None else file.name  # noqa: PTH100
            if kind is not None:
                found = True
                if key not in seen:
                    seen.add(key)
                    yield kind, file
        if not found:
            raise InputError(f"{source}: contains no picture, video, .tar or .parquet; check the path or pattern")


def kind_of(name: str) -> Kind | None:
    """Return what a file is by its ending; None if unknown.

    >>> kind_of("a.jpg"), kind_of("shard-0001.tar"), kind_of("rows.parquet"), kind_of("a.txt")
    ('picture', 'shard', 'parquet', None)
    """
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 -- pathlib is slow for many names
    if suffix in (".tar", ".parquet"):
        return "shard" if suffix == ".tar" else "parquet"
    kind = by_ending(name)
    return kind if kind == "picture" or kind == "video" else None


def _list_local(name: str, errors: list[tuple[str, str]]) -> Iterator[File]:
    """Yield the files of a path or pattern of this machine."""
    path = local_path(name) or name
    if glob.has_magic(path) and not os.path.lexists(path):
        matches = sorted(glob.iglob(path, recursive=True))  # noqa: PTH207 -- keeps a path as it is written
    elif os.path.lexists(path):
        matches = [path]
    else:
        raise InputError(f"{path}: no such file or folder; check the path")

    def fail(error: OSError) -> None:
        errors.append((str(error.filename), f"the folder cannot be read ({reason(error)})"))

    for match in matches:
        if not Path(match).is_dir():
            yield from _stat([match], errors)
        elif "**" not in path:  # else its files match too
            for folder, folders, files in walk_folder(match, [], fail):
                folders[:] = sorted(each for each in folders if not _is_output(Path(folder, each)))
                known = filter(kind_of, sorted(files))
                yield from _stat((os.path.join(folder, file) for file in known), errors)  # noqa: PTH118


def _is_output(folder: Path) -> bool:
    """Return whether mien wrote a folder: its drawings, or the parts of a job."""
    return drawn(folder) or ((folder / MANIFEST).is_file() and (folder / PARTS).is_dir())


def _stat(paths: Iterable[str], errors: list[tuple[str, str]]) -> Iterator[File]:
    for path in paths:
        try:
            found = os.stat(path)  # noqa: PTH116 -- as above
        except OSError as error:
            errors.append((path, f"cannot be read ({reason(error)})"))
        else:
            yield File(path, found.st_size, str(found.st_mtime_ns))


def _list_store(address: str) -> Iterator[File]:
    """Yield the files of an address or pattern of an object store."""
    fs, path = open_store(address)
    try:
        if glob.has_magic(path) and not fs.exists(path):
            found = fs.glob(path, detail=True)
        else:
            info = fs.info(path)
            found = fs.find(path, detail=True) if info["type"] == "directory" else {path: info}
        names = {fs.unstrip_protocol(path): info for path, info in found.items() if info["type"] == "file"}
    except Exception as error:  # each store has its own
        raise store_error(address, error) from None
    for name, info in sorted(names.items()):
        if all(map(is_shown, name.removeprefix(address).split("/"))):
            yield File(name, info["size"], _version(info))


def _version(info: dict[str, Any]) -> str:
    """Return what changes when an object is replaced, from the facts that its store gives."""
    return str(next((info[key] for key in ("ETag", "etag", "md5Hash", "mtime", "LastModified", "created") if key in info), ""))


def _row_groups(file: File, column: str | None) -> list[int] | InputError:
    """Return the number of rows of each row group of a Parquet file, or why it cannot be read."""
    parquet = require("pyarrow.parquet", "label")
    try:
        with open_file(file) as stream:
            table = parquet.ParquetFile(stream)
            find_column(table.schema_arrow, column, file.name)
            return [table.metadata.row_group(i).num_rows for i in range(table.num_row_groups)]
    except Exception as error:
        return _input_error(file.name, error)


def find_column(schema: Any, column: str | None, name: str) -> str:
    """Return the column of a Parquet file to read: the one named, or the only one of bytes.

    Raises:
        DataError: The file has no such column.
    """
    types = {field.name: str(field.type) for field in schema}
    readable = {key: kind for key, kind in types.items() if READABLE.fullmatch(kind)}
    having = f"it has {', '.join(f'{key} ({kind})' for key, kind in list(types.items())[:20])}"
    if column is None:
        pictures = [key for key, kind in readable.items() if "binary" in kind]
        if len(pictures) != 1:
            raise DataError(f"{name}: which column has the pictures? {having}; name one with --column")
        return pictures[0]
    if column not in types:
        raise DataError(f"{name}: has no column {column!r}; {having}; name one with --column")
    if column not in readable:
        raise DataError(f"{name}: column {column!r} is {types[column]}, not bytes or paths of pictures; name another")
    return column


# Opening ----------------------------------------------------------------------------------------------------------------


def local_path(name: str) -> str | None:
    """Return the path of a file of this machine; None for an address of a store.

    >>> local_path("a/b.jpg"), local_path("file:///a/b.jpg"), local_path("s3://a/b.jpg")
    ('a/b.jpg', '/a/b.jpg', None)
    """
    scheme = scheme_of(name)
    return name if scheme is None else name[len("file://") :] if scheme == "file" else None


def open_store(address: str) -> tuple[Any, str]:
    """Return fsspec's file system of an address, and the path in it.

    Raises:
        MissingExtraError: fsspec, or its package for this kind of address, is not installed.
        DataError: fsspec does not know this kind of address, or cannot open it again from its names alone.
    """
    fsspec = require("fsspec", "label")
    try:
        fs, path = fsspec.core.url_to_fs(address)
        again = fsspec.core.url_to_fs(fs.unstrip_protocol(path))[0]
    except ImportError as error:
        raise MissingExtraError(f"{address}: {reason(error)}") from None
    except Exception as error:
        raise store_error(address, error) from None
    if again is not fs:
        raise DataError(f"{address}: contains more than a name, such as a password; put that into fsspec's configuration")
    return fs, path


def open_file(file: File, folder: str = "") -> BinaryIO:
    """Return an open file of the collection; relative paths start at `folder`.

    Raises:
        InputError: It has changed since the job was planned.
        Exception: It cannot be opened; each store has its own errors.
    """
    if local_path(file.name) is None:
        fs, path = open_store(file.name)
        info = fs.info(path)
        _check_unchanged(file, info["size"], _version(info))
        return fs.open(path, "rb")
    return _unchanged_path(file, folder).open("rb")


def _unchanged_path(file: File, folder: str) -> Path:
    """Return the path of a file of this machine, after checking that it is still the one of the plan."""
    path = Path(folder, local_path(file.name) or file.name)
    found = path.stat()
    _check_unchanged(file, found.st_size, str(found.st_mtime_ns))
    return path


def _check_unchanged(file: File, size: int, version: str) -> None:
    if file.size is not None and (size, version) != (file.size, file.version):
        raise InputError(f"{file.name}: has changed since the job was planned; label it in a new job")


def _input_error(name: str, error: Exception) -> InputError:
    """Return the error of one file; raise a `DataError` if others of its store would fail too."""
    if isinstance(error, InputError):
        return error
    if isinstance(error, MienError):
        raise error
    if isinstance(error, FileNotFoundError):
        return InputError(f"{name}: no such file; check the path, and whether it was deleted")
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        raise DataError(f"{name}: cannot be copied, because the disk is full; free some space, then run the same command again")
    damaged = type(error) is OSError and error.errno is None  # as Arrow says it
    if damaged or isinstance(error, (tarfile.TarError, require("pyarrow", "label").ArrowException)):
        return InputError(f"{name}: is truncated or corrupt ({reason(error)}); copy or download it again")
    if local_path(name) is None:
        raise store_error(name, error)
    if isinstance(error, OSError):
        return InputError(f"{name}: cannot be read ({reason(error)}); check its owner and mode")
    raise error


def store_error(address: str, error: Exception) -> MienError:
    """Return the error that says why an object store cannot be read or written, and what to do."""
    if isinstance(error, MienError):
        return error
    if isinstance(error, FileNotFoundError):
        return DataError(f"{address}: no such file, folder or bucket; check the address")
    if isinstance(error, PermissionError):
        advice = "check or renew the credentials, then run the same command again"
        return DataError(f"{address}: access was refused ({reason(error)}); {advice}")
    advice = "check address, network and credentials, then run the same command again"
    return DataError(f"{address}: cannot be reached ({reason(error)}); {advice}")


# Reading ----------------------------------------------------------------------------------------------------------------

Load = Callable[[], Source]
"""Reads one picture or video; if that fails, it returns a source with an error."""


def read_unit(unit: Unit, folder: str, column: str | None) -> Iterator[Source]:
    """Yield the pictures and videos of a unit in order; relative paths start at `folder`.

    Raises:
        DataError: A store cannot be read.
    """
    loads = _loads(unit, folder, column)
    if unit.kind in ("picture", "video") and all(local_path(file.name) is not None for file in unit.files):
        yield from (load() for load in loads)  # the recognizer reads these
    else:
        yield from _ahead(_ahead(repeat(partial(next, loads, None)), 1), READERS)


def _ahead(calls: Iterable[Callable[[], T | None]], threads: int) -> Iterator[T]:
    """Yield what calls return, in their order, until one returns None; threads make some calls ahead."""
    remaining = iter(calls)
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque(pool.submit(call) for call in islice(remaining, READERS))
        while waiting:
            result = waiting.popleft().result()
            if result is None:
                return
            waiting.extend(pool.submit(call) for call in islice(remaining, 1))
            yield result


def _loads(unit: Unit, folder: str, column: str | None) -> Iterator[Load]:
    """Yield what reads each picture or video of a unit; of a file that breaks off, also its error."""
    if unit.kind in ("picture", "video"):
        yield from (partial(_load_file, file, folder) for file in unit.files)
        return
    (file,) = unit.files
    try:
        yield from _members(file, folder) if unit.kind == "shard" else _rows(file, folder, column, unit)
    except Exception as error:
        yield partial(Source, file.name, "error", error=_input_error(file.name, error))


def _load_file(file: File, folder: str) -> Source:
    """Return the source of a picture or video: its path, or its content if it is in a store."""
    kind: Any = "video" if by_ending(file.name) == "video" else "picture"
    try:
        if local_path(file.name) is not None:
            return Source(file.name, kind, str(_unchanged_path(file, folder)))
        if kind == "video":
            with open_file(file) as stream:
                return Source(file.name, kind, TemporaryCopy(stream))
        _check_size(file.name, file.size or 0)
        fs, path = open_store(file.name)
        end = file.size or None  # without an end, s3fs first asks for the size
        content = fs.cat_file(path, start=0 if end else None, end=end)
        _check_unchanged(file, len(content), file.version)  # its ETag would take another request
        return Source(file.name, kind, content)
    except Exception as error:
        return Source(file.name, "error", error=_input_error(file.name, error))


def _check_size(name: str, size: int) -> None:
    if size > MAX_PICTURE_BYTES:
        raise InputError(
            f"{name}: is larger than the {MAX_PICTURE_BYTES // 2**20} MiB mien reads of a picture; make it smaller"
        )


def _members(file: File, folder: str) -> Iterator[Load]:
    """Yield the pictures and videos in a tar shard."""
    count = 0
    with open_file(file, folder) as stream:
        try:
            tar: Any = tarfile.TarFile(fileobj=stream)
            while (member := tar.next()) is not None:
                tar.members.clear()  # else memory grows with each
                kind = by_ending(member.name) if member.isreg() and is_shown(posixpath.basename(member.name)) else None
                if kind is None:
                    continue
                content = tar.extractfile(member)
                name = f"{file.name}::{member.name}"
                try:
                    if kind == "picture":
                        _check_size(name, member.size)
                    value = content.read() if kind == "picture" else TemporaryCopy(content)
                    yield partial(Source, name, kind, value)
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


def _rows(file: File, folder: str, column: str | None, unit: Unit) -> Iterator[Load]:
    """Yield the pictures in a row group of a Parquet file."""
    parquet = require("pyarrow.parquet", "label")
    with open_file(file, folder) as stream:
        table = parquet.ParquetFile(stream)
        column = find_column(table.schema_arrow, column, file.name)
        number = unit.first_row
        for batch in table.iter_batches(ROWS, row_groups=[unit.row_group], columns=[column], use_threads=False):
            for value in batch.column(0).to_pylist():
                yield partial(_load_value, value, f"{file.name}::{number}", file.name, folder)
                number += 1


def _load_value(value: Any, name: str, table: str, folder: str) -> Source:
    """Return the source of a cell: the content of a picture, or a path or address, relative to its Parquet file."""
    if isinstance(value, dict):  # as Hugging Face's datasets store a picture
        value = value.get("bytes") or value.get("path")
    if not value:
        return Source(name, "error", error=InputError(f"{name}: is empty"))
    if isinstance(value, bytes):
        return Source(name, "picture", value)
    if scheme_of(value) is None:
        value = f"{table.rpartition('/')[0]}/{value}" if "/" in table and not Path(value).is_absolute() else value
    return _load_file(File(value), folder)
