"""What each person showed in each stimulus window of a table that `mien predict` wrote, and the change from a baseline.

`read_windows` reads the windows, and `WindowTable` adds up the rows of the table as they pass. So memory grows with the windows
and people, not with the frames.
"""

from __future__ import annotations

import math
import os
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.atomic import atomic_path
from mien.errors import DataError, InputError, LabelError, OutputError, reason
from mien.output.read_table import csv_rows, number_in
from mien.output.summary import MAX_SAMPLE_GAP
from mien.output.table import Row, write_csv

NEUTRAL, STRETCH = "neutral", 5.0
"""The baseline that is found is the stretch of so many seconds with the highest mean probability of this expression."""


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a video, such as the time in which a stimulus was shown."""

    name: str
    start: float  # seconds
    end: float  # seconds; a frame at this time is not in it
    source: str | None = None  # the video as the table names it, or its file name; None for every video
    person: int | None = None  # track number; None for everybody
    extra: dict[str, str] = field(default_factory=dict)  # other columns of the file, which are copied

    def concerns(self, source: str) -> bool:
        """Return whether it is a part of this video."""
        return self.source in (None, source, Path(source).name)


def read_windows(path: str | os.PathLike[str]) -> list[Window]:
    """Return the windows of a CSV file with the columns `name`, `start`, `end` and, if wanted, `source`, `person` and others.

    Raises:
        DataError: It cannot be read, lacks a column, or has no window; or a window ends before it starts
            or has the name of another.
    """
    try:
        entries = list(csv_rows(Path(path)))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({reason(error)}); check the path") from None
    if not entries:
        raise DataError(f"{path}: has no window; write a header name,start,end and a line for each window")
    for name in ("name", "start", "end"):
        if name not in entries[0]:
            found = ", ".join(map(str, entries[0]))
            raise DataError(f"{path}: has no column {name} (found: {found}); it needs name, start and end, separated by commas")
    windows: list[Window] = []
    seen: dict[tuple[str, str | None, int | None], int] = {}
    for number, entry in enumerate(entries, 2):
        where = f"{path}: line {number}"
        try:
            start, end, person = (number_in(entry.get(name)) for name in ("start", "end", "person"))
            if start is None or end is None or not math.isfinite(start) or not math.isfinite(end):
                raise ValueError
        except ValueError:
            raise DataError(f"{where}: start and end must be seconds, and person a number, such as 12.5,14,1") from None
        if not 0 <= start < end:
            raise DataError(f"{where}: the window {entry['name']!r} must end after it starts, got {start:g} to {end:g} s")
        extra = {key: value for key, value in entry.items() if key not in ("name", "start", "end", "source", "person")}
        if None in extra:
            raise DataError(f"{where}: has more cells than the header; put texts with commas into quotes")
        who = None if person is None else int(person)
        window = Window(entry["name"], start, end, entry.get("source") or None, who, extra)
        key = (window.name, window.source, window.person)
        if key in seen or not window.name:
            other = f"has the name of line {seen[key]}" if key in seen else "has no name"
            raise DataError(f"{where}: the window {window.name!r} {other}; give each window of a video a name of its own")
        seen[key] = number
        windows.append(window)
    return windows


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a person's expressions are compared with: a window, a time, or else the most neutral `STRETCH` seconds."""

    window: str | None = None  # its name
    seconds: tuple[float, float] | None = None  # start and end

    def __post_init__(self) -> None:
        if self.seconds is not None and not 0 <= self.seconds[0] < self.seconds[1] < math.inf:
            raise InputError(f"the baseline must end after it starts, got {self.seconds[0]:g} to {self.seconds[1]:g} s")


