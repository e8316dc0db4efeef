"""From a folder of photos to a folder of faces: detected, cropped, resized, augmented, listed in a manifest.

Source: the preprocessing of vgg16-gcca (Chen and Chen), section 3.1: MTCNN, a crop "nearly background-free", 224 px, bilinear,
15 pictures from each. `mien.datasets.crops` says what the paper leaves open and what we do.
"""

from __future__ import annotations

import csv
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.atomic import atomic_buffer, atomic_path, write_json
from mien.datasets.crops import face_views, faces_by_size, views
from mien.errors import DataError, InputError, MissingExtraError, OutputError
from mien.faces import Detector, create_detector
from mien.image import BUDGET_BYTES, Budget, open_image, share_budget
from mien.prepare.journal import Journal, Outcome, resume
from mien.prepare.photos import ALL, Photo, find_photos
from mien.text import escape_formula, printable

PREPARE_FORMAT = 2

COLUMNS = ("path", "label", "split", "sequence", "source", "box", "score")
"""The manifest's columns. `sequence` and `source` are the photo, so that folds by sequence keep its copies together; `box` is
`left top right bottom` in px of the photo; `score` is the detector's."""

JPEG: dict[str, Any] = {"format": "JPEG", "quality": 95, "subsampling": 0}
PNG: dict[str, Any] = {"format": "PNG", "compress_level": 1}  # level 6 takes four times as long for a tenth less

AHEAD = 4
"""Photos begun per process, so that none waits and memory does not grow with their number."""

PROCESS_BYTES = 128_000_000
"""Bytes of the shared budget for each process, at least: none waits for the others with photos of 14 megapixels."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How photos are prepared.

    Attributes:
        size: Side of a picture, px.
        augment: Pictures from each face of a training photo: 1, 5, 10 or 15; by default 15 if there are split folders, else 1.
        all_faces: Crop every face, the largest first; else only the largest.
        grey: Write grey pictures.
        jpeg: Write JPEG of quality 95; else PNG.
        min_face: Side of the smallest face to look for, px of the photo.

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
            raise DataError(f"size is {self.size} px; give a side from 8 to 2,048 px")
        if self.augment is not None:
            views(self.augment)
        object.__setattr__(self, "min_face", float(self.min_face))  # 20 and 20.0 are one setting

    @property
    def suffix(self) -> str:
        """Suffix of the pictures' files."""
        return ".jpg" if self.jpeg else ".png"


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a preparation.

    Attributes:
        photos: Number of photos that were read.
        faces: Number of faces that were cropped.
        pictures: Number of pictures that were written.
        by_class: Number of pictures by split and class.
        no_face: The photos without a face.
        unreadable: The photos that could not be read, each with the reason.
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
    """Write the faces of a folder of photos, `manifest.csv` and `report.json`; resume an earlier run that was stopped.

    Folders are kept: `train/happy/a.jpg` becomes `train/happy/a.png`. Only training photos are augmented:
    `train/happy/a~h+05.png` is a version rotated by 5 degrees and flipped left to right. `train/happy/a~2.png` is a second face
    of the photo. A folder without split folders is augmented only if `settings.augment` is set, and then all its pictures go to
    `train`. Photos that have no face or cannot be read are reported and left out.

    Args:
        photos: A folder with `train/<class>/*` and so on, with `<class>/*`, or with loose photos.
        out: The folder to write: a new one, or one that was begun with the same photos and settings.
        settings: How to prepare them.
        jobs: Number of processes; a script that calls this with more than one needs `if __name__ == "__main__":`.
        on_step: Called with the number of photos done and the total.

    Raises:
        DataError: `photos` is not a folder or has an unknown layout, or `out` is inside it.
        OutputError: `out` was made from other photos or with other settings, cannot be written, or is in use.
    """
    source, target, wanted, skipped = Path(photos), Path(out), settings or Settings(), list[str]()
    if jobs < 1:
        raise DataError(f"jobs is {jobs}; give 1 or more")
    if target.resolve().is_relative_to(source.resolve()):
        raise DataError(f"{out}: is inside the folder of photos; name a folder outside it")
    plan = find_photos(source, skipped, training=(wanted.augment or 1) > 1)
    if wanted.augment is None:
        wanted = replace(wanted, augment=1 if any(photo.split == ALL for photo in plan) else 15)
    _detector(wanted.min_face)  # here, so that its errors come before anything is written
    copies = {photo.name: wanted.augment or 1 if photo.split == "train" else 1 for photo in plan}
    begun = [Outcome(photo.name, photo.file_state, photo.stem, copies[photo.name]) for photo in plan]

    digest = sha256(os.fsencode(source.resolve())).hexdigest()[:16]  # not the path, which may be private
    with Journal(target, asdict(wanted) | {"photos": digest, "format": PREPARE_FORMAT}) as journal:
        done = resume(journal, begun, wanted.suffix)
        todo = [outcome for outcome in begun if outcome.name not in done]
        with closing(_process(partial(_prepare_photo, source, target, wanted), todo, jobs, journal.put)) as outcomes:
            for outcome in outcomes:
                journal.put(outcome)
                done[outcome.name] = outcome
                if on_step is not None:
                    on_step(len(done), len(plan))
        return _write_lists(target, plan, [done[photo.name] for photo in plan], wanted, tuple(skipped))


