"""Scene cuts of a video, where a film jumps to another scene and the people in it change."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

HEIGHT, WIDTH = 36, 64
"""Size of the thumbnail that scene cuts are found on, px."""

MIN_CORRELATION = 0.2
"""Correlation of two frames' gradients below which their structure differs."""

MAX_COLOUR_DISTANCE = 0.25
"""Distance of two frames' colour histograms, 0 to 1, above which their colours differ."""

MIN_GRADIENT = 1.0
"""A thumbnail has no structure if its gradients are below this, root mean square in grey levels."""

MAX_WHITE = 0.5
"""A thumbnail is overexposed if more than this share of its cells is at full brightness."""


class SceneCuts:
    """Finds the scene cuts of one video, frame by frame; dissolves are not found.

    Two things must differ between a frame and the one before:

    - structure: the correlation of the gradients, at the best shift of up to a quarter of the picture. So a pan is not a cut.
      It ignores brightness and contrast, so a flash is not a cut either.
    - colour: the distance of the colour histograms. It hardly changes when people move or the camera zooms.

    A frame without structure, or overexposed by a flash, is skipped: the next is compared with the last frame that was not.
    """

    def __init__(self) -> None:
        self._last: tuple[NDArray[np.complex128], Array] | None = None

    def is_cut(self, image: NDArray[np.uint8]) -> bool:
        """Return whether a frame, RGB uint8 (H, W, 3), begins another scene than the one before; False for the first."""
        small = _thumbnail(image)
        grey = small.mean(axis=2)
        gradients = np.diff(grey, axis=1)[:-1] + 1j * np.diff(grey, axis=0)[:, :-1]  # to the right, downwards
        if (small.max(axis=2) > 250).mean() > MAX_WHITE or np.sqrt((np.abs(gradients) ** 2).mean()) < MIN_GRADIENT:
            return False
        colours = (small // 64).astype(np.intp) @ [16, 4, 1]
        histogram = np.bincount(colours.ravel(), minlength=64) / (HEIGHT * WIDTH)
        before, self._last = self._last, (gradients, histogram)
        if before is None or float(np.abs(histogram - before[1]).sum()) / 2 <= MAX_COLOUR_DISTANCE:
            return False
        return _correlation(gradients, before[0]) < MIN_CORRELATION


def _thumbnail(image: NDArray[np.uint8]) -> Array:
    """Return a frame as (HEIGHT, WIDTH, 3): each cell is the mean of 3 x 3 pixels spread over it."""
    rows = (np.arange(3 * HEIGHT) + 0.5) * image.shape[0] / (3 * HEIGHT)
    columns = (np.arange(3 * WIDTH) + 0.5) * image.shape[1] / (3 * WIDTH)
    bands = image[rows.astype(np.intp)].reshape(HEIGHT, 3, *image.shape[1:]).sum(axis=1, dtype=np.uint16)
    return bands[:, columns.astype(np.intp)].reshape(HEIGHT, WIDTH, 3, 3).sum(axis=2) / 9


def _correlation(a: NDArray[np.complex128], b: NDArray[np.complex128]) -> float:
    """Return the largest correlation of two gradient fields over all shifts of up to a quarter of the picture."""
    surface = np.fft.ifft2(np.fft.fft2(a) * np.conj(np.fft.fft2(b))).real
    rows, columns = (np.r_[0 : side // 4 + 1, -(side // 4) : 0] for side in surface.shape)
    return float(surface[np.ix_(rows, columns)].max()) / float(np.linalg.norm(a) * np.linalg.norm(b))
