"""What a study is: a YAML file that names recipes, seeds and folds. Bundled studies are in `mien/studies/<paper>/`.

    name: stn-resnet50/table2
    title: Optimizers (Table II)
    rows:                                    # or: recipe: NAME and grid: {optim.lr: [0.1, 0.01]}
      sgd: {recipe: stn_resnet50/table2-sgd}
      adam: {recipe: stn_resnet50/table1-resnet50}
    reference: adam                          # the row that the others are tested against
    seeds: [0]
    scales:
      cpu: {train.epochs: 15, preprocess.size: [48, 48]}

A scale changes every row so that a smaller machine can finish it. The scale `full` changes nothing.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mien.errors import RecipeError
from mien.recipe import Recipe, load_recipe, recipe_hash
from mien.registry import nearest
from mien.yaml_files import explain_errors, read_yaml_file

FULL = "full"
"""The scale that changes nothing."""


class Row(BaseModel):
    """One row of a study.

    Attributes:
        recipe: A bundled recipe, or a recipe file, relative to the study's file.
        set: Changes of the recipe, by dotted key such as `optim.lr`.
        scales: Changes that this row needs at a scale, on top of the study's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    recipe: str
    set: dict[str, Any] = {}
    scales: dict[str, dict[str, Any]] = {}


class Study(BaseModel):
    """A study: rows x seeds x folds.

    Attributes:
        name: `<paper>/<table>`, or any name that can be a folder.
        title: One line for the heading of the table.
        rows: The rows, by name.
        recipe: Instead of rows: the recipe that `grid` changes.
        grid: Values to try, by dotted key of the recipe. Each combination is a row.
        set: Changes of every row, by dotted key.
        seeds: Seeds; each row is run with each.
        folds: Number of folds; each row is run on each. Needs recipes with a k-fold protocol. None runs the
            recipe's own split.
        split: The split that is measured. None measures the last split of the corpus, its test split.
        reference: The row that the others are tested against.
        scales: Changes of every row, by the name of the scale.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*$")
    title: str = ""
    rows: dict[str, Row] = {}
    recipe: str | None = None
    grid: dict[str, list[Any]] = {}
    set: dict[str, Any] = {}
    seeds: list[int] = Field([0], min_length=1)
    folds: int | None = Field(None, ge=2)
    split: str | None = None
    reference: str | None = None
    scales: dict[str, dict[str, Any]] = {}

    @model_validator(mode="after")
    def _check_rows(self) -> Study:
        if bool(self.rows) == bool(self.recipe):
            raise ValueError("a study has either rows, or a recipe and a grid; give one of the two")
        if bool(self.recipe) != bool(self.grid):
            raise ValueError("grid and recipe belong together: recipe: NAME and grid: {optim.lr: [0.1, 0.01]}")
        if empty := [key for key, values in self.grid.items() if not values]:
            raise ValueError(f"grid.{empty[0]} has no values")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: a seed is given twice")
        rows = self.all_rows()
        if len(rows) < math.prod(map(len, self.grid.values())) and self.grid:
            raise ValueError("grid: two values give rows of the same name; leave one out, or name the rows yourself with rows:")
        changes = [self.set, self.grid, *self.scales.values()]
        changes += [part for row in rows.values() for part in (row.set, *row.scales.values())]
        if any("seed" in part for part in changes):
            raise ValueError("seed: a study has its own list of seeds; write seeds: [0, 1]")
        for scale, values in self.scales.items():
            if both := sorted(set(values) & set(self.grid)):
                raise ValueError(f"scales.{scale}.{both[0]}: the grid varies this key, so a scale cannot set it")
        if FULL in self.scales:
            raise ValueError(f"scales.{FULL}: this scale changes nothing; choose another name")
        names = list(rows)
        if bad := [name for name in names if not re.fullmatch(r"[\w.,=+() -]+", name) or name.startswith(".")]:
            raise ValueError(f"rows.{bad[0]}: the name of a row is letters, digits, spaces and . , = + - _ ( )")
        if self.reference is not None and self.reference not in names:
            raise ValueError(f"reference: unknown row {self.reference!r}{nearest(self.reference, names)}")
        return self

    def all_rows(self) -> dict[str, Row]:
        """Return the rows by name; those of a grid are named after their values, such as `lr=0.1,name=sgd`."""
        if self.recipe is None:
            return self.rows
        keys = list(self.grid)
        short = [key.rpartition(".")[2] for key in keys]
        labels = short if len(set(short)) == len(short) else keys
        rows = {}
        for values in itertools.product(*self.grid.values()):
            name = ",".join(f"{label}={_as_name(value)}" for label, value in zip(labels, values, strict=True))
            rows[name] = Row(recipe=self.recipe, set=dict(zip(keys, values, strict=True)))
        return rows


@dataclass(frozen=True, slots=True)
class Job:
    """One run of a study.

    Attributes:
        study: Name of the study.
        scale: Name of the scale.
        row: Name of the row.
        recipe: The recipe, with seed, fold and scale applied.
        fold: The fold; None without folds.
        split: The split to measure; None for the last of the corpus.
    """

    study: str
    scale: str
    row: str
    recipe: Recipe
    fold: int | None = None
    split: str | None = None

    @property
    def path(self) -> Path:
        """The folder of the run, relative to the folder of all studies."""
        fold = "" if self.fold is None else f"-fold{self.fold}"
        return Path(self.study) / self.scale / self.row / f"seed{self.recipe.seed}{fold}"


def study_names() -> list[str]:
    """Return the names of the bundled studies, sorted."""
    return sorted(path.relative_to(_root()).with_suffix("").as_posix() for path in _root().glob("*/*.yaml"))


def load_study(name_or_path: str) -> Study:
    """Return a validated study.

    Args:
        name_or_path: A bundled name such as `"sa-csp-ca/table2"`, or a YAML file.

    Raises:
        RecipeError: There is no such study, the file is not YAML, or a key or value is wrong.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = _root() / f"{name_or_path}.yaml"
        if name_or_path not in study_names():
            raise RecipeError(f"unknown study {name_or_path!r}{nearest(name_or_path, study_names())}")
    values = read_yaml_file(path, RecipeError)
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: is not a study; a study is a YAML mapping with the keys {', '.join(Study.model_fields)}")
    try:
        study = Study.model_validate(values)
    except ValidationError as error:
        raise RecipeError(f"{path}: {explain_errors(Study, error)}") from None
    return study.model_copy(
        update={
            "rows": {name: row.model_copy(update={"recipe": _near(row.recipe, path)}) for name, row in study.rows.items()},
            "recipe": study.recipe and _near(study.recipe, path),
        }
    )


