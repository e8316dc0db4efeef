"""Bars for work that takes a while, in a terminal only; nothing elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console

    from mien.predict.recognizer import VideoOptions
    from mien.structures import Reading
    from mien.video.reader import VideoReader


class _Bar:
    """A bar of Rich's, shown while its block lasts and gone after it.

    Args:
        columns: What stands between the bar and the time left.
        shown: Whether there is a bar at all.
        beside: What prints while the bar stands; in a terminal they share it, so that the bar stays below what is printed.
    """

    def __init__(self, *columns: Any, shown: bool = True, beside: Console | None = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = beside if beside is not None and _is_screen(beside) else Console(stderr=True)
        parts = (TextColumn("{task.description}", markup=False), BarColumn(), *columns, TimeRemainingColumn())
        self.bar = Progress(*parts, console=console, disable=not (shown and _is_screen(console)), transient=True)

    def __enter__(self) -> Any:
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.stop()


def _is_screen(console: Console) -> bool:
    return console.is_terminal and console.file.isatty()  # Rich also takes a file for a terminal where FORCE_COLOR is set


class StepBar(_Bar):
    """A line for each named step: done of all, and the time left."""

    def __init__(self) -> None:
        from rich.progress import MofNCompleteColumn

        super().__init__(MofNCompleteColumn())
        self.tasks: dict[str, Any] = {}

    def step(self, what: str, done: int, total: int) -> None:
        """Move the line of a step, which begins with its first call."""
        if what not in self.tasks:
            self.tasks[what] = self.bar.add_task(what, total=total)
        self.bar.update(self.tasks[what], completed=done, total=total)


class ReadingBar(_Bar):
    """What is being read: the source, frames a second and the time left.

    Args:
        total: Number of sources.
        shown: Whether there is a bar at all.
        beside: What prints while the bar stands.
    """

    def __init__(self, total: int, shown: bool, beside: Console | None = None) -> None:
        from rich.progress import TextColumn

        super().__init__(TextColumn("{task.fields[rate]}"), shown=shown, beside=beside)
        self.total, self.frames, self.began = total, 0, time.perf_counter()
        self.part: tuple[float, float] | None = None
        self.task = self.bar.add_task("reading", total=total, rate="")

    def video(self, options: VideoOptions, video: VideoReader) -> None:
        """Say that a video was opened, and how it is read."""
        start, end = options.start or 0.0, video.duration
        if options.end is not None:
            end = options.end if end is None else min(end, options.end)
        self.part = None if end is None or end <= start else (start, end)

    def step(self, reading: Reading) -> None:
        """Move the bar on."""
        self.frames += 1
        rate = self.frames / max(time.perf_counter() - self.began, 1e-9)
        number, name = reading.number + 1, reading.source
        shown = f"{number} of {self.total}  …{name[-40:]}" if len(name) > 40 else f"{number} of {self.total}  {name}"
        done = reading.number + self._done(reading)
        self.bar.update(self.task, completed=done, description=shown, rate=f"{rate:.0f} frames/s")

    def _done(self, reading: Reading) -> float:
        """Return how much of its source a reading is at, 0 to 1."""
        if reading.frame is None or reading.frame.time is None:
            return 1.0
        if self.part is None:
            return 0.0
        start, end = self.part
        return min(1.0, max(0.0, (reading.frame.time - start) / (end - start)))
