"""`mien prepare`: from photos to a folder of faces to train on."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.cli.terminal import StepBar, echo

if TYPE_CHECKING:
    from mien.prepare import Report


def prepare(
    photos: Annotated[
        Path,
        typer.Argument(
            metavar="PHOTOS", help="A folder: train/<class>/* (and val, test), <class>/*, or loose photos.", show_default=False
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="FOLDER", help="Folder to write. If the run is interrupted, the same command resumes it."),
    ],
    size: Annotated[int, typer.Option(metavar="PX", help="Side of the pictures that are written.")] = 224,
    augment: Annotated[
        int | None,
        typer.Option(
            metavar="1|5|10|15",
            help="Pictures per training face: 5 at five angles, 10 also flipped left to right, 15 also top to bottom. "
            "Default: 15 with split folders, else 1. Without them, more than 1 turns all photos into training photos.",
            show_default=False,
        ),
    ] = None,
    all_faces: Annotated[bool, typer.Option("--all-faces", help="Crop every face of a photo, not only the largest.")] = False,
    grey: Annotated[bool, typer.Option("--grey", help="Write grey pictures.")] = False,
    jpeg: Annotated[bool, typer.Option("--jpeg", help="Write JPEG of quality 95 instead of PNG.")] = False,
    min_face: Annotated[float, typer.Option(metavar="PX", help="Side of the smallest face to find.")] = 40,
    jobs: Annotated[
        int | None, typer.Option(metavar="N", help="Number of processes. Default: one per core.", show_default=False)
    ] = None,
) -> None:
    """Make a corpus from photos: crop the faces, augment them as in vgg16_gcca's paper, and write a manifest and a report."""
    from mien.prepare import Settings
    from mien.prepare import prepare as run
    from mien.provenance import available_cores

    settings = Settings(size, augment, all_faces, grey, jpeg, min_face)
    with StepBar() as progress:
        report = run(
            photos, out, settings, jobs=available_cores() if jobs is None else jobs, on_step=partial(progress.step, "photos")
        )
    line = f"wrote {report.pictures:,} pictures of {report.faces:,} faces from {report.photos:,} photos to {out}"
    echo(line)
    if not report.complete:
        _list_failures(report, out)
        raise typer.Exit(3)


def _list_failures(report: Report, out: Path) -> None:
    """Print how many photos gave no picture, and the first of them."""
    lines = [f"{name}: no face was found in it" for name in report.no_face]
    lines += [f"{name}: {reason}" for name, reason in report.unreadable.items()]
    lines += report.skipped
    for line in lines[:10]:
        echo(f"skipped: {' '.join(line.split())}", err=True)
    faceless = f"{len(report.no_face):,} photo{'' if len(report.no_face) == 1 else 's'} without a face"
    others = f"{len(report.unreadable):,} unreadable, {len(report.skipped):,} left out"
    echo(f"{faceless}, {others}; all are listed in {out / 'report.json'}", err=True)
