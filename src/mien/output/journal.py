"""The journal of a run: an SQLite file next to the table that `--resume` continues from after Ctrl-C, `kill -9` or a crash.

Each source is one transaction: the journal has all its rows once it is finished, and none before. So a resumed run writes the
same table as one that was never interrupted. SQLite's lock, which ends with the process, keeps a second run out.
"""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from mien.atomic import check_place, output_error
from mien.errors import OutputError
from mien.output.table import Row, check_table, columns, write_table

FORMAT = 4
"""Version of the journal's tables and of the columns of its rows, SQLite's `user_version`."""

_TABLES = (
    "CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT)",
    # name: as JSON, which is ASCII, because a file name may contain bytes that are not text
    # complete: read to the end, without an error; size and mtime: the file as it was when it was read
    # seen: what was counted of a video's frames, as JSON
    "CREATE TABLE sources"
    " (id INTEGER PRIMARY KEY, name TEXT UNIQUE, complete INTEGER, size INTEGER, mtime INTEGER, seen TEXT DEFAULT 'null')",
    # stored in the order of its key, so that reading the table needs no sorting
    "CREATE TABLE faces (source INTEGER, number INTEGER, face TEXT, PRIMARY KEY (source, number)) WITHOUT ROWID",
)

_CORRUPT = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
_ADVICE = {
    sqlite3.SQLITE_BUSY: "another run is writing this table; wait for it, stop it, or choose another table",
    **dict.fromkeys(_CORRUPT, "it is damaged; start over without --resume"),
    sqlite3.SQLITE_FULL: "the disk is full; free some space or write to another disk",
    sqlite3.SQLITE_READONLY: "it cannot be written; choose a folder you may write to",
    sqlite3.SQLITE_CANTOPEN: "it cannot be written; choose a folder you may write to",
}


def journal_path(table: str | os.PathLike[str]) -> Path:
    """Return the path of a table's journal.

    >>> journal_path("out/faces.csv").as_posix()
    'out/.faces.csv.journal'
    """
    return Path(table).with_name(f".{Path(table).name}.journal")


def journal_sources(table: str | os.PathLike[str]) -> list[str]:
    """Return the sources in the journal of a table, in the order of the run; none if there is no journal."""
    uri = f"{journal_path(table).absolute().as_uri()}?mode=rw"  # does not create the file
    with suppress(sqlite3.Error), closing(sqlite3.connect(uri, uri=True)) as database:
        return [json.loads(name) for (name,) in database.execute("SELECT name FROM sources ORDER BY id")]
    return []


