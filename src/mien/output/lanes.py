"""The parts of a timeline, drawn with matplotlib: lanes, legend, time axis."""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mien.output.annotate import COLOURS
from mien.output.cells import clock

GREYS = ("#969696", "#6e6e6e", "#464646")
"""Colours of classes that have none in `COLOURS`."""

AREA, GAP, BAND = 0.58, 0.04, 0.2
"""Heights of the areas, of the gap above them and of the band above that, as shares of a lane."""

TICKS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
"""Steps between the marks of the time axis, seconds."""

SCRIPTS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Hiragino Sans",
    "PingFang SC",
    "Yu Gothic",
    "Microsoft YaHei",
    "Malgun Gothic",
)
"""Fonts for names in other scripts, where this machine has them."""

_SETTINGS = threading.RLock()  # they belong to the whole process


class Strip(NamedTuple):
    """One person's cells, as drawn: step i lasts from `starts[i]` to `ends[i]`, seconds."""

    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    probs: NDArray[np.float64]
    unsure: NDArray[np.bool_]


@contextmanager
def plain_settings() -> Iterator[None]:
    """Draw with matplotlib's own settings, and give back those of the process afterwards; one thread at a time."""
    import matplotlib
    from matplotlib import font_manager

    here = set(font_manager.get_font_names())
    fonts = ["DejaVu Sans", *(name for name in SCRIPTS if name in here)]
    with _SETTINGS, matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a name that no font here can show is still a name
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"font.family": fonts, "svg.fonttype": "none", "svg.hashsalt": "mien"})
        yield


def palette(classes: Sequence[str]) -> list[Any]:
    """Return a colour for each class, as matplotlib takes them."""
    others = iter(GREYS * len(classes))
    return [tuple(part / 255 for part in COLOURS[name]) if name in COLOURS else next(others) for name in classes]


def draw_lane(axes: Any, strip: Strip, number: int, colours: Sequence[Any]) -> None:
    """Draw the band of one person, from `number` downwards, and the areas below it."""
    top = number + BAND + GAP
    edges, probs = _outlined(strip)
    levels = np.hstack([np.zeros((len(probs), 1)), np.cumsum(probs, axis=1)])
    levels = top + AREA * (1 - levels / np.maximum(levels[:, -1:], 1e-9))
    for i, colour in enumerate(colours):
        axes.fill_between(edges, levels[:, i], levels[:, i + 1], step="post", color=colour, linewidth=0)
    for (label, unsure), spans in _runs(strip).items():
        height = BAND / 2 if unsure else BAND
        axes.broken_barh(spans, (number + BAND - height, height), facecolors=[colours[label]], linewidth=0)


def _outlined(strip: Strip) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the edges of the steps and the probabilities after each, with an empty place where the person was away."""
    edges, probs = [], []
    for i, (start, end) in enumerate(zip(strip.starts, strip.ends, strict=True)):
        edges.append(start)
        probs.append(strip.probs[i])
        if i + 1 == len(strip.starts) or end < strip.starts[i + 1]:
            edges += [end, end]
            probs += [strip.probs[i], np.full_like(strip.probs[i], np.nan)]
    return np.array(edges), np.array(probs)


def _runs(strip: Strip) -> dict[tuple[int, bool], list[tuple[float, float]]]:
    """Return start and length, seconds, of each run of steps with one expression, by expression and doubt."""
    runs: dict[tuple[int, bool], list[tuple[float, float]]] = {}
    last, last_end = None, math.nan
    for start, end, probs, unsure in zip(strip.starts, strip.ends, strip.probs, strip.unsure, strict=True):
        key = (int(probs.argmax()), bool(unsure))
        if key == last and start == last_end:
            runs[key][-1] = (runs[key][-1][0], float(end) - runs[key][-1][0])
        else:
            runs.setdefault(key, []).append((float(start), float(end - start)))
        last, last_end = key, end
    return runs


def draw_legend(figure: Any, classes: Sequence[str], unsure: bool) -> None:
    """Draw what each colour means, below the axes."""
    from matplotlib.patches import Patch

    handles = [Patch(color=colour, label=name) for name, colour in zip(classes, palette(classes), strict=True)]
    title = "band: most probable expression" + (", half as high where unsure" if unsure else "") + "; areas: probabilities"
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=min(len(classes), 8), frameon=False, title=title)
    legend.get_title().set(color="0.4", fontsize="small")
    for text in legend.get_texts():
        text.set_parse_math(False)


def set_times(axes: Any, first: float, last: float) -> None:
    """Mark the time axis in seconds, or in minutes and hours where it is long."""
    axes.set_xlim(first, last)
    step = next((step for step in TICKS if (last - first) / step <= 13), math.ceil((last - first) / 13 / 3600) * 3600)
    if last - first < TICKS[0]:
        axes.set_xlabel("time, s")
        return
    ticks = np.arange(math.ceil(first / step) * step, last + step / 1000, step)
    minutes = last >= 120
    axes.set_xticks(ticks, [clock(tick) if minutes and step >= 1 else f"{tick:g}" for tick in ticks])
    axes.set_xlabel(("time, h:mm:ss" if last >= 3600 else "time, m:ss") if minutes and step >= 1 else "time, s")
