"""Our measurements of the papers' recipes, from the results files.

This module finds the results that measure a bundled recipe on a test split, and pools them: folds into one accuracy, seeds into
mean and interval. It also measures what a choice of protocol is worth in points.
"""

from __future__ import annotations

import contextlib
import csv
import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mien.errors import DataError, RecipeError
from mien.recipe import RENAMED, load_recipe, parse_recipe, recipe_names
from mien.results import digest, read_results
from mien.statistics import interval_of_images, interval_of_runs, mean_and_deviation
from mien.yaml_files import flatten, read_yaml

TEST_SPLITS = ("private_test", "test")
TEXTS = ("name", "summary", "paper", "deviations")
"""Sections of a recipe that do not change what is trained."""
OWN = ("seed", "data.protocol.fold", "model.start", "distill.teachers")
"""Keys in which the runs of one measurement may differ. The last two name files, one per seed."""


@dataclass(frozen=True, slots=True)
class Run:
    """One trained network, measured on a test split in a single view.

    Attributes:
        path: The results file.
        recipe: Name of its recipe, under the present name.
        scale: `full`, or the name of a study's smaller scale.
        changed: Keys that were set to other values than the bundled recipe has.
        settings: Digest of what was trained. Runs of one recipe and other settings are never averaged.
        fingerprint: Fingerprint of the corpus. Runs on different data are never averaged.
        seed: Seed of the run.
        fold: Fold that was the test split, or None.
        images: Number of test images.
        correct: Number that were classified correctly.
        free_images: Number of test images without a byte-identical twin in training; 0 if unknown.
        free_correct: Number of these that were classified correctly.
        epochs: Epochs that were run, and planned; None if unknown.
        date: Date of the evaluation.
    """

    path: Path
    recipe: str
    scale: str
    changed: tuple[str, ...]
    settings: str
    fingerprint: str
    seed: int
    fold: int | None
    images: int
    correct: float
    free_images: int
    free_correct: float
    epochs: tuple[int, int] | None
    date: str

    @property
    def twin_cost(self) -> float | None:
        """Points of accuracy that the figure loses without twins, or None if twins are unknown."""
        if not self.free_images:
            return None
        return 100 * (self.correct / self.images - self.free_correct / self.free_images)


@dataclass(frozen=True, slots=True)
class Measurement:
    """The runs of one recipe with the same settings and data.

    Attributes:
        runs: The runs, one per seed and fold.
        accuracy: Mean over the seeds, in per cent. The folds of a seed are pooled: the share of all their images.
        deviation: Standard deviation over the seeds, in points, divided by N as in equation 9 of vgg16_gcca; None for one seed.
        interval: 95 % interval in per cent: Student's over the seeds, or for one seed Wilson's over its test images.
        twin_free: As `accuracy`, on images without a byte-identical twin in training; None if twins are unknown.
        seeds: Number of seeds.
        folds: Number of folds of each seed; 0 without folds.
    """

    runs: tuple[Run, ...]
    accuracy: float
    deviation: float | None
    interval: tuple[float, float]
    twin_free: float | None
    seeds: int
    folds: int


