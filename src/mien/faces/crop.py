"""The square a network sees of a face: an upright square around its box, or one aligned by its five landmarks.

How much of the head the square shows must match what the network was trained on. So two numbers travel with the model:
`crop_scale` and `crop_shift` of its `PreprocessSpec`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from mien.errors import InputError
from mien.structures import Face

FRAME_SCALE = 0.95
"""Side of the crop divided by the longer side of the detector's box, as in FER2013's own pictures (their median is 0.934)."""

FRAME: NDArray[np.float64] = np.array([[0.3115, 0.3863], [0.6885, 0.3863], [0.5, 0.6029], [0.3447, 0.788], [0.6553, 0.788]])
"""Position of the five landmarks in FER2013's pictures, as fractions of the side: the median over the training split, made
symmetric (`mean_points` in `benchmarks/crop.py`)."""

FRAME_MARGIN = -0.05
"""Best margin around an aligned face beyond FER2013's pictures, as a fraction of their side (`benchmarks/crop.py`)."""

ARCFACE: NDArray[np.float64] = (
    np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]) + 0.5
) / 112
"""The 112 x 112 template of ArcFace (Deng et al., CVPR 2019), as fractions of the side. InsightFace counts px from the centre
of the first one; the 0.5 px moves the origin to its corner."""

MAX_SIDE = 8
"""Side of the largest square that is cut out of a picture, as a multiple of the picture's longer side."""

BORDER = 3
"""Px read around the square, which the interpolation needs at its edges."""


def crop_face(image: NDArray[np.uint8], face: Face, scale: float = 1.0, shift: float = 0.0) -> NDArray[np.uint8]:
    """Return the square crop around a face's box, uint8 (s, s, 3), or (s, s) for a grey picture.

    Where the square reaches outside the picture, it repeats the picture's edge.

    >>> face = Face([10, 20, 30, 60], score=1.0)
    >>> crop_face(np.zeros((100, 100, 3), np.uint8), face, scale=1.2).shape
    (48, 48, 3)

    Args:
        image: RGB (H, W, 3) or grey (H, W), uint8, range 0-255.
        face: A face of that picture.
        scale: Side of the crop, as a multiple of the longer side of the face's box.
        shift: How far the crop's centre is below the box's, as a fraction of that longer side.

    Raises:
        InputError: The picture is empty, the scale is not positive or a number is not finite.
    """
    if not image.size or not (np.isfinite(scale) and np.isfinite(shift) and scale > 0):
        raise InputError(f"a crop needs a picture, a positive scale and a finite shift, got {image.shape}, {scale}, {shift}")
    left, top, side = crop_square(face, scale, shift)
    return _cut(image, top, top + side, left, left + side)


def crop_square(face: Face, scale: float = 1.0, shift: float = 0.0) -> tuple[int, int, int]:
    """Return left, top and side, px, of the square that `crop_face` cuts out."""
    left, top, right, bottom = face.box_xyxy.astype(float).tolist()
    longer = max(right - left, bottom - top)
    side = max(1, round(scale * longer))
    first_row = round((top + bottom) / 2 + shift * longer - side / 2)
    first_column = round((left + right) / 2 - side / 2)
    return first_column, first_row, side


