"""What the recognizer asks of whatever runs a network."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mien.model_info import ModelInfo


class Backend(Protocol):
    """A loaded network: its identity, and logits for a batch."""

    @property
    def info(self) -> ModelInfo:
        """The network's classes, preprocessing and provenance."""
        ...

    @property
    def device(self) -> str:
        """What it runs on: `cpu`, or the name of the GPU."""
        ...

    def logits(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits, float32 (N, K), of preprocessed crops, float32 (N, C, h, w)."""
        ...
