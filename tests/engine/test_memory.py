import platform
import subprocess
import sys

import pytest

GROWN = """
import sys
import numpy as np
from mien.engine import memory

def resident():
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS"))) >> 10  # MiB

getattr(memory, sys.argv[1])()
before = resident()
blocks = [np.ones(40 << 20, np.uint8) for _ in range(4)]  # too large for glibc to keep, left to itself
del blocks
print(resident() - before)
np.ones(int(sys.argv[2]) << 20, np.uint8)  # freed at once: from now on glibc, left to itself, keeps blocks of this size
before = resident()
blocks = [np.ones(8 << 20, np.uint8) for _ in range(20)]
between = bytes(1 << 17)  # lies above them and holds them fast
del blocks
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_freed_blocks_are_kept_or_go_back_as_told():
    def grown(how: str, freed: int) -> list[int]:
        command = [sys.executable, "-c", GROWN, how, str(freed)]
        return list(map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()))

    kept, _ = grown("keep_freed_blocks", 1)
    assert kept > 140
    back, scattered = grown("give_back_large_blocks", 30)
    assert back <= 2
    assert scattered <= 2
