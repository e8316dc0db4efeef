"""What each person of a video showed: time in each expression, changes, longest stretches, mean probabilities.

It also says in how many of the frames there was a face at all, and when there was none.

Time is counted between samples: an expression lasts until the person's next sampled frame, unless that is more than `max_gap`
seconds away. A person's last frame before such a gap, or before the end, counts for no time. Samples pass through one at a
time, so memory grows with the number of people, not with the length of the video.
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mien.atomic import atomic_path
from mien.output.table import Row, check_ending, columns, row, write_csv
from mien.structures import Prediction
from mien.text import escape_invalid_utf8

MAX_SAMPLE_GAP = 1.5
"""Seconds between two samples of a person beyond which nothing is known of the time between: above 1, so that `--fps 1` counts.

`mien.predict.smoothing` has a shorter limit of its own, after which it forgets a person.
"""


def max_sample_gap(fps: float | None) -> float:
    """Return the limit in seconds for videos of which `fps` frames a second are read; None reads all."""
    return max(MAX_SAMPLE_GAP, 2.5 / fps) if fps else MAX_SAMPLE_GAP


LONGEST_GAPS = 20
"""Stretches without a face that a summary lists, the longest."""

FORMATS = (".json", ".csv")
"""File endings of a summary."""


class Stretch(NamedTuple):
    """A time during which a person showed one expression without a break, in seconds."""

    start: float
    length: float


class Seen:
    """Counts the frames of a video: all, those with a face, and those that are damaged.

    A gap is a stretch of frames without a face. It lasts from its first frame to the next with a face, or to the last one.
    """

    def __init__(self) -> None:
        self.frames = self.with_face = self.damaged = self.gaps = 0
        self.gap_seconds = 0.0
        self.longest: list[Stretch] = []
        self._gap: Stretch | None = None  # the current one

    def add(self, time: float, faces: int, damaged: bool = False) -> None:
        """Add the next frame: its time in seconds and its number of faces."""
        self.frames += 1
        self.with_face += faces > 0
        self.damaged += damaged
        if self._gap is not None:
            self._gap = self._gap._replace(length=max(0.0, time - self._gap.start))
        if faces:
            self.end()
        elif self._gap is None:
            self._gap = Stretch(time, 0.0)

    def end(self) -> None:
        """End the current gap, if there is one."""
        if self._gap is not None:
            self.gaps += 1
            self.gap_seconds += self._gap.length
            self.longest = sorted([*self.longest, self._gap], key=lambda gap: -gap.length)[:LONGEST_GAPS]
            self._gap = None

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as JSON types."""
        self.end()
        return {
            "frames_read": self.frames,
            "frames_damaged": self.damaged,
            "detection_rate": round(self.with_face / self.frames, 6) if self.frames else None,
            "gaps": self.gaps,
            "gap_seconds": round(self.gap_seconds, 6),
            "longest_gaps": [{"start": round(gap.start, 6), "length": round(gap.length, 6)} for gap in sorted(self.longest)],
        }


