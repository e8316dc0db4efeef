"""Training: one loop for every recipe, on Lightning Fabric, and the export to ONNX."""

from __future__ import annotations

from mien.engine.train import TrainResult, train

__all__ = ["TrainResult", "train"]
