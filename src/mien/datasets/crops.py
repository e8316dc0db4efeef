"""The face in a picture, cut out the way corpora show faces, and the views of it that vgg16-gcca trains on.

Source of the views: J. Chen, N. Chen, "A Framework for Facial Expression Recognition Combining Contextual Information and
Attention Mechanism", section 3.1: "Each image underwent flipping and rotation, with a rotation angle of ±10° at 5° intervals.
Hence, the number of image samples increased to 15 times." The angles are five, -10 to 10, so there are three ways to flip; we
take none, left to right and top to bottom. Which three the paper means it does not say; the face upside down is the least
certain part of it.

The paper turns the finished 224 px picture, which leaves corners that it does not say how to fill. We turn a wider cut of the
photo and keep its middle: the same face at the same angle, and in the corners what the photo shows there.
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

TURNS = (0, -10, -5, 5, 10)
"""Angles of the views, degrees, counter-clockwise; the upright one first."""

FLIPS = {1: "n", 5: "n", 10: "nh", 15: "nhv"}
"""Ways to flip by the number of views: not, left to right (horizontally), top to bottom (vertically)."""


class View(NamedTuple):
    """One way to show a face: turned, then flipped.

    Attributes:
        flip: `"n"` not, `"h"` left to right, `"v"` top to bottom.
        degrees: Counter-clockwise.
    """

    flip: str
    degrees: int

    @property
    def mark(self) -> str:
        """What the view adds to a file's name; nothing for the face as it is.

        >>> View("h", -5).mark, View("n", 0).mark
        ('~h-05', '')
        """
        return "" if self == UPRIGHT else f"~{self.flip}{self.degrees:+03d}"


UPRIGHT = View("n", 0)


def views(number: int) -> tuple[View, ...]:
    """Return 1, 5, 10 or 15 views, the face as it is first.

    >>> len(set(views(15)))
    15

    Raises:
        DataError: There is no such set of views.
    """
    if number not in FLIPS:
        raise DataError(f"a face has {', '.join(map(str, FLIPS))} views, not {number}; choose one of these numbers")
    return tuple(View(flip, degrees) for flip in FLIPS[number] for degrees in TURNS[: 1 if number == 1 else None])


@cache
def _detector() -> Detector:
    return create_detector()


def faces_by_size(image: NDArray[np.uint8], detector: Detector) -> list[Face]:
    """Return the faces of an RGB picture, uint8 (H, W, 3), the largest first."""
    return sorted(detector.detect(image), key=_area, reverse=True)


def _area(face: Face) -> float:
    left, top, right, bottom = face.box_xyxy.tolist()
    return float((right - left) * (bottom - top))


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

    The view as it is shows what `largest_face` cuts; outside the photo, its edges go on.

    Args:
        image: The photo, RGB, uint8 (H, W, 3).
        face: A face in it.
        size: Side of a view, px.
        wanted: The views.
        grey: Make them grey (ITU-R 601 luma).
    """
    mode = "L" if grey else "RGB"
    crop = crop_face(image, face, FRAME_SCALE)
    upright = Image.fromarray(crop).convert(mode).resize((size, size), Image.Resampling.BILINEAR)
    edge = _edge(size)
    wide = _wider(image, face, len(crop), size, edge, mode) if any(view.degrees for view in wanted) else upright
    for flip, degrees in wanted:
        turned = upright
        if degrees:
            turned = wide.rotate(degrees, Image.Resampling.BILINEAR).crop((edge, edge, edge + size, edge + size))
        yield turned if flip == "n" else turned.transpose(_TRANSPOSE[flip])


_TRANSPOSE = {"h": Image.Transpose.FLIP_LEFT_RIGHT, "v": Image.Transpose.FLIP_TOP_BOTTOM}


def _edge(size: int) -> int:
    """Return how far the corners of a turned view reach outside it, px."""
    most = math.radians(max(TURNS))
    return math.ceil(size / 2 * (math.cos(most) + math.sin(most) - 1)) + 2  # 2: what the filters look at


def _wider(image: NDArray[np.uint8], face: Face, side: int, size: int, edge: int, mode: str) -> Image.Image:
    """Return the crop of `side` px with what lies around it, resized so that the crop has `size` px and the edge `edge`."""
    more = edge * side / size
    room = 2 * math.ceil(more / 2 + 1)  # even, because `crop_face` rounds halves to even
    box = face.box_xyxy.astype(float)
    around = crop_face(image, face, (side + 2 * room) / float((box[2:] - box[:2]).max()))
    low, high = room - more, room + side + more
    size += 2 * edge
    return Image.fromarray(around).convert(mode).resize((size, size), Image.Resampling.BILINEAR, (low, low, high, high))
