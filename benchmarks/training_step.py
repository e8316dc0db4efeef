"""Training images per second of mien and of the loop a research script has, on the same network and images.

    python -m benchmarks.training_step                        # sa_csp_ca
    python -m benchmarks.training_step --model all --batch 32  # every registered network, at most 64 px per side

- mien: the model's recipe as `mien train` runs it: one process per core, images resident as uint8, augmented in batches, the
  step compiled if the recipe says so, weights averaged, the gradient clipped
- research script: a Dataset of PIL images, torchvision transforms, a DataLoader with two workers, eager float32, the recipe's
  optimizer; no averaging, no clipping

They take turns: mien's run (`benchmarks/training_turns.py`) waits after some steps, and the other loop gets its turn. That
loop's workers start and stop within its turn and are timed only between their first and last batches, so neither loop works in
the other's time.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.record import Row, argument_parser, write_run
from benchmarks.training_turns import corpus_of, now
from mien.datasets import Corpus
from mien.engine.devices import create_fabric, default_devices
from mien.engine.loss import create_objective
from mien.engine.optim import create_optimizer
from mien.models import MODELS, create_model
from mien.provenance import available_cores
from mien.recipe import Recipe, load_recipe, recipe_names
from mien.recipe_parts import AugmentPart

BASE = "sa_csp_ca/fer2013"
"""The recipe a model without one of its own is run with."""

MARGIN = 4
"""Batches a plain turn runs before and after those it times: as many as its two workers fetch ahead."""


def recipe_for(model: str, arguments: argparse.Namespace) -> Recipe:
    """Return a model's recipe for FER2013, else the base recipe with this model and its input; one epoch of it."""
    overrides: dict[str, Any] = {"train.epochs": 1, "optim.warmup_epochs": 0, "model.start": None}
    if arguments.batch:
        overrides["train.batch_size"] = arguments.batch
    if arguments.no_compile:
        overrides["train.compile"] = False
    own = [name for name in recipe_names() if _trains(name, model)]
    if own:
        first = load_recipe(f"{model}/fer2013" if f"{model}/fer2013" in own else own[0])
        size = [min(side, arguments.side) for side in first.preprocess.size]
        return load_recipe(first.name, overrides | {"preprocess.size": size})
    network = create_model(model)
    channels, size = network.in_channels, [min(side, arguments.side) for side in network.input_size]
    overrides |= {"model.name": model, "model.arguments": {}, "preprocess.size": size, "preprocess.channels": channels}
    overrides |= {"preprocess.mean": [0.508] * channels, "preprocess.std": [0.255] * channels}
    overrides |= {"train.compile": False, "train.channels_last": True}  # as the recipes of dense networks have it
    return load_recipe(BASE, overrides)


def _trains(recipe: str, model: str) -> bool:
    read = load_recipe(recipe)
    return read.model.name == model and read.data.corpus == "fer2013"


class Pictures(Dataset[tuple[Tensor, int]]):
    """PIL images with a transform, as research scripts have them."""

    def __init__(self, images: NDArray[np.uint8], target: NDArray[np.int64], transform: Callable[[Any], Tensor]) -> None:
        self.pictures = [Image.fromarray(image) for image in images]
        self.target, self.transform = target.tolist(), transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.pictures[index]), self.target[index]


def plain_transform(part: AugmentPart, recipe: Recipe) -> Callable[[Any], Tensor]:
    """Return torchvision's twin of the recipe's augmentation and preprocessing."""
    spec = recipe.preprocess
    shift = (part.translate, part.translate)
    return transforms.Compose(
        [
            transforms.Grayscale(spec.channels),
            transforms.RandomHorizontalFlip(part.flip),
            transforms.RandomAffine(part.degrees, shift, part.scale, part.shear, transforms.InterpolationMode.BILINEAR),
            transforms.ColorJitter(part.brightness, part.contrast),
            transforms.Resize(spec.size),
            transforms.ToTensor(),
            transforms.Normalize(spec.mean, spec.std),
            transforms.RandomErasing(part.erase, part.erase_area),
        ]
    )


