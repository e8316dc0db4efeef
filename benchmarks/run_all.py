"""Runs every benchmark, each in a process of its own, and prints one table at the end: what `make bench` does.

Some of them, with few rounds: `python -m benchmarks.run_all --quick --only inference cold_start`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.record import argument_parser, table

NAMES = ("inference", "cold_start", "install_size", "training_step")
"""The others need a corpus, marked photos or much time."""

ROOT = Path(__file__).resolve().parent.parent


def run(name: str, out: Path, quick: bool) -> Path | None:
    """Run a benchmark; return the JSON it wrote, or None if it failed."""
    print(f"\n== {name}", flush=True)
    since = time.time()
    command = [sys.executable, "-m", f"benchmarks.{name}", "--out", str(out.resolve()), *(["--quick"] if quick else [])]
    failed = subprocess.run(command, cwd=ROOT).returncode
    written = [path for path in out.glob(f"*-{name}.json") if path.stat().st_mtime >= since - 1]
    return None if failed or not written else max(written, key=lambda path: path.stat().st_mtime)


def summary(path: Path) -> str:
    """Return the summary of a written run."""
    read = json.loads(path.read_text(encoding="utf-8"))
    rows = [(row["what"], row["measured"], row["aim"]) for row in read["summary"]]
    return f" (others kept {read['others_cores']} cores busy)\n{table(rows)}"


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=", ".join(NAMES))
    arguments = parser.parse_args()
    written = {name: run(name, arguments.out, arguments.quick) for name in arguments.only}
    print("\n== Summary")
    for name, path in written.items():
        print(f"\n{name}{summary(path) if path else ': FAILED'}")
    sys.exit(0 if all(written.values()) else 1)


if __name__ == "__main__":
    main()
