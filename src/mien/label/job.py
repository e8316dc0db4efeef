"""A labelling job: a manifest of units made once, one Parquet file for each unit that is done, and a list of errors.

A unit is done if and only if its part exists. A part is complete as soon as it exists, and whoever writes it again writes the
same. So every input is in the result exactly once, however often workers or the job are killed.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import sys
import tempfile
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from mien import weights
from mien.atomic import atomic_path, check_place, output_error, remove_unfinished
from mien.errors import CheckpointError, InputError, MienError, OutputError, reason, require
from mien.label.sources import (
    MANIFEST,
    PARTS,
    READERS,
    File,
    Unit,
    local_path,
    open_store,
    plan_units,
    read_unit,
    store_error,
)
from mien.output.table import Row, reading_rows, write_table
from mien.predict.recognizer import Recognizer, VideoOptions
from mien.text import escape_invalid_utf8

VERSION: str = sys.modules["mien"].__version__  # imported from there, all of mien's names would count as imported, and torch

FORMAT = 1
"""Version of the manifest."""

ERRORS, LOCK = "errors.parquet", "lock.json"

UNIT_SIZE = 512
"""Pictures in a unit, by default: half a minute of work for one core."""


class Result(NamedTuple):
    """What a unit gave.

    Attributes:
        unit: Its number.
        inputs: Number of pictures and videos that were read.
        faces: Number of rows.
        errors: The name of each input that could not be read, and the reason.
    """

    unit: int
    inputs: int
    faces: int
    errors: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a job.

    Attributes:
        units: Number of units.
        resumed: Number of units that earlier runs had done.
        inputs: Number of pictures and videos that were read.
        faces: Number of faces, which is that of rows.
        errors: Number of inputs that could not be read.
        first_errors: The first of them, each with the reason.
    """

    units: int
    resumed: int
    inputs: int
    faces: int
    errors: int
    first_errors: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker needs to know; it can be pickled.

    Attributes:
        out: The folder of the job: a path or an address.
        folder: Where relative paths of inputs start.
        model: See `Recognizer`.
        options: Its other arguments.
        video: How videos are read.
        column: The column of Parquet files.
        classes: The model's classes, by index.
        about: What the rows depend on; see `write_table`.
    """

    out: str
    folder: str
    model: str | None
    options: Mapping[str, Any]
    video: VideoOptions
    column: str | None
    classes: tuple[str, ...]
    about: Mapping[str, str]


class Folder:
    """The folder that a job writes, on this machine or in an object store.

    Args:
        address: A path, or an address that fsspec can open.
    """

    def __init__(self, address: str) -> None:
        self.address, self.path = address, local_path(address)
        if self.path is None:
            self.fs, self.root = open_store(address)

    def names(self, folder: str = "") -> set[str]:
        """Return the names in it, or in a folder in it; none if that does not exist."""
        try:
            if self.path is not None:
                return set(os.listdir(Path(self.path, folder)))  # noqa: PTH208 -- a Path for each name takes seconds
            self.fs.invalidate_cache()
            return {path.rstrip("/").rpartition("/")[2] for path in self.fs.ls(f"{self.root}/{folder}", detail=False)}
        except FileNotFoundError:
            return set()
        except NotADirectoryError as error:
            raise output_error(self.address, error) from None
        except Exception as error:
            raise self._error(error) from None

    def exists(self, name: str) -> bool:
        """Return whether it contains a file of that name now."""
        try:
            if self.path is not None:
                return Path(self.path, name).is_file()
            self.fs.invalidate_cache()
            return self.fs.exists(f"{self.root}/{name}")
        except Exception as error:
            raise self._error(error) from None

    def open(self, name: str) -> Any:
        """Return an open file."""
        try:
            return Path(self.path, name).open("rb") if self.path is not None else self.fs.open(f"{self.root}/{name}", "rb")
        except Exception as error:
            raise self._error(error) from None

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Yield a path of this machine to write a file at; after the block it appears in the folder, complete."""
        if self.path is not None:
            with atomic_path(Path(self.path, name)) as path:
                yield path
            return
        with tempfile.TemporaryDirectory() as scratch:
            yield (path := Path(scratch, name.rpartition("/")[2]))
            try:
                self.fs.put_file(str(path), f"{self.root}/{name}")
            except Exception as error:
                raise self._error(error) from None

    def write_json(self, name: str, values: Any) -> None:
        """Write a file of JSON in one line."""
        with self.writing(name) as path:
            path.write_text(json.dumps(values) + "\n", encoding="utf-8")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other jobs out of the folder during the block.

        SQLite's lock on a file of this machine ends with the process, however it ends. In an object store there is also an
        object that names the machine. Left by a killed job, it only stops other machines.
        """
        if self.path is not None:
            file = Path(self.path, ".lock")
            check_place(file)
            file.parent.mkdir(parents=True, exist_ok=True)
        else:
            file = Path(tempfile.gettempdir(), f"mien-label-{sha256(self.address.rstrip('/').encode()).hexdigest()[:16]}.lock")
        in_use = f"{self.address}: another mien label is writing to it{{}}; wait for it, or name another folder"
        database = sqlite3.connect(file, timeout=0, isolation_level=None)
        try:
            try:
                database.execute("PRAGMA journal_mode = MEMORY")  # no second file
                database.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
                    raise OutputError(f"{file}: cannot be written ({error}); check who may use it") from None
                raise OutputError(in_use.format("")) from None
            if self.path is not None:
                yield
                return
            if LOCK in self.names():
                with self.open(LOCK) as stream:
                    holder = json.load(stream).get("host")
                if holder != socket.gethostname():
                    raise OutputError(in_use.format(f" on {holder}") + f"; if that was killed, delete {self.address}/{LOCK}")
            self.write_json(LOCK, {"host": socket.gethostname()})
            try:
                yield
            finally:
                self.fs.rm_file(f"{self.root}/{LOCK}")
        finally:
            database.close()

    def _error(self, error: Exception) -> MienError:
        if self.path is not None and isinstance(error, OSError):
            return output_error(self.address, error)
        return OutputError(str(store_error(self.address, error)))


class Worker:
    """Does units, one after the other, with one loaded model.

    Args:
        work: What to do with them.

    Raises:
        CheckpointError: This machine has another model than the one that began the job.
    """

    def __init__(self, work: Work) -> None:
        self.work, self.target = work, Folder(work.out)
        self.recognizer = Recognizer(work.model, threads=1, **work.options)
        if model_digest(self.recognizer) != work.about["model_sha256"]:
            raise CheckpointError(
                f"{socket.gethostname()}: has another model than the job; install the same version of mien on every machine"
            )

    def __call__(self, unit: Unit) -> Result:
        """Do a unit that is not done yet and return what it gave.

        Raises:
            DataError: Its files cannot be read now; it is not done.
            OutputError: Its part cannot be written.
        """
        if self.target.exists(part_name(unit.number)):  # its worker was killed after it wrote it
            return read_result(self.target, unit.number)
        inputs, errors = set[int](), list[tuple[str, str]]()

        def rows() -> Iterator[Row]:
            folder = "" if Path(self.work.folder) == Path.cwd() else self.work.folder
            for reading in self.recognizer.stream(read_unit(unit, folder, self.work.column), self.work.video):
                if reading.error is not None:
                    errors.append((reading.source, str(reading.error)))
                else:
                    inputs.add(reading.number)
                    yield from reading_rows(reading, self.work.classes)

        try:
            return write_part(self.work, unit.number, rows(), inputs, errors)
        except MienError:
            raise
        except Exception as error:  # a fault of mien's own: the job continues, and says which unit it lacks
            traceback.print_exc()
            return write_failed(
                self.work, unit, f"mien failed with {type(error).__name__}: {reason(error)}; please report this"
            )


def part_name(number: int) -> str:
    """Return the name of a unit's part.

    >>> part_name(7)
    'faces/part-00007.parquet'
    """
    return f"{PARTS}/part-{number:05d}.parquet"


def write_part(
    work: Work, number: int, items: Iterable[Row], inputs: Collection[int] = (), errors: Sequence[tuple[str, str]] = ()
) -> Result:
    """Write a unit's part, completely or not at all.

    Args:
        work: The job's work.
        number: The unit's number.
        items: The rows, taken one at a time.
        inputs: The inputs that were read, once the last row is taken.
        errors: The name of each input that could not be read, and the reason, also by then.

    Raises:
        OutputError: It cannot be written.
    """
    about = dict(work.about)

    def rows() -> Iterator[Row]:
        yield from items
        about["unit"] = json.dumps({"number": number, "inputs": len(inputs), "errors": list(errors)})

    with Folder(work.out).writing(part_name(number)) as path:
        faces = write_table(path, rows(), work.classes, about)
    return Result(number, len(inputs), faces, list(errors))


def write_failed(work: Work, unit: Unit, why: str) -> Result:
    """Write the part of a unit that cannot be done, with its files as errors; a part that exists is kept."""
    if Folder(work.out).exists(part_name(unit.number)):
        return read_result(Folder(work.out), unit.number)
    group = f"::row group {unit.row_group}" if unit.kind == "parquet" else ""
    return write_part(work, unit.number, (), (), [(f"{file.name}{group}", why) for file in unit.files])


def read_result(target: Folder, number: int) -> Result:
    """Return what a unit gave that is done."""
    parquet = require("pyarrow.parquet", "label")
    with target.open(part_name(number)) as file:
        found = parquet.read_metadata(file)
    tally = json.loads(found.metadata[b"unit"])
    return Result(number, tally["inputs"], found.num_rows, [(name, why) for name, why in tally["errors"]])


def model_digest(recognizer: Recognizer) -> str:
    """Return the SHA-256 of the file of a recognizer's model."""
    path = getattr(recognizer.backend, "path", None)
    return weights.sha256(path) if path else ""


