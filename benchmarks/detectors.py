"""Every detector against MTCNN: faces found, false boxes, time, and how its boxes frame a face.

    python -m benchmarks.detectors [fer2013.csv]

The pictures are those of `benchmarks.detector` and montages of twelve faces of several sizes. Times are ratios within the run.

With FER2013's file it also measures the framing on training faces, enlarged three times: MTCNN's width and height over the
detector's own, and how far below MTCNN's centre is, in heights of the detector's box. These are medians over the faces whose
MTCNN box takes at most 0.9 of the frame, because detectors differ more where the corpus cuts a head off. They are the numbers
of `FRAMING` in the detector's file. Without them a model's `crop_scale` would mean another crop.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image

from benchmarks.detector import FACE, is_the_face, negatives, positives
from benchmarks.fer2013 import SIDE, enlarged, load_sample
from benchmarks.record import Row, argument_parser, write_run
from benchmarks.timing import interleaved, milliseconds, ratio
from mien.faces import Detector, create_detector, detector_names
from mien.structures import Face

MONTAGES = 6
TIMES, WHOLE = 3, 0.9
"""How many times a face is enlarged for the framing, and the largest part of the frame MTCNN's box may take."""

TALLEST, COLUMNS, ROWS = 120, 4, 3
"""Side of a montage's tile, px, and how many there are."""


def montage(number: int) -> tuple[NDArray[np.uint8], list[tuple[float, float, float]]]:
    """Return a picture of twelve faces and each one's centre and longer side, px."""
    random = np.random.default_rng(number)
    picture, places = Image.new("RGB", (COLUMNS * TALLEST, ROWS * TALLEST), (110, 120, 130)), []
    portrait = Image.fromarray(skimage.data.astronaut()).crop((130, 10, 320, 230))
    for row, column in itertools.product(range(ROWS), range(COLUMNS)):
        side = float(random.choice([64, 48, 36, 28, 22]))
        scale = side / FACE[2]
        tile = portrait.resize((round(190 * scale), round(220 * scale)), Image.Resampling.LANCZOS)
        x, y = (round(TALLEST * start) for start in (column, row))
        picture.paste(tile.crop((0, 0, TALLEST, TALLEST)) if max(tile.size) > TALLEST else tile, (x, y))
        places.append((x + (FACE[0] - 130) * scale, y + (FACE[1] - 10) * scale, side))
    return np.asarray(picture), places


def crowd(detector: Detector, number: int) -> dict[str, int]:
    """Return how many of the montages' faces are found, and the boxes that are none."""
    found = false = faces_in_all = 0
    for index in range(number):
        picture, places = montage(index)
        faces = detector.detect(picture)
        hits = [[_near(face, *place) for place in places] for face in faces]
        found += sum(any(column) for column in zip(*hits, strict=True)) if hits else 0
        false += sum(not any(row) for row in hits)
        faces_in_all += len(places)
    return {"found": found, "faces": faces_in_all, "false": false}


def _near(face: Face, x: float, y: float, side: float) -> bool:
    left, top, right, bottom = face.box_xyxy
    off = np.hypot((left + right) / 2 - x, (top + bottom) / 2 - y)
    return bool(off < side / 4 and 0.6 < max(right - left, bottom - top) / side < 1.6)


def single(detector: Detector, step: int) -> dict[str, Any]:
    """Return how many faces are found, by size, roll and damage, and the false boxes; every `step`-th picture only."""
    tally: dict[str, list[int]] = {}
    false_near = 0
    pictures = [row for row in positives() if row[0] == "one hardship"]
    for _, size, roll, damage, image in pictures[::step]:
        faces = detector.detect(image)
        hit = any(is_the_face(face, size) for face in faces)
        false_near += len(faces) - hit
        for key in ("all", f"size {size}", f"roll {abs(roll)}", damage):
            total = tally.setdefault(key, [0, 0])
            total[0] += hit
            total[1] += 1
    empty = list(negatives())[::step]
    false = {name: len(detector.detect(image)) for name, image in empty}
    return {
        "found_of": tally,
        "false_beside_faces": false_near,
        "false_without_face": sum(false.values()),
        "pictures_without_face": len(empty),
    }


def speed(rounds: int) -> dict[str, Any]:
    """Return every detector's time for a picture of 640x480 with one face, and its ratio to MTCNN's."""
    picture = Image.new("RGB", (640, 480), (128, 128, 128))
    picture.paste(Image.fromarray(skimage.data.astronaut()).resize((480, 480)), (80, 0))
    image = np.asarray(picture)
    calls = {name: partial(create_detector(name, threads=1).detect, image) for name in detector_names()}
    seconds = interleaved(calls, rounds)
    return {name: {"ms": milliseconds(s), "times_mtcnn": ratio(s, seconds["mtcnn"])} for name, s in seconds.items()}


