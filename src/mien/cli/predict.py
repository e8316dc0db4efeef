"""`mien predict`: pictures and videos in; tables, summaries, timelines, annotated pictures and videos out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.cli import options
from mien.cli.options import FILES, TERMINAL, VIDEOS, option
from mien.cli.terminal import ReadingBar
from mien.errors import InputError, OutputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mien import Recognizer, VideoOptions
    from mien.cli.show import Printer
    from mien.output.run import RunWriter
    from mien.video.reader import VideoReader
    from mien.video.sources import Source


def predict(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Pictures, videos, folders, patterns, URLs or camera:0. - is standard input, @FILE holds one path per line.",
        ),
    ],
    out: Annotated[
        Path | None, option("Write a table with one row per face: .csv, .parquet or .jsonl.", "FILE", FILES, "--out", "-o")
    ] = None,
    resume: Annotated[
        bool, option("Continue an interrupted run with the same --out: read only what is missing.", None, FILES, "--resume")
    ] = False,
    summary: Annotated[
        Path | None, option("Write a summary of each person in each video: .json or .csv.", "FILE", FILES)
    ] = None,
    annotate: Annotated[
        Path | None,
        option(
            "Draw boxes, labels and bars on the picture or video. For several sources, name a folder.", "FILE|FOLDER", FILES
        ),
    ] = None,
    timeline: Annotated[
        Path | None,
        option(
            "Plot the expressions in a video over time: .png or .svg. For several videos, name a folder.", "FILE|FOLDER", FILES
        ),
    ] = None,
    events: options.EventsFile = None,
    all_frames: Annotated[
        bool, option("Also write a row for each frame of a video without a face; its other cells are empty.", None, FILES)
    ] = False,
    jsonl: Annotated[bool, option("Print one JSON object per face instead of tables.", None, TERMINAL, "--jsonl")] = False,
    quiet: Annotated[bool, option("Print errors only.", None, TERMINAL, "--quiet", "-q")] = False,
    model: options.Model = None,
    detector: options.DetectorName = "centerface",
    no_detect: options.NoDetect = False,
    min_face: options.MinFace = None,
    max_faces: options.MaxFaces = None,
    align: options.Align = None,
    unsure_below: options.UnsureBelow = 0.5,
    coverage: options.Coverage = None,
    providers: options.Providers = None,
    fps: options.Fps = None,
    start: Annotated[float | None, option("Skip the part of the video before this time.", "SECONDS", VIDEOS)] = None,
    end: Annotated[float | None, option("Skip the part of the video after this time.", "SECONDS", VIDEOS)] = None,
    detect_every: options.DetectEvery = 5,
    smooth: options.Smooth = "exponential",
    smooth_seconds: options.SmoothSeconds = 0.3,
    language: options.Language = "en",
    min_seconds: options.MinSeconds = 0.3,
    merge_gap: options.MergeGap = 0.3,
    events_format: options.EventFormat = "csv",
) -> None:
    """Recognise the expression of every face in pictures and videos."""
    from mien import Recognizer, VideoOptions
    from mien.cli.show import Printer
    from mien.output.events import EventOptions
    from mien.output.run import RunWriter, Targets
    from mien.video.sources import expand

    if resume and out is None:
        raise InputError("--resume continues a table; name the table with --out")
    if quiet and jsonl:
        raise InputError("--quiet prints nothing and --jsonl prints rows; choose one of them")
    video = VideoOptions(fps, start, end, detect_every, smooth, smooth_seconds)
    faces: dict[str, Any] = {
        "detector": None if no_detect else detector,
        "min_face": min_face,
        "max_faces": max_faces,
        "align": align,
    }
    recognizer = Recognizer(model, **faces, unsure_below=unsure_below, coverage=coverage, providers=providers)
    about = settings(recognizer, video, faces)
    sources = list(expand(paths))
    printer = Printer(len(sources), quiet=quiet, jsonl=jsonl, classes=recognizer.classes, all_frames=all_frames)
    targets = Targets(out, summary, annotate, timeline, events)
    run = RunWriter(
        targets,
        recognizer.classes,
        about,
        sources,
        fps=fps,
        all_frames=all_frames,
        resume=resume,
        inputs=other_inputs(recognizer, paths),
        event_options=EventOptions(min_seconds, merge_gap, events_format),
    )
    if resume and not run.resumed:
        printer.line("there is nothing to resume; reading all sources")
    _run(recognizer, video, sources, run, printer)


def settings(recognizer: Recognizer, video: VideoOptions, faces: dict[str, Any]) -> dict[str, str]:
    """Return everything the rows of a table depend on except the sources; `faces` is how faces are found and cropped."""
    import mien
    from mien.weights import sha256

    backend, info = recognizer.backend, recognizer.backend.info
    path = getattr(backend, "path", None)
    file = sha256(path) if path else ""
    model = {"mien": mien.__version__, "model": info.arch, "model_file": file, "model_data": info.data_fingerprint}
    chosen = asdict(video) | faces | {"unsure_below": recognizer.unsure_below, "coverage": recognizer.coverage}
    return {key: str(value) for key, value in (model | chosen).items()}


def other_inputs(recognizer: Recognizer, paths: Sequence[str] = ()) -> list[str | Path]:
    """Return the files that a run reads as well as its sources: the model with its card, and the lists of names."""
    from mien.predict.onnx_backend import OnnxBackend
    from mien.weights import card_path

    backend = recognizer.backend
    model = [backend.path, card_path(backend.path)] if isinstance(backend, OnnxBackend) else []
    return [*model, *(path[1:] for path in paths if path.startswith("@")), *(["/dev/stdin"] if {"-", "@-"} & {*paths} else [])]


def _run(recognizer: Recognizer, video: VideoOptions, sources: Sequence[Source], run: RunWriter, printer: Printer) -> None:
    """Read the sources, write the files, and report what happened."""
    try:
        with run:
            missing = [source for source in sources if not run.done(source.name)]
            if len(missing) < len(sources):
                printer.line(f"{len(sources) - len(missing):,} of {len(sources):,} sources were already read")
            if run.dropped:
                printer.line(f"an earlier run had already read {run.dropped:,}; starting over (--resume would keep them)")
            live = any(source.kind == "live" for source in missing)
            with ReadingBar(len(missing), printer.prints_text, printer.console) as bar:

                def opened(reader: VideoReader) -> None:
                    bar.opened(video, reader)
                    run.opened(reader)

                for reading in recognizer.stream(missing, video, live=live, on_video=opened):
                    run.add(reading)
                    printer.reading(reading)
                    bar.step(reading)
    except KeyboardInterrupt:
        _report_files(run, printer)
        _report_failures(run)
        typer.echo(_stopped(run), err=True)
        raise typer.Exit(130) from None
    except BrokenPipeError:  # as after `| head`
        if run.written:
            typer.echo(f"standard output was closed: {_stopped(run)}", err=True)
        raise
    except OutputError:
        _report_failures(run)
        if run.resumable:
            typer.echo(f"everything read so far is kept{_how_to_resume(run)}", err=True)
        raise
    _report_files(run, printer)
    if run.failures:
        first, drawing = run.failures[0][1], [isinstance(error, OutputError) for _, error in run.failures]
        if len(sources) == 1 and (not run.read or drawing[0]):
            raise first
        _report_failures(run)
        failed = len({source for source, _ in run.failures})
        what = "drawn" if all(drawing) else "read or drawn completely" if any(drawing) else "read completely"
        typer.echo(f"{failed:,} of {len(sources):,} sources could not be {what}{_how_to_resume(run)}", err=True)
        raise typer.Exit(3)


def _report_files(run: RunWriter, printer: Printer) -> None:
    from mien.cli.show import seen_line, summary_table
    from mien.languages import translate
    from mien.text import printable

    videos = run.summary.to_dict()["videos"]
    if any(video["by_person"] for video in videos):
        printer.line(summary_table(run.summary))
    for video in videos:
        if video["by_person"] and (line := seen_line(video)):
            printer.line(printable(line))
    for video in run.videos_without_faces:
        printer.line(f"{printable(video)}: {translate('no face found')}")
    for warning in run.warnings:
        printer.line(printable(warning))
    printer.files(run.written)


def _report_failures(run: RunWriter) -> None:
    for _, error in run.failures:
        typer.echo(f"error: {error}", err=True)


def _how_to_resume(run: RunWriter) -> str:
    return "; resume with the same command and --resume" if run.resumable else ""


def _stopped(run: RunWriter) -> str:
    return ("stopped; the files contain everything read so far" if run.written else "stopped") + _how_to_resume(run)
