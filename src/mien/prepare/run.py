"""From a folder of photos to a folder of faces: detected, cropped, resized, augmented, listed in a manifest.

Source: the preprocessing of vgg16-gcca (Chen and Chen), section 3.1: MTCNN, a crop "nearly background-free", 224 px, bilinear,
15 pictures from each; `mien.datasets.crops` says what the paper leaves open and what we do.
"""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from mien.atomic import atomic_buffer, atomic_path
from mien.datasets.crops import face_views, faces_by_size, views
from mien.errors import DataError, InputError, MissingExtraError
from mien.faces import Detector, create_detector
from mien.image import read_image
from mien.prepare.journal import Journal, Outcome, owned, picture_names, resume
from mien.prepare.photos import ALL, Photo, find_photos
from mien.prepare.processes import shared

PREPARE_FORMAT = 1

COLUMNS = ("path", "label", "split", "sequence", "source", "box", "score")
"""The manifest's columns: picture, class, split, photo, photo, `left top right bottom` in px of it, the detector's score.

The photo stands there as the sequence too, so that folds drawn by sequence keep its copies on one side."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How photos are prepared.

    Attributes:
        size: Side of a picture, px.
        augment: Pictures from each face of a training photo: 1, 5, 10 or 15; None takes 15 if there are split folders, else 1.
        all_faces: Cut out every face, the largest first; else the largest alone.
        grey: Write grey pictures.
        jpeg: Write JPEG of quality 95; else PNG.
        min_face: Side of the smallest face looked for, px of the photo.

    Raises:
        DataError: The size or the number of pictures is not possible.
    """

    size: int = 224
    augment: int | None = None
    all_faces: bool = False
    grey: bool = False
    jpeg: bool = False
    min_face: float = 40.0

    def __post_init__(self) -> None:
        if not 8 <= self.size <= 2048:
            raise DataError(f"size is {self.size} px; pictures are written in 8 to 2,048 px a side")
        if self.augment is not None:
            views(self.augment)
        object.__setattr__(self, "min_face", float(self.min_face))  # 20 and 20.0 are one setting

    @property
    def suffix(self) -> str:
        """Suffix of the pictures' files."""
        return ".jpg" if self.jpeg else ".png"


@dataclass(frozen=True, slots=True)
class Report:
    """What was found.

    Attributes:
        photos: Number of photos looked at.
        faces: Number of faces cut out.
        pictures: Number of pictures written.
        by_class: The same, by split and class.
        no_face: The photos without a face.
        unreadable: Why some photos could not be read, by photo.
        skipped: A line for each entry of the folder that was left out.
        settings: How the photos were prepared.
    """

    photos: int
    faces: int
    pictures: int
    by_class: dict[str, dict[str, int]]
    no_face: tuple[str, ...]
    unreadable: dict[str, str]
    skipped: tuple[str, ...]
    settings: Settings

    @property
    def complete(self) -> bool:
        """Whether every photo had a face."""
        return not (self.no_face or self.unreadable or self.skipped)


def prepare(
    photos: str | os.PathLike[str],
    out: str | os.PathLike[str],
    settings: Settings | None = None,
    *,
    jobs: int = 1,
    on_step: Callable[[int, int], None] | None = None,
) -> Report:
    """Write the faces of a folder of photos, `manifest.csv` and `report.json`; go on where an earlier run stopped.

    Folders are kept: `train/happy/a.jpg` becomes `train/happy/a.png`. Only training photos are augmented, so that no copy of a
    test face is trained on; `train/happy/a~h+05.png` is a copy, turned by 5 degrees and flipped left to right, and
    `train/happy/a~2.png` a further face. A folder without split folders is augmented only if `settings.augment` says so, and
    then all its pictures go to `train`. Photos without a face, or that cannot be read, are reported and left out.

    Args:
        photos: A folder with `train/<class>/*` and its like, with `<class>/*`, or with loose photos.
        out: The folder to write: a new one, or one that the same photos and settings have begun.
        settings: How to prepare them.
        jobs: Processes; with more than one, a script that calls this needs `if __name__ == "__main__":`.
        on_step: Called with the number of photos dealt with and of all.

    Raises:
        DataError: The photos are no folder or of no layout that is known, or `out` lies among them.
        OutputError: `out` was made from other photos or in another way, cannot be written, or another process writes to it.
    """
    source, target, wanted, skipped = Path(photos), Path(out), settings or Settings(), list[str]()
    if jobs < 1:
        raise DataError(f"jobs is {jobs}; at least one photo must be worked on")
    if target.resolve().is_relative_to(source.resolve()):
        raise DataError(f"{out}: lies in the folder of photos; name a folder outside it")
    plan = find_photos(source, skipped, training=(wanted.augment or 1) > 1)
    if wanted.augment is None:
        wanted = replace(wanted, augment=1 if any(photo.split == ALL for photo in plan) else 15)
    _detector(wanted.min_face)  # what is wrong with it is said before anything is written
    begun = [_begin(photo, wanted) for photo in plan]
    with owned(target, _identity(source, wanted)):
        done = resume(target, begun, wanted.suffix)
        todo = [outcome for outcome in begun if outcome.name not in done]
        work = partial(_work, source, target, wanted)
        with Journal(target) as journal, shared(work, todo, jobs, journal.add) as found:
            for outcome in found:
                journal.add(outcome)
                done[outcome.name] = outcome
                if on_step is not None:
                    on_step(len(done), len(plan))
        outcomes = [done[photo.name] for photo in plan]
        journal.rewrite(outcomes)
        return _write_lists(target, plan, outcomes, wanted, tuple(skipped))


