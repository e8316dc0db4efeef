"""A plot of the expressions in a video over time: one lane per person, a band of the shown expression above its probabilities.

Frames are gathered into at most `BINS` bins of time as they come, so an hour needs no more memory than a minute.
"""

from __future__ import annotations

import math
import os
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mien.atomic import atomic_path
from mien.errors import InputError, require
from mien.languages import translate
from mien.output.annotate import COLOURS
from mien.output.fonts import PILLOWS, font_name, require_font
from mien.output.summary import MAX_SAMPLE_GAP, format_time
from mien.output.table import Row, check_ending, columns, row
from mien.structures import Prediction
from mien.text import escape_invalid_utf8

FORMATS = (".png", ".svg")
"""File endings of a timeline."""

METADATA: dict[str, dict[str, str | None]] = {".png": {"Software": None}, ".svg": {"Date": None, "Creator": None}}
"""Metadata for `Figure.savefig`, by ending: nothing that changes from day to day or with matplotlib's version."""

BINS = 600
"""Bins of time in a plot, at most; each is about three px wide."""

FIRST_BIN = 0.01
"""Width of a bin at first, seconds; it doubles whenever there are too many bins."""

PEOPLE = 8
"""Lanes of a plot, at most: those of the people seen longest."""

WIDTH, DPI = 12.0, 150
"""Width of the plot in inches, and px per inch."""

LANE, MARGINS = 0.85, 1.35
"""Height of a lane, and of everything above and below the lanes, in inches."""

AREA, GAP, BAND = 0.58, 0.04, 0.2
"""Heights of the probabilities, of the gap above them, and of the band above the gap, as shares of a lane."""

GREYS = ("#969696", "#6e6e6e", "#464646")
"""Colours of classes that are not in `COLOURS`."""

TICKS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
"""Possible distances between ticks of the time axis, seconds."""

FALLBACK_FONTS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Hiragino Sans", "PingFang SC"),
    *("Yu Gothic", "Microsoft YaHei", "Malgun Gothic"),
)
"""Fonts for file names in East Asian scripts, used where they are installed."""

_RC_LOCK = threading.RLock()  # matplotlib's settings belong to the whole process


class _Bin(NamedTuple):
    """The frames of one person in one bin of time."""

    start: float
    frames: int
    unsure: int
    probs: NDArray[np.float64]

    def merged(self, other: _Bin) -> _Bin:
        start = min(self.start, other.start)
        return _Bin(start, self.frames + other.frames, self.unsure + other.unsure, self.probs + other.probs)


class Lane(NamedTuple):
    """What is drawn of one person: step i lasts from `starts[i]` to `ends[i]`, in seconds."""

    starts: NDArray[np.float64]  # (N,)
    ends: NDArray[np.float64]  # (N,)
    probs: NDArray[np.float64]  # means over the frames of a step, (N, K)
    unsure: NDArray[np.bool_]  # whether most frames of a step are unsure, (N,)


