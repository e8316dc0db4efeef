"""Expressions as events: who showed what from when to when, for CSV, ELAN, Praat, BORIS and BIDS.

`Events` turns the rows of a table, one at a time, into `Segment`s; memory grows with the segments, not with the frames.
`EventWriter` writes them: one file per video in a folder, or one file for all videos as `.csv` and `.boris`.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mien.atomic import check_outputs
from mien.errors import DataError, InputError, UnknownNameError, require
from mien.output.event_files import ENDINGS, FORMATS, TOGETHER, Segment, Video, check_target, sidecar, write_events
from mien.output.paths import OutputPaths, check_distinct
from mien.output.summary import MAX_SAMPLE_GAP
from mien.output.table import Row, columns
from mien.video.sources import Source

MIN_SECONDS = MERGE_GAP = 0.3
"""Shortest segment that is kept and longest interruption that is closed, seconds: the time constant of the default smoothing.
Faster changes come from the network more often than from the face."""

STEPS, STEP_GAP = 15, 2.5
"""A person was out of sight if the next frame is later than 2.5 usual steps; the usual step is the median of the last 15."""


@dataclass(frozen=True, slots=True)
class EventOptions:
    """How segments are made, and how they are written into a folder.

    Attributes:
        min_seconds: Segments shorter than this are left out.
        merge_gap: Two segments of one expression are joined if at most so many seconds are between them, and not more than the
            first one lasts. A short other expression between them then counts as part of the segment.
        kind: Format of the files in a folder, a key of `ENDINGS`.

    Raises:
        InputError: A time is negative or not finite.
        UnknownNameError: There is no such format.
    """

    min_seconds: float = MIN_SECONDS
    merge_gap: float = MERGE_GAP
    kind: str = "csv"

    def __post_init__(self) -> None:
        if not (0 <= self.min_seconds < math.inf and 0 <= self.merge_gap < math.inf):
            raise InputError(
                "the shortest segment and the gap to close must be 0 seconds or more, "
                f"got {self.min_seconds} and {self.merge_gap}"
            )
        if self.kind not in ENDINGS:
            raise UnknownNameError(f"there is no format of events called {self.kind!r}; choose one of {', '.join(ENDINGS)}")


def first_gap_of(rows: Iterable[Row]) -> float:
    """Return the longest time, in seconds, between the first two frames of a person in sight, from the first video's steps.

    Args:
        rows: The rows of a table, in its order; no more of them are taken than needed.
    """
    times: list[float] = []
    source = None
    for row in rows:
        if row["time"] is None or len(times) > STEPS or row["source"] != (source or row["source"]):
            break
        source = row["source"]
        if not times or row["time"] > times[-1]:
            times.append(row["time"])
    steps = np.diff(times)
    return max(MAX_SAMPLE_GAP, STEP_GAP * float(np.median(steps))) if len(steps) > 1 else MAX_SAMPLE_GAP


@dataclass(slots=True)
class _Run:
    """Successive frames of a person with the same most probable expression, a class index."""

    label: int
    start: float
    end: float
    probs: NDArray[np.float64]  # sums over the frames
    frames: int = 0

    def absorb(self, other: _Run) -> None:
        self.end = other.end
        self.probs = self.probs + other.probs
        self.frames += other.frames


@dataclass(slots=True)
class _Person:
    last: float  # time of the last frame
    run: _Run  # the current one
    finished: list[_Run] = field(default_factory=list)  # that may still be joined


class _Steps:
    """Says how long a person may be missing from the frames of a video and still count as in sight."""

    def __init__(self, first_gap: float) -> None:
        self._time: float | None = None  # of the last frame with a face
        self._steps = deque[float](maxlen=STEPS)
        self._first_gap = self._limit = first_gap

    def limit(self, time: float) -> float:
        """Return the longest time, in seconds, from a person's last frame to the one at this time."""
        if self._time is not None and time > self._time:
            self._limit = STEP_GAP * sorted(self._steps)[len(self._steps) // 2] if self._steps else self._first_gap
            self._steps.append(time - self._time)
        self._time = time
        return self._limit


class Events:
    """Turns the rows of a table into segments, one row at a time.

    Args:
        classes: The model's classes, by output index.
        options: How segments are made.
        first_gap: See `EventWriter`.
    """

    def __init__(self, classes: Sequence[str], options: EventOptions | None = None, first_gap: float = MAX_SAMPLE_GAP) -> None:
        self.classes, self.options, self.first_gap = tuple(classes), options or EventOptions(), first_gap
        columns(classes)  # raises the error of a class that cannot be a column
        self._index = {name: i for i, name in enumerate(self.classes)}
        self._videos: dict[str, Video] = {}
        self._steps: dict[str, _Steps] = {}
        self._people: dict[tuple[str, int], _Person] = {}

    def add_video(self, source: str) -> Video:
        """Return a video, which is written from now on, even if it has no segment."""
        return self._videos.setdefault(source, Video(source))

    def add(self, entry: Row) -> None:
        """Add a row, in order of time within its video; rows of pictures are ignored."""
        source, time, track = entry["source"], entry["time"], entry["track"]
        if time is None:
            return
        video = self.add_video(source)
        video.end = max(video.end, time)
        if entry["label"] is None or track is None:
            return
        label, probs = self._index[entry["label"]], np.array([entry[name] for name in self.classes])
        limit = max(self._steps.setdefault(source, _Steps(self.first_gap)).limit(time), self.options.merge_gap)
        person = self._people.get((source, track))
        if person is None:
            person = self._people[source, track] = _Person(time, _Run(label, time, time, np.zeros(len(probs))))
        in_sight = time - person.last <= limit
        if in_sight:
            person.run.end = time  # an expression lasts until the next frame
        if not in_sight or person.run.label != label:
            person.finished.append(person.run)
            self._settle(video, track, person.finished)
            person.run = _Run(label, time, time, np.zeros(len(probs)))
        person.run.probs += probs
        person.run.frames += 1
        person.last = time

    def extend(self, entries: Iterable[Row]) -> None:
        """Add many rows."""
        for entry in entries:
            self.add(entry)

    def finish(self) -> list[Video]:
        """Return the videos with all their segments, in order of time; nothing more can be added."""
        for (source, track), person in self._people.items():
            self._settle(self._videos[source], track, [*person.finished, person.run], last=True)
        self._people.clear()
        for video in self._videos.values():
            video.segments.sort(key=lambda segment: (segment.start, segment.person))
        return list(self._videos.values())

    def _settle(self, video: Video, track: int, runs: list[_Run], last: bool = False) -> None:
        """Join runs, and turn those that no later run can join into segments, if they are long enough."""
        while runs:
            first = runs[0]
            reach = first.end + min(self.options.merge_gap, first.end - first.start) + 1e-9
            found = next((i for i, run in enumerate(runs) if i and run.label == first.label and run.start <= reach), None)
            if found is not None:
                for run in runs[1 : found + 1]:
                    first.absorb(run)
                del runs[1 : found + 1]
            elif last or runs[-1].end > reach:
                del runs[0]
                if first.end - first.start >= max(self.options.min_seconds, 1e-3) - 1e-9:  # ELAN counts milliseconds
                    mean = round(float(first.probs[first.label]) / first.frames, 6)
                    label = self.classes[first.label]
                    video.segments.append(Segment(video.name, track, first.start, first.end, label, mean, first.frames))
            else:
                return


class EventWriter:
    """Writes the events of a run; give the rows to its attribute `events`.

    Args:
        target: A file, whose ending names the format, or a folder with one file per video.
        classes: The model's classes, by output index.
        options: How segments are made and, in a folder, written.
        sources: What the run reads; None if only the rows say that, as for a table.
        earlier: See `OutputPaths`.
        others: Files that the events must not replace: what else the run reads or writes.
        first_gap: Seconds that a person may be missing between the first two frames with a face, when no other step is known.

    Raises:
        OutputError: See `OutputPaths` and `check_distinct`; or a file for BIDS does not end in `_events.tsv`.
        MissingExtraError: The format needs pympi-ling, which is not installed.
    """

    def __init__(
        self,
        target: Path,
        classes: Sequence[str],
        options: EventOptions | None = None,
        sources: Sequence[Source] | None = None,
        earlier: Sequence[str] = (),
        others: Sequence[str | os.PathLike[str] | None] = (),
        first_gap: float = MAX_SAMPLE_GAP,
    ) -> None:
        self.events = Events(classes, options, first_gap)
        self._target, self._earlier, self._others = target, earlier, others
        self._ending = target.suffix.lower() if check_target(target) else ENDINGS[self.events.options.kind]
        if self._ending.lower() in (".eaf", ".textgrid"):
            require("pympi", "events")
        self._paths = None if sources is None else self._output_paths(sources)

    def _output_paths(self, sources: Sequence[Source]) -> OutputPaths:
        kinds = dict.fromkeys(("video", "live"), self._ending)
        if self._ending in TOGETHER and check_target(self._target):  # it is no obstacle that there are several
            first = next((source for source in sources if source.kind in kinds), None)
            sources = [source for source in sources if source.kind not in kinds or source is first]
        if self._ending == ".tsv":
            check_outputs([sidecar(self._target)], [source.name for source in sources])
        paths = OutputPaths(self._target, sources, FORMATS, kinds, self._earlier)
        files = paths.files
        check_distinct([*files, *(sidecar(file) for file in files if file.suffix.lower() == ".tsv")], self._others)
        return paths

    def restart(self) -> Events:
        """Forget the segments so far, and return the new object to give the rows."""
        self.events = Events(self.events.classes, self.events.options, self.events.first_gap)
        return self.events

    def write(self) -> list[Path]:
        """Write the events of the rows so far, and return the files; raise a `DataError` if a table has no video."""
        videos, classes = self.events.finish(), self.events.classes
        if not videos and self._paths is None:
            raise DataError("the table has no row of a video, so there are no events")
        paths = self._paths or self._output_paths([Source(video.name, "video") for video in videos])
        paths.create_folder()
        if paths.is_file and self._ending in TOGETHER:
            return write_events(self._target, videos, classes)
        return [path for video in videos for path in write_events(paths.path(video.name), [video], classes)]
