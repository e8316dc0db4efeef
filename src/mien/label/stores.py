"""Files by path or address, on this machine or in an object store: `open_file` for what is read, `Folder` for what is written.

An `InputError` concerns one file, which is listed while the job continues. A `DataError`, such as for credentials that have
expired, stops the job: the next run continues it.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from mien.atomic import atomic_path, check_place, output_error
from mien.errors import DataError, InputError, MienError, MissingExtraError, OutputError, reason, require
from mien.video.container import scheme_of

REQUESTS = 8
"""Requests to a store at the same time."""

MANIFEST, PARTS, ERRORS, LOCK = "manifest.json", "faces", "errors.parquet", "lock.json"
"""What the folder contains: the plan, the folder of the parts, the inputs that could not be read, and a store's lock."""


class File(NamedTuple):
    """A file as it was when the job was planned: its path or address, its size in bytes, and its time of change or ETag.

    The size is None if nobody looked, as for the paths in a Parquet file.
    """

    name: str
    size: int | None = None
    version: str = ""


def local_path(name: str) -> str | None:
    """Return the path of a file of this machine; None for an address of a store.

    >>> local_path("a/b.jpg"), local_path("file:///a/b.jpg"), local_path("s3://a/b.jpg")
    ('a/b.jpg', '/a/b.jpg', None)
    """
    scheme = scheme_of(name)
    return name if scheme is None else name[len("file://") :] if scheme == "file" else None


def open_store(name: str) -> tuple[Any, str]:
    """Return fsspec's file system of a path or address, and the path in it.

    Raises:
        MissingExtraError: fsspec, or its package for this kind of address, is not installed.
        DataError: fsspec does not know this kind of address, or cannot open it again from its names alone.
    """
    fsspec = require("fsspec", "label")
    if (local := local_path(name)) is not None:
        return fsspec.filesystem("file"), os.path.abspath(local)  # noqa: PTH100 -- does not follow links
    try:
        fs, path = fsspec.core.url_to_fs(name)
        again = fsspec.core.url_to_fs(fs.unstrip_protocol(path))[0]
    except ImportError as error:
        raise MissingExtraError(f"{name}: {reason(error)}") from None
    except Exception as error:
        raise store_error(name, error) from None
    if again is not fs:
        raise DataError(f"{name}: contains more than a name, such as a password; put that into fsspec's configuration")
    return fs, path


def local_file(path: str) -> File:
    """Return a file of this machine as it is now."""
    found = os.stat(path)  # noqa: PTH116 -- a Path for each of a million names takes seconds
    return File(path, found.st_size, str(found.st_mtime_ns))


def stored_file(address: str, info: dict[str, Any]) -> File:
    """Return an object as its store describes it."""
    keys = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "created")
    return File(address, info["size"], str(next((info[key] for key in keys if key in info), "")))


def open_file(file: File) -> BinaryIO:
    """Return an open file of the collection, after checking that it is still the one of the plan."""
    fs, path = open_store(file.name)
    check_unchanged(file, local_file(path) if local_path(file.name) is not None else stored_file(file.name, fs.info(path)))
    return fs.open(path, "rb")


def check_unchanged(file: File, now: File) -> None:
    """Raise an `InputError` if a file has changed since the job was planned."""
    if file.size is not None and file[1:] != now[1:]:
        raise InputError(f"{file.name}: has changed since the job was planned; label it in a new job")


def file_error(name: str, error: Exception) -> InputError:
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


class Folder:
    """The folder of a job, by its path or address."""

    def __init__(self, address: str) -> None:
        self.address, self.is_local = address, local_path(address) is not None
        self.fs, self.root = open_store(address)

    def names(self, folder: str = "") -> set[str]:
        """Return the names in it, or in a folder in it; none if that does not exist."""
        with self._errors():
            self.fs.invalidate_cache()
            try:
                found = self.fs.ls(f"{self.root}/{folder}", detail=False)
            except FileNotFoundError:
                return set()
            return {path.rstrip("/").rpartition("/")[2] for path in found}

    def exists(self, name: str) -> bool:
        """Return whether it contains a file of that name now."""
        with self._errors():
            self.fs.invalidate_cache()
            return self.fs.exists(f"{self.root}/{name}")

    def open(self, name: str) -> Any:
        """Return an open file."""
        with self._errors():
            return self.fs.open(f"{self.root}/{name}", "rb")

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Yield a path of this machine to write a file at; after the block it appears in the folder, complete."""
        if self.is_local:
            with atomic_path(Path(self.root, name)) as path:
                yield path
            return
        with tempfile.TemporaryDirectory() as scratch:
            yield (path := Path(scratch, name.rpartition("/")[2]))
            with self._errors():
                self.fs.put_file(str(path), f"{self.root}/{name}")

    def write_json(self, name: str, values: Any) -> None:
        """Write a file of JSON in one line."""
        with self.writing(name) as path:
            path.write_text(json.dumps(values) + "\n", encoding="utf-8")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn the errors of a disk or store into one that says what to do."""
        try:
            yield
        except MienError:
            raise
        except Exception as error:
            if self.is_local and isinstance(error, OSError):
                raise output_error(self.address, error) from None
            raise OutputError(str(store_error(self.address, error))) from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other jobs out of the folder during the block.

        SQLite's lock on a file of this machine ends with the process, however it ends. In an object store there is also an
        object that names the machine. Left by a killed job, it only stops other machines.
        """
        if self.is_local:
            file = Path(self.root, ".lock")
            check_place(file)
            file.parent.mkdir(parents=True, exist_ok=True)
        else:
            file = Path(tempfile.gettempdir(), f"mien-label-{sha256(self.address.rstrip('/').encode()).hexdigest()[:16]}.lock")
        in_use = f"{self.address}: another mien label is writing to it{{}}; wait for it, or name another folder"
        with ExitStack() as held:
            database = sqlite3.connect(file, timeout=0, isolation_level=None)
            held.callback(database.close)
            try:
                database.execute("PRAGMA journal_mode = MEMORY")  # no second file
                database.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
                    raise OutputError(f"{file}: cannot be written ({error}); check who may use it") from None
                raise OutputError(in_use.format("")) from None
            if not self.is_local:
                host = socket.gethostname()
                if self.exists(LOCK):
                    with self.open(LOCK) as stream:
                        holder = json.load(stream).get("host")
                    if holder != host:
                        advice = f"if that was killed, delete {self.address}/{LOCK}"
                        raise OutputError(f"{in_use.format(f' on {holder}')}; {advice}")
                self.write_json(LOCK, {"host": host})
                held.callback(self.fs.rm_file, f"{self.root}/{LOCK}")
            yield