@cache
def _detector(min_face: float) -> Detector:
    return create_detector(min_face=min_face, threads=1)


def _prepare_photo(source: Path, out: Path, settings: Settings, outcome: Outcome) -> Outcome:
    """Read a photo, write its pictures, and return its outcome."""
    file = source / outcome.name
    try:
        with open_image(file) as image:
            return _write_faces(image, out, settings, outcome)
    except (InputError, MissingExtraError) as error:
        return replace(outcome, error=str(error).removeprefix(f"{printable(str(file))}: "), done=True)


def _write_faces(image: NDArray[np.uint8], out: Path, settings: Settings, outcome: Outcome) -> Outcome:
    """Write the pictures of a photo's faces and return its outcome."""
    found = faces_by_size(image, _detector(settings.min_face))[: None if settings.all_faces else 1]
    faces = tuple((*(round(edge, 2) for edge in face.box_xyxy.tolist()), round(face.score, 6)) for face in found)
    outcome = replace(outcome, faces=faces, done=True)
    wanted = views(outcome.views)
    pictures = (picture for face in found for picture in face_views(image, face, settings.size, wanted, grey=settings.grey))
    for name, picture in zip(outcome.picture_names(settings.suffix), pictures, strict=True):
        with atomic_buffer(out / name) as buffer:
            picture.save(buffer, **JPEG if settings.jpeg else PNG)
    return outcome


def _process(
    work: Callable[[Outcome], Outcome], photos: Sequence[Outcome], jobs: int, on_begin: Callable[[Outcome], None]
) -> Generator[Outcome, None, None]:
    """Yield what `work` makes of each photo when it is done; photos in progress are finished when the iterator is closed.

    Processes, because threads would wait for each other: Pillow holds the interpreter's lock while it writes a PNG, which is
    half of the time.

    Args:
        work: A function that can be pickled.
        photos: What to work on.
        jobs: Number of processes; with one, this process does the work.
        on_begin: Called with each photo before it is worked on, in this process.

    Raises:
        OutputError: A process was killed.
    """
    jobs = min(jobs, len(photos))
    if jobs < 2:
        for photo in photos:
            on_begin(photo)
            yield work(photo)
        return
    spawn = multiprocessing.get_context("spawn")
    budget = Budget(max(BUDGET_BYTES, jobs * PROCESS_BYTES), spawn)
    pool = ProcessPoolExecutor(jobs, spawn, _begin_process, (budget,))
    remaining, waiting = iter(photos), set[Future[Outcome]]()
    try:
        while True:
            for photo in islice(remaining, AHEAD * jobs - len(waiting)):
                on_begin(photo)
                waiting.add(pool.submit(work, photo))
            if not waiting:
                return
            ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in ready:
                yield future.result()
    except BrokenProcessPool:
        raise OutputError(
            "a process was killed, perhaps because memory ran out; run the command again with a smaller --jobs to resume"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_process(budget: Budget) -> None:
    """Share the budget of decoded bytes, leave an interrupt to the parent, and end when the parent does, even if killed."""
    share_budget(budget)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _write_lists(
    out: Path, plan: Sequence[Photo], outcomes: Sequence[Outcome], settings: Settings, skipped: tuple[str, ...]
) -> Report:
    """Write the manifest and the report."""
    count: dict[str, Counter[str]] = {}
    with (
        atomic_path(out / "manifest.csv") as tmp_path,
        tmp_path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for photo, outcome in zip(plan, outcomes, strict=True):
            for i, path in enumerate(outcome.picture_names(settings.suffix)):
                *box, score = outcome.faces[i // outcome.views]
                texts = map(escape_formula, (path, photo.label, photo.split, photo.name, photo.name))
                writer.writerow((*texts, " ".join(map(str, box)), score))
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
    write_json(out / "report.json", asdict(report))
    return report
