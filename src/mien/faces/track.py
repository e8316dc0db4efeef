"""The faces of a video: detected in some frames, followed in the frames between, and numbered by person.

`VideoFaces` is what recognition uses. `Tracker` decides which face is which person. A scene cut (see `cuts`) ends every track.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import lap
import numpy as np
from numpy.typing import NDArray

from mien.errors import InputError
from mien.faces.crop import ARCFACE, similarity, template_points
from mien.faces.cuts import SceneCuts
from mien.faces.detect import Detector, Follower
from mien.structures import Face, Frame

Array = NDArray[np.float64]

DETECT_WITHIN = 0.25
"""Seconds after which faces are detected again, however few frames that is."""

MAX_GAP = 3.0
"""Seconds out of sight after which a person who returns gets a new number."""

UNCONFIRMED = 1.0
"""Seconds for which a face is followed that no detection finds again."""

SAME_FACE = 0.4
"""Intersection over union from which two boxes belong to the same face."""


class VideoFaces:
    """Finds and follows the faces of one video.

    Faces are detected in every `detect_every`-th frame, after a quarter of a second, after a scene cut, and at once when one is
    lost. They are detected in every frame if the detector has no `follow`. Nothing waits for later frames, so this works for
    live video. Pass the frames of one video in order.

    Args:
        detector: The face detector.
        detect_every: Number of frames from one detection to the next.
        max_gap: Seconds for which a hidden person keeps the number.
    """

    def __init__(self, detector: Detector, detect_every: int = 5, max_gap: float = MAX_GAP) -> None:
        if detect_every < 1:
            raise InputError(f"detect_every must be at least 1, got {detect_every}")
        self.detector = detector
        self.detect_every = detect_every
        self._detect = getattr(detector, "detect_frame", detector.detect)  # without the second search of a photo
        self._follow = detector.follow if isinstance(detector, Follower) else None
        self._tracker = Tracker(max_gap)
        self._cuts = SceneCuts()
        self._frame = self._detected = 0  # numbers of this frame and of the last one with a detection
        self._time = self._detected_time = -np.inf
        self._confirmed: dict[int, float] = {}  # by person: when a detection last found this face

    def step(self, frame: Frame) -> list[tuple[int, Face]]:
        """Return the number of each person in the next frame and their face, ordered by number.

        Args:
            frame: The frame; its time is in seconds, and steps may vary. If the time is earlier than the last frame's, a new
                video begins: every track ends, and no number is used again.
        """
        time = 0.0 if frame.time is None else frame.time
        if time < self._time or (not frame.damaged and self._cuts.is_cut(frame.image)):
            self._tracker.end()
            self._confirmed, self._detected_time = {}, -np.inf
        self._frame, self._time = self._frame + 1, time
        faces, confirmed = self._find(frame.image, time)
        numbers = self._tracker.update(time, frame.image, faces, searched=self._detected == self._frame)
        self._confirmed = dict(zip(numbers, confirmed, strict=True))
        return sorted(zip(numbers, faces, strict=True), key=lambda pair: pair[0])

    def _find(self, image: NDArray[np.uint8], time: float) -> tuple[list[Face], list[float]]:
        """Return the faces of a frame and, for each, when a detection last found it."""
        if self._follow is None:
            self._detected, faces = self._frame, self._detect(image)
            return faces, [time] * len(faces)
        expected = self._tracker.expected(time)
        faces, confirmed = [], []
        for number, face in zip(expected, self._follow(image, list(expected.values())), strict=True):
            if face is not None and time - self._confirmed.get(number, -np.inf) <= UNCONFIRMED:
                faces.append(face)
                confirmed.append(self._confirmed[number])
        faces, confirmed = _without_doubles(faces, confirmed)
        due = self._frame - self._detected >= self.detect_every or time - self._detected_time >= DETECT_WITHIN
        if not due and len(faces) == len(expected):
            return faces, confirmed

        self._detected, self._detected_time = self._frame, time
        detected = self._detect(image)
        agrees = iou(faces, detected) >= SAME_FACE
        confirmed = [time if any(row) else since for row, since in zip(agrees, confirmed, strict=True)]
        unknown = [face for face, known in zip(detected, agrees.sum(axis=0).tolist(), strict=True) if not known]
        new = [
            face for face in self._follow(image, unknown) if face is not None
        ]  # false detections rarely pass this second look
        return _without_doubles([*faces, *new], [*confirmed, *[time] * len(new)])


def _without_doubles(faces: Sequence[Face], confirmed: Sequence[float]) -> tuple[list[Face], list[float]]:
    """Return the faces without those that overlap a face of a higher score too much; the tracker decides whose face is left."""
    same = iou(faces, faces) >= SAME_FACE
    kept: list[int] = []
    for i in sorted(range(len(faces)), key=lambda i: -faces[i].score):
        if not same[i, kept].any():
            kept.append(i)
    return [faces[i] for i in sorted(kept)], [confirmed[i] for i in sorted(kept)]


CELLS = 12
"""Cells per side of the grid that describes how a face looks; each cell is the mean of 2 x 2 samples."""

TEXTURE_CELLS, DIRECTIONS = 4, 8
"""Cells per side, of 8 x 8 px, and directions of edges that describe a face's texture."""

