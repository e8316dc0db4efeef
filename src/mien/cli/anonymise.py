"""`mien anonymise`: pictures and videos with their faces covered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.cli import options
from mien.cli.options import FACES, FILES, option
from mien.cli.terminal import StepBar, echo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mien.errors import MienError
    from mien.output.summary import Seen
    from mien.structures import Frame
    from mien.video.reader import VideoReader
    from mien.video.sources import Source


def anonymise(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Pictures, videos, folders or patterns.")],
    out: Annotated[
        Path, option("The picture or video to write. For several sources, name a folder.", "FILE|FOLDER", FILES, "--out", "-o")
    ],
    table: Annotated[
        Path | None,
        option(
            "Also write a table of the expressions in the original, with a row for each frame without a face.", "FILE", FILES
        ),
    ] = None,
    sound: Annotated[
        bool, option("Keep the sound of videos. A voice can identify a person too.", None, FILES, "--sound/--no-sound")
    ] = True,
    style: Annotated[
        str, option("How to cover: mask leaves nothing of a face, pixelate and blur keep a trace.", "NAME", FACES)
    ] = "mask",
    min_face: Annotated[float, option("Cover faces down to this size (shorter side).", "PX", FACES)] = 20,
    model: options.Model = None,
) -> None:
    """Cover every face that is found in pictures and videos, and keep the sound and, in a table, the expressions."""
    from mien.atomic import check_outputs
    from mien.errors import MienError
    from mien.output.anonymise import anonymise_picture, anonymise_video, check_style, create_face_finder
    from mien.output.run import LOST_SOUND, image_paths
    from mien.video.sources import expand

    check_style(style)
    sources = list(expand(paths))
    finder = create_face_finder(min_face)
    check_outputs([out, table], [source.name for source in sources])
    targets = image_paths(out, sources)
    failures = _recognise(sources, table, model) if table is not None else {}
    for source in sources:
        try:
            if source.error is not None:
                raise source.error
            path = targets.path(source.name)
            targets.create_folder()
            if source.kind == "picture":
                count = anonymise_picture(source, path, finder, style)
                doubt = "" if count else "; check that nobody is there"
                echo(f"{source.name}: covered {count} face{'' if count == 1 else 's'}{doubt}")
            else:
                with StepBar() as bar:

                    def progress(step: str, frame: Frame, video: VideoReader, bar: StepBar = bar) -> None:
                        total = max(1, round(video.duration or frame.time or 0))
                        bar.step(f"{step} {video.name}", min(total, round(frame.time or 0)), total)

                    seen, kept, error = anonymise_video(source, path, finder, style, sound=sound, on_frame=progress)
                echo(_covered(source.name, seen))
                if kept in LOST_SOUND:
                    echo(f"{source.name}: {LOST_SOUND[kept].replace('annotated', 'written')}")
                if error is not None:
                    failures[source.name] = error
            echo(f"wrote {path}")
        except MienError as error:
            if len(sources) == 1:
                raise
            failures[source.name] = error
    for failure in failures.values():
        echo(f"error: {failure}", err=True)
    if failures:
        raise typer.Exit(3)


def _recognise(sources: Sequence[Source], table: Path, model: str | None) -> dict[str, MienError]:
    """Write the table of expressions, and return the sources that could not be read, each with the reason."""
    from mien.cli.predict import other_inputs, settings
    from mien.output.run import RunWriter, Targets
    from mien.predict.recognizer import Recognizer, VideoOptions

    recognizer, video = Recognizer(model), VideoOptions()
    about = settings(recognizer, video, {"detector": "centerface"})
    inputs = other_inputs(recognizer)
    run = RunWriter(Targets(table), recognizer.classes, about, sources, all_frames=True, resumable=False, inputs=inputs)
    with run:
        for reading in recognizer.stream(sources, video):
            run.add(reading)
    for path in run.written:
        echo(f"wrote {path}")
    return dict(run.failures)


def _covered(name: str, seen: Seen) -> str:
    """Return what is said of a video: in how many frames something is covered, and where to look for faces that were missed."""
    from mien.output.summary import format_time

    line = f"{name}: faces covered in {seen.with_face:,} of {seen.frames:,} frames"
    gaps = seen.to_dict()["longest_gaps"]
    if not gaps:
        return line
    shown = ", ".join(f"{gap['length']:.1f} s at {format_time(gap['start'])}" for gap in gaps[:5])
    return f"{line}; nothing is covered for {shown}{', ...' if seen.gaps > 5 else ''}: check that nobody is there"
