"""A checkpoint run by torch, with the same interface as an exported network (`mien.predict.backend.Backend`)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mien.checkpoint import load_checkpoint
from mien.predict.onnx_backend import check_logits


class TorchBackend:
    """A trained network run by torch, in evaluation mode and float32.

    Args:
        path: A safetensors checkpoint, or the folder of a run (its best epoch).
        device: Where it runs; None takes the GPU if there is one.

    Attributes:
        path: The checkpoint's file.
        model: The network.
        info: Its classes, preprocessing and provenance.

    Raises:
        CheckpointError: The checkpoint is missing, corrupt or of another architecture.
    """

    def __init__(self, path: str | os.PathLike[str], device: str | None = None) -> None:
        model, self.info = load_checkpoint(path)
        self.path = Path(path) / "best.safetensors" if Path(path).is_dir() else Path(path)
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model = model.to(self._device)

    @property
    def device(self) -> str:
        """`cpu`, or the name of the GPU."""
        return torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else str(self._device)

    @torch.inference_mode()
    def logits(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits, float32 (N, K), for preprocessed crops, float32 (N, C, h, w).

        Raises:
            CheckpointError: A logit is not finite.
        """
        with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):  # TF32 rounds to 10 bits
            logits: NDArray[np.float32] = self.model(torch.from_numpy(batch).to(self._device)).float().cpu().numpy()
        check_logits(logits, len(batch), self.info, str(self.path))
        return logits
