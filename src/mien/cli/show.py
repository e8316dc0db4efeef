"""What `mien predict` prints: a table for each of a few pictures, a line for each of many, JSON lines, a summary of videos."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer

from mien.languages import translate
from mien.structures import Prediction, Reading
from mien.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from mien.output.summary import Summary

BAR_WIDTH = 20
"""Characters of a full bar; fewer in a narrow terminal."""

FEW = 10
"""Up to so many sources, each picture gets a table, and each written file a line."""


class Printer:
    """Prints readings to standard output as they come: nothing if `quiet`, only the rows of the table if `jsonl`."""

    def __init__(
        self, sources: int, *, quiet: bool, jsonl: bool, classes: Sequence[str] = (), all_frames: bool = False
    ) -> None:
        from rich.console import Console

        class Terminal(Console):
            def on_broken_pipe(self) -> None:  # Rich would end the process here, before the files are finished
                raise

        self.few, self.jsonl = sources <= FEW, jsonl
        self._classes, self._all_frames = classes, all_frames
        self.prints_text = not (quiet or jsonl)
        self.console = Terminal(highlight=False, emoji=False)

    def reading(self, reading: Reading) -> None:
        """Print the faces of a picture; those of a video's frame only as JSON."""
        if self.jsonl:
            from mien.output.table import json_line, reading_rows

            unicode = (sys.stdout.encoding or "utf-8").lower() in ("utf-8", "utf8")  # JSON is UTF-8; the output may not be
            for row in reading_rows(reading, self._classes, self._all_frames):
                typer.echo(json_line(row, ascii_only=not unicode))
        elif self.prints_text and reading.frame is not None and reading.frame.index is None:
            if self.few:
                _show_table(self.console, reading.source, reading.predictions)
            else:
                faces = ", ".join(f"{_word(p.label)} {p.confidence:.0%}" for p in reading.predictions)
                self.line(f"{printable(reading.source)}: {faces or translate('no face found')}")

    def line(self, text: object) -> None:
        """Print a text, or anything Rich can print, unless only JSON is wanted."""
        if self.prints_text:
            self.console.print(text, soft_wrap=isinstance(text, str), markup=False)

    def files(self, paths: Sequence[Path]) -> None:
        """Print the names of the files that were written; for many in one folder only their number."""
        folders: dict[Path, list[Path]] = {}
        for path in paths:
            folders.setdefault(path.parent, []).append(path)
        for folder, inside in folders.items():
            if len(inside) > FEW:
                values = {"count": f"{len(inside):,}", "folder": printable(str(folder))}
                self.line(translate("wrote {count} files into {folder}", **values))
            else:
                for path in inside:
                    self.line(translate("wrote {file}", file=printable(str(path))))


def _show_table(console: Console, source: str, predictions: tuple[Prediction, ...]) -> None:
    from rich.measure import Measurement
    from rich.text import Text

    faces = _faces(len(predictions)) if predictions else translate("no face found")
    console.print(Text(f"{printable(source)}: {faces}", "bold"), soft_wrap=True)
    if predictions:
        table = _faces_table(predictions, console.options.ascii_only, BAR_WIDTH)
        spare = console.width - Measurement.get(console, console.options.update(width=1000), table).maximum
        if spare < 0:
            table = _faces_table(predictions, console.options.ascii_only, max(1, BAR_WIDTH + spare))
        console.print(table)


def _faces_table(predictions: tuple[Prediction, ...], ascii_only: bool, bar_width: int) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.ROUNDED, show_lines=len(predictions) > 1)
    table.add_column(translate("Face"), justify="right")
    table.add_column(translate("Box, px"))
    table.add_column(translate("Expression"), no_wrap=True)
    table.add_column(translate("Probabilities"), no_wrap=True)
    for number, prediction in enumerate(predictions, 1):
        position = translate("whole picture")
        if prediction.face is not None:
            left, top, right, bottom = (round(float(edge)) for edge in prediction.face.box_xyxy)
            position = f"{right - left} x {bottom - top}\n" + translate("at {left}, {top}", left=left, top=top)
        label = f"{_word(prediction.label)} {prediction.confidence:.0%}"
        label += f"\n{translate('unsure')}" if prediction.unsure else ""
        table.add_row(str(number), position, Text(label), _bars(prediction, ascii_only, bar_width))
    return table


