"""Which device and precision a run takes where nobody says."""

from __future__ import annotations

from typing import Any

import torch

from mien.datasets import Corpus
from mien.engine.fabric import Fabric
from mien.engine.feed import is_resident
from mien.errors import RecipeError
from mien.models import create_model
from mien.recipe import Recipe

LEAST_SHARE = 32
"""Images of a step that a process on the CPU gets at least, so that its batch norms have something to average."""

SMALL = 10_000_000
"""Parameters of a network that is trained in several processes at most; a larger one keeps the threads of one busy."""


def default_fabric(recipe: Recipe, devices: int | str = 1, precision: str | None = None) -> Fabric:
    """Return the devices and precision to train a recipe with.

    That is bfloat16 on a GPU; on a CPU that computes in bfloat16, if the recipe sets `channels_last`, which that needs; else
    float32.

    Args:
        recipe: The run.
        devices: Number of GPUs, or of processes on the CPU.
        precision: `bf16-mixed` or `32-true`, in place of that choice.

    Raises:
        RecipeError: The precision is another, or there are fewer GPUs.
    """
    gpu = torch.cuda.is_available()
    if gpu and isinstance(devices, int) and devices > torch.cuda.device_count():
        raise RecipeError(f"--devices {devices}: this machine has {torch.cuda.device_count()} of them (GPUs)")
    if precision not in (None, "bf16-mixed", "32-true"):
        raise RecipeError(f"--precision {precision}: is bf16-mixed or 32-true")
    chosen: Any = precision or ("bf16-mixed" if gpu or (recipe.train.channels_last and computes_bfloat16()) else "32-true")
    return Fabric(accelerator="cuda" if gpu else "cpu", devices=devices, precision=chosen)


def default_devices(recipe: Recipe, corpus: Corpus, cores: int) -> int:
    """Return how many processes train where nobody says: one on a GPU; on the CPU one a core for a small network.

    Processes of one thread train it faster than threads that wait for each other at every layer, as
    `benchmarks/training_step.py` measures. Each takes the memory of a whole one, so where the images do not fit in memory there
    is one.

    Args:
        recipe: The run.
        corpus: Its data.
        cores: Cores it may use.
    """
    if torch.cuda.is_available() or not is_resident(corpus, len(corpus.where(recipe.data.train)), torch.device("cpu")):
        return 1
    with torch.device("meta"):
        network = create_model(recipe.model.name, num_classes=len(corpus.classes), **recipe.model.arguments)
    if sum(parameter.numel() for parameter in network.parameters()) > SMALL:
        return 1
    size, unit = recipe.train.batch_size, 2 if recipe.augment.mixup else 1  # mixup mixes pairs
    most = min(cores, size // LEAST_SHARE)
    return next((number for number in range(most, 0, -1) if size % (number * unit) == 0), 1)


def computes_bfloat16() -> bool:
    """Return whether the processor has instructions for bfloat16 (AMX, AVX512_BF16); elsewhere torch emulates it."""
    supported = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(ask is not None and ask() for ask in supported)