REACH, REACH_GROWTH = 0.75, 2.0
"""Largest distance of a face from its expected position, in face sizes, and how much every second out of sight adds."""

MAX_RESIZE = 2.0
"""Largest ratio of a face's size to its track's."""

MIN_LIKENESS = 0.2
"""Smallest likeness of a face and its track, -1 to 1. Two frames of one face have about 0.9."""

HIDDEN = 0.2
"""Seconds out of sight after which a person is recognised by the face more than by its position."""

HIDDEN_REACH = 8.0
"""What every second adds to the reach of a person out of sight, in face sizes: long enough to change seats."""

MIN_HIDDEN = 0.72
"""Smallest likeness of a person who returns, -1 to 1. In CK+48, 98 % of the same faces reach it and 15 % of other people's."""

MIN_BRIEFLY = 0.5
"""The same for a person out of sight for a second at most, who may still be half covered."""

CLEAR = 0.03
"""Difference in likeness from which it is clear who has returned. In CK+48, 97 % of pairs are told apart, and none wrongly."""

HIDDEN_DISTANCE = 0.2
"""Cost of the largest distance for a person out of sight."""

LOOKS_WEIGHT = 2.0
"""Cost of no likeness at all, as a multiple of the cost of the largest distance."""

STEADY = 0.2
"""Time constant of a track's velocity, seconds."""

FORESIGHT = 1.0
"""Seconds for which a velocity is trusted and for which the reach grows, however sparse the frames are."""

LEARNING = 0.5
"""Time constant of a track's look, seconds."""

ROUNDING = 1e-6
"""Rounding error of the difference between the times of two frames, seconds."""

UNMATCHED = 1e3
"""Cost of leaving a face and a track without a partner; far more than all pairs of a frame together."""


@dataclass(slots=True, eq=False)
class _Track:
    """A person: the last face, when it was seen, the velocity of its centre in px per second, its look and its texture."""

    number: int
    face: Face
    time: float
    velocity: Array
    look: Array
    texture: Array | None

    def expected(self, time: float) -> Face:
        """Return the face moved to where its velocity leads."""
        step = (self.velocity * min(time - self.time, FORESIGHT)).astype(np.float32)
        points = self.face.landmarks
        return Face(self.face.box_xyxy + np.tile(step, 2), self.face.score, None if points is None else points + step)

    def is_hidden(self, time: float, before: float) -> bool:
        """Return whether the person was out of sight, given the times of a frame and of the one before."""
        return self.time < before and time - self.time > HIDDEN

    def likeness(self, look: Array, texture: Array | None) -> float:
        """Return how alike a face and the person are, -1 to 1: the mean of the likeness of looks and of textures."""
        looks = float(self.look @ look)
        return looks if self.texture is None or texture is None else (looks + float(self.texture @ texture)) / 2

    def cost(self, time: float, face: Face, look: Array, likeness: float | None) -> float:
        """Return the cost of matching a face to this track; infinite if it cannot be the same person.

        Args:
            time: When the frame is shown, in seconds.
            face: The face.
            look: Its `appearance`.
            likeness: Of a person who was out of sight, how alike they are; None for others, of whom motion tells more.
        """
        gap, size = min(time - self.time, FORESIGHT), _size(self.face)
        resize = _size(face) / size
        # A hidden person may have stopped anywhere on the way, so the distance is the one to that whole line segment.
        way, moved = self.velocity * gap, _centre(face) - _centre(self.face)
        length = float(way @ way)
        along = min(max(float(moved @ way) / length, 0.0), 1.0) if length > 0 else 0.0
        reach = REACH + (REACH_GROWTH if likeness is None else HIDDEN_REACH) * gap
        distance = float(np.linalg.norm(moved - along * way)) / (max(size, _size(face)) * reach)
        looks = float(self.look @ look)
        if not (1 / MAX_RESIZE <= resize <= MAX_RESIZE and distance <= 1 and looks >= MIN_LIKENESS):
            return math.inf
        if likeness is None:
            return distance + LOOKS_WEIGHT * (1 - looks)
        least = MIN_HIDDEN if time - self.time > FORESIGHT else MIN_BRIEFLY
        return HIDDEN_DISTANCE * distance + LOOKS_WEIGHT * (1 - likeness) if likeness >= least else math.inf

    def add(self, time: float, face: Face, look: Array, texture: Array | None, alone: bool) -> None:
        """Make a face the newest of this track; update its look and texture only while no other face overlaps it."""
        step = time - self.time
        if step > 0:
            velocity = (_centre(face) - _centre(self.face)) / step
            self.velocity = self.velocity + (1 - math.exp(-step / STEADY)) * (velocity - self.velocity)
            if alone:
                self.look = _unit(self.look + (1 - math.exp(-step / LEARNING)) * (look - self.look))
                self.texture = self.texture if texture is None else texture
        self.face, self.time = face, time


