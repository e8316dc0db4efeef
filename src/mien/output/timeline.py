"""A picture of expressions over time: a lane a person, a band of what the face showed over areas of the probabilities.

Frames are gathered into at most `BINS` steps of time as they come, so an hour needs no more memory than a minute.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mien.atomic import atomic_path
from mien.errors import InputError, OutputError, require
from mien.output.cells import readable
from mien.output.columns import Row, columns
from mien.output.lanes import AREA, BAND, GAP, Strip, draw_lane, draw_legend, palette, plain_settings, set_times
from mien.output.summary import MAX_GAP
from mien.output.table import row
from mien.structures import Prediction

FORMATS = (".png", ".svg")
"""Endings a timeline may be written with."""

BINS = 600
"""Steps of time in a picture, at most; some three px each."""

FIRST_BIN = 0.01
"""Width of a step at first, seconds; it doubles whenever there are too many."""

PEOPLE = 8
"""Lanes of a picture, at most: the people seen longest."""

WIDTH, DPI = 12.0, 150
"""Width of the picture, inches, and px an inch."""

LANE, MARGINS = 0.85, 1.35
"""Height of a lane, and of all that is around the lanes, inches."""


class _Cell(NamedTuple):
    """The frames of one person in one step of time."""

    start: float
    frames: int
    unsure: int
    probs: NDArray[np.float64]

    def joined(self, other: _Cell) -> _Cell:
        start = min(self.start, other.start)
        return _Cell(start, self.frames + other.frames, self.unsure + other.unsure, self.probs + other.probs)


class Timeline:
    """Gathers the faces of one video as they come, and draws them.

    Args:
        classes: The model's classes, by output index.
        source: The video to gather, where faces of several may come; None takes them all, if they are of one.
        max_gap: Seconds a person may be out of sight before the lane shows a gap.
    """

    def __init__(self, classes: Sequence[str], source: str | None = None, max_gap: float = MAX_GAP) -> None:
        self.classes, self.source, self.max_gap = tuple(classes), source, max_gap
        self._names = columns(classes)[-len(self.classes) :]
        self._any = source is None
        self._lanes: dict[int | None, dict[int, _Cell]] = {}
        self._width = FIRST_BIN
        self._origin: float | None = None

    def add(self, item: Prediction | Row) -> None:
        """Add one face; pictures, which have no time, are left out.

        Raises:
            InputError: It is of another source, and none was named.
        """
        entry = row(item) if isinstance(item, Prediction) else item
        if entry["time"] is None or not self._is_ours(entry["source"]):
            return
        self._origin = entry["time"] if self._origin is None else self._origin
        while (place := self._place(entry["time"])) >= BINS:
            self._widen()
        lane = self._lanes.setdefault(entry["track"], {})
        cell = _Cell(entry["time"], 1, int(entry["unsure"]), np.array([entry[name] for name in self._names]))
        lane[place] = lane[place].joined(cell) if place in lane else cell

    def extend(self, items: Iterable[Prediction | Row]) -> None:
        """Add many faces."""
        for item in items:
            self.add(item)

    def draw(self, path: str | os.PathLike[str], people: int = PEOPLE) -> None:
        """Write the picture, whole or not at all; the same faces give the same bytes.

        Args:
            path: The file, `.png` or `.svg`.
            people: Lanes to draw at most: the people seen longest, by their numbers.

        Raises:
            OutputError: The ending is unknown or the file cannot be written.
            MissingExtraError: matplotlib is not installed.
        """
        ending = check_timeline(path)
        with plain_settings(), atomic_path(path) as beside:
            figure = self._figure(people)
            metadata = {"Date": None, "Creator": None} if ending == ".svg" else {"Software": None}
            figure.savefig(beside, format=ending[1:], dpi=DPI, metadata=metadata)

    def _is_ours(self, source: str | None) -> bool:
        if self._any and self._origin is not None and source != self.source:
            raise InputError(f"these faces are of several videos ({self.source}, {source}); name the one to draw")
        if self._any:
            self.source = source
        return source == self.source

    def _place(self, time: float) -> int:
        return max(0, math.floor((time - (self._origin or 0.0)) / self._width))

    def _widen(self) -> None:
        """Join every two steps of time into one."""
        self._width *= 2
        for track, lane in self._lanes.items():
            joined: dict[int, _Cell] = {}
            for place, cell in lane.items():
                joined[place // 2] = joined[place // 2].joined(cell) if place // 2 in joined else cell
            self._lanes[track] = joined

    def _strips(self, people: int) -> dict[int | None, Strip]:
        """Return what to draw of the people seen longest, in the order of their numbers, those not followed last."""
        seen = {track: sum(cell.frames for cell in lane.values()) for track, lane in self._lanes.items()}
        chosen = sorted(seen, key=lambda track: -seen[track])[:people]
        return {track: self._strip(self._lanes[track]) for track in sorted(chosen, key=lambda t: (t is None, t or 0))}

    def _strip(self, lane: dict[int, _Cell]) -> Strip:
        cells = [cell for _, cell in sorted(lane.items())]
        starts = np.array([cell.start for cell in cells])
        frames = np.array([cell.frames for cell in cells])
        steps = np.diff(starts)
        held = steps[steps <= max(self.max_gap, 2 * self._width)]
        usual = float(np.median(held)) if held.size else 0.0
        steps = np.append(np.where(steps <= max(self.max_gap, 2 * self._width), steps, usual), usual)
        ends = starts + np.maximum(steps, max(self._span() / 400, FIRST_BIN))  # a single frame must be seen
        ends[:-1] = np.minimum(ends[:-1], starts[1:])
        probs = np.array([cell.probs for cell in cells]) / frames[:, None]
        return Strip(starts, ends, probs, np.array([2 * cell.unsure > cell.frames for cell in cells]))

    def _span(self) -> float:
        """Return the seconds between the first face and the last."""
        times = [cell.start for lane in self._lanes.values() for cell in lane.values()]
        return max(times) - min(times) if times else 0.0

    def _figure(self, people: int) -> Any:
        """Return the drawn figure."""
        from matplotlib.figure import Figure  # not pyplot: no global state, no display

        strips = self._strips(people)
        figure = Figure(figsize=(WIDTH, MARGINS + LANE * max(1, len(strips))), layout="constrained")
        axes = figure.subplots()
        for i, strip in enumerate(strips.values()):
            draw_lane(axes, strip, i, palette(self.classes))
        self._dress(axes, strips)
        axes.set_title(self._title(len(strips)), loc="left", parse_math=False)
        draw_legend(figure, self.classes, any(strip.unsure.any() for strip in strips.values()))
        return figure

    def _title(self, shown: int) -> str:
        name = Path(readable(self.source) or "").name
        name = name if len(name) <= 80 else f"{name[:50]}…{name[-29:]}"
        return name if shown == len(self._lanes) else f"{name}   ({shown} of {len(self._lanes)} people, those seen longest)"

    def _dress(self, axes: Any, strips: dict[int | None, Strip]) -> None:
        """Set the axes: people at the left, time at the bottom."""
        for side in ("top", "left", "right"):
            axes.spines[side].set_visible(False)
        axes.set_ylim(max(1, len(strips)), -0.06)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color="0.88", linewidth=0.8)
        axes.set_axisbelow(True)
        names = ["not followed" if track is None else f"person {track}" for track in strips]
        axes.set_yticks([i + GAP / 2 + (AREA + GAP + BAND) / 2 for i in range(len(strips))], names)
        if not strips:
            axes.text(0.5, 0.5, "no face was seen", transform=axes.transAxes, ha="center", va="center", color="0.4")
            axes.set_xticks([])
            return
        first = min(strip.starts[0] for strip in strips.values())
        last = max(strip.ends[-1] for strip in strips.values())
        first = 0.0 if first <= 0.1 * last else first  # a video starts at 0, an excerpt where it was cut
        set_times(axes, float(first), float(max(last, first + FIRST_BIN)))


def draw_timeline(
    path: str | os.PathLike[str],
    items: Iterable[Prediction | Row],
    classes: Sequence[str],
    *,
    source: str | None = None,
    max_gap: float = MAX_GAP,
    people: int = PEOPLE,
) -> None:
    """Write a picture of the expressions in a video over time: `Timeline` in one call.

    Raises:
        InputError: The items are of several videos and `source` names none.
        OutputError: The ending is unknown or the file cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    check_timeline(path)
    timeline = Timeline(classes, source, max_gap)
    timeline.extend(items)
    timeline.draw(path, people)


def check_timeline(path: str | os.PathLike[str]) -> str:
    """Return a timeline's ending, or raise now what drawing it would raise after hours of work.

    Raises:
        OutputError: The ending is none of `FORMATS`.
        MissingExtraError: matplotlib is not installed.
    """
    ending = Path(path).suffix.lower()
    if ending not in FORMATS:
        raise OutputError(f"{path}: a timeline's name must end in {' or '.join(FORMATS)}; choose one of them")
    require("matplotlib", "tables")
    return ending
