"""Recipes: everything that defines a training run, read from YAML and validated.

A recipe file holds one recipe. A file with `variants` holds one recipe per variant, and its other values are what they share:

    name: sa_csp_ca                      # the first part of every variant's name
    model: {name: sa_csp_ca, ...}
    optim: {name: sgd, lr: 0.1, ...}
    variants:
      table2-base-g8:                    # the recipe sa_csp_ca/table2-base-g8
        summary: Base(g=8) of Table 2
        optim: {lr: 0.05}                # the other values of optim stay

A variant is a recipe with most of it left out. Within a section (`model`, `optim`, ...), each key it gives replaces that key of
the file. So mappings inside a section, such as `model.arguments` and `data.protocol`, are written in full. A variant's
`deviations` are added to those of the file.

Bundled recipes are in `mien/recipes/<paper>/`. A variant of your own file is named `my.yaml:variant`.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import os
import re
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from mien.errors import RecipeError, reason
from mien.recipe_parts import (
    ROW_LISTS,
    AugmentPart,
    DataPart,
    DistillPart,
    LossPart,
    ModelPart,
    OptimPart,
    PaperPart,
    PreprocessPart,
    Section,
    TrainPart,
)
from mien.registry import nearest
from mien.yaml_files import explain_errors, read_yaml_file


class Recipe(Section):
    """One training run, complete.

    Attributes:
        name: `<paper>/<recipe>`.
        summary: One line for `mien recipes`.
        paper: The published row the recipe reproduces, if any.
        deviations: Where the recipe differs from the paper, or the paper does not say.
        seed: Seed of the initial weights, the order of the images and the augmentation.
    """

    name: str
    summary: str
    paper: PaperPart | None = None
    deviations: list[str] = Field([])
    seed: int = Field(0, ge=0, lt=2**32)
    model: ModelPart
    data: DataPart
    preprocess: PreprocessPart
    augment: AugmentPart
    loss: LossPart
    distill: DistillPart | None = None
    optim: OptimPart
    train: TrainPart

    @model_validator(mode="after")
    def _check_arguments(self) -> Recipe:
        for section, arguments in (("model", self.model.arguments), ("loss", self.loss.arguments)):
            for name in {"name", "num_classes", "num_features"} & set(arguments):
                raise ValueError(f"{section}.arguments.{name} is set from the rest of the recipe; leave it out")
        return self

    @model_validator(mode="after")
    def _check_selection(self) -> Recipe:
        if self.optim.schedule == "plateau" and self.data.select is None:
            raise ValueError(
                "optim.schedule plateau watches the split data.select, which is null; name a split or choose another schedule"
            )
        if self.train.patience and self.data.select is None:
            raise ValueError("train.patience watches the split data.select, which is null; name a split or set it to 0")
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain JSON types."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """Return the recipe as YAML, keys in their documented order."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, width=120)


_FILE = re.compile(r"(.+?\.ya?ml)(?::(.+))?", re.DOTALL)
"""A recipe's file and, after a colon, its variant."""

RENAMED = {
    "dlib_resnet/fer2013-again": "dlib_resnet/fer2013-finetune",
    "sa_csp_ca/fer2013-again": "sa_csp_ca/fer2013-finetune",
}
"""Current names by former ones, which the cards of bundled models and committed results still carry."""


def recipe_names() -> list[str]:
    """Return the names of the bundled recipes, sorted."""
    return sorted(_bundled())


def recipe_file(name_or_path: str | os.PathLike[str]) -> Path | None:
    """Return the file of a recipe that is named by its file, with or without a variant; None for a bundled recipe."""
    found = _FILE.fullmatch(os.fspath(name_or_path))
    return Path(found[1]) if found else None


def load_recipe(name_or_path: str | os.PathLike[str], overrides: dict[str, Any] | None = None) -> Recipe:
    """Return a validated recipe.

    Args:
        name_or_path: A bundled name such as `"sa_csp_ca/fer2013"`, a YAML file, or `"my.yaml:variant"`.
        overrides: Values by dotted key, such as `{"train.epochs": 2}`. They are applied last.

    Raises:
        RecipeError: There is no such recipe or variant, the file is not YAML, a key is unknown or a value out of range.

    >>> load_recipe("sa_csp_ca/fer2013", {"seed": 3}).seed
    3
    """
    source = os.fspath(name_or_path)
    file = _FILE.fullmatch(source)
    values = copy.deepcopy(_select_bundled(source) if file is None else _select_variant(Path(file[1]), file[2]))
    for key, value in (overrides or {}).items():
        _set(values, key, value)
    return pin_lists(parse_recipe(values, source))


