"""Where the readings of a run go: a table, annotated pictures and videos, a summary and timelines; each whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from mien.atomic import check_place, uninterrupted
from mien.errors import MienError, OutputError, require
from mien.output.drawings import Drawings, Paths
from mien.output.journal import Journal, names_of
from mien.output.summary import FORMATS as SUMMARIES
from mien.output.summary import MAX_GAP, Summary, write_summary
from mien.output.table import rows
from mien.output.timeline import FORMATS as TIMELINES
from mien.output.timeline import Timeline
from mien.structures import Reading
from mien.video.sources import Source

if TYPE_CHECKING:
    from mien.video.reader import VideoReader

PLOTS = {"video": TIMELINES[0], "live": TIMELINES[0]}
"""What is plotted, and the ending of its plot."""


@dataclass(frozen=True, slots=True)
class Targets:
    """The files a run writes; None is not written.

    Attributes:
        table: A row a face: `.csv`, `.parquet` or `.jsonl`.
        summary: What each person showed in each video: `.json` or `.csv`.
        annotate: The annotated picture or video, or a folder of them.
        timeline: The plot of a video, or a folder of them.
    """

    table: Path | None = None
    summary: Path | None = None
    annotate: Path | None = None
    timeline: Path | None = None


class Outputs:
    """Writes the readings of a run, source after source, as `Recognizer.stream` yields them.

    Leaving its block by an error or by Ctrl-C, once or again, still finishes the files: the table, the summary and the timeline
    hold what was done, a video plays up to its last frame, and the journal beside the table lets a later run go on. Where
    nothing was done, nothing is written.

    Args:
        targets: The files.
        classes: The model's classes, by output index.
        about: What the rows hang on: the model, the options.
        sources: What the run reads.
        fps: Frames of videos looked at in a second, if not all.
        resume: Go on with the journal an interrupted run left.
        resumable: Leave a journal for `resume` where something was not read.

    Attributes:
        summary: What was read so far, the sources of a resumed run too.
        read: Number of pictures and frames read.
        faceless: Videos in which no face was found.
        failures: Sources that could not be read or drawn, and why.
        written: Files that are whole.
        resumed: Number of sources that an interrupted run had read and this one keeps.
        dropped: Number of sources that an interrupted run had read and this one, not resumed, reads again.
        resumable: Whether the run can be gone on with.

    Raises:
        OutputError: A target's ending is unknown, its place cannot be written or is a source's, or the journal is of another
            run.
        MissingExtraError: A target needs a package that is not installed.
    """

    def __init__(
        self,
        targets: Targets,
        classes: Sequence[str],
        about: Mapping[str, str],
        sources: Sequence[Source],
        *,
        fps: float | None = None,
        resume: bool = False,
        resumable: bool = True,
    ) -> None:
        self._max_gap = max(MAX_GAP, 2.5 / fps) if fps else MAX_GAP
        _check_summary(targets)
        for target in (targets.summary, targets.annotate, targets.timeline):
            if target is not None:
                check_place(target)
        self.targets, self.classes = targets, tuple(classes)
        earlier = names_of(targets.table) if targets.table is not None and resume else []
        self._drawings = Drawings(targets.annotate, sources, earlier) if targets.annotate is not None else None
        if targets.timeline is not None:
            require("matplotlib", "tables")
        self._plots = Paths(targets.timeline, sources, TIMELINES, PLOTS, earlier) if targets.timeline is not None else None
        self._timeline: Timeline | None = None
        about = {**about, "drawn": ", ".join(name for name in ("annotate", "timeline") if getattr(targets, name) is not None)}
        self._journal = Journal(targets.table, classes, about, resume=resume) if targets.table is not None else None
        self._videos = [source.name for source in sources if source.kind in PLOTS]
        self._names = [source.name for source in sources]
        self._live = {source.name for source in sources if source.kind == "live"}
        if self._journal is not None and resume:
            self._journal.forget_missing({source.name for source in sources})
        self.resumed = 0 if self._journal is None else self._journal.resumed
        self.dropped = 0 if self._journal is None else self._journal.dropped
        self.summary = Summary(classes, self._max_gap)
        self.faceless: list[str] = []
        self.failures: list[tuple[str, MienError]] = []
        self.written: list[Path] = []
        self.read = 0
        self.resumable = self._leave = resumable and self._journal is not None
        self._only = len(sources) == 1
        self._number, self._key = -1, ""
        self._resume = resume
        self._failure: MienError | None = None
        self._drawn, self._empty = True, False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with uninterrupted():
            self._finish(complete=kind is None)

    @property
    def notes(self) -> list[str]:
        """What is to be said of the drawings: a line each, such as of a sound that is lost."""
        return [] if self._drawings is None else self._drawings.notes

    def opened(self, video: VideoReader) -> None:
        """Take note of a video that was opened; hand it to `Recognizer.stream` as `on_video`."""
        if video.live:
            self._live.add(video.name)
        if self._drawings is not None:
            self._drawings.opened(video)

    def done(self, source: str) -> bool:
        """Return whether an earlier run, gone on with, has read a source, and it has not changed since."""
        return self._journal is not None and self._journal.done(source)

    def add(self, reading: Reading) -> None:
        """Take the next reading.

        Raises:
            OutputError: The table's journal cannot be written. A drawing that cannot be is a failure of its source instead:
                its rows are kept, and a resumed run tries it again.
        """
        if reading.number != self._number:
            self._end_source(complete=True)
            self._begin(reading)
        if reading.error is not None:
            self._fail(reading.error)
            self._end_source(complete=True)
            return
        self.read += 1
        self._empty = self._empty and not reading.predictions
        if self._journal is not None:
            self._journal.add(self._key, rows(reading.predictions))
        self.summary.extend(reading.predictions)
        if self._timeline is not None:
            self._timeline.extend(reading.predictions)
        if self._drawings is not None and self._drawn:
            with self._drawing():
                self._drawings.add(reading)
        if not is_video(reading):
            self._end_source(complete=True)

    def _begin(self, reading: Reading) -> None:
        self._number, self._key, self._failure = reading.number, reading.source, None
        self._drawn, self._empty = True, is_video(reading)
        if self._journal is not None and reading.error is None:  # of what cannot be opened, earlier rows stay
            self._journal.begin(self._key)
        if is_video(reading):
            self.summary.see(self._key)
        if self._plots is not None and is_video(reading):
            self._timeline = Timeline(self.classes, self._key, self._max_gap)

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """Make what cannot be drawn a failure of its source, which is then drawn no further."""
        try:
            yield
        except OutputError as error:
            self._drawn = False
            self._fail(error)

    def _fail(self, error: MienError) -> None:
        self.failures.append((self._key, error))
        self._failure = self._failure or error

    def _end_source(self, complete: bool) -> None:
        """Finish what belongs to one source alone."""
        if self._number < 0:
            return
        if self._drawings is not None:
            with self._drawing():
                self._drawings.end_source()
        if self._timeline is not None:
            with self._drawing():
                self._plot(self._timeline)
        if self._empty:
            self.faceless.append(self._key)
        if self._journal is not None and self._failure is not None:
            self._journal.fail(self._key, self._failure)
        elif self._journal is not None and (complete or self._key in self._live):  # what was sent live does not come again
            self._journal.end(self._key)
        self._timeline, self._number = None, -1

    def _plot(self, timeline: Timeline) -> None:
        assert self._plots is not None
        self._plots.begin()
        path = self._plots.of(self._key, TIMELINES[0])
        timeline.draw(path)
        self.written.append(path)

    def _finish(self, complete: bool) -> None:
        self._end_source(complete)
        if not self._nothing_came(complete):
            self._write(complete)
        elif self._journal is not None:
            self.resumable = self._journal.discard()

    def _nothing_came(self, complete: bool) -> bool:
        """Return whether nothing was read, because the only source is none or the run was stopped before its first picture."""
        if self.read or self.resumed:
            return False
        return not complete or (self._only and bool(self.failures))

    def _write(self, complete: bool) -> None:
        """Write what belongs to all sources together."""
        if self._drawings is not None:
            self.written = self._drawings.written + self.written
        if self._journal is not None and self._resume:
            self.summary = Summary(self.classes, self._max_gap)
            for video in self._videos:
                if self._journal.complete(video):
                    self.summary.see(video)
            self.summary.extend(self._journal.rows())
        try:
            if self._journal is not None and self.targets.table is not None:
                complete = complete or all(map(self._journal.complete, self._names))
                self.resumable = self._journal.finish(complete, leave=self._leave)
                self.written.insert(0, self.targets.table)
        finally:
            if self.targets.summary is not None:
                write_summary(self.targets.summary, self.summary)
                self.written.append(self.targets.summary)


def is_video(reading: Reading) -> bool:
    """Return whether a reading is a video's frame, and no picture and no error."""
    return reading.frame is not None and reading.frame.index is not None


def _check_summary(targets: Targets) -> None:
    if targets.summary is None:
        return
    if targets.summary.suffix.lower() not in SUMMARIES:
        raise OutputError(f"{targets.summary}: a summary's name must end in {' or '.join(SUMMARIES)}; choose one of them")
    if targets.table is not None and os.path.realpath(targets.summary) == os.path.realpath(targets.table):
        raise OutputError(f"{targets.summary}: is named for the table and for the summary; give each its own name")