class Journal:
    """The rows of a run on their way to its table, one source after the other.

        with closing(Journal("faces.csv", classes, {"model": digest}, resume=True)) as journal:
            for source in sources:
                if not journal.done(source):
                    journal.begin(source)
                    journal.add(rows(...))
                    journal.end()
            journal.finish(complete=True)

    Args:
        table, classes, all_frames: See `write_table`.
        about: What the rows depend on, such as the model's digest and the options. A resumed run must have the same.
        resume: Continue the journal of an earlier run, if there is one. Without `resume`, it is dropped as soon as this run has
            finished a source.

    Raises:
        OutputError: The journal cannot be written, has other settings, is damaged, or belongs to a run in progress.
        MissingExtraError: The table is Parquet and pyarrow is not installed.
        LabelError: A class cannot be a column name.
    """

    def __init__(
        self,
        table: str | os.PathLike[str],
        classes: Sequence[str],
        about: Mapping[str, str],
        *,
        all_frames: bool = False,
        resume: bool = False,
    ) -> None:
        check_table(table, classes)
        self.table, self.path = Path(table), journal_path(table)
        self.classes, self.about, self._all_frames = tuple(classes), dict(about), all_frames
        self._settings = {**about, "classes": ", ".join(classes)}
        self.resumed = self.dropped = 0  # sources that an earlier run finished: kept by this run, or read again
        self._columns = columns(classes)
        self._source: int | None = None  # id of the source in progress
        self._rows = 0  # of that source
        check_place(self.path)
        with self._explained():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._database = self._open(resume)
            except sqlite3.DatabaseError as error:
                if resume or _code(error) not in _CORRUPT:
                    raise
                self._remove()  # nobody wants to resume it
                self._database = self._open(resume)

    def done(self, source: str) -> bool:
        """Return whether a file is complete and has not changed since it was read.

        Anything but a file, such as standard input, is never done: it cannot be known whether it is still the same.
        """
        version = _file_version(source)
        found = self._execute("SELECT complete, size, mtime FROM sources WHERE name = ?", json.dumps(source)).fetchone()
        return version[0] is not None and found == (True, *version)

    def complete(self, source: str) -> bool:
        """Return whether a source was read to its end without an error, even if it has changed since."""
        return self._execute("SELECT complete FROM sources WHERE name = ?", json.dumps(source)).fetchone() == (True,)

    def begin(self, source: str) -> None:
        """Begin a source, without the rows of an earlier attempt."""
        self._enter(source)
        self._execute("DELETE FROM faces WHERE source = ?", self._source)

    def add(self, rows: Iterable[Row]) -> None:
        """Add rows of the source that was begun."""
        faces = [json.dumps([row[name] for name in self._columns]) for row in rows]
        first, self._rows = self._rows, self._rows + len(faces)
        with self._explained():
            self._database.executemany(
                "INSERT INTO faces VALUES (?, ?, ?)", [(self._source, first + i, face) for i, face in enumerate(faces)]
            )

    def note_seen(self, seen: dict[str, Any]) -> None:
        """Keep what was counted of the frames of the source that was begun, as JSON types."""
        self._execute("UPDATE sources SET seen = ? WHERE id = ?", json.dumps(seen), self._source)

    def seen(self, source: str) -> dict[str, Any] | None:
        """Return what was counted of a source's frames; None if nothing was."""
        found = self._execute("SELECT seen FROM sources WHERE name = ?", json.dumps(source)).fetchone()
        return json.loads(found[0]) if found else None

    def end(self) -> None:
        """Mark the source that was begun as complete; from here on not even `kill -9` loses its rows."""
        self._execute("UPDATE sources SET complete = TRUE WHERE id = ?", self._source)
        self._commit()

    def fail(self, source: str) -> None:
        """Keep the rows of a source that could not be read or drawn to its end; a resumed run tries it again."""
        self._enter(source)
        self._commit()

    def rows(self) -> Iterator[Row]:
        """Yield all rows, including those of the source in progress, in the order in which sources were first begun."""
        with self._explained():
            for (face,) in self._database.execute("SELECT face FROM faces ORDER BY source, number"):
                yield dict(zip(self._columns, json.loads(face), strict=True))

    def finish(self, complete: bool, keep: bool = True) -> bool:
        """Write the table, completely or not at all, and close the journal.

        The table also contains what was read of the source in progress. If it cannot be written, the journal is kept.

        Args:
            complete: Whether every source was tried.
            keep: Keep the journal if some sources were not tried or could not be read.

        Returns:
            Whether the journal was kept.
        """
        try:
            write_table(self.table, self.rows(), self.classes, self.about, self._all_frames)
            if self._source is not None:  # it is read again from its start
                self._execute("DELETE FROM faces WHERE source = ?", self._source)
            self._commit()
            failed = self._execute("SELECT count(*) FROM sources WHERE NOT complete").fetchone() != (0,)
        finally:
            self.close()
        keep = keep and (failed or not complete)
        if not keep:
            self._remove()
        return keep

    def discard(self) -> bool:
        """Close the journal of a run that read nothing; return whether the journal of an earlier run remains."""
        earlier = bool(self.dropped) and self._database.in_transaction  # which is rolled back
        self.close()
        if not earlier:
            self._remove()
        return earlier

    def drop_failures(self, except_for: Collection[str]) -> None:
        """Delete the sources that an earlier run could not read, unless this run reads them."""
        for number, name in self._execute("SELECT id, name FROM sources WHERE NOT complete").fetchall():
            if json.loads(name) not in except_for:
                self._execute("DELETE FROM faces WHERE source = ?", number)
                self._execute("DELETE FROM sources WHERE id = ?", number)
        self._commit()

    def close(self) -> None:
        """Close the journal; finished sources stay in it."""
        self._database.close()

    def _enter(self, source: str) -> None:
        """Note a source as not complete, with the size and time of its file."""
        self._execute(
            "INSERT INTO sources (name, complete, size, mtime) VALUES (?, FALSE, ?, ?) ON CONFLICT (name)"
            " DO UPDATE SET complete = FALSE, size = excluded.size, mtime = excluded.mtime",
            json.dumps(source),
            *_file_version(source),
        )
        (self._source,) = self._execute("SELECT id FROM sources WHERE name = ?", json.dumps(source)).fetchone()
        self._rows = 0

    def _execute(self, command: str, *values: object) -> sqlite3.Cursor:
        """Run a command; the first one that writes begins a transaction."""
        with self._explained():
            return self._database.execute(command, values)

    def _commit(self) -> None:
        with self._explained():
            self._database.commit()
        self._source = None

    def _open(self, resume: bool) -> sqlite3.Connection:
        """Open the database, which no other process can then open, and make its tables or check its settings."""
        database = sqlite3.connect(self.path, timeout=0, check_same_thread=False)  # `mien camera` writes in a second thread
        try:
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")  # a power cut may lose the last sources, but nothing else
            database.execute("BEGIN EXCLUSIVE")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if resume and version:
                self._check(database, version)
                (self.resumed,) = database.execute("SELECT count(size) FROM sources WHERE complete").fetchone()
            else:
                if version == FORMAT:
                    (self.dropped,) = database.execute("SELECT count(*) FROM sources WHERE complete").fetchone()
                for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                    database.execute(f'DROP TABLE "{name}"')
                for command in _TABLES:
                    database.execute(command)
                database.executemany("INSERT INTO settings VALUES (?, ?)", self._settings.items())
                database.execute(f"PRAGMA user_version = {FORMAT}")
            if not self.dropped:  # otherwise the first finished source commits, and the earlier run is kept until then
                database.commit()
        except BaseException:
            database.close()
            raise
        return database

    def _check(self, database: sqlite3.Connection, version: int) -> None:
        """Raise if the journal is of another version of mien or of a run with other settings."""
        if version != FORMAT:
            raise OutputError(f"{self.path}: is of another version of mien; start over without --resume")
        old, new = dict(database.execute("SELECT name, value FROM settings")), self._settings
        changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        if changed:
            changes = "; ".join(f"{name}: {old.get(name, 'not set')}, now {new.get(name, 'not set')}" for name in changed)
            raise OutputError(
                f"{self.path}: the interrupted run had other settings ({changes}); use those, or start over without --resume"
            )

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn an error of SQLite or of the system into an `OutputError`."""
        try:
            yield
        except OSError as error:
            raise output_error(self.path, error) from None
        except sqlite3.Error as error:
            advice = _ADVICE.get(_code(error), f"cannot be written ({error}); check the path and the disk")
            raise OutputError(f"{self.path}: {advice}") from None


def _code(error: sqlite3.Error) -> int:
    """Return the primary SQLite code of an error, or 0 if the error is Python's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _file_version(source: str) -> tuple[int, int] | tuple[None, None]:
    """Return a file's size in bytes and its time of change in ns; None for anything but a file."""
    try:
        found = os.stat(source)  # noqa: PTH116 - a name such as camera:0 need not be a path
    except (OSError, ValueError):
        return None, None
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else (None, None)
