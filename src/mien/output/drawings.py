"""Annotated pictures and videos of a run: one file, or a folder with one for each source."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mien.atomic import atomic_path
from mien.errors import OutputError
from mien.output.annotate import FORMATS, Annotator, annotate, write_picture
from mien.structures import Frame, Prediction, Reading
from mien.video.sources import MARK, Source, by_ending
from mien.video.writer import CONTAINERS, VideoWriter

if TYPE_CHECKING:
    from mien.video.reader import VideoReader

ENDINGS = {"picture": ".jpg", "video": ".mp4", "live": ".mp4"}
"""Endings of the drawings in a folder."""

LOST = {
    "cut short": "its sound is damaged; the drawing's ends early",
    "left out": "its sound could not be had; it is drawn without",
    "live": "is sent live, so its sound cannot be read beside the pictures; it is drawn without",
}
"""What is said of a sound that is not kept whole."""

LONGEST = 200
"""Bytes of a drawing's name, at most, before its number and its ending."""


class Paths:
    """Where each source's drawing goes.

    In a folder each has its source's name, with a number where two have the same: two folders may hold files of one name. The
    number hangs on the sources alone, those that cannot be read included, so that a resumed run overwrites nothing.

    Args:
        target: A file, for one source that is drawn; or a folder, made where needed.
        sources: What the run reads.
        endings: What a file may end with.
        by_kind: The ending of a drawing in a folder, by its source's kind; other kinds are not drawn.
        earlier: Names of the sources of the run that is gone on with, in its order: their drawings keep their numbers.

    Raises:
        OutputError: The target is one file and there are several sources, its ending is unknown, it is a file where a folder is
            needed, a drawing would take the place of a source, or nothing can be drawn.
    """

    def __init__(
        self,
        target: Path,
        sources: Sequence[Source],
        endings: tuple[str, ...],
        by_kind: Mapping[str, str] = ENDINGS,
        earlier: Sequence[str] = (),
    ) -> None:
        drawn = [source for source in sources if source.kind in by_kind]
        several = len(drawn) > 1
        is_file = target.suffix.lower() in endings and not target.is_dir()
        if is_file and several:
            raise OutputError(
                f"{target}: is one file, and several are to be drawn; give a folder, such as {target.with_suffix('')}"
            )
        if not (is_file or several or target.is_dir() or not target.suffix):
            raise OutputError(
                f"{target}: its ending names no format; end it with one of {', '.join(endings)}, or give a folder"
            )
        if not is_file and target.exists() and not target.is_dir():
            raise OutputError(f"{target}: is a file, and the drawings need a folder; name another, or move the file away")
        if sources and all(source.kind != "error" and source.kind not in by_kind for source in sources):
            raise OutputError(f"{target}: is drawn of videos, and there are only pictures; leave it out")
        self.target, self.is_file = target, is_file
        self._begun = False
        self._numbered: dict[str, str] = {}
        self._number(sources, by_kind, earlier)
        self._check(sources, [self.of(source.name, by_kind[source.kind]) for source in drawn])

    def of(self, source: str, ending: str) -> Path:
        """Return the path for a source."""
        return self.target if self.is_file else self.target / self._numbered.get(source, f"{_stem(source)}{ending}")

    def begin(self) -> None:
        """Make and mark the folder, if there is none or nothing in it; call it before the first drawing.

        Raises:
            OutputError: It cannot be made.
        """
        if self._begun:
            return
        if not self.is_file and (not self.target.exists() or _is_empty(self.target)):
            with atomic_path(self.target / MARK) as beside:
                beside.touch()
        self._begun = True

    def _number(self, sources: Sequence[Source], by_kind: Mapping[str, str], earlier: Sequence[str]) -> None:
        """Number the names that are taken already; some systems take large and small letters for the same."""
        kinds = {source.name: by_ending(source.name) if source.kind == "error" else source.kind for source in sources}
        first = {name: kinds.get(name, by_ending(name)) for name in earlier}
        taken: dict[str, int] = {}  # with the highest number, from where the next is looked for
        for source, kind in (first | kinds).items():
            if kind is None or kind not in by_kind:
                continue
            stem, ending = _stem(source), by_kind[kind]
            plain = f"{stem}{ending}"
            name, number = plain, taken.get(plain.casefold(), 0) + 1
            while number > 1 and (name := f"{stem}-{number}{ending}").casefold() in taken:
                number += 1
            taken[plain.casefold()] = number
            if number > 1:
                taken.setdefault(name.casefold(), 1)
                self._numbered[source] = name

    def _check(self, sources: Sequence[Source], paths: Sequence[Path]) -> None:
        there = {_identity(path): path for path in paths} if self.target.exists() else {}
        there.pop(None, None)
        for source in sources if there else ():
            if path := there.get(_identity(source.name)):
                raise OutputError(f"{path}: is read by this run; name another {'file' if self.is_file else 'folder'}")


