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
from mien.cli.predict import settings
from mien.errors import InputError, MienError, OutputError

if TYPE_CHECKING:
    from mien.cli.window import Window
    from mien.output.run import RunWriter, Targets
    from mien.predict.recognizer import Recognizer
    from mien.structures import Reading
    from mien.video.reader import VideoReader
    from mien.video.sources import Source


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
    snapshots: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the pictures that the key S saves.")] = Path(),
    model: options.Model = None,
    detector: options.DetectorName = "mtcnn",
    min_face: options.MinFace = None,
    max_faces: options.MaxFaces = None,
    align: options.Align = None,
    unsure_below: options.UnsureBelow = 0.5,
    detect_every: options.DetectEvery = 5,
    smooth: options.Smooth = "exponential",
    smooth_seconds: options.SmoothSeconds = 0.3,
) -> None:
    """Show a camera live and draw the expression of every face. Q quits; the window lists the other keys."""
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
    recognizer = Recognizer(model, **faces, unsure_below=unsure_below)  # type: ignore[arg-type]
    video = VideoOptions(detect_every=detect_every, smooth=smooth, smooth_seconds=smooth_seconds)
    recording = None if targets is None else _Recording(targets, recognizer, found, settings(recognizer, video, faces))
    readings = recognizer.stream([found], video, live=True, on_video=None if recording is None else recording.on_video)
    closing = Event()
    if window is not None and found.kind != "live":
        readings = paced(readings, closing)
    if recording is None:
        _run(readings, window, closing)
    else:
        try:
            _run(recording.record(readings), window, closing)
        finally:
            recording.report()
        recording.check()


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
        typer.echo(f"no window: {cause}; writing {out} until Ctrl-C", err=True)
        return None


class _Recording:
    """Writes readings to a file while they are shown."""

    def __init__(self, targets: Targets, recognizer: Recognizer, source: Source, about: dict[str, str]) -> None:
        self.targets, self.recognizer, self.source, self.about = targets, recognizer, source, about
        self.outputs: RunWriter | None = None

    def on_video(self, video: VideoReader) -> None:
        """Pass the opened video to the files."""
        if self.outputs is not None:
            self.outputs.opened(video)

    def record(self, readings: Iterator[Reading]) -> Iterator[Reading]:
        """Yield the readings after writing each. Closing this iterator finishes the files, in the thread that runs it."""
        from mien.output.run import RunWriter

        with RunWriter(self.targets, self.recognizer.classes, self.about, [self.source], resumable=False) as self.outputs:
            try:
                for reading in readings:
                    self.outputs.add(reading)
                    self.check(OutputError)  # stop showing what is no longer recorded
                    yield reading
            except GeneratorExit:  # the user has stopped the recording
                pass

    def report(self) -> None:
        """Print which files are complete, and what they lack."""
        if self.outputs is None:
            return
        for line in (*self.outputs.warnings, *(f"wrote {path}" for path in self.outputs.written)):
            typer.echo(line, err=True)

    def check(self, kind: type[MienError] = MienError) -> None:
        """Raise the first error of a kind, if there was one."""
        for _, error in [] if self.outputs is None else self.outputs.failures:
            if isinstance(error, kind):
                raise error


def _run(readings: Iterator[Reading], window: Window | None, closing: Event) -> None:
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