def framings(images: NDArray[np.uint8]) -> dict[str, Any]:
    """Return each detector's framing beside MTCNN's, on the faces both find; what its file has now is taken out first."""
    detectors = {name: create_detector(name, min_face=48, threads=1) for name in detector_names()}
    boxes: dict[str, list[NDArray[np.float64] | None]] = {name: [] for name in detectors}
    for image in images:
        picture = enlarged(image, TIMES)
        for name, detector in detectors.items():
            faces = detector.detect(picture)
            boxes[name].append(_own_box(name, faces[0]) if faces else None)
    found = {}
    for name in boxes:
        pairs = [(a, b) for a, b in zip(boxes[name], boxes["mtcnn"], strict=True) if a is not None and b is not None]
        found[name] = _framing(*map(np.array, zip(*pairs, strict=True)))
    return found


def _own_box(name: str, face: Face) -> NDArray[np.float64]:
    """Return the box as the detector itself drew it."""
    box = face.box_xyxy.astype(float)
    if name == "mtcnn":
        return box
    module = __import__(f"mien.faces.{name}", fromlist=["FRAMING"])
    size = (box[2:] - box[:2]) / [module.FRAMING.width, module.FRAMING.height]
    centre = (box[:2] + box[2:]) / 2 - [0, module.FRAMING.down * size[1]]
    return np.concatenate([centre - size / 2, centre + size / 2])


def _framing(own: NDArray[np.float64], mtcnn: NDArray[np.float64]) -> dict[str, Any]:
    size, aim = own[:, 2:] - own[:, :2], mtcnn[:, 2:] - mtcnn[:, :2]
    off = (mtcnn[:, :2] + mtcnn[:, 2:] - own[:, :2] - own[:, 2:]) / 2 / size[:, 1:]
    alike = (np.hypot(*off.T) < 0.3) & (aim.max(axis=1) <= WHOLE * SIDE * TIMES)  # else they found different things
    values = {"width": aim[:, 0] / size[:, 0], "height": aim[:, 1] / size[:, 1], "down": off[:, 1], "right": off[:, 0]}
    spread = {key: np.percentile(value[alike], [25, 50, 75]).round(3).tolist() for key, value in values.items()}
    quartiles = {key: dict(zip(("p25", "median", "p75"), values, strict=True)) for key, values in spread.items()}
    return {"faces": int(alike.sum()), **quartiles}


def rows(found: dict[str, Any]) -> Iterator[Row]:
    """Yield the lines of the summary."""
    for name in found["single"]:
        one, many = found["single"][name], found["crowd"][name]
        hit, number = one["found_of"]["all"]
        false = one["false_beside_faces"] + one["false_without_face"] + many["false"]
        yield f"{name}: one face, one hardship; montages", f"{hit} of {number}; {many['found']} of {many['faces']}", ""
        yield f"{name}: false boxes", f"{false}", ""
        yield f"{name}: time, 640x480, one face, one thread", f"{found['speed'][name]['times_mtcnn']:.2f} x mtcnn", ""
    for name, values in found.get("framing", {}).items():
        text = ", ".join(f"{key} {values[key]['median']:g}" for key in ("width", "height", "down", "right"))
        yield f"{name}: framing, {values['faces']} faces", text, ""


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return all figures."""
    detectors = {name: create_detector(name, min_face=20, threads=1) for name in detector_names()}
    step, rounds, number = (8, 3, 60) if arguments.quick else (1, 15, arguments.number)
    found: dict[str, Any] = {
        "single": {name: single(detector, step) for name, detector in detectors.items()},
        "crowd": {name: crowd(detector, 1 if arguments.quick else MONTAGES) for name, detector in detectors.items()},
        "speed": speed(rounds),
    }
    if arguments.fer2013:
        sample = load_sample(arguments, "train", number)
        found |= {"data": sample.about, "framing": framings(sample.images)}
    return found


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("fer2013", type=Path, nargs="?", help="fer2013.csv, to measure the framing")
    parser.add_argument("--number", type=int, default=1000, help="training faces for the framing (1000)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    found = measure(arguments)
    write_run("detectors", found, list(rows(found)), arguments)


if __name__ == "__main__":
    main()
