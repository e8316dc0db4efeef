"""Every bundled recipe fits its corpus and its network, and every kind of training step is taken.

Asserted of each recipe, on made-up faces in the real layout of its corpus:

- The corpus has the classes and the image shape that the recipe's options promise. The recipe neither trains nor selects on the
  last split, which is the one to report.
- Network, loss and optimizer take their arguments. At the recipe's input size the network gives logits of the corpus's classes,
  and the loss a number. This runs on torch's meta device, which computes shapes without values.

Asserted of each recipe whose training step differs from those before it, in two real steps:

- The losses of training and selection are finite, and that of training is positive. The network sees images of the recipe's
  input sizes, and its last parameter changes.

The first recipe of each kind is stepped at its own input size. Recipes that differ from it in numbers alone, such as rates and
loss weights, are stepped at the smallest size the network takes.
"""

import csv
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from mien.datasets import Corpus, apply_protocol, load_corpus
from mien.datasets.protocols.splits import OUT
from mien.datasets.votes import COLUMNS
from mien.engine.devices import create_fabric
from mien.engine.loss import Objective, create_objective
from mien.engine.optim import create_optimizer
from mien.engine.train import Run
from mien.labels import label_set
from mien.models import create_model
from mien.recipe import Recipe, load_recipe, recipe_names

USAGES = ("Training", "PublicTest", "PrivateTest")
CK48 = ("anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise")
SHAPES = {
    "fer2013": (48, 48),
    "ferplus": (48, 48),
    "ckplus": (48, 48),
    "folder": (224, 224),  # the one recipe of a folder stores it grey
    "rafdb": (100, 100, 3),
    "affectnet": (224, 224, 3),
}
"""Shape of the stored images of a corpus, unless a recipe says otherwise."""

RANDOM = np.random.default_rng(0)


def draw(path: Path, size: int, mode: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size, size, 3) if mode == "RGB" else (size, size)
    Image.fromarray(RANDOM.integers(0, 256, shape, dtype=np.uint8)).save(path)


def fer2013(root: Path) -> Path:
    """Write at least fourteen images of each class for training and two for each test, and FER+'s votes.

    Eight people voted for one class, two for the next.
    """
    path = root / "fer2013.csv"
    with path.open("w", newline="") as file, (root / "fer2013new.csv").open("w", newline="") as votes_file:
        table, votes = csv.writer(file), csv.writer(votes_file)
        table.writerow(["emotion", "pixels", "Usage"])
        votes.writerow(["Usage", "Image name", *COLUMNS])
        for usage in USAGES:
            for i in range(100 if usage == "Training" else 14):
                table.writerow([i % 7, " ".join(map(str, RANDOM.integers(0, 256, 48 * 48))), usage])
                votes.writerow([usage, f"fer{i:07}.png", *np.roll([8, 2, *[0] * 8], i)])
    return path


def ckplus(root: Path) -> Path:
    """Write CK+48: a sequence of three frames of each expression, of each of twelve people."""
    for number, expression in enumerate(CK48, start=1):
        for subject in range(1, 13):
            for frame in (8, 9, 10):
                draw(root / "CK+48" / expression / f"S{subject:03}_{number:03}_{frame:08}.png", 48, "L")
    return root


def rafdb(root: Path) -> Path:
    """Write Kaggle's tree: ten images of each class for training, two for the test."""
    for split, count in (("train", 10), ("test", 2)):
        for label in range(1, 8):
            for i in range(count):
                draw(root / split / str(label) / f"{split}_{label}{i:04}_aligned.jpg", 100, "RGB")
    return root


def affectnet(root: Path) -> Path:
    """Write both trees: twenty images of each of the eight classes for training, two for validation."""
    for tree, count in (("train_set", 20), ("val_set", 2)):
        for number in range(8 * count):
            draw(root / tree / "images" / f"{number}.jpg", 224, "RGB")
            (root / tree / "annotations").mkdir(exist_ok=True)
            for kind, value in (("exp", str(number % 8)), ("val", "0.5"), ("aro", "-0.25")):
                np.save(root / tree / "annotations" / f"{number}_{kind}.npy", np.array(value))
    return root


WRITERS: dict[str, Callable[[Path], Path]] = {
    "fer2013": fer2013,
    "ferplus": fer2013,
    "ckplus": ckplus,
    "folder": lambda root: ckplus(root) / "CK+48",
    "rafdb": rafdb,
    "affectnet": affectnet,
}


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Recipe], Corpus]:
    """A function that returns a recipe's corpus in its splits. Each corpus is written and decoded once."""
    sources: dict[str, Path] = {}
    cache = tmp_path_factory.mktemp("cache")
    loaded: dict[str, Corpus] = {}

    def corpus_of(recipe: Recipe) -> Corpus:
        name, options = recipe.data.corpus, recipe.data.options
        if name not in sources:
            sources[name] = WRITERS[name](tmp_path_factory.mktemp(name))
        key = f"{name} {sorted(options.items())}"
        if key not in loaded:
            loaded[key] = load_corpus(name, sources[name], cache, options=options)
        return apply_protocol(loaded[key], recipe.data.protocol) if recipe.data.protocol else loaded[key]

    return corpus_of


def few(corpus: Corpus, counts: dict[str, int]) -> Corpus:
    """Return a corpus with only the first images of some splits, as many as `counts` says."""
    keep = np.concatenate([corpus.where(split)[:count] for split, count in counts.items()])
    split = np.full_like(corpus.rows.split, OUT)
    split[keep] = corpus.rows.split[keep]
    return replace(corpus, rows=replace(corpus.rows, split=split))