class Timeline:
    """Gathers the faces of one video as they come, and plots them.

    Args:
        classes: The model's classes, by output index.
        source: The video to plot, if faces of several may come; None accepts any one video.
        max_gap: Seconds a person may be out of sight before the lane shows a gap.
    """

    def __init__(self, classes: Sequence[str], source: str | None = None, max_gap: float = MAX_SAMPLE_GAP) -> None:
        self.classes, self.source, self.max_gap = tuple(classes), source, max_gap
        columns(classes)  # raises the error of a class that cannot be a column
        self._any_source = source is None
        self._bins: dict[int | None, dict[int, _Bin]] = {}  # by track and bin number
        self._bin_width = FIRST_BIN
        self._first_time: float | None = None

    def add(self, item: Prediction | Row) -> None:
        """Add one face; faces of pictures, which have no time, are ignored.

        Raises:
            InputError: The face is of another video than those before, and no video was chosen.
        """
        entry = row(item) if isinstance(item, Prediction) else item
        time, source = entry["time"], entry["source"]
        if time is None or entry["label"] is None or (not self._any_source and source != self.source):
            return
        if self._first_time is None:
            self._first_time, self.source = time, source
        elif source != self.source:
            raise InputError(f"these faces are of several videos ({self.source}, {source}); choose one with source=")
        while (number := max(0, math.floor((time - self._first_time) / self._bin_width))) >= BINS:
            self._double_bins()
        bins = self._bins.setdefault(entry["track"], {})
        new = _Bin(time, 1, int(entry["unsure"]), np.array([entry[name] for name in self.classes]))
        bins[number] = bins[number].merged(new) if number in bins else new

    def extend(self, items: Iterable[Prediction | Row]) -> None:
        """Add many faces."""
        for item in items:
            self.add(item)

    def draw(self, path: str | os.PathLike[str], people: int = PEOPLE) -> None:
        """Write the plot, completely or not at all; the same faces give the same bytes.

        Args:
            path: The file, `.png` or `.svg`.
            people: Lanes to draw at most: the people seen longest, in the order of their track numbers.

        Raises:
            OutputError: The ending is unknown or the file cannot be written.
            MissingExtraError: matplotlib is not installed.
        """
        ending = check_ending(path, "timeline", FORMATS)
        require("matplotlib", "tables")
        with matplotlib_defaults(), atomic_path(path) as tmp_path:
            figure = self._figure(people)
            figure.savefig(tmp_path, format=ending[1:], dpi=DPI, metadata=METADATA[ending])

    def _double_bins(self) -> None:
        self._bin_width *= 2
        for track, bins in self._bins.items():
            merged: dict[int, _Bin] = {}
            for number, each in bins.items():
                merged[number // 2] = merged[number // 2].merged(each) if number // 2 in merged else each
            self._bins[track] = merged

    def _lanes(self, people: int) -> dict[int | None, Lane]:
        """Return the lanes of the people seen longest, by track number; faces that were not followed come last."""
        frames = {track: sum(each.frames for each in bins.values()) for track, bins in self._bins.items()}
        longest = sorted(frames, key=lambda track: -frames[track])[:people]
        times = [each.start for bins in self._bins.values() for each in bins.values()]
        shortest = max((max(times) - min(times)) / 400 if times else 0.0, FIRST_BIN)  # a single frame must be visible
        return {track: self._lane(track, shortest) for track in sorted(longest, key=lambda t: (t is None, t or 0))}

    def _lane(self, track: int | None, shortest: float) -> Lane:
        bins = [each for _, each in sorted(self._bins[track].items())]
        starts = np.array([each.start for each in bins])
        frames = np.array([each.frames for each in bins])
        steps = np.diff(starts)
        without_gap = steps <= max(self.max_gap, 2 * self._bin_width)
        usual = float(np.median(steps[without_gap])) if without_gap.any() else 0.0
        ends = starts + np.maximum(np.append(np.where(without_gap, steps, usual), usual), shortest)
        ends[:-1] = np.minimum(ends[:-1], starts[1:])
        probs = np.array([each.probs for each in bins]) / frames[:, None]
        return Lane(starts, ends, probs, np.array([2 * each.unsure > each.frames for each in bins]))

    def _figure(self, people: int) -> Any:
        from matplotlib.figure import Figure  # not pyplot: no global state, no display
        from matplotlib.patches import Patch

        lanes, colours = self._lanes(people), class_colours(self.classes)
        figure = Figure(figsize=(WIDTH, MARGINS + LANE * max(1, len(lanes))), layout="constrained")
        axes = figure.subplots()
        for number, lane in enumerate(lanes.values()):
            _draw_lane(axes, lane, number, colours)
        _style_axes(axes, lanes)
        name = Path(escape_invalid_utf8(self.source) or "").name
        name = name if len(name) <= 80 else f"{name[:50]}…{name[-29:]}"
        if len(lanes) < len(self._bins):
            count = translate("{shown} of {all} people, those seen longest", shown=len(lanes), all=len(self._bins))
            name = f"{name}   ({count})"
        axes.set_title(name, loc="left", parse_math=False)
        doubt = any(lane.unsure.any() for lane in lanes.values())
        title = translate(
            "band: most probable expression, half as high where unsure; areas: probabilities"
            if doubt
            else "band: most probable expression; areas: probabilities"
        )
        legend = figure.legend(
            handles=[Patch(color=colour, label=translate(label)) for label, colour in zip(self.classes, colours, strict=True)],
            title=title,
            loc="outside lower center",
            ncols=min(len(colours), 8),
            frameon=False,
        )
        legend.get_title().set(color="0.4", fontsize="small")
        for text in legend.get_texts():
            text.set_parse_math(False)
        return figure


@contextmanager
def matplotlib_defaults() -> Iterator[None]:
    """Use matplotlib's default settings in the block, and restore the user's afterwards; one thread at a time.

    Raises:
        OutputError: No font on this system has the letters of the language in use.
    """
    from matplotlib import font_manager, style

    file = require_font()
    own = []
    if file != PILLOWS:
        own = [font_name(file), font_manager.FontProperties(fname=file[0]).get_name()]
        if own[0] not in font_manager.get_font_names():  # matplotlib looked for fonts before this one was installed
            font_manager.fontManager.addfont(file[0])
    installed = set(font_manager.get_font_names())
    fonts = ["DejaVu Sans", *(name for name in (*own, *FALLBACK_FONTS) if name in installed)]
    settings = {"font.family": fonts, "svg.fonttype": "none", "svg.hashsalt": "mien"}
    with _RC_LOCK, style.context(["default", settings]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a name that no font can show is still a name
        yield


def class_colours(classes: Sequence[str]) -> list[Any]:
    """Return a colour for each class, as matplotlib accepts them."""
    greys = iter(GREYS * len(classes))
    return [tuple(part / 255 for part in COLOURS[name]) if name in COLOURS else next(greys) for name in classes]


def _draw_lane(axes: Any, lane: Lane, number: int, colours: Sequence[Any]) -> None:
    """Draw a person's band, which begins at height `number`, and the probabilities below it as stacked areas."""
    top = number + BAND + GAP
    edges, probs = _step_edges(lane)
    levels = np.hstack([np.zeros((len(probs), 1)), np.cumsum(probs, axis=1)])
    levels = top + AREA * (1 - levels / np.maximum(levels[:, -1:], 1e-9))
    for i, colour in enumerate(colours):
        axes.fill_between(edges, levels[:, i], levels[:, i + 1], step="post", color=colour, linewidth=0)
    for (label, unsure), spans in _runs(lane).items():
        height = BAND / 2 if unsure else BAND
        axes.broken_barh(spans, (number + BAND - height, height), facecolors=[colours[label]], linewidth=0)


def _step_edges(lane: Lane) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the edges of the steps and the probabilities after each edge, NaN where the person was out of sight."""
    edges, probs = [], []
    for i, (start, end) in enumerate(zip(lane.starts, lane.ends, strict=True)):
        edges.append(start)
        probs.append(lane.probs[i])
        if i + 1 == len(lane.starts) or end < lane.starts[i + 1]:
            edges += [end, end]
            probs += [lane.probs[i], np.full_like(lane.probs[i], np.nan)]
    return np.array(edges), np.array(probs)


def _runs(lane: Lane) -> dict[tuple[int, bool], list[tuple[float, float]]]:
    """Return start and length, in seconds, of the runs of steps with one expression, by class index and `unsure`."""
    runs: dict[tuple[int, bool], list[tuple[float, float]]] = {}
    last, last_end = None, math.nan
    for start, end, probs, unsure in zip(*lane, strict=True):
        key = (int(probs.argmax()), bool(unsure))
        if key == last and start == last_end:
            runs[key][-1] = (runs[key][-1][0], float(end) - runs[key][-1][0])
        else:
            runs.setdefault(key, []).append((float(start), float(end - start)))
        last, last_end = key, end
    return runs


def _style_axes(axes: Any, lanes: dict[int | None, Lane]) -> None:
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.set_ylim(max(1, len(lanes)), -0.06)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.88", linewidth=0.8)
    axes.set_axisbelow(True)
    names = [translate("not followed") if track is None else translate("person {track}", track=track) for track in lanes]
    axes.set_yticks([i + GAP / 2 + (AREA + GAP + BAND) / 2 for i in range(len(lanes))], names)
    if not lanes:
        axes.text(0.5, 0.5, translate("no face was seen"), transform=axes.transAxes, ha="center", va="center", color="0.4")
        axes.set_xticks([])
        return
    first = min(float(lane.starts[0]) for lane in lanes.values())
    last = max(float(lane.ends[-1]) for lane in lanes.values())
    first = 0.0 if first <= 0.1 * last else first  # a whole video starts at 0, an excerpt where it was cut
    last = max(last, first + FIRST_BIN)
    axes.set_xlim(first, last)
    if last - first < TICKS[0]:
        axes.set_xlabel(translate("time, s"))
        return
    step = next((step for step in TICKS if (last - first) / step <= 13), math.ceil((last - first) / 13 / 3600) * 3600)
    ticks = np.arange(math.ceil(first / step) * step, last + step / 1000, step)
    minutes = last >= 120 and step >= 1
    axes.set_xticks(ticks, [format_time(tick) if minutes else f"{tick:g}" for tick in ticks])
    axes.set_xlabel(translate(("time, h:mm:ss" if last >= 3600 else "time, m:ss") if minutes else "time, s"))
