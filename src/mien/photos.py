"""Photos whose faces are marked in a table: the default detector looks for each, and what it finds becomes a corpus of crops.

So `mien evaluate --detect` measures a model as `mien predict` uses it, and how often a face is found at all.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien.datasets import Corpus
from mien.datasets.folder import ALL, labelled_rows
from mien.datasets.manifest import read_rows
from mien.datasets.tables import find_columns
from mien.errors import DataError, InputError
from mien.groups import Groups
from mien.image import read_image
from mien.labels import canonical
from mien.predict.backend import Backend
from mien.predict.recognizer import Recognizer
from mien.structures import Face
from mien.weights import sha256

NAME = "photos"
"""Name of the corpus in results files."""

BOX = ("left", "top", "right", "bottom")

OVERLAP = 0.3
"""Smallest intersection over union of a marked box and the face that is found there."""


def read_photos(
    backend: Backend, table: Path, columns: Sequence[str] = (), on_step: Callable[[int, int], None] | None = None
) -> tuple[Corpus, Groups]:
    """Return a corpus of the marked faces that are found, cropped as in `mien predict`, and the groups of all marked faces.

    The corpus has one split, `all`; its `files` are the photos. A photo that cannot be read is left out and listed.

    Args:
        backend: The network; it says how a face is cropped.
        table: A CSV or Parquet file with one row per face. Its columns are `path` (of the photo, relative to the table) and
            `label`; without a label, a face counts for the detection rate only. For photos with several faces it also has the
            box of each face: `left`, `top`, `right` and `bottom`, px of the upright photo. Without boxes, the face of a photo
            is the largest one found.
        columns: Columns to group by.
        on_step: Called with the number of photos done and the total.

    Raises:
        DataError: The table cannot be read, a row is wrong, or no face with a label is found.
    """
    faces, by_photo, digest = _read_faces(table, columns), defaultdict[str, list[int]](list), hashlib.sha256()
    for index, face in enumerate(faces):
        by_photo[face["path"]].append(index)
    recognizer = Recognizer(backend)
    side, crops, skipped = max(backend.info.preprocess.size), dict[int, NDArray[np.uint8]](), list[str]()
    looked_at: list[int] = []
    for number, (photo, marked) in enumerate(by_photo.items(), start=1):
        file = table.parent / photo
        try:
            image = read_image(file)
        except InputError as error:
            skipped.append(str(error))
            continue
        finally:
            if on_step is not None:
                on_step(number, len(by_photo))
        looked_at += marked
        digest.update(sha256(file).encode())
        for index, found_face in _match(recognizer.find_faces(image), [faces[i] for i in marked]).items():
            crop = Image.fromarray(recognizer.crops(image, [found_face])[0]).convert("RGB")
            if crop.size != (side, side):  # not aligned
                crop = crop.resize((side, side), Image.Resampling.BILINEAR)
            crops[marked[index]] = np.asarray(crop)
    digest.update(repr([[faces[i][key] for key in ("path", "label", *BOX)] for i in looked_at]).encode())
    kept = [index for index in looked_at if index in crops and faces[index]["label"]]
    if not kept:
        why = f"; the first problem: {skipped[0]}" if skipped else ""
        raise DataError(f"{table}: no face with a label was found in its {len(by_photo):,} photos{why}")
    rows = labelled_rows([(Path(faces[i]["path"]), canonical(faces[i]["label"]), ALL) for i in kept], None)
    corpus = Corpus(
        NAME,
        np.stack([crops[i] for i in kept]),
        rows,
        digest.hexdigest(),
        "marked photos",
        tuple(faces[i]["path"] for i in kept),
        tuple(skipped),
    )
    found = np.array([index in crops for index in looked_at])
    columns_of_crops, columns_of_faces = (
        {name: [faces[i][name] for i in chosen] for name in columns} for chosen in (kept, looked_at)
    )
    return corpus, Groups(columns_of_crops, columns_of_faces, found)


def _read_faces(table: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows of a table of faces; `left` is empty in all of them if it has no boxes."""

    def choose(names: Sequence[str], source: Path) -> dict[str, int]:
        words = [name.lower() for name in names]
        boxes = [name for name in BOX if name in words]
        if boxes and len(boxes) < len(BOX):
            raise DataError(f"{source}: has the column {boxes[0]!r} but not all of {', '.join(BOX)}; give a whole box or none")
        wanted = ["path", "label", *boxes]
        return dict(zip([*wanted, *columns], find_columns(names, [*wanted, *columns], source), strict=True))

    faces, first = list[dict[str, str]](), dict[str, int]()
    for number, row in read_rows(table, choose):
        where, face = f"{table}: row {number}", dict.fromkeys(BOX, "") | row
        if not face["path"] or "\0" in face["path"]:
            raise DataError(f"{where} has no path of a photo")
        face["path"] = os.path.normpath(face["path"])
        if face["left"]:
            try:
                left, top, right, bottom = (float(face[side]) for side in BOX)
            except ValueError:
                raise DataError(f"{where}: its box is not four numbers of px") from None
            if not (np.isfinite([left, top, right, bottom]).all() and left < right and top < bottom):
                raise DataError(f"{where}: its box is empty or infinite; left is below right, and top below bottom")
        elif "left" in row:
            raise DataError(f"{where} has no box; give one for every face, or for none")
        elif face["path"] in first:
            raise DataError(
                f"{where} names {face['path']} again, after row {first[face['path']]}; mark each face of a photo with its box, "
                f"in the columns {', '.join(BOX)}"
            )
        first.setdefault(face["path"], number)
        faces.append(face)
    if not faces:
        raise DataError(f"{table}: contains no rows after its header; is the file complete?")
    return faces


def _match(found: Sequence[Face], marked: Sequence[dict[str, str]]) -> dict[int, Face]:
    """Return the face that was found of each marked one, by its index; pairs that overlap most come first."""
    if not marked[0]["left"]:
        return {0: found[0]} if found else {}
    overlaps = [
        (_overlap(face.box_xyxy.astype(float), np.array([float(row[side]) for side in BOX])), index, number)
        for index, row in enumerate(marked)
        for number, face in enumerate(found)
    ]
    pairs, taken = dict[int, Face](), set[int]()
    for overlap, index, number in sorted(overlaps, reverse=True):
        if overlap >= OVERLAP and index not in pairs and number not in taken:
            pairs[index] = found[number]
            taken.add(number)
    return pairs


def _overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the intersection over union of two boxes xyxy."""
    shared = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0).prod()
    return float(shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared))
