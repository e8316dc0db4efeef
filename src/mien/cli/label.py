"""`mien label`: large collections, in parts, on all cores of this machine or on a Ray cluster."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from mien.cli import options
from mien.cli.options import option
from mien.cli.terminal import StepBar, echo

JOB = "Job"


def label(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SRC...",
            help="Folders, files and patterns of pictures, videos, tar shards and Parquet files; also s3://, gs:// and so on.",
        ),
    ],
    out: Annotated[
        str,
        option(
            "Folder or address for the parts. If the run is interrupted, the same command continues it.",
            "DIR",
            JOB,
            "--out",
            "-o",
        ),
    ],
    engine: Annotated[str, option("local: processes on this machine. ray: actors on a Ray cluster.", "NAME", JOB)] = "local",
    workers: Annotated[
        int | None,
        option("Number of workers, each with one thread. 0 works in this process. Default: one per core.", "N", JOB),
    ] = None,
    column: Annotated[
        str | None, option("Column of Parquet files with pictures or their paths. Default: the only one of bytes.", "NAME", JOB)
    ] = None,
    unit_size: Annotated[
        int, option("Pictures per unit, the part of the work that is done or repeated as one.", "N", JOB)
    ] = 512,
    model: options.Model = None,
    detector: options.DetectorName = "centerface",
    no_detect: options.NoDetect = False,
    min_face: options.MinFace = None,
    max_faces: options.MaxFaces = None,
    align: options.Align = None,
    unsure_below: options.UnsureBelow = 0.5,
    coverage: options.Coverage = None,
    fps: options.Fps = None,
    detect_every: options.DetectEvery = 5,
    smooth: options.Smooth = "exponential",
    smooth_seconds: options.SmoothSeconds = 0.3,
) -> None:
    """Label a large collection in parts, on all cores or on a Ray cluster; an interrupted run continues where it stopped."""
    from mien import VideoOptions
    from mien.label import label_collection

    video = VideoOptions(fps, None, None, detect_every, smooth, smooth_seconds)
    chosen = {
        "detector": None if no_detect else detector,
        "min_face": min_face,
        "max_faces": max_faces,
        "align": align,
        "unsure_below": unsure_below,
        "coverage": coverage,
    }
    try:
        with StepBar() as progress:
            report = label_collection(
                sources,
                out,
                model,
                chosen,
                video,
                column=column,
                unit_size=unit_size,
                engine=engine,
                workers=workers,
                on_step=partial(progress.step, "units"),
            )
    except KeyboardInterrupt:
        echo(f"stopped; {out} keeps the units that are done, and the same command continues", err=True)
        raise typer.Exit(130) from None
    earlier = f" ({report.resumed:,} by earlier runs)" if report.resumed else ""
    echo(f"wrote {report.faces:,} faces of {report.inputs:,} pictures and videos to {out}, in {report.units:,} parts{earlier}")
    if report.errors:
        for name, why in report.first_errors:
            echo(f"error: {why if why.startswith(name) else f'{name}: {why}'}", err=True)
        inputs = "input" if report.errors == 1 else "inputs"
        echo(f"{report.errors:,} {inputs} could not be read completely; {out.rstrip('/')}/errors.parquet lists all", err=True)
        raise typer.Exit(3)
