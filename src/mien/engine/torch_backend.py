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
        self.place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model = model.to(self.place)

    @property
    def device(self) -> str:
        """`cpu`, or the name of the GPU it runs on."""
        return torch.cuda.get_device_name(self.place) if self.place.type == "cuda" else str(self.place)

    @torch.inference_mode()
    def logits(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits, float32 (N, K), of preprocessed crops, float32 (N, C, h, w)."""
        with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):  # else 10 bits of mantissa
            return self.model(torch.from_numpy(batch).to(self.place)).float().cpu().numpy()
