"""Which device and precision a run takes where nobody says."""

from __future__ import annotations

from typing import Any

import torch

from mien.engine.fabric import Fabric
from mien.recipe import Recipe


def default_fabric(recipe: Recipe, devices: int | str = 1, precision: str | None = None) -> Fabric:
    """Return the devices and precision to train a recipe with.

    That is bfloat16 on a GPU, and on a processor with matrix units (AMX) for a recipe in the channels-last form they need; else
    float32.

    Args:
        recipe: The run.
        devices: Number of GPUs, or of processes on the CPU.
        precision: `bf16-mixed` or `32-true`, in place of that choice.
    """
    gpu = torch.cuda.is_available()
    chosen: Any = precision or ("bf16-mixed" if gpu or (recipe.train.channels_last and has_amx()) else "32-true")
    return Fabric(accelerator="cuda" if gpu else "cpu", devices=devices, precision=chosen)


def has_amx() -> bool:
    """Return whether the processor has matrix units for bfloat16 (Intel's AMX)."""
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())
