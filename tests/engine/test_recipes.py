"""Every bundled recipe is built and stepped twice, in its real input size, on a few made-up faces."""

import math
from pathlib import Path

import pytest

from mien.datasets import Corpus, load_corpus
from mien.engine.train import Run, default_fabric
from mien.recipe import load_recipe, recipe_names


@pytest.fixture
def corpus(fer2013_csv: Path) -> Corpus:
    """The four first training rows and two of each test split."""
    header, *rows = fer2013_csv.read_text().splitlines()
    fer2013_csv.write_text("\n".join([header, *rows[:4], *rows[96:98], *rows[128:130]]) + "\n")
    return load_corpus("fer2013", fer2013_csv)


@pytest.mark.slow
@pytest.mark.parametrize("name", recipe_names())
def test_it_steps(tmp_path: Path, corpus: Corpus, name: str):
    changes = {"train.batch_size": 2, "train.compile": False, "model.start": None}  # weights are not here to start from
    recipe = load_recipe(name, changes)
    run = Run(recipe, corpus, tmp_path, default_fabric(recipe))
    assert run.steps == 2
    assert run.val_inputs.shape[1:] == (recipe.preprocess.channels, *recipe.preprocess.size)
    loss, _ = run.fit(1)
    assert math.isfinite(loss)
    assert loss > 0
