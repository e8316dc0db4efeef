"""`mien predict`: pictures in, expressions out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.errors import MienError

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from mien.structures import Prediction

BAR = 20
"""Cells of a full bar."""

SHOWN = 0.01
"""Least probability that gets a bar in the terminal; tables and files hold them all."""


def predict(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Pictures to read.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write a CSV table.")] = None,
    annotate: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write the annotated picture; for several pictures, a folder of them."),
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME|FILE", help="Bundled model or .onnx file.")] = None,
    min_face: Annotated[float | None, typer.Option(metavar="PX", help="Shorter side of the smallest face looked for.")] = None,
    no_detect: Annotated[bool, typer.Option("--no-detect", help="Each picture is one ready face crop.")] = False,
) -> None:
    """Name the expression of every face in pictures; the largest face comes first."""
    from mien.runtime.predictor import Recognizer
    from mien.runtime.table import to_json, write_csv

    recognizer = Recognizer(model, detector=None if no_detect else "mtcnn", min_face=min_face)
    several = len(paths) > 1
    drawings = _Drawings(annotate, several) if annotate else None
    found: list[Prediction] = []
    failed = 0
    for path, outcome in zip(paths, (result for _, result in recognizer.predict_many(paths)), strict=True):
        if isinstance(outcome, MienError):
            if not several:
                raise outcome
            failed += 1
            typer.echo(f"error: {outcome}", err=True)
            continue
        found += outcome
        if drawings:
            drawings.write(path, outcome)
        if not as_json:
            _show(path, outcome)
    if csv:
        write_csv(csv, found, recognizer.classes)
    if as_json:
        typer.echo(to_json(found))
    if failed:
        typer.echo(f"{failed} of {len(paths)} pictures could not be read", err=True)
        raise typer.Exit(3)


class _Drawings:
    """Where annotated pictures go: one file, or a folder with one JPEG a picture."""

    def __init__(self, target: Path, several: bool) -> None:
        self.target, self.several = target, several
        self.names: set[str] = set()

    def write(self, source: Path, predictions: list[Prediction]) -> None:
        """Draw the predictions of a picture and write it."""
        from mien.image import read_image
        from mien.runtime.annotate import annotate, write_picture

        target = self.target / self._name(source.stem) if self.several else self.target
        write_picture(target, annotate(read_image(source), predictions))

    def _name(self, stem: str) -> str:
        name, number = f"{stem}.jpg", 1
        while name in self.names:  # two folders may hold pictures of one name
            number += 1
            name = f"{stem}-{number}.jpg"
        self.names.add(name)
        return name


def _show(path: Path, predictions: list[Prediction]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    full, least = ("#", "") if console.options.ascii_only else ("█", "▏")
    console.print(Text(f"{path}: {_count(len(predictions))}", "bold"), soft_wrap=True)
    if predictions:
        console.print(_table(predictions, full, least))


def _count(faces: int) -> str:
    return f"{faces} face{'' if faces == 1 else 's'}" if faces else "no face found"


def _table(predictions: list[Prediction], full: str, least: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.ROUNDED, show_lines=len(predictions) > 1)
    table.add_column("Face", justify="right")
    table.add_column("Box, px")
    table.add_column("Expression")
    table.add_column("Probabilities", no_wrap=True)
    for number, prediction in enumerate(predictions, 1):
        label = f"{prediction.label} {prediction.confidence:.0%}"
        table.add_row(str(number), _where(prediction), label, _bars(prediction, full, least))
    return table


def _where(prediction: Prediction) -> str:
    if prediction.face is None:
        return "whole picture"
    left, top, right, bottom = (round(float(edge)) for edge in prediction.face.box_xyxy)
    return f"{right - left} x {bottom - top}\nat {left}, {top}"


def _bars(prediction: Prediction, full: str, least: str) -> Text:
    """Return a line a class, most probable first; `full` is a filled cell, `least` stands for less than half of one."""
    from rich.text import Text

    from mien.runtime.annotate import COLOURS, OTHER

    ranked = sorted(zip(prediction.probs.tolist(), prediction.classes, strict=True), reverse=True)
    width = max(len(name) for name in prediction.classes)
    lines = []
    for prob, name in ranked:
        if prob >= SHOWN:
            red, green, blue = COLOURS.get(name, OTHER)
            bar = (full * round(prob * BAR) or least).ljust(BAR)
            lines.append(Text.assemble(f"{name:<{width}} ", (bar, f"rgb({red},{green},{blue})"), f" {prob:4.0%}"))
    return Text("\n").join(lines)
