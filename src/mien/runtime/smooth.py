"""Smoothing of the probabilities over time, for each person of a video; in seconds, whatever the frame rate.

A frame's answer flickers where a face's expression does not. `exponential` looks back only and answers at once, for live video;
`centred` looks as far ahead as back, so that an expression starts and ends when it does, and answers late. Both leave a
steady answer as it is, and every result sums to 1. A person unseen for longer than `max_gap` seconds starts anew.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mien.errors import InputError
from mien.registry import Registry
from mien.structures import Prediction, Reading

Array = NDArray[np.float64]

MAX_GAP = 1.0
"""Seconds a person may be unseen before smoothing starts anew; as long as a track survives."""

HELD_BYTES = 128 * 2**20
"""Bytes of frames that may wait for what follows them; beyond that the oldest is smoothed with what is known by then."""


class Smoother(Protocol):
    """Takes the readings of a stream in order and gives each back once, in that order, its probabilities smoothed.

    Readings without a time (pictures, errors) and predictions without a track come back as they are. Another source, or a time
    before the last one, starts anew.
    """

    def push(self, reading: Reading) -> list[Reading]:
        """Take the next reading and return those that are ready now."""
        ...

    def flush(self) -> list[Reading]:
        """Return the readings still waiting and forget everything; call it at the end of the stream."""
        ...


SMOOTHERS: Registry[Smoother] = Registry("smoother")
"""The smoothers by name; each takes seconds, unsure_below and max_gap."""


def create_smoother(
    name: str = "exponential", seconds: float = 0.3, unsure_below: float = 0.0, max_gap: float = MAX_GAP
) -> Smoother:
    """Return a smoother.

    Args:
        name: `none`, `exponential` or `centred`.
        seconds: How strongly: the time constant of `exponential`, half the window of `centred`.
        unsure_below: A smoothed prediction whose confidence is below this is unsure.
        max_gap: Seconds a person may be unseen before smoothing starts anew.

    Raises:
        UnknownNameError: No such smoother; lists the nearest.
        InputError: A number is out of range.
    """
    return SMOOTHERS.create(name, seconds=seconds, unsure_below=unsure_below, max_gap=max_gap)


def smoother_names() -> list[str]:
    """Return the names `create_smoother` knows.

    >>> smoother_names()
    ['none', 'exponential', 'centred']
    """
    return SMOOTHERS.names()


@SMOOTHERS.register("none")
class Unsmoothed:
    """Gives every reading back as it is, at once."""

    def __init__(self, seconds: float = 0.0, unsure_below: float = 0.0, max_gap: float = MAX_GAP) -> None:
        pass

    def push(self, reading: Reading) -> list[Reading]:
        """Return the reading."""
        return [reading]

    def flush(self) -> list[Reading]:
        """Return nothing: none waits."""
        return []


@SMOOTHERS.register("exponential")
class Exponential:
    """Moves from the answer before towards each new one by 1 - exp(-dt / seconds); answers at once.

    After a step of the input the answer has gone 63 % of the way in `seconds`, at any frame rate, steady or not.

    Args:
        seconds: The time constant.
        unsure_below: A smoothed prediction whose confidence is below this is unsure.
        max_gap: Seconds a person may be unseen before smoothing starts anew.
    """

    def __init__(self, seconds: float = 0.3, unsure_below: float = 0.0, max_gap: float = MAX_GAP) -> None:
        self.seconds, self.unsure_below, self.max_gap = _checked(seconds, unsure_below, max_gap)
        self._place = _Place()
        self._state: dict[int, tuple[float, Array]] = {}  # time and answer, by track

    def push(self, reading: Reading) -> list[Reading]:
        """Return the reading, smoothed."""
        time = _time(reading)
        if not self._place.follows(reading):
            self._state = {}
        if time is None:
            return [reading]
        self._state = {track: (t, p) for track, (t, p) in self._state.items() if time - t <= self.max_gap}
        return [_mapped(reading, lambda prediction: self._smooth(time, prediction))]

    def flush(self) -> list[Reading]:
        """Return nothing: none waits. Forget everyone."""
        self._place, self._state = _Place(), {}
        return []

    def _smooth(self, time: float, prediction: Prediction) -> Prediction:
        assert prediction.track is not None
        probs = prediction.probs.astype(np.float64)
        if prediction.track in self._state:
            before, smoothed = self._state[prediction.track]
            probs = smoothed + (1 - math.exp(-(time - before) / self.seconds)) * (probs - smoothed)
        self._state[prediction.track] = (time, probs)
        return _answered(prediction, probs, self.unsure_below)


@SMOOTHERS.register("centred")
class Centred:
    """Weighs the answers from `seconds` before to `seconds` after with a triangle; answers `seconds` late.

    Each answer stands for the time halfway to its neighbours, so uneven sampling weighs nothing twice. Waiting readings hold
    their frames: what waits is bounded by `seconds` and by `HELD_BYTES`.

    Args:
        seconds: Half the window.
        unsure_below: A smoothed prediction whose confidence is below this is unsure.
        max_gap: Seconds a person may be unseen before smoothing starts anew.
    """

    def __init__(self, seconds: float = 0.3, unsure_below: float = 0.0, max_gap: float = MAX_GAP) -> None:
        self.seconds, self.unsure_below, self.max_gap = _checked(seconds, unsure_below, max_gap)
        self._place = _Place()
        self._waiting: deque[Reading] = deque()
        self._held = 0  # bytes of the waiting frames
        self._past: dict[
            int, deque[tuple[float, Array]]
        ] = {}  # times and answers, by track, those before the oldest waiting too

    def push(self, reading: Reading) -> list[Reading]:
        """Return the readings that lie `seconds` back."""
        done = [] if self._place.follows(reading) else self._end()
        time = _time(reading)
        self._waiting.append(reading)
        self._held += _bytes(reading)
        if time is None:
            return done + self._release(lambda _: False)
        for prediction in reading.predictions:
            if prediction.track is not None:
                answers = self._past.setdefault(prediction.track, deque())
                answers.append((time, prediction.probs.astype(np.float64)))
        return done + self._release(lambda oldest: oldest + self.seconds <= time or self._held > HELD_BYTES)

    def flush(self) -> list[Reading]:
        """Return the readings still waiting and forget everyone."""
        self._place = _Place()
        return self._end()

    def _end(self) -> list[Reading]:
        done = self._release(lambda _: True)
        self._past = {}
        return done

    def _release(self, ready: Callable[[float], bool]) -> list[Reading]:
        """Return the oldest readings while they are ready, by their time; those without a time go with what is before them."""
        done = []
        while self._waiting:
            time = _time(self._waiting[0])
            if time is not None and not ready(time):
                break
            reading = self._waiting.popleft()
            self._held -= _bytes(reading)
            done.append(reading if time is None else self._smoothed(time, reading))
        return done

    def _smoothed(self, time: float, reading: Reading) -> Reading:
        horizon = time - self.seconds - self.max_gap  # one answer before the window says where its first one begins
        for track in list(self._past):
            answers = self._past[track]
            while answers and answers[0][0] < horizon:
                answers.popleft()
            if not answers:
                del self._past[track]
        return _mapped(reading, lambda prediction: self._smooth(time, prediction))

    def _smooth(self, time: float, prediction: Prediction) -> Prediction:
        assert prediction.track is not None
        answers = self._past[prediction.track]
        times, probs = np.array([t for t, _ in answers]), np.array([p for _, p in answers])
        first, last = _together(times, time, self.max_gap)
        weights = _weights(times[first:last], time, self.seconds)
        return _answered(prediction, weights @ probs[first:last], self.unsure_below)


class _Place:
    """Where in which source a stream is."""

    def __init__(self) -> None:
        self._source: tuple[str | None, int] | None = None
        self._time = -math.inf

    def follows(self, reading: Reading) -> bool:
        """Go to a reading and return whether it goes on from the one before; the first of all does."""
        source, time = (reading.source, reading.number), _time(reading)
        other = self._source not in (None, source)
        backwards = time is not None and time < self._time
        if other or backwards:
            self._time = -math.inf
        self._source, self._time = source, self._time if time is None else time
        return not (other or backwards)


def _together(times: Array, time: float, max_gap: float) -> tuple[int, int]:
    """Return first and one past the last of the answers that no gap longer than `max_gap` parts from `time`."""
    at = int(np.searchsorted(times, time))
    gaps = np.nonzero(np.diff(times) > max_gap)[0] + 1  # a part begins at each
    return int(gaps[gaps <= at].max(initial=0)), int(gaps[gaps > at].min(initial=len(times)))


def _weights(times: Array, time: float, seconds: float) -> Array:
    """Return the weight of each answer, (N,), sums to 1: the triangle around `time` over the stretch the answer stands for."""
    if len(times) == 1:
        return np.ones(1)
    middles = (times[1:] + times[:-1]) / 2
    edges = np.concatenate([[2 * times[0] - middles[0]], middles, [2 * times[-1] - middles[-1]]])
    x = np.clip((edges - time) / seconds, -1, 1)
    weights = np.diff(x - np.sign(x) * x**2 / 2)  # the triangle's integral
    return weights / weights.sum()


def _checked(seconds: float, unsure_below: float, max_gap: float) -> tuple[float, float, float]:
    if not (math.isfinite(seconds) and seconds > 0 and math.isfinite(max_gap) and max_gap > 0 and 0 <= unsure_below <= 1):
        raise InputError(
            f"smoothing needs seconds and max_gap above 0 and unsure_below from 0 to 1, got {seconds}, {max_gap}, "
            f"{unsure_below}; to switch it off choose the smoother 'none'"
        )
    return seconds, unsure_below, max_gap


def _time(reading: Reading) -> float | None:
    return None if reading.frame is None else reading.frame.time


def _bytes(reading: Reading) -> int:
    return 0 if reading.frame is None else reading.frame.image.nbytes


def _mapped(reading: Reading, smooth: Callable[[Prediction], Prediction]) -> Reading:
    """Return a reading with its tracked predictions smoothed."""
    return replace(reading, predictions=tuple(p if p.track is None else smooth(p) for p in reading.predictions))


def _answered(prediction: Prediction, probs: Array, unsure_below: float) -> Prediction:
    """Return a prediction with other probabilities, its doubt decided anew."""
    smoothed = replace(prediction, probs=(probs / probs.sum()).astype(np.float32))
    return replace(smoothed, unsure=smoothed.confidence < unsure_below)
