"""Training: one loop for every recipe, on Lightning Fabric."""

from __future__ import annotations

from mien.engine.train import TrainResult, train

__all__ = ["TrainResult", "train"]
