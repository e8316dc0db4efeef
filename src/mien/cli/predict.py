"""`mien predict`: pictures and videos in; tables, pictures and videos out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.errors import InputError, OutputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mien.cli.show import Printer
    from mien.output.outputs import Outputs
    from mien.predict.recognizer import Recognizer
    from mien.predict.stream import VideoOptions
    from mien.video.reader import VideoReader
    from mien.video.sources import Source

OUT, DRAWN, LOOK, FACES, VIDEO = "Results", "Drawings", "Terminal", "Faces", "Videos"
"""Panels of the help."""

ALIGN = "Turn faces upright by landmarks; default if there are any."


def predict(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Pictures, videos, folders, globs, URLs, camera:0, - for standard input, @FILE for a list of them.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Write a table: .csv, .parquet or .jsonl.", rich_help_panel=OUT),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted --out: read only what it lacks.", rich_help_panel=OUT)
    ] = False,
    summary: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write what each person showed in each video: .json or .csv.", rich_help_panel=OUT),
    ] = None,
    annotate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|FOLDER",
            help="Write the picture or video with boxes, labels and bars; for several sources, a folder.",
            rich_help_panel=DRAWN,
        ),
    ] = None,
    timeline: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|FOLDER",
            help="Draw a video's expressions over time: .png or .svg; for several videos, a folder.",
            rich_help_panel=DRAWN,
        ),
    ] = None,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Print one JSON object a face instead of tables.", rich_help_panel=LOOK)
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.", rich_help_panel=LOOK)] = False,
    model: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="Bundled model or .onnx file.", rich_help_panel=FACES)
    ] = None,
    detector: Annotated[
        str, typer.Option(metavar="NAME", help="What finds faces: mtcnn, centerface or haar.", rich_help_panel=FACES)
    ] = "mtcnn",
    no_detect: Annotated[
        bool, typer.Option("--no-detect", help="Each picture or frame is one ready face crop.", rich_help_panel=FACES)
    ] = False,
    min_face: Annotated[
        float | None,
        typer.Option(metavar="PX", help="Leave out faces whose shorter side is below this.", rich_help_panel=FACES),
    ] = None,
    max_faces: Annotated[
        int | None,
        typer.Option(metavar="N", help="Keep the largest N faces of a picture; 1 keeps the largest.", rich_help_panel=FACES),
    ] = None,
    align: Annotated[
        bool | None,
        typer.Option(
            "--align/--no-align",
            help=ALIGN,
            show_default=False,
            rich_help_panel=FACES,
        ),
    ] = None,
    unsure_below: Annotated[
        float, typer.Option(metavar="P", help="Confidence below which a row is marked unsure.", rich_help_panel=FACES)
    ] = 0.5,
    fps: Annotated[
        float | None, typer.Option(metavar="N", help="Frames looked at in a second; default all.", rich_help_panel=VIDEO)
    ] = None,
    start: Annotated[float | None, typer.Option(metavar="SECONDS", help="Where to begin.", rich_help_panel=VIDEO)] = None,
    end: Annotated[float | None, typer.Option(metavar="SECONDS", help="Where to end.", rich_help_panel=VIDEO)] = None,
    detect_every: Annotated[
        int,
        typer.Option(metavar="N", help="Look for faces in every Nth frame and each quarter second.", rich_help_panel=VIDEO),
    ] = 5,
    smooth: Annotated[
        str,
        typer.Option(metavar="NAME", help="Filter over time: exponential, centred or none.", rich_help_panel=VIDEO),
    ] = "exponential",
    smooth_seconds: Annotated[
        float, typer.Option(metavar="SECONDS", help="Length of that filter.", rich_help_panel=VIDEO)
    ] = 0.3,
) -> None:
    """Name the expression of every face in pictures and videos; the largest face of a picture comes first."""
    from mien.cli.show import Printer
    from mien.output.outputs import Outputs, Targets
    from mien.predict.recognizer import Recognizer
    from mien.predict.stream import VideoOptions
    from mien.video.sources import expand

    if resume and out is None:
        raise InputError("--resume goes on with a table; name it with --out")
    if quiet and jsonl:
        raise InputError("--quiet prints nothing and --jsonl prints rows; choose one")
    video = VideoOptions(fps, start, end, detect_every, smooth, smooth_seconds)
    faces = {"detector": None if no_detect else detector, "min_face": min_face, "max_faces": max_faces, "align": align}
    recognizer = Recognizer(model, **faces, unsure_below=unsure_below)  # type: ignore[arg-type]
    about = settings(recognizer, video, faces)
    sources = list(expand(paths))
    targets = Targets(out, summary, annotate, timeline)
    printer = Printer(len(sources), quiet=quiet, jsonl=jsonl)
    outputs = Outputs(targets, recognizer.classes, about, sources, fps=fps, resume=resume)
    if resume and not outputs.resumed:
        printer.line("no interrupted run has left anything to go on with; reading all")
    _run(recognizer, video, sources, outputs, printer)


def settings(recognizer: Recognizer, video: VideoOptions, faces: dict[str, Any]) -> dict[str, str]:
    """Return what a table's rows hang on, beside the sources; `faces` is how they are found and cut."""
    import mien
    from mien.predict.onnx_backend import OnnxBackend
    from mien.weights import sha256

    backend, info = recognizer.backend, recognizer.backend.info
    file = sha256(backend.path) if isinstance(backend, OnnxBackend) else ""
    model = {"mien": mien.__version__, "model": info.arch, "model_file": file, "model_data": info.data_fingerprint}
    options = {key: str(value) for key, value in (asdict(video) | faces).items()}
    return {key: str(value) for key, value in model.items()} | options | {"unsure_below": str(recognizer.unsure_below)}


