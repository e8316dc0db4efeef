"""Speed and size, measured as ratios in one run: `python -m benchmarks.run_all`, or one by one (see README.md)."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # or torch's waiting threads spin, and crawl beside a busy neighbour
