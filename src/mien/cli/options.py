"""Options that several commands share: `mien predict` and `camera`, `mien audit` and `split`; and how `KEY=VALUE` is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from mien.errors import DataError, MienError, require

FILES, TERMINAL, FACES = "Output files", "Terminal", "Model and faces"
VIDEOS, EVENTS = "Videos", "Events"
"""Groups of options in the help."""


def option(help: str, metavar: str | None, group: str | None = None, *names: str, **more: Any) -> Any:
    """Return Typer's description of an option in a group of the help; `metavar` is what its value is called there."""
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=group, **more)


Model = Annotated[
    str | None, option("A bundled model (see mien models), ensemble, an .onnx file, or hf://user/model.", "NAME|FILE", FACES)
]
Providers = Annotated[
    str | None,
    option(
        "Run the network on these of ONNX Runtime, such as openvino or cuda,cpu. Default: CUDA if there is one.", "NAMES", FACES
    ),
]


def _use(context: typer.Context, name: str) -> str:
    from mien.languages import use_language

    context.with_resource(use_language(name))  # until the command ends
    return name


Language = Annotated[
    str,
    option(
        "Language of labels and headings: en, zh, es, fr, de, id, or a table of your own. Columns of tables stay English.",
        "CODE|FILE.csv",
        envvar="MIEN_LANGUAGE",
        callback=_use,
    ),
]

PageLanguage = Annotated[
    str | None,
    option(
        "Language in which the page starts, or a table of your own to add. Default: the browser's language.",
        "CODE|FILE.csv",
        envvar="MIEN_LANGUAGE",
    ),
]
DetectorName = Annotated[str, option("Face detector: centerface, mtcnn or haar.", "NAME", FACES)]
NoDetect = Annotated[bool, option("Treat each picture or frame as one cropped face.", None, FACES, "--no-detect")]
Fps = Annotated[float | None, option("Read N frames per second of video. Default: every frame.", "N", VIDEOS)]
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
Coverage = Annotated[
    float | None,
    option(
        "Also list every expression it may be. This share of the lists has the right one: 0.8, 0.9, 0.95 or 0.99.",
        "SHARE",
        FACES,
    ),
]
DetectEvery = Annotated[
    int, option("Detect faces in every Nth frame and at least every 0.25 s. Track them in between.", "N", VIDEOS)
]
Smooth = Annotated[str, option("Smooth probabilities over time: exponential, centred or none.", "NAME", VIDEOS)]
SmoothSeconds = Annotated[
    float, option("How strongly to smooth: time constant of exponential, half the window of centred.", "SECONDS", VIDEOS)
]

MinSeconds = Annotated[float, option("Leave out segments that are shorter than this.", "SECONDS", EVENTS)]
MergeGap = Annotated[
    float,
    option("Join two segments of one expression that are at most so far apart, even if another is between.", "SECONDS", EVENTS),
]
EventsFile = Annotated[
    Path | None,
    option(
        "Write when each person showed which expression: .csv, .eaf (ELAN), .TextGrid (Praat), .boris or _events.tsv (BIDS). "
        "For several videos, name a folder, or one .csv or .boris.",
        "FILE|FOLDER",
        FILES,
    ),
]
EventFormat = Annotated[
    str, option("Format of the files if --events names a folder: csv, eaf, textgrid, boris or bids.", "NAME", EVENTS)
]

Data = Annotated[Path, option("The corpus: its file or folder, as published by its authors or on Kaggle.", "DATA")]
CorpusData = Annotated[Path, typer.Argument(metavar="DATA", help="The corpus's file or folder, such as fer2013.csv.")]
CorpusName = Annotated[str, option("Name of the corpus, such as fer2013.", "NAME", show_default=False)]
CorpusOptions = Annotated[list[str] | None, option("Set an option of this corpus. Repeat it to set several.", "KEY=VALUE")]


def parse_pairs(
    texts: Sequence[str] | None, flag: str = "--option", example: str = "size=48", error: type[MienError] = DataError
) -> dict[str, Any]:
    """Return the keys and values of a repeated option, each `key=value`; values are read as YAML.

    An invalid one raises `error`, whose message names the option and shows an example.
    """
    yaml = require("yaml", "train")
    from mien.yaml_files import read_yaml

    found: dict[str, Any] = {}
    for text in texts or []:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise error(f"{flag} {text}: write it as key=value, for example {flag} {example}")
        try:
            found[key] = read_yaml(value)
        except (yaml.YAMLError, ValueError):  # YAML takes 2024-13-45 for a date
            raise error(f"{flag} {text}: the value cannot be read") from None
    return found
