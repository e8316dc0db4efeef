"""Train several recipes with several seeds, some at a time, and print a table at the end.

    python scripts/train_many.py sa_csp_ca/fer2013 --seeds 0 1 2 --data fer2013.csv --out runs/queue --jobs 3 --minutes 9

Each run has a folder under OUT/runs; running the command again resumes it. With --keep, the weights (in float16), history,
curves and recipe of each run are also copied to a folder that is small enough to carry away. Only the selection split is used.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from safetensors import safe_open
from safetensors.torch import save_file

from mien.atomic import atomic_path

SMALL = ("recipe.yaml", "history.csv", "curves.png")
WEIGHTS = "best.safetensors"


@dataclass
class Job:
    """One recipe with one seed."""

    recipe: str
    seed: int
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    log: IO[bytes] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The name of the run, usable as a file name."""
        return f"{self.recipe.replace('/', '-')}-seed{self.seed}"

    def start(self, data: Path, changes: list[str]) -> None:
        """Start or resume the run in its own process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = (self.folder / "log.txt").open("ab")
        command = [sys.executable, "-m", "mien", "train", self.recipe, "--data", str(data), "--out", str(self.folder)]
        command += ["--seed", str(self.seed), *(f"--set={change}" for change in changes)]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT)

    def stop(self) -> None:
        """End the process; the state after its last complete epoch is kept."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait()
        if self.log is not None:
            self.log.close()

    def row(self) -> str:
        """Return the run's row of the table."""
        try:
            with (self.folder / "history.csv").open() as file:
                rows = list(csv.DictReader(file))
        except OSError:
            rows = []
        state = "not started" if self.process is None else f"status {self.process.poll()}"
        if not rows:
            return f"{self.name:44} {state:12} no epoch finished"
        best = max(rows, key=lambda row: float(row["val_accuracy"]))
        return (
            f"{self.name:44} {state:12} {len(rows):4} epochs  val {100 * float(best['val_accuracy']):.2f} % "
            f"(epoch {best['epoch']})  {float(rows[-1]['images_per_second']):.0f} images/s"
        )


def main() -> None:
    """Run the queue, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+", help="names or YAML files of recipes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=1, help="number of runs at the same time")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop all runs after this many minutes")
    parser.add_argument("--set", dest="changes", action="append", default=[], help="change a value of every recipe: key=value")
    parser.add_argument("--keep", type=Path, help="folder for the copies")
    arguments = parser.parse_args()
    jobs = [
        Job(recipe, seed, arguments.out / "runs" / f"{recipe.removesuffix('.yaml').strip('/')}-seed{seed}")
        for seed in arguments.seeds
        for recipe in arguments.recipes
    ]
    try:
        run_all(jobs, arguments)
    finally:
        for job in jobs:
            job.stop()
        for job in jobs:
            if arguments.keep and all((job.folder / name).is_file() for name in (*SMALL, WEIGHTS)):
                keep(job, arguments.keep)
        print("\n".join(job.row() for job in jobs))


def run_all(jobs: list[Job], arguments: argparse.Namespace) -> None:
    """Start the jobs in order, at most `arguments.jobs` at a time, until all have finished or the time is up."""
    end = time.monotonic() + 60 * arguments.minutes
    waiting, running = list(jobs), list[Job]()
    while (waiting or running) and time.monotonic() < end:
        running = [job for job in running if job.process is not None and job.process.poll() is None]
        while waiting and len(running) < arguments.jobs:
            running.append(waiting.pop(0))
            running[-1].start(arguments.data, arguments.changes)
        time.sleep(1)


def keep(job: Job, folder: Path) -> None:
    """Copy a run's small files and its weights in float16."""
    target = folder / job.name
    target.mkdir(parents=True, exist_ok=True)
    for name in SMALL:
        shutil.copy(job.folder / name, target / name)
    with safe_open(job.folder / WEIGHTS, framework="pt") as file:
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
        metadata = file.metadata()
    halved = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    with atomic_path(target / WEIGHTS) as tmp_path:
        save_file(halved, tmp_path, metadata=metadata)


if __name__ == "__main__":
    main()
