"""The journal of a run: what is done stands on disk beside the table, so that nothing is lost by Ctrl-C, `kill -9` or a crash.

`.x.csv.journal` is an SQLite database: its transactions undo what was half-written, and its lock ends with the process that
holds it. A resumed run gives the table that an undisturbed one would have given.
"""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Self

from mien.atomic import output_error
from mien.errors import OutputError
from mien.output.columns import Row, columns
from mien.output.table import check_table, write_table

FORMAT = 1
"""Version of the journal's tables."""

_TABLES = (
    "CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT)",
    # state: open, done, failed; size and mtime say which version of the file was read
    "CREATE TABLE sources (id INTEGER PRIMARY KEY, name TEXT UNIQUE, state TEXT, size INTEGER, mtime INTEGER, error TEXT)",
    # source first, so that a table read in the key's order keeps each source together, wherever it was resumed
    "CREATE TABLE faces (source INTEGER, number INTEGER, face TEXT, PRIMARY KEY (source, number)) WITHOUT ROWID",
)

_ADVICE = {
    sqlite3.SQLITE_BUSY: "another run is writing this table; wait for it, stop it, or name another table",
    sqlite3.SQLITE_LOCKED: "another run is writing this table; wait for it, stop it, or name another table",
    sqlite3.SQLITE_FULL: "the disk is full; free some space or write to another disk",
    sqlite3.SQLITE_READONLY: "it may not be written; choose a folder you may write to",
    sqlite3.SQLITE_CANTOPEN: "it may not be written; choose a folder you may write to",
    sqlite3.SQLITE_NOTADB: "it is damaged; start over without --resume",
    sqlite3.SQLITE_CORRUPT: "it is damaged; start over without --resume",
}


def journal_path(table: str | os.PathLike[str]) -> Path:
    """Return where the journal of a table lies.

    >>> journal_path("out/faces.csv").as_posix()
    'out/.faces.csv.journal'
    """
    return Path(table).with_name(f".{Path(table).name}.journal")


def names_of(table: str | os.PathLike[str]) -> list[str]:
    """Return the sources in the journal beside a table, in the order they were begun; none without a journal."""
    with (
        suppress(sqlite3.Error),
        closing(sqlite3.connect(f"{journal_path(table).absolute().as_uri()}?mode=rw", uri=True)) as old,
    ):
        return [json.loads(name) for (name,) in old.execute("SELECT name FROM sources ORDER BY id")]
    return []


