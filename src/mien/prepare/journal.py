"""How far a preparation is, so that a run that was stopped anywhere goes on and ends in the same folder.

`.prepare/settings.json` in the folder says how it was made. `.prepare/journal` has two lines a photo, one before its pictures
are written and one after. A photo with both, unchanged, is not done again; what is there of any other is removed first. One
process alone writes to the journal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from mien.atomic import UNFINISHED, atomic_path, output_error
from mien.datasets.crops import views
from mien.errors import OutputError

OWN = ".prepare"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a photo.

    Attributes:
        name: The photo's path in its folder.
        stat: Its size and time of change before it was read.
        target: The path its pictures have, without mark and suffix.
        views: Pictures from each face.
        faces: Left, top, right, bottom in px of the photo, and score, of each face that was cut out.
        error: Why it could not be read; empty if it could.
        done: Whether its pictures are written.
    """

    name: str
    stat: str
    target: str
    views: int
    faces: tuple[tuple[float, ...], ...] = ()
    error: str = ""
    done: bool = False


def picture_names(outcome: Outcome, suffix: str) -> list[str]:
    """Return the paths of a photo's pictures, face after face, each face as it is first.

    >>> picture_names(Outcome("a.jpg", "", "a", 1, ((0, 0, 9, 9, 1.0), (9, 9, 12, 12, 0.9))), ".png")
    ['a.png', 'a~2.png']
    """
    faces = ["" if i == 0 else f"~{i + 1}" for i in range(len(outcome.faces))]
    return [f"{outcome.target}{face}{view.mark}{suffix}" for face in faces for view in views(outcome.views)]


@contextmanager
def owned(out: Path, identity: dict[str, Any]) -> Iterator[None]:
    """Keep a folder to this process, once it is known to be new or made in the same way.

    Args:
        out: The folder.
        identity: What must be the same; plain JSON types.

    Raises:
        OutputError: It was made otherwise or holds other things, cannot be written, or another process has it.
    """
    lock = FileLock(out / OWN / "lock", timeout=0)
    try:
        if out.is_dir() and not (out / OWN).is_dir() and any(out.iterdir()):
            raise OutputError(f"{out}: holds files that mien prepare did not write; name a new folder")
        (out / OWN).mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise OutputError(f"{out}: another mien prepare is writing to it; wait for it or name another folder") from None
    except OSError as error:
        raise output_error(out, error) from None
    try:
        _check(out, identity)
        yield
    finally:
        lock.release()


def _check(out: Path, identity: dict[str, Any]) -> None:
    """Compare the folder's settings, or write them into a new one."""
    file = out / OWN / "settings.json"
    if not file.exists():
        with atomic_path(file) as beside:
            beside.write_text(json.dumps(identity, indent=1) + "\n")
        return
    try:
        made = dict(json.loads(file.read_text()))
    except (ValueError, TypeError, OSError):
        raise OutputError(f"{file}: cannot be read; name a new folder") from None
    differing = [key for key in identity if made.get(key) != identity[key]]
    if differing:
        first = differing[0]
        how = {"photos": "from another folder of photos", "format": "by another version of mien"}.get(
            first, f"with {first} {made.get(first)}, not {identity[first]}"
        )
        raise OutputError(f"{out}: was made {how}; name a new folder, or delete this one")


class Journal:
    """The journal of a folder, which may be opened for further lines."""

    def __init__(self, out: Path) -> None:
        self.path = out / OWN / "journal"
        self._file: IO[str] | None = None

    def __enter__(self) -> Journal:
        try:
            self._file = self.path.open("a")
        except OSError as error:
            raise output_error(self.path, error) from None
        return self

    def __exit__(self, *details: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, outcome: Outcome) -> None:
        """Add a line.

        Raises:
            OutputError: It cannot be written.
        """
        try:
            assert self._file is not None
            self._file.write(_line(outcome))
            self._file.flush()
        except OSError as error:
            raise output_error(self.path, error) from None

    def read(self) -> list[Outcome]:
        """Return the last line of each photo, up to the line that was being written when a run stopped."""
        found: dict[str, Outcome] = {}
        for line in self.path.read_text().splitlines() if self.path.exists() else []:
            try:
                values = json.loads(line)
                outcome = Outcome(**values | {"faces": tuple(map(tuple, values["faces"]))})
            except (ValueError, TypeError, KeyError):
                break
            found[outcome.name] = outcome
        return list(found.values())

    def rewrite(self, outcomes: Iterable[Outcome]) -> None:
        """Replace the lines by one a photo.

        Raises:
            OutputError: It cannot be written.
        """
        with atomic_path(self.path) as beside, beside.open("w") as file:
            file.writelines(map(_line, outcomes))


def _line(outcome: Outcome) -> str:
    return json.dumps(asdict(outcome)) + "\n"


def resume(out: Path, begun: Sequence[Outcome], suffix: str) -> dict[str, Outcome]:
    """Return, by name, the photos that are done; remove what is there of all others.

    Args:
        out: The folder.
        begun: The photos of this run, before they are read.
        suffix: Suffix of the pictures.

    Raises:
        OutputError: The folder cannot be changed.
    """
    journal, wanted, done = Journal(out), {outcome.name: outcome for outcome in begun}, dict[str, Outcome]()
    try:
        old = journal.read()
        for outcome in old:
            if _is_done(out, outcome, wanted.get(outcome.name), suffix):
                done[outcome.name] = outcome
            else:
                _remove(out, outcome, suffix)
        _remove_unfinished(out, [outcome.target for outcome in old if not outcome.done], suffix)
        for outcome in old:
            if outcome.name not in done:
                _remove_empty(out, out / outcome.target)
    except OSError as error:
        raise output_error(out, error) from None
    journal.rewrite(done.values())
    return done


def _is_done(out: Path, outcome: Outcome, wanted: Outcome | None, suffix: str) -> bool:
    """Return whether a photo's pictures are all there and what this run wants; one that could not be read is tried again."""
    if wanted is None or not outcome.done or outcome.error:
        return False
    same = (outcome.stat, outcome.target, outcome.views) == (wanted.stat, wanted.target, wanted.views)
    return same and all((out / name).is_file() for name in picture_names(outcome, suffix))


def _remove(out: Path, outcome: Outcome, suffix: str) -> None:
    for name in picture_names(outcome, suffix):
        (out / name).unlink(missing_ok=True)


def _remove_unfinished(out: Path, targets: Sequence[str], suffix: str) -> None:
    """Remove what a killed run left of the photos it had begun, whose faces are not known, and of its lists."""
    picture = re.compile(rf"(.+?)(~\d+)?(~[nhv][+-]\d\d)?{re.escape(suffix)}", re.DOTALL)
    begun: dict[Path, set[str]] = {out: set(), out / OWN: set()}
    for target in targets:
        begun.setdefault((out / target).parent, set()).add(Path(target).name)
    for folder, names in begun.items():
        for file in list(folder.iterdir()) if folder.is_dir() else []:
            mark = picture.fullmatch(file.name)
            if UNFINISHED.fullmatch(file.name) or (mark and mark[1] in names):
                file.unlink()


def _remove_empty(out: Path, target: Path) -> None:
    """Remove the folders that no longer hold pictures."""
    for folder in target.parents:
        if folder == out:
            break
        with suppress(OSError):  # it still holds some, or is gone
            folder.rmdir()
