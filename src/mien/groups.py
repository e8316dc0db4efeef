"""Accuracy, recall, calibration and detection rate by group of people or images, by fairlearn's MetricFrame.

Every figure has a 95 % interval. Of each metric the largest gap between two groups is named, with the interval of the gap and
whether it is more than chance. `mien evaluate --group-by` writes the result.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mien.datasets import CORPORA, Corpus
from mien.datasets.manifest import table_columns
from mien.errors import DataError, require
from mien.metrics import BINS, classification_report
from mien.statistics import Interval, interval_of_images, interval_of_sum

MAX_GROUPS = 50
"""Most groups of a column; one with more values holds numbers or names."""

MIN_IMAGES = 5
"""Fewest images of a group for a figure to be compared with another group's."""

RESAMPLES = 999
"""Random draws for what chance alone does to the calibration error."""

MISSING = ("", "nan", "NaN", "NA", "N/A")
"""What stands for an unknown value, as pandas and R write it."""


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """The group of each image, by column.

    Attributes:
        columns: Its value for every image of the corpus, (N,).
        faces: Its value for every marked face of photos, (M,), also of those that were not found; None if the images are crops.
        found: Whether the detector found each marked face, bool (M,).
    """

    columns: Mapping[str, Sequence[str]]
    faces: Mapping[str, Sequence[str]] | None = None
    found: NDArray[np.bool_] | None = None

    def check(self, rows: NDArray[np.int64]) -> None:
        """Refuse a column that makes no groups of some images of the corpus.

        Raises:
            DataError: The column is empty or has too many values.
        """
        for name, values in self.columns.items():
            words = names_of([*(values[row] for row in rows), *((self.faces or {}).get(name, ()))])
            if not words:
                raise DataError(f"the column {name!r} is empty for all {len(rows):,} images; group by another one")
            if len(words) > MAX_GROUPS:
                raise DataError(
                    f"the column {name!r} has {len(words):,} different values, such as {words[0]!r} and {words[1]!r}, and at "
                    f"most {MAX_GROUPS} groups can be compared; write ranges such as 20-39 in a column, and group by that"
                )


def read_groups(corpus: Corpus, source: Path, columns: Sequence[str], table: Path | None = None) -> Groups:
    """Return the groups of a corpus's images.

    Args:
        corpus: The corpus.
        source: The file or folder it was read from.
        columns: Names of columns: of the manifest, `gender`, `race` or `age` of RAF-DB, or of `table`.
        table: A CSV or Parquet file with these columns, and `path` or `row` to say which image a row is about.

    Raises:
        DataError: A column is missing, or the table does not fit the corpus.
    """
    own = CORPORA.get(corpus.name).columns
    if table is not None:
        base = source if source.is_dir() else source.parent
        return Groups(table_columns(table, columns, corpus.files, len(corpus.target), base))
    if own is None:
        key = "path" if corpus.files else "row"
        raise DataError(
            f"{corpus.name} has no columns to group by; give a table with the columns {key} and {columns[0]}: --groups FILE.csv"
        )
    return Groups(own(source, corpus.files, columns))


def names_of(values: Sequence[str]) -> list[str]:
    """Return the different values that are known, numbers in them in ascending order.

    >>> names_of(["40-69", "4-19", "", "20-39", "4-19"])
    ['4-19', '20-39', '40-69']
    """
    known = {str(value) for value in values} - set(MISSING)
    return sorted(known, key=lambda name: [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)])


class _Figure(NamedTuple):
    """A figure of a group, with what is needed to compare it with another group's."""

    value: float
    interval: Callable[[float], Interval]  # at a level, such as 0.95; it may reach outside the range of the figure
    images: int  # that the figure is about; 0 if it cannot be compared


