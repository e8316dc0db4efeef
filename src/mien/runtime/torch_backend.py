"""A checkpoint run by torch, behind the same interface as an exported network."""

from __future__ import annotations

import os

import numpy as np
import torch
from numpy.typing import NDArray

from mien.checkpoint import load_checkpoint


class TorchBackend:
    """A trained network on torch, in evaluation mode and float32.

    Args:
        path: A safetensors checkpoint, or the folder of a run (its best epoch).
        device: Where it runs; None takes the GPU where there is one.

    Attributes:
        model: The network.
        info: Its classes, preprocessing and provenance.

    Raises:
        CheckpointError: The checkpoint is missing, damaged or of another architecture.
    """

    def __init__(self, path: str | os.PathLike[str], device: str | None = None) -> None:
        model, self.info = load_checkpoint(path)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model = model.to(self.device)

    @torch.inference_mode()
    def logits(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits, float32 (N, K), of preprocessed crops, float32 (N, C, h, w)."""
        return self.model(torch.from_numpy(batch).to(self.device)).float().cpu().numpy()