def pin_lists(recipe: Recipe) -> Recipe:
    """Return a recipe with the SHA-256 of the row lists it names, `data.exclude` and `data.weights`.

    Raises:
        RecipeError: A list is missing, or is not the one whose SHA-256 the recipe has already.
    """
    found = dict[str, str | None]()
    for key in ROW_LISTS:
        file, known = getattr(recipe.data, key), getattr(recipe.data, f"{key}_sha256")
        if file is None:
            found[f"{key}_sha256"] = None
            continue
        try:
            now = hashlib.sha256(Path(file).read_bytes()).hexdigest()
        except (OSError, ValueError) as error:
            raise RecipeError(
                f"data.{key}: {file}: cannot be read ({reason(error)}); mien analyse writes such a list"
            ) from None
        if known not in (None, now):
            raise RecipeError(
                f"data.{key}: {file} has changed since this recipe was made (SHA-256 {now[:16]}..., not {known[:16]}...); "
                f"restore the file, or remove data.{key}_sha256 to train another recipe with the new one"
            )
        found[f"{key}_sha256"] = now
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=found)})


def recipe_hash(recipe: Recipe) -> str:
    """Return the SHA-256 of what a recipe trains, in hexadecimal, to tell whether two results come from the same recipe.

    The seed and the texts (`summary`, `paper`, `deviations`) do not count. Neither do values equal to their default, so a field
    that a later version adds does not change the hash of older recipes. A row list counts by its content, not by its path.
    """
    ignored = {"seed", "summary", "paper", "deviations"}
    values = recipe.model_dump(mode="json", exclude=ignored, exclude_defaults=True)
    for key in ROW_LISTS:
        if f"{key}_sha256" in values["data"]:
            values["data"].pop(key, None)
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_variants(path: Path) -> dict[str, dict[str, Any]]:
    """Return the complete values of each recipe in a file, by variant, not validated yet.

    A file without variants holds one recipe, whose key is "".

    Raises:
        RecipeError: The file is missing, is not YAML, or `variants` is not a mapping of names to changes.
    """
    if not path.is_file():
        raise RecipeError(f"{path}: no such recipe file")
    values = read_yaml_file(path, RecipeError)
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: is not a recipe; a recipe is a YAML mapping with the keys {', '.join(Recipe.model_fields)}")
    if "variants" not in values:
        return {"": values}
    variants = values.pop("variants")
    if not isinstance(variants, dict) or not variants:
        raise RecipeError(f"{path}: variants is a mapping of names to changes, such as variants: {{small: {{seed: 1}}}}")
    return {name: _apply_variant(values, name, {} if change is None else change, path) for name, change in variants.items()}


def _apply_variant(values: dict[str, Any], name: Any, change: Any, path: Path) -> dict[str, Any]:
    """Return the values of a file with the changes of one variant."""
    if not isinstance(name, str) or not name:
        raise RecipeError(f"{path}: variant {name!r}: its name is not text; put it in quotes")
    if not isinstance(change, dict):
        raise RecipeError(f"{path}: variant {name}: is not a mapping of changes (got {change!r})")
    if "name" in change:
        raise RecipeError(f"{path}: variant {name}: leave out name; it is the name of the file, a slash and the variant")
    merged = dict(values)
    if "name" in values:
        merged["name"] = f"{values['name']}/{name}"
    for key, value in change.items():
        own = values.get(key)
        if isinstance(own, dict) and isinstance(value, dict):
            merged[key] = own | value
        elif isinstance(own, list) and isinstance(value, list):  # deviations
            merged[key] = own + value
        else:
            merged[key] = value
    return merged


def parse_recipe(values: dict[str, Any], source: str) -> Recipe:
    """Return a recipe from plain values.

    Args:
        values: The values of every section.
        source: Where they are from, for error messages.

    Raises:
        RecipeError: A key is unknown (names the nearest) or missing, or a value out of range.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(f"{source}: {explain_errors(Recipe, error)}") from None


def _root() -> Path:
    return Path(str(resources.files("mien") / "recipes"))


@functools.cache
def _bundled() -> dict[str, dict[str, Any]]:
    """Return the values of every bundled recipe by name. They are shared, so copy before a change."""
    recipes = [values for path in _root().glob("*/*.yaml") for values in read_variants(path).values()]
    return {values["name"]: values for values in recipes}


def _select_bundled(name: str) -> dict[str, Any]:
    found = _bundled().get(RENAMED.get(name, name))
    if found is not None:
        return found
    path = _root() / f"{name}.yaml"
    if path.is_file():  # a file of variants
        names = [values["name"] for values in read_variants(path).values()]
        raise RecipeError(f"{name} has variants, which are recipes of their own; choose one of {', '.join(names)}")
    raise RecipeError(f"unknown recipe {name!r}{nearest(name, recipe_names())}")


def _select_variant(path: Path, variant: str | None) -> dict[str, Any]:
    variants = read_variants(path)
    if "" in variants:
        if variant is not None:
            raise RecipeError(f"{path}: has no variants, so it has no {variant!r}; write {path} alone")
        return variants[""]
    if variant is None:
        raise RecipeError(f"{path}: has the variants {', '.join(variants)}; choose one, such as {path}:{next(iter(variants))}")
    if variant not in variants:
        raise RecipeError(f"{path}: unknown variant {variant!r}{nearest(variant, list(variants))}")
    return variants[variant]


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        if values.get(parent) is None:  # such as `distill: null`
            values[parent] = {}
        values = values[parent]
        if not isinstance(values, dict):
            raise RecipeError(f"cannot set {key}: {parent} is not a section of the recipe")
    values[last] = value
