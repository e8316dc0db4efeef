"""Where annotated pictures, annotated videos and timelines are written: one given file, or one file per source in a folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from mien.atomic import IDLE, atomic_path, file_id, remove_unfinished
from mien.errors import OutputError
from mien.video.sources import MARK, Source, by_ending

MAX_STEM = 200
"""Bytes of a file's name, at most, before its number and ending; file systems allow 255 in all."""

RESERVED = re.compile(r"con|prn|aux|nul|(com|lpt)[0-9]", re.IGNORECASE)
"""Names that Windows keeps for devices, whatever the ending."""


class OutputPaths:
    """The path of the drawing of each source.

    In a folder each drawing has its source's name, and a number if another source has the same name. The numbers depend on all
    sources, including those that cannot be read, so a resumed run overwrites nothing.

    Args:
        target: A file, if one source is drawn; or a folder, which is created if needed.
        sources: What the run reads.
        formats: The endings that a file may have.
        endings: The ending of a drawing in a folder, by the kind of its source; other kinds are not drawn.
        earlier: Names of the sources of the run that is resumed, in its order: their drawings keep their numbers.

    Raises:
        OutputError: The target does not suit the sources.
    """

    def __init__(
        self,
        target: Path,
        sources: Sequence[Source],
        formats: Sequence[str],
        endings: Mapping[str, str],
        earlier: Sequence[str] = (),
    ) -> None:
        drawn = [source for source in sources if source.kind in endings]
        several = len(drawn) > 1
        self.target = target
        self.is_file = target.suffix.lower() in formats and not target.is_dir()
        if self.is_file and several:
            raise OutputError(f"{target}: is one file for several sources; give a folder, such as {target.with_suffix('')}")
        if not (self.is_file or several or target.is_dir() or not target.suffix):
            raise OutputError(f"{target}: its ending is of no known format; use one of {', '.join(formats)}, or give a folder")
        if not self.is_file and target.exists() and not target.is_dir():
            raise OutputError(f"{target}: is a file, but a folder is needed; choose another, or move the file away")
        if sources and all(source.kind != "error" and source.kind not in endings for source in sources):
            raise OutputError(f"{target}: needs a video, but there are only pictures; leave it out")
        self._names = {} if self.is_file else _unique_names(sources, endings, earlier)
        self._created = False
        self._idle = 0 if earlier else IDLE  # of a resumed run nothing else can be at work
        existing = {file_id(path): path for path in (self.path(source.name) for source in drawn)} if target.exists() else {}
        existing.pop(None, None)
        for source in sources if existing else ():
            if path := existing.get(file_id(source.name)):
                raise OutputError(f"{path}: is read by this run; choose another {'file' if self.is_file else 'folder'}")

    def path(self, source: str) -> Path:
        """Return the path for the source of that name."""
        return self.target if self.is_file else self.target / self._names[source]

    @property
    def files(self) -> list[Path]:
        """All files that may be written."""
        return [self.target] if self.is_file else [self.target / name for name in self._names.values()]

    def create_folder(self) -> None:
        """Create and mark the folder, if there is none or it is empty, and remove what a killed run left there unfinished.

        Call it before the first drawing.
        """
        if self._created:
            return
        target = self.target
        with suppress(OSError, OutputError):
            if self.is_file:
                remove_unfinished(target.parent, [target.name], self._idle)
            else:
                remove_unfinished(target, self._names.values(), self._idle)
        with suppress(OSError):  # the folder may not be listed
            if not self.is_file and (not target.exists() or not any(target.iterdir())):
                with atomic_path(target / MARK) as tmp_path:
                    tmp_path.touch()
        self._created = True


def check_distinct(files: Iterable[Path], others: Iterable[str | os.PathLike[str] | None]) -> None:
    """Check that files which are named after sources replace no other file of the run.

    Args:
        files: These files, such as those of `OutputPaths`.
        others: What else the run reads or writes; None is left out.

    Raises:
        OutputError: A file is one of the others.
    """
    taken = {os.path.realpath(other) for other in others if other is not None}
    for file in files:
        if os.path.join(os.path.realpath(file.parent), file.name) in taken:  # noqa: PTH118 -- pathlib is slow for many names
            raise OutputError(f"{file}: is another file of this run, which would be overwritten; choose another folder or name")


def _unique_names(sources: Sequence[Source], endings: Mapping[str, str], earlier: Sequence[str]) -> dict[str, str]:
    """Return a file name for each source. Names are compared without case, as some file systems do."""
    kinds = {source.name: by_ending(source.name) if source.kind == "error" else source.kind for source in sources}
    kinds = {name: kinds.get(name, by_ending(name)) for name in earlier} | kinds
    names: dict[str, str] = {}
    highest: dict[str, int] = {}  # number given so far, by file name
    for source, kind in kinds.items():
        if kind is None or kind not in endings:
            continue
        stem, ending = _stem(source), endings[kind]
        first = name = f"{stem}{ending}"
        number = highest.get(first.casefold(), 0) + 1
        while number > 1 and (name := f"{stem}-{number}{ending}").casefold() in highest:
            number += 1
        highest[first.casefold()] = number
        highest.setdefault(name.casefold(), 1)
        names[source] = name
    return names


def _stem(source: str) -> str:
    """Return a source's name without folder and ending, shortened and without what some systems forbid.

    >>> _stem("photos/what?.jpg"), _stem("rtsp://door/aux")
    ('what-', 'aux-')
    """
    stem = "".join("-" if character in '/\\:*?"<>|' else character for character in Path(source).stem)
    while len(os.fsencode(stem)) > MAX_STEM:
        stem = stem[:-1]
    return f"{stem}-" if RESERVED.fullmatch(stem.partition(".")[0]) else stem
