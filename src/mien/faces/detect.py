"""The interface of every face detector, and the parts they share.

A model's `crop_scale` counts in sides of MTCNN's boxes. So every detector returns boxes that frame a face as MTCNN does: a
`Framing` in its file says how to convert its own boxes. `benchmarks/detection.py` measures those numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien.errors import CheckpointError, InputError, reason
from mien.structures import Face


class Detector(Protocol):
    """Anything that finds faces in a picture.

    The registered detectors share the arguments `min_face`, `threshold`, `max_size` and `threads`. Their scores range from 0 to
    1 and their boxes frame a face as MTCNN does. A detector without landmarks has an attribute `landmarks = False`.
    """

    def detect(self, image: NDArray[np.uint8]) -> list[Face]:
        """Return the faces of an RGB picture, uint8 (H, W, 3), highest score first; an empty list if there are none."""
        ...


@runtime_checkable
class Follower(Detector, Protocol):
    """A detector that can also follow faces from one video frame to the next, which is much faster than detecting them."""

    def follow(self, image: NDArray[np.uint8], faces: Sequence[Face]) -> list[Face | None]:
        """Return where each face of the previous frame is in this one, RGB uint8 (H, W, 3); None where it is lost."""
        ...


@dataclass(frozen=True, slots=True)
class Framing:
    """How to convert a detector's box to the box MTCNN would draw around the same face.

    Attributes:
        width: MTCNN's width divided by the detector's.
        height: MTCNN's height divided by the detector's.
        down: How far MTCNN's centre is below the detector's, in heights of the detector's box.
    """

    width: float
    height: float
    down: float

    def apply(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return boxes xyxy, (N, 4), as MTCNN would draw them.

        >>> Framing(width=0.5, height=1.0, down=0.1).apply(np.array([[0, 0, 20, 40]], np.float32)).tolist()
        [[5.0, 4.0, 15.0, 44.0]]
        """
        size = boxes[:, 2:] - boxes[:, :2]
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2 + np.stack([np.zeros(len(boxes)), self.down * size[:, 1]], axis=1)
        half = size * [self.width, self.height] / 2
        return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)


def check_arguments(min_face: float, threshold: float, max_size: int, threads: int, smallest: int) -> None:
    """Check the arguments that all detectors share.

    Args:
        min_face: Side of the smallest face to find, px.
        threshold: Lowest score of a face.
        max_size: Longer side of the working picture, px.
        threads: Number of threads.
        smallest: Side of the smallest face this detector can find, px.

    Raises:
        InputError: One is out of range.
    """
    if not (math.inf > min_face >= smallest and 0 <= threshold < 1 and max_size >= smallest and threads >= 1):
        raise InputError(
            f"the detector needs min_face and max_size of at least {smallest} px, a threshold from 0 to below 1 and at least "
            f"one thread, got {min_face}, {max_size}, {threshold}, {threads}"
        )


MAX_FACE = 4
"""Longer side of the largest face that is possible, as a multiple of the picture's longer side."""


def check_faces(faces: Sequence[Face], image: NDArray[np.uint8]) -> None:
    """Check that faces can be faces of a picture (H, W, 3) or (H, W), as a detector of one's own may not promise.

    Raises:
        InputError: A box is outside the picture, smaller than 1 px or far larger than the picture; or a landmark is further
            than the box's longer side from the box.
    """
    height, width = image.shape[:2]
    for face in faces:
        left, top, right, bottom = face.box_xyxy.astype(float).tolist()
        shorter, longer = sorted((right - left, bottom - top))
        outside = right <= 0 or bottom <= 0 or left >= width or top >= height
        if outside or shorter < 1 or longer > MAX_FACE * max(height, width):
            where = f"the box {[round(edge, 1) for edge in (left, top, right, bottom)]}"
        elif (
            face.landmarks is not None
            and ((face.landmarks < face.box_xyxy[:2] - longer) | (face.landmarks > face.box_xyxy[2:] + longer)).any()
        ):
            where = (
                f"landmarks {np.round(face.landmarks.astype(float), 1).tolist()} outside the box {[left, top, right, bottom]}"
            )
        else:
            continue
        raise InputError(
            f"the detector returned {where} for a picture of {width} x {height} px, which cannot be a face; boxes are left, "
            "top, right, bottom and landmarks x, y, both in px of the picture"
        )


