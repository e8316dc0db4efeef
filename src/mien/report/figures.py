"""The figures: one function for each kind."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mien.errors import DataError, UnknownNameError
from mien.languages import translate
from mien.registry import nearest
from mien.report.cost import Latencies, count_parameters
from mien.report.inputs import (
    Measured,
    Run,
    differing,
    group_runs,
    measured_labels,
    name_rows,
    pool_folds,
    require_one_split,
    show,
    study_rows,
)
from mien.report.style import COLUMN, PAGE, add_legend, add_title, figure_style, look, new_figure
from mien.report.titles import describe_measured, describe_runs, runs_scale, spread
from mien.statistics import interval_of_images, risk_coverage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS = 10
"""Bins of the confidence in a reliability diagram."""

RARE = 0.005
"""Share of the answers up to which a bin is left out: its accuracy says little."""

DECADE = 10.0
"""Ratio of the largest to the smallest value above which an axis is logarithmic."""


@figure_style()
def confusion_figure(measured: Measured, show: Literal["both", "counts", "normalised"] = "both") -> Figure:
    """Return the confusion matrix of one measurement: counts, shares of each true class, or both side by side."""
    counts = measured.confusion
    with np.errstate(invalid="ignore"):  # a class without images has no shares
        shares = 100 * counts / counts.sum(1, keepdims=True)
    panels = {
        "counts": (counts, "counts", "{:.0f}", counts.max()),
        "normalised": (shares, "row-normalised, %", "{:.1f}", 100),
    }
    shown = [panel for name, panel in panels.items() if show in (name, "both")]
    figure = new_figure(COLUMN if len(shown) == 1 else PAGE, 3.15)
    all_axes = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, (values, title, form, largest) in zip(all_axes, shown, strict=True):
        _draw_matrix(axes, values, measured.first["classes"], form, largest)
        axes.set_title(translate(title))
        axes.set_xlabel(translate("predicted class"))
    all_axes[0].set_ylabel(translate("true class"))
    accuracy = f"{translate('accuracy')} {_percent(measured, 'standard'):.2f} %"
    if measured.accuracy("twin_free") is not None:
        accuracy += f", {translate('twin-free')} {_percent(measured, 'twin_free'):.2f} %"
    add_title(figure, [*describe_measured([measured]), accuracy])
    return figure


@figure_style()
def rates_figure(measured: Sequence[Measured]) -> Figure:
    """Return the true and the false positive rate of each class, with 95 % intervals (Wilson).

    Raises:
        DataError: The measurements are not of the same split and classes.
    """
    require_one_split(measured)
    classes, labels = measured[0].first["classes"], measured_labels(measured)
    figure = new_figure(COLUMN, 3.6)
    panels = figure.subplots(2, 1, sharex=True)
    offsets = (np.arange(len(measured)) - (len(measured) - 1) / 2) * 0.8 / max(4, len(measured))
    for number, (each, offset) in enumerate(zip(measured, offsets, strict=True)):
        style = look(number) | {"linestyle": "none", "capsize": 1.5, "elinewidth": 0.7, "clip_on": False}
        where = np.arange(len(classes)) + offset
        counts = each.confusion
        right, true, predicted = np.diag(counts), counts.sum(1), counts.sum(0)
        rates = _with_interval(right, true), _with_interval(predicted - right, counts.sum() - true)
        for axes, (rate, below, above) in zip(panels, rates, strict=True):
            axes.errorbar(where, rate, [below, above], label=labels[number], **style)
            for x, value, top in zip(where, rate, rate + above, strict=True) if len(measured) == 1 else ():
                if np.isfinite(value):
                    axes.annotate(f"{value:.1f}", (x, top), (0, 1.5), textcoords="offset points", ha="center", fontsize=7)
    for axes, name in zip(panels, ("true positive rate, %", "false positive rate, %"), strict=True):
        axes.set_ylabel(translate(name))
        axes.set_xticks(np.arange(len(classes) - 1) + 0.5, minor=True)
        axes.tick_params(axis="x", which="minor", length=0)
        axes.grid(axis="y")
        axes.grid(axis="x", which="minor")  # between the classes
        axes.margins(y=0.12)
        axes.set_ylim(bottom=0)
    panels[1].set_xticks(range(len(classes)), list(map(translate, classes)), rotation=45, ha="right", rotation_mode="anchor")
    panels[1].set_xlim(-0.6, len(classes) - 0.4)
    add_title(figure, [*describe_measured(measured), translate("bars: 95 % intervals (Wilson)")])
    if len(measured) > 1:
        add_legend(figure, panels[0])
    return figure


@figure_style()
def reliability_figure(measured: Sequence[Measured], show: Literal["both", "reliability", "coverage"] = "both") -> Figure:
    """Return accuracy against confidence (is the confidence honest?) and against coverage (what if only sure answers count?).

    The predictions next to each results file are read; the folds of one run are pooled.

    Raises:
        DataError: The measurements are not of the same split and classes, or their predictions are missing or damaged.
    """
    require_one_split(measured)
    shown = [name for name in ("reliability", "coverage") if show in (name, "both")]
    figure = new_figure(COLUMN if len(shown) == 1 else PAGE, 3.0)
    panels = dict(zip(shown, figure.subplots(1, len(shown), squeeze=False)[0], strict=True))
    if "reliability" in panels:
        panels["reliability"].plot([0, 100], [0, 100], color="0.6", lw=0.8, label=translate("honest"))
    for number, (each, label) in enumerate(zip(measured, measured_labels(measured), strict=True)):
        right, confidence = each.answers()
        if axes := panels.get("reliability"):
            bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
            means = [(confidence[bins == i].mean(), right[bins == i].mean()) for i in range(BINS) if (bins == i).mean() > RARE]
            axes.plot(*(100 * np.array(means).T), label=label, **look(number))
        if axes := panels.get("coverage"):
            coverage, risk = risk_coverage(confidence, right)
            begun = coverage >= 0.05  # the first few answers say little
            axes.plot(100 * coverage[begun], 100 * (1 - risk[begun]), label=label, **look(number) | {"marker": ""})
    for name, axes in panels.items():
        if name == "reliability":
            axes.set(xlabel=translate("confidence, %"), ylabel=translate("accuracy, %"), xlim=(0, 100), ylim=(0, 100))
        else:
            kept = translate("share of answers kept, the most confident first, %")
            axes.set(xlabel=kept, ylabel=translate("accuracy of these, %"), xlim=(0, 100))
        axes.grid()
    add_title(figure, describe_measured(measured))
    add_legend(figure, panels[shown[0]])
    return figure


@figure_style()
def intervals_figure(names: Sequence[str], accuracies: Sequence[float], intervals: Sequence[tuple[float, float]]) -> Figure:
    """Return the accuracies in [0, 1] of some rows, one below the other, with their intervals."""
    figure = new_figure(COLUMN, 0.7 + 0.22 * len(names))
    axes = figure.subplots()
    values, ends = 100 * np.array(accuracies), 100 * np.array(intervals)
    bars = [np.maximum(values - ends[:, 0], 0), np.maximum(ends[:, 1] - values, 0)]
    axes.errorbar(values, range(len(names)), xerr=bars, **look(0) | {"linestyle": "none", "capsize": 2, "elinewidth": 0.8})
    axes.set_yticks(range(len(names)), [textwrap.shorten(name, 40) for name in names])
    axes.set(xlabel=translate("accuracy, %, with 95 % interval"), ylim=(len(names) - 0.5, -0.5))
    axes.grid(axis="x")
    return figure


@figure_style()
def curves_figure(runs: Sequence[Run]) -> Figure:
    """Return accuracy by epoch, on the training split above and on the selection split below, one line per recipe.

    Runs that differ only in seed or fold are averaged over the epochs that all of them have. A line is their mean; its band is
    one standard deviation to each side. Runs without a finished epoch are left out.

    Raises:
        DataError: No run has a finished epoch, or the runs are of several corpora or selection splits.
    """
    runs = [run for run in runs if run.history is not None]
    if not runs:
        raise DataError("none of these runs has a history of finished epochs (history.csv); train them first, or choose others")
    data = runs[0].recipe["data"]
    for run in runs:
        for key in ("corpus", "train", "select"):
            if run.recipe["data"][key] != data[key]:
                raise DataError(
                    f"{run.folder}: its data.{key} is {show(run.recipe['data'][key])}, not {show(data[key])} as in "
                    f"{runs[0].folder}; draw them in separate figures"
                )
    rows = group_runs(runs)
    labels, keys = name_rows(rows)
    step = max(1, max(len(history["epoch"]) for run in runs if (history := run.history)) // 8)  # epochs between markers
    panels = {"train_accuracy": f"{translate('{split} accuracy, %', split=data['train'])}\n{translate('(augmented images)')}"}
    if data["select"] is not None:
        panels["val_accuracy"] = f"{translate('{split} accuracy, %', split=data['select'])}\n{translate('(selection split)')}"
    figure = new_figure(COLUMN, 0.4 + 1.7 * len(panels))
    all_axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (column, label) in zip(all_axes, panels.items(), strict=True):
        for number, row in enumerate(rows):
            histories = [history for run in row if (history := run.history) is not None]
            epochs = min(len(history["epoch"]) for history in histories)
            values = 100 * np.array([history[column][:epochs] for history in histories])
            x, mean, deviation = histories[0]["epoch"][:epochs], values.mean(0), values.std(0)
            axes.plot(x, mean, label=labels[number], markevery=(number % step, step), **look(number))
            if len(histories) > 1:
                colour = look(number)["color"]
                axes.fill_between(x, mean - deviation, mean + deviation, color=colour, alpha=0.2, linewidth=0)
        axes.set_ylabel(label)
        axes.grid()
    all_axes[-1].set_xlabel(translate("epoch"))
    all_axes[-1].xaxis.get_major_locator().set_params(integer=True)
    add_title(figure, [*describe_runs(runs), spread([len(row) for row in rows], "line")])
    if len(rows) > 1:
        add_legend(figure, all_axes[0], title=keys[0] if len(keys) == 1 else "")
    return figure


@figure_style()
def sweep_figure(runs: Sequence[Run], field: str | None = None, split: str | None = None, part: str = "standard") -> Figure:
    """Return accuracy against a value of the recipe; points are means over seeds and folds, bars one standard deviation.

    Runs that have no results on the split are left out.

    Args:
        runs: The runs.
        field: The swept value by its dotted key, such as `optim.lr`. None finds the only one that differs. Other values that
            differ make a line each.
        split: The split, if there are results on several.
        part: `standard`, or `twin_free` for the images without a twin in the training split.

    Raises:
        DataError: No run has results on the split, no value differs, or several do and none is chosen.
        UnknownNameError: No recipe has this field.
    """
    split = choose_split(runs, split)
    runs = [run for run in runs if split in run.splits]
    field, others = _choose_field(runs, field)
    measured = [pool_folds([run.folder / f"{split}.json"])[0] for run in runs]
    require_one_split(measured)
    accuracies = {run.folder: _percent(each, part) for run, each in zip(runs, measured, strict=True)}
    lines: dict[str, list[tuple[Any, list[float]]]] = {}  # value of the field and accuracies of its runs, by label
    for row in group_runs(runs):
        values = row[0].values
        names = [f"{key} " for key in others] if len(others) > 1 else [""]  # one name is the legend's title
        label = ", ".join(f"{name}{show(values.get(key))}" for name, key in zip(names, others, strict=False))
        lines.setdefault(label, []).append((values.get(field), [accuracies[run.folder] for run in row]))
    figure = new_figure(COLUMN, 2.3)
    axes = figure.subplots()
    position = _value_axis(axes, [value for points in lines.values() for value, _ in points])
    for number, (label, points) in enumerate(lines.items()):
        points.sort(key=lambda point: position(point[0]))
        style = look(number) | ({} if _numeric([value for value, _ in points]) else {"linestyle": "none"})
        where, means, deviations = _mean_and_deviation([(position(value), found) for value, found in points])
        axes.errorbar(where, means, deviations, label=label, capsize=2, elinewidth=0.8, **style)
    axes.set(xlabel=field, ylabel=_accuracy_on(split, part))
    axes.grid(axis="y")
    counts = [len(found) for points in lines.values() for _, found in points]
    subject, facts, _ = describe_measured(measured, part)
    add_title(figure, [subject, facts, runs_scale(runs), spread(counts, "point")])
    if len(lines) > 1:
        add_legend(figure, axes, title=others[0] if len(others) == 1 else "")
    return figure


@figure_style()
def cost_figure(measured: Sequence[Measured], latencies: Latencies, part: str = "standard") -> Figure:
    """Return accuracy against parameters, and against latency; a point is a network, or the mean over a study's seeds.

    Args:
        measured: The networks.
        latencies: How long each takes, from `measure_latencies` or `read_latencies`.
        part: `standard`, or `twin_free` for the images without a twin in the training split.

    Raises:
        DataError: The measurements are not of the same split.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    require_one_split(measured)
    rows = study_rows(measured)
    labels = measured_labels([row[0] for row in rows])
    millions = [count_parameters(row[0]) / 1e6 for row in rows]
    milliseconds = [latencies.of(row[0]) for row in rows]
    figure = new_figure(PAGE, 2.5)
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, costs in ((left, millions), (right, milliseconds)):
        if max(costs) / min(costs) > DECADE:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
    for number, row in enumerate(rows):
        style = look(number) | {"linestyle": "none", "markersize": 6, "capsize": 2, "elinewidth": 0.8}
        for axes, costs in ((left, millions), (right, milliseconds)):
            where, mean, deviation = _mean_and_deviation([(costs[number], [_percent(each, part) for each in row])])
            axes.errorbar(where, mean, deviation, label=labels[number], **style)
    for axes in (left, right):
        axes.margins(x=0.12, y=0.12)
        axes.grid()
    split = measured[0].first["data"]["split"]
    left.set(xlabel=translate("parameters, millions"), ylabel=_accuracy_on(split, part))
    right.set_xlabel(f"{translate('latency of one face in the network, ms')}\n({latencies.machine})")
    add_title(figure, [*describe_measured(measured, part), spread([len(row) for row in rows], "point")])
    add_legend(figure, left)
    return figure


