"""What there is to label: lists the files once, and divides them into units."""

from __future__ import annotations

import glob
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mien.errors import DataError, InputError, reason, require
from mien.folders import is_shown, walk_folder
from mien.label import stores
from mien.label.stores import File, local_path
from mien.video.sources import by_ending, drawn

Kind = Literal["picture", "video", "shard", "parquet"]

READABLE = re.compile(r"(large_)?(binary|string)(_view)?|struct<bytes: binary.*|dictionary<values=(large_)?string.*")
"""Arrow's types of columns that contain pictures or paths; the struct is that of Hugging Face's datasets."""


class Unit(NamedTuple):
    """A part of a job that is done completely or not at all: a group of pictures, a video, a shard, or a table's row group."""

    number: int  # from 0
    kind: Kind
    files: Sequence[File]  # several only for pictures
    row_group: int = 0
    first_row: int = 0  # the row group's first row, counted from the start of the file


def plan_units(sources: Sequence[str], column: str | None, unit_size: int, errors: list[tuple[str, str]]) -> list[Unit]:
    """Return the units of a job, the same for the same files; `errors` gets what cannot be read, and the reason.

    Raises:
        InputError: A source is missing or contains nothing to read.
        DataError: An object store cannot be read, or a Parquet file lacks the column.
    """
    listed: dict[Kind, list[File]] = defaultdict(list)
    for kind, file in _list_files(sources, errors):
        listed[kind].append(file)
    pictures, tables = listed["picture"], listed["parquet"]
    units = [Unit(i // unit_size, "picture", pictures[i : i + unit_size]) for i in range(0, len(pictures), unit_size)]
    units += [Unit(number, "video", [file]) for number, file in enumerate(listed["video"], len(units))]
    units += [Unit(number, "shard", [file]) for number, file in enumerate(listed["shard"], len(units))]
    with ThreadPoolExecutor(stores.REQUESTS) as pool:
        for file, counts in zip(tables, pool.map(partial(_count_rows, column=column), tables), strict=True):
            if isinstance(counts, InputError):
                errors.append((file.name, str(counts)))
                continue
            first_row = 0
            for row_group, count in enumerate(counts):
                units.append(Unit(len(units), "parquet", [file], row_group, first_row))
                first_row += count
    return units


def _count_rows(file: File, column: str | None) -> list[int] | InputError:
    """Return the number of rows of each row group of a Parquet file, or why it cannot be read."""
    parquet = require("pyarrow.parquet", "label")
    try:
        with stores.open_file(file) as stream:
            table = parquet.ParquetFile(stream)
            find_column(table.schema_arrow, column, file.name)
            return [table.metadata.row_group(i).num_rows for i in range(table.num_row_groups)]
    except Exception as error:
        return stores.file_error(file.name, error)


def find_column(schema: Any, column: str | None, name: str) -> str:
    """Return the column of a Parquet file to read: the one named, or the only one of bytes; a `DataError` lists what it has."""
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


def _list_files(sources: Sequence[str], errors: list[tuple[str, str]]) -> Iterator[tuple[Kind, File]]:
    """Yield every file that is named, in order, the same one once."""
    seen = set[str]()
    for source in sources:
        found = False
        for file in _list_store(source) if local_path(source) is None else _list_local(source, errors):
            kind = kind_of(file.name)
            if kind is None and file.name == source:
                raise InputError(
                    f"{source}: is not a picture, video, .tar or .parquet by its ending; rename it or leave it out"
                )
            if kind is not None:
                found = True
                key = os.path.abspath(file.name) if local_path(file.name) is not None else file.name  # noqa: PTH100
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
    """Yield the files of a path or pattern of this machine; a folder that matches `**` is left out, because its files match."""
    path = local_path(name) or name
    is_pattern = glob.has_magic(path) and not os.path.lexists(path)
    if not is_pattern and not os.path.lexists(path):
        raise InputError(f"{path}: no such file or folder; check the path")
    for match in sorted(glob.iglob(path, recursive=True)) if is_pattern else [path]:  # noqa: PTH207 -- keeps it as written
        if not Path(match).is_dir():
            files: Iterator[str] = iter([match])
        elif "**" not in path:
            files = _walk(match, errors)
        else:
            continue
        for file in files:
            try:
                yield stores.local_file(file)
            except OSError as error:
                errors.append((file, f"cannot be read ({reason(error)})"))


def _walk(top: str, errors: list[tuple[str, str]]) -> Iterator[str]:
    """Yield the files of known kinds in a folder, without what mien itself drew or labelled."""

    def fail(error: OSError) -> None:
        errors.append((str(error.filename), f"the folder cannot be read ({reason(error)})"))

    def is_output(folder: Path) -> bool:
        return drawn(folder) or ((folder / stores.MANIFEST).is_file() and (folder / stores.PARTS).is_dir())

    for folder, folders, files in walk_folder(top, [], fail):
        folders[:] = sorted(each for each in folders if not is_output(Path(folder, each)))
        yield from (os.path.join(folder, file) for file in sorted(files) if kind_of(file))  # noqa: PTH118


def _list_store(address: str) -> Iterator[File]:
    """Yield the files of an address or pattern of an object store."""
    fs, path = stores.open_store(address)
    try:
        if glob.has_magic(path) and not fs.exists(path):
            found = fs.glob(path, detail=True)
        else:
            info = fs.info(path)
            found = fs.find(path, detail=True) if info["type"] == "directory" else {path: info}
        infos = {fs.unstrip_protocol(path): info for path, info in found.items() if info["type"] == "file"}
    except Exception as error:  # each store has its own
        raise stores.store_error(address, error) from None
    for name, info in sorted(infos.items()):
        if all(map(is_shown, name.removeprefix(address).split("/"))):
            yield stores.stored_file(name, info)
