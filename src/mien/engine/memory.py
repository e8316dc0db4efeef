"""What the C library does with memory that is freed: kept for the next step, or given back to the system.

Only glibc is told (`man mallopt`); elsewhere these functions do nothing.
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4
"""glibc's numbers for: how much is free at the end before some goes back, how much more is taken than asked for, from which
size on a block is mapped on its own, and how many are."""


def keep_freed_blocks() -> None:
    """Keep what a step frees for the next, which saves the system from handing out, and emptying, the same pages every step."""
    _tell({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 1 << 28})


def give_back_large_blocks() -> None:
    """Map every block of 1 MiB or more on its own, so that one that is freed goes back to the system at once.

    Left to itself glibc keeps freed blocks of up to 32 MiB, scattered between those in use.
    """
    _tell({M_MMAP_THRESHOLD: 1 << 20})


def _tell(values: dict[int, int]) -> None:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS and musl know no mallopt, Windows no library without a name
        return
    for name, value in values.items():
        mallopt(name, value)
