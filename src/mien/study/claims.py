"""The papers' claims: what the five papers report, row by row.

`results/claims.yaml` holds them; this module validates it. `scripts/docs_claims.py` writes `docs/claims.md` from it and from
our measurements (see `measurements`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mien.errors import DataError
from mien.recipe import load_recipe, recipe_names
from mien.registry import nearest
from mien.yaml_files import read_yaml_file

Percent = Field(None, ge=0, le=100)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Cell(_Strict):
    """What one row reports on one corpus, and our recipes for it.

    Attributes:
        reported: Accuracy in per cent, on the test images. None if the paper does not print it.
        training: Accuracy in per cent on the training images.
        deviation: Standard deviation of the paper's runs, in points.
        recipes: Names of our recipes for this row, as published. A cell without recipes quotes somebody else's figure.
        not_run: Why this was not measured, if it was not: `yet`, `gpu` or `licensed`.
        other_training: Also list the recipes that train the same network on this corpus in other ways (good faith, distilled).
    """

    reported: float | None = Percent
    training: float | None = Percent
    deviation: float | None = Percent
    recipes: list[str] = []
    not_run: Literal["yet", "gpu", "licensed"] = "yet"
    other_training: bool = False

    @model_validator(mode="after")
    def _check(self) -> Cell:
        if self.reported is None and not self.recipes:
            raise ValueError("a cell needs a reported figure, recipes or both")
        for name in self.recipes:
            if name not in recipe_names():
                raise ValueError(f"unknown recipe {name!r}{nearest(name, recipe_names())}")
            if load_recipe(name).paper is None:
                raise ValueError(f"the recipe {name} stands for no row of a paper; leave it out")
        if self.other_training and not self.recipes:
            raise ValueError("other_training needs recipes, whose network it looks for")
        return self


class AccuracyTable(_Strict):
    """A table or figure of accuracies.

    Attributes:
        title: What it shows.
        rows: The cells of each row, by the key of the corpus in `recipe.paper.reported`.
    """

    title: str
    rows: dict[str, dict[str, Cell]] = Field(min_length=1)


class Column(_Strict):
    """A column of a table of counts.

    Attributes:
        audit: The audit in `results/audit/` that counts the same.
        split: The split that it counts.
    """

    audit: str | None = None
    split: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Column:
        if (self.audit is None) != (self.split is None):
            raise ValueError("audit and split belong together; give both or neither")
        return self


class NumbersTable(_Strict):
    """A table of other numbers: images of each class, parameters of each layer.

    Attributes:
        title: What it shows.
        row: What a row is, such as `class`.
        columns: The columns, by their heading.
        rows: The numbers of each row, one per column.
        total: The printed totals, one per column.
        note: What our own numbers say.
    """

    title: str
    row: str
    columns: dict[str, Column]
    rows: dict[str, list[int]]
    total: list[int] | None = None
    note: str = ""

    @model_validator(mode="after")
    def _check(self) -> NumbersTable:
        for name, numbers in [*self.rows.items(), ("total", self.total or [0] * len(self.columns))]:
            if len(numbers) != len(self.columns):
                raise ValueError(f"row {name!r} has {len(numbers)} numbers for {len(self.columns)} columns")
        return self


class Contradiction(_Strict):
    """Two statements of a paper that do not fit together, or one that does not fit the data.

    Attributes:
        where: Sections, tables or figures.
        says: The first statement.
        but: What contradicts it, or what follows.
        checked: How we know: from the paper's `text`, `computed` from its figures, from the `data` or the authors' `code`, or
            read from a `picture`, which is the weakest.
    """

    where: str
    says: str
    but: str
    checked: Literal["text", "computed", "data", "code", "picture"] = "text"


class Paper(_Strict):
    """What one paper reports.

    Attributes:
        title: As in the recipes.
        protocol: Its splits, and how it chose the epoch, as far as it says.
        tables: Its tables of accuracies, and the figures that stand for one.
        numbers: Its other tables.
        contradictions: What does not add up.
    """

    title: str
    protocol: str
    tables: dict[str, AccuracyTable]
    numbers: dict[str, NumbersTable] = {}
    contradictions: list[Contradiction] = []


class Claims(_Strict):
    """The papers, by the name of their network."""

    papers: dict[str, Paper]

    def cells(self) -> Iterator[tuple[str, Cell]]:
        """Yield every cell of every table of accuracies, with the key of its corpus."""
        for paper in self.papers.values():
            for table in paper.tables.values():
                for row in table.rows.values():
                    yield from row.items()


def read_claims(path: Path) -> Claims:
    """Return the claims in a YAML file.

    Raises:
        DataError: The file cannot be read, or a row or field is wrong; names the paper, the table, the row and the field.
    """
    try:
        return Claims.model_validate(read_yaml_file(path, DataError))
    except ValidationError as error:
        parts = [f"{' > '.join(map(str, part['loc']))}: {part['msg'].removeprefix('Value error, ')}" for part in error.errors()]
        raise DataError(f"{path}: {'; '.join(parts)}") from None
