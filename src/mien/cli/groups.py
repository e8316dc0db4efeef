"""`mien evaluate` on photos (`--detect`), and the tables of its groups and of the gaps between them (`--group-by`)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mien.cli.inputs import echo
from mien.text import printable

if TYPE_CHECKING:
    from mien.datasets import Corpus
    from mien.groups import Groups
    from mien.predict.backend import Backend


def open_photos(backend: Backend, table: Path, columns: Sequence[str] = ()) -> tuple[Corpus, Groups]:
    """Return the faces that are found in photos, as a corpus, and their groups; photos that were left out are listed."""
    from mien.cli.inputs import list_skipped
    from mien.cli.progress import StepBar
    from mien.photos import read_photos

    with StepBar() as bar:
        corpus, groups = read_photos(backend, table, columns, partial(bar.step, "looking for faces"))
    list_skipped(corpus)
    return corpus, groups


def show_groups(results: dict[str, Any]) -> None:
    """Print the groups of a results file, column by column."""
    from mien.groups import group_notes

    for column, found in (results["groups"] or {}).items():
        _print_groups(column, found["groups"], results["classes"])
        if found["gaps"]:
            _print_gaps(column, found["gaps"])
        typer.echo(
            "in %; too sure: confidence minus accuracy; in brackets: 95 % interval, of ece: the range of a calibrated model"
        )
        for line in group_notes(column, found):
            echo(line)


def _print_groups(column: str, groups: dict[str, Any], classes: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(_cell(column))
    figures = {"accuracy": "accuracy", "uar": "uar", "ece": "ece", "overconfidence": "too sure"}
    if any(group["faces"] for group in groups.values()):
        figures = {"detection_rate": "faces found"} | figures
    for title in ("images", *figures.values()):
        table.add_column(title, justify="right")
    shown = [name for name in classes if any(group["recall"][name] is not None for group in groups.values())]
    recalls = Table(f"recall by {_cell(column)}", *map(_cell, shown))
    for name, group in groups.items():
        intervals = [group["ece_by_chance" if key == "ece" else f"{key.removesuffix('_rate')}_interval"] for key in figures]
        cells = map(_per_cent, [group[key] for key in figures], intervals)
        table.add_row(_cell(name), f"{group['images']:,}", *cells)
        recalls.add_row(_cell(name), *(_per_cent(group["recall"][each], group["recall_interval"][each]) for each in shown))
    console = Console()
    console.print(table)
    console.print(recalls)


def _print_gaps(column: str, gaps: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(f"largest gap by {_cell(column)}", "points", "between", "more than chance")
    for metric, gap in gaps.items():
        why = "" if gap["interval"] is not None else f" (p = {gap['p']:.3f})"
        certain = f"{'yes' if gap['more_than_chance'] else 'no'}{why}"
        table.add_row(metric, _per_cent(gap["largest"], gap["interval"]), " and ".join(map(_cell, gap["between"])), certain)
    Console().print(table)


def _per_cent(value: float | None, interval: Sequence[float] | None) -> str:
    """Return a share in percent, with its interval."""
    if value is None:
        return "-"
    return f"{100 * value:.1f}" + (f" \\[{100 * interval[0]:.0f},{100 * interval[1]:.0f}]" if interval else "")


def _cell(text: str) -> str:
    from rich.markup import escape

    return escape(printable(text))