def measure_groups(
    groups: Groups,
    column: str,
    rows: NDArray[np.int64],
    target: NDArray[np.int64],
    probs: NDArray[np.float32],
    classes: Sequence[str],
) -> dict[str, Any]:
    """Return the figures of each group of a column, and the largest gaps, as JSON types.

    Args:
        groups: The groups of the corpus's images.
        column: One of its columns.
        rows: The measured rows of the corpus, (N,).
        target: Their classes, (N,).
        probs: Their probabilities, (N, K).
        classes: The K classes.

    Returns:
        `groups`: by name, `images`, `accuracy`, `uar`, `recall` by class and `ece`, as in
        `mien.metrics.classification_report`; `overconfidence`, the mean confidence minus the accuracy; and of photos,
        `detection_rate`, the share of the `faces` that were found. Each has a 95 % interval, `accuracy_interval` and so on:
        Wilson's of shares and of the accuracy in `overconfidence`, `interval_of_sum` of the recalls for `uar`. In its place,
        `ece` has `ece_by_chance`: the central 95 % of the errors of a perfectly calibrated model on these images.

        `gaps`: by metric, the `largest` gap and the groups it is `between`, the larger figure first; its `interval`;
        `more_than_chance`, whether the interval excludes 0; and `pairs`, all pairs of groups of which that is so. The interval
        is by `interval_of_sum`, at 95 % with Bonferroni's correction for the number of pairs. Of `ece` the interval is None and
        a permutation test decides (`p`). Groups take part with figures about `MIN_IMAGES` images or more, and in `uar` only if
        they have every class.

        `missing`: images without a value; `missing_faces`: marked faces without one.

    Raises:
        MissingExtraError: fairlearn is not installed.
    """
    metric_frame = require("fairlearn.metrics", "analyse").MetricFrame
    values = np.array([groups.columns[column][row] for row in rows], str)
    known = ~np.isin(values, MISSING)
    values, target, probs = values[known], target[known], probs[known]
    confidence, right = probs.max(1).astype(np.float64), probs.argmax(1) == target
    faces = np.array((groups.faces or {}).get(column, ()), str)
    reports: dict[str, Any] = {}
    if len(values):
        frame = metric_frame(
            metrics=lambda true, images: classification_report(probs[images], true, classes),
            y_true=target,
            y_pred=np.arange(len(target)),
            sensitive_features=values,
        )
        reports = frame.by_group.to_dict()
    figures, shown = dict[str, dict[str, _Figure]](), dict[str, Any]()
    for name in names_of([*values, *faces]):
        own, found = figures.setdefault(name, {}), values == name
        if groups.found is not None and (faces == name).any():
            own["detection_rate"] = _share(groups.found[faces == name])
        if found.any():
            own |= _figures(target[found], confidence[found], right[found], classes, len(np.unique(target)))
        ece = reports[name]["ece"] if found.any() else None
        shown[name] = {
            "images": int(found.sum()),
            **_with_interval(own, "accuracy"),
            **_with_interval(own, "uar"),
            "recall": {each: own[key].value if (key := f"recall {each}") in own else None for each in classes},
            "recall_interval": {each: _interval(own.get(f"recall {each}")) for each in classes},
            "ece": ece,
            "ece_by_chance": None if ece is None else _calibrated_range(confidence[found]),
            **_with_interval(own, "overconfidence"),
            "faces": None if groups.found is None else int((faces == name).sum()),
            **_with_interval(own, "detection_rate"),
        }
    gaps = _gaps(figures) | _calibration_gap({name: group["ece"] for name, group in shown.items()}, values, confidence, right)
    return {
        "groups": shown,
        "gaps": gaps,
        "missing": int((~known).sum()),
        "missing_faces": None if groups.found is None else int(np.isin(faces, MISSING).sum()),
    }


def _figures(
    target: NDArray[np.int64],
    confidence: NDArray[np.float64],
    right: NDArray[np.bool_],
    classes: Sequence[str],
    num_present: int,
) -> dict[str, _Figure]:
    """Return the figures of a group that have an interval, by metric; `num_present` classes are in some group."""
    accuracy, mean = _share(right), float(confidence.mean())
    recalls = {f"recall {classes[i]}": _share(right[target == i]) for i in np.unique(target)}

    def of_uar(level: float) -> Interval:
        return interval_of_sum(
            [(each.value, each.interval(level)) for each in recalls.values()], [1 / len(recalls)] * len(recalls)
        )

    def of_overconfidence(level: float) -> Interval:
        low, high = accuracy.interval(level)
        return mean - high, mean - low

    uar = float(np.mean([each.value for each in recalls.values()]))
    return {
        "accuracy": accuracy,
        "uar": _Figure(uar, of_uar, len(right) if len(recalls) == num_present else 0),
        "overconfidence": _Figure(mean - accuracy.value, of_overconfidence, len(right)),
        **recalls,
    }


def _share(right: NDArray[np.bool_]) -> _Figure:
    count, images = int(right.sum()), len(right)
    return _Figure(count / images, cache(lambda level: interval_of_images(count, images, level)), images)


def _interval(figure: _Figure | None) -> list[float] | None:
    return None if figure is None else [min(max(end, -1.0), 1.0) for end in figure.interval(0.95)]


def _with_interval(figures: Mapping[str, _Figure], metric: str) -> dict[str, Any]:
    """Return a figure and its interval as results files have them."""
    figure = figures.get(metric)
    return {metric: figure and figure.value, f"{metric.removesuffix('_rate')}_interval": _interval(figure)}


