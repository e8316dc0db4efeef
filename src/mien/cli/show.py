"""What `mien predict` prints: tables for a few pictures, a line for each of many, JSON lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from mien.output.cells import readable
from mien.structures import Prediction, Reading

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

BAR = 20
"""Cells of a full bar; fewer in a narrow terminal."""

WIDEST = 1_000
"""Columns in which any table has room."""

SHOWN = 0.01
"""Least probability that gets a bar in the terminal; tables and files hold them all."""

FEW = 10
"""Sources up to which each picture gets a table; beyond, a line."""


class Printer:
    """Prints readings on stdout as they come.

    Args:
        sources: Number of sources.
        quiet: Print nothing.
        jsonl: Print the table's rows as JSON, one a line, and nothing else.
    """

    def __init__(self, sources: int, *, quiet: bool, jsonl: bool) -> None:
        from rich.console import Console

        class Terminal(Console):
            def on_broken_pipe(self) -> None:
                raise

        self.few, self.quiet, self.jsonl = sources <= FEW, quiet, jsonl
        self.console = Terminal(highlight=False, emoji=False)

    @property
    def talks(self) -> bool:
        """Whether it prints for people."""
        return not (self.quiet or self.jsonl)

    def reading(self, reading: Reading) -> None:
        """Print a picture's faces; a frame's only as JSON."""
        if self.jsonl:
            from mien.output.table import json_line, rows

            for row in rows(reading.predictions):
                typer.echo(json_line(row))
        elif self.talks and reading.frame is not None and reading.frame.index is None:
            show = _show_table if self.few else _show_line
            show(self.console, reading.source, reading.predictions)

    def line(self, text: object) -> None:
        """Print something more for people: a text or anything Rich knows."""
        if self.talks:
            self.console.print(text, soft_wrap=isinstance(text, str), markup=False)

    def files(self, paths: Sequence[Path]) -> None:
        """Print which files were written; of many in one folder their number."""
        folders: dict[Path, list[Path]] = {}
        for path in paths:
            folders.setdefault(path.parent, []).append(path)
        for folder, inside in folders.items():
            if len(inside) > FEW:
                self.line(f"wrote {len(inside):,} files into {readable(str(folder))}")
            else:
                for path in inside:
                    self.line(f"wrote {readable(str(path))}")


def _show_line(console: Console, source: str, predictions: tuple[Prediction, ...]) -> None:
    faces = ", ".join(f"{p.label} {p.confidence:.0%}" for p in predictions)
    console.print(f"{readable(source)}: {faces or _count(0)}", soft_wrap=True, markup=False)


def _show_table(console: Console, source: str, predictions: tuple[Prediction, ...]) -> None:
    from rich.measure import Measurement
    from rich.text import Text

    console.print(Text(f"{readable(source)}: {_count(len(predictions))}", "bold"), soft_wrap=True)
    if predictions:
        table = _table(predictions, console.options.ascii_only, BAR)
        spare = console.width - Measurement.get(console, console.options.update(width=WIDEST), table).maximum
        console.print(table if spare >= 0 else _table(predictions, console.options.ascii_only, max(1, BAR + spare)))


def _count(faces: int) -> str:
    return f"{faces} face{'' if faces == 1 else 's'}" if faces else "no face found"


def _table(predictions: tuple[Prediction, ...], ascii_only: bool, cells: int) -> Table:
    """Return a picture's table, its full bars of so many cells."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.ROUNDED, show_lines=len(predictions) > 1)
    table.add_column("Face", justify="right")
    table.add_column("Box, px")
    table.add_column("Expression", no_wrap=True)
    table.add_column("Probabilities", no_wrap=True)
    for number, prediction in enumerate(predictions, 1):
        label = f"{prediction.label} {prediction.confidence:.0%}" + ("\nunsure" if prediction.unsure else "")
        table.add_row(str(number), _where(prediction), label, _bars(prediction, ascii_only, cells))
    return table


def _where(prediction: Prediction) -> str:
    if prediction.face is None:
        return "whole picture"
    left, top, right, bottom = (round(float(edge)) for edge in prediction.face.box_xyxy)
    return f"{right - left} x {bottom - top}\nat {left}, {top}"


def _bars(prediction: Prediction, ascii_only: bool, cells: int) -> Text:
    """Return a line a class, most probable first."""
    from rich.text import Text

    from mien.output.annotate import COLOURS, OTHER

    full, least = ("#", "") if ascii_only else ("█", "▏")  # a cell, and what stands for less than half of one
    ranked = sorted(zip(prediction.probs.tolist(), prediction.classes, strict=True), reverse=True)
    width = max(len(name) for name in prediction.classes)
    lines = []
    for prob, name in ranked:
        if prob >= SHOWN:
            red, green, blue = COLOURS.get(name, OTHER)
            bar = (full * round(prob * cells) or least).ljust(cells)
            lines.append(Text.assemble(f"{name:<{width}} ", (bar, f"rgb({red},{green},{blue})"), f" {prob:4.0%}"))
    return Text("\n").join(lines)
