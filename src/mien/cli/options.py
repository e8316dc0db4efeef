"""The options that `mien predict` and `mien camera` share, each with the same name, help and default group."""

from __future__ import annotations

from typing import Annotated, Any

import typer

FILES, TERMINAL, FACES, VIDEOS = "Output files", "Terminal", "Model and faces", "Videos"
"""Groups of options in the help."""


def option(help: str, metavar: str | None, group: str, *names: str, **more: Any) -> Any:
    """Return Typer's description of an option."""
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=group, **more)


Model = Annotated[str | None, option("A bundled model (see mien models) or an .onnx file.", "NAME|FILE", FACES)]
DetectorName = Annotated[str, option("Face detector: mtcnn, centerface or haar.", "NAME", FACES)]
MinFace = Annotated[float | None, option("Find faces down to this size (shorter side). Default: about 40.", "PX", FACES)]
MaxFaces = Annotated[int | None, option("Keep only the N largest faces of a picture or frame.", "N", FACES)]
Align = Annotated[
    bool | None,
    option(
        "Rotate faces upright by their landmarks. Default: yes, if the detector finds landmarks.",
        None,
        FACES,
        "--align/--no-align",
        show_default=False,
    ),
]
UnsureBelow = Annotated[float, option("Mark predictions whose confidence is below this as unsure.", "P", FACES)]
DetectEvery = Annotated[
    int, option("Detect faces in every Nth frame and at least every 0.25 s. Track them in between.", "N", VIDEOS)
]
Smooth = Annotated[str, option("Smooth probabilities over time: exponential, centred or none.", "NAME", VIDEOS)]
SmoothSeconds = Annotated[
    float, option("How strongly to smooth: time constant of exponential, half the window of centred.", "SECONDS", VIDEOS)
]
