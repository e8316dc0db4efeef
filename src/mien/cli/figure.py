"""`mien figure`: one sub-command for each kind of figure."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.cli import options
from mien.cli.options import option
from mien.cli.terminal import Command, Group, StepBar, echo
from mien.errors import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from mien.report import Run

app = typer.Typer(
    cls=Group,
    help="Draw a figure from results: confusion matrices, curves, sweeps, rates by class, reliability, risk, cost.",
    no_args_is_help=True,
)

Results = Annotated[list[Path], typer.Argument(metavar="RESULT.json...", help="Results files that mien evaluate wrote.")]
Folders = Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Folders of runs, or the folder of a study.")]
Out = Annotated[Path, option("The figure to write: .png or .svg.", "FILE", show_default=False)]
TwinFree = Annotated[
    bool, typer.Option("--twin-free", help="Draw the accuracy on images without a byte-identical twin in the training split.")
]


class Matrix(StrEnum):
    """What a figure of a confusion matrix shows."""

    both = "both"
    counts = "counts"
    normalised = "normalised"


@app.command(cls=Command)
def confusion(
    results: Results,
    out: Out,
    show: Annotated[
        Matrix, option("Counts, shares of each true class, or both side by side.", "both|counts|normalised")
    ] = Matrix.both,
    language: options.Language = "en",
) -> None:
    """Draw a confusion matrix. The folds of one run of a study are pooled; give all their files."""
    _check_out(out, results)
    from mien.report import confusion_figure, pool_folds
    from mien.report.inputs import one_measurement

    _write(out, confusion_figure(one_measurement(pool_folds(results)), show.value))


@app.command(cls=Command)
def curves(folders: Folders, out: Out, language: options.Language = "en") -> None:
    """Draw accuracy by epoch on the training and the selection split, one line per recipe.

    Runs that differ only in seed or fold are averaged.
    """
    _check_out(out)
    from mien.report import curves_figure, read_runs

    runs = read_runs(folders)
    _write(out, curves_figure(runs))
    _report_left_out([run for run in runs if run.history is None], "no finished epoch")


@app.command(cls=Command)
def sweep(
    folders: Folders,
    out: Out,
    field: Annotated[
        str | None, option("The swept value of the recipe, such as optim.lr. Default: the only one that differs.", "KEY")
    ] = None,
    split: Annotated[str | None, option("The split, if the runs have results on several.", "NAME")] = None,
    twin_free: TwinFree = False,
    language: options.Language = "en",
) -> None:
    """Draw accuracy against a value of the recipe, such as the learning rate or the weight of a loss."""
    _check_out(out)
    from mien.report import read_runs, sweep_figure
    from mien.report.figures import choose_split

    runs = read_runs(folders)
    split = choose_split(runs, split)
    _write(out, sweep_figure(runs, field, split, "twin_free" if twin_free else "standard"))
    _report_left_out([run for run in runs if split not in run.splits], f"no {split}.json")


@app.command(cls=Command)
def rates(results: Results, out: Out, language: options.Language = "en") -> None:
    """Draw the true and the false positive rate of each class, for one network or several."""
    _check_out(out, results)
    from mien.report import pool_folds, rates_figure

    _write(out, rates_figure(pool_folds(results)))


@app.command(cls=Command)
def reliability(results: Results, out: Out, language: options.Language = "en") -> None:
    """Draw accuracy against confidence (a reliability diagram) and against the share of answers kept (risk and coverage)."""
    _check_out(out, results)
    from mien.report import pool_folds, reliability_figure

    _write(out, reliability_figure(pool_folds(results)))


@app.command(cls=Command)
def risk_coverage(results: Results, out: Out, language: options.Language = "en") -> None:
    """Draw the error rate against the share of answers kept, the most confident first."""
    _check_out(out, results)
    from mien.report import pool_folds, risk_coverage_figure

    _write(out, risk_coverage_figure(pool_folds(results)))


@app.command(cls=Command)
def cost(
    results: Results,
    out: Out,
    latency: Annotated[
        list[Path] | None,
        option(
            "Take the latency from this run of benchmarks/inference.py. Repeat it to give several. "
            "Default: measure it here, in torch on one thread.",
            "FILE",
        ),
    ] = None,
    twin_free: TwinFree = False,
    language: options.Language = "en",
) -> None:
    """Draw accuracy against the number of parameters, and against the latency of one face."""
    _check_out(out, [*results, *(latency or [])])
    require("torch", "train")
    from mien.report import cost_figure, measure_latencies, pool_folds, read_latencies

    measured = pool_folds(results)
    if latency:
        latencies = read_latencies(measured, latency)
    else:
        with StepBar() as bar:
            latencies = measure_latencies(measured, partial(bar.step, "timing networks"))
    _write(out, cost_figure(measured, latencies, "twin_free" if twin_free else "standard"))


def _check_out(out: Path, inputs: Sequence[Path] = ()) -> None:
    """Refuse a file that could not be written, before any work is done."""
    require("matplotlib", "train")
    require("yaml", "train")
    from mien.atomic import check_outputs
    from mien.output.fonts import require_font
    from mien.output.table import check_ending
    from mien.output.timeline import FORMATS

    require_font()
    check_ending(out, "figure", FORMATS)
    check_outputs([out], inputs)


def _write(out: Path, figure: Figure) -> None:
    from mien.report import write_figure

    write_figure(out, figure)
    echo(f"wrote {out}")


def _report_left_out(runs: Sequence[Run], why: str) -> None:
    for run in runs:
        echo(f"left out: {run.folder} ({why})", err=True)
    if runs:
        raise typer.Exit(3)
