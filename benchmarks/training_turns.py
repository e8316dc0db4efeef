"""mien's side of `benchmarks/training_step.py`: trains, and after some steps waits for the other side's turn.

    python -m benchmarks.training_turns recipe.yaml number warmup length

The first process prints the seconds of each turn and continues when it reads a line; the others wait for it at the next step.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch

from mien.datasets import Corpus, Rows
from mien.engine import train
from mien.engine.devices import create_fabric, default_devices
from mien.labels import label_set
from mien.provenance import available_cores
from mien.recipe import load_recipe


def corpus_of(number: int) -> Corpus:
    """Return `number` training images and a few to select on: noise of FER2013's shape."""
    sizes = (number, 128)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (sum(sizes), 48, 48), dtype=np.uint8)
    target, split = rng.integers(0, 7, sum(sizes)), np.repeat(np.array([0, 1], np.int8), sizes)
    return Corpus("fer2013", images, Rows(label_set("fer2013"), target, split, ("train", "public_test")), "noise")


def now() -> float:
    """Return the time, s, once the device has done what it was asked to."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class Turns:
    """The callback: times `length` steps, then waits, and so on after `warmup` steps."""

    def __init__(self, warmup: int, length: int, speaks: bool) -> None:
        self.warmup, self.length, self.speaks = warmup, length, speaks
        self.start = 0.0

    def __call__(self, epoch: int, done: int, steps: int) -> None:
        """Take note of a finished step."""
        measured = done - self.warmup
        if not self.speaks or measured < 0 or measured % self.length:
            return
        if measured:
            print(now() - self.start, flush=True)
            sys.stdin.readline()
        self.start = now()


def main() -> None:
    """Train the recipe named on the command line."""
    recipe, (number, warmup, length) = load_recipe(sys.argv[1]), map(int, sys.argv[2:])
    corpus = corpus_of(number)
    fabric = create_fabric(recipe, default_devices(recipe, corpus, available_cores()))
    out = Path(sys.argv[1]).parent / "run"
    train(recipe, corpus, out, fabric=fabric, on_step=Turns(warmup, length, fabric.is_global_zero))


if __name__ == "__main__":
    main()
