"""Devices, precision and number of processes of a training run, where the user does not choose them."""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch.distributed import init_process_group

from mien.datasets import Corpus
from mien.engine.loader import fits_in_memory
from mien.engine.nodes import torchrun_layout
from mien.errors import RecipeError
from mien.models import create_model
from mien.recipe import Recipe

MIN_IMAGES_PER_PROCESS = 32
"""Least share of a batch for a process on the CPU: batch norms need enough images for their statistics."""

MAX_PARAMETERS = 10_000_000
"""Parameters of the largest network that a CPU trains in several processes, and that queues run without bfloat16."""


def create_fabric(recipe: Recipe, devices: int | str = 1, precision: str | None = None) -> Fabric:
    """Return Lightning Fabric on the GPU if there is one, else on the CPU.

    The default precision is bfloat16 on a GPU. On a CPU it is bfloat16 if the processor computes in it and the recipe sets
    `channels_last`, which bfloat16 needs to be fast; otherwise float32.

    Args:
        recipe: The recipe to train.
        devices: Number of GPUs, or of processes on the CPU. If torchrun started this process, it decides both this number and
            that of the nodes.
        precision: `bf16-mixed` or `32-true` to overrule the default.

    Raises:
        RecipeError: Unknown precision, more devices than the machine has GPUs, or another number than torchrun started.
    """
    gpu, layout = torch.cuda.is_available(), torchrun_layout()
    nodes, started = layout or (1, devices)
    if devices not in (1, "auto", started):
        raise RecipeError(f"--devices {devices}: torchrun started {started} process(es) on this node; leave --devices out")
    devices = started
    if gpu and isinstance(devices, int) and devices > torch.cuda.device_count():
        raise RecipeError(
            f"--devices {devices}: this machine has only {torch.cuda.device_count()} GPU(s); choose a smaller number"
        )
    if precision not in (None, "bf16-mixed", "32-true"):
        raise RecipeError(f"--precision {precision}: unknown precision; choose bf16-mixed or 32-true")
    bfloat16 = gpu or (recipe.train.channels_last and computes_bfloat16())
    chosen: Any = precision or ("bf16-mixed" if bfloat16 else "32-true")
    _silence_libraries()
    several = layout is not None or (not gpu and isinstance(devices, int) and devices > 1)
    strategy = LocalStrategy() if several else "auto"
    accelerator = "cuda" if gpu else "cpu"
    return Fabric(accelerator=accelerator, strategy=strategy, devices=devices, num_nodes=nodes, precision=chosen)


class LocalStrategy(DDPStrategy):
    """Processes of this machine, which find each other by a file and talk over the loopback interface.

    By default torch listens on every network interface for them, and asks the name server who 127.0.0.1 is.
    """

    def __init__(self) -> None:
        super().__init__()
        if "LOCAL_RANK" not in os.environ:  # this is the first process; the others inherit its environment
            self._folder = tempfile.TemporaryDirectory(prefix="mien-")
            os.environ["MIEN_MEETING"] = str(Path(self._folder.name) / "processes")

    def _setup_distributed(self) -> None:
        self._set_world_ranks()
        if "MIEN_MEETING" in os.environ:  # else another program started the processes, perhaps on several machines
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
            meeting = f"file://{os.environ['MIEN_MEETING']}"
            init_process_group("gloo", meeting, timeout=self._timeout, rank=self.global_rank, world_size=self.world_size)
        super()._setup_distributed()


def default_devices(recipe: Recipe, corpus: Corpus, cores: int) -> int:
    """Return the default number of processes: one on a GPU or on Windows, else one per core if the network is small.

    For a small network, processes of one thread are faster than one process of many threads, which wait for each other at
    every layer (`benchmarks/training_step.py`). Each process needs its own memory, so there is only one if the images do not
    fit in memory.

    Args:
        recipe: The recipe to train.
        corpus: Its data.
        cores: Processor cores the run may use.
    """
    if sys.platform == "win32" or torch.cuda.is_available():
        return 1
    if not fits_in_memory(corpus, len(corpus.where(recipe.data.train)), torch.device("cpu")):
        return 1
    if count_parameters(recipe, len(corpus.classes)) > MAX_PARAMETERS:
        return 1
    batch_size, unit = recipe.train.batch_size, 2 if recipe.augment.mixup else 1  # mixup mixes pairs
    max_processes = min(cores, batch_size // MIN_IMAGES_PER_PROCESS)
    return next((number for number in range(max_processes, 0, -1) if batch_size % (number * unit) == 0), 1)


def count_parameters(recipe: Recipe, num_classes: int = 7) -> int:
    """Return the number of parameters of a recipe's network."""
    return _count_parameters(recipe.model.name, json.dumps(recipe.model.arguments), num_classes)


@functools.cache
def _count_parameters(model: str, arguments: str, num_classes: int) -> int:
    with torch.device("meta"):
        network = create_model(model, num_classes=num_classes, **json.loads(arguments))
    return sum(parameter.numel() for parameter in network.parameters())


def computes_bfloat16() -> bool:
    """Return whether the processor has bfloat16 instructions (AMX, AVX512_BF16); without them, torch emulates it slowly."""
    supported = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(ask is not None and ask() for ask in supported)


def _silence_libraries() -> None:
    """Hide messages that a user of `mien train` can do nothing about; the run prints one line per epoch instead."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # the number of processes and the precision
    for name in ("torch._dynamo", "torch.utils.cpp_extension"):  # what was not compiled, and that there is no CUDA
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")  # compiled gradients; harmless