class Tracker:
    """Numbers the people of a video.

    In each frame, faces and tracks are paired so that the total cost is smallest. The cost of a pair is the distance from where
    the track's steady motion leads, plus how different the face looks from the track's. A pair that is too far apart, too
    different in size or too unlike is never made. Someone who was out of sight is recognised by the face more than by its
    position, and gets a new number where two people are too alike to tell. A track is forgotten once the search for it
    has failed for `max_gap` seconds.

    Numbers start at 1 and are never used twice. Memory holds the tracks of the last `max_gap` seconds only.

    Args:
        max_gap: Seconds a person may be out of sight and keep the number. A person who is in two successive frames keeps it
            however far apart the frames are.
    """

    def __init__(self, max_gap: float = MAX_GAP) -> None:
        if not (math.isfinite(max_gap) and max_gap >= 0):
            raise InputError(f"max_gap must be a number of seconds, 0 or more, got {max_gap}")
        self.max_gap = max_gap
        self._tracks: list[_Track] = []
        self._count = 0
        self._time = self._searched = -math.inf

    def update(self, time: float, image: NDArray[np.uint8], faces: Sequence[Face], searched: bool = True) -> list[int]:
        """Return the number of each face's person, in the order of the faces.

        Args:
            time: When the frame is shown, in seconds; steps may vary. A time before the last one ends every track.
            image: The frame, RGB uint8 (H, W, 3).
            faces: The faces in it, each person once.
            searched: Whether the frame was searched for people out of sight.
        """
        if time < self._time:
            self.end()
        self._tracks = [track for track in self._tracks if self._searched - track.time <= self.max_gap + ROUNDING]
        before, self._time, self._searched = self._time, time, time if searched else self._searched
        looks = [appearance(image, face) for face in faces]
        alone = ((iou(faces, faces) > 0).sum(axis=1) == 1).tolist()  # each face overlaps itself
        hidden = [track.is_hidden(time, before) for track in self._tracks]
        textures = [texture(image, face) for face in faces] if searched or any(hidden) else [None] * len(faces)
        alike = [
            [track.likeness(*each) if is_hidden else None for each in zip(looks, textures, strict=True)]
            for track, is_hidden in zip(self._tracks, hidden, strict=True)
        ]
        costs = [
            [track.cost(time, *each) for each in zip(faces, looks, row, strict=True)]
            for track, row in zip(self._tracks, alike, strict=True)
        ]
        owner: dict[int, _Track] = {}
        ended: list[_Track] = []
        for row, column in assign(costs):
            track, likeness = self._tracks[row], alike[row][column]
            rivals = [each[column] or 0.0 for i, each in enumerate(alike) if i != row]
            if likeness is not None and max(rivals, default=0.0) > likeness - CLEAR:
                ended.append(track)  # it may be either of two people
                continue
            owner[column] = track
            track.add(time, faces[column], looks[column], textures[column], alone[column])
        self._tracks = [track for track in self._tracks if track not in ended]
        for i, face in enumerate(faces):
            if i not in owner:
                self._count += 1
                owner[i] = _Track(self._count, face, time, np.zeros(2), looks[i], textures[i])
                self._tracks.append(owner[i])
        return [owner[i].number for i in range(len(faces))]

    def expected(self, time: float) -> dict[int, Face]:
        """Return where the faces of the last frame are expected, by number, without the people out of sight."""
        return {track.number: track.expected(time) for track in self._tracks if track.time == self._time <= time}

    def end(self) -> None:
        """End every track, as at a scene cut."""
        self._tracks, self._searched = [], -math.inf


