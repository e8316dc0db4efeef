"""The table of a study: each row's measured figures next to the reported one."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.atomic import atomic_path
from mien.engine.devices import count_parameters
from mien.errors import DataError
from mien.results import predictions_path, read_predictions, read_results, require_same_data
from mien.statistics import (
    Comparison,
    Interval,
    bootstrap_of_seeds,
    interval_of_images,
    interval_of_runs,
    mcnemar,
    mean_and_deviation,
)
from mien.study.run import Folders
from mien.study.specification import FULL, Job
from mien.text import escape_formula

HEADER = (
    *("row", "recipe", "reported", "standard", "deviation", "interval low", "interval high", "twin-free"),
    *("macro F1", "balanced accuracy", "runs", "seeds", "folds", "of runs"),
    *("difference", "p", "difference low", "difference high", "parameters", "minutes a run"),
)


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of a study's table. Accuracies are in [0, 1]; reported ones in per cent, as the paper gives them.

    Attributes:
        name: Name of the row.
        recipe: Name of its recipe.
        reported: Reported accuracies in per cent, by corpus and protocol.
        accuracy: Mean accuracy over seeds, of the matrix that pools the folds; None without a complete seed.
        deviation: Standard deviation with divisor N, over seeds, or over the folds of the only seed; None for one run.
        interval: 95 % interval: over seeds by Student's t, or for the only seed over images by Wilson.
        twin_free: As `accuracy`, on the images without a byte-identical twin in training; None if that is unknown.
        macro_f1: Mean F1 of the classes, from the matrix that pools all runs; None without one.
        uar: Mean recall of the classes (balanced accuracy), likewise.
        confusion: Counts (K, K) over all runs; rows are true classes.
        classes: The K classes.
        seeds: Seeds of which every fold is measured.
        runs: Runs that are measured.
        expected: Runs the study has.
        comparison: The row against the reference; None for the reference itself.
        parameters: Number of parameters of the network.
        seconds: Mean duration of the training of a run; None if unknown.
    """

    name: str
    recipe: str
    reported: dict[str, float]
    accuracy: float | None
    deviation: float | None
    interval: Interval | None
    twin_free: float | None
    macro_f1: float | None
    uar: float | None
    confusion: NDArray[np.int64] | None
    classes: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: int
    expected: int
    folds: int | None
    comparison: Comparison | None
    parameters: int
    seconds: float | None


@dataclass(frozen=True, slots=True)
class _Run:
    """A measured run: how many of its images are correct, and which, in order of their rows in the corpus.

    The predictions are not at hand if the licence of the corpus does not let them be passed on; `correct` is None then.
    """

    job: Job
    results: dict[str, Any]
    images: int
    hits: int
    correct: NDArray[np.bool_] | None

    @property
    def accuracy(self) -> float:
        return self.hits / self.images


def create_table(jobs: Sequence[Job], folders: Folders, reference: str | None = None) -> list[TableRow]:
    """Return the table of a study from its results files.

    A seed counts once all its folds are measured.

    Args:
        jobs: The runs of the study.
        folders: Where its files are.
        reference: The row that the others are tested against.

    Raises:
        DataError: A results file was edited by hand, or runs were measured on different data.
    """
    runs = [_read(job, path) for job in jobs if (path := folders.results_file(job))]
    by_fold: dict[int | None, list[_Run]] = defaultdict(list)
    for run in runs:
        by_fold[run.job.fold].append(run)
    for same in by_fold.values():
        require_same_data([run.results for run in same], [str(run.job.path) for run in same])
    for run in runs[1:]:
        if run.results["data"]["fingerprint"] != runs[0].results["data"]["fingerprint"]:
            raise DataError(f"{runs[0].job.path} and {run.job.path} were measured on different data; run one of them again")
    names = list(dict.fromkeys(job.row for job in jobs))
    complete = {name: _complete_seeds([job for job in jobs if job.row == name], runs) for name in names}
    return [
        _create_row(
            [job for job in jobs if job.row == name],
            complete[name],
            [run for run in runs if run.job.row == name],
            None if reference in (None, name) else complete.get(str(reference)),
        )
        for name in names
    ]


def _read(job: Job, path: Path) -> _Run:
    results = read_results(path)
    confusion, correct = np.array(results["confusion"], np.int64), None
    if predictions_path(path).is_file():
        rows, target, probs = read_predictions(path)
        correct = (probs.argmax(1) == target)[np.argsort(rows)]
    return _Run(job, results, int(confusion.sum()), int(np.trace(confusion)), correct)


def _complete_seeds(jobs: Sequence[Job], runs: Sequence[_Run]) -> dict[int, list[_Run]]:
    """Return the runs of a row by seed, for the seeds of which every fold is measured."""
    by_seed = {}
    for seed in dict.fromkeys(job.recipe.seed for job in jobs):
        wanted = [job for job in jobs if job.recipe.seed == seed]
        found = [run for run in runs if run.job in wanted]
        if len(found) == len(wanted):
            by_seed[seed] = found
    return by_seed


