"""RISE: cover random parts of the face many times; the parts that are visible when the answer is strong matter.

Paper: Petsiuk et al. 2018, "RISE: Randomized Input Sampling for Explanation of Black-box Models", eqs. 3-6. The map is the mean
of random masks weighted by the class's probability. A mask is a grid of 7x7 cells, each visible with probability one half,
enlarged smoothly and shifted at random. Covered parts show the face's mean; in the paper they are black.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien.explain.base import BATCH, METHODS, Maps, target_probs

if TYPE_CHECKING:
    from mien.predict.backend import Backend

MASKS = 600
"""Masks per face; the map's noise goes with one over their root."""

CELLS = 7
"""Cells per side of a mask."""


@METHODS.register("rise")
def rise(backend: Backend, batch: NDArray[np.float32], target: NDArray[np.int64], seed: int = 0) -> Maps:
    """Return how much higher the class's probability is when a position is visible than on average, at least 0."""
    masks = smooth_masks(np.random.default_rng(seed), MASKS, batch.shape[2:])
    found = []
    for image, wanted in zip(batch, target, strict=True):
        fill = image.mean((1, 2), keepdims=True)
        probs = np.concatenate(
            [
                target_probs(backend, fill + masks[i : i + BATCH, None] * (image - fill), int(wanted))
                for i in range(0, MASKS, BATCH)
            ]
        )
        found.append(np.maximum(np.tensordot(probs - probs.mean(), masks - masks.mean(0), 1) / MASKS, 0))
    return Maps({"rise": np.stack(found).astype(np.float32)})


def smooth_masks(random: np.random.Generator, count: int, size: tuple[int, ...]) -> NDArray[np.float32]:
    """Return random masks in [0, 1], float32 (count, h, w), as RISE makes them."""
    height, width = size
    cell_y, cell_x = -(-height // CELLS), -(-width // CELLS)
    grids = (random.random((count, CELLS + 1, CELLS + 1)) < 0.5).astype(np.float32)
    shifts = random.integers(0, (cell_y, cell_x), (count, 2))
    masks = np.empty((count, height, width), np.float32)
    for mask, grid, (down, right) in zip(masks, grids, shifts, strict=True):
        large = Image.fromarray(grid).resize(((CELLS + 1) * cell_x, (CELLS + 1) * cell_y), Image.Resampling.BILINEAR)
        mask[:] = np.asarray(large)[down : down + height, right : right + width]
    return masks
