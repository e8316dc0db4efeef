"""Occlusion: cover a square of the face at a time, and see how much the answer drops.

Paper: Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4.2. The square has a quarter of
the input's side, moves by a twelfth, and is filled with the face's mean. A position's value is the mean drop of the class's
probability over all squares that cover it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mien.explain.base import METHODS, Maps, target_probs

if TYPE_CHECKING:
    from mien.predict.backend import Backend

PATCH, STRIDE = 4, 12
"""The input's side, divided by the square's side and by its step."""


@METHODS.register("occlusion")
def occlusion(backend: Backend, batch: NDArray[np.float32], target: NDArray[np.int64], seed: int = 0) -> Maps:
    """Return the mean drop of probability at each position, never below 0; nothing here is random."""
    height, width = batch.shape[2:]
    side_y, side_x = max(1, height // PATCH), max(1, width // PATCH)
    tops = np.unique(np.linspace(1 - side_y, height - 1, STRIDE + PATCH).round().astype(int))
    lefts = np.unique(np.linspace(1 - side_x, width - 1, STRIDE + PATCH).round().astype(int))
    covers = np.zeros((len(tops) * len(lefts), height, width), np.bool_)
    for cover, (top, left) in zip(covers, [(top, left) for top in tops for left in lefts], strict=True):
        cover[max(0, top) : top + side_y, max(0, left) : left + side_x] = True
    found = []
    for image, wanted in zip(batch, target, strict=True):
        fill = image.mean((1, 2), keepdims=True)
        probs = target_probs(backend, np.concatenate([image[None], np.where(covers[:, None], fill, image)]), int(wanted))
        drops = np.tensordot(probs[0] - probs[1:], covers, 1) / covers.sum(0)
        found.append(np.maximum(drops, 0))
    return Maps({"occlusion": np.stack(found).astype(np.float32)})