def _gaps(figures: Mapping[str, Mapping[str, _Figure]]) -> dict[str, dict[str, Any]]:
    """Return the largest gap between two groups in each metric that has intervals."""
    gaps = {}
    for metric in dict.fromkeys(metric for group in figures.values() for metric in group):
        compared = {
            name: each[metric] for name, each in figures.items() if metric in each and each[metric].images >= MIN_IMAGES
        }
        if len(compared) < 2:
            continue
        order = sorted(compared, key=lambda name: compared[name].value, reverse=True)
        level = 1 - 0.05 / comb(len(order), 2)
        ends = {name: (each.value, each.interval(level)) for name, each in compared.items()}
        intervals = {pair: interval_of_sum([ends[name] for name in pair], [1, -1]) for pair in combinations(order, 2)}
        between = (order[0], order[-1])
        gaps[metric] = {
            "largest": ends[between[0]][0] - ends[between[1]][0],
            "between": list(between),
            "interval": [min(max(end, -2.0), 2.0) for end in intervals[between]],
            "more_than_chance": intervals[between][0] > 0,
            "pairs": [list(pair) for pair, interval in intervals.items() if interval[0] > 0],
        }
    return gaps


# The calibration error. No bootstrap: it is far from 0 in few images by chance alone, and resamples add to that. Of two
# calibrated groups of 30 and 300 images, intervals from a bootstrap that is corrected for bias differ in 4 of 10 cases.


def _calibrated_range(confidence: NDArray[np.float64]) -> list[float]:
    """Return the central 95 % of the calibration errors of a perfectly calibrated model with these confidences, (N,)."""
    random, bins = np.random.default_rng(0), _bins(confidence)
    errors = np.empty(RESAMPLES)
    for number in range(RESAMPLES):
        excess = confidence - (random.random(len(confidence)) < confidence)
        errors[number] = np.abs(np.bincount(bins, excess)).sum() / len(confidence)
    return np.quantile(errors, [0.025, 0.975]).tolist()


def _calibration_gap(
    errors: Mapping[str, float | None], values: NDArray[np.str_], confidence: NDArray[np.float64], right: NDArray[np.bool_]
) -> dict[str, dict[str, Any]]:
    """Return the largest gap in the calibration error, if two groups are large enough, and whether shuffled groups have it."""
    order = [
        name for name, _ in sorted(errors.items(), key=lambda pair: -(pair[1] or 0)) if (values == name).sum() >= MIN_IMAGES
    ]
    if len(order) < 2:
        return {}
    inside = np.isin(values, order)
    group, sizes = np.array([order.index(name) for name in values[inside]]), [(values == name).sum() for name in order]
    bins, excess = _bins(confidence[inside]), confidence[inside] - right[inside]

    def largest(group: NDArray[np.int64]) -> float:
        sums = np.bincount(group * (BINS + 1) + bins, excess, len(order) * (BINS + 1)).reshape(len(order), -1)
        return float(np.ptp(np.abs(sums).sum(1) / sizes))

    random, gap = np.random.default_rng(0), largest(group)
    by_chance = sum(largest(random.permutation(group)) >= gap for _ in range(RESAMPLES))
    p = (by_chance + 1) / (RESAMPLES + 1)
    found = {"largest": gap, "between": [order[0], order[-1]], "interval": None, "more_than_chance": p < 0.05, "p": p}
    return {"ece": found | {"pairs": [[order[0], order[-1]]] if p < 0.05 else []}}


def _bins(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the bin of each confidence, as torchmetrics counts them."""
    return np.searchsorted(np.linspace(0, 1, BINS + 1, dtype=np.float32), confidence.astype(np.float32), side="right") - 1


def group_notes(column: str, found: dict[str, Any]) -> list[str]:
    """Return what a reader of a column's figures must know, in sentences; `found` is what `measure_groups` returned."""
    lines, groups = [], found["groups"]
    counts = {name: group["images"] if group["faces"] is None else group["faces"] for name, group in groups.items()}
    for key, word in (("missing", "images"), ("missing_faces", "marked faces")):
        if found[key]:
            lines.append(f"{column} is unknown of {found[key]:,} {word}, which are in no group")
    if small := [f"{name} ({count:,})" for name, count in counts.items() if count < MIN_IMAGES]:
        lines.append(f"too small to be compared (fewer than {MIN_IMAGES}): {', '.join(small)}")
    if len(groups) == 1:
        lines.append(f"{column} has only one group, {next(iter(groups))}, so there is nothing to compare")
    elif "uar" not in found["gaps"] and sum(count >= MIN_IMAGES for count in counts.values()) > 1:
        lines.append("uar is not compared, because fewer than two groups have images of every class")
    for metric, gap in found["gaps"].items():
        for high, low in gap["pairs"]:
            if [high, low] != gap["between"]:
                lines.append(f"{metric} also differs more than by chance between {high} and {low}")
    return lines
