import platform
import subprocess
import sys

import pytest

GROWN = """
import sys
import numpy as np
from mien.engine.memory import give_back_large_blocks

def resident():
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS"))) >> 10  # MiB

np.ones(30 << 20, np.uint8)  # freed at once: from now on glibc, left to itself, keeps blocks of this size
if sys.argv[1] == "asked":
    give_back_large_blocks()
before = resident()
blocks = [np.ones(8 << 20, np.uint8) for _ in range(20)]
between = bytes(1 << 17)  # lies above them and holds them fast
del blocks
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_freed_blocks_go_back_to_the_system():
    kept = [
        int(subprocess.run([sys.executable, "-c", GROWN, how], check=True, capture_output=True, text=True).stdout)
        for how in ("asked", "left to itself")
    ]
    assert kept[0] <= 2 < 100 < kept[1]
