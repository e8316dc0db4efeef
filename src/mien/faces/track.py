"""Which face of this frame is which person of the frames before.

A track is a person seen. Each frame, faces are given to tracks so that the total cost is least (`assign`): the distance from
where the track's steady motion leads, plus how little the face looks like the track's. A pair too far, too different in size or
too unlike is none. A track that was looked for in vain for more than `max_gap` seconds is forgotten; until then its face gets
its old number back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien.errors import InputError
from mien.faces.align import ARCFACE, placed, similarity
from mien.faces.assign import assign
from mien.structures import Face

Array = NDArray[np.float64]

CELLS = 12
"""A look is this many cells a side, each the mean of 2 x 2 samples."""

REACH, REACH_GROWTH = 0.75, 2.0
"""How far from the expected place a face may be, in face sizes, and what every second unseen adds."""

RESIZED = 2.0
"""Greatest ratio of a face's size to its track's."""

ALIKE = 0.2
"""Least likeness of a face and its track, -1 to 1. Two frames of one face have about 0.9; of a hundred people's portraits
half the pairs are below 0.3 and one in twenty above 0.7."""

LOOKS_WEIGHT = 2.0
"""What being wholly unlike costs, as a multiple of what being as far as allowed costs."""

STEADY = 0.2
"""Time constant of a track's velocity, seconds."""

FORESIGHT = 1.0
"""Seconds that a velocity is trusted for and the reach grows for, however sparse the frames are."""

LEARNING = 0.5
"""Time constant of a track's look, seconds."""

ROUNDING = 1e-6
"""Seconds by which the difference of two frames' times may miss what it should be."""


@dataclass(slots=True)
class _Track:
    """A person: the last face, when it was seen, its centre's velocity in px a second, its look (a unit vector)."""

    number: int
    face: Face
    time: float
    velocity: Array
    look: Array

    def expected(self, time: float) -> Face:
        """Return the face moved to where its velocity leads."""
        step = (self.velocity * min(time - self.time, FORESIGHT)).astype(np.float32)
        points = self.face.landmarks
        return Face(self.face.box_xyxy + np.tile(step, 2), self.face.score, None if points is None else points + step)

    def cost(self, time: float, face: Face, look: Array) -> float:
        """Return what it costs to take a face for this one; infinite if it cannot be."""
        gap, size = min(time - self.time, FORESIGHT), _size(self.face)
        ratio = _size(face) / size
        step = self.velocity * gap
        beyond = _distance(_centre(face) - _centre(self.face), step) / (max(size, _size(face)) * (REACH + REACH_GROWTH * gap))
        likeness = float(self.look @ look)
        if not (1 / RESIZED <= ratio <= RESIZED and beyond <= 1 and likeness >= ALIKE):
            return math.inf
        return beyond + LOOKS_WEIGHT * (1 - likeness)

    def see(self, time: float, face: Face, look: Array, alone: bool) -> None:
        """Take a face for the newest of this track; its look is learned only while nobody stands before it."""
        step = time - self.time
        if step > 0:
            velocity = (_centre(face) - _centre(self.face)) / step
            self.velocity = self.velocity + (1 - math.exp(-step / STEADY)) * (velocity - self.velocity)
            if alone:
                self.look = _unit(self.look + (1 - math.exp(-step / LEARNING)) * (look - self.look))
        self.face, self.time = face, time


