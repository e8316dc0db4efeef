"""Things that come by themselves: only the newest counts, and a film is played in its own time."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import Generic, TypeVar

from mien.structures import Frame, Reading

T = TypeVar("T")

PATIENCE = 12.0
"""Seconds that the end of the thread is waited for; a camera that says nothing gives up before."""

CATCH_UP = 0.5
"""Seconds a film that is played may be late and still catch up; beyond that it goes on from where it is."""


class Newest(Generic[T]):
    """Runs an iterator in a thread and holds its newest item; those nobody took in time are dropped.

    Args:
        items: What is run; a generator is also closed in the thread.
    """

    def __init__(self, items: Iterable[T]) -> None:
        self._items = items
        self._changed = threading.Condition()
        self._newest: list[T] = []
        self._error: BaseException | None = None
        self._stopped = self._ending = self._ended = self._held = False
        self._times: deque[float] = deque(maxlen=30)
        self._thread = threading.Thread(target=self._run, name="mien-newest", daemon=True)
        self._thread.start()

    def take(self, timeout: float | None = None) -> T | None:
        """Return the newest item nobody took yet; wait for one up to `timeout` seconds, and return None if none came.

        An error of the iterator is raised here after the last item was taken.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._newest or self._ended, timeout)
            if self._newest:
                return self._newest.pop()
        self._raise()
        return None

    @property
    def ended(self) -> bool:
        """Whether all items were taken or dropped, and no error waits to be raised."""
        with self._changed:
            return self._ended and not self._newest and self._error is None

    @property
    def rate(self) -> float:
        """Items a second, lately; 0 until there are two."""
        times = list(self._times)
        return (len(times) - 1) / max(times[-1] - times[0], 1e-6) if len(times) > 1 else 0.0

    def hold(self, held: bool) -> None:
        """Stop asking for items, or go on."""
        with self._changed:
            self._held = held
            self._times.clear()
            self._changed.notify_all()

    def close(self) -> None:
        """Stop the thread, and wait until its iterator is closed; an error of that is raised here."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(PATIENCE)
        if self._ending:  # it no longer waits for its source
            self._thread.join()
        self._raise()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self) -> None:
        try:
            try:
                self._turn()
            finally:
                self._ending = True
                if isinstance(self._items, Generator):
                    self._items.close()
        except BaseException as error:
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _turn(self) -> None:
        for item in self._items:
            with self._changed:
                if self._stopped:
                    return
                self._newest = [item]
                self._times.append(time.monotonic())
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._stopped or not self._held)


def newest(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Yield the newest frame whenever one is asked for: what comes too fast is dropped, so nothing is ever late."""
    feed = Newest(frames)
    try:
        while not feed.ended:
            frame = feed.take()
            if frame is not None:
                yield frame
    finally:
        feed.close()


def paced(readings: Iterable[Reading], closing: threading.Event) -> Iterator[Reading]:
    """Yield the readings of a film not before their time; all of them, also if that takes longer than the film lasts.

    Args:
        readings: The film.
        closing: Set by whoever wants no more of them: none is waited for any longer.
    """
    began: float | None = None
    for reading in readings:
        if reading.frame is not None and reading.frame.time is not None:
            now = time.monotonic()
            due = reading.frame.time + (now - reading.frame.time if began is None else began)
            if began is None or now - due > CATCH_UP:
                began = now - reading.frame.time
            elif due > now and closing.wait(due - now):
                return
        yield reading
