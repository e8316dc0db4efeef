"""What figures are drawn from: results files of `mien evaluate`, and folders of runs.

Results are pooled only if they are the folds of one run of a study. Runs are averaged only if their recipes differ in nothing
but seed and fold.
"""

from __future__ import annotations

import copy
import csv
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.errors import DataError, RecipeError
from mien.recipe import parse_recipe
from mien.recipe_parts import ROW_LISTS
from mien.results import read_predictions, read_results
from mien.yaml_files import flatten, read_yaml_file

RECIPE, HISTORY = "recipe.yaml", "history.csv"
"""Files of a run's folder."""

CURVES = ("epoch", "train_accuracy", "val_accuracy")
"""Columns of the history that figures need."""

TEXTS = ("name", "summary", "paper", "deviations", "seed")
"""Keys of a recipe that do not change what a run computes, and the seed."""

CPU, FULL = "cpu", "full"
"""Scales of a study: the bundled smaller one, and the one that leaves recipes as they are."""


# Results files ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Measured:
    """One measurement: a results file, or those of the folds of one run, pooled."""

    paths: tuple[Path, ...]
    results: tuple[dict[str, Any], ...]  # the contents of the files

    @property
    def first(self) -> dict[str, Any]:
        """The first file's contents, for everything that all folds share."""
        return self.results[0]

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """Counts (K, K), summed over the folds: rows are true classes, columns predicted ones."""
        return np.sum([each["confusion"] for each in self.results], axis=0)

    def accuracy(self, part: str = "standard") -> float | None:
        """Return the share of images classified correctly, over all folds; None if a file lacks this part.

        The part is `standard`, or `twin_free` for the images without a twin in the training split.
        """
        parts = [values for each in self.results if (values := each.get(part))]
        if len(parts) < len(self.results):
            return None
        return float(np.average([each["accuracy"] for each in parts], weights=[each["images"] for each in parts]))

    def answers(self) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Return whether each answer is right and its confidence, each (N,), over all folds.

        Raises:
            DataError: The predictions next to a results file are missing or corrupt.
        """
        folds = [read_predictions(path) for path in self.paths]
        right = np.concatenate([probs.argmax(1) == target for _, target, probs in folds])
        return right, np.concatenate([probs.max(1) for _, _, probs in folds])


def pool_folds(paths: Sequence[Path]) -> list[Measured]:
    """Return one measurement per results file, but one for all folds of the same run of a study.

    Raises:
        DataError: A file is not a results file, was edited by hand, or is a fold that does not go with the others.
    """
    groups: dict[Any, list[tuple[Path, dict[str, Any]]]] = {}
    for path in {path.resolve(): path for path in paths}.values():  # a file given twice counts once
        results = _read_results(path)
        study = study_of(results)
        key: Any = path
        if study.get("fold") is not None:
            key = study["name"], study["scale"], study["row"], results["model"]["seed"], results["data"]["split"]
        groups.setdefault(key, []).append((path, results))
    pooled = []
    for files in groups.values():
        measured = Measured(tuple(path for path, _ in files), tuple(results for _, results in files))
        for path, results in files[1:]:
            _require_same(measured.first, results, path, "another fold of the same run")
            if any(measured.first["model"][key] != results["model"][key] for key in ("arch", "arguments", "input")):
                raise DataError(f"{path}: is of another network than the other folds of its run; run the study again")
        folds = Counter(results["study"]["fold"] for _, results in files) if len(files) > 1 else Counter()
        if twice := [str(fold) for fold, count in folds.items() if count > 1]:
            raise DataError(f"fold {twice[0]} is in {_names(measured.paths)}; give each fold once")
        pooled.append(measured)
    return pooled


def one_measurement(measured: Sequence[Measured]) -> Measured:
    """Return the only measurement; raise a `DataError` if there are several."""
    if len(measured) > 1:
        raise DataError(
            f"{_names([each.paths[0] for each in measured])} are not the folds of one run of a study, so they are not pooled; "
            "give one file, or all folds of one run"
        )
    return measured[0]


def require_one_split(measured: Sequence[Measured]) -> None:
    """Raise a `DataError` if measurements are of different splits, corpora, copies of a corpus, classes or scales."""
    for other in measured[1:]:
        _require_same(measured[0].first, other.first, other.paths[0], str(measured[0].paths[0]))


def study_rows(measured: Sequence[Measured]) -> list[list[Measured]]:
    """Return measurements grouped by the row of their study, in order; each without a study is a group of its own."""
    groups: dict[Any, list[Measured]] = {}
    for each in measured:
        study = study_of(each.first)
        groups.setdefault((study["name"], study["scale"], study["row"]) if study else each, []).append(each)
    return list(groups.values())


def measured_labels(measured: Sequence[Measured]) -> list[str]:
    """Return a short name for each measurement: what tells them apart, such as the network or the row of the study."""
    models = [each.first["model"] for each in measured]
    rows = [study_of(each.first).get("row", "") for each in measured]
    recipes = [model["recipe"] or model["arch"] for model in models]
    precisions = [f" ({each.first['precision']})" for each in measured]
    seeds = [f", seed {model['seed']}" for model in models]
    networks = [model["arch"] for model in models]
    for parts in ((rows,), (networks,), (recipes,), (recipes, precisions), (rows, seeds), (recipes, seeds)):
        labels = ["".join(part) for part in zip(*parts, strict=True)]
        if all(part[0] for part in zip(*parts, strict=True)) and len(set(labels)) == len(labels):
            return labels
    return _short_paths([each.paths[0] for each in measured])


def study_of(results: dict[str, Any]) -> dict[str, Any]:
    """Return `name`, `row`, `scale` and `fold` of the study that results belong to; empty outside of a study."""
    return results.get("study") or {}


def scale_of(results: dict[str, Any]) -> str | None:
    """Return the scale of the study that results belong to, such as `cpu`; None at full scale and outside of a study."""
    scale = study_of(results).get("scale")
    return None if scale == FULL else scale


def _read_results(path: Path) -> dict[str, Any]:
    results = read_results(path)
    try:
        counts, standard = np.array(results["confusion"], np.int64), results["standard"]
        complete = counts.shape == (len(results["classes"]),) * 2 and counts.sum() == standard["images"] > 0
    except (KeyError, TypeError, ValueError):
        complete = False
    if not complete:
        raise DataError(
            f"{path}: its confusion matrix is missing or does not fit the classes and images; run mien evaluate again"
        )
    if not np.isclose(np.trace(counts) / counts.sum(), standard["accuracy"], atol=1e-5):
        raise DataError(
            f"{path}: the accuracy is not that of the confusion matrix, so one of them was edited; run mien evaluate again"
        )
    return results


def _require_same(one: dict[str, Any], other: dict[str, Any], path: Path, what: str) -> None:
    for name, key in (("corpus", "corpus"), ("split", "split"), ("copy of the corpus", "fingerprint")):
        if one["data"][key] != other["data"][key]:
            values = "" if key == "fingerprint" else f" ({other['data'][key]}, not {one['data'][key]})"
            raise DataError(f"{path}: was measured on another {name}{values} than {what}; draw them in separate figures")
    if one["classes"] != other["classes"]:
        raise DataError(f"{path}: has other classes than {what}; draw them in separate figures")
    if scale_of(one) != scale_of(other):
        scales = [scale_of(each) or FULL for each in (other, one)]
        raise DataError(
            f"{path}: was measured at another scale ({scales[0]}, not {scales[1]}) than {what}; draw them in separate figures"
        )


# Folders of runs --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Run:
    """The folder of a run of `mien train` or `mien study`."""

    folder: Path
    recipe: dict[str, Any]  # as JSON types, complete with defaults if it is valid in this version

    @cached_property
    def values(self) -> dict[str, Any]:
        """The values of the recipe by dotted key, without texts, seed and fold: what makes two runs differ."""
        recipe = {key: copy.deepcopy(value) for key, value in self.recipe.items() if key not in TEXTS}
        protocol = recipe["data"].get("protocol") or {}
        for step in protocol if isinstance(protocol, list) else [protocol]:
            step.pop("fold", None)
        for key in ROW_LISTS:
            if content := recipe["data"].pop(f"{key}_sha256", None):
                recipe["data"][key] = f"{Path(str(recipe['data'][key])).name} ({content[:8]})"
        return flatten(recipe)

    @cached_property
    def scale(self) -> str | None:
        """The scale of the study that the run is part of, such as `cpu`; None at full scale and outside of a study."""
        if self.splits:
            return scale_of(read_results(self.folder / f"{self.splits[0]}.json"))
        above = self.folder.resolve().parent.parent.name  # <study>/<scale>/<row>/seed<S>
        return CPU if above == CPU and self.folder.name.startswith("seed") else None

    @cached_property
    def history(self) -> dict[str, NDArray[np.float64]] | None:
        """The columns of the history, each (epochs,); None if no epoch is finished.

        Raises:
            DataError: The file is not a history of mien.
        """
        path = self.folder / HISTORY
        if not path.is_file():
            return None
        try:
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            return {name: np.array([float(row[name]) for row in rows]) for name in CURVES} if rows else None
        except (KeyError, TypeError, ValueError):
            raise DataError(
                f"{path}: is not the history of a run; it needs the columns {', '.join(CURVES)} with a number in each row"
            ) from None

    @cached_property
    def splits(self) -> list[str]:
        """The splits that have a results file in the folder, named `<split>.json`."""
        found = []
        for path in sorted(self.folder.glob("*.json")):
            try:
                values = json.loads(path.read_text(encoding="utf-8"))
            except (ValueError, RecursionError):
                continue
            if isinstance(values, dict) and isinstance(values.get("data"), dict) and values["data"].get("split") == path.stem:
                found.append(path.stem)
        return found


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Return the runs in some folders, each a run's own folder or one with runs in it, such as a study's.

    Raises:
        DataError: A folder is missing or has no run in it, or the runs are of several scales.
        RecipeError: A recipe cannot be read.
    """
    found: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; give the folder of a run or of a study")
        paths = [folder / RECIPE] if (folder / RECIPE).is_file() else sorted(folder.rglob(RECIPE))
        if not paths:
            raise DataError(f"{folder}: has no run in it (no {RECIPE}); give the folder that mien train or mien study wrote")
        found |= {path.parent.resolve(): path.parent for path in paths if path.parent.resolve() not in found}
    runs = [Run(folder, _read_recipe(folder / RECIPE)) for folder in found.values()]
    scales = sorted({run.scale or FULL for run in runs})
    if len(scales) > 1:
        raise DataError(
            f"these runs are of different scales ({', '.join(scales)}); give those of one, such as STUDY/{scales[0]}"
        )
    return runs


