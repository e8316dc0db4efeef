"""The figures of an error analysis: the most confident mistakes, as faces, and the risk-coverage curve."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mien.errors import DataError
from mien.languages import translate
from mien.report.analysis import Analysis
from mien.report.inputs import Measured, measured_labels, require_one_split
from mien.report.style import COLUMN, PAGE, add_legend, add_title, figure_style, look, new_figure
from mien.report.titles import describe_measured
from mien.statistics import risk_coverage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 4
"""Faces in a row of the picture."""

FACE, TWIN, WORDS, VOTES = 0.86, 0.5, 0.42, 0.22
"""Sides of a face and of its twin, and the heights of the words below a face and of its votes, in inches."""

CHARACTERS = 35
"""Characters of a line below a face."""


@figure_style()
def mistakes_figure(analysis: Analysis) -> Figure:
    """Return the most confident mistakes of an analysis: each face with its label, the answer, its first twin and the votes.

    Raises:
        DataError: Every answer is right.
    """
    from matplotlib.figure import Figure

    if not analysis.mistakes:
        raise DataError(f"{analysis.measured.paths[0]}: every answer is right, so there is no mistake to draw")
    lines = math.ceil(len(analysis.mistakes) / COLUMNS)
    title = [
        *describe_measured([analysis.measured]),
        f"the {len(analysis.mistakes)} most confident mistakes: label → answer with its confidence",
    ]
    top = 0.16 * len([line for line in title if line]) + 0.12
    cell = FACE + WORDS + (VOTES if analysis.votes_differ is not None else 0)
    width, height = PAGE, lines * cell + top
    figure = Figure(figsize=(width, height))
    figure.suptitle("\n".join(line for line in title if line), y=1 - 0.06 / height, va="top")

    def draw(row: int, left: float, up: float, side: float) -> None:
        axes = figure.add_axes((left / width, (up - side) / height, side / width, side / height))
        axes.imshow(analysis.corpus.images[row], cmap="gray", vmin=0, vmax=255)
        axes.set_axis_off()

    for i, mistake in enumerate(analysis.mistakes):
        left, up = (i % COLUMNS) * width / COLUMNS + 0.06, height - top - (i // COLUMNS) * cell
        draw(mistake.row, left, up, FACE)
        confidence = math.floor(1000 * mistake.confidence) / 10  # not rounded up to 100 %
        answer, words = f"{mistake.label} → {mistake.predicted} {confidence:.1f} %", [f"row {mistake.row}"]
        if mistake.votes is not None:
            votes = ", ".join(f"{count}\N{NO-BREAK SPACE}{name}" for name, count in list(mistake.votes.items())[:3])
            words += textwrap.wrap(f"votes: {votes}", CHARACTERS)[:2]
        figure.text(left / width, (up - FACE - 0.05) / height, answer, fontsize=7, fontweight="bold", va="top")
        figure.text(left / width, (up - FACE - 0.18) / height, "\n".join(words), fontsize=6, va="top", linespacing=1.1)
        if mistake.twins:
            twin = mistake.twins[0]
            draw(twin.row, left + FACE + 0.1, up, TWIN)
            more = f"\n+ {len(mistake.twins) - 1} more" if len(mistake.twins) > 1 else ""
            text = f"{twin.kind} twin\n{twin.label or 'no class'}{more}"
            figure.text((left + FACE + 0.1) / width, (up - TWIN - 0.04) / height, text, fontsize=6, va="top", linespacing=1.1)
    return figure


@figure_style()
def risk_coverage_figure(measured: Sequence[Measured]) -> Figure:
    """Return the error rate against the share of answers kept, the most confident first; the legend has the AURC.

    The predictions next to each results file are read; the folds of one run are pooled. For one measurement, a grey line shows
    the best possible order: all mistakes last.

    Raises:
        DataError: The measurements are not of the same split and classes, or their predictions are missing or damaged.
    """
    require_one_split(measured)
    figure = new_figure(COLUMN, 2.6)
    axes = figure.subplots()
    for number, (each, label) in enumerate(zip(measured, measured_labels(measured), strict=True)):
        right, confidence = each.answers()
        coverage, risk = risk_coverage(confidence, right)
        if len(measured) == 1:
            best = risk_coverage(right.astype(float), right)[1]
            best_label = f"{translate('best order')} (AURC {best.mean():.3f})"
            axes.plot(100 * coverage, 100 * best, color="0.6", lw=0.8, label=best_label)
        style = look(number) | {"marker": ""}
        begun = coverage >= min(0.02, coverage[-1])  # the first few answers say little
        axes.plot(100 * coverage[begun], 100 * risk[begun], label=f"{label} (AURC {risk.mean():.3f})", **style)
    coverage_text, risk_text = translate("coverage: share of answers kept, %"), translate("risk: error rate of these, %")
    axes.set(xlabel=coverage_text, ylabel=risk_text, xlim=(0, 100))
    axes.set_ylim(bottom=0)
    axes.grid()
    add_title(figure, describe_measured(measured))
    add_legend(figure, axes)
    return figure
