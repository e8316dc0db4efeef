"""Progress bars for work that takes a while; they appear in a terminal only."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from mien.text import printable

if TYPE_CHECKING:
    from rich.console import Console

    from mien import Reading, VideoOptions
    from mien.video.reader import VideoReader


class _Bar:
    """A progress bar of Rich that is removed when its block ends.

    Args:
        columns: What appears between the bar and the time left.
        shown: Whether there is a bar at all.
        console: Prints other text while the bar is shown; in a terminal the bar stays below that text.
    """

    def __init__(self, *columns: Any, shown: bool = True, console: Console | None = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        if console is None or not _is_terminal(console):
            console = Console(stderr=True)
        parts = (TextColumn("{task.description}", markup=False), BarColumn(), *columns, TimeRemainingColumn())
        self.bar = Progress(*parts, console=console, disable=not (shown and _is_terminal(console)), transient=True)

    def __enter__(self) -> Any:
        self.bar.start()
        return self

    def __exit__(self, *details: object) -> None:
        self.bar.stop()


def _is_terminal(console: Console) -> bool:
    return console.is_terminal and console.file.isatty()  # with FORCE_COLOR Rich takes a file for a terminal


class StepBar(_Bar):
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


class ReadingBar(_Bar):
    """The source being read, frames per second and the time left.

    Args:
        total: Number of sources.
        shown: Whether there is a bar at all.
        console: Prints other text while the bar is shown.
    """

    def __init__(self, total: int, shown: bool, console: Console | None = None) -> None:
        from rich.progress import TextColumn

        super().__init__(TextColumn("{task.fields[rate]}"), shown=shown, console=console)
        self.total, self.frames, self.began = total, 0, time.perf_counter()
        self.span: tuple[float, float] | None = None  # of the video being read, seconds
        self.task = self.bar.add_task("reading", total=total, rate="")

    def opened(self, options: VideoOptions, video: VideoReader) -> None:
        """Take note of a video that was opened, and of the part of it that is read."""
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