def group_runs(runs: Sequence[Run]) -> list[list[Run]]:
    """Return runs grouped into rows: the runs of a row have the same recipe apart from seed and fold.

    Raises:
        DataError: Two runs have the same seed and fold as well, so that their mean would count one run twice.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(json.dumps({key: show(value) for key, value in run.values.items()}, sort_keys=True), []).append(run)
    for row in groups.values():
        seen: dict[str, Path] = {}
        for run in row:
            key = json.dumps([run.recipe.get("seed"), run.recipe["data"].get("protocol")], sort_keys=True)
            if key in seen:
                raise DataError(f"{seen[key]} and {run.folder} have the same recipe and seed; leave one out")
            seen[key] = run.folder
    return list(groups.values())


def name_rows(rows: Sequence[Sequence[Run]]) -> tuple[list[str], list[str]]:
    """Return a label for each row, and the dotted keys in which the recipes differ.

    If they differ in one key, its values are the labels; else the folders are.
    """
    keys = differing([row[0] for row in rows])
    if len(keys) == 1:
        return [show(row[0].values.get(keys[0])) for row in rows], keys
    if len(rows) == 1:
        return [rows[0][0].recipe.get("name") or rows[0][0].folder.name], keys
    folders = [row[0].folder for row in rows]
    if all(folder.name.startswith("seed") for folder in folders) and len({folder.parent for folder in folders}) == len(rows):
        folders = [folder.parent for folder in folders]  # the rows of a study
    return _short_paths(folders), keys


def differing(runs: Sequence[Run]) -> list[str]:
    """Return the dotted keys whose values are not the same in all runs."""
    keys = dict.fromkeys(key for run in runs for key in run.values)
    return [key for key in keys if len({show(run.values.get(key)) for run in runs}) > 1]


def show(value: Any) -> str:
    """Return a value of a recipe as a label.

    >>> show(0.0005), show(None), show([48, 48]), show(True), show("sgd")
    ('0.0005', 'none', '[48, 48]', 'true', 'sgd')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else json.dumps(value, sort_keys=True)


def _read_recipe(path: Path) -> dict[str, Any]:
    """Return a recipe as JSON types; one of an older format stays as it is."""
    values = read_yaml_file(path, RecipeError)
    sections = {"model": {"name"}, "data": {"corpus", "train", "select"}, "preprocess": {"size"}, "train": {"epochs"}}
    if not isinstance(values, dict) or not all(
        isinstance(values.get(key), dict) and needed <= set(values[key]) for key, needed in sections.items()
    ):
        raise RecipeError(f"{path}: is not the recipe of a run; give the folder that mien train or mien study wrote")
    try:
        return parse_recipe(values, str(path)).to_dict()
    except RecipeError:
        return values


def _short_paths(paths: Sequence[Path]) -> list[str]:
    """Return paths without the folders that all of them share."""
    absolute = [path.resolve() for path in paths]
    shared = os.path.commonpath([path.parent for path in absolute])
    return [path.relative_to(shared).as_posix() for path in absolute]


def _names(paths: Sequence[Path]) -> str:
    return " and ".join(str(path) for path in paths[:3]) + (" and others" if len(paths) > 3 else "")
