"""The look of figures: colours for colour-blind readers, sizes for a printed column, and files that are always the same.

matplotlib is imported when a figure is drawn, because it belongs to an extra.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mien.atomic import atomic_path
from mien.errors import require
from mien.output.table import check_ending
from mien.output.timeline import FORMATS, METADATA, matplotlib_defaults

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN, PAGE = 3.35, 6.85
"""Width of a figure of one and of two columns: 8.5 and 17.4 cm, in inches."""

LINE = 0.14
"""Height of a line of a title or legend, in inches."""

DPI = 300
"""Pixels per inch of a PNG file, as printers ask for."""

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's colours, without their yellow, which is too pale on paper."""

LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
"""Line styles and markers: a second cue, for readers who do not see the colours and for printing in grey."""

SETTINGS: dict[str, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "figure.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "grid.color": "0.88",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.5,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
}
"""matplotlib's settings for every figure; sizes are in points, and 7 is the least that a journal prints."""


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw with the settings of this file in the block, or in the decorated function, and restore the user's afterwards.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    matplotlib = require("matplotlib", "train")
    with matplotlib_defaults(), matplotlib.rc_context(SETTINGS):
        yield


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, sizes in inches, whose parts make room for each other."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    return Figure(figsize=(width, height), layout="constrained")


def look(number: int) -> dict[str, Any]:
    """Return colour, line style and marker of the line with this number; the first 56 all differ."""
    return {
        "color": PALETTE[number % len(PALETTE)],
        "linestyle": LINES[number % len(LINES)],
        "marker": MARKERS[number % len(MARKERS)],
    }


def add_title(figure: Figure, lines: Sequence[str]) -> None:
    """Put a title above a figure, which grows by its height; lines are wrapped to the figure's width, empty ones left out."""
    characters = int(16 * figure.get_figwidth())
    text = "\n".join(textwrap.fill(line, characters) for line in lines if line)
    figure.suptitle(text)
    figure.set_figheight(figure.get_figheight() + LINE * len(text.splitlines()))


def add_legend(figure: Figure, axes: Axes, title: str = "") -> None:
    """Put the legend of one of its axes below a figure, which grows by its height; there are as many columns as fit."""
    handles, labels = axes.get_legend_handles_labels()
    characters = int(17 * figure.get_figwidth())
    texts = [textwrap.fill(label, characters - 6) for label in labels]
    widest = max(len(line) for text in texts for line in text.splitlines()) + 6  # 6: the sample of the line
    columns = max(1, min(len(texts), characters // widest))
    figure.legend(handles, texts, title=title or None, loc="outside lower center", ncols=columns)
    figure.set_figheight(figure.get_figheight() + LINE * (len(texts) / columns + bool(title)))


def write_figure(path: str | os.PathLike[str], figure: Figure, dpi: int = DPI) -> None:
    """Write a figure, completely or not at all; the same figure gives the same bytes.

    Args:
        path: The file, `.png` or `.svg`. Text in an SVG file stays text.
        figure: The figure.
        dpi: Pixels per inch of a PNG file.

    Raises:
        OutputError: The ending is unknown or the file cannot be written.
    """
    ending = check_ending(path, "figure", FORMATS)
    with figure_style(), atomic_path(path) as tmp_path:
        figure.savefig(tmp_path, format=ending[1:], dpi=dpi, metadata=METADATA[ending])
