"""Work on many things, shared among processes; threads would wait for each other.

Pillow holds the interpreter's lock while it writes a PNG, which is half of the time of `mien prepare`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from mien.errors import OutputError

Thing = TypeVar("Thing")
Result = TypeVar("Result")

AHEAD = 4
"""Things begun for each process, so that none waits and memory does not grow with their number."""


@contextmanager
def shared(
    work: Callable[[Thing], Result], things: Sequence[Thing], jobs: int, on_begin: Callable[[Thing], None]
) -> Iterator[Iterator[Result]]:
    """Yield what `work` makes of each thing, as it is known; what is being worked on when the block is left is finished first.

    Args:
        work: A function that can be pickled.
        things: What to work on.
        jobs: Processes; with one, the work is done in this one.
        on_begin: Called with each thing before it is worked on, in this process.

    Raises:
        OutputError: A process was ended from outside. Else what `work` raises.
    """
    jobs = min(jobs, len(things))
    if jobs < 2:
        yield _alone(work, things, on_begin)
        return
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _end_with_parent)
    try:
        yield _together(pool, work, things, AHEAD * jobs, on_begin)
    except BrokenProcessPool:
        raise OutputError(
            "a process was ended from outside, perhaps for want of memory; run it again with a smaller --jobs to go on"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _alone(work: Callable[[Thing], Result], things: Sequence[Thing], on_begin: Callable[[Thing], None]) -> Iterator[Result]:
    for thing in things:
        on_begin(thing)
        yield work(thing)


def _together(
    pool: ProcessPoolExecutor,
    work: Callable[[Thing], Result],
    things: Sequence[Thing],
    most: int,
    on_begin: Callable[[Thing], None],
) -> Iterator[Result]:
    """Yield the results of a pool, at most so many being waited for."""
    waiting: set[Future[Result]] = set()
    for thing in things:
        on_begin(thing)
        waiting.add(pool.submit(work, thing))
        if len(waiting) == most:
            yield from _finished(waiting)
    while waiting:
        yield from _finished(waiting)


def _finished(waiting: set[Future[Result]]) -> Iterator[Result]:
    """Wait for the next results, take them out of those that wait, and yield them."""
    ready, _ = wait(waiting, return_when=FIRST_COMPLETED)
    waiting -= ready
    for future in ready:
        yield future.result()


def _end_with_parent() -> None:
    """Leave an interrupt to the parent, and end when the parent does, even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