def _is_empty(folder: Path) -> bool:
    """Return whether nothing lies in a folder; one that cannot be looked into is none."""
    try:
        return not any(folder.iterdir())
    except OSError:
        return False


def _stem(source: str) -> str:
    """Return a source's name without folder and ending, as any system takes it."""
    stem = "".join("-" if sign in '/\\:*?"<>|' else sign for sign in Path(source).stem)
    while len(os.fsencode(stem)) > LONGEST:
        stem = stem[:-1]
    return stem


def _identity(path: str | Path) -> tuple[int, int] | None:
    """Return what tells a file from all others; None of what is no file."""
    try:
        found = os.stat(path)  # noqa: PTH116 - a name such as camera:0 need not be a path
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


class Drawings:
    """Draws the readings of a run, one source after the other.

    Args:
        target: See `Paths`.
        sources: What the run reads.
        earlier: See `Paths`.

    Attributes:
        written: The files that are whole.
        notes: What is to be said of them: a line each, such as of a sound that is lost.

    Raises:
        OutputError: As of `Paths`, or the target's ending is a picture's and its source a video, or the other way round.
    """

    def __init__(self, target: Path, sources: Sequence[Source], earlier: Sequence[str] = ()) -> None:
        self.paths = Paths(target, sources, (*FORMATS, *CONTAINERS), earlier=earlier)
        if self.paths.is_file and sources:
            for source in sources:
                endings = FORMATS if source.kind == "picture" else CONTAINERS
                if source.kind != "error" and target.suffix.lower() not in endings:
                    raise OutputError(f"{target}: {source.name} is drawn as one of {', '.join(endings)}; choose such an ending")
        self.written: list[Path] = []
        self.notes: list[str] = []
        self._videos: dict[str, Any] = {}  # by name; None where one name is of two
        for source in sources:
            if source.kind == "video":
                same = self._videos.get(source.name, source.value) == source.value
                self._videos[source.name] = source.value if same else None
        self._mute: dict[str, str] = {}  # why their sound is not looked for, by name
        self._annotator = Annotator()
        self._video: VideoWriter | None = None
        self._path, self._source = target, ""

    def opened(self, video: VideoReader) -> None:
        """Take note of a video that was opened, before its first frame."""
        if video.live or not video.sound:
            self._mute[video.name] = "live" if video.sound else "none"

    def add(self, reading: Reading) -> None:
        """Draw a picture or a frame.

        Raises:
            OutputError: The file cannot be written; nothing of it is left.
        """
        if reading.frame is None:
            return
        if reading.frame.index is None:
            self.paths.begin()
            path = self.paths.of(reading.source, ENDINGS["picture"])
            write_picture(path, annotate(reading.frame.image, reading.predictions))
            self.written.append(path)
        else:
            self._write(reading.source, reading.frame, reading.predictions)

    def end_source(self) -> None:
        """Finish the video being written, if there is one: it can be played up to its last frame."""
        video, self._video, self._annotator = self._video, None, Annotator()
        if video is not None:
            video.close()
            self.written.append(self._path)
            self._say_lost(video.sound)

    def _write(self, source: str, frame: Frame, predictions: Sequence[Prediction]) -> None:
        if self._video is None:
            self.paths.begin()
            self._path, self._source = self.paths.of(source, ENDINGS["video"]), source
            self._video = VideoWriter(self._path, like=None if source in self._mute else self._videos.get(source))
            two = source in self._videos and self._videos[source] is None  # of one name: which of them, nobody knows
            self._say_lost(self._mute.get(source, "left out" if two else ""))
        try:
            self._video.write(replace(frame, image=self._annotator.draw(frame.image, predictions)))
        except Exception:
            self._video.discard()
            self._video = None
            raise

    def _say_lost(self, how: str) -> None:
        if how in LOST:
            self.notes.append(f"{self._source}: {LOST[how]}")