class Tracker:
    """Numbers the people of a video.

    Numbers count from 1 and are never used twice. Memory holds the tracks of the last `max_gap` seconds and a step only.

    Args:
        max_gap: Seconds a person may be out of sight and keep the number. Who is in one frame and the next keeps it however
            far apart the two are.
    """

    def __init__(self, max_gap: float = 1.0) -> None:
        if not (math.isfinite(max_gap) and max_gap >= 0):
            raise InputError(f"max_gap must be a number of seconds, 0 or more, got {max_gap}")
        self.max_gap = max_gap
        self._tracks: list[_Track] = []
        self._count = 0
        self._time = self._looked = -math.inf

    def update(self, time: float, image: NDArray[np.uint8], faces: Sequence[Face], looked: bool = True) -> list[int]:
        """Return the number of each face's person, in the order of the faces.

        Args:
            time: When the frame is shown, in seconds; steps may vary. A time before the last one ends every track.
            image: The frame, RGB uint8 (H, W, 3).
            faces: The faces in it, no person twice.
            looked: Whether the frame was searched for people out of sight.
        """
        if time < self._time:
            self.end()
        self._tracks = [track for track in self._tracks if self._looked - track.time <= self.max_gap + ROUNDING]
        self._time, self._looked = time, time if looked else self._looked
        looks = [appearance(image, face) for face in faces]
        crowded = _touching(faces)
        costs = [[track.cost(time, face, look) for face, look in zip(faces, looks, strict=True)] for track in self._tracks]
        owner: dict[int, _Track] = {}
        for row, column in assign(costs):
            owner[column] = self._tracks[row]
            owner[column].see(time, faces[column], looks[column], alone=not crowded[column])
        return [(owner.get(i) or self._start(time, face, looks[i])).number for i, face in enumerate(faces)]

    def expected(self, time: float) -> dict[int, Face]:
        """Return where the faces of the last frame are expected, by number; people out of sight are not among them."""
        return {track.number: track.expected(time) for track in self._tracks if track.time == self._time <= time}

    def end(self) -> None:
        """End every track, as at a scene cut."""
        self._tracks, self._looked = [], -math.inf

    def _start(self, time: float, face: Face, look: Array) -> _Track:
        self._count += 1
        self._tracks.append(_Track(self._count, face, time, np.zeros(2), look))
        return self._tracks[-1]


def appearance(image: NDArray[np.uint8], face: Face) -> Array:
    """Return how a face looks, a unit vector (3 * CELLS^2,): its colours on a coarse grid, upright if it has landmarks.

    The mean brightness and the contrast are taken out, the tint is not. The likeness of two faces is the product of theirs.
    """
    side = 2 * CELLS
    grid = np.stack(np.meshgrid(np.arange(side) + 0.5, np.arange(side) + 0.5), axis=-1).reshape(-1, 2)
    box = face.box_xyxy.astype(np.float64)
    if face.landmarks is None or not np.ptp(face.landmarks, axis=0).all():
        places = box[:2] + grid / side * (box[2:] - box[:2])
    else:
        back = similarity(placed(side, ARCFACE), face.landmarks)
        places = grid @ back[:, :2].T + back[:, 2]
    columns, rows = np.clip(places, 0, [image.shape[1] - 1, image.shape[0] - 1]).astype(np.intp).T
    pixels = image[rows, columns].astype(np.float64).reshape(CELLS, 2, CELLS, 2, 3)
    return _unit(pixels.mean(axis=(1, 3)).ravel())


def _unit(look: Array) -> Array:
    """Return a look without its mean and of length 1; of a blank one, zeros."""
    centred = look - look.mean()
    return centred / max(float(np.linalg.norm(centred)), 1e-9)


def _centre(face: Face) -> Array:
    return (face.box_xyxy[:2] + face.box_xyxy[2:]).astype(np.float64) / 2


def _size(face: Face) -> float:
    """Return the geometric mean of a box's sides, px."""
    return float(np.sqrt(np.prod(face.box_xyxy[2:] - face.box_xyxy[:2], dtype=np.float64)))


def _distance(point: Array, end: Array) -> float:
    """Return how far a point is from the way between the origin and `end`: a hidden person may have stopped anywhere on it."""
    length = float(end @ end)
    along = min(max(float(point @ end) / length, 0.0), 1.0) if length > 0 else 0.0
    return float(np.linalg.norm(point - along * end))


def overlaps(a: Sequence[Face], b: Sequence[Face]) -> Array:
    """Return the intersection over union of every box of `a` with every box of `b`, (len(a), len(b))."""
    first = np.array([face.box_xyxy for face in a], np.float64).reshape(-1, 1, 4)
    second = np.array([face.box_xyxy for face in b], np.float64).reshape(1, -1, 4)
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    shared = np.maximum(sides, 0).prod(axis=-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(axis=-1) for boxes in (first, second)]
    return shared / (areas[0] + areas[1] - shared)


def _touching(faces: Sequence[Face]) -> list[bool]:
    """Return of each face whether its box overlaps another's."""
    return [count > 1 for count in (overlaps(faces, faces) > 0).sum(axis=1).tolist()]
