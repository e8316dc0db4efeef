import threading
import time
from collections.abc import Iterator
from itertools import count

import numpy as np
import pytest

from mien.errors import InputError
from mien.structures import Frame, Reading
from mien.video.live import Newest, newest, paced

IMAGE = np.zeros((2, 2, 3), np.uint8)


def readings(times: list[float]) -> Iterator[Reading]:
    for i, at in enumerate(times):
        yield Reading("a.mp4", Frame(IMAGE, i, at))


def test_only_the_newest_item_is_kept() -> None:
    feed = Newest(range(5))
    feed._thread.join(10)
    assert not feed.ended
    assert feed.take() == 4
    assert feed.ended
    assert feed.take() is None


def test_nothing_new_is_none() -> None:
    go = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        go.wait(10)
        yield 2

    feed = Newest(items())
    assert feed.take() == 1
    assert feed.take(0.01) is None
    assert not feed.ended
    go.set()
    assert feed.take() == 2
    feed.close()


def test_an_error_comes_after_the_last_item() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise InputError("the camera is gone")

    feed = Newest(items())
    feed._thread.join(10)
    assert feed.take() == 1
    assert not feed.ended
    with pytest.raises(InputError, match="gone"):
        feed.take()
    assert feed.ended
    feed.close()


def test_closing_ends_a_generator_in_its_own_thread() -> None:
    threads = []

    def items() -> Iterator[int]:
        threads.append(threading.current_thread())
        try:
            yield from count()
        finally:
            threads.append(threading.current_thread())

    feed = Newest(items())
    feed.take()
    feed.close()
    assert feed.take() is None or feed.ended
    assert len(set(threads)) == 1
    assert len(threads) == 2
    assert threads[0] is not threading.current_thread()
    assert not threads[0].is_alive()


def test_an_error_while_closing_is_raised() -> None:
    def items() -> Iterator[int]:
        try:
            yield from count()
        finally:
            raise InputError("the disk is full")

    feed = Newest(items())
    feed.take()
    with pytest.raises(InputError, match="full"):
        feed.close()


def test_a_held_feed_asks_for_nothing() -> None:
    asked = []

    def items() -> Iterator[int]:
        for i in count():
            asked.append(i)
            yield i

    feed = Newest(items())
    feed.hold(True)
    while feed.take(0.05) is not None:
        pass
    so_far = len(asked)
    assert feed.take(0.05) is None
    assert len(asked) == so_far
    feed.hold(False)
    assert feed.take(10) is not None
    feed.close()


def test_the_rate() -> None:
    feed = Newest(paced(readings([i / 50 for i in range(10)]), threading.Event()))
    feed._thread.join(10)
    assert 5 < feed.rate < 60
    assert Newest([]).rate == 0


def test_a_slow_reader_gets_the_newest_frame_and_a_camera_is_never_kept_waiting() -> None:
    given, taken = threading.Semaphore(0), []

    def camera() -> Iterator[Frame]:
        for i in range(100):
            yield Frame(IMAGE, i, i / 30)
            given.release()

    for frame in newest(camera()):
        taken.append(frame.index)
        if len(taken) == 1:
            for _ in range(100):  # the camera runs to its end
                assert given.acquire(timeout=10)
    assert taken[-1] == 99
    assert len(taken) <= 2 + (taken[0] != 0)


def test_leaving_early_stops_the_camera() -> None:
    closed = threading.Event()

    def camera() -> Iterator[Frame]:
        try:
            for i in count():
                yield Frame(IMAGE, i, i / 30)
        finally:
            closed.set()

    frames = newest(camera())
    next(frames)
    frames.close()  # type: ignore[attr-defined]
    assert closed.wait(0)


def test_a_video_plays_at_its_own_speed() -> None:
    began = time.monotonic()
    came = [(reading.frame.time, time.monotonic() - began) for reading in paced(readings([5.0, 5.1, 5.25]), threading.Event())]
    assert [at for at, _ in came] == [5.0, 5.1, 5.25]
    assert came[1][1] >= 0.1
    assert came[2][1] >= 0.25


def test_a_paused_video_resumes_where_it_was() -> None:
    film = paced(readings([0.0, 0.1, 0.2, 0.3]), threading.Event())
    next(film)
    time.sleep(0.8)
    next(film)
    resumed = time.monotonic()
    next(film)
    assert time.monotonic() - resumed >= 0.09


def test_a_closed_video_waits_for_no_frame() -> None:
    closing, closed = threading.Event(), threading.Event()

    def film() -> Iterator[Reading]:
        try:
            yield from paced(readings([0.0, 3600.0]), closing)
        finally:
            closed.set()

    feed = Newest(film())
    assert feed.take(10) is not None
    closing.set()
    feed.close()
    assert closed.wait(10)
    assert feed.ended
