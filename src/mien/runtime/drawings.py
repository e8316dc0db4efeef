"""Annotated pictures and videos of a run: one file, or a folder with one for each source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mien.errors import OutputError
from mien.runtime.annotate import FORMATS, Annotator, annotate, write_picture
from mien.runtime.sources import Source
from mien.runtime.video_writer import CONTAINERS, VideoWriter
from mien.structures import Frame, Prediction, Reading


class Paths:
    """Where each source's drawing goes.

    Args:
        target: A file, for one source; or a folder, made where needed.
        several: Whether there are several sources.
        endings: What a file may end with.

    Raises:
        OutputError: The target is one file and there are several sources.
    """

    def __init__(self, target: Path, several: bool, endings: tuple[str, ...]) -> None:
        is_file = target.suffix.lower() in endings and not target.is_dir()
        if is_file and several:
            raise OutputError(
                f"{target}: is one file, and there are several sources; give a folder, such as {target.with_suffix('')}"
            )
        if not (is_file or several or target.is_dir()):
            raise OutputError(
                f"{target}: its ending names no format; end it with one of {', '.join(endings)}, or give a folder"
            )
        self.target, self.is_file = target, is_file
        self._taken: set[str] = set()

    def of(self, source: str, ending: str) -> Path:
        """Return the path for a source, each time another: two folders may hold files of one name."""
        if self.is_file:
            return self.target
        stem = Path(source).stem
        stem = "".join("-" if sign in '/\\:*?"<>|' else sign for sign in stem)
        name, number = f"{stem}{ending}", 1
        while name in self._taken:
            number += 1
            name = f"{stem}-{number}{ending}"
        self._taken.add(name)
        return self.target / name


class Drawings:
    """Draws the readings of a run, one source after the other.

    Args:
        target: See `Paths`.
        sources: What the run reads.

    Attributes:
        written: The files that are whole.

    Raises:
        OutputError: As of `Paths`, or the target's ending is a picture's and its source a video, or the other way round.
    """

    def __init__(self, target: Path, sources: Sequence[Source]) -> None:
        self.paths = Paths(target, len(sources) > 1, (*FORMATS, *CONTAINERS))
        if self.paths.is_file and sources:
            endings = FORMATS if sources[0].kind == "picture" else CONTAINERS
            if sources[0].kind != "error" and target.suffix.lower() not in endings:
                raise OutputError(f"{target}: {sources[0].name} is drawn as one of {', '.join(endings)}; choose such an ending")
        self.written: list[Path] = []
        self._annotator = Annotator()
        self._video: VideoWriter | None = None
        self._path = target

    def add(self, reading: Reading) -> None:
        """Draw a picture or a frame.

        Raises:
            OutputError: The file cannot be written; nothing of it is left.
        """
        if reading.frame is None:
            return
        if reading.frame.index is None:
            path = self.paths.of(reading.source, ".jpg")
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

    def _write(self, source: str, frame: Frame, predictions: Sequence[Prediction]) -> None:
        if self._video is None:
            self._path = self.paths.of(source, ".mp4")
            self._video = VideoWriter(self._path, like=source)
        try:
            self._video.write(replace(frame, image=self._annotator.draw(frame.image, predictions)))
        except Exception:
            self._video.discard()
            self._video = None
            raise
