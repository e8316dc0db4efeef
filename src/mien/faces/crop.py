"""The square a network sees of a detected face.

How much of the head it shows must be what the network was trained on, so the two numbers travel with the model, as
`crop_scale` and `crop_shift` of its `PreprocessSpec`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mien.errors import InputError
from mien.structures import Face

FRAME_SCALE = 0.95
"""Side of the crop over the longer side of the detector's box: what FER2013's own frames show (their median is 0.934)."""


def crop_face(image: NDArray[np.uint8], face: Face, scale: float = 1.0, shift: float = 0.0) -> NDArray[np.uint8]:
    """Return the square crop around a face, uint8 (s, s, 3), or (s, s) of a grey picture; its edges continue the picture's.

    >>> face = Face([10, 20, 30, 60], score=1.0)
    >>> crop_face(np.zeros((100, 100, 3), np.uint8), face, scale=1.2).shape
    (48, 48, 3)

    Args:
        image: RGB (H, W, 3) or grey (H, W), uint8, range 0-255.
        face: A face of that picture.
        scale: Side of the crop as a multiple of the longer side of the face's box.
        shift: Downward shift of the crop's centre from the box's, as a fraction of that longer side.

    Raises:
        InputError: The picture is empty, the scale is not positive or a number is not finite.
    """
    if not image.size or not (np.isfinite(scale) and np.isfinite(shift) and scale > 0):
        raise InputError(f"a crop needs a picture, a positive scale and a finite shift, got {image.shape}, {scale}, {shift}")
    left, top, right, bottom = face.box_xyxy.astype(float).tolist()
    longer = max(right - left, bottom - top)
    side = max(1, round(scale * longer))
    rows = _inside(round((top + bottom) / 2 + shift * longer - side / 2), side, image.shape[0])
    columns = _inside(round((left + right) / 2 - side / 2), side, image.shape[1])
    return image[rows[:, None], columns]


def _inside(start: int, length: int, limit: int) -> NDArray[np.intp]:
    """Return `length` indices from `start` on, those outside [0, limit) moved to the nearest edge."""
    return np.clip(np.arange(start, start + length), 0, limit - 1)