def choose_split(runs: Sequence[Run], split: str | None = None) -> str:
    """Return the split whose results a sweep draws.

    Raises:
        DataError: There are no results, none on this split, or some on several splits and none is chosen.
    """
    found = sorted({name for run in runs for name in run.splits})
    if not found:
        raise DataError(f"{runs[0].folder}: neither this run nor another has results; write them with mien evaluate")
    if split is None and len(found) > 1:
        raise DataError(f"these runs have results on {', '.join(found)}; choose one with --split")
    if split is not None and split not in found:
        raise DataError(f"none of these runs has results on {split!r}{nearest(split, found)}")
    return split or found[0]


def _choose_field(runs: Sequence[Run], field: str | None) -> tuple[str, list[str]]:
    """Return the swept field, and the other fields that differ."""
    keys = differing(runs)
    if field is not None:
        known = sorted({key for run in runs for key in run.values})
        if field not in known:
            raise UnknownNameError(f"no recipe of these runs has the field {field!r}{nearest(field, known)}")
    elif len(keys) > 1:
        raise DataError(f"the recipes of these runs differ in {', '.join(keys)}; choose the swept one with --field")
    field = field or (keys[0] if keys else None)
    if field not in keys:
        raise DataError(
            f"{field or 'every value'} is the same in all of these recipes; a sweep needs runs with two values or more"
        )
    return field, [key for key in keys if key != field]


