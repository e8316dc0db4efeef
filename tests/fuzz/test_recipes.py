"""Recipes with wrong values, and damaged YAML: each is a recipe or refused with one line."""

from __future__ import annotations

import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from mutate import damaged, damaged_value, serve, try_cases

from mien.recipe import load_recipe, parse_recipe, recipe_hash, recipe_names
from mien.study import specification
from mien.study.specification import load_study, study_names


@cache
def recipes() -> list[dict[str, Any]]:
    """The values of a few bundled recipes."""
    return [load_recipe(name).to_dict() for name in recipe_names()[::12]]


@cache
def texts() -> list[bytes]:
    """Recipes as YAML, with variants, aliases and comments too."""
    made = [yaml.safe_dump(values, sort_keys=False).encode() for values in recipes()[:3]]
    variants = b"# two\nvariants: {a: {seed: 1}, b: &b {seed: 2}, c: *b}\n" + made[0]
    return [*made, variants]


@cache
def studies() -> list[bytes]:
    return [(specification._root() / f"{name}.yaml").read_bytes() for name in study_names()[:4]]


def parse_damaged_values(number: int) -> None:
    values = damaged_value(recipes()[number % len(recipes())], number)
    recipe = parse_recipe(values, "this recipe")
    assert parse_recipe(yaml.safe_load(recipe.to_yaml()), "again") == recipe
    assert len(recipe_hash(recipe)) == 64
    recipe.preprocess.spec()


def load_damaged_text(number: int) -> None:
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
        file.write(damaged(texts(), number))
        file.flush()
        recipe = load_recipe(file.name + ("", ":a")[number % len(texts()) == 3])
        assert recipe == parse_recipe(recipe.to_dict(), "again")


def load_damaged_study(number: int) -> None:
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
        file.write(damaged(studies(), number))
        file.flush()
        load_study(Path(file.name))


@pytest.mark.skipif(sys.platform == "win32", reason="this system does not say how much memory a process held")
@pytest.mark.parametrize(("kind", "short"), [("values", 600), ("texts", 120), ("studies", 120)])
def test_damaged_recipes_are_read_or_refused(kind: str, short: int) -> None:
    assert try_cases(__file__, kind, short).refused > short / 4


def test_whole_recipes_are_read() -> None:
    assert [parse_recipe(values, "whole").to_dict() for values in recipes()] == recipes()


if __name__ == "__main__":
    serve({"values": parse_damaged_values, "texts": load_damaged_text, "studies": load_damaged_study})
