"""The files of a run: table, summary, events, annotated pictures and videos, timelines; each is complete or not written at all.

`RunWriter` takes the readings of `Recognizer.stream` one at a time. It passes each to the journal of the table, the summary,
the events, the timeline of its video and the `AnnotationWriter`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from mien.atomic import check_outputs, uninterrupted
from mien.errors import MienError, OutputError, require
from mien.output import annotate, timeline
from mien.output.annotate import Annotator, write_picture
from mien.output.events import EventOptions, EventWriter
from mien.output.fonts import require_font
from mien.output.journal import Journal, journal_sources
from mien.output.paths import OutputPaths
from mien.output.summary import FORMATS, Seen, Summary, max_sample_gap, write_summary
from mien.output.table import check_ending, reading_rows
from mien.output.timeline import Timeline
from mien.structures import Reading
from mien.video.sources import Source
from mien.video.writer import CONTAINERS, VideoWriter

if TYPE_CHECKING:
    from mien.video.reader import VideoReader

ANNOTATED = {"picture": ".jpg", "video": ".mp4", "live": ".mp4"}
"""Which kinds of sources are annotated, and the ending of each in a folder."""

PLOTTED = {"video": ".png", "live": ".png"}
"""Which kinds of sources get a timeline, and its ending in a folder."""

LOST_SOUND = {
    "cut short": "its sound is damaged, so that of the annotated video ends early",
    "left out": "its sound could not be read, so the annotated video has none",
    "live": "is a live stream, whose sound cannot be recorded, so the annotated video has none",
}
"""What the user is told of a sound that is not kept completely."""


@dataclass(frozen=True, slots=True)
class Targets:
    """The files a run writes; None is not written."""

    table: Path | None = None
    summary: Path | None = None
    annotate: Path | None = None  # a picture or video, or a folder of them
    timeline: Path | None = None  # a picture, or a folder of them
    events: Path | None = None  # a file, or a folder of them


@dataclass(slots=True)
class _Current:
    """The source whose readings are coming in."""

    number: int
    name: str
    is_video: bool
    timeline: Timeline | None
    faces: int = 0
    seen: Seen = field(default_factory=Seen)
    failed: bool = False  # it could not be read or drawn; nothing more of it is drawn


class RunWriter:
    """Writes the readings of a run, source after source, as `Recognizer.stream` yields them.

    The files are finished even if the block ends with an error or with Ctrl-C. Table, summary and timeline then contain what
    was read, and a video can be played up to its last frame. The journal next to the table lets a later run resume. If nothing
    was read, nothing is written.

    Args:
        targets: The files.
        classes: The model's classes, by output index.
        about: What the rows depend on: the model and the options.
        sources: What the run reads.
        fps: Frames read per second of video; None for all.
        all_frames: Also write a row for each frame of a video without a face.
        resume: Continue the journal of an interrupted run.
        resumable: Keep a journal for `resume` if a source was not read.
        inputs: Other files that the run reads, such as the model.
        event_options: How events are made.

    Raises:
        OutputError: The ending of a target is unknown, it cannot be written or is a source, or the journal has other settings.
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
        all_frames: bool = False,
        resume: bool = False,
        resumable: bool = True,
        inputs: Sequence[str | os.PathLike[str]] = (),
        event_options: EventOptions | None = None,
    ) -> None:
        self.targets, self.classes, self._sources, self._resume = targets, tuple(classes), sources, resume
        self._all_frames = all_frames
        self._max_gap = max_sample_gap(fps)
        self._live = {source.name for source in sources if source.kind == "live"}
        if targets.summary is not None:
            check_ending(targets.summary, "summary", FORMATS)
        check_outputs(astuple(targets), [*(source.name for source in sources), *inputs])
        for path in (targets.table, targets.summary):
            if path is not None and path.is_dir():
                raise OutputError(f"{path}: is a folder; name a file in it, such as {path / f'table{path.suffix}'}")
        earlier = journal_sources(targets.table) if targets.table is not None and resume else []
        self.warnings: list[str] = []  # a line for each annotated video whose sound was lost
        self._annotations: AnnotationWriter | None = None
        self._timelines: OutputPaths | None = None
        if targets.annotate is not None:
            self._annotations = AnnotationWriter(targets.annotate, sources, earlier, self.warnings)
        if targets.timeline is not None:
            require("matplotlib", "tables")
            require_font()
            self._timelines = OutputPaths(targets.timeline, sources, timeline.FORMATS, PLOTTED, earlier)
        self._events: EventWriter | None = None
        if targets.events is not None:
            others = [targets.table, targets.summary, *inputs]
            self._events = EventWriter(targets.events, classes, event_options, sources, earlier, others, self._max_gap)
        self._journal: Journal | None = None
        if targets.table is not None:
            drawn = [name for name in ("annotate", "timeline") if getattr(targets, name) is not None]
            about = {**about, "drawn": ", ".join(drawn) or "nothing", **({"all_frames": "True"} if all_frames else {})}
            self._journal = Journal(targets.table, classes, about, all_frames=all_frames, resume=resume)
            if resume:
                self._journal.drop_failures(except_for={source.name for source in sources})
        # Number of sources that an earlier run finished: those this run keeps, and those it reads again.
        self.resumed, self.dropped = (self._journal.resumed, self._journal.dropped) if self._journal is not None else (0, 0)
        self.resumable = self._keep_journal = resumable and self._journal is not None
        self.summary = Summary(classes, self._max_gap)  # includes the sources of a resumed run
        self.videos_without_faces: list[str] = []
        self.failures: list[tuple[str, MienError]] = []  # names of sources that could not be read or drawn, and why
        self.written: list[Path] = []  # the files that are complete
        self.read = 0  # pictures and frames
        self._videos: set[str] = set()  # read by this run
        self._current: _Current | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with uninterrupted():
            self._end_source(complete=kind is None)
            only_failed = len(self._sources) == 1 and bool(self.failures)
            if self.read or self.resumed or (kind is None and not only_failed):
                self._write(complete=kind is None)
            elif self._journal is not None:  # nothing was read, because of Ctrl-C or the only source
                self.resumable = self._journal.discard()

    def opened(self, video: VideoReader) -> None:
        """Take note of a video that was opened; pass it to `Recognizer.stream` as `on_video`."""
        if video.live:
            self._live.add(video.name)
        if self._annotations is not None:
            self._annotations.opened(video)

    def done(self, source: str) -> bool:
        """Return whether the run that is resumed has read a source, which has not changed since."""
        return self._journal is not None and self._journal.done(source)

    def add(self, reading: Reading) -> None:
        """Write the next reading.

        If a drawing cannot be written, its source counts as a failure: its rows are kept, and a resumed run tries it again.

        Raises:
            OutputError: The table's journal cannot be written.
        """
        current = self._current
        if current is None or reading.number != current.number:
            self._end_source(complete=True)
            current = self._begin_source(reading)
        if reading.error is not None:
            self._fail(current, reading.error)
        else:
            self.read += 1
            current.faces += len(reading.predictions)
            if self._journal is not None:
                self._journal.add(reading_rows(reading, self.classes, self._all_frames))
            if self._events is not None:
                self._events.events.extend(reading_rows(reading, self.classes, all_frames=True))
            if current.is_video and reading.frame is not None:
                current.seen.add(reading.frame.time or 0.0, len(reading.predictions), reading.frame.damaged)
            self.summary.extend(reading.predictions)
            if current.timeline is not None:
                current.timeline.extend(reading.predictions)
            if self._annotations is not None and not current.failed:
                with self._drawing(current):
                    self._annotations.add(reading)
        if reading.error is not None or not current.is_video:
            self._end_source(complete=True)

    def _begin_source(self, reading: Reading) -> _Current:
        is_video = reading.frame is not None and reading.frame.index is not None
        plot = Timeline(self.classes, reading.source, self._max_gap) if is_video and self._timelines is not None else None
        self._current = current = _Current(reading.number, reading.source, is_video, plot)
        if is_video:
            self.summary.add_video(reading.source)
            if self._events is not None:
                self._events.events.add_video(reading.source)
        if self._journal is not None and reading.error is None:  # if it cannot be opened, rows of an earlier run are kept
            self._journal.begin(reading.source)
        return current

    def _end_source(self, complete: bool) -> None:
        current = self._current
        if current is None:
            return
        if self._annotations is not None:
            with self._drawing(current):
                self._annotations.end_source()
        if current.timeline is not None and self._timelines is not None:
            with self._drawing(current):
                self._timelines.create_folder()
                path = self._timelines.path(current.name)
                current.timeline.draw(path)
                self.written.append(path)
        if current.is_video:
            self.summary.add_video(current.name).seen = seen = current.seen.to_dict()
            self._videos.add(current.name)
            if self._journal is not None:
                self._journal.note_seen(seen)
        if current.is_video and not current.faces:
            self.videos_without_faces.append(current.name)
        if self._journal is not None and current.failed:
            self._journal.fail(current.name)
        elif self._journal is not None and (complete or current.name in self._live):  # a live stream cannot be read again
            self._journal.end()
        self._current = None

    @contextmanager
    def _drawing(self, current: _Current) -> Iterator[None]:
        """Count a drawing that cannot be written as a failure of its source, and draw no more of it."""
        try:
            yield
        except OutputError as error:
            self._fail(current, error)

    def _fail(self, current: _Current, error: MienError) -> None:
        self.failures.append((current.name, error))
        current.failed = True

    def _write(self, complete: bool) -> None:
        """Write the files that belong to all sources."""
        if self._annotations is not None:
            self.written = self._annotations.written + self.written
        if self._journal is not None and self._resume:  # the journal also contains what was read before this run
            self.summary = Summary(self.classes, self._max_gap)
            events = self._events.restart() if self._events is not None else None
            for source in self._sources:
                if source.kind in PLOTTED and (source.name in self._videos or self._journal.complete(source.name)):
                    video = self.summary.add_video(source.name)
                    video.seen = self._journal.seen(source.name) or video.seen
                    if events is not None:
                        gaps = (video.seen or {}).get("longest_gaps", ())  # a video may end with one
                        events.add_video(source.name).end = max((gap["start"] + gap["length"] for gap in gaps), default=0.0)
            self.summary.extend(self._journal.rows())
            if events is not None:
                events.extend(self._journal.rows())
        try:
            if self._journal is not None:
                complete = complete or all(self._journal.complete(source.name) for source in self._sources)
                self.resumable = self._journal.finish(complete, keep=self._keep_journal)
                self.written.insert(0, self._journal.table)
        finally:
            if self.targets.summary is not None:
                write_summary(self.targets.summary, self.summary)
                self.written.append(self.targets.summary)
            if self._events is not None:
                self.written += self._events.write()


