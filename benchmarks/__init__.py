"""Speed, memory and size, measured as ratios within one run: `python -m benchmarks.run_all`, or one at a time (README.md)."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # else torch's waiting threads spin, which is slow next to a busy process
