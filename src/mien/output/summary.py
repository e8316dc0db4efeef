"""What a video comes to, for each person: time in each expression, changes, longest stretches, mean probabilities.

Time is counted between samples: an expression holds until the person's next sampled frame, unless that is more than `max_gap`
seconds away; the last frame before a gap or the end holds for no time. Samples go through one at a time, so memory grows with
the number of people and not with the length of the video.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mien.atomic import atomic_path
from mien.errors import OutputError
from mien.output.cells import UnixLines, clock, csv_text, readable
from mien.output.columns import Row, columns
from mien.output.table import row
from mien.output.tally import PersonTally, Tally, VideoTally
from mien.structures import Prediction

if TYPE_CHECKING:
    from rich.table import Table

MAX_GAP = 1.5
"""Seconds between two samples of a person beyond which the time between them is not counted."""

FORMATS = (".json", ".csv")
"""Endings a summary may be written with."""

SHOWN = 8
"""People of a video that the terminal shows."""


class Summary:
    """Adds up predictions, or the rows of a table, as they come.

    Args:
        classes: The model's classes, by output index.
        max_gap: Seconds between two samples of a person beyond which the time between them is not counted; choose at least
            twice the time between sampled frames.
    """

    def __init__(self, classes: Sequence[str], max_gap: float = MAX_GAP) -> None:
        self.classes, self.max_gap = tuple(classes), max_gap
        self._names = columns(classes)[-len(self.classes) :]
        self._index = {name: i for i, name in enumerate(self.classes)}
        self._videos: dict[str | None, VideoTally] = {}
        self._pictures = Tally(len(self.classes))
        self._picture_count = 0
        self._picture: object = self  # no source is this

    def add(self, item: Prediction | Row) -> None:
        """Add one face; the faces of a person must come in the order of time."""
        entry = row(item) if isinstance(item, Prediction) else item
        label, probs = self._index[entry["label"]], [entry[name] for name in self._names]
        if entry["time"] is None and entry["frame"] is None:
            self._pictures.see(label, probs, entry["unsure"], None)
            self._picture_count += entry["source"] != self._picture
            self._picture = entry["source"]
            return
        self.see(entry["source"]).take(entry, label, probs, self.max_gap)

    def see(self, source: str | None) -> VideoTally:
        """Return the sums of a video; one in which nobody is found is in the summary too, once it was seen."""
        video = self._videos.get(source)
        if video is None:
            video = self._videos[source] = VideoTally(len(self.classes))
        return video

    def extend(self, items: Iterable[Prediction | Row]) -> None:
        """Add many faces."""
        for item in items:
            self.add(item)

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as plain JSON types; `docs/tables.md` says what each name holds."""
        videos = [self._video(source, video) for source, video in self._videos.items()]
        pictures = None
        if self._pictures.faces:
            found = self._pictures.to_dict(self.classes)
            pictures = {"pictures": self._picture_count, **{key: found[key] for key in ("faces", "unsure", "share", "mean")}}
        return {"classes": list(self.classes), "max_gap": self.max_gap, "videos": videos, "pictures": pictures}

    def _video(self, source: str | None, video: VideoTally) -> dict[str, Any]:
        people = [{"track": track, **person.to_dict(self.classes)} for track, person in _sorted(video.people)]
        followed = sum(track is not None for track in video.people)
        total = {"source": readable(source), "frames": video.frames, "people": followed, **video.to_dict(self.classes)}
        return {**total, "by_person": people}


def _sorted(people: dict[int | None, PersonTally]) -> list[tuple[int | None, PersonTally]]:
    """Return people by their number, those not followed last."""
    return sorted(people.items(), key=lambda item: (item[0] is None, item[0] or 0))


def write_summary(path: str | os.PathLike[str], summary: Summary) -> None:
    """Write a summary, whole or not at all: all of it as `.json`; as `.csv` a row a person, and one of the whole video.

    Raises:
        OutputError: The ending is unknown or the file cannot be written.
    """
    ending = Path(path).suffix.lower()
    if ending not in FORMATS:
        raise OutputError(f"{path}: a summary's name must end in {' or '.join(FORMATS)}; choose one of them")
    with atomic_path(path) as beside:
        if ending == ".json":
            text = json.dumps(summary.to_dict(), indent=1, ensure_ascii=False)
            beside.write_text(text + "\n", encoding="utf-8", newline="\n")
            return
        with beside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(UnixLines(file), summary_columns(summary.classes))
            writer.writeheader()
            writer.writerows(_lines(summary.to_dict()))


def summary_columns(classes: Sequence[str]) -> list[str]:
    """Return the names of the columns of a summary written as CSV.

    >>> summary_columns(["happy"])[-4:]
    ['share_happy', 'mean_happy', 'longest_happy_start', 'longest_happy_length']
    """
    each = ("share_{}", "mean_{}", "longest_{}_start", "longest_{}_length")
    head = ["source", "track", "start", "end", "seconds", "faces", "unsure", "share_of", "changes"]
    return head + [name.format(expression) for name in each for expression in classes]


def _lines(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a line a person and, as track `all`, one a video."""
    lines = []
    for video in summary["videos"]:
        changes = sum(person["changes"] for person in video["by_person"])
        for entry in (*video["by_person"], {**video, "track": "all", "changes": changes}):
            lines.append(_line(entry) | {"source": video["source"] and csv_text(video["source"])})
    return lines


def _line(entry: dict[str, Any]) -> dict[str, Any]:
    line = {key: entry[key] for key in ("track", "start", "end", "seconds", "faces", "unsure", "share_of", "changes")}
    for name, share in entry["share"].items():
        line |= {f"share_{name}": share, f"mean_{name}": entry["mean"][name]}
        if run := entry.get("longest", {}).get(name):
            line |= {f"longest_{name}_start": run["start"], f"longest_{name}_length": run["length"]}
    return line


def summary_table(summary: Summary, shown: int = SHOWN) -> Table:
    """Return a short table for the terminal: of each video the people seen longest, and the expressions they wore most."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.ROUNDED)
    for name, right in (("Video", 0), ("Person", 1), ("Seen", 1), ("Mostly", 0), ("Longest", 0), ("Changes", 1)):
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for video in summary.to_dict()["videos"]:
        people = sorted(video["by_person"], key=lambda person: (-person["seconds"], -person["faces"]))
        for i, person in enumerate(people[:shown]):
            last = i == min(shown, len(people)) - 1
            table.add_row(*_cells(video["source"] if i == 0 else "", person), end_section=last and len(people) <= shown)
        if len(people) > shown:
            table.add_row("", "", "", f"and {len(people) - shown} more", end_section=True)
    return table


def _cells(source: str | None, person: dict[str, Any]) -> list[Any]:
    from rich.text import Text

    most = sorted(person["share"].items(), key=lambda item: -item[1])[:3]
    runs = [(run["length"], run["start"], name) for name, run in person["longest"].items() if run and run["length"]]
    length, start, name = max(runs, default=(0.0, 0.0, ""))
    return [
        Text(source or ("in memory" if source is None else "")),  # a text, because a file name may hold [brackets]
        "all" if person["track"] is None else str(person["track"]),
        f"{person['seconds']:.1f} s" if person["seconds"] else f"{person['faces']} face{'s' * (person['faces'] > 1)}",
        Text(", ".join(f"{name} {share:.0%}" for name, share in most if share >= 0.005)),
        Text(f"{name} {length:.1f} s at {clock(start)}" if runs else ""),
        str(person["changes"]),
    ]
