"""The faces of a video, frame by frame: detected now and then, followed between, numbered by person.

A face is shown as soon as it is found, so nothing waits; a new one is looked at a second time in the same frame (`follow` at
its own box), which false finds seldom survive. A followed face that no detection has confirmed for `max_gap` seconds is let go.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mien.errors import InputError
from mien.faces import Detector, Follower
from mien.faces.cuts import SceneCuts
from mien.faces.track import Tracker, overlaps
from mien.structures import Face, Frame

DETECT_WITHIN = 0.25
"""Seconds after which faces are detected again, however few frames that is."""

SAME = 0.4
"""Overlap, intersection over union, from which two boxes are one face."""


class VideoFaces:
    """Finds and follows the faces of one video.

    Faces are detected in every `detect_every`-th frame, after a quarter of a second, after a scene cut, and at once when one is
    lost; in every frame if the detector has no `follow`. Feed it the frames of one video in order; live video too.

    Args:
        detector: What finds the faces.
        detect_every: Frames from one detection to the next.
        max_gap: Seconds a person may be out of sight and keep the number.
    """

    def __init__(self, detector: Detector, detect_every: int = 5, max_gap: float = 1.0) -> None:
        if detect_every < 1:
            raise InputError(f"detect_every must be at least 1, got {detect_every}")
        self.detector = detector
        self.detect_every = detect_every
        self._follow = detector.follow if isinstance(detector, Follower) else None
        self._tracker = Tracker(max_gap)
        self._cuts = SceneCuts()
        self._frame = self._detected = 0  # numbers of this frame and of the last with a detection
        self._time = self._detected_time = -np.inf
        self._confirmed: dict[int, float] = {}  # when a detection last agreed, by person

    def step(self, frame: Frame) -> list[tuple[int, Face]]:
        """Return the number of each person in the next frame and their face, by number.

        Args:
            frame: The frame; its time in seconds, steps may vary. A time before the last one's begins a new video: every
                track ends, and no number is used again.
        """
        time = 0.0 if frame.time is None else frame.time
        if self._cuts.is_cut(frame.image) or time < self._time:
            self._tracker.end()
            self._confirmed, self._detected_time = {}, -np.inf
        self._frame, self._time = self._frame + 1, time
        faces, confirmed = self._find(frame.image, time)
        numbers = self._tracker.update(time, frame.image, faces, looked=self._detected == self._frame)
        self._confirmed = dict(zip(numbers, confirmed, strict=True))
        return sorted(zip(numbers, faces, strict=True), key=lambda pair: pair[0])

    def _find(self, image: NDArray[np.uint8], time: float) -> tuple[list[Face], list[float]]:
        """Return the faces of a frame and when a detection last agreed with each."""
        if self._follow is None:
            self._detected, faces = self._frame, self.detector.detect(image)
            return faces, [time] * len(faces)
        expected = self._tracker.expected(time)
        followed, confirmed = self._followed(image, expected)
        if not self._due(time) and len(followed) == len(expected):
            return followed, confirmed
        self._detected, self._detected_time = self._frame, time
        detected = self.detector.detect(image)
        agrees = overlaps(followed, detected) >= SAME
        confirmed = [time if any(row) else since for row, since in zip(agrees, confirmed, strict=True)]
        unknown = [face for face, known in zip(detected, agrees.sum(axis=0).tolist(), strict=True) if not known]
        new = [face for face in self._follow(image, unknown) if face is not None]
        return _apart([*followed, *new], [*confirmed, *[time] * len(new)])

    def _due(self, time: float) -> bool:
        return self._frame - self._detected >= self.detect_every or time - self._detected_time >= DETECT_WITHIN

    def _followed(self, image: NDArray[np.uint8], expected: dict[int, Face]) -> tuple[list[Face], list[float]]:
        """Return the faces of the frame before that are still there, each once, and when a detection last agreed."""
        assert self._follow is not None
        faces, confirmed = [], []
        for number, face in zip(expected, self._follow(image, list(expected.values())), strict=True):
            if face is not None and self._time - self._confirmed.get(number, -np.inf) <= self._tracker.max_gap:
                faces.append(face)
                confirmed.append(self._confirmed[number])
        return _apart(faces, confirmed)


def _apart(faces: Sequence[Face], confirmed: Sequence[float]) -> tuple[list[Face], list[float]]:
    """Return the faces without the less certain of any two that are one; whose face it is, the tracker decides."""
    same = overlaps(faces, faces) >= SAME
    kept: list[int] = []
    for i in sorted(range(len(faces)), key=lambda i: -faces[i].score):
        if not same[i, kept].any():
            kept.append(i)
    return [faces[i] for i in sorted(kept)], [confirmed[i] for i in sorted(kept)]
