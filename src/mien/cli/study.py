"""`mien study`: run a study, or several from a queue, and print its table."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.cli.inputs import open_corpus, votes_on
from mien.cli.options import option
from mien.cli.terminal import echo, print_table
from mien.errors import InputError, MienError, require

if TYPE_CHECKING:
    from mien.datasets import Corpus
    from mien.engine.history import Epoch
    from mien.study.queue import Selection
    from mien.study.run import Folders
    from mien.study.specification import Job


def study(
    name: Annotated[
        str | None, typer.Argument(metavar="STUDY", help="A bundled study or a YAML file. Without one, list the bundled ones.")
    ] = None,
    data: Annotated[list[str] | None, option("The corpus. For studies on several, repeat --data CORPUS=PATH.", "PATH")] = None,
    out: Annotated[Path | None, option("Folder of the runs; stopped ones resume.", "FOLDER")] = None,
    results: Annotated[
        Path | None, option("Copy the small files here, such as results/studies. Runs that are here are done.", "FOLDER")
    ] = None,
    scale: Annotated[str, option("full, or a smaller scale of the study, such as cpu.", "NAME")] = "full",
    row: Annotated[list[str] | None, option("Run only this row. Repeat it for several.", "NAME")] = None,
    seed: Annotated[list[int] | None, option("Use this seed instead of the study's. Repeat it for several.", "N")] = None,
    queue: Annotated[
        Path | None, option("Run the studies of this file, in order, as far as they suit the processor.", "FILE")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the plan with the estimated time, and stop.")] = False,
    table: Annotated[bool, typer.Option("--table", help="Print the table of what is measured so far, and stop.")] = False,
    jobs: Annotated[int, option("Number of runs at the same time, each in its own process.", "N", min=1)] = 1,
    minutes: Annotated[float | None, option("Stop after this many minutes, at the end of an epoch.", "N", min=0)] = None,
    weights: Annotated[bool, typer.Option("--weights", help="Also copy the weights to --results, in float16.")] = False,
    worker: Annotated[bool, typer.Option("--worker", hidden=True)] = False,
) -> None:
    """Run recipes with several seeds and folds, and print one table of reported and measured figures."""
    require("torch", "train")
    require("scipy", "train")
    from mien.study.queue import Selection, read_queue
    from mien.study.run import Folders
    from mien.study.specification import study_names

    if name is None and queue is None:
        typer.echo("\n".join(study_names()))
        return
    if name is not None and queue is not None:
        raise InputError("give a study or --queue, not both")
    if out is None and results is None:
        raise InputError("give the folder of the runs with --out FOLDER")
    chosen = [Selection(study=name, scale=scale, rows=row, seeds=seed)] if name is not None else read_queue(queue)  # type: ignore[arg-type]
    folders = Folders(out or results, results)  # type: ignore[arg-type]
    if table:
        for selection in chosen:
            _show_table(selection, folders)
        return
    if data is None or out is None:
        raise InputError("a study needs its data and a folder for its runs: --data PATH --out FOLDER")
    sources = _sources(data)
    if queue is not None and "" in sources:
        raise InputError(f"a queue needs to know which corpus a path is; write --data fer2013={sources['']}")
    runner = _Runner(sources, folders, weights, None if minutes is None else time.monotonic() + 60 * minutes)
    ready = [job for selection in chosen for job in runner.prepare(selection, queued=queue is not None)]
    if not worker:
        runner.show_plan(ready)
    if plan:
        return
    if jobs > 1:
        _run_workers(jobs)
    else:
        runner.run(ready)
    if worker:
        return
    for selection in chosen:
        _show_table(selection, folders)
    if unfinished := [job for job in ready if folders.state(job) != "done"]:
        echo(f"not measured yet: {', '.join(str(job.path) for job in unfinished)}", err=True)
        raise typer.Exit(3)


def _sources(data: Sequence[str]) -> dict[str, Path]:
    """Return the path of each corpus by name; the key "" is that of a path without a name."""
    from mien.datasets import CORPORA

    sources = {}
    for text in data:
        name, equals, path = text.partition("=")
        if equals and name in CORPORA:
            sources[name] = Path(path)
        else:
            sources[""] = Path(text)
    return sources


class _Runner:
    """Runs jobs one after the other in this process, until the clock `time.monotonic` reaches `end`."""

    def __init__(self, sources: dict[str, Path], folders: Folders, weights: bool, end: float | None) -> None:
        self.sources, self.folders, self.weights, self.end = sources, folders, weights, end
        self.corpora: dict[str, Corpus] = {}

    def source(self, job: Job) -> Path:
        """Return the path of a job's corpus."""
        return self.sources.get(job.recipe.data.corpus) or self.sources[""]

    def corpus(self, job: Job) -> Corpus:
        """Return the corpus of a job, split as its recipe says."""
        part = job.recipe.data.model_dump()
        key = json.dumps([part["corpus"], part["options"], part["protocol"]], default=str)
        if key not in self.corpora:
            if len(self.corpora) > 20:  # folds
                self.corpora.clear()
            self.corpora[key] = open_corpus(part, self.source(job))
        return self.corpora[key]

    def prepare(self, selection: Selection, queued: bool) -> list[Job]:
        """Return the jobs of a selection that can be run here, checked; say which cannot."""
        from mien.study.queue import suits_processor
        from mien.study.run import check_jobs

        _, jobs = selection.load()
        ready: list[Job] = []
        left_out: Counter[str] = Counter()
        for job in jobs:
            corpus = job.recipe.data.corpus
            if "" not in self.sources and corpus not in self.sources:
                if not queued:
                    raise InputError(f"{job.study} needs the corpus {corpus}; add --data {corpus}=PATH")
                left_out[f"no --data {corpus}=PATH"] += 1
            elif queued and not suits_processor(job):
                left_out["too large for a processor without bfloat16"] += 1
            else:
                ready.append(job)
        for reason, number in left_out.items():
            echo(f"left out of {selection.study}: {number} of {len(jobs)} runs, {reason}", err=True)
        check_jobs(ready, self.folders, self.corpus)
        return ready

    def show_plan(self, jobs: Sequence[Job]) -> None:
        """Print each row's runs, how many are done, and about how long the others take."""
        from mien.study.run import Estimator

        estimator = Estimator(self.folders)
        rows: dict[str, list[Job]] = {}
        for job in jobs:
            rows.setdefault(f"{job.study} {job.row}" + ("" if job.scale == "full" else f" ({job.scale})"), []).append(job)
        cells, total = [], 0.0
        for name, group in rows.items():
            open_jobs = [job for job in group if self.folders.state(job) != "done"]
            seconds = sum(estimator.seconds_left(job, self.corpus(job)) for job in open_jobs)
            total += seconds
            counts = [len(group), len(group) - len(open_jobs), group[0].recipe.train.epochs]
            cells.append([name, *map(str, counts), _duration(seconds)])
        print_table(["row", "runs", "done", "epochs a run", "time left"], cells, title="plan", left=5)
        echo(f"about {_duration(total)} in all, one run after the other")

    def run(self, jobs: Sequence[Job]) -> None:
        """Run what is not done; a run that fails is reported, and the next one starts."""
        from mien.study.run import run_job

        for job in jobs:
            if self.folders.state(job) == "done":
                continue

            def on_epoch(row: Epoch, epochs: int, job: Job = job) -> None:
                accuracy = "" if math.isnan(row.val_accuracy) else f"val accuracy {100 * row.val_accuracy:.2f} %  "
                echo(f"{job.path}: epoch {row.epoch}/{epochs}  {accuracy}{row.images_per_second:.0f} images/s")
                if self.end is not None and time.monotonic() > self.end:
                    raise _TimeUp

            try:
                corpus = self.corpus(job)
                votes = votes_on(corpus, self.source(job))
                outcome = run_job(job, self.folders, corpus, on_epoch, votes=votes, weights=self.weights)
            except _TimeUp:
                echo(f"{job.path}: stopped, the time is up; the same command resumes it")
                return
            except MienError as error:
                outcome = f"failed: {error}"
            echo(f"{job.path}: {outcome}")


