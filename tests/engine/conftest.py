"""A corpus and a recipe that train in a second: what is tested here does not depend on the network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mien.datasets import Corpus, load_corpus
from mien.recipe import Recipe, load_recipe

TINY: dict[str, Any] = {
    "model.name": "dlib_resnet",  # with one residual block: a stem, batch norms and a linear classifier, 20,000 parameters
    "model.arguments": {"in_channels": 1, "depth": 1},
    "train.epochs": 1,
    "train.batch_size": 16,
    "train.compile": False,
    "optim.warmup_epochs": 0,
}


@pytest.fixture(scope="session")
def corpus(shared_fer2013_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIEN_CACHE", str(tmp_path_factory.mktemp("cache")))
        return load_corpus("fer2013", shared_fer2013_csv)


@pytest.fixture(scope="session")
def tiny_recipe() -> Callable[..., Recipe]:
    """How to get a recipe of one epoch of a tiny network, with changes by dotted key."""
    return lambda changes=None: load_recipe("sa_csp_ca/fer2013", TINY | (changes or {}))
