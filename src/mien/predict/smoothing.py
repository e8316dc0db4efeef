"""Smoothing of the probabilities over time, for each person of a video; in seconds, whatever the frame rate.

A frame's answer flickers where a face's expression does not. `exponential` looks back only and answers at once, for live video;
`centred` looks as far ahead as back, so that an expression starts and ends when it does, and answers late. Both leave a
steady answer as it is, and every result sums to 1. A person unseen for longer than `max_gap` seconds starts anew.
"""

from __future__ import annotations

import math
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mien.errors import InputError, OutputError
from mien.registry import Registry
from mien.structures import Prediction, Reading

Array = NDArray[np.float64]

MAX_GAP = 1.0
"""Seconds a person may be unseen before smoothing starts anew; as long as a track survives."""

HELD_BYTES = 128 * 2**20
"""Bytes of frames that may wait in memory for what follows them; those beyond wait in a temporary file."""

NO_PIXELS: NDArray[np.uint8] = np.empty((0, 0, 3), np.uint8)
"""The picture of a frame whose pixels lie on the disk."""


class Smoother(Protocol):
    """Takes the readings of a stream in order and gives each back once, in that order, its probabilities smoothed.

    Readings without a time (pictures, errors) and predictions without a track come back as they are. Another source, or a time
    before the last one, starts anew.
    """

    def push(self, reading: Reading) -> Iterator[Reading]:
        """Take the next reading and return those that are ready now; a frame is fetched when its turn comes.

        Raises:
            OutputError: Frames wait on the disk, and it is full.
        """
        ...

    def flush(self) -> Iterator[Reading]:
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

    def push(self, reading: Reading) -> Iterator[Reading]:
        """Return the reading."""
        return iter((reading,))

    def flush(self) -> Iterator[Reading]:
        """Return nothing: none waits."""
        return iter(())


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

    def push(self, reading: Reading) -> Iterator[Reading]:
        """Return the reading, smoothed."""
        time = _time(reading)
        if not self._place.follows(reading):
            self._state = {}
        if time is None:
            return iter((reading,))
        self._state = {track: (t, p) for track, (t, p) in self._state.items() if time - t <= self.max_gap}
        return iter((_mapped(reading, lambda prediction: self._smooth(time, prediction)),))

    def flush(self) -> Iterator[Reading]:
        """Return nothing: none waits. Forget everyone."""
        self._place, self._state = _Place(), {}
        return iter(())

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
    their frames: in memory up to `HELD_BYTES`, the others in a temporary file, so the window is whole at any size.

    Args:
        seconds: Half the window.
        unsure_below: A smoothed prediction whose confidence is below this is unsure.
        max_gap: Seconds a person may be unseen before smoothing starts anew.
    """

    def __init__(self, seconds: float = 0.3, unsure_below: float = 0.0, max_gap: float = MAX_GAP) -> None:
        self.seconds, self.unsure_below, self.max_gap = _checked(seconds, unsure_below, max_gap)
        self._place = _Place()
        self._waiting: deque[_Kept] = deque()
        self._shelf = _Shelf()
        self._past: dict[
            int, deque[tuple[float, Array]]
        ] = {}  # times and answers, by track, those before the oldest waiting too

    def push(self, reading: Reading) -> Iterator[Reading]:
        """Return the readings that lie `seconds` back."""
        done = [] if self._place.follows(reading) else self._end()
        time = _time(reading)
        self._waiting.append(self._shelf.put(reading))
        for prediction in reading.predictions:
            if time is not None and prediction.track is not None:
                answers = self._past.setdefault(prediction.track, deque())
                answers.append((time, prediction.probs.astype(np.float64)))
        done += self._release(lambda oldest: time is not None and oldest + self.seconds <= time)
        return map(self._shelf.take, done)

    def flush(self) -> Iterator[Reading]:
        """Return the readings still waiting and forget everyone."""
        self._place = _Place()
        return map(self._shelf.take, self._end())

    def _end(self) -> list[_Kept]:
        done = self._release(lambda _: True)
        self._past = {}
        return done

    def _release(self, ready: Callable[[float], bool]) -> list[_Kept]:
        """Return the oldest readings while they are ready, by their time; those without a time go with what is before them."""
        done = []
        while self._waiting:
            time = _time(self._waiting[0].reading)
            if time is not None and not ready(time):
                break
            kept = self._waiting.popleft()
            done.append(kept if time is None else replace(kept, reading=self._smoothed(time, kept.reading)))
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


@dataclass(frozen=True, slots=True)
class _Kept:
    """A reading that waits; its frame's pixels may lie in the shelf's file, from `start` on."""

    reading: Reading
    shape: tuple[int, ...] = ()
    start: int | None = None


class _Shelf:
    """Keeps the frames of waiting readings, up to `HELD_BYTES` in memory and the others in a file that has no name."""

    def __init__(self) -> None:
        self.held = 0  # bytes in memory
        self.stored = 0  # frames in the file
        self.length = 0  # of the file
        self._file: Any = None
        self._free: dict[int, list[int]] = {}  # places in the file, by their size

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()

    def put(self, reading: Reading) -> _Kept:
        """Take a reading in."""
        frame = reading.frame
        if frame is None or self.held + frame.image.nbytes <= HELD_BYTES:
            self.held += _bytes(reading)
            return _Kept(reading)
        start = self._store(frame.image)
        return _Kept(replace(reading, frame=replace(frame, image=NO_PIXELS)), frame.image.shape, start)

    def take(self, kept: _Kept) -> Reading:
        """Give a reading out."""
        reading, frame = kept.reading, kept.reading.frame
        if frame is None or kept.start is None:
            self.held -= _bytes(reading)
            return reading
        return replace(reading, frame=replace(frame, image=self._fetch(kept.shape, kept.start)))

    def _store(self, image: NDArray[np.uint8]) -> int:
        """Write a picture and return its place."""
        free = self._free.get(image.nbytes)
        start = free.pop() if free else self.length
        pixels = np.ascontiguousarray(image).data.cast("B")
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
            self._file.seek(start)
            while pixels:
                pixels = pixels[self._file.write(pixels) :]
        except OSError as error:
            raise _unkept(error) from None
        self.stored, self.length = self.stored + 1, max(self.length, start + image.nbytes)
        return start

    def _fetch(self, shape: Sequence[int], start: int) -> NDArray[np.uint8]:
        """Read a picture back and give up its place; the file goes with the last one."""
        image = np.empty(shape, np.uint8)
        rest = image.data.cast("B")
        try:
            self._file.seek(start)
            while rest:
                if not (read := self._file.readinto(rest)):
                    raise OSError("the file has become shorter")
                rest = rest[read:]
        except OSError as error:
            raise _unkept(error) from None
        self.stored -= 1
        self._free.setdefault(image.nbytes, []).append(start)
        if not self.stored:
            self._file.close()
            self._file, self.length, self._free = None, 0, {}
        return image


def _unkept(error: OSError) -> OutputError:
    where = tempfile.tempdir or "the temporary folder"
    return OutputError(
        f"{where}: cannot hold the frames that wait for the filter 'centred' ({error.strerror or error}); "
        "free some space there, name another folder in TMPDIR, or take fewer seconds"
    )


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
    total = weights.sum()
    return weights / total if total > 0 else np.full(len(times), 1 / len(times))  # 0 where all are of one time


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
