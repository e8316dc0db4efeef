"""Alignment by five points: the eyes, nose and mouth corners of every face laid on the same places.

The matrix is the least-squares similarity (turn, one scale, shift; no mirroring) of Umeyama, "Least-squares estimation of
transformation parameters between two point patterns", PAMI 1991. In the plane it has a closed form. With centred points p and
q, the matrix [[a, -b], [b, a]] that minimises sum |A p + t - q|^2 is

    a = sum(p . q) / sum(|p|^2),    b = sum(p x q) / sum(|p|^2),    t = mean(q) - A mean(p)

Checked against the form with a singular value decomposition, as scikit-image has it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from mien.errors import InputError
from mien.structures import Face

ARCFACE: NDArray[np.float64] = (
    np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]) + 0.5
) / 112
"""Where the five points go, as fractions of the square's side: the 112 x 112 template of ArcFace (Deng et al., CVPR 2019), from
InsightFace's `face_align.py`, which counts px from the centre of the first; half a px moves them to its corner."""

FRAME: NDArray[np.float64] = np.array([[0.3115, 0.3863], [0.6885, 0.3863], [0.5, 0.6029], [0.3447, 0.788], [0.6553, 0.788]])
"""Where the five points lie in FER2013's frames, as fractions of the side: the median of those found in Training, the halves
averaged (`mean_points` of `benchmarks/crop.py`)."""

FRAME_MARGIN = -0.05
"""What an aligned face is best shown with beyond those frames on every side, as a fraction of their side: a little less than
they show (`benchmarks/crop.py`)."""

FARTHEST = 8
"""Side of the largest square that is cut out, in longer sides of the picture."""

BORDER = 3
"""Px read around the square, for the interpolation at its edges."""


def similarity(landmarks: ArrayLike, template: ArrayLike) -> NDArray[np.float64]:
    """Return the 2 x 3 matrix that brings landmarks nearest to a template, in least squares.

    >>> similarity([[0, 0], [2, 0]], [[5, 5], [5, 9]]).tolist()
    [[0.0, -2.0, 5.0], [2.0, 0.0, 5.0]]

    Args:
        landmarks: Points, (N, 2), N at least 2, px.
        template: Where each should go, (N, 2).

    Raises:
        InputError: The shapes differ, or all landmarks are one point.
    """
    p, q = np.asarray(landmarks, np.float64), np.asarray(template, np.float64)
    if p.shape != q.shape or p.ndim != 2 or p.shape[1] != 2 or len(p) < 2:
        raise InputError(f"a similarity needs as many landmarks as template points, (N, 2), got {p.shape} and {q.shape}")
    middle, target = p.mean(axis=0), q.mean(axis=0)
    p, q = p - middle, q - target
    spread = (p**2).sum()
    if not spread > 0:
        raise InputError(f"landmarks must be different points, got {np.asarray(landmarks).tolist()}")
    a = (p * q).sum() / spread
    b = (p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]).sum() / spread
    turn = np.array([[a, -b], [b, a]])
    return np.column_stack([turn, target - turn @ middle])


def placed(size: int, template: ArrayLike = ARCFACE, margin: float = 0.0) -> NDArray[np.float64]:
    """Return a template's points in px of a square, (5, 2).

    Args:
        size: The square's side, px.
        template: The points, as fractions of the template's own square, (5, 2).
        margin: What the square shows beyond the template's on every side, as a fraction of its side; above -0.5.
    """
    return size * (np.asarray(template, np.float64) + margin) / (1 + 2 * margin)


def is_plausible(face: Face) -> bool:
    """Return whether a face has landmarks, and they ask for a square of half to twice its box's longer side."""
    if face.landmarks is None or not np.ptp(face.landmarks, axis=0).any():
        return False
    matrix = similarity(face.landmarks, FRAME)
    side = 1 / max(math.hypot(matrix[0, 0], matrix[1, 0]), 1e-9)
    longer = float((face.box_xyxy[2:] - face.box_xyxy[:2]).max())
    return 0.5 * longer <= side <= 2 * longer


def align_face(
    image: NDArray[np.uint8], face: Face, size: int, template: ArrayLike = ARCFACE, margin: float = 0.0
) -> NDArray[np.uint8]:
    """Return a face turned upright and scaled, its landmarks on the template's, RGB uint8 (size, size, 3).

    Smoothed where it shrinks; outside the picture its edges continue, as in `crop_face`.

    Args:
        image: RGB uint8 (H, W, 3), range 0-255.
        face: A face of that picture, with landmarks.
        size: Side of the result, px.
        template: Where the landmarks go, as fractions of the side at margin 0, (5, 2).
        margin: What is shown beyond the template's square on every side, as a fraction of its side; above -0.5.

    Raises:
        InputError: The face has no landmarks or impossible ones, or a number is out of range.
    """
    if face.landmarks is None:
        raise InputError("this face has no landmarks to align by; choose a detector that gives them, such as mtcnn, or crop it")
    if not image.size or size < 1 or not (math.isfinite(margin) and margin > -0.5):
        raise InputError(
            f"alignment needs a picture, a size of 1 px and a margin above -0.5, got {image.shape}, {size}, {margin}"
        )
    matrix = similarity(face.landmarks, placed(size, template, margin))
    if size > math.hypot(matrix[0, 0], matrix[1, 0]) * FARTHEST * max(image.shape[:2]):
        raise InputError("this face's landmarks are no face's; leave align out, or choose another detector")
    back = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))  # from px of the square to px of the picture
    part, start = _around(image, back, size)
    shrink = min(1.0, math.hypot(matrix[0, 0], matrix[1, 0]))
    whole = part.size
    if shrink < 1:  # first to about the final scale, each new px the mean of those it covers; then turn
        part = part.resize([max(1, round(side * shrink)) for side in whole], Image.Resampling.HAMMING, reducing_gap=3.0)
    ratio = np.array(part.size) / whole
    data = (back[:2] - [[0, 0, start[0]], [0, 0, start[1]]]) * ratio[:, None]
    warped = part.transform((size, size), Image.Transform.AFFINE, data.ravel().tolist(), Image.Resampling.BICUBIC)
    return np.asarray(warped)


def _around(image: NDArray[np.uint8], back: NDArray[np.float64], size: int) -> tuple[Image.Image, tuple[int, int]]:
    """Return the upright part of a picture that holds the turned square, edges continued, and its left and top, px."""
    corners = back[:2, :2] @ np.array([[0, size, 0, size], [0, 0, size, size]]) + back[:2, 2:]
    border = BORDER * max(1.0, math.hypot(back[0, 0], back[1, 0]))
    left, top = (math.floor(edge) for edge in corners.min(axis=1) - border)
    right, bottom = (math.ceil(edge) for edge in corners.max(axis=1) + border)
    rows = np.clip(np.arange(top, bottom), 0, image.shape[0] - 1)
    columns = np.clip(np.arange(left, right), 0, image.shape[1] - 1)
    return Image.fromarray(image[rows[:, None], columns]), (left, top)