class _TimeUp(Exception):
    """The minutes of `--minutes` are over."""


def _run_workers(number: int) -> None:
    """Run this command in several processes, which share its jobs, the cores and the GPUs."""
    import torch

    from mien.provenance import available_cores

    gpus, threads = torch.cuda.device_count(), str(max(1, available_cores() // number))
    command = [sys.executable, "-m", "mien", *sys.argv[1:], "--jobs", "1", "--worker"]
    workers = []
    try:
        for index in range(number):
            env = os.environ | {"OMP_NUM_THREADS": threads} | ({"CUDA_VISIBLE_DEVICES": str(index % gpus)} if gpus > 1 else {})
            workers.append(subprocess.Popen(command, env=env))
        for process in workers:
            process.wait()
    finally:
        for process in workers:
            process.terminate()
        for process in workers:
            process.wait()


def _show_table(selection: Selection, folders: Folders) -> None:
    """Print the table of a selection. Write that of the whole study, and of the selection's seeds, next to its runs."""
    from mien.study.run import check_recipes
    from mien.study.specification import create_jobs
    from mien.study.table import create_table, heading, percent, reported_text, write_table

    chosen, selected = selection.load()
    check_recipes(selected, folders)
    all_rows = create_table(create_jobs(chosen, selection.scale, seeds=selection.seeds), folders, chosen.reference)
    rows = [row for row in all_rows if selection.rows is None or row.name in selection.rows]
    if not any(row.runs for row in rows):
        echo(f"{chosen.name}: nothing is measured yet")
        return
    title = heading(chosen.title or chosen.name, selection.scale, chosen.scales.get(selection.scale, {}))
    lines = []
    for row in rows:
        found = row.comparison
        cells = {
            "row": row.name,
            "reported": reported_text(row.reported),
            "standard": percent(row.accuracy) + ("" if row.deviation is None else f" ± {percent(row.deviation)}"),
            "95 % interval": "" if row.interval is None else f"{percent(row.interval[0])} to {percent(row.interval[1])}",
            "twin-free": percent(row.twin_free),
            "n": f"{row.runs} of {row.expected}",
            "parameters": f"{row.parameters / 1e6:.1f} M",
            "min": "" if row.seconds is None else f"{row.seconds / 60:.0f}",
        }
        if chosen.reference is not None:
            cells[f"against {chosen.reference}"] = f"{100 * found.difference:+.2f} (p {found.p:.2g})" if found else ""
        lines.append(cells)
    print_table(list(lines[0]), [list(cells.values()) for cells in lines], title=title, left=2, lines=False)
    if selection.seeds is not None:
        seeds = list(dict.fromkeys([*chosen.seeds, *selection.seeds]))
        all_rows = create_table(create_jobs(chosen, selection.scale, seeds=seeds), folders, chosen.reference)
    folder = (folders.results or folders.runs) / chosen.name / selection.scale
    echo(f"wrote {write_table(folder, all_rows)}")


def _duration(seconds: float) -> str:
    """Return a duration in minutes or hours.

    >>> _duration(100), _duration(10_000)
    ('2 min', '2.8 h')
    """
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
