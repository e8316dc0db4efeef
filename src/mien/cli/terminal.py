"""What commands show in a terminal: lines, tables and progress bars.

Text from outside, such as a file name, is shown with its control characters escaped and is never read as Rich's markup.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import typer
from typer.core import TyperCommand, TyperGroup

from mien.text import printable

if TYPE_CHECKING:
    from rich.console import Console

    from mien import Reading, VideoOptions
    from mien.video.reader import VideoReader


class _Help:
    """Help that shows what values are called, such as FILE, and none of Python's types."""

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            shown = param.metavar if param.param_type_name == "option" else None
            param.display_type_rich = lambda ctx, shown=shown: shown
        return params


class Command(_Help, TyperCommand):
    """A command of mien."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words that follow the command's name in its usage line."""
        arguments = [param for param in self.params if param.param_type_name == "argument"]
        return [*(f"{each.metavar}" if each.required else f"[{each.metavar}]" for each in arguments), "[OPTIONS]"]


class Group(_Help, TyperGroup):
    """A command with commands of its own."""


def echo(line: object, err: bool = False) -> None:
    """Print a line, to standard error if `err`."""
    typer.echo(printable(str(line)), err=err)


def print_table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    title: str = "",
    left: int = 1,
    lines: bool = True,
    sums: bool = False,
) -> None:
    """Print a table of texts.

    Args:
        head: The names of the columns.
        rows: The rows; cells missing at the end are empty.
        title: A line above the table.
        left: How many columns, from the first, hold words. The others are numbers, aligned right.
        lines: Draw lines around the cells. Without them, the first column keeps its width.
        sums: Set the last row apart.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    look: dict[str, Any] = {} if lines else {"box": None, "padding": (0, 2, 0, 0), "pad_edge": False}
    table = Table(title=Text(printable(title)) if title else None, **look)
    for number, name in enumerate(head):
        justify: Literal["left", "right"] = "left" if number < left else "right"
        table.add_column(Text(printable(name)), justify=justify, no_wrap=not (lines or number))
    for number, row in enumerate(rows):
        table.add_row(*(Text(printable(cell)) for cell in row), end_section=sums and number == len(rows) - 2)
    Console().print(table)


def per_cent(share: float | None, digits: int = 2) -> str:
    """Return a share in per cent; a hyphen for None.

    >>> per_cent(0.70118), per_cent(0.9, 0), per_cent(None)
    ('70.12 %', '90 %', '-')
    """
    return "-" if share is None else f"{100 * share:.{digits}f} %"


class Bar:
    """A progress bar of Rich that is removed when its block ends.

    It appears in a terminal only, below the text that `console` prints. `columns` are between the bar and the time left.
    """

    def __init__(self, *columns: Any, shown: bool = True, console: Console | None = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        if console is None or not _is_terminal(console):
            console = Console(stderr=True)
        parts = (TextColumn("{task.description}", markup=False), BarColumn(), *columns, TimeRemainingColumn())
        self.bar = Progress(*parts, console=console, disable=not (shown and _is_terminal(console)), transient=True)

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *details: object) -> None:
        self.bar.stop()


def _is_terminal(console: Console) -> bool:
    return console.is_terminal and console.file.isatty()  # with FORCE_COLOR Rich takes a file for a terminal


class StepBar(Bar):
    """One bar per named step: how much is done, and the time left."""

    def __init__(self) -> None:
        from rich.progress import MofNCompleteColumn

        super().__init__(MofNCompleteColumn())
        self.tasks: dict[str, Any] = {}

    def step(self, what: str, done: int, total: int) -> None:
        """Update the bar of a step; its first call adds the bar."""
        if what not in self.tasks:
            self.tasks[what] = self.bar.add_task(printable(what), total=total)
        self.bar.update(self.tasks[what], completed=done, total=total)


class ReadingBar(Bar):
    """The source being read, frames per second and the time left."""

    def __init__(self, total: int, shown: bool, console: Console | None = None) -> None:
        from rich.progress import TextColumn

        super().__init__(TextColumn("{task.fields[rate]}"), shown=shown, console=console)
        self.total, self.frames, self.began = total, 0, time.perf_counter()
        self.span: tuple[float, float] | None = None  # of the video being read, seconds
        self.task = self.bar.add_task("reading", total=total, rate="")

    def opened(self, options: VideoOptions, video: VideoReader) -> None:
        """Note which part of the opened video is read."""
        start, end = options.start or 0.0, video.duration
        if options.end is not None:
            end = options.end if end is None else min(end, options.end)
        self.span = None if end is None or end <= start else (start, end)

    def step(self, reading: Reading) -> None:
        """Update the bar after a picture or frame."""
        self.frames += 1
        rate = self.frames / max(time.perf_counter() - self.began, 1e-9)
        name = printable(reading.source)
        name = name if len(name) <= 40 else f"…{name[-40:]}"
        share = 1.0
        if reading.frame is not None and reading.frame.time is not None:
            start, end = self.span or (0.0, float("inf"))
            share = min(1.0, max(0.0, (reading.frame.time - start) / (end - start)))
        description = f"{reading.number + 1} of {self.total}  {name}"
        self.bar.update(self.task, completed=reading.number + share, description=description, rate=f"{rate:.0f} frames/s")
