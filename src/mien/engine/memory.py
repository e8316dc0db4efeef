"""Less resident memory for runs whose images do not fit in it."""

from __future__ import annotations

import ctypes

M_MMAP_THRESHOLD = -3
"""glibc's name for the least size of a block that is mapped on its own (`man mallopt`)."""

LEAST = 1 << 20


def give_back_large_blocks() -> None:
    """Have the C library map every block of 1 MiB or more on its own, so that one that is freed goes back to the system.

    Left to itself glibc keeps freed blocks of up to 32 MiB for later, scattered between those in use. Elsewhere than on glibc
    this does nothing.
    """
    try:
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LEAST)
    except (AttributeError, OSError, TypeError):  # macOS and musl know no mallopt, Windows no library of no name
        return
