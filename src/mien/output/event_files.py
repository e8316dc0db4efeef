"""The files of events: CSV, ELAN's `.eaf`, Praat's `.TextGrid`, a project of BORIS, and BIDS `_events.tsv` with its `.json`.

ELAN and Praat get a tier per person and one with the probabilities. Each file is written completely or not at all.
"""

from __future__ import annotations

import csv
import json
import mimetypes
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from mien.atomic import atomic_path, write_json
from mien.errors import InputError, OutputError, require
from mien.output.table import check_ending, write_csv
from mien.text import escape_invalid_utf8
from mien.video.reader import open_video

ENDINGS = {"csv": ".csv", "eaf": ".eaf", "textgrid": ".TextGrid", "boris": ".boris", "bids": "_events.tsv"}
"""Ending of the file of each format."""

FORMATS = (".csv", ".eaf", ".textgrid", ".boris", ".tsv")
"""File endings of events, in lower case."""

TOGETHER = (".csv", ".boris")
"""Endings of files that hold several videos."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A time in which a person showed one expression."""

    source: str
    person: int  # track number
    start: float  # time of its first frame, seconds
    end: float  # time of the first frame after it, or of its last frame if the person was then out of sight, seconds
    expression: str
    probability: float  # mean over the segment's frames
    frames: int  # in which the person was seen


@dataclass(slots=True)
class Video:
    """The segments of a video."""

    name: str
    end: float = 0.0  # time of its last frame, or of the last with a face if the others are unknown, seconds
    segments: list[Segment] = field(default_factory=list)


def check_target(target: Path) -> bool:
    """Return whether events are written to one file, not to a folder.

    Raises:
        OutputError: It has an unknown ending, or it is a file for BIDS that does not end in `_events.tsv`.
    """
    if target.is_dir() or not target.suffix:
        return False
    ending = check_ending(target, "file of events", FORMATS)
    if ending == ".tsv" and not target.name.endswith("_events.tsv"):
        raise OutputError(f"{target}: BIDS wants a name that ends in _events.tsv, such as sub-01_task-film_events.tsv")
    return True


def write_events(path: Path, videos: Sequence[Video], classes: Sequence[str]) -> list[Path]:
    """Write events, each file completely or not at all, and return the files: for BIDS also a `.json` that describes them.

    Args:
        path: The file; its ending names the format.
        videos: The videos with their segments; one video unless the ending is one of `TOGETHER`.
        classes: The model's classes.

    Raises:
        OutputError: The ending is unknown or a file cannot be written.
    """
    ending = check_ending(path, "file of events", FORMATS)
    write: Callable[[Path, Sequence[Video], Sequence[str], Path], None] = {
        ".csv": _write_csv, ".eaf": _write_eaf, ".textgrid": _write_textgrid, ".boris": _write_boris, ".tsv": _write_bids,
    }[ending]  # fmt: skip
    with atomic_path(path) as tmp_path:
        write(tmp_path, videos, classes, path)
    if ending != ".tsv":
        return [path]
    write_json(sidecar(path), _bids_description(path, classes))
    return [path, sidecar(path)]


def sidecar(path: Path) -> Path:
    """Return the path of the file that describes a BIDS file of events."""
    return path.with_suffix(".json")


HEADER = ("source", "person", "start", "end", "expression", "probability", "frames")
"""Columns of events written as CSV."""


def _write_csv(path: Path, videos: Sequence[Video], classes: Sequence[str], target: Path) -> None:
    write_csv(path, HEADER, (astuple(segment) for video in videos for segment in video.segments))


def _by_person(video: Video) -> dict[str, list[Segment]]:
    people: dict[str, list[Segment]] = {}
    for segment in sorted(video.segments, key=lambda segment: segment.person):
        people.setdefault(f"person {segment.person}", []).append(segment)
    return people


def _write_eaf(path: Path, videos: Sequence[Video], classes: Sequence[str], target: Path) -> None:
    """Write a tier per person, with the probabilities in a tier that depends on it, and link the video."""
    eaf = require("pympi", "events").Eaf(author="mien")
    (video,), people = videos, _by_person(videos[0])
    media = _media(video.name)
    if media is not None:
        kind = mimetypes.guess_type(media.name)[0] or "video/*"
        relative = _relative(media, target)
        relative = relative if relative.startswith("../") else f"./{relative}"
        eaf.add_linked_file(f"file:///{_text(media.as_posix().lstrip('/'))}", relative, kind)  # ELAN keeps spaces as they are
    eaf.add_linguistic_type("probability", "Symbolic_Association", timealignable=False)
    for person, segments in people.items():
        likely = f"{person} probability"
        eaf.add_tier(person)
        eaf.add_tier(likely, "probability", parent=person)
        for segment in segments:
            start, end = (round(1000 * time) for time in (segment.start, segment.end))
            eaf.add_annotation(person, start, end, segment.expression)
        for segment in segments:
            middle = round(500 * (segment.start + segment.end))
            eaf.add_ref_annotation(likely, person, middle, f"{segment.probability:.3f}")
    if people:
        eaf.remove_tier("default")
    eaf.to_file(path)


