"""`mien camera`: a live window on a camera."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer

from mien.atomic import uninterrupted
from mien.cli import options
from mien.cli.options import option
from mien.cli.predict import other_inputs, settings
from mien.cli.terminal import echo
from mien.errors import InputError, MienError, OutputError
from mien.languages import translate

if TYPE_CHECKING:
    from mien.cli.window import Window
    from mien.output.run import RunWriter, Targets
    from mien.structures import Reading


def camera(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A camera, a stream's URL, or a video.")] = "camera:0",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Also write a table (.csv, .parquet, .jsonl) or a video (.mp4, ...)."),
    ] = None,
    mirror: Annotated[
        bool | None,
        typer.Option(
            "--mirror/--no-mirror", help="Mirror the picture in the window. Default: only for cameras.", show_default=False
        ),
    ] = None,
    snapshots: Annotated[Path, option("Folder for the pictures that the key S saves.", "FOLDER")] = Path(),
    model: options.Model = None,
    detector: options.DetectorName = "centerface",
    min_face: options.MinFace = None,
    max_faces: options.MaxFaces = None,
    align: options.Align = None,
    unsure_below: options.UnsureBelow = 0.5,
    providers: options.Providers = None,
    detect_every: options.DetectEvery = 5,
    smooth: options.Smooth = "exponential",
    smooth_seconds: options.SmoothSeconds = 0.3,
    language: options.Language = "en",
) -> None:
    """Show a camera live and draw the expression of every face.

    Q quits; the window lists the other keys.
    """
    from mien.output.run import RunWriter
    from mien.predict.recognizer import Recognizer, VideoOptions
    from mien.video.live import paced
    from mien.video.sources import expand

    sources = list(islice(expand([source]), 2))
    if len(sources) != 1 or sources[0].kind == "picture":
        raise InputError(f"{source}: is not a camera or a video; use mien predict for pictures")
    (found,) = sources
    if found.error is not None:
        raise found.error
    targets = None if out is None else _targets(out)
    window = _window(found.name, found.kind == "live" if mirror is None else mirror, snapshots, out)
    faces = {"detector": detector, "min_face": min_face, "max_faces": max_faces, "align": align}
    recognizer = Recognizer(model, **faces, unsure_below=unsure_below, providers=providers)  # type: ignore[arg-type]
    video = VideoOptions(detect_every=detect_every, smooth=smooth, smooth_seconds=smooth_seconds)
    run = None
    if targets is not None:
        about, inputs = settings(recognizer, video, faces), other_inputs(recognizer)
        run = RunWriter(targets, recognizer.classes, about, [found], resumable=False, inputs=inputs)
    readings = recognizer.stream([found], video, live=True, on_video=None if run is None else run.opened)
    closing = Event()
    if window is not None and found.kind != "live":
        readings = paced(readings, closing)
    if run is None:
        _show(readings, window, closing)
        return
    try:
        _show(record(readings, run), window, closing)
    finally:
        for line in (*run.warnings, *(translate("wrote {file}", file=path) for path in run.written)):
            echo(line, err=True)
    _raise_failure(run, MienError)


def _targets(out: Path) -> Targets:
    from mien.output.run import Targets
    from mien.output.table import FORMATS
    from mien.video.writer import CONTAINERS

    if out.suffix.lower() in FORMATS:
        return Targets(table=out)
    if out.suffix.lower() in CONTAINERS:
        return Targets(annotate=out)
    raise OutputError(f"{out}: is not the name of a table or a video; end it with one of {', '.join((*FORMATS, *CONTAINERS))}")


def _window(title: str, mirror: bool, snapshots: Path, out: Path | None) -> Window | None:
    """Return the window; None if there is no display but a file to write."""
    from mien.cli.window import Window

    try:
        return Window(f"mien {title}", mirror=mirror, snapshots=snapshots)
    except MienError as error:
        if out is None:
            raise
        cause, _, _ = str(error).partition(";")
        echo(f"no window: {cause}; writing {out} until Ctrl-C", err=True)
        return None


def record(readings: Iterator[Reading], run: RunWriter) -> Iterator[Reading]:
    """Yield the readings after writing each. Closing this iterator finishes the files, in the thread that runs it."""
    with run, suppress(GeneratorExit):  # the user has stopped the recording
        for reading in readings:
            run.add(reading)
            _raise_failure(run, OutputError)  # stop showing what is no longer recorded
            yield reading


def _raise_failure(run: RunWriter, kind: type[MienError]) -> None:
    """Raise the first error of a kind, if there was one."""
    for _, error in run.failures:
        if isinstance(error, kind):
            raise error


def _show(readings: Iterator[Reading], window: Window | None, closing: Event) -> None:
    """Show the readings, or wait for them, until they end or the user stops; then set `closing`."""
    from mien.cli.window import wait_for
    from mien.video.live import Newest

    feed = Newest(readings)
    with suppress(KeyboardInterrupt):  # Ctrl-C is one way to stop
        try:
            wait_for(feed) if window is None else window.show(feed)
        finally:
            closing.set()
            with uninterrupted():  # another thread is finishing the files
                feed.close()