def label_collection(
    sources: Sequence[str],
    out: str | os.PathLike[str],
    model: str | None = None,
    options: Mapping[str, Any] | None = None,
    video: VideoOptions | None = None,
    *,
    column: str | None = None,
    unit_size: int = UNIT_SIZE,
    engine: str = "local",
    workers: int | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Report:
    """Write a table of the expressions in a large collection, in parts; continue an earlier run that was stopped.

    Args:
        sources: Pictures, videos, tar shards, Parquet files, folders of them, and patterns: paths or addresses of fsspec.
        out: The folder to write: a new one, or that of the run to continue.
        model: See `Recognizer`.
        options: Its other arguments.
        video: How videos are read; None takes `VideoOptions()`.
        column: The column of Parquet files; None takes the only one of bytes.
        unit_size: Pictures per unit.
        engine: `local` for worker processes on this machine, `ray` for a Ray cluster.
        workers: Number of workers; None takes every core. 0 works in this process, without `ray`. A script that asks for more
            needs `if __name__ == "__main__":`.
        on_step: Called with the number of units done and the total.

    Raises:
        UnknownNameError: There is no such engine.
        InputError: An argument is out of range, or a source is missing or contains nothing to read.
        DataError: A store cannot be read, or a Parquet file lacks the column.
        OutputError: `out` has other content or settings, is in use, or cannot be written.
        MissingExtraError: A package of the extra `label` is not installed.
    """
    from mien.label.engines import check_engine, run_engine

    check_engine(engine)
    require("pyarrow.parquet", "label")
    if unit_size < 1 or (workers is not None and workers < 0):
        raise InputError(f"unit_size must be at least 1 and workers at least 0, got {unit_size} and {workers}")
    sources, options, video = list(map(os.fspath, sources)), dict(options or {}), video or VideoOptions()
    if model is not None and model != weights.ENSEMBLE and not weights.is_named(model):
        model = os.path.abspath(model)  # noqa: PTH100 -- workers may run in another folder
    recognizer = Recognizer(model, threads=1, **options)
    chosen = {"mien": VERSION, "model_sha256": model_digest(recognizer), **options, **asdict(video)}
    relative = [path for source in sources if (path := local_path(source)) is not None and not Path(path).is_absolute()]
    folder = str(Path.cwd()) if relative else ""
    settings = {"sources": sources, "folder": folder, "column": column, "unit_size": unit_size, **chosen}
    about = {key: str(value) for key, value in chosen.items()}
    work = Work(_absolute(out), folder, model, options, video, column, recognizer.classes, about)

    target = Folder(work.out)
    manifest = _read_manifest(target, settings)
    if manifest is None:
        errors: list[tuple[str, str]] = []
        units = plan_units(sources, column, unit_size, errors)
        manifest = {"format": FORMAT, "settings": settings, "errors": errors, "units": [unit._asdict() for unit in units]}
    with target.locked():
        if (begun := _read_manifest(target, settings)) is not None:  # perhaps meanwhile, by another run
            manifest = begun
        else:
            target.write_json(MANIFEST, manifest)
        if target.path is not None:
            for part in ("", PARTS):
                remove_unfinished(Path(target.path, part), idle=0)
        units = [Unit(**each | {"files": [File(*file) for file in each["files"]]}) for each in manifest["units"]]
        done = {f"{PARTS}/{name}" for name in target.names(PARTS)}
        todo = [unit for unit in units if part_name(unit.number) not in done]
        resumed = len(units) - len(todo)
        for count, _ in enumerate(run_engine(engine, work, todo, workers), 1):
            if on_step is not None:
                on_step(resumed + count, len(units))
        return _finish(target, units, resumed, manifest["errors"])


def _absolute(out: str | os.PathLike[str]) -> str:
    path = local_path(os.fspath(out))
    return os.fspath(out) if path is None else os.path.abspath(path)  # noqa: PTH100 -- does not follow links


def _read_manifest(target: Folder, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the manifest of the job in a folder; None in a new folder.

    Raises:
        OutputError: The folder has other content, or a job with other settings.
    """
    names = {name for name in target.names() if name != LOCK and not name.startswith(".")}
    if not names:
        return None
    manifest = None
    if MANIFEST in names:
        with target.open(MANIFEST) as file, suppress(ValueError):
            manifest = json.load(file)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise OutputError(f"{target.address}: contains files that this version of mien label did not write; name a new folder")
    old = manifest["settings"]
    changed = [key for key in {**old, **settings} if old.get(key) != settings.get(key)]
    if changed:
        changes = "; ".join(f"{key}: {old.get(key, 'not set')}, now {settings.get(key, 'not set')}" for key in changed)
        raise OutputError(f"{target.address}: was begun with other settings ({changes}); use those, or name a new folder")
    return manifest


def _finish(target: Folder, units: Sequence[Unit], resumed: int, errors: Sequence[Sequence[str]]) -> Report:
    """Write the list of errors and return the report."""
    arrow, parquet = require("pyarrow", "label"), require("pyarrow.parquet", "label")
    names = target.names(PARTS)
    missing = [part for unit in units if (part := part_name(unit.number)).rpartition("/")[2] not in names]
    if missing:
        raise OutputError(
            f"{target.address}: {len(missing):,} parts are missing, such as {missing[0]}; if workers run on other machines, "
            "name a folder that all of them share, or an object store"
        )
    with ThreadPoolExecutor(READERS) as pool:
        results = list(pool.map(lambda unit: read_result(target, unit.number), units))
    lines: list[tuple[str, str, int | None]] = [(name, why, None) for name, why in errors]
    lines += [(name, why, result.unit) for result in results for name, why in result.errors]
    if resumed < len(units) or not target.exists(ERRORS):
        table = arrow.table(
            {
                "source": arrow.array([escape_invalid_utf8(name) for name, *_ in lines], arrow.string()),
                "reason": arrow.array([why for _, why, _ in lines], arrow.string()),
                "unit": arrow.array([number for *_, number in lines], arrow.int64()),
            }
        )
        with target.writing(ERRORS) as path, path.open("wb") as file:
            parquet.write_table(table, file)
    return Report(
        units=len(units),
        resumed=resumed,
        inputs=sum(result.inputs for result in results),
        faces=sum(result.faces for result in results),
        errors=len(lines),
        first_errors=tuple((name, why) for name, why, _ in lines[:10]),
    )