def assign(costs: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """Return the (row, column) pairs of the cheapest assignment, ordered by row.

    As many pairs are made as possible. A pair of infinite cost is never made.

    >>> assign([[1, 2, 9], [1, 5, 9]])
    [(0, 1), (1, 0)]
    >>> assign([[math.inf, math.inf], [3, 4]])
    [(1, 0)]
    """
    matrix = np.array(costs, np.float64)
    if not matrix.size:
        return []
    _, rows, columns = lap.lapjvx(np.minimum(matrix, 2 * UNMATCHED), extend_cost=True, cost_limit=UNMATCHED)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def appearance(image: NDArray[np.uint8], face: Face) -> Array:
    """Return how a face looks: its colours on a coarse grid, a unit vector (3 * CELLS^2,).

    The grid is aligned if the face has landmarks. The mean brightness and the contrast are removed, the tint is not. The
    likeness of two faces is the dot product of their vectors.
    """
    pixels = _aligned(image, face, 2 * CELLS).reshape(CELLS, 2, CELLS, 2, 3)
    return _unit(pixels.mean(axis=(1, 3)).ravel())


def texture(image: NDArray[np.uint8], face: Face) -> Array:
    """Return histograms of the directions of a face's edges, a unit vector (TEXTURE_CELLS^2 * DIRECTIONS,).

    It tells people apart better than `appearance`, because it ignores light and tint, but takes longer. The likeness of two
    faces is the dot product of their vectors.
    """
    side = 8 * TEXTURE_CELLS
    grey = _aligned(image, face, 2 * side).mean(axis=2).reshape(side, 2, side, 2).mean(axis=(1, 3))
    down, right = np.gradient(grey)
    strength = np.hypot(down, right).ravel()
    direction = (np.arctan2(down, right) % np.pi / np.pi * DIRECTIONS).ravel()
    rows, columns = np.indices((side, side)).reshape(2, -1) // 8
    cell, first, share = (rows * TEXTURE_CELLS + columns) * DIRECTIONS, direction.astype(np.intp) % DIRECTIONS, direction % 1
    length = TEXTURE_CELLS**2 * DIRECTIONS
    counts = np.bincount(cell + first, strength * (1 - share), length)
    counts += np.bincount(cell + (first + 1) % DIRECTIONS, strength * share, length)
    histograms = np.sqrt(counts).reshape(-1, DIRECTIONS)  # a root, so that one strong edge is not everything
    usual = np.sqrt(counts.sum()) / TEXTURE_CELLS
    histograms /= np.linalg.norm(histograms, axis=1, keepdims=True) + 0.2 * usual + 1e-6
    return _unit(histograms.ravel())


@cache
def _grid(side: int) -> Array:
    return np.stack(np.meshgrid(np.arange(side) + 0.5, np.arange(side) + 0.5), axis=-1).reshape(-1, 2)


def _aligned(image: NDArray[np.uint8], face: Face, side: int) -> Array:
    """Return side x side pixels of a face, upright if it has landmarks."""
    grid = _grid(side)
    box = face.box_xyxy.astype(np.float64)
    if face.landmarks is None or not np.ptp(face.landmarks, axis=0).all():
        points = box[:2] + grid / side * (box[2:] - box[:2])
    else:
        back = similarity(template_points(side, ARCFACE), face.landmarks)
        points = grid @ back[:, :2].T + back[:, 2]
    columns, rows = np.clip(points, 0, [image.shape[1] - 1, image.shape[0] - 1]).astype(np.intp).T
    return image[rows, columns].astype(np.float64).reshape(side, side, 3)


def _unit(look: Array) -> Array:
    """Return a look without its mean, scaled to length 1; zeros if all its values are equal."""
    centred = look - look.mean()
    return centred / max(float(np.linalg.norm(centred)), 1e-9)


def _centre(face: Face) -> Array:
    return (face.box_xyxy[:2] + face.box_xyxy[2:]).astype(np.float64) / 2


def _size(face: Face) -> float:
    """Return the geometric mean of a box's sides, px."""
    return float(np.sqrt(np.prod(face.box_xyxy[2:] - face.box_xyxy[:2], dtype=np.float64)))


def iou(a: Sequence[Face], b: Sequence[Face]) -> Array:
    """Return the intersection over union of every box of `a` with every box of `b`, (len(a), len(b))."""
    first = np.array([face.box_xyxy for face in a], np.float64).reshape(-1, 1, 4)
    second = np.array([face.box_xyxy for face in b], np.float64).reshape(1, -1, 4)
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    shared = np.maximum(sides, 0).prod(axis=-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(axis=-1) for boxes in (first, second)]
    return shared / (areas[0] + areas[1] - shared)