def image_paths(target: Path, sources: Sequence[Source], earlier: Sequence[str] = ()) -> OutputPaths:
    """Return where the pictures and videos made from the sources are written; the arguments are those of `OutputPaths`.

    Raises:
        OutputError: See `OutputPaths`; or the target's ending is that of a picture and the source is a video, or the reverse.
    """
    paths = OutputPaths(target, sources, (*annotate.FORMATS, *CONTAINERS), ANNOTATED, earlier)
    for source in sources if paths.is_file else ():
        endings = annotate.FORMATS if source.kind == "picture" else CONTAINERS
        if source.kind != "error" and target.suffix.lower() not in endings:
            raise OutputError(f"{target}: {source.name} is written as one of {', '.join(endings)}; choose such an ending")
    return paths


class AnnotationWriter:
    """Writes the annotated pictures and videos of a run, source after source.

    `warnings` gets one line for each video whose sound was lost; the other arguments are those of `OutputPaths`.
    """

    def __init__(self, target: Path, sources: Sequence[Source], earlier: Sequence[str], warnings: list[str]) -> None:
        self.paths = image_paths(target, sources, earlier)
        self.written, self._warnings = list[Path](), warnings  # written: the files that are complete
        self._videos = {source.name: source.value for source in sources if source.kind == "video"}
        self._silent: dict[str, str] = {}  # "live" or "none": videos whose sound is not looked for, by name
        self._annotator = Annotator()
        self._video: VideoWriter | None = None
        self._path = target

    def opened(self, video: VideoReader) -> None:
        """Take note of a video that was opened, before its first frame."""
        if video.live or not video.sound:
            self._silent[video.name] = "live" if video.sound else "none"

    def add(self, reading: Reading) -> None:
        """Write a picture, or the next frame of a video.

        Raises:
            OutputError: The file cannot be written; nothing of it is left.
        """
        assert reading.frame is not None
        self.paths.create_folder()
        path = self.paths.path(reading.source)
        if reading.frame.index is None:
            write_picture(path, annotate.annotate(reading.frame.image, reading.predictions))
            self.written.append(path)
            return
        if self._video is None:
            silent = self._silent.get(reading.source)
            self._path, self._source = path, reading.source
            self._video = VideoWriter(path, like=None if silent else self._videos.get(reading.source))
            self._warn(silent)
        try:
            image = self._annotator.draw(reading.frame.image, reading.predictions)
            self._video.write(replace(reading.frame, image=image))
        except Exception:
            self._video.discard()
            self._video = None
            raise

    def end_source(self) -> None:
        """Finish the video being written, if there is one; it can be played up to its last frame."""
        video, self._video, self._annotator = self._video, None, Annotator()
        if video is not None:
            video.close()
            self.written.append(self._path)
            self._warn(video.sound)

    def _warn(self, sound: str | None) -> None:
        if sound in LOST_SOUND:
            self._warnings.append(f"{self._source}: {LOST_SOUND[sound]}")