class PlainLoop:
    """The research script's loop, a turn at a time."""

    def __init__(self, recipe: Recipe, corpus: Corpus, device: torch.device, workers: int) -> None:
        rows = corpus.where(recipe.data.train)
        transform = plain_transform(recipe.augment, recipe)
        self.pictures = Pictures(corpus.images[rows], corpus.target[rows], transform)
        self.recipe, self.device, self.workers = recipe, device, workers
        model = create_model(recipe.model.name, num_classes=len(corpus.classes), **recipe.model.arguments)
        self.objective = create_objective(recipe, model).to(device).train()
        self.optimizer = create_optimizer(recipe, model, self.objective.loss)

    def turn(self, steps: int) -> float:
        """Return the seconds of `steps` steps in the middle of a longer stretch."""
        size = self.recipe.train.batch_size
        wanted = torch.randint(len(self.pictures), (size * (steps + 2 * MARGIN),)).tolist()
        loader = DataLoader(self.pictures, size, sampler=wanted, num_workers=self.workers, drop_last=True)
        start = 0.0
        for number, (inputs, target) in enumerate(loader):
            self._step(inputs.to(self.device), target.to(self.device))
            if number + 1 == MARGIN:
                start = now()
            elif number + 1 == MARGIN + steps:
                return now() - start
        raise AssertionError("a turn is longer than the steps it times")

    def _step(self, inputs: Tensor, target: Tensor) -> None:
        loss, _ = self.objective(inputs, target)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def measure(recipe: Recipe, arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Return the images a second of each turn of both loops."""
    rounds, warmup = (2, 2) if arguments.quick else (arguments.rounds, 6)
    length = 2 if arguments.quick else arguments.steps
    size = recipe.train.batch_size
    number = size * (warmup + rounds * length)
    plain = PlainLoop(
        recipe, corpus_of(number), torch.device("cuda" if torch.cuda.is_available() else "cpu"), arguments.workers
    )
    rates: dict[str, list[float]] = {"mien": [], "plain": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_text(recipe.to_yaml(), encoding="utf-8")
        command = [sys.executable, "-m", "benchmarks.training_turns", str(path), str(number), str(warmup), str(length)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as mien:
            assert mien.stdin is not None
            assert mien.stdout is not None
            for line in mien.stdout:
                rates["mien"].append(size * length / float(line))
                rates["plain"].append(size * length / plain.turn(length))
                mien.stdin.write("\n")
                mien.stdin.flush()
    if mien.returncode or len(rates["mien"]) != rounds:
        raise SystemExit(f"mien's run ended with status {mien.returncode} after {len(rates['mien'])} turns")
    return rates


def figures(model: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what was measured of one network."""
    recipe = recipe_for(model, arguments)
    rates = measure(recipe, arguments)
    devices = default_devices(recipe, corpus_of(recipe.train.batch_size), available_cores())
    return {
        "recipe": recipe.to_dict(),
        "processes": devices,
        "precision": create_fabric(recipe).strategy.precision.precision,
        "images_per_second": {name: [round(rate, 1) for rate in values] for name, values in rates.items()},
        "median": {name: round(float(np.median(values)), 1) for name, values in rates.items()},
        "mien_times_plain": round(float(np.median(np.array(rates["mien"]) / np.array(rates["plain"]))), 3),
    }


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--model", default="sa_csp_ca", help="registered models, with commas between, or all")
    parser.add_argument("--batch", type=int, help="images a step; by default the recipe's")
    parser.add_argument("--side", type=int, default=64, help="largest input, px a side")
    parser.add_argument("--no-compile", action="store_true", help="run mien's step eagerly, whatever the recipe says")
    parser.add_argument("--rounds", type=int, default=6, help="turns of each loop")
    parser.add_argument("--steps", type=int, default=6, help="steps of a turn")
    parser.add_argument("--workers", type=int, default=2, help="processes of the plain loop's DataLoader")
    arguments = parser.parse_args()
    models = MODELS.names() if arguments.model == "all" else arguments.model.split(",")
    found: dict[str, Any] = {}
    for model in models:
        found[model] = figures(model, arguments)
        print(model, found[model]["median"], found[model]["mien_times_plain"], flush=True)
    rows: list[Row] = []
    for model, read in found.items():
        rates = f"{read['median']['mien']:,.0f} beside {read['median']['plain']:,.0f}"
        aim = "1.5x" if model == "sa_csp_ca" else "1x"
        rows.append((f"mien / plain DataLoader loop, {model} ({rates} images/s)", f"{read['mien_times_plain']:.2f}x", aim))
    name = "training_step"
    if arguments.model != "sa_csp_ca":
        name += "-models" if len(models) > 1 else f"-{models[0].replace('/', '_')}"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    write_run(name, {"device": device, "threads": torch.get_num_threads(), "models": found}, rows, arguments)


if __name__ == "__main__":
    main()
