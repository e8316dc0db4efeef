"""What detectors share: checks, a working size, and boxes that frame a face as MTCNN's do.

A model's `crop_scale` is counted in sides of MTCNN's boxes, and the crop decides the answer. Another detector draws its boxes
tighter or wider, so it states by a `Framing` how its boxes become MTCNN's; `benchmarks/detectors.py` measures those numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien.errors import InputError


@dataclass(frozen=True, slots=True)
class Framing:
    """How a detector's box becomes the box MTCNN would draw around the same face.

    Attributes:
        width: MTCNN's width over the detector's.
        height: MTCNN's height over the detector's.
        down: How far MTCNN's centre lies below the detector's, in heights of the detector's box.
    """

    width: float
    height: float
    down: float

    def apply(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return boxes (N, 4), left, top, right, bottom, as MTCNN would draw them.

        >>> Framing(width=0.5, height=1.0, down=0.1).apply(np.array([[0, 0, 20, 40]], np.float32)).tolist()
        [[5.0, 4.0, 15.0, 44.0]]
        """
        size = boxes[:, 2:] - boxes[:, :2]
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2 + np.stack([np.zeros(len(boxes)), self.down * size[:, 1]], axis=1)
        half = size * [self.width, self.height] / 2
        return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)


def check_arguments(min_face: float, threshold: float, max_size: int, threads: int, smallest: int) -> None:
    """Refuse a detector's arguments that make no sense.

    Args:
        min_face: Side of the smallest face to find, px.
        threshold: Score a face needs.
        max_size: Longer side of the working picture, px.
        threads: Threads to run on.
        smallest: Side of the smallest face the detector can find, px.

    Raises:
        InputError: One is out of range.
    """
    if not (math.inf > min_face >= smallest and 0 <= threshold < 1 and max_size >= smallest and threads >= 1):
        raise InputError(
            f"the detector needs min_face and max_size of at least {smallest} px, a threshold from 0 to below 1 and at least "
            f"one thread, got {min_face}, {max_size}, {threshold}, {threads}"
        )


def check_picture(image: NDArray[np.uint8]) -> None:
    """Refuse what is not RGB, uint8 (H, W, 3).

    Raises:
        InputError: The array has another shape or type.
    """
    if not isinstance(image, np.ndarray):
        raise InputError(f"the detector needs an array, got {type(image).__name__}; mien.read_image gives one")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(f"the detector needs RGB uint8 of shape (H, W, 3), got {image.dtype} {image.shape}")


def resized(picture: Image.Image, scale: float) -> Image.Image:
    """Return a picture made smaller by `scale`, at least 1 px a side; one of 1 or more leaves it as it is."""
    if scale >= 1:
        return picture
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