class Journal:
    """Rows on their way to a table, source by source.

    Each source is begun, gets its rows, and ends or fails; sources may overlap. `finish` writes the table from what is here.

        with Journal("faces.csv", classes, {"model": digest}, resume=True) as journal:
            for source in sources:
                if not journal.done(source):
                    journal.begin(source)
                    journal.add(source, rows(...))
                    journal.end(source)
            journal.finish(complete=True)

    Args:
        table: The table to come; its ending says which format. A journal cannot stand beside a device such as `/dev/stdout`.
        classes: The model's classes, by output index.
        about: What the rows hang on, such as the model's digest and the options; a resumed run must have the same. A Parquet
            table carries it.
        resume: Go on where an earlier run stopped, if it left a journal. Otherwise an earlier journal is dropped.

    Attributes:
        path: The journal's file.
        resumed: Number of files that an earlier run had done and this one keeps.
        dropped: Number of sources that an earlier run had done and this one starts over.

    Raises:
        OutputError: The journal cannot be written, is of other settings, is damaged, or belongs to a run still going on.
        MissingExtraError: The table is Parquet and pyarrow is not installed.
        LabelError: A class cannot name a column.
    """

    def __init__(
        self, table: str | os.PathLike[str], classes: Sequence[str], about: Mapping[str, str], *, resume: bool = False
    ) -> None:
        check_table(table, classes)
        self.table, self.path = Path(table), journal_path(table)
        self.classes, self.about = tuple(classes), dict(about)
        self.resumed = self.dropped = 0
        self._names = columns(classes)
        self._open: dict[str, tuple[int, Iterator[int]]] = {}
        try:
            new = _touch(self.path)
        except OSError as error:
            raise output_error(self.path, error) from None
        try:
            self._db = self._connected(resume)
        except BaseException:
            if new:
                _remove(self.path)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def done(self, source: str) -> bool:
        """Return whether a source is complete and its file has still the size and time it was read with.

        What is no file, such as standard input, is never: nobody knows whether it is the same again.
        """
        stamp = _stamp(source)
        with self._speaking():
            found = self._db.execute("SELECT state, size, mtime FROM sources WHERE name = ?", (_key(source),)).fetchone()
        return stamp[0] is not None and found == ("done", *stamp)

    def complete(self, source: str) -> bool:
        """Return whether a source was read to its end, whatever has become of it since."""
        with self._speaking():
            found = self._db.execute("SELECT state FROM sources WHERE name = ?", (_key(source),)).fetchone()
        return found == ("done",)

    def begin(self, source: str) -> None:
        """Note that a source is being read; rows of an earlier attempt are dropped."""
        self._note(source)
        with self._speaking():
            self._write("DELETE FROM faces WHERE source = ?", (self._open[source][0],))

    def add(self, source: str, rows: Iterable[Row]) -> None:
        """Take rows of a source that was begun."""
        number, counter = self._begun(source)
        lines = [(number, next(counter), json.dumps([row[name] for name in self._names])) for row in rows]
        with self._speaking():
            if lines:
                self._begin_writing()
                self._db.executemany("INSERT INTO faces VALUES (?, ?, ?)", lines)

    def end(self, source: str) -> None:
        """Note that a source was read to its end; from here on not even `kill -9` loses it."""
        self._close(source, "done", None)

    def fail(self, source: str, error: Exception) -> None:
        """Note that a source, or the rest of it, could not be read: its rows stay, and a resumed run tries it again."""
        if source not in self._open:
            self._note(source)
        self._close(source, "failed", str(error))

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all sources, those in progress too, in the order in which the sources were first begun."""
        with self._speaking():
            for (face,) in self._db.execute("SELECT face FROM faces ORDER BY source, number"):
                yield dict(zip(self._names, json.loads(face), strict=True))

    def failures(self) -> list[tuple[str, str]]:
        """Return each source that could not be read, and why."""
        with self._speaking():
            found = self._db.execute("SELECT name, error FROM sources WHERE state = 'failed' ORDER BY id").fetchall()
        return [(json.loads(name), error) for name, error in found]

    def finish(self, complete: bool, leave: bool = True) -> bool:
        """Write the table, whole or not at all, and close the journal.

        Args:
            complete: Whether every source was tried. If not, as after Ctrl-C, the table holds what was done, with the rows of
                the sources in progress.
            leave: Keep the journal beside the table where something was not read.

        Returns:
            Whether the journal was kept, for `resume`: if the run is not complete, or some sources could not be read.

        Raises:
            OutputError: The table cannot be written; the journal is kept.
        """
        try:
            keep = leave and (not complete or bool(self.failures()))
            write_table(self.table, self.rows(), self.classes, self.about)
            with self._speaking():
                self._commit()
        finally:
            self.close()
        if not keep:
            _remove(self.path)
        return keep

    def discard(self) -> bool:
        """Close the journal, because nothing came of the run; return whether an earlier run's is left, or else none."""
        earlier = bool(self.dropped) and self._db.in_transaction
        self.close()  # takes back that the earlier one was dropped
        if not earlier:
            _remove(self.path)
        return earlier

    def forget_missing(self, names: Collection[str]) -> None:
        """Drop what an earlier run could not read, with its rows, where this one does not name it."""
        with self._speaking():
            found = self._db.execute("SELECT id, name FROM sources WHERE state != 'done'").fetchall()
            for number, name in found:
                if json.loads(name) not in names:
                    self._write("DELETE FROM faces WHERE source = ?", (number,))
                    self._write("DELETE FROM sources WHERE id = ?", (number,))
            self._commit()

    def close(self) -> None:
        """Close the journal, and keep it; what was done stays done."""
        self._db.close()

    def _note(self, source: str) -> None:
        """Enter a source as open, as its file is now."""
        key = _key(source)
        with self._speaking():
            self._write(
                "INSERT INTO sources (name, state, size, mtime) VALUES (?, 'open', ?, ?) ON CONFLICT (name) DO UPDATE"
                " SET state = 'open', size = excluded.size, mtime = excluded.mtime, error = NULL",
                (key, *_stamp(source)),
            )
            (number,) = self._db.execute("SELECT id FROM sources WHERE name = ?", (key,)).fetchone()
        self._open[source] = (number, count())

    def _begun(self, source: str) -> tuple[int, Iterator[int]]:
        if source not in self._open:
            raise ValueError(f"{source!r} was not begun")
        return self._open[source]

    def _close(self, source: str, state: str, error: str | None) -> None:
        number, _ = self._begun(source)
        with self._speaking():
            self._write("UPDATE sources SET state = ?, error = ? WHERE id = ?", (state, error, number))
            self._commit()
        del self._open[source]

    def _write(self, command: str, values: tuple[object, ...]) -> None:
        self._begin_writing()
        self._db.execute(command, values)

    def _begin_writing(self) -> None:
        if not self._db.in_transaction:
            self._db.execute("BEGIN")

    def _commit(self) -> None:
        if self._db.in_transaction:
            self._db.execute("COMMIT")

    def _connected(self, resume: bool) -> sqlite3.Connection:
        """Return the open database, ours alone, with its tables and settings in place."""
        try:
            return self._prepared(resume)
        except sqlite3.DatabaseError as error:
            if resume or _code(error) not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                raise self._said(error) from None
        _remove(self.path)  # damaged, and not wanted
        with self._speaking():
            return self._prepared(resume)

    def _prepared(self, resume: bool) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=0, isolation_level=None)
        try:
            database.execute("PRAGMA locking_mode = EXCLUSIVE")  # held until the process ends, however it ends
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")  # a power cut may lose the last sources, never the rest
            database.execute("BEGIN EXCLUSIVE")
            self._set_up(database, resume)
            if not self.dropped:  # else the earlier run is there until a source of this one is done
                database.execute("COMMIT")
        except BaseException:
            database.close()
            raise
        return database

    def _set_up(self, database: sqlite3.Connection, resume: bool) -> None:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if resume and version:
            self._check(database, version)
            database.execute("DELETE FROM faces WHERE source IN (SELECT id FROM sources WHERE state = 'open')")
            self.resumed = _done(database, "AND size IS NOT NULL")
            return
        if version == FORMAT:
            self.dropped = _done(database)
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            database.execute(f'DROP TABLE "{name}"')
        for command in _TABLES:
            database.execute(command)
        database.executemany("INSERT INTO settings VALUES (?, ?)", self._settings().items())
        database.execute(f"PRAGMA user_version = {FORMAT}")

    def _settings(self) -> dict[str, str]:
        return {**self.about, "classes": ", ".join(self.classes)}

    def _check(self, database: sqlite3.Connection, version: int) -> None:
        if version != FORMAT:
            raise OutputError(f"{self.path}: is of another version of mien; start over without --resume")
        old, new = dict(database.execute("SELECT name, value FROM settings")), self._settings()
        names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        if names:
            differ = "; ".join(f"{name}: {old.get(name, 'not set')}, now {new.get(name, 'not set')}" for name in names)
            raise OutputError(
                f"{self.path}: was begun with other settings ({differ}); give those, or start over without --resume"
            )

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        """Turn what SQLite says into an error that a user can act on."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._said(error) from None

    def _said(self, error: sqlite3.Error) -> OutputError:
        return OutputError(
            f"{self.path}: {_ADVICE.get(_code(error), f'cannot be written ({error}); check the path and the disk')}"
        )


def _code(error: sqlite3.Error) -> int:
    """Return SQLite's primary code of an error; 0 of one that Python raised."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _done(database: sqlite3.Connection, which: str = "") -> int:
    (number,) = database.execute(f"SELECT count(*) FROM sources WHERE state = 'done' {which}").fetchone()
    return int(number)


def _key(source: str) -> str:
    """Return a source as plain ASCII: a file name may hold bytes that are no text."""
    return json.dumps(source)


def _stamp(source: str) -> tuple[int, int] | tuple[None, None]:
    """Return the size, bytes, and the time of change, ns, of a file; nothing of what is no file."""
    try:
        found = os.stat(source)  # noqa: PTH116 - a name such as camera:0 need not be a path
    except (OSError, ValueError):
        return None, None
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else (None, None)


def _touch(path: Path) -> bool:
    """Make the file if it is not there, because SQLite does not say why it cannot; open it only then. Return whether it is new.

    Closing a second descriptor of a journal would end the lock that this process holds on it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        return False
    path.touch()
    return True


def _remove(path: Path) -> None:
    for name in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        name.unlink(missing_ok=True)