class Totals:
    """Sums over faces: of a person, of a video, or of all pictures."""

    def __init__(self, num_classes: int) -> None:
        self.faces = self.unsure = 0
        self.probs: NDArray[np.float64] = np.zeros(num_classes)
        self.counts = [0] * num_classes
        self.seconds = [0.0] * num_classes  # time counted for each class
        self.start: float | None = None
        self.end: float | None = None

    def add_face(self, label: int, probs: Sequence[float], unsure: bool, time: float | None) -> None:
        """Add a face: its class index, probabilities, whether it is unsure, and its time in seconds."""
        self.faces += 1
        self.unsure += unsure
        self.probs += probs
        self.counts[label] += 1
        if time is not None:
            self.start = time if self.start is None else min(self.start, time)
            self.end = time if self.end is None else max(self.end, time)

    def to_dict(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return the sums; shares are of the time, or of the faces where no time was counted."""
        seconds, faces = sum(self.seconds), max(self.faces, 1)
        shares = [each / seconds for each in self.seconds] if seconds > 0 else [count / faces for count in self.counts]
        return {
            "start": self.start,
            "end": self.end,
            "seconds": round(seconds, 6),
            "faces": self.faces,
            "unsure": round(self.unsure / faces, 6),
            "share_of": "time" if seconds > 0 else "faces",
            "share": _by_class(classes, shares),
            "mean": _by_class(classes, self.probs / faces),
        }


class PersonTotals(Totals):
    """Sums over the samples of one person, in order of time."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.transitions: Counter[tuple[int, int]] = Counter()
        self.longest: list[Stretch | None] = [None] * num_classes
        self._last: tuple[float, int] | None = None
        self._stretch = Stretch(0.0, 0.0)

    def add_sample(self, time: float, label: int, max_gap: float) -> None:
        """Count the time since the person's last sample, which shows whether the expression changed."""
        before = None
        if self._last is not None and 0 <= time - self._last[0] <= max_gap:
            step, before = time - self._last[0], self._last[1]
            self.seconds[before] += step
            self._keep_longest(before, Stretch(self._stretch.start, self._stretch.length + step))
        if before != label:
            if before is not None:
                self.transitions[before, label] += 1
            self._keep_longest(label, Stretch(time, 0.0))
        self._last = (time, label)

    def _keep_longest(self, label: int, stretch: Stretch) -> None:
        self._stretch = stretch
        longest = self.longest[label]
        if longest is None or stretch.length > longest.length:
            self.longest[label] = stretch

    def to_dict(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return the sums, the longest stretches and the changes of expression."""
        transitions: dict[str, dict[str, int]] = {}
        for (before, after), times in sorted(self.transitions.items()):
            transitions.setdefault(classes[before], {})[classes[after]] = times
        return {
            **super().to_dict(classes),
            "longest": {
                name: stretch and {"start": round(stretch.start, 6), "length": round(stretch.length, 6)}
                for name, stretch in zip(classes, self.longest, strict=True)
            },
            "changes": sum(self.transitions.values()),
            "transitions": transitions,
        }


class VideoTotals(Totals):
    """Sums over a video and over each person in it; person None holds the faces that were not followed."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.people: dict[int | None, PersonTotals] = defaultdict(lambda: PersonTotals(num_classes))
        self.frames = 0
        self.seen: dict[str, Any] = dict.fromkeys(Seen().to_dict())  # unknown, unless every frame was counted
        self._frame: tuple[int | None, float | None] | None = None

    def add(self, entry: Row, label: int, probs: Sequence[float], max_gap: float) -> None:
        """Add a face: its row, class index and probabilities."""
        track, time = entry["track"], entry["time"]
        person = self.people[track]
        for totals in (self, person):
            totals.add_face(label, probs, entry["unsure"], time)
        if track is not None and time is not None:
            person.add_sample(time, label, max_gap)
        if (entry["frame"], time) != self._frame:
            self._frame = (entry["frame"], time)
            self.frames += 1

    def to_dict(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return the sums, those of the whole video first."""
        if self.people:
            self.seconds = [sum(each) for each in zip(*(person.seconds for person in self.people.values()), strict=True)]
        people = sorted(self.people.items(), key=lambda item: (item[0] is None, item[0] or 0))  # those not followed last
        return {
            **{name: self.seen[name] for name in ("frames_read", "frames_damaged")},
            "frames": self.frames,
            **{name: self.seen[name] for name in ("detection_rate", "gaps", "gap_seconds", "longest_gaps")},
            "people": sum(track is not None for track in self.people),
            **super().to_dict(classes),
            "by_person": [{"track": track, **person.to_dict(classes)} for track, person in people],
        }


def _by_class(classes: Sequence[str], values: Iterable[float]) -> dict[str, float]:
    return {name: round(float(value), 6) for name, value in zip(classes, values, strict=True)}


class Summary:
    """Adds up predictions, or the rows of a table, one at a time.

    Args:
        classes: The model's classes, by output index.
        max_gap: Seconds between two samples of a person beyond which the time between them is not counted. Choose at least
            twice the time between sampled frames.
    """

    def __init__(self, classes: Sequence[str], max_gap: float = MAX_SAMPLE_GAP) -> None:
        self.classes, self.max_gap = tuple(classes), max_gap
        columns(classes)  # raises the error of a class that cannot be a column
        self._index = {name: i for i, name in enumerate(self.classes)}
        self._videos: dict[str | None, VideoTotals] = defaultdict(lambda: VideoTotals(len(self.classes)))
        self._pictures = Totals(len(self.classes))
        self._picture_count = 0
        self._last_picture: object = object()  # equal to no source

    def add(self, item: Prediction | Row) -> None:
        """Add one face; the faces of a person must come in order of time."""
        entry = row(item) if isinstance(item, Prediction) else item
        if entry["label"] is None:  # a frame without a face
            self.add_video(entry["source"])
            return
        label, probs = self._index[entry["label"]], [entry[name] for name in self.classes]
        if entry["time"] is None and entry["frame"] is None:
            self._pictures.add_face(label, probs, entry["unsure"], None)
            self._picture_count += entry["source"] != self._last_picture
            self._last_picture = entry["source"]
        else:
            self.add_video(entry["source"]).add(entry, label, probs, self.max_gap)

    def add_video(self, source: str | None) -> VideoTotals:
        """Return the totals of a video, which appears in the summary from now on, even if nobody is found in it."""
        return self._videos[source]

    def extend(self, items: Iterable[Prediction | Row]) -> None:
        """Add many faces."""
        for item in items:
            self.add(item)

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as plain JSON types; `docs/tables.md` describes each name."""
        videos = [
            {"source": escape_invalid_utf8(source), **video.to_dict(self.classes)} for source, video in self._videos.items()
        ]
        pictures = None
        if self._pictures.faces:
            totals = self._pictures.to_dict(self.classes)
            pictures = {"pictures": self._picture_count, **{key: totals[key] for key in ("faces", "unsure", "share", "mean")}}
        return {"classes": list(self.classes), "max_gap": self.max_gap, "videos": videos, "pictures": pictures}


def write_summary(path: str | os.PathLike[str], summary: Summary) -> None:
    """Write a summary, completely or not at all: `.json` holds all of it, `.csv` one row per person and per video.

    Raises:
        OutputError: The ending is unknown or the file cannot be written.
    """
    ending = check_ending(path, "summary", FORMATS)
    with atomic_path(path) as tmp_path:
        if ending == ".json":
            text = json.dumps(summary.to_dict(), indent=1, ensure_ascii=False)
            tmp_path.write_text(text + "\n", encoding="utf-8", newline="\n")
        else:
            header = summary_columns(summary.classes)
            write_csv(tmp_path, header, ([line.get(name) for name in header] for line in _csv_rows(summary.to_dict())))


def summary_columns(classes: Sequence[str]) -> list[str]:
    """Return the column names of a summary written as CSV.

    >>> summary_columns(["happy"])[-4:]
    ['share_happy', 'mean_happy', 'longest_happy_start', 'longest_happy_length']
    """
    per_class = ("share_{}", "mean_{}", "longest_{}_start", "longest_{}_length")
    return ["source", *_PERSON_COLUMNS, *_VIDEO_COLUMNS, *(pattern.format(name) for pattern in per_class for name in classes)]


_PERSON_COLUMNS = ("track", "start", "end", "seconds", "faces", "unsure", "share_of", "changes")
_VIDEO_COLUMNS = ("frames_read", "frames_damaged", "frames", "detection_rate", "gaps", "gap_seconds")


def _csv_rows(summary: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """Yield a row for each person and, with track `all`, one for each video."""
    for video in summary["videos"]:
        changes = sum(person["changes"] for person in video["by_person"])
        for entry in (*video["by_person"], {**video, "track": "all", "changes": changes}):
            cells = {"source": video["source"], **{name: entry[name] for name in _PERSON_COLUMNS}}
            cells |= {name: entry.get(name) for name in _VIDEO_COLUMNS}
            for name, share in entry["share"].items():
                cells |= {f"share_{name}": share, f"mean_{name}": entry["mean"][name]}
                if stretch := entry.get("longest", {}).get(name):
                    cells |= {f"longest_{name}_start": stretch["start"], f"longest_{name}_length": stretch["length"]}
            yield cells


def format_time(seconds: float) -> str:
    """Return a time in minutes and seconds, with hours if there are any.

    >>> format_time(75), format_time(3_725)
    ('1:15', '1:02:05')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
