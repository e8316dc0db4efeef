"""Smoothing of each person's probabilities over time, in seconds, whatever the frame rate.

Answers flicker from frame to frame where expressions do not. `exponential` looks back only and answers at once, for live video.
`centred` looks as far ahead as back, so that an expression begins and ends on time, and answers late. A constant answer stays
the same, and results sum to 1. After a gap of more than `max_gap` seconds smoothing starts again.
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
from mien.faces.quality import trusted
from mien.registry import Registry
from mien.structures import Prediction, Reading

Array = NDArray[np.float64]

MAX_UNSEEN = 1.0
"""Seconds a person may be out of sight before smoothing starts again. The person keeps the number for longer."""


class Smoother(Protocol):
    """Takes the readings of a stream in order and returns each once, in that order, with smoothed probabilities.

    Readings without a time (pictures, errors), those of damaged frames and predictions without a track are returned unchanged.
    Another source, or a time before the last one, starts again.
    """

    def push(self, reading: Reading) -> list[Reading]:
        """Take the next reading and return those that are ready."""
        ...

    def flush(self) -> list[Reading]:
        """Return the readings that still wait and forget everything; call it at the end of the stream."""
        ...


SMOOTHERS: Registry[Smoother] = Registry("smoother")
"""The smoothers by name; each takes seconds, unsure_below and max_gap."""


def create_smoother(
    name: str = "exponential", seconds: float = 0.3, unsure_below: float = 0.0, max_gap: float = MAX_UNSEEN
) -> Smoother:
    """Return a smoother.

    Args:
        name: `none`, `exponential` or `centred`.
        seconds: Time constant of `exponential`, or half the window of `centred`.
        unsure_below: A smoothed prediction with a confidence below this is unsure, as in `Recognizer`.
        max_gap: Seconds a person may be out of sight before smoothing starts again.

    Raises:
        UnknownNameError: There is no such smoother; names the nearest.
        InputError: A number is out of range.
    """
    return SMOOTHERS.create(name, seconds=seconds, unsure_below=unsure_below, max_gap=max_gap)


@SMOOTHERS.register("none")
class Unsmoothed:
    """Returns every reading unchanged, at once."""

    def __init__(self, seconds: float = 0.0, unsure_below: float = 0.0, max_gap: float = MAX_UNSEEN) -> None:
        pass

    def push(self, reading: Reading) -> list[Reading]:
        """Return the reading."""
        return [reading]

    def flush(self) -> list[Reading]:
        """Return nothing, because nothing waits."""
        return []


@SMOOTHERS.register("exponential")
class Exponential:
    """Moves the previous answer towards each new one by 1 - exp(-dt / seconds), at once.

    After a step of the input the answer has covered 63 % of it in `seconds`, at any frame rate, constant or not. The arguments
    are those of `create_smoother`.
    """

    def __init__(self, seconds: float = 0.3, unsure_below: float = 0.0, max_gap: float = MAX_UNSEEN) -> None:
        self.seconds, self.unsure_below, self.max_gap = _checked(seconds, unsure_below, max_gap)
        self._position = _Position()
        self._state: dict[int, tuple[float, Array]] = {}  # time and answer, by track

    def push(self, reading: Reading) -> list[Reading]:
        """Return the reading, smoothed."""
        time = _time(reading)
        if not self._position.continues(reading):
            self._state = {}
        if time is None or _is_damaged(reading):
            return [reading]
        self._state = {track: (t, p) for track, (t, p) in self._state.items() if time - t <= self.max_gap}
        return [_with_predictions(reading, lambda prediction: self._smooth(time, prediction))]

    def flush(self) -> list[Reading]:
        """Return nothing, because nothing waits, and forget everyone."""
        self._position, self._state = _Position(), {}
        return []

    def _smooth(self, time: float, prediction: Prediction) -> Prediction:
        assert prediction.track is not None
        probs = prediction.probs.astype(np.float64)
        if prediction.track in self._state:
            before, smoothed = self._state[prediction.track]
            probs = smoothed + (1 - math.exp(-(time - before) / self.seconds)) * (probs - smoothed)
        self._state[prediction.track] = (time, probs)
        return _with_probs(prediction, probs, self.unsure_below)


@SMOOTHERS.register("centred")
class Centred:
    """Weighs the answers from `seconds` before to `seconds` after with a triangle, and answers `seconds` late.

    Each answer stands for the time halfway to its neighbours, so that uneven sampling counts nothing twice. Readings wait with
    their frames, for `seconds` of video. The arguments are those of `create_smoother`.
    """

    def __init__(self, seconds: float = 0.3, unsure_below: float = 0.0, max_gap: float = MAX_UNSEEN) -> None:
        self.seconds, self.unsure_below, self.max_gap = _checked(seconds, unsure_below, max_gap)
        self._position = _Position()
        self._waiting: deque[Reading] = deque()
        self._answers: dict[int, deque[tuple[float, Array]]] = {}  # times and answers, by track, from a window ago on

    def push(self, reading: Reading) -> list[Reading]:
        """Return the readings that are `seconds` old."""
        done = [] if self._position.continues(reading) else self._end()
        time = _time(reading)
        self._waiting.append(reading)
        for prediction in () if _is_damaged(reading) else reading.predictions:
            if time is not None and prediction.track is not None:
                answers = self._answers.setdefault(prediction.track, deque())
                answers.append((time, prediction.probs.astype(np.float64)))
        return done + self._release(lambda oldest: time is not None and oldest + self.seconds <= time)

    def flush(self) -> list[Reading]:
        """Return the readings that still wait and forget everyone."""
        self._position = _Position()
        return self._end()

    def _end(self) -> list[Reading]:
        done = self._release(lambda _: True)
        self._answers = {}
        return done

    def _release(self, ready: Callable[[float], bool]) -> list[Reading]:
        """Return the oldest readings while their time is ready; those without a time follow the reading before them."""
        done = []
        while self._waiting:
            time = _time(self._waiting[0])
            if time is not None and not ready(time):
                break
            reading = self._waiting.popleft()
            done.append(reading if time is None else self._smoothed(time, reading))
        return done

    def _smoothed(self, time: float, reading: Reading) -> Reading:
        horizon = time - self.seconds - self.max_gap  # one answer before the window tells where the first one in it begins
        for track in list(self._answers):
            answers = self._answers[track]
            while answers and answers[0][0] < horizon:
                answers.popleft()
            if not answers:
                del self._answers[track]
        if _is_damaged(reading):
            return reading
        return _with_predictions(reading, lambda prediction: self._smooth(time, prediction))

    def _smooth(self, time: float, prediction: Prediction) -> Prediction:
        assert prediction.track is not None
        answers = self._answers[prediction.track]
        times, probs = np.array([t for t, _ in answers]), np.array([p for _, p in answers])
        first, last = _without_gap(times, time, self.max_gap)
        weights = _weights(times[first:last], time, self.seconds)
        return _with_probs(prediction, weights @ probs[first:last], self.unsure_below)


class _Position:
    """Source and time of the latest reading of a stream."""

    def __init__(self) -> None:
        self._source: tuple[str | None, int] | None = None
        self._time = -math.inf

    def continues(self, reading: Reading) -> bool:
        """Move to a reading and return whether it continues the one before; the first of all does."""
        source, time = (reading.source, reading.number), _time(reading)
        other = self._source not in (None, source)
        backwards = time is not None and time < self._time
        if other or backwards:
            self._time = -math.inf
        self._source, self._time = source, self._time if time is None else time
        return not (other or backwards)


def _without_gap(times: Array, time: float, max_gap: float) -> tuple[int, int]:
    """Return the first and one past the last of the answers around `time` with no gap above `max_gap` between them."""
    at = int(np.searchsorted(times, time))
    gaps = np.nonzero(np.diff(times) > max_gap)[0] + 1  # index of the first answer after each gap
    return int(gaps[gaps <= at].max(initial=0)), int(gaps[gaps > at].min(initial=len(times)))


def _weights(times: Array, time: float, seconds: float) -> Array:
    """Return the weight of each answer, (N,), sum 1: the integral of the triangle over the time the answer stands for."""
    if len(times) == 1:
        return np.ones(1)
    middles = (times[1:] + times[:-1]) / 2
    edges = np.concatenate([[2 * times[0] - middles[0]], middles, [2 * times[-1] - middles[-1]]])
    x = np.clip((edges - time) / seconds, -1, 1)
    weights = np.diff(x - np.sign(x) * x**2 / 2)
    total = weights.sum()
    return weights / total if total > 0 else np.full(len(times), 1 / len(times))  # 0 if all times are equal


def _checked(seconds: float, unsure_below: float, max_gap: float) -> tuple[float, float, float]:
    if not (math.isfinite(seconds) and seconds > 0 and math.isfinite(max_gap) and max_gap > 0 and 0 <= unsure_below <= 1):
        raise InputError(
            f"smoothing needs seconds and max_gap above 0 and unsure_below from 0 to 1, got {seconds}, {max_gap}, "
            f"{unsure_below}; to switch it off choose the smoother 'none'"
        )
    return seconds, unsure_below, max_gap


def _time(reading: Reading) -> float | None:
    return None if reading.frame is None else reading.frame.time


def _is_damaged(reading: Reading) -> bool:
    return reading.frame is not None and reading.frame.damaged


def _with_predictions(reading: Reading, smooth: Callable[[Prediction], Prediction]) -> Reading:
    return replace(reading, predictions=tuple(p if p.track is None else smooth(p) for p in reading.predictions))


def _with_probs(prediction: Prediction, probs: Array, unsure_below: float) -> Prediction:
    """Return a prediction with other probabilities, and `unsure` to match."""
    smoothed = replace(prediction, probs=(probs / probs.sum()).astype(np.float32))
    return replace(smoothed, unsure=trusted(smoothed.confidence, smoothed.quality) < unsure_below)
