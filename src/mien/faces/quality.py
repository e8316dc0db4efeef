"""How well a face can be seen, and how far that lets us trust an answer.

The rule was chosen on risk-coverage curves of degraded faces (`benchmarks/unsure.py`, docs/faces.md): where a network has
nothing to see, its confidence means nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien.structures import Face, Quality

SIDE = 40
"""Side to which a crop is reduced before it is measured, px: that of the smallest bundled network's input."""

PARTS = ((0.385, 0.31, 0.05, 0.09), (0.385, 0.69, 0.05, 0.09), (0.79, 0.50, 0.06, 0.12))
"""Both eyes and the mouth in a crop like FER2013's: centre (down, right), half height and half width, as shares of the side."""

SHARPNESS = (6.0, 75.0)
"""Least and largest sharpness of a face, grey levels. Below, it is blurred, blank, or too dark or pale for the network. Above,
it is noise."""

DETAIL = 6.0
"""Below this detail, grey levels, an eye or the mouth is hidden."""

CUT = 0.25
"""Share of the face outside the picture above which a part that matters is hidden too."""

HIDDEN_COST = 0.2
"""What a hidden part takes from the confidence."""

NOSE_DEPTH = 0.5
"""How far the tip of the nose is in front of the eyes and the mouth, as a multiple of the distance between the eyes."""


def measure_quality(
    crops: Sequence[NDArray[np.uint8]],
    faces: Sequence[Face | None],
    picture: tuple[int, int] | None = None,
    min_contrast: float = 0.0,
) -> list[Quality]:
    """Return the quality of each face, as far as it matters to the network.

    Args:
        crops: What the network sees of each face, uint8, (H, W) or (H, W, 3).
        faces: Where each face is; None for a ready crop.
        picture: Height and width of the picture, px; None if all are ready crops.
        min_contrast: The least contrast that the network's preprocessing gives a crop (see `PreprocessSpec`). Sharpness and
            detail are those of the crop after that.
    """
    grey = np.empty((len(crops), SIDE, SIDE), np.float32)
    for row, crop in zip(grey, crops, strict=True):
        row[:] = np.asarray(Image.fromarray(crop).convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    p = np.pad(grey, ((0, 0), (1, 1), (1, 1)), mode="edge")
    spread = np.maximum(1, 255 * min_contrast / np.maximum(grey.std((1, 2), keepdims=True), 1e-3))
    laplacian = spread * (p[:, :-2, 1:-1] + p[:, 2:, 1:-1] + p[:, 1:-1, :-2] + p[:, 1:-1, 2:] - 4 * grey)
    parts = [
        laplacian[:, round((y - h) * SIDE) : round((y + h) * SIDE), round((x - w) * SIDE) : round((x + w) * SIDE)]
        for y, x, h, w in PARTS
    ]
    sharpness, detail = laplacian.std((1, 2)), np.min([part.std((1, 2)) for part in parts], 0)
    seen = zip(faces, crops, sharpness.tolist(), detail.tolist(), grey.mean((1, 2)).tolist(), strict=True)
    return [Quality(_size(face, crop), s, d, b, *_pose(face), _cut(face, picture)) for face, crop, s, d, b in seen]


def trusted(confidence: float, quality: Quality | None) -> float:
    """Return how much of a confidence can be trusted, 0 to 1; an answer is unsure if it is below `unsure_below`.

    It is the confidence of a face that is plain to see, 0.2 less if an eye or the mouth is hidden or a quarter of the face is
    outside the picture, and 0 if there is nothing to see.
    """
    if quality is None:
        return confidence
    if not SHARPNESS[0] <= quality.sharpness <= SHARPNESS[1]:
        return 0.0
    hidden = quality.detail < DETAIL or (quality.cut or 0.0) > CUT
    return max(0.0, confidence - HIDDEN_COST) if hidden else confidence


def _size(face: Face | None, crop: NDArray[np.uint8]) -> float:
    return float(min(crop.shape[:2]) if face is None else (face.box_xyxy[2:] - face.box_xyxy[:2]).min())


def _pose(face: Face | None) -> tuple[float | None, float | None]:
    """Return yaw and roll, degrees."""
    if face is None or face.landmarks is None:
        return None, None
    points = face.landmarks.astype(float)
    across = points[1] - points[0]
    distance = math.hypot(*across)
    if distance < 1e-6:
        return None, None
    middle = (points[:2].mean(axis=0) + points[3:].mean(axis=0)) / 2
    aside = float((points[2] - middle) @ across) / distance**2  # of the nose, along the line of the eyes
    return math.degrees(math.atan(aside / NOSE_DEPTH)), math.degrees(math.atan2(across[1], across[0]))


def _cut(face: Face | None, picture: tuple[int, int] | None) -> float | None:
    """Return the share of the face's box that is outside the picture."""
    if face is None or picture is None:
        return None
    left, top, right, bottom = face.box_xyxy.astype(float).tolist()
    width = max(0.0, min(right, picture[1]) - max(left, 0.0))
    height = max(0.0, min(bottom, picture[0]) - max(top, 0.0))
    return 1 - width * height / face.area
