"""Live sources. Old frames are dropped so that the newest is always processed; recorded videos play at their own speed."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from typing import Generic, TypeVar

from mien.structures import Frame, Reading

T = TypeVar("T")


class Newest(Generic[T]):
    """Runs an iterator in a thread and keeps its newest item. Items that nobody took in time are dropped.

    Args:
        items: The iterator. A generator is also closed in the thread.
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
        """Return the newest item that nobody took yet; wait up to `timeout` seconds for it, and return None if none came.

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
        """Recent items per second; 0 until there are two."""
        times = list(self._times)
        return (len(times) - 1) / max(times[-1] - times[0], 1e-6) if len(times) > 1 else 0.0

    def hold(self, held: bool) -> None:
        """Pause the iterator, or resume it."""
        with self._changed:
            self._held = held
            self._times.clear()
            self._changed.notify_all()

    def close(self) -> None:
        """Stop the thread and wait until its iterator is closed. An error from closing it is raised here."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(12.0)  # a silent camera gives up before
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
                for item in self._items:
                    with self._changed:
                        if self._stopped:
                            break
                        self._newest = [item]
                        self._times.append(time.monotonic())
                        self._changed.notify_all()
                        self._changed.wait_for(lambda: self._stopped or not self._held)
            finally:
                self._ending = True
                if isinstance(self._items, Generator):
                    self._items.close()
        except BaseException as error:
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def newest(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Yield the newest frame each time one is asked for; drop frames that come too fast."""
    with closing(Newest(frames)) as feed:
        yield from iter(feed.take, None)


def paced(readings: Iterable[Reading], stop: threading.Event) -> Iterator[Reading]:
    """Yield every reading of a video at the time of its frame, or as soon as possible after it.

    Args:
        readings: The readings of one video.
        stop: Ends the wait for the next reading when it is set.
    """
    began = -math.inf
    for reading in readings:
        if reading.frame is not None and reading.frame.time is not None:
            now = time.monotonic()
            late = now - (began + reading.frame.time)
            if late > 0.5:  # too late to catch up: playing continues from here
                began = now - reading.frame.time
            elif late < 0 and stop.wait(-late):
                return
        yield reading