def _bars(prediction: Prediction, ascii_only: bool, bar_width: int) -> Text:
    """Return one line per class, the most probable first."""
    from rich.cells import cell_len
    from rich.text import Text

    from mien.output.annotate import COLOURS, OTHER

    full, thin = ("#", "") if ascii_only else ("█", "▏")  # thin: less than half a character
    ranked = sorted(zip(prediction.probs.tolist(), prediction.classes, strict=True), reverse=True)
    width = max(cell_len(_word(name)) for _, name in ranked)  # a Chinese character is two cells wide
    lines = []
    for prob, name in ranked:
        if prob >= 0.01:  # tables and files contain all of them
            red, green, blue = COLOURS.get(name, OTHER)
            bar = (full * round(prob * bar_width) or thin).ljust(bar_width)
            word = _word(name) + " " * (width - cell_len(_word(name)))
            lines.append(Text.assemble(f"{word} ", (bar, f"rgb({red},{green},{blue})"), f" {prob:4.0%}"))
    return Text("\n").join(lines)


def summary_table(summary: Summary, max_people: int = 8) -> Table:
    """Return a short table of each video: the people seen longest, and what they showed most."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.ROUNDED)
    for name, right in (("Video", 0), ("Person", 1), ("Seen", 1), ("Mostly", 0), ("Longest", 0), ("Changes", 1)):
        table.add_column(translate(name), justify="right" if right else "left", overflow="fold")
    for video in summary.to_dict()["videos"]:
        people = sorted(video["by_person"], key=lambda person: (-person["seconds"], -person["faces"]))
        shown, hidden = people[:max_people], len(people[max_people:])
        for person in shown:
            source = video["source"] if person is shown[0] else ""
            table.add_row(*_summary_cells(source, person), end_section=person is shown[-1] and not hidden)
        if hidden:
            table.add_row("", "", "", translate("and {count} more", count=hidden), end_section=True)
    return table


def seen_line(video: dict[str, Any]) -> str | None:
    """Return in how many frames of a video there was a face, given its summary; None if in all, or if nobody counted."""
    read, found = video["frames_read"], video["frames"]
    if not read or read == found:
        return None
    gap = max(video["longest_gaps"], key=lambda gap: gap["length"])
    span, gaps = _span(gap["length"], gap["start"]), f"{video['gaps']:,}"
    several = video["gaps"] > 1
    gaps = translate("{count} gaps, the longest {span}" if several else "a gap of {span}", count=gaps, span=span)
    counts = {"found": f"{found:,}", "all": f"{read:,}", "share": f"{video['detection_rate']:.0%}"}
    return f"{video['source']}: {translate('a face in {found} of {all} frames ({share})', **counts)}; {gaps}"


def _word(label: str) -> str:
    """Return a class in the language in use, safe to print."""
    return printable(translate(label))


def _span(seconds: float, start: float) -> str:
    from mien.output.summary import format_time

    return translate("{seconds} s at {time}", seconds=f"{seconds:.1f}", time=format_time(start))


def _faces(count: int) -> str:
    return translate("{count} face" if count == 1 else "{count} faces", count=count)


def _summary_cells(source: str | None, person: dict[str, Any]) -> list[str | Text]:
    from rich.text import Text

    top = sorted(person["share"].items(), key=lambda item: -item[1])[:3]
    stretches = [(each["length"], each["start"], name) for name, each in person["longest"].items() if each and each["length"]]
    length, start, name = max(stretches, default=(0.0, 0.0, ""))
    return [
        Text(translate("in memory") if source is None else printable(source)),  # a str would be read as markup
        translate("all") if person["track"] is None else str(person["track"]),
        f"{person['seconds']:.1f} s" if person["seconds"] else _faces(person["faces"]),
        Text(", ".join(f"{_word(name)} {share:.0%}" for name, share in top if share >= 0.005)),
        Text(f"{_word(name)} {_span(length, start)}" if stretches else ""),
        str(person["changes"]),
    ]
