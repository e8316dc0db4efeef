"""Times compared within one run: calls take turns, round after round (A B A B ...), so that a slow minute hits all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Seconds = NDArray[np.float64]
"""Times of one call, (rounds, repeats)."""


def interleaved(calls: Mapping[str, Callable[[], object]], rounds: int, repeats: int = 1) -> dict[str, Seconds]:
    """Return the seconds each call took, (rounds, repeats); before the repeats of a round it runs once unmeasured."""
    seconds = {name: np.empty((rounds, repeats)) for name in calls}
    for number in range(rounds):
        for name, call in calls.items():
            call()
            for repeat in range(repeats):
                start = time.perf_counter()
                call()
                seconds[name][number, repeat] = time.perf_counter() - start
    return seconds


def ratio(slow: Seconds, fast: Seconds) -> float:
    """Return how many times as long one call takes as another: the median over rounds of the ratio within the round."""
    return round(float(np.median(np.median(slow, axis=1) / np.median(fast, axis=1))), 3)


def milliseconds(seconds: Seconds) -> dict[str, float]:
    """Return the least, the median and the 95th percentile, ms."""
    least, median, high = np.percentile(seconds * 1000, [0, 50, 95]).round(4).tolist()
    return {"min": least, "median": median, "p95": high}