@cache
def _detector(min_face: float) -> Detector:
    return create_detector("mtcnn", min_face=min_face, threads=1)


def _begin(photo: Photo, settings: Settings) -> Outcome:
    """Return what is known of a photo before it is read."""
    number = settings.augment if photo.split == "train" else 1
    return Outcome(photo.name, photo.stat, photo.target, number or 1)


def _identity(source: Path, settings: Settings) -> dict[str, Any]:
    """Return what must be the same for a run to go on in a folder; the photos by a digest, so that no path is given away."""
    digest = sha256(os.fsencode(source.resolve())).hexdigest()[:16]
    return asdict(settings) | {"photos": digest, "format": PREPARE_FORMAT}


def _work(source: Path, out: Path, settings: Settings, outcome: Outcome) -> Outcome:
    """Read a photo, write its pictures, and return what became of it."""
    file = source / outcome.name
    try:
        image = read_image(file)
    except (InputError, MissingExtraError) as error:
        return replace(outcome, error=str(error).removeprefix(f"{file}: "), done=True)
    found = faces_by_size(image, _detector(settings.min_face))[: None if settings.all_faces else 1]
    faces = tuple(_rounded(face.box_xyxy.tolist(), face.score) for face in found)
    outcome = replace(outcome, faces=faces, done=True)
    wanted = views(outcome.views)
    pictures = (picture for face in found for picture in face_views(image, face, settings.size, wanted, grey=settings.grey))
    for name, picture in zip(picture_names(outcome, settings.suffix), pictures, strict=True):
        with atomic_buffer(out / name) as buffer:
            picture.save(buffer, **JPEG if settings.jpeg else PNG)
    return outcome


JPEG: dict[str, Any] = {"format": "JPEG", "quality": 95, "subsampling": 0}
PNG: dict[str, Any] = {"format": "PNG", "compress_level": 1}  # level 6 takes four times as long for a tenth less


def _rounded(box: list[float], score: float) -> tuple[float, ...]:
    return (*(round(edge, 2) for edge in box), round(score, 6))


def _write_lists(
    out: Path, plan: Sequence[Photo], outcomes: Sequence[Outcome], settings: Settings, skipped: tuple[str, ...]
) -> Report:
    """Write the manifest and the report."""
    count: dict[str, Counter[str]] = {}
    with (
        atomic_path(out / "manifest.csv") as beside,
        beside.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for photo, outcome in zip(plan, outcomes, strict=True):
            for i, path in enumerate(picture_names(outcome, settings.suffix)):
                *box, score = outcome.faces[i // outcome.views]
                writer.writerow((path, photo.label, photo.split, photo.name, photo.name, " ".join(map(str, box)), score))
                count.setdefault(photo.split, Counter())[photo.label or "unlabelled"] += 1
    report = Report(
        photos=len(plan),
        faces=sum(len(outcome.faces) for outcome in outcomes),
        pictures=sum(part.total() for part in count.values()),
        by_class={split: dict(part) for split, part in count.items()},
        no_face=tuple(outcome.name for outcome in outcomes if not outcome.faces and not outcome.error),
        unreadable={outcome.name: outcome.error for outcome in outcomes if outcome.error},
        skipped=skipped,
        settings=settings,
    )
    with atomic_path(out / "report.json") as beside:
        beside.write_text(json.dumps(asdict(report), indent=1) + "\n", encoding="utf-8")
    return report