# Parts of figures -------------------------------------------------------------------------------------------------------


def _draw_matrix(axes: Axes, values: NDArray[Any], classes: Sequence[str], form: str, largest: float) -> None:
    """Draw a matrix with its numbers in the cells, light on dark cells and dark on light ones."""
    from matplotlib import colormaps

    colours = colormaps["Blues"]
    image = axes.imshow(np.nan_to_num(values), cmap=colours, vmin=0, vmax=largest)
    size = float(np.clip(56 / len(classes), 4.5, 7))
    for row, column in np.ndindex(*values.shape):
        value = values[row, column]
        red, green, blue, _ = colours(image.norm(np.nan_to_num(value)))
        dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.5
        text = form.format(value) if np.isfinite(value) else "–"
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color="white" if dark else "black")
    names = list(map(translate, classes))
    axes.set_xticks(range(len(classes)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(classes)), names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _value_axis(axes: Axes, values: Sequence[Any]) -> Callable[[Any], float]:
    """Set ticks at the swept values, on a log axis if they span decades, and return the position of a value."""
    from matplotlib.ticker import NullLocator

    if not _numeric(values):
        names = list(dict.fromkeys(show(value) for value in values))
        axes.set_xticks(range(len(names)), names)
        axes.set_xlim(-0.5, len(names) - 0.5)
        return lambda value: names.index(show(value))
    ticks = sorted(set(values))
    if ticks[0] > 0 and ticks[-1] / ticks[0] > DECADE:
        axes.set_xscale("log")
    labels = [show(value) for value in ticks]
    axes.set_xticks(ticks, labels, rotation=45 if len("  ".join(labels)) > 55 else 0)
    axes.xaxis.set_minor_locator(NullLocator())
    return float


def _numeric(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _mean_and_deviation(points: Sequence[tuple[float, list[float]]]) -> tuple[list[float], list[float], list[float] | None]:
    """Return positions, means and standard deviations (over N) of several values; no deviations if each is one value."""
    deviations = [float(np.std(values)) for _, values in points]
    single = all(len(values) == 1 for _, values in points)
    return [x for x, _ in points], [float(np.mean(values)) for _, values in points], None if single else deviations


def _with_interval(counts: NDArray[np.int64], totals: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return shares in per cent, and how far their intervals reach below and above, (3, K); nan where the total is 0."""
    found = []
    for number, total in zip(counts.tolist(), totals.tolist(), strict=True):
        if not total:
            found.append([np.nan] * 3)
            continue
        share, (low, high) = number / total, interval_of_images(number, total)
        found.append([share, max(0.0, share - low), max(0.0, high - share)])  # not below 0 by rounding
    return 100 * np.array(found).T


def _accuracy_on(split: str, part: str) -> str:
    text = translate("accuracy on {split}, %", split=split)
    return f"{text} ({translate('twin-free')})" if part == "twin_free" else text


def _percent(measured: Measured, part: str) -> float:
    accuracy = measured.accuracy(part)
    if accuracy is None:
        raise DataError(f"{measured.paths[0]}: has no twin-free accuracy; leave --twin-free out")
    return 100 * accuracy