def expected_classes(recipe: Recipe) -> tuple[str, ...]:
    """Return the classes that a recipe's corpus and options promise."""
    name, options = recipe.data.corpus, recipe.data.options
    if name == "ferplus":
        return label_set("ferplus10" if options.get("classes") == 10 else "ferplus")
    if name == "affectnet":
        return label_set(f"affectnet{options.get('classes', 8)}")
    if name == "folder":
        return label_set("ckplus")
    dropped = {"contempt"} if options.get("contempt") is False else set()
    return tuple(expression for expression in label_set(name) if expression not in dropped)


def expected_shape(recipe: Recipe) -> tuple[int, ...]:
    shape: tuple[int, ...] = SHAPES[recipe.data.corpus]
    size = recipe.data.options.get("size")
    return shape if size is None else (size, size, *shape[2:])


OBJECTIVES: dict[str, Objective] = {}
"""Network and loss of recipes on the meta device; recipes that differ in data alone share one."""


def check_objective(recipe: Recipe, classes: int) -> Objective:
    """Return the network and the loss of a recipe, checked at the recipe's input size, on the meta device."""
    size = (recipe.preprocess.channels, *recipe.preprocess.size)
    key = json.dumps([recipe.model.model_dump(exclude={"start"}), recipe.loss.model_dump(), size, classes])
    if key not in OBJECTIVES:
        with torch.device("meta"):
            model = create_model(recipe.model.name, num_classes=classes, **recipe.model.arguments)
            objective = create_objective(recipe, model)
            loss, logits = objective(torch.zeros(2, *size), torch.zeros(2, dtype=torch.long))
        assert (loss.shape, logits.shape) == ((), (2, classes))
        OBJECTIVES[key] = objective
    return OBJECTIVES[key]


@pytest.mark.parametrize("name", recipe_names())
def test_it_fits_its_corpus_and_its_network(load: Callable[[Recipe], Corpus], name: str):
    recipe = load_recipe(name)
    corpus, data = load(recipe), recipe.data
    assert corpus.classes == expected_classes(recipe)
    assert corpus.images.shape[1:] == expected_shape(recipe)
    assert data.select is None or corpus.splits[-1] not in (data.train, data.select), "the last split is the one to report"
    objective = check_objective(recipe, len(corpus.classes))
    create_optimizer(recipe, objective.model, objective.loss)


def steps() -> list[Any]:
    """Return the recipes whose steps differ, each with whether a step of its kind was taken at its own input size before."""
    numbers, kinds, found = set(), set(), []
    for name in recipe_names():
        recipe = load_recipe(name)
        model, loss, optim = recipe.model.model_dump(exclude={"start"}), recipe.loss, recipe.optim
        size, votes, mixup, ema = (
            recipe.preprocess.size,
            recipe.data.votes,
            recipe.augment.mixup > 0,
            recipe.train.ema_decay > 0,
        )
        kind = json.dumps([model, size, loss.name, optim.name, optim.schedule, votes, mixup, ema])
        number = json.dumps(
            [kind, loss.model_dump(), optim.model_dump(exclude={"plateau_patience"}), recipe.augment.model_dump()]
        )
        if number not in numbers:
            found.append(pytest.param(name, kind in kinds, id=f"{name}-small" if kind in kinds else name))
        numbers.add(number)
        kinds.add(kind)
    return found


@pytest.fixture
def _little_memory(monkeypatch: pytest.MonkeyPatch, trim_memory: Callable[[], None]) -> None:
    """Keep the steps below 2 GB by narrowing the widest layers of vggface and resemotenet.

    With gradients and Adam's moments they would need up to 2.5 GB. The contract tests run both networks at their own width.
    """
    trim_memory()
    create, narrow = timm.create_model, {"vgg16": {"mlp_ratio": 1 / 32}}
    monkeypatch.setattr("timm.create_model", lambda name, **arguments: create(name, **arguments | narrow.get(name, {})))
    monkeypatch.setattr("mien.models.resemotenet.BLOCKS", (256, 512, 256))


@pytest.mark.slow
@pytest.mark.usefixtures("_little_memory")
@pytest.mark.parametrize(("name", "small"), steps())
def test_it_steps(tmp_path: Path, load: Callable[[Recipe], Corpus], name: str, small: bool):
    changes: dict[str, Any] = {"train.batch_size": 2, "train.compile": False}
    changes |= {"model.start": None, "distill": None}  # the weights to start or to distil from are not here
    changes |= {"augment.views": 1}  # they only make the epoch longer
    recipe = load_recipe(name)
    if small:
        changes |= {"preprocess.size": [check_objective(recipe, 7).model.minimum_size] * 2, "train.early_size": None}
    recipe = load_recipe(name, changes)
    whole, data = load(recipe), recipe.data
    counts = {split: 1 for split in (data.select,) if split} | {data.train: 4}
    run = Run(recipe, few(whole, counts), tmp_path, create_fabric(recipe))
    assert run.steps == 2
    trained, validated = set[tuple[int, ...]](), set[tuple[int, ...]]()
    run.unwrapped.register_forward_pre_hook(lambda _, inputs: trained.add(tuple(inputs[0].shape[1:])))
    selected = run.unwrapped.model if run.ema is None else run.ema.module
    selected.register_forward_pre_hook(lambda _, x: None if selected.training else validated.add(tuple(x[0].shape[1:])))
    last = list(run.unwrapped.model.parameters())[-1]
    before = last.detach().clone()
    row = run.epoch(1, None)
    assert math.isfinite(row.train_loss)
    assert row.train_loss > 0
    channels, size = recipe.preprocess.channels, recipe.preprocess.size
    assert trained == {(channels, *(recipe.train.early_size or size))}
    assert validated == ({(channels, *size)} if data.select else set())
    assert data.select is None or math.isfinite(row.val_loss)
    assert not before.equal(last), "the steps changed nothing"
