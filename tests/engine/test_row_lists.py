"""Training without some images, or with some of them drawn less often; the file counts by its content."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from lightning_fabric import Fabric

from mien.checkpoint import read_info
from mien.datasets import Corpus, write_row_list
from mien.engine import train
from mien.engine.checks import check_data
from mien.engine.train import Run
from mien.errors import CheckpointError, DataError, RecipeError
from mien.recipe import Recipe, load_recipe, parse_recipe, recipe_hash
from mien.report.inputs import differing, read_runs

Recipes = Callable[..., Recipe]
ROWS = np.arange(0, 96, 4)
"""A quarter of the training split."""


def write(path: Path, corpus: Corpus, rows: np.ndarray = ROWS, weight: float = 0.25) -> str:
    write_row_list(path, corpus, rows, np.full(len(rows), weight))
    return str(path)


def shown(recipe: Recipe, corpus: Corpus, folder: Path) -> list[int]:
    """The rows that one epoch shows, in whole batches."""
    run = Run(recipe, corpus, folder, Fabric(accelerator="cpu", devices=1))
    indices = np.concatenate([batch.numpy() for batch in run._batch_indices(0)])
    return [int(run.loader.rows[i // recipe.augment.views]) for i in indices]


def test_excluded_images_are_never_shown(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes) -> None:
    changes = {"train.batch_size": 8, "loss.class_weights": "inverse"}
    everything = shown(tiny_recipe(changes), corpus, tmp_path)
    assert sorted(everything) == list(range(96))
    fewer = shown(tiny_recipe(changes | {"data.exclude": write(tmp_path / "x.csv", corpus)}), corpus, tmp_path)
    assert sorted(fewer) == sorted(set(range(96)) - set(ROWS.tolist()))


@pytest.mark.parametrize("views", [1, 5])
def test_images_of_less_weight_are_shown_less_often(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes, views: int) -> None:
    path = write(tmp_path / "w.csv", corpus)
    counts = np.bincount(shown(tiny_recipe({"data.weights": path, "augment.views": views}), corpus, tmp_path), minlength=96)
    listed = counts[ROWS].sum() / len(ROWS)
    others = np.delete(counts, ROWS).mean()
    assert listed / others == pytest.approx(0.25, abs=0.1)
    assert counts.sum() == 96 * views


def test_weights_and_balanced_sampling_multiply(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes) -> None:
    path = write(tmp_path / "w.csv", corpus, np.flatnonzero(corpus.target[:96] == 2), 0)
    counts = np.bincount(
        corpus.target[shown(tiny_recipe({"data.weights": path, "data.sampling": "balanced"}), corpus, tmp_path)], minlength=7
    )
    assert counts.tolist() == [16, 16, 0, 16, 16, 16, 16]


def test_a_run_keeps_the_content_of_its_list(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes) -> None:
    path, out = tmp_path / "x.csv", tmp_path / "run"
    recipe = tiny_recipe({"data.exclude": write(path, corpus)})
    train(parse_recipe(recipe.to_dict() | {"data": recipe.data.model_dump() | {"exclude_sha256": None}}, "test"), corpus, out)
    made = load_recipe(out / "recipe.yaml")
    assert made.data.exclude_sha256 == recipe.data.exclude_sha256 is not None
    assert read_info(out / "best.safetensors").recipe["data"]["exclude_sha256"] == made.data.exclude_sha256
    moved = path.rename(tmp_path / "moved.csv")
    again = tiny_recipe({"data.exclude": str(moved)})
    assert recipe_hash(again) == recipe_hash(recipe) != recipe_hash(tiny_recipe())
    assert len(train(again, corpus, out).epochs) == 1  # the same content, so the run is the same and is finished
    moved.write_text(moved.read_text().replace("0.25000", "0.50000"))
    with pytest.raises(CheckpointError, match="belongs to a run of another recipe"):
        train(tiny_recipe({"data.exclude": str(moved)}), corpus, out)
    with pytest.raises(RecipeError, match=r"data.exclude: .*moved.csv has changed since this recipe was made"):
        train(again, corpus, out)
    moved.unlink()
    with pytest.raises(RecipeError, match=r"data.exclude: .*moved.csv: cannot be read"):
        load_recipe(out / "recipe.yaml")


def test_a_figure_tells_runs_apart_by_their_list(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes) -> None:
    for name, rows in (("a", ROWS), ("b", ROWS[:3])):
        recipe = tiny_recipe({"data.exclude": write(tmp_path / f"{name}.csv", corpus, rows)})
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.yaml").write_text(recipe.to_yaml())
    runs = read_runs([tmp_path])
    assert differing(runs) == ["data.exclude"]
    assert runs[0].values["data.exclude"].startswith("a.csv (")


@pytest.mark.parametrize(
    ("key", "rows", "weight", "message"),
    [
        ("exclude", np.arange(96, 100), 0, "names no image of train"),
        ("exclude", np.arange(96), 0, "names every image of train"),
        ("weights", np.arange(96, 100), 0.5, "names no image of train"),
        ("weights", np.arange(96), 0, "gives weight 0 to every image of train"),
    ],
)
def test_a_list_of_no_use_is_refused(
    tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes, key: str, rows: np.ndarray, weight: float, message: str
) -> None:
    recipe = tiny_recipe({f"data.{key}": write(tmp_path / "list.csv", corpus, rows, weight)})
    with pytest.raises(DataError, match=message):
        check_data(recipe, corpus, 1)


def test_a_batch_is_compared_with_what_is_left(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes) -> None:
    recipe = tiny_recipe({"data.exclude": write(tmp_path / "x.csv", corpus), "train.batch_size": 80})
    with pytest.raises(RecipeError, match="the training split has 72 images"):
        check_data(recipe, corpus, 1)


def test_a_missing_list_is_noticed_before_anything_is_read(tiny_recipe: Recipes) -> None:
    with pytest.raises(RecipeError, match=r"data.weights: none.csv: cannot be read"):
        tiny_recipe({"data.weights": "none.csv"})