def find_results(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Return every evaluation below a folder, sorted by path.

    Raises:
        DataError: A file is not JSON, or was edited by hand.
    """
    found = []
    for path in sorted(folder.rglob("*.json")):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{path}: cannot be read as JSON ({error})") from None
        if isinstance(values, dict) and {"model", "data", "standard"} <= set(values):  # not an audit
            found.append((path, read_results(path)))
    return found


def find_runs(folder: Path) -> list[Run]:
    """Return the runs below a folder: single-view evaluations on a test split of a bundled recipe's own corpus.

    Int8 copies of a network do not count. If a run's folder holds several evaluations, the one by torch counts, and of several
    the newest.

    Raises:
        DataError: A file was edited by hand, or is not JSON.
    """
    best: dict[tuple[Any, ...], tuple[tuple[bool, str], Run]] = {}
    for path, values in find_results(folder):
        name = RENAMED.get(values["model"].get("recipe", ""), values["model"].get("recipe", ""))
        if name not in recipe_names() or values["data"]["split"] not in TEST_SPLITS:
            continue
        if values.get("view") != "single" or values.get("precision") == "int8":
            continue
        if values["data"]["corpus"] != load_recipe(name).data.corpus:
            continue
        run = _read_run(path, values, name)
        key = (run.recipe, run.scale, run.settings, run.fingerprint, run.seed, run.fold)
        rank = (values.get("backend") == "torch", run.date)
        if key not in best or rank > best[key][0]:
            best[key] = (rank, run)
    return [run for _, run in best.values()]


def _read_run(path: Path, values: dict[str, Any], name: str) -> Run:
    model, data, standard, free = (values.get(key) or {} for key in ("model", "data", "standard", "twin_free"))
    study = values.get("study") or {}
    own = read_yaml(file.read_text(encoding="utf-8")) if (file := path.with_name("recipe.yaml")).is_file() else {}
    trained = values.get("training") or {}
    done, planned = trained.get("epochs") or len(read_history(path.parent)), own.get("train", {}).get("epochs", 0)
    protocol = own.get("data", {}).get("protocol")
    fold = study.get("fold", protocol.get("fold") if isinstance(protocol, dict) else None)
    return Run(
        path=path,
        recipe=name,
        scale=study.get("scale", "full"),
        changed=_changes(own, name),
        settings=digest(_settings(own, name)) if own else model.get("recipe_hash") or "",
        fingerprint=data["fingerprint"],
        seed=model.get("seed") or 0,
        fold=fold,
        images=standard["images"],
        correct=standard["accuracy"] * standard["images"],
        free_images=free.get("images", 0),
        free_correct=free.get("accuracy", 0.0) * free.get("images", 0),
        epochs=(done, planned) if done and planned else None,
        date=values.get("date", ""),
    )


def _changes(own: dict[str, Any], name: str) -> tuple[str, ...]:
    """Return the keys in which a run's recipe differs from the bundled one. A key that one of them lacks is not compared."""
    bundled = _settings(load_recipe(name).to_dict(), name)
    return tuple(key for key, value in _settings(own, name).items() if key in bundled and value != bundled[key])


def _settings(values: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the values of a recipe that define what is trained, by dotted key: without its texts, seed, fold and files.

    Defaults are filled in, unless the recipe has an older format.
    """
    with contextlib.suppress(RecipeError):
        values = parse_recipe(values, name).to_dict()
    return {key: value for key, value in flatten(values).items() if key.split(".")[0] not in TEXTS and key not in OWN}


def measure(runs: Iterable[Run]) -> dict[str, list[Measurement]]:
    """Return the measurements of each recipe: one for each set of runs with the same scale, settings and data.

    The full scale comes first, then the settings of the bundled recipe, then the newest.
    """
    groups: dict[tuple[str, ...], list[Run]] = {}
    newest_first = sorted(runs, key=lambda run: run.date, reverse=True)
    for run in sorted(newest_first, key=lambda run: (run.scale != "full", len(run.changed))):
        groups.setdefault((run.recipe, run.scale, run.settings, run.fingerprint), []).append(run)
    found: dict[str, list[Measurement]] = {}
    for (recipe, *_), group in groups.items():
        found.setdefault(recipe, []).append(pool(group))
    return found


def pool(runs: list[Run]) -> Measurement:
    """Return the measurement of runs with the same settings and data, one per seed and fold.

    A seed with fewer folds than another is left out.

    Raises:
        DataError: The runs differ in their data.
    """
    if len({run.fingerprint for run in runs}) > 1:
        raise DataError(f"runs on different data are not averaged: {', '.join(str(run.path) for run in runs)}")
    by_seed = {seed: [run for run in runs if run.seed == seed] for seed in sorted({run.seed for run in runs})}
    folds = max(len({run.fold for run in own} - {None}) for own in by_seed.values())
    seeds = [own for own in by_seed.values() if len({run.fold for run in own} - {None}) == folds]
    shares = [100 * sum(run.correct for run in own) / sum(run.images for run in own) for own in seeds]
    if len(seeds) > 1:
        low, high = interval_of_runs(shares)
    else:
        wilson = interval_of_images(round(sum(run.correct for run in seeds[0])), sum(run.images for run in seeds[0]))
        low, high = (100 * bound for bound in wilson)
    free = [
        100 * sum(run.free_correct for run in own) / sum(run.free_images for run in own)
        for own in seeds
        if all(run.free_images for run in own)
    ]
    return Measurement(
        runs=tuple(run for own in seeds for run in own),
        accuracy=statistics.fmean(shares),
        deviation=mean_and_deviation(shares)[1] if len(shares) > 1 else None,
        interval=(low, high),
        twin_free=statistics.fmean(free) if len(free) == len(seeds) else None,
        seeds=len(seeds),
        folds=folds,
    )


def read_history(run: Path) -> list[dict[str, float]]:
    """Return the epochs of a run's `history.csv`; none if it has no such file. What was not measured is left out."""
    if not (run / "history.csv").is_file():
        return []
    with (run / "history.csv").open(newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items() if value != "nan"} for row in csv.DictReader(file)]


def selection_gain(history: list[dict[str, float]], reach: int = 2) -> float:
    """Return how many points the best epoch is above its neighbours: the gain of choosing the epoch on the reported images.

    An epoch chosen on other images would be expected to reach the mean of the epochs around the best one, which differ from it
    by chance. So the estimate needs no test images. Neighbours resemble each other, so it is a lower bound.

    Args:
        history: The epochs of a run, with `val_accuracy` in 0 to 1.
        reach: How many epochs on each side are neighbours.
    """
    accuracy = [100 * epoch["val_accuracy"] for epoch in history]
    best = max(range(len(accuracy)), key=accuracy.__getitem__)
    near = [accuracy[i] for i in range(max(0, best - reach), min(len(accuracy), best + reach + 1)) if i != best]
    return accuracy[best] - statistics.fmean(near)


def view_gains(folder: Path, view: str = "ten") -> list[float]:
    """Return how many points several views of each image add, for every network that was measured both ways on one split."""
    single: dict[tuple[Any, ...], float] = {}
    several: dict[tuple[Any, ...], float] = {}
    for _, values in find_results(folder):
        key = (values["model"]["weights_sha256"], values["data"]["split"], values["data"]["fingerprint"], values["backend"])
        if values["view"] in ("single", view):
            (single if values["view"] == "single" else several)[key] = 100 * values["standard"]["accuracy"]
    return [accuracy - single[key] for key, accuracy in several.items() if key in single]


def gaps(measured: dict[str, list[Measurement]], ending: str, other: str) -> list[float]:
    """Return the differences in points between recipes that differ in their protocol only, at the same scale.

    Args:
        measured: The measurements of each recipe.
        ending: End of the names of the recipes with the easier protocol, such as `-random`.
        other: What the other recipe has instead, such as nothing or `-subject`.
    """
    found = []
    for name, mine in measured.items():
        theirs = measured.get(name.removesuffix(ending) + other, []) if name.endswith(ending) else []
        same = [(a, b) for a in mine for b in theirs if (a.runs[0].scale, a.folds) == (b.runs[0].scale, b.folds)]
        found += [a.accuracy - b.accuracy for a, b in same[:1]]
    return found
