"""What a video comes to, for each person: time in each expression, changes, longest stretches, mean probabilities.

Time is counted between samples: an expression holds until the person's next sampled frame, unless that is more than `max_gap`
seconds away; the last frame before a gap or the end holds for no time. Samples go through one at a time, so memory grows with
the number of people and not with the length of the video.
"""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mien.atomic import atomic_path
from mien.errors import OutputError
from mien.runtime.table import Row, UnixLines, columns, csv_text, readable, row
from mien.structures import Prediction

if TYPE_CHECKING:
    from rich.table import Table

MAX_GAP = 1.5
"""Seconds between two samples of a person beyond which the time between them is not counted."""

FORMATS = (".json", ".csv")
"""Endings a summary may be written with."""

SHOWN = 8
"""People of a video that the terminal shows."""


class Stretch(NamedTuple):
    """An expression that held without a break, seconds."""

    start: float
    length: float


class _Tally:
    """Sums over faces: of one person, of all of a video, or of pictures."""

    def __init__(self, classes: int) -> None:
        self.faces = self.unsure = 0
        self.probs: NDArray[np.float64] = np.zeros(classes)
        self.counts = [0] * classes
        self.held = [0.0] * classes
        self.start: float | None = None
        self.end: float | None = None

    def see(self, label: int, probs: Sequence[float], unsure: bool, time: float | None) -> None:
        self.faces += 1
        self.unsure += unsure
        self.probs += probs
        self.counts[label] += 1
        if time is not None:
            self.start = time if self.start is None else min(self.start, time)
            self.end = time if self.end is None else max(self.end, time)

    def to_dict(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return faces, seconds, shares and means; shares go by time, or by faces where no time was counted."""
        seconds = sum(self.held)
        weights = [held / seconds for held in self.held] if seconds > 0 else [count / self.faces for count in self.counts]
        return {
            "start": self.start,
            "end": self.end,
            "seconds": round(seconds, 6),
            "faces": self.faces,
            "unsure": round(self.unsure / self.faces, 6),
            "share_of": "time" if seconds > 0 else "faces",
            "share": _by_class(classes, weights),
            "mean": _by_class(classes, self.probs / self.faces),
        }


class _Person(_Tally):
    """Sums over the samples of one person, in the order of time."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.changes: Counter[tuple[int, int]] = Counter()
        self.longest: list[Stretch | None] = [None] * classes
        self._last: tuple[float, int] | None = None
        self._run = Stretch(0.0, 0.0)

    def move(self, time: float, label: int, max_gap: float) -> None:
        """Take the next sample's time and expression."""
        before = None
        if self._last is not None and 0 <= time - self._last[0] <= max_gap:
            step, before = time - self._last[0], self._last[1]
            self.held[before] += step
            self._extend(before, Stretch(self._run.start, self._run.length + step))
        if before != label:
            if before is not None:
                self.changes[before, label] += 1
            self._extend(label, Stretch(time, 0.0))
        self._last = (time, label)

    def _extend(self, label: int, run: Stretch) -> None:
        self._run = run
        longest = self.longest[label]
        if longest is None or run.length > longest.length:
            self.longest[label] = run

    def to_dict(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return what the tally has, and what only one person has."""
        stretches = zip(classes, self.longest, strict=True)
        changes: dict[str, dict[str, int]] = {}
        for (before, after), times in sorted(self.changes.items()):
            changes.setdefault(classes[before], {})[classes[after]] = times
        return {
            **super().to_dict(classes),
            "longest": {
                name: run and {"start": round(run.start, 6), "length": round(run.length, 6)} for name, run in stretches
            },
            "changes": sum(self.changes.values()),
            "transitions": changes,
        }


class _Video(_Tally):
    """Sums over a video, and over each person in it; person None holds the faces that were not followed."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.people: dict[int | None, _Person] = {}
        self.frames = 0
        self._frame: tuple[int | None, float | None] | None = None

    def take(self, entry: Row, label: int, probs: Sequence[float], max_gap: float) -> None:
        track, time = entry["track"], entry["time"]
        person = self.people.setdefault(track, _Person(len(probs)))
        for tally in (self, person):
            tally.see(label, probs, entry["unsure"], time)
        if track is not None and time is not None:
            person.move(time, label, max_gap)
        if (entry["frame"], time) != self._frame:
            self._frame = (entry["frame"], time)
            self.frames += 1

    def to_dict(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return what the tally has, over all people."""
        self.held = [sum(held) for held in zip(*(person.held for person in self.people.values()), strict=True)]
        return super().to_dict(classes)


class Summary:
    """Adds up predictions, or the rows of a table, as they come.

    Args:
        classes: The model's classes, by output index.
        max_gap: Seconds between two samples of a person beyond which the time between them is not counted; choose at least
            twice the time between sampled frames.
    """

    def __init__(self, classes: Sequence[str], max_gap: float = MAX_GAP) -> None:
        self.classes, self.max_gap = tuple(classes), max_gap
        self._names = columns(classes)[-len(self.classes) :]
        self._index = {name: i for i, name in enumerate(self.classes)}
        self._videos: dict[str | None, _Video] = {}
        self._pictures = _Tally(len(self.classes))
        self._picture_count = 0
        self._picture: object = self  # no source is this

    def add(self, item: Prediction | Row) -> None:
        """Add one face; the faces of a person must come in the order of time."""
        entry = row(item) if isinstance(item, Prediction) else item
        label, probs = self._index[entry["label"]], [entry[name] for name in self._names]
        if entry["time"] is None and entry["frame"] is None:
            self._pictures.see(label, probs, entry["unsure"], None)
            self._picture_count += entry["source"] != self._picture
            self._picture = entry["source"]
            return
        video = self._videos.get(entry["source"])
        if video is None:
            video = self._videos[entry["source"]] = _Video(len(self.classes))
        video.take(entry, label, probs, self.max_gap)

    def extend(self, items: Iterable[Prediction | Row]) -> None:
        """Add many faces."""
        for item in items:
            self.add(item)

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as plain JSON types; `docs/tables.md` says what each name holds."""
        videos = [self._video(source, video) for source, video in self._videos.items()]
        pictures = None
        if self._pictures.faces:
            found = self._pictures.to_dict(self.classes)
            pictures = {"pictures": self._picture_count, **{key: found[key] for key in ("faces", "unsure", "share", "mean")}}
        return {"classes": list(self.classes), "max_gap": self.max_gap, "videos": videos, "pictures": pictures}

    def _video(self, source: str | None, video: _Video) -> dict[str, Any]:
        people = [{"track": track, **person.to_dict(self.classes)} for track, person in _sorted(video.people)]
        followed = sum(track is not None for track in video.people)
        total = {"source": readable(source), "frames": video.frames, "people": followed, **video.to_dict(self.classes)}
        return {**total, "by_person": people}


def _sorted(people: dict[int | None, _Person]) -> list[tuple[int | None, _Person]]:
    """Return people by their number, those not followed last."""
    return sorted(people.items(), key=lambda item: (item[0] is None, item[0] or 0))


def _by_class(classes: Sequence[str], values: Iterable[float]) -> dict[str, float]:
    return {name: round(float(value), 6) for name, value in zip(classes, values, strict=True)}


def write_summary(path: str | os.PathLike[str], summary: Summary) -> None:
    """Write a summary, whole or not at all: all of it as `.json`; as `.csv` a row a person, and one of the whole video.

    Raises:
        OutputError: The ending is unknown or the file cannot be written.
    """
    ending = Path(path).suffix.lower()
    if ending not in FORMATS:
        raise OutputError(f"{path}: a summary's name must end in {' or '.join(FORMATS)}; choose one of them")
    with atomic_path(path) as beside:
        if ending == ".json":
            text = json.dumps(summary.to_dict(), indent=1, ensure_ascii=False)
            beside.write_text(text + "\n", encoding="utf-8", newline="\n")
            return
        with beside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(UnixLines(file), summary_columns(summary.classes))
            writer.writeheader()
            writer.writerows(_lines(summary.to_dict()))


def summary_columns(classes: Sequence[str]) -> list[str]:
    """Return the names of the columns of a summary written as CSV.

    >>> summary_columns(["happy"])[-4:]
    ['share_happy', 'mean_happy', 'longest_happy_start', 'longest_happy_length']
    """
    each = ("share_{}", "mean_{}", "longest_{}_start", "longest_{}_length")
    head = ["source", "track", "start", "end", "seconds", "faces", "unsure", "share_of", "changes"]
    return head + [name.format(expression) for name in each for expression in classes]


def _lines(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a line a person and, as track `all`, one a video."""
    lines = []
    for video in summary["videos"]:
        changes = sum(person["changes"] for person in video["by_person"])
        for entry in (*video["by_person"], {**video, "track": "all", "changes": changes}):
            lines.append(_line(entry) | {"source": video["source"] and csv_text(video["source"])})
    return lines


def _line(entry: dict[str, Any]) -> dict[str, Any]:
    line = {key: entry[key] for key in ("track", "start", "end", "seconds", "faces", "unsure", "share_of", "changes")}
    for name, share in entry["share"].items():
        line |= {f"share_{name}": share, f"mean_{name}": entry["mean"][name]}
        if run := entry.get("longest", {}).get(name):
            line |= {f"longest_{name}_start": run["start"], f"longest_{name}_length": run["length"]}
    return line


def summary_table(summary: Summary, shown: int = SHOWN) -> Table:
    """Return a short table for the terminal: of each video the people seen longest, and the expressions they wore most."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.ROUNDED)
    for name, right in (("Video", 0), ("Person", 1), ("Seen", 1), ("Mostly", 0), ("Longest", 0), ("Changes", 1)):
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for video in summary.to_dict()["videos"]:
        people = sorted(video["by_person"], key=lambda person: (-person["seconds"], -person["faces"]))
        for i, person in enumerate(people[:shown]):
            last = i == min(shown, len(people)) - 1
            table.add_row(*_cells(video["source"] if i == 0 else "", person), end_section=last and len(people) <= shown)
        if len(people) > shown:
            table.add_row("", "", "", f"and {len(people) - shown} more", end_section=True)
    return table


def _cells(source: str | None, person: dict[str, Any]) -> list[Any]:
    from rich.text import Text

    most = sorted(person["share"].items(), key=lambda item: -item[1])[:3]
    runs = [(run["length"], run["start"], name) for name, run in person["longest"].items() if run and run["length"]]
    length, start, name = max(runs, default=(0.0, 0.0, ""))
    return [
        Text(source or ("in memory" if source is None else "")),  # a text, because a file name may hold [brackets]
        "all" if person["track"] is None else str(person["track"]),
        f"{person['seconds']:.1f} s" if person["seconds"] else f"{person['faces']} face{'s' * (person['faces'] > 1)}",
        Text(", ".join(f"{name} {share:.0%}" for name, share in most if share >= 0.005)),
        Text(f"{name} {length:.1f} s at {clock(start)}" if runs else ""),
        str(person["changes"]),
    ]


def clock(seconds: float) -> str:
    """Return a time as minutes and seconds, with hours where there are any.

    >>> clock(75), clock(3_725)
    ('1:15', '1:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