def _write_textgrid(path: Path, videos: Sequence[Video], classes: Sequence[str], target: Path) -> None:
    """Write two interval tiers per person, expressions and their probabilities; the time between is empty."""
    (video,), people = videos, _by_person(videos[0])
    grid = require("pympi", "events").TextGrid(xmax=max(video.end, 1e-3))
    for person, segments in people.items():
        for name, texts in (
            (person, [segment.expression for segment in segments]),
            (f"{person} probability", [f"{segment.probability:.3f}" for segment in segments]),
        ):
            tier = grid.add_tier(name)
            for segment, text in zip(segments, texts, strict=True):
                tier.add_interval(segment.start, segment.end, text, check=False)  # the check takes quadratic time
    if not people:
        grid.add_tier("nobody")  # Praat opens no file without a tier
    grid.to_file(path)


def _write_boris(path: Path, videos: Sequence[Video], classes: Sequence[str], target: Path) -> None:
    """Write a BORIS project: expressions are state events, people are subjects, and each video is an observation."""
    people = sorted({segment.person for video in videos for segment in video.segments})
    behaviour = {"type": "State event", "key": "", "description": "", "color": "", "category": "", "modifiers": {}}
    now = datetime.now().isoformat(timespec="milliseconds")
    observations: dict[str, Any] = {}
    for video in videos:
        name = shown = Path(_text(video.name)).name
        number = 1
        while name in observations:
            number += 1
            name = f"{shown} ({number})"
        observations[name] = _observation(video, target, now)
    project = {
        "time_format": "hh:mm:ss",
        "project_date": now,
        "project_name": _text(target.stem),
        "project_description": "Expressions that mien recognised. A label says how a face looks, not what a person feels.",
        "project_format_version": "7.0",
        "subjects_conf": {
            str(i): {"key": "", "name": f"person {person}", "description": ""} for i, person in enumerate(people)
        },
        "behaviors_conf": {
            str(i): {**behaviour, "code": name, "excluded": "", "coding map": ""} for i, name in enumerate(classes)
        },
        "observations": observations,
        "behavioral_categories": [],
        "behavioral_categories_config": {},
        "independent_variables": {},
        "coding_map": {},
        "behaviors_coding_map": [],
        "converters": {},
    }
    path.write_text(json.dumps(project, indent=1) + "\n", encoding="utf-8")


def _observation(video: Video, target: Path, now: str) -> dict[str, Any]:
    """Return an observation of BORIS. A state begins and ends with an event of the same code."""
    media, fps, length, sound = _media(video.name), 0.0, video.end, False
    if media is not None:
        with suppress(InputError), open_video(media) as reader:
            fps, length, sound = reader.fps or 0.0, reader.duration or video.end, reader.sound
    name = _text(video.name) if media is None else _relative(media, target)
    events = [
        [time, f"person {segment.person}", segment.expression, "", comment, "NA"]
        for segment in video.segments
        for time, comment in ((segment.start, f"mean probability {segment.probability:.3f}"), (segment.end, ""))
    ]
    return {
        "file": {"1": [name], **{str(player): [] for player in range(2, 9)}},
        "type": "MEDIA",
        "date": now,
        "description": "",
        "time offset": 0.0,
        "events": sorted(events),
        "observation time interval": [0, 0],
        "independent_variables": {},
        "visualize_spectrogram": False,
        "visualize_waveform": False,
        "media_creation_date_as_offset": False,
        "media_scan_sampling_duration": 0,
        "image_display_duration": 1,
        "close_behaviors_between_videos": False,
        "media_info": {
            "length": {name: length},
            "fps": {name: fps},
            "hasVideo": {name: True},
            "hasAudio": {name: sound},
            "offset": {"1": 0.0},
        },
    }


def _write_bids(path: Path, videos: Sequence[Video], classes: Sequence[str], target: Path) -> None:
    (video,) = videos
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(("onset", "duration", "trial_type", "person", "probability", "frames"))
        for each in video.segments:
            seconds = round(each.end - each.start, 6)
            writer.writerow((each.start, seconds, each.expression, each.person, each.probability, each.frames))


def _bids_description(path: Path, classes: Sequence[str]) -> dict[str, Any]:
    """Return what the sidecar of a BIDS events file says about its task and its columns."""
    task = re.search(r"_task-([0-9A-Za-z+]+)_", path.name)
    return {
        **({"TaskName": task[1]} if task else {}),
        "onset": {"Description": "Start of the segment, from the first frame of the video", "Units": "s"},
        "duration": {"Description": "Length of the segment", "Units": "s"},
        "trial_type": {
            "LongName": "Expression",
            "Description": "Expression that mien took for the most probable; it says how a face looks, not what a person feels",
            "Levels": {name: f"The face was labelled {name}" for name in classes},
        },
        "person": {"Description": "Number of the person who was followed through the video, from 1"},
        "probability": {"Description": "Mean probability of the expression over the frames of the segment, 0 to 1"},
        "frames": {"Description": "Number of frames of the segment in which the face was found"},
    }


def _media(source: str) -> Path | None:
    """Return the absolute path of a source that is a file on this machine; None for cameras and addresses."""
    path = Path(source)
    return path.absolute() if path.is_file() else None


def _relative(media: Path, target: Path) -> str:
    """Return the path of a video as the file of events names it, so that both can be moved together."""
    try:
        return _text(Path(os.path.relpath(media, target.absolute().parent)).as_posix())
    except ValueError:  # on another drive of Windows
        return _text(media.as_posix())


def _text(name: str) -> str:
    return escape_invalid_utf8(name) or ""