def create_jobs(
    study: Study, scale: str = FULL, rows: Sequence[str] | None = None, seeds: Sequence[int] | None = None
) -> list[Job]:
    """Return the runs of a study, seed by seed, so that every row has one run before any has two.

    Args:
        study: The study.
        scale: `full`, or one of the study's scales.
        rows: Names of rows; None for all.
        seeds: Seeds instead of the study's.

    Raises:
        RecipeError: Unknown scale or row, a seed given twice, a row's recipe or one of its changes is wrong, two rows are the
            same recipe, or a recipe has no such folds.
    """
    if scale != FULL and scale not in study.scales:
        raise RecipeError(f"{study.name}: unknown scale {scale!r}{nearest(scale, [FULL, *study.scales])}")
    known = study.all_rows()
    for name in rows or ():
        if name not in known:
            raise RecipeError(f"{study.name}: unknown row {name!r}{nearest(name, list(known))}")
    chosen = {name: row for name, row in known.items() if rows is None or name in rows}
    seeds = study.seeds if seeds is None else seeds
    if len(set(seeds)) < len(seeds):
        raise RecipeError(f"{study.name}: a seed is given twice; a run with the same seed would be counted twice")
    jobs = [job for seed in seeds for name, row in chosen.items() for job in _row_jobs(study, scale, name, row, seed)]
    row_of: dict[tuple[str, int], str] = {}
    for job in jobs:
        other = row_of.setdefault((recipe_hash(job.recipe), job.recipe.seed), job.row)
        if other != job.row:
            raise RecipeError(f"{study.name}: the rows {other} and {job.row} are the same recipe at the scale {scale}")
    return jobs


def _row_jobs(study: Study, scale: str, name: str, row: Row, seed: int) -> Iterator[Job]:
    changes = study.set | row.set | study.scales.get(scale, {}) | row.scales.get(scale, {}) | {"seed": seed}
    try:
        recipe = load_recipe(row.recipe, changes)
        if study.folds is None:
            yield Job(study.name, scale, name, recipe, None, study.split)
            return
        for fold in range(study.folds):
            protocol = _with_fold(recipe, fold, study.folds)
            yield Job(
                study.name, scale, name, load_recipe(row.recipe, changes | {"data.protocol": protocol}), fold, study.split
            )
    except RecipeError as error:
        raise RecipeError(f"{study.name}, row {name}: {error}") from None


def _with_fold(recipe: Recipe, fold: int, folds: int) -> list[dict[str, Any]] | dict[str, Any]:
    """Return the protocol of a recipe with another fold."""
    protocol = recipe.data.protocol
    steps = protocol if isinstance(protocol, list) else [protocol]
    if not any(step.get("name") == "kfold" and step.get("folds", 10) == folds for step in steps):
        raise RecipeError(f"data.protocol of {recipe.name} has no {folds} folds; give a recipe with one, or leave out folds")
    changed = [step | {"fold": fold} if step.get("name") == "kfold" else step for step in steps]
    return changed if isinstance(protocol, list) else changed[0]


def _as_name(value: Any) -> str:
    """Return a value as part of a file name: `0.1`, `sgd`, `48x48`."""
    text = "x".join(map(str, value)) if isinstance(value, list) else value if isinstance(value, str) else json.dumps(value)
    name = re.sub(r"[^\w.+-]+", "-", text)
    return (name.strip("-") or "none") if isinstance(value, str) else name


def _near(recipe: str, study: Path) -> str:
    """Return a recipe file relative to the study's file; a bundled name stays."""
    return str(study.parent / recipe) if re.search(r"\.ya?ml(:|$)", recipe) else recipe


def _root() -> Path:
    return Path(str(resources.files("mien") / "studies"))