class _Frames:
    """The frames of a video that have a row: the times of the first and the last, and the steps between frame numbers."""

    def __init__(self, time: float) -> None:
        self.first, self.last = time, -math.inf
        self._number: float | None = None
        self._min_step, self._max_step = math.inf, 0.0

    def add(self, time: float, number: float | None) -> bool:
        """Add a row; return whether it is of another frame than the row before."""
        if time == self.last:
            return False
        if self.last >= self.first:
            step = math.inf if number is None or self._number is None else number - self._number
            self._min_step, self._max_step = min(self._min_step, step), max(self._max_step, step)
        self.last, self._number = time, number
        return True

    def has_all(self, window: Window) -> bool:
        """Return whether every frame of a window has a row: no number is missing between the first and the last."""
        inside = self.first <= window.start and window.end <= self.last + MAX_SAMPLE_GAP
        return inside and self._max_step < 2 * self._min_step < math.inf


class _Sums:
    """What one person showed in one window."""

    def __init__(self, num_classes: int) -> None:
        self.frames = 0
        self.probs, self.peak = np.zeros(num_classes), np.full(num_classes, -1.0)
        self.counts = np.zeros(num_classes, int)
        self.first, self.peak_time = np.full(num_classes, np.nan), np.full(num_classes, np.nan)

    def add(self, time: float, label: int, probs: NDArray[np.float64]) -> None:
        self.frames += 1
        self.probs += probs
        if not self.counts[label]:
            self.first[label] = time
        self.counts[label] += 1
        higher = probs > self.peak
        self.peak[higher], self.peak_time[higher] = probs[higher], time


