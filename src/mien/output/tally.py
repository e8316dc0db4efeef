"""Sums over faces as they come: of a person, a video, or pictures. `mien.output.summary` says how time is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mien.output.columns import Row


class Stretch(NamedTuple):
    """An expression that held without a break, seconds."""

    start: float
    length: float


class Tally:
    """Sums over faces: of one person, of all of a video, or of pictures."""

    def __init__(self, classes: int) -> None:
        self.faces = self.unsure = 0
        self.probs: NDArray[np.float64] = np.zeros(classes)
        self.counts = [0] * classes
        self.held = [0.0] * classes
        self.start: float | None = None
        self.end: float | None = None

    def see(self, label: int, probs: Sequence[float], unsure: bool, time: float | None) -> None:
        """Take a face: index of its expression, probabilities, doubt, and its time, s."""
        self.faces += 1
        self.unsure += unsure
        self.probs += probs
        self.counts[label] += 1
        if time is not None:
            self.start = time if self.start is None else min(self.start, time)
            self.end = time if self.end is None else max(self.end, time)

    def to_dict(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return faces, seconds, shares and means; shares go by time, or by faces where no time was counted."""
        seconds, faces = sum(self.held), max(self.faces, 1)
        weights = [held / seconds for held in self.held] if seconds > 0 else [count / faces for count in self.counts]
        return {
            "start": self.start,
            "end": self.end,
            "seconds": round(seconds, 6),
            "faces": self.faces,
            "unsure": round(self.unsure / faces, 6),
            "share_of": "time" if seconds > 0 else "faces",
            "share": _by_class(classes, weights),
            "mean": _by_class(classes, self.probs / faces),
        }


class PersonTally(Tally):
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


class VideoTally(Tally):
    """Sums over a video, and over each person in it; person None holds the faces that were not followed."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.people: dict[int | None, PersonTally] = {}
        self.frames = 0
        self._frame: tuple[int | None, float | None] | None = None

    def take(self, entry: Row, label: int, probs: Sequence[float], max_gap: float) -> None:
        """Take a face of the video: its row, the index of its expression, its probabilities."""
        track, time = entry["track"], entry["time"]
        person = self.people.get(track)
        if person is None:
            person = self.people[track] = PersonTally(len(probs))
        for tally in (self, person):
            tally.see(label, probs, entry["unsure"], time)
        if track is not None and time is not None:
            person.move(time, label, max_gap)
        if (entry["frame"], time) != self._frame:
            self._frame = (entry["frame"], time)
            self.frames += 1

    def to_dict(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return what the tally has, over all people."""
        if self.people:
            self.held = [sum(held) for held in zip(*(person.held for person in self.people.values()), strict=True)]
        return super().to_dict(classes)


def _by_class(classes: Sequence[str], values: Iterable[float]) -> dict[str, float]:
    return {name: round(float(value), 6) for name, value in zip(classes, values, strict=True)}
