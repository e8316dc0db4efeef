"""Where the readings of a run go: a table, annotated pictures and videos, a summary and timelines; each whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from mien.errors import MienError, OutputError, require
from mien.runtime.drawings import Drawings, Paths
from mien.runtime.journal import Journal
from mien.runtime.sources import Source
from mien.runtime.summary import FORMATS as SUMMARIES
from mien.runtime.summary import MAX_GAP, Summary, write_summary
from mien.runtime.table import rows
from mien.runtime.timeline import FORMATS as TIMELINES
from mien.runtime.timeline import Timeline
from mien.structures import Reading


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

    Leaving its block by an error or by Ctrl-C still finishes the files: the table and the summary hold what was done, a video
    plays up to its last frame, and the journal beside the table lets a later run go on.

    Args:
        targets: The files.
        classes: The model's classes, by output index.
        about: What the rows hang on: the model, the options.
        sources: What the run reads.
        fps: Frames of videos looked at in a second, if not all.
        resume: Go on with the journal an interrupted run left.

    Attributes:
        summary: What was read so far, the sources of a resumed run too.
        read: Number of pictures and frames read.
        failures: Sources that could not be read or drawn, and why.
        written: Files that are whole.
        dropped: Number of sources that an interrupted run had read and this one, not resumed, reads again.
        resumable: Whether the run, once finished, can be gone on with.

    Raises:
        OutputError: A target's ending is unknown, its place cannot be written, or the journal is of another run.
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
    ) -> None:
        self._max_gap = max(MAX_GAP, 2.5 / fps) if fps else MAX_GAP
        if targets.summary is not None and targets.summary.suffix.lower() not in SUMMARIES:
            raise OutputError(f"{targets.summary}: a summary's name must end in {' or '.join(SUMMARIES)}; choose one of them")
        self.targets, self.classes = targets, tuple(classes)
        self._drawings = Drawings(targets.annotate, sources) if targets.annotate is not None else None
        if targets.timeline is not None:
            require("matplotlib", "tables")
        self._plots = Paths(targets.timeline, len(sources) > 1, TIMELINES) if targets.timeline is not None else None
        self._timeline: Timeline | None = None
        self._journal = Journal(targets.table, classes, about, resume=resume) if targets.table is not None else None
        self.dropped = 0 if self._journal is None else self._journal.dropped
        self.summary = Summary(classes, self._max_gap)
        self.failures: list[tuple[str, MienError]] = []
        self.written: list[Path] = []
        self.read = 0
        self.resumable = False
        self._only = len(sources) == 1
        self._number, self._key, self._failed = -1, "", False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._finish(complete=kind is None)

    def done(self, source: str) -> bool:
        """Return whether an earlier run, gone on with, has read a source, and it has not changed since."""
        return self._journal is not None and self._journal.done(source)

    def add(self, reading: Reading) -> None:
        """Take the next reading.

        Raises:
            OutputError: The table's journal cannot be written. A drawing that cannot be is a failure of its source instead.
        """
        if reading.number != self._number:
            self._end_source()
            self._begin(reading)
        if reading.error is not None:
            self._fail(reading.error)
            return
        self.read += 1
        if self._journal is not None and not self._failed:
            self._journal.add(self._key, rows(reading.predictions))
        self.summary.extend(reading.predictions)
        if self._timeline is not None:
            self._timeline.extend(reading.predictions)
        self._draw(reading)

    def _begin(self, reading: Reading) -> None:
        self._number, self._failed = reading.number, False
        self._key = reading.source
        if self._journal is not None:
            self._journal.begin(self._key)
        if self._plots is not None and reading.frame is not None and reading.frame.index is not None:
            self._timeline = Timeline(self.classes, self._key, self._max_gap)

    def _draw(self, reading: Reading) -> None:
        if self._drawings is None or self._failed:
            return
        try:
            self._drawings.add(reading)
        except OutputError as error:
            self._fail(error)

    def _fail(self, error: MienError) -> None:
        self.failures.append((self._key, error))
        if self._journal is not None and not self._failed:
            self._journal.fail(self._key, error)
        self._failed = True

    def _end_source(self) -> None:
        """Finish what belongs to one source alone."""
        if self._number < 0:
            return
        if self._drawings is not None:
            try:
                self._drawings.end_source()
            except OutputError as error:
                self._fail(error)
        if self._timeline is not None and self._plots is not None:
            path = self._plots.of(self._key, TIMELINES[0])
            self._timeline.draw(path)
            self.written.append(path)
        if self._journal is not None and not self._failed:
            self._journal.end(self._key)
        self._timeline, self._number = None, -1

    def _finish(self, complete: bool) -> None:
        if complete:
            self._end_source()
        elif self._drawings is not None:
            self._drawings.end_source()
        if self._only and self.failures and not self.read:  # the only source was none
            if self._journal is not None:
                self._journal.discard()
            return
        if self._journal is not None and self._journal.resumed:
            self.summary = Summary(self.classes, self._max_gap)
            self.summary.extend(self._journal.rows())
        if self.targets.summary is not None:
            write_summary(self.targets.summary, self.summary)
            self.written.append(self.targets.summary)
        if self._journal is not None and self.targets.table is not None:
            self.resumable = self._journal.finish(complete)
            self.written.append(self.targets.table)
        if self._drawings is not None:
            self.written += self._drawings.written