def _run(recognizer: Recognizer, video: VideoOptions, sources: Sequence[Source], outputs: Outputs, printer: Printer) -> None:
    """Read the sources into the outputs, and say what came of it."""
    try:
        with outputs:
            _read(recognizer, video, _wanted(sources, outputs, printer), outputs, printer)
    except KeyboardInterrupt:
        _say_written(outputs, printer)
        _say_failures(outputs)
        typer.echo(_stopped(outputs), err=True)
        raise typer.Exit(130) from None
    except BrokenPipeError:  # `| head` has enough
        if outputs.written:
            typer.echo(f"nobody reads what is printed: {_stopped(outputs)}", err=True)
        raise
    except OutputError:
        _say_failures(outputs)
        if outputs.resumable:
            typer.echo(f"what was read is not lost{_how_to_go_on(outputs)}", err=True)
        raise
    _say_written(outputs, printer)
    _end(outputs, len(sources))


def _wanted(sources: Sequence[Source], outputs: Outputs, printer: Printer) -> list[Source]:
    """Return the sources that no earlier run has read, and say how many were."""
    wanted = [source for source in sources if not outputs.done(source.name)]
    if len(wanted) < len(sources):
        printer.line(f"{len(sources) - len(wanted):,} of {len(sources):,} sources were read before")
    if outputs.dropped:
        printer.line(f"an earlier run had read {outputs.dropped:,} of them; starting over (--resume would go on)")
    return wanted


def _read(recognizer: Recognizer, video: VideoOptions, wanted: list[Source], outputs: Outputs, printer: Printer) -> None:
    from mien.cli.progress import ReadingBar

    live = any(source.kind == "live" for source in wanted)
    with ReadingBar(len(wanted), printer.talks, beside=printer.console) as bar:

        def opened(reader: VideoReader) -> None:
            bar.video(video, reader)
            outputs.opened(reader)

        for reading in recognizer.stream(wanted, video, live=live, on_video=opened):
            outputs.add(reading)
            printer.reading(reading)
            bar.step(reading)


def _say_written(outputs: Outputs, printer: Printer) -> None:
    from mien.output.cells import readable
    from mien.output.summary import summary_table

    if any(video["by_person"] for video in outputs.summary.to_dict()["videos"]):
        printer.line(summary_table(outputs.summary))
    for video in outputs.faceless:
        printer.line(f"{readable(video)}: no face found")
    for note in outputs.notes:
        printer.line(readable(note))
    printer.files(outputs.written)


def _how_to_go_on(outputs: Outputs) -> str:
    return "; go on with the same command and --resume" if outputs.resumable else ""


def _stopped(outputs: Outputs) -> str:
    return ("stopped; the files hold what was done" if outputs.written else "stopped") + _how_to_go_on(outputs)


def _say_failures(outputs: Outputs) -> None:
    for _, error in outputs.failures:
        typer.echo(f"error: {error}", err=True)


def _end(outputs: Outputs, total: int) -> None:
    """Report what could not be read, and end with the status that says so."""
    if not outputs.failures:
        return
    first = outputs.failures[0][1]
    if total == 1 and (not outputs.read or isinstance(first, OutputError)):
        raise first
    _say_failures(outputs)
    failed = len({source for source, _ in outputs.failures})
    typer.echo(f"{failed:,} of {total:,} could not be {_what_failed(outputs)}{_how_to_go_on(outputs)}", err=True)
    raise typer.Exit(3)


def _what_failed(outputs: Outputs) -> str:
    drawing = [isinstance(error, OutputError) for _, error in outputs.failures]
    return "drawn" if all(drawing) else "read or drawn whole" if any(drawing) else "read whole"
