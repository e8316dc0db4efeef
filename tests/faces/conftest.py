"""Synthetic films: the one photographed face of the test data moved along known paths."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mien.faces.mtcnn import MTCNN
from mien.structures import Face

Array = NDArray[np.float64]

PHOTO = Image.open(Path(__file__).parents[2] / "docs" / "assets" / "astronaut.jpg").convert("RGB")  # NASA, public domain
PORTRAIT = PHOTO.crop((130, 10, 320, 230)).resize((95, 110), Image.Resampling.LANCZOS)
"""Head and shoulders; the face is about 43 x 55 px and its centre at (47, 56)."""

CENTRE = np.array([47.0, 56.0])
"""What the paths move and turn about: the middle of the face, px of the portrait."""

SIZE = (320, 240)


@dataclass(frozen=True)
class Pose:
    """Where a portrait stands: its face's centre in px, its scale, its turn in degrees, clockwise as one sees it."""

    x: float
    y: float
    scale: float = 1.0
    roll: float = 0.0

    @property
    def matrix(self) -> Array:
        """From px of the portrait to px of the film, (2, 3)."""
        c, s = self.scale * np.cos(np.radians(self.roll)), self.scale * np.sin(np.radians(self.roll))
        turn = np.array([[c, -s], [s, c]])
        return np.column_stack([turn, [self.x, self.y] - turn @ CENTRE])


@dataclass
class Film:
    """Draws frames and knows where the faces are in them."""

    background: Image.Image
    people: list[Image.Image] = field(default_factory=lambda: [PORTRAIT])

    def frame(self, *poses: Pose, cover: tuple[float, float, float, float] | None = None) -> NDArray[np.uint8]:
        """Return a frame with each person at a pose, the last in front, and a grey board over a box."""
        picture = self.background.copy()
        for person, pose in zip(self.people, poses, strict=True):
            back = np.linalg.inv(np.vstack([pose.matrix, [0, 0, 1]]))[:2].ravel().tolist()
            mask = Image.new("L", person.size, 255).transform(SIZE, Image.Transform.AFFINE, back, Image.Resampling.BILINEAR)
            picture.paste(person.transform(SIZE, Image.Transform.AFFINE, back, Image.Resampling.BICUBIC), mask=mask)
        if cover is not None:
            ImageDraw.Draw(picture).rectangle(cover, fill=(120, 118, 115))
        return np.asarray(picture)


def scenery(seed: int, tint: tuple[int, int, int]) -> Image.Image:
    """Return a smooth background of a colour, SIZE."""
    coarse = np.random.default_rng(seed).integers(-60, 60, (6, 8, 1)) + np.array(tint)
    return Image.fromarray(np.clip(coarse, 0, 255).astype(np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)


def truth(still: Array, pose: Pose) -> Array:
    """Return the still's box moved to a pose, (4,) px: its centre turned and scaled, its sides scaled."""
    turned = pose.matrix[:, :2] @ ((still[:2] + still[2:]) / 2) + [pose.x, pose.y]
    half = (still[2:] - still[:2]) / 2 * pose.scale
    return np.concatenate([turned - half, turned + half])


class Studio:
    """What the tests film with."""

    pose = Pose
    photo = PHOTO

    def __init__(self, detector: MTCNN) -> None:
        self.film = Film(scenery(0, (100, 110, 130)))
        warm = np.asarray(PORTRAIT)[:, ::-1] * np.array([1.0, 0.75, 0.5])  # the same face mirrored, in warmer light
        self.couple = Film(scenery(1, (90, 120, 100)), [PORTRAIT, Image.fromarray(warm.astype(np.uint8))])
        self.still = self._still(detector)

    def truth(self, pose: Pose) -> Array:
        """Return the box to be found at a pose, (4,) px."""
        return truth(self.still, pose)

    def place(self, name: str, who: int = 0) -> Film:
        """Return a film of one of the couple before a photograph of scikit-image's."""
        background = Image.fromarray(getattr(skimage.data, name)()).resize(SIZE, Image.Resampling.LANCZOS)
        return Film(background, [self.couple.people[who]])

    def _still(self, detector: MTCNN) -> Array:
        """Return the box found in a still, relative to the middle of the face: where following settles, the mean of ten."""
        image = self.film.frame(Pose(160, 120))
        faces: list[Face | None] = [*detector.detect(image)]
        boxes = []
        for _ in range(20):
            (face,) = faces
            assert face is not None
            boxes.append(face.box_xyxy.astype(float))
            faces = detector.follow(image, [face])
        return np.mean(boxes[10:], axis=0) - [160, 120, 160, 120]


@pytest.fixture(scope="session")
def detector() -> MTCNN:
    return MTCNN(min_face=28, threads=1)


@pytest.fixture(scope="session")
def studio(detector: MTCNN) -> Studio:
    return Studio(detector)
