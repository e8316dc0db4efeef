"""Speed, memory and size, measured as ratios within one run: `python -m benchmarks.run_all`, or one at a time (see README.md)."""

import os

os.environ.setdefault(
    "OMP_WAIT_POLICY", "PASSIVE"
)  # torch's waiting threads spin otherwise, and slow down next to a busy process