class _Stretch:
    """The stretch of `STRETCH` seconds of one person in which one class had the highest mean probability."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._frames: deque[tuple[float, NDArray[np.float64]]] = deque()
        self._sums: NDArray[np.float64] | float = 0.0
        self.best: tuple[float, float, NDArray[np.float64]] | None = None  # start, end, mean probabilities

    def add(self, time: float, probs: NDArray[np.float64]) -> None:
        if self._frames and time - self._frames[-1][0] > MAX_SAMPLE_GAP:  # the person was out of sight
            self._frames.clear()
            self._sums = 0.0
        self._frames.append((time, probs))
        self._sums = self._sums + probs
        while time - self._frames[0][0] >= STRETCH - 1e-6:
            self._sums = self._sums - self._frames.popleft()[1]
        start, count = self._frames[0][0], len(self._frames)
        step = (time - start) / max(count - 1, 1)
        if time - start + step >= STRETCH - 1e-6:
            mean = self._sums / count
            if self.best is None or mean[self._index] > self.best[2][self._index] + 1e-9:
                self.best = start, time + step, mean


class WindowTable:
    """Adds up the rows of a table by window and person.

    Args:
        classes: The expressions.
        windows: The windows.
        baseline: What to compare with; None for no comparison.

    Attributes:
        notes: After `rows`: what the user should know, one line each.

    Raises:
        DataError: No window has the baseline's name, or a column of the windows has the name of one of the result.
        LabelError: The baseline is to be found, and there is no class `neutral`.
    """

    def __init__(self, classes: Sequence[str], windows: Sequence[Window], baseline: Baseline | None = None) -> None:
        self.classes, self.windows, self.baseline = tuple(classes), list(windows), baseline
        self._index = {name: i for i, name in enumerate(classes)}
        self._finds_baseline = baseline is not None and baseline.window is None and baseline.seconds is None
        if self._finds_baseline and NEUTRAL not in self._index:
            raise LabelError(f"there is no expression {NEUTRAL} to find a baseline by; name a window with --baseline")
        if baseline is not None and baseline.window is not None and baseline.window not in {w.name for w in windows}:
            raise DataError(f"no window is called {baseline.window}; --baseline takes one of {_few(w.name for w in windows)}")
        if baseline is not None and baseline.seconds is not None:
            self.windows.append(Window("", *baseline.seconds))
        extra = list(windows[0].extra) if windows else []
        self.columns = [*("source", "person", "window", "start", "end"), *extra, "frames", "frames_read", "detection_rate"]
        for pattern in ("share_{}", "mean_{}", "peak_{}", "latency_{}", "peak_latency_{}"):
            self.columns += [pattern.format(name) for name in classes]
        if baseline is not None:
            self.columns += ["baseline_start", "baseline_end", *(f"change_{name}" for name in classes)]
        if len({*self.columns}) < len(self.columns):
            double = next(name for name in extra if self.columns.count(name) > 1)
            raise DataError(f"the windows have a column {double}, which the result has too; rename it")
        self.notes: list[str] = []
        self._bounds = np.array([(window.start, window.end) for window in self.windows])
        self._people: dict[str, set[int]] = {}  # by source
        self._windows_of: dict[str, NDArray[np.intp]] = {}  # by source: indices of its windows
        self._frames: dict[str, _Frames] = {}  # by source
        self._frames_read: Counter[tuple[str, int]] = Counter()  # by source and window
        self._sums: dict[tuple[str, int, int | None], _Sums] = defaultdict(lambda: _Sums(len(classes)))  # and by person
        self._stretches: dict[tuple[str, int | None], _Stretch] = {}  # by source and person
        self._all_frames = False

    def add(self, entry: Row) -> None:
        """Add a row of `read_rows`; rows of pictures are ignored."""
        source, time, track = entry["source"], entry["time"], entry["track"]
        if time is None:
            return
        if source not in self._people:
            own = [number for number, window in enumerate(self.windows) if window.concerns(source)]
            self._windows_of[source], self._people[source], self._frames[source] = np.array(own, np.intp), set(), _Frames(time)
        windows = self._windows_of[source]
        now = windows[(self._bounds[windows, 0] <= time) & (time < self._bounds[windows, 1])].tolist()
        if self._frames[source].add(time, entry.get("frame")):
            self._frames_read.update((source, number) for number in now)
        if entry["label"] is None:
            self._all_frames = True
            return
        self._people[source].add(track)
        label, probs = self._index[entry["label"]], np.array([entry[name] for name in self.classes])
        for number in now:
            self._sums[source, number, track].add(time, label, probs)
        if self._finds_baseline:
            self._stretches.setdefault((source, track), _Stretch(self._index[NEUTRAL])).add(time, probs)

    def extend(self, entries: Iterable[Row]) -> None:
        """Add many rows."""
        for entry in entries:
            self.add(entry)

    def rows(self, all_frames: bool = False) -> list[dict[str, Any]]:
        """Return a row per window and person, by column name; an empty cell is None.

        Args:
            all_frames: The table has a row for each frame, as `Table.all_frames` says. A row without a face says so too.

        Raises:
            DataError: The table has no video; a window is outside its video, or of a video or person that is not in the table.
        """
        complete = all_frames or self._all_frames
        self._check(complete)
        lines, without, unknown = [], 0, 0
        for source, people in self._people.items():
            for number in self._windows_of[source].tolist():
                window = self.windows[number]
                if self.baseline is not None and self.baseline.seconds is not None and number == len(self.windows) - 1:
                    continue  # the baseline itself
                everybody: list[int | None] = [*sorted(people)] or [None]  # a video without a face has a row too
                for person in everybody if window.person is None else [window.person]:
                    sums = self._sums[source, number, person]
                    line = {"source": source, "person": person, "window": window.name, "start": window.start}
                    line |= {"end": window.end, **window.extra, "frames": sums.frames, **self._measures(sums, window.start)}
                    if complete or self._frames[source].has_all(window):
                        read = self._frames_read[source, number]
                        line |= {"frames_read": read, "detection_rate": round(sums.frames / read, 6) if read else None}
                    unknown += line.get("frames_read") is None
                    if self.baseline is not None:
                        change = self._change(source, person, sums)
                        without += not change
                        line |= change
                    lines.append({name: line.get(name) for name in self.columns})
        if unknown:
            self.notes.append(
                f"detection_rate is empty in {unknown:,} of {len(lines):,} rows: the table does not have every frame; write it "
                "with mien predict --all-frames"
            )
        if without:
            self.notes.append(
                f"change_ is empty in {without:,} of {len(lines):,} rows: the person is not seen in a baseline or in the window"
            )
        return lines

    def _check(self, complete: bool) -> None:
        if not self._people:
            raise DataError("the table has no row of a video; windows and events are parts of videos")
        for window in self.windows:
            videos = [source for source in self._people if window.concerns(source)]
            if window.source is not None and len(videos) != 1:
                what = f"several videos ({_few(videos)})" if videos else f"none of the table's videos ({_few(self._people)})"
                raise DataError(
                    f"the window {window.name!r} is of {window.source}, which is {what}; write the path as in the table"
                )
            for source in videos:
                last = self._frames[source].last
                if window.start > last or (complete and window.end > last + MAX_SAMPLE_GAP):
                    advice = "" if complete else "; if the video is longer, write the table with --all-frames"
                    raise DataError(
                        f"the window {window.name or 'of the baseline'!r}, {window.start:g} to {window.end:g} s, is outside "
                        f"{source}, whose last row is at {last:g} s; check the times, in seconds{advice}"
                    )
                if window.person is not None and window.person not in self._people[source]:
                    people = _few(map(str, sorted(self._people[source]))) or "nobody"
                    raise DataError(f"the window {window.name!r} is of person {window.person}, but {source} has {people}")

    def _measures(self, sums: _Sums, start: float) -> dict[str, float | None]:
        if not sums.frames:
            return {}
        columns = {
            "share": sums.counts / sums.frames,
            "mean": sums.probs / sums.frames,
            "peak": sums.peak,
            "latency": sums.first - start,
            "peak_latency": sums.peak_time - start,
        }
        return {
            f"{what}_{name}": _cell(v) for what, values in columns.items() for name, v in zip(self.classes, values, strict=True)
        }

    def _change(self, source: str, person: int | None, sums: _Sums) -> dict[str, float | None]:
        """Return the baseline's time and the change of the mean probabilities from it; nothing if one of the two is unknown."""
        assert self.baseline is not None
        found: tuple[float, float, NDArray[np.float64]] | None = None
        if stretch := self._stretches.get((source, person)):
            found = stretch.best
        for number in () if self._finds_baseline else self._windows_of[source].tolist():
            window, other = self.windows[number], self._sums[source, number, person]
            if window.name == (self.baseline.window or "") and window.person in (None, person) and other.frames:
                found = window.start, window.end, other.probs / other.frames
        if found is None or not sums.frames:
            return {}
        start, end, baseline = found
        changes = sums.probs / sums.frames - baseline
        change = {f"change_{name}": _cell(v) for name, v in zip(self.classes, changes, strict=True)}
        return {"baseline_start": _cell(start), "baseline_end": _cell(end), **change}


def write_window_table(path: str | os.PathLike[str], table: WindowTable, all_frames: bool = False) -> int:
    """Write a `WindowTable` as CSV, completely or not at all, and return its number of rows.

    Raises:
        DataError: See `WindowTable.rows`.
        OutputError: The ending is not `.csv` or the file cannot be written.
    """
    check_window_table(path)
    lines = table.rows(all_frames)
    with atomic_path(path) as tmp_path:
        write_csv(tmp_path, table.columns, (line.values() for line in lines))
    return len(lines)


def check_window_table(path: str | os.PathLike[str]) -> None:
    """Raise an `OutputError` if the ending is not `.csv`."""
    if Path(path).suffix.lower() != ".csv":
        raise OutputError(f"{path}: the table of windows is written as CSV; end its name in .csv")


def _cell(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 6) + 0.0


def _few(names: Iterable[str], count: int = 5) -> str:
    listed = list(dict.fromkeys(names))
    return ", ".join(listed[:count]) + (f" and {len(listed) - count} more" if len(listed) > count else "")
