"""What `mien study` costs beside the training and measuring of its runs.

    python -m benchmarks.study_overhead --data fer2013.csv

A study of two rows runs in a fresh process. Training and measuring are timed inside it; all else, from the first import to the
table, is the study's own time: opening the corpus, checks, the plan with its timed steps, and the table.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.record import Row, argument_parser, write_run

AIM = 2
"""Largest share of a run, in per cent."""

STUDY = """
name: overhead/rates
title: Two rates
recipe: sa_csp_ca/fer2013
grid: {{optim.lr: [0.1, 0.01]}}
split: public_test
set: {{train.epochs: {epochs}, train.compile: false}}
"""

TIMED = """
import json, sys, time
import mien.study.run as run
spent = dict.fromkeys(("train", "evaluate", "write_evaluation"), 0.0)
def timed(name, function):
    def call(*arguments, **more):
        start = time.perf_counter()
        try:
            return function(*arguments, **more)
        finally:
            spent[name] += time.perf_counter() - start
    return call
for name in spent:
    setattr(run, name, timed(name, getattr(run, name)))
sys.argv = ["mien", *sys.argv[2:]]
try:
    from mien.cli import main
    main()
finally:
    open(TIMES, "w").write(json.dumps(spent))
"""


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="fer2013.csv")
    arguments = parser.parse_args()
    epochs = 1 if arguments.quick else 3
    with tempfile.TemporaryDirectory() as folder:
        study, times, runs = (Path(folder) / name for name in ("study.yaml", "times.json", "runs"))
        study.write_text(STUDY.format(epochs=epochs))
        code = TIMED.replace("TIMES", repr(str(times)))
        command = [sys.executable, "-c", code, "-", "study", str(study), "--data", str(arguments.data), "--out", str(runs)]
        start = time.perf_counter()
        subprocess.run(command, check=True)
        total = time.perf_counter() - start
        spent = json.loads(times.read_text())
    own, share = total - sum(spent.values()), 100 * (total - sum(spent.values())) / total
    rows: list[Row] = [
        ("the whole study, s", f"{total:.0f}", ""),
        ("training and measuring, s", f"{sum(spent.values()):.0f}", ""),
        ("the study's own time, s", f"{own:.1f}", ""),
        (f"its share, for runs of {epochs} epochs", f"{share:.1f} %", ""),
        ("its share, for runs of 30 epochs", f"{100 * own / (own + 30 / epochs * spent['train']):.2f} %", f"{AIM} % at most"),
    ]
    figures = {
        "epochs": epochs,
        "runs": 2,
        "total_s": round(total, 1),
        "own_s": round(own, 1),
        "share_percent": round(share, 2),
    }
    figures |= {f"{name}_s": round(seconds, 1) for name, seconds in spent.items()}
    write_run("study_overhead", figures, rows, arguments)


if __name__ == "__main__":
    main()