def _create_row(
    jobs: Sequence[Job], seeds: dict[int, list[_Run]], runs: Sequence[_Run], reference: dict[int, list[_Run]] | None
) -> TableRow:
    recipe = jobs[0].recipe
    accuracies = [_accuracy(group) for group in seeds.values()]
    accuracy, deviation, interval = None, None, None
    if len(accuracies) > 1:
        (accuracy, deviation), interval = mean_and_deviation(accuracies), interval_of_runs(accuracies)
    elif accuracies:
        (only,) = seeds.values()
        hits, images = sum(run.hits for run in only), sum(run.images for run in only)
        accuracy, interval = accuracies[0], interval_of_images(hits, images)
        deviation = mean_and_deviation([run.accuracy for run in only])[1] if len(only) > 1 else None
    measured = [run for group in seeds.values() for run in group]
    confusion = sum(np.array(run.results["confusion"], np.int64) for run in measured) if measured else None
    macro_f1, uar = (None, None) if confusion is None else _class_means(confusion)  # type: ignore[arg-type]
    twin_free = [_twin_free(group) for group in seeds.values()]
    seconds = [(run.results["training"] or {}).get("seconds") for run in runs]
    known = [each for each in seconds if each]
    return TableRow(
        name=jobs[0].row,
        recipe=recipe.name,
        reported=recipe.paper.reported if recipe.paper else {},
        accuracy=accuracy,
        deviation=deviation,
        interval=interval,
        twin_free=float(np.mean(twin_free)) if twin_free and None not in twin_free else None,  # type: ignore[arg-type]
        macro_f1=macro_f1,
        uar=uar,
        confusion=confusion,  # type: ignore[arg-type]
        classes=tuple(runs[0].results["classes"]) if runs else (),
        seeds=tuple(seeds),
        runs=len(runs),
        expected=len(jobs),
        folds=len({job.fold for job in jobs}) if jobs[0].fold is not None else None,
        comparison=_compare(seeds, reference) if reference is not None else None,
        parameters=count_parameters(recipe),
        seconds=float(np.mean(known)) if known else None,
    )


def _class_means(confusion: NDArray[np.int64]) -> tuple[float, float]:
    """Return macro F1 and balanced accuracy, over the classes that have images."""
    hits, true, predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    present = true > 0
    f1, recall = 2 * hits[present] / (true + predicted)[present], hits[present] / true[present]
    return float(f1.mean()), float(recall.mean())


def _accuracy(runs: Sequence[_Run]) -> float:
    """Return the accuracy over the images of several folds together."""
    return sum(run.hits for run in runs) / sum(run.images for run in runs)


def _twin_free(runs: Sequence[_Run]) -> float | None:
    """Return the twin-free accuracy over several folds together; None if a fold does not have it."""
    parts = [run.results["twin_free"] for run in runs]
    if any(part is None for part in parts):
        return None
    return float(np.average([part["accuracy"] for part in parts], weights=[part["images"] for part in parts]))


def _compare(seeds: dict[int, list[_Run]], reference: dict[int, list[_Run]]) -> Comparison | None:
    common = [seed for seed in seeds if seed in reference]
    if not common:
        return None
    ours, theirs = ([run.correct for run in group[common[0]] if run.correct is not None] for group in (seeds, reference))
    if not len(ours) == len(theirs) == len(seeds[common[0]]):  # the test needs the predictions
        return None
    differences = [_accuracy(seeds[seed]) - _accuracy(reference[seed]) for seed in common]
    return Comparison(
        float(np.mean(differences)),
        mcnemar(np.concatenate(ours), np.concatenate(theirs)),
        bootstrap_of_seeds(differences) if len(common) > 2 else None,
    )


def write_table(folder: Path, rows: Iterable[TableRow]) -> Path:
    """Write the table as `table.csv` into a folder; return its path. Accuracies are in per cent.

    Raises:
        OutputError: The file cannot be written.
    """
    path = folder / "table.csv"
    with atomic_path(path) as tmp_path, tmp_path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        writer.writerows(_cells(row) for row in rows)
    return path


def _cells(row: TableRow) -> list[str]:
    low, high = row.interval or (None, None)
    comparison = row.comparison
    difference_low, difference_high = (comparison.interval if comparison else None) or (None, None)
    return [
        escape_formula(row.name),
        escape_formula(row.recipe),
        reported_text(row.reported),
        *map(percent, (row.accuracy, row.deviation, low, high, row.twin_free, row.macro_f1, row.uar)),
        str(row.runs),
        str(len(row.seeds)),
        "" if row.folds is None else str(row.folds),
        str(row.expected),
        percent(comparison.difference) if comparison else "",
        f"{comparison.p:.2g}" if comparison else "",
        percent(difference_low),
        percent(difference_high),
        str(row.parameters),
        "" if row.seconds is None else f"{row.seconds / 60:.1f}",
    ]


def percent(value: float | None) -> str:
    """Return a share in per cent with two decimals; empty if there is none."""
    return "" if value is None else f"{100 * value:.2f}"


def reported_text(reported: dict[str, float]) -> str:
    """Return reported accuracies with what they were measured on: `77.15 (fer2013 random split)`."""
    return "; ".join(f"{value:.2f} ({key.replace('_', ' ')})" for key, value in reported.items())


def heading(title: str, scale: str, changes: dict[str, Any]) -> str:
    """Return the heading of a table; a smaller scale is named, with what it changes."""
    if scale == FULL:
        return title
    return f"{title}, at the scale {scale} ({', '.join(f'{key}={value}' for key, value in changes.items())})"
