"""Which photos of a preparation are done, in an SQLite file, so that a run that was stopped anywhere resumes.

`.prepare/journal.db` in the folder has the settings it was made with, and the outcome of each photo that was begun: noted once
before its pictures are written, and again after. A resumed run keeps photos that are done and unchanged, and first removes
the pictures of all others. The file is locked while a process writes to the folder.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mien.atomic import UNFINISHED, output_error
from mien.datasets.crops import views
from mien.errors import OutputError

OWN = ".prepare"

_ADVICE = {
    sqlite3.SQLITE_BUSY: "another mien prepare is writing to it; wait for it or name another folder",
    sqlite3.SQLITE_FULL: "the disk is full; free some space",
    sqlite3.SQLITE_NOTADB: "its .prepare/journal.db is damaged; name a new folder",
    sqlite3.SQLITE_CORRUPT: "its .prepare/journal.db is damaged; name a new folder",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a photo.

    Attributes:
        name: The photo's path in its folder.
        file_state: Its size and time of change before it was read.
        stem: The path of its pictures, without mark and suffix.
        views: Number of pictures from each face.
        faces: Left, top, right, bottom in px of the photo, and score, of each face that was cropped.
        error: Why it could not be read; empty if it could.
        done: Whether its pictures are written.
    """

    name: str
    file_state: str
    stem: str
    views: int
    faces: tuple[tuple[float, ...], ...] = ()
    error: str = ""
    done: bool = False

    def picture_names(self, suffix: str) -> list[str]:
        """Return the paths of the photo's pictures: face after face, the upright view of each first.

        >>> Outcome("a.jpg", "", "a", 1, ((0, 0, 9, 9, 1.0), (9, 9, 12, 12, 0.9))).picture_names(".png")
        ['a.png', 'a~2.png']
        """
        faces = ["" if i == 0 else f"~{i + 1}" for i in range(len(self.faces))]
        return [f"{self.stem}{face}{view.mark}{suffix}" for face in faces for view in views(self.views)]


class Journal:
    """The journal of a folder, which belongs to this process until it is closed.

    Args:
        out: The folder; it is created if necessary.
        settings: What a resumed run must have in common with the one that made the folder; JSON types.

    Raises:
        OutputError: The folder was made otherwise or has other content, cannot be written, or another process writes to it.
    """

    def __init__(self, out: Path, settings: dict[str, Any]) -> None:
        self.out, file = out, out / OWN / "journal.db"
        try:
            if out.is_dir() and not file.exists() and any(path.name != OWN for path in out.iterdir()):
                raise OutputError(f"{out}: contains files that this version of mien prepare did not write; name a new folder")
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(out, error) from None
        with self._errors():
            self._db = sqlite3.connect(file, timeout=0, isolation_level=None)
            try:
                self._db.execute("PRAGMA locking_mode = EXCLUSIVE")  # until the process ends, however it ends
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = NORMAL")  # a power cut may lose the last photos, never the rest
                self._db.execute("BEGIN EXCLUSIVE")
                self._db.execute("CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT)")
                self._db.execute("CREATE TABLE IF NOT EXISTS photos (name TEXT PRIMARY KEY, outcome TEXT)")
                self._require_settings(settings)
                self._db.execute("COMMIT")
            except BaseException:
                self._db.close()
                raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *details: object) -> None:
        self._db.close()

    def _require_settings(self, settings: dict[str, Any]) -> None:
        """Compare the settings with those the folder was made with; store them in a new folder."""
        made = {name: json.loads(value) for name, value in self._db.execute("SELECT name, value FROM settings")}
        if not made:
            rows = [(name, json.dumps(value)) for name, value in settings.items()]
            self._db.executemany("INSERT INTO settings VALUES (?, ?)", rows)
            return
        for name, value in settings.items():
            if made.get(name) != value:
                how = {"photos": "from another folder of photos", "format": "by another version of mien"}.get(
                    name, f"with {name} {made.get(name)}, not {value}"
                )
                raise OutputError(f"{self.out}: was made {how}; name a new folder, or delete this one")

    def put(self, outcome: Outcome) -> None:
        """Note the outcome of a photo, in place of an earlier one.

        Raises:
            OutputError: It cannot be written.
        """
        with self._errors():
            key, value = json.dumps(outcome.name), json.dumps(asdict(outcome))  # ASCII: a file name may not be text
            self._db.execute("INSERT OR REPLACE INTO photos VALUES (?, ?)", (key, value))

    def outcomes(self) -> list[Outcome]:
        """Return the outcomes that were noted."""
        with self._errors():
            found = [json.loads(value) for (value,) in self._db.execute("SELECT outcome FROM photos ORDER BY name")]
        return [Outcome(**values | {"faces": tuple(map(tuple, values["faces"]))}) for values in found]

    def forget(self, names: Iterable[str]) -> None:
        """Delete the outcomes of photos."""
        with self._errors():
            self._db.executemany("DELETE FROM photos WHERE name = ?", [(json.dumps(name),) for name in names])

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn an error of SQLite into one that says what to do."""
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the details in the higher bits
            advice = _ADVICE.get(code, f"its journal cannot be written ({error}); check the folder and the disk")
            raise OutputError(f"{self.out}: {advice}") from None


def resume(journal: Journal, begun: Sequence[Outcome], suffix: str) -> dict[str, Outcome]:
    """Return, by name, the photos that are done; remove all other pictures of earlier runs.

    A photo is done if it is unchanged, this run wants the same of it, and all its pictures are there. One that could not be
    read is tried again.

    Args:
        journal: The journal of the folder.
        begun: The photos of this run, before they are read.
        suffix: Suffix of the pictures.

    Raises:
        OutputError: The folder cannot be changed.
    """
    out, wanted, done, old = journal.out, {outcome.name: outcome for outcome in begun}, dict[str, Outcome](), journal.outcomes()
    try:
        for outcome in old:
            new, pictures = wanted.get(outcome.name), [out / name for name in outcome.picture_names(suffix)]
            same = new and (new.file_state, new.stem, new.views) == (outcome.file_state, outcome.stem, outcome.views)
            if same and outcome.done and not outcome.error and all(picture.is_file() for picture in pictures):
                done[outcome.name] = outcome
            else:
                for picture in pictures:
                    picture.unlink(missing_ok=True)
        _remove_unfinished(out, [outcome.stem for outcome in old if not outcome.done], suffix)
        dropped = [outcome for outcome in old if outcome.name not in done]
        for outcome in dropped:
            for folder in (out / outcome.stem).parents:
                if folder == out:
                    break
                with suppress(OSError):  # it has other pictures, or is gone
                    folder.rmdir()
    except OSError as error:
        raise output_error(out, error) from None
    journal.forget(outcome.name for outcome in dropped)
    return done


def _remove_unfinished(out: Path, stems: Sequence[str], suffix: str) -> None:
    """Remove what a killed run left of the photos it had begun, whose faces are unknown, and of its lists."""
    picture = re.compile(rf"(.+?)(~\d+)?(~[nhv][+-]\d\d)?{re.escape(suffix)}", re.DOTALL)
    begun: dict[Path, set[str]] = {out: set(), out / OWN: set()}
    for stem in stems:
        begun.setdefault((out / stem).parent, set()).add(Path(stem).name)
    for folder, names in begun.items():
        for file in list(folder.iterdir()) if folder.is_dir() else []:
            match = picture.fullmatch(file.name)
            if UNFINISHED.fullmatch(file.name) or (match and match[1] in names):
                file.unlink()
