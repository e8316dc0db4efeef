"""The face in a picture, cropped the way corpora show faces, and the views of it that vgg16-gcca trains on.

Source of the views: J. Chen, N. Chen, "A Framework for Facial Expression Recognition Combining Contextual Information and
Attention Mechanism", section 3.1: "Each image underwent flipping and rotation, with a rotation angle of ±10° at 5° intervals.
Hence, the number of image samples increased to 15 times." Five angles, -10 to 10, make three ways to flip, which the paper does
not name. We take none, left to right, and top to bottom; the face upside down is the least certain of them.

The paper rotates the finished 224 px picture and does not say how it fills the corners. We rotate a wider crop of the photo and
keep its middle: the same face at the same angle, with the photo's own pixels in the corners.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien.errors import DataError, InputError
from mien.faces import Detector, create_detector
from mien.faces.crop import FRAME_SCALE, crop_face
from mien.structures import Face

ANGLES = (0, -10, -5, 5, 10)
"""Angles of the views, degrees, counter-clockwise; upright first."""

FLIPS = {1: "n", 5: "n", 10: "nh", 15: "nhv"}
"""Ways to flip by number of views: not, left to right (horizontally), top to bottom (vertically)."""


class View(NamedTuple):
    """One way to show a face: rotated, then flipped.

    Attributes:
        flip: `"n"` for not, `"h"` for left to right, `"v"` for top to bottom.
        degrees: Counter-clockwise.
    """

    flip: str
    degrees: int

    @property
    def mark(self) -> str:
        """What the view adds to a file's name; nothing for the upright face.

        >>> View("h", -5).mark, View("n", 0).mark
        ('~h-05', '')
        """
        return "" if self == UPRIGHT else f"~{self.flip}{self.degrees:+03d}"


UPRIGHT = View("n", 0)


def views(number: int) -> tuple[View, ...]:
    """Return 1, 5, 10 or 15 views, the upright face first.

    >>> len(set(views(15)))
    15

    Raises:
        DataError: The number is another.
    """
    if number not in FLIPS:
        raise DataError(f"a face can have {', '.join(map(str, FLIPS))} views, not {number}; choose one of these numbers")
    return tuple(View(flip, degrees) for flip in FLIPS[number] for degrees in ANGLES[: 1 if number == 1 else None])


@cache
def _detector() -> Detector:
    return create_detector()


def faces_by_size(image: NDArray[np.uint8], detector: Detector) -> list[Face]:
    """Return the faces of an RGB picture, uint8 (H, W, 3), the largest first."""
    return sorted(detector.detect(image), key=lambda face: face.area, reverse=True)


def largest_face(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the square crop, uint8 (s, s, 3), around the largest face of an RGB picture (H, W, 3).

    Raises:
        InputError: No face is found.
    """
    faces = faces_by_size(image, _detector())
    if not faces:
        raise InputError("no face was found in it")
    return crop_face(image, faces[0], FRAME_SCALE)


def face_views(
    image: NDArray[np.uint8], face: Face, size: int, wanted: Sequence[View], *, grey: bool = False
) -> Iterator[Image.Image]:
    """Yield views of a face, square pictures of `size` px, resized with Pillow's antialiased bilinear filter.

    The upright view shows what `largest_face` returns. Outside the photo, its edges are repeated.

    Args:
        image: The photo, RGB, uint8 (H, W, 3).
        face: The face.
        size: Side of a view, px.
        wanted: Which views.
        grey: Return grey pictures (ITU-R 601 luma).
    """
    mode = "L" if grey else "RGB"
    crop = crop_face(image, face, FRAME_SCALE)
    upright = Image.fromarray(crop).convert(mode).resize((size, size), Image.Resampling.BILINEAR)
    margin = _margin(size)
    wide = _with_margin(image, face, len(crop), size, margin, mode) if any(view.degrees for view in wanted) else upright
    for flip, degrees in wanted:
        rotated = upright
        if degrees:
            rotated = wide.rotate(degrees, Image.Resampling.BILINEAR).crop((margin, margin, margin + size, margin + size))
        yield rotated if flip == "n" else rotated.transpose(_TRANSPOSE[flip])


_TRANSPOSE = {"h": Image.Transpose.FLIP_LEFT_RIGHT, "v": Image.Transpose.FLIP_TOP_BOTTOM}


def _margin(size: int) -> int:
    """Return how far the corners of a rotated view reach outside it, px."""
    angle = math.radians(max(ANGLES))
    return math.ceil(size / 2 * (math.cos(angle) + math.sin(angle) - 1)) + 2  # 2: what the filters need


def _with_margin(image: NDArray[np.uint8], face: Face, side: int, size: int, margin: int, mode: str) -> Image.Image:
    """Return the crop of `side` px with the photo around it, resized so that the crop has `size` px and the margin `margin`."""
    around = margin * side / size
    room = 2 * math.ceil(around / 2 + 1)  # even, because `crop_face` rounds halves to even
    box = face.box_xyxy.astype(float)
    wide = crop_face(image, face, (side + 2 * room) / float((box[2:] - box[:2]).max()))
    low, high = room - around, room + side + around
    size += 2 * margin
    return Image.fromarray(wide).convert(mode).resize((size, size), Image.Resampling.BILINEAR, (low, low, high, high))