def roll(landmarks: NDArray[np.float32]) -> float:
    """Return how far a face is turned clockwise, in degrees from -180 to 180: the direction from its eyes to its mouth."""
    right, down = ((landmarks[3] + landmarks[4] - landmarks[0] - landmarks[1]) / 2).astype(float).tolist()
    return math.degrees(math.atan2(-right, down))


def turn(face: Face, size: tuple[int, int], quarters: int) -> Face:
    """Return where a face is after its picture is turned counter-clockwise by quarters, as `np.rot90` does.

    >>> turn(Face([0, 0, 10, 20], 1.0), (100, 50), 1).box_xyxy.tolist()
    [0.0, 90.0, 20.0, 100.0]

    Args:
        face: A face of the picture.
        size: The picture's width and height, px.
        quarters: Number of quarter turns.
    """
    points = face.box_xyxy.reshape(2, 2)
    if face.landmarks is not None:
        points = np.concatenate([points, face.landmarks])
    width, height = size
    for _ in range(quarters % 4):
        points = np.stack([points[:, 1], width - points[:, 0]], axis=1)
        width, height = height, width
    box = np.concatenate([points[:2].min(axis=0), points[:2].max(axis=0)])
    return Face(box, face.score, points[2:] if len(points) > 2 else None)


def search_again(search: Callable[[NDArray[np.uint8], bool], list[Face]], image: NDArray[np.uint8]) -> list[Face]:
    """Return the faces of a picture in which none was found at first: by a finer search, then in the picture turned.

    Args:
        search: Returns the faces of a picture; the second argument asks for a finer search.
        image: RGB, uint8 (H, W, 3).
    """
    faces = search(image, True)
    for quarters in (1, 3, 2):
        if faces:
            break
        turned = np.ascontiguousarray(np.rot90(image, quarters))
        faces = [turn(face, turned.shape[1::-1], -quarters) for face in search(turned, False)]
    return faces


def check_picture(image: NDArray[np.uint8]) -> None:
    """Check that a picture is RGB, uint8 (H, W, 3).

    Raises:
        InputError: The array has another shape or type.
    """
    if not isinstance(image, np.ndarray):
        raise InputError(f"the detector needs an array, got {type(image).__name__}; mien.read_image returns one")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(f"the detector needs RGB uint8 of shape (H, W, 3), got {image.dtype} {image.shape}")


def shrink(picture: Image.Image, scale: float) -> Image.Image:
    """Return a picture shrunk by the factor `scale`, at least 1 px a side; unchanged if the scale is 1 or more."""
    if scale >= 1:
        return picture
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)


def nms(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], threshold: float, of_smaller: bool = False
) -> NDArray[np.intp]:
    """Return the indices of the boxes left by greedy non-maximum suppression, highest score first.

    Args:
        boxes: Boxes xyxy, (N, 4).
        scores: Their scores, (N,).
        threshold: Largest overlap with a better box, intersection over union.
        of_smaller: Divide by the smaller of the two areas instead, which also removes a box inside a larger one.
    """
    order = np.argsort(-scores, kind="stable")
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        corner = np.maximum(boxes[best, :2], boxes[order, :2])
        shared = np.maximum(np.minimum(boxes[best, 2:], boxes[order, 2:]) - corner, 0).prod(axis=1)
        whole = np.minimum(area[best], area[order]) if of_smaller else area[best] + area[order] - shared
        order = order[shared <= threshold * whole]
    return np.array(kept, np.intp)


def read_verified(path: Path, sha256: str, advice: str) -> bytes:
    """Return the bytes of a weights file after checking its SHA-256.

    Args:
        path: The file.
        sha256: The SHA-256 it must have, in hexadecimal.
        advice: What the user should do if it has another.

    Raises:
        CheckpointError: The file cannot be read or is not the expected one.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read the face detector's weights ({reason(error)}); {advice}") from None
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise CheckpointError(f"{path}: corrupt or of another version (SHA-256 {found[:16]}, not {sha256[:16]}); {advice}")
    return data