def align_face(
    image: NDArray[np.uint8], face: Face, size: int, template: ArrayLike = ARCFACE, margin: float = 0.0
) -> NDArray[np.uint8]:
    """Return a face rotated and scaled so that its landmarks match a template's, RGB uint8 (size, size, 3).

    The picture is smoothed before it is shrunk. Outside the picture its edges are repeated, as in `crop_face`.

    Args:
        image: RGB uint8 (H, W, 3), range 0-255.
        face: A face of that picture, with landmarks.
        size: Side of the result, px.
        template: Where the landmarks go, as fractions of the side at margin 0, (5, 2).
        margin: How much more to show than the template's square on every side, as a fraction of its side; above -0.5.

    Raises:
        InputError: The face has no landmarks or impossible ones, or a number is out of range.
    """
    if face.landmarks is None:
        raise InputError("this face has no landmarks to align by; choose a detector that gives them, such as mtcnn, or crop it")
    if not image.size or size < 1 or not (math.isfinite(margin) and margin > -0.5):
        raise InputError(
            f"alignment needs a picture, a size of at least 1 px and a margin above -0.5, got {image.shape}, {size}, {margin}"
        )
    matrix = similarity(face.landmarks, template_points(size, template, margin))
    scale = math.hypot(matrix[0, 0], matrix[1, 0])
    if size > scale * MAX_SIDE * max(image.shape[:2]):
        raise InputError("this face's landmarks cannot belong to a face; leave align out, or choose another detector")
    back = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))  # from px of the square to px of the picture

    # Cut out the upright rectangle that holds the rotated square.
    corners = back[:2, :2] @ np.array([[0, size, 0, size], [0, 0, size, size]]) + back[:2, 2:]
    border = BORDER * max(1.0, math.hypot(back[0, 0], back[1, 0]))
    left, top = (math.floor(edge) for edge in corners.min(axis=1) - border)
    right, bottom = (math.ceil(edge) for edge in corners.max(axis=1) + border)
    part = Image.fromarray(_cut(image, top, bottom, left, right))

    # Shrink to about the final scale with a filter that averages, because the rotation below only interpolates.
    original = part.size
    if scale < 1:
        part = part.resize([max(1, round(side * scale)) for side in original], Image.Resampling.HAMMING, reducing_gap=3.0)
    ratio = np.array(part.size) / original
    data = (back[:2] - [[0, 0, left], [0, 0, top]]) * ratio[:, None]
    return np.asarray(part.transform((size, size), Image.Transform.AFFINE, data.ravel().tolist(), Image.Resampling.BICUBIC))


def is_plausible(face: Face) -> bool:
    """Return whether a face has landmarks whose square is half to twice as large as the longer side of its box."""
    if face.landmarks is None or not np.ptp(face.landmarks, axis=0).any():
        return False
    matrix = similarity(face.landmarks, FRAME)
    side = 1 / max(math.hypot(matrix[0, 0], matrix[1, 0]), 1e-9)
    longer = float((face.box_xyxy[2:] - face.box_xyxy[:2]).max())
    return 0.5 * longer <= side <= 2 * longer


def similarity(landmarks: ArrayLike, template: ArrayLike) -> NDArray[np.float64]:
    """Return the 2 x 3 matrix of the similarity that maps landmarks closest to a template, in least squares.

    A similarity is a rotation, one scale and a shift, without mirroring (Umeyama, "Least-squares estimation of transformation
    parameters between two point patterns", PAMI 1991). In the plane it has a closed form. With centred points p and q, the
    matrix A = [[a, -b], [b, a]] that minimises sum |A p + t - q|^2 is

        a = sum(p . q) / sum(|p|^2),    b = sum(p x q) / sum(|p|^2),    t = mean(q) - A mean(p)

    >>> similarity([[0, 0], [2, 0]], [[5, 5], [5, 9]]).tolist()
    [[0.0, -2.0, 5.0], [2.0, 0.0, 5.0]]

    Args:
        landmarks: Points, (N, 2), N at least 2, px.
        template: Where each should go, (N, 2).

    Raises:
        InputError: The shapes differ, or all landmarks are the same point.
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
    rotation = np.array([[a, -b], [b, a]])
    return np.column_stack([rotation, target - rotation @ middle])


def template_points(size: int, template: ArrayLike = ARCFACE, margin: float = 0.0) -> NDArray[np.float64]:
    """Return where a template's points are in a square, (5, 2) px.

    Args:
        size: The square's side, px.
        template: The points, as fractions of the template's own square, (5, 2).
        margin: How much more the square shows than the template's on every side, as a fraction of its side; above -0.5.
    """
    return size * (np.asarray(template, np.float64) + margin) / (1 + 2 * margin)


def model_template(scale: float, shift: float) -> tuple[NDArray[np.float64], float]:
    """Return the template and margin with which `align_face` shows what a model's `crop_scale` and `crop_shift` say."""
    return FRAME - [0, shift / FRAME_SCALE], (scale / FRAME_SCALE * (1 + 2 * FRAME_MARGIN) - 1) / 2


def _cut(image: NDArray[np.uint8], top: int, bottom: int, left: int, right: int) -> NDArray[np.uint8]:
    """Return a rectangle of a picture; outside the picture, its nearest edge is repeated."""
    rows = np.clip(np.arange(top, bottom), 0, image.shape[0] - 1)
    columns = np.clip(np.arange(left, right), 0, image.shape[1] - 1)
    return image[rows[:, None], columns]
