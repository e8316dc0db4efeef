"""Faces found and missed, false boxes and time of every detector, on photos whose faces were marked by eye.

    python -m benchmarks.detection --photos DIR --faces CSV [--fer2013 fer2013.csv]

The table has one row per face: `picture` (path below DIR), `left`, `top`, `right`, `bottom` (px of the upright picture), `roll`
(degrees, clockwise), `view` (frontal, profile or unclear), `cover` (none, glasses, sunglasses, hand, hair or paint), `cut`,
`light`, `skin`, `kind` (photo or drawn) and `counted`. A face with `counted` = no (seen from behind, a blurred passer-by) is
neither missed nor a false box. Pictures without a row show no face.

Three parts:

- photos: the pictures as they are, every detector with its defaults.
- changed: a window around each clear single face, scaled to a face of 96 px, then turned, covered, cut, darkened or shrunk. For
  turned faces also: whether the landmarks stand as the face does, and whether the default model's answer is the upright one.
- framing, with FER2013's table: MTCNN's width and height over the detector's own, and how far below MTCNN's centre is, in
  heights of the detector's box, medians over training faces. These are the numbers of `FRAMING` in the detectors' files.

Only counts are written. Times are processor seconds on one thread, detectors alternating on each picture.
"""

from __future__ import annotations

import csv
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance

from benchmarks.fer2013 import SIDE, enlarged, load_sample
from benchmarks.record import Row, argument_parser, write_run
from mien.faces import Detector, create_detector, detector_names
from mien.faces.detect import roll
from mien.image import read_image
from mien.predict.recognizer import Recognizer
from mien.structures import Face

Picture = NDArray[np.uint8]

OVERLAP = 0.3
"""Smallest intersection over union of a box and the face it finds."""

WINDOW, FACE = 4, 96
"""Side of the window around a face that is changed, in faces, and the longer side of that face, px."""

TIMES, WHOLE = 3, 0.9
"""How many times a face is enlarged for the framing, and the largest part of the frame MTCNN's box may take."""


@dataclass(frozen=True)
class Marked:
    """A face marked by eye: its box xyxy in px and the columns of its row."""

    box: tuple[float, float, float, float]
    columns: dict[str, str]

    @property
    def size(self) -> float:
        """Longer side of the box, px."""
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])

    @property
    def counted(self) -> bool:
        """Whether a detector that misses the face is at fault."""
        return self.columns["counted"] == "yes"

    @property
    def roll(self) -> float:
        """How far the face is turned clockwise, degrees."""
        return float(self.columns["roll"])

    def groups(self) -> Iterator[str]:
        """Yield the rows of the result that this face belongs to."""
        if self.size < 40:
            yield "under 40 px"
            return
        upright = abs(self.roll) <= 30 and self.columns["cut"] == "no"
        covered = self.columns["cover"] in ("sunglasses", "hand", "hair")
        yield "40 px and more"
        if upright and not covered:
            yield "upright, 40 px and more"
        if covered:
            yield "sunglasses, hand or hair"
        if abs(self.roll) > 20:
            yield "turned by more than 20 degrees"
        for column in ("view", "light", "skin", "kind"):
            yield f"{column}: {self.columns[column]}"


def read_faces(path: Path) -> dict[str, list[Marked]]:
    """Return the marked faces by picture."""
    faces: dict[str, list[Marked]] = defaultdict(list)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            left, top, right, bottom = (float(row[side]) for side in ("left", "top", "right", "bottom"))
            faces[row["picture"]].append(Marked((left, top, right, bottom), row))
    return faces


def matched(found: Sequence[Face], marked: Sequence[Marked]) -> tuple[dict[int, Face], int]:
    """Return the box that finds each marked face, by its index, the highest score first, and the number of false boxes."""
    hits: dict[int, Face] = {}
    false = 0
    for face in found:
        overlaps = [(_overlap(face, each.box), i) for i, each in enumerate(marked) if i not in hits or not each.counted]
        best, index = max(overlaps, default=(0.0, -1))
        if best >= OVERLAP:
            hits[index] = face
        else:
            false += 1
    return {i: face for i, face in hits.items() if marked[i].counted}, false


def _overlap(face: Face, box: Sequence[float]) -> float:
    a, b = face.box_xyxy.astype(float), np.array(box)
    shared = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0).prod()
    return float(shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared))


def detectors() -> dict[str, Detector]:
    """Return the compared detectors: those of mien, and MTCNN without its second search."""
    compared = {name: create_detector(name, threads=1) for name in detector_names()}
    return compared | {"mtcnn, first search only": SimpleNamespace(detect=compared["mtcnn"].detect_frame)}  # type: ignore


def on_photos(folder: Path, faces: dict[str, list[Marked]], step: int) -> dict[str, Any]:
    """Return, by detector, the faces found of each group, the false boxes and the seconds, over every `step`-th picture."""
    compared = detectors()
    found: dict[str, Counter[str]] = {name: Counter() for name in compared}
    total: Counter[str] = Counter()
    false, seconds = Counter[str](), Counter[str]()
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in (".jpg", ".png"))
    for name in names[::step]:
        image = read_image(folder / name)
        marked = faces.get(name, [])
        total.update(group for each in marked if each.counted for group in each.groups())
        for detector_name, detector in compared.items():
            start = time.process_time()
            boxes = detector.detect(image)
            seconds[detector_name] += time.process_time() - start
            hits, wrong = matched(boxes, marked)
            found[detector_name].update(group for i in hits for group in marked[i].groups())
            false[detector_name] += wrong
    return {
        "pictures": len(names[::step]),
        "faces": dict(total),
        "detectors": {
            name: {
                "found": {group: found[name][group] for group in total},
                "false": false[name],
                "ms_per_picture": round(1000 * seconds[name] / len(names[::step]), 2),
            }
            for name in compared
        },
    }


def windows(folder: Path, faces: dict[str, list[Marked]]) -> Iterator[tuple[Image.Image, Marked]]:
    """Yield a window around each clear face that is alone in its picture, and the face in it, `FACE` px high."""
    for name, marked in sorted(faces.items()):
        face = marked[0]
        clear = (
            face.columns["view"] == "frontal" and face.columns["cover"] in ("none", "glasses") and face.columns["cut"] == "no"
        )
        if len(marked) > 1 or not clear or face.size < FACE / 2 or abs(face.roll) > 15:
            continue
        box = np.array(face.box)
        centre, half = (box[:2] + box[2:]) / 2, face.size * WINDOW / 2
        edges = np.concatenate([centre - half, centre + half])
        picture = Image.fromarray(read_image(folder / name)).crop(edges.round().astype(int).tolist())
        scale = FACE / face.size
        placed = (box - np.tile(edges[:2], 2)) * scale
        yield (
            picture.resize((WINDOW * FACE, WINDOW * FACE), Image.Resampling.LANCZOS),
            replace(face, box=tuple(placed.tolist())),
        )


Change = Callable[[Image.Image, Marked], tuple[Image.Image, Marked]]


def turned(picture: Image.Image, face: Marked, degrees: float) -> tuple[Image.Image, Marked]:
    """Return a window turned clockwise about its face, whose box keeps its size and whose `roll` grows."""
    roll = str(face.roll + degrees)
    return picture.rotate(-degrees, Image.Resampling.BICUBIC), replace(face, columns=face.columns | {"roll": roll})


def covered(
    picture: Image.Image, face: Marked, part: tuple[float, float, float, float], colour: str
) -> tuple[Image.Image, Marked]:
    """Return a window with an ellipse or bar over part of its face, in fractions of the box."""
    left, top, right, bottom = face.box
    edges = [left + part[0] * (right - left), top + part[1] * (bottom - top)]
    edges += [left + part[2] * (right - left), top + part[3] * (bottom - top)]
    picture = picture.copy()
    ImageDraw.Draw(picture).rounded_rectangle(edges, radius=FACE / 10, fill=colour)
    return picture, face


def cut(picture: Image.Image, face: Marked, side: int) -> tuple[Image.Image, Marked]:
    """Return a window cut so that 45 % of its face is outside: at the left, top, right or bottom (0 to 3)."""
    edges = [0.0, 0.0, float(picture.width), float(picture.height)]
    length = face.box[2 + side % 2] - face.box[side % 2] if side % 2 == 0 else face.box[3] - face.box[1]
    edges[side] = face.box[side] + (0.45 if side < 2 else -0.45) * length
    part = picture.crop([round(edge) for edge in edges])  # type: ignore[arg-type]
    box = np.array(face.box) - np.tile(np.round(edges[:2]), 2)
    box = np.clip(box, 0, np.tile(part.size, 2))
    return part, replace(face, box=tuple(box.tolist()))


def resized(picture: Image.Image, face: Marked, scale: float) -> tuple[Image.Image, Marked]:
    size = round(picture.width * scale)
    box = tuple(edge * size / picture.width for edge in face.box)
    return picture.resize((size, size), Image.Resampling.LANCZOS), replace(face, box=box)


def mirrored(picture: Image.Image, face: Marked) -> tuple[Image.Image, Marked]:
    left, top, right, bottom = face.box
    box = (picture.width - right, top, picture.width - left, bottom)
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), replace(face, box=box)


def darkened(picture: Image.Image, face: Marked, light: float) -> tuple[Image.Image, Marked]:
    return ImageEnhance.Brightness(picture).enhance(light), face


CHANGES: dict[str, Change] = {
    "none": lambda picture, face: (picture, face),
    "mirrored": mirrored,
    "enlarged by 1 %": partial(resized, scale=1.01),
    "face of 40 px": partial(resized, scale=40 / FACE),
    **{f"turned by {degrees} degrees": partial(turned, degrees=degrees) for degrees in (45, 90, 135, 180, 225, 270, 315)},
    "sunglasses": partial(covered, part=(0.05, 0.3, 0.95, 0.5), colour="#101010"),
    "mask": partial(covered, part=(0.03, 0.55, 0.97, 1.02), colour="#a8c8dc"),
    "hand on the mouth": partial(covered, part=(0.2, 0.62, 1.1, 1.3), colour="#c89878"),
    "phone before one side": partial(covered, part=(0.6, 0.1, 1.2, 1.2), colour="#202028"),
    **{f"45 % cut off, {name}": partial(cut, side=side) for side, name in enumerate(("left", "top", "right", "bottom"))},
    "light x 0.3": partial(darkened, light=0.3),
    "light x 0.15": partial(darkened, light=0.15),
}
"""What is done to a window, by name."""


def on_changed(folder: Path, faces: dict[str, list[Marked]], step: int) -> dict[str, Any]:
    """Return, by change and detector, the faces found, the false boxes and, if turned, the right landmarks and labels."""
    recognizers = {name: Recognizer(detector=detector, threads=1) for name, detector in detectors().items()}
    result: dict[str, Any] = {}
    shown = list(windows(folder, faces))[::step]
    upright: dict[tuple[str, int], str] = {}
    for change, function in CHANGES.items():
        tally: dict[str, Counter[str]] = {name: Counter() for name in recognizers}
        for index, (picture, face) in enumerate(shown):
            changed, moved = function(picture, face)
            image = np.asarray(changed)
            for name, recognizer in recognizers.items():
                assert recognizer.detector is not None
                hits, false = matched(recognizer.detector.detect(image), [moved])
                tally[name].update(found=len(hits), false=false)
                if not hits or not (change == "none" or change.startswith("turned")):
                    continue
                label = recognizer.classes[int(recognizer.probabilities(recognizer.crops(image, [hits[0]]))[0].argmax())]
                if change == "none":
                    upright[name, index] = label
                elif (name, index) in upright:
                    tally[name].update(comparable=1, same_label=label == upright[name, index])
                if hits[0].landmarks is not None:
                    off = (roll(hits[0].landmarks) - moved.roll + 180) % 360 - 180
                    tally[name].update(landmarks_right=abs(off) <= 30)
        result[change] = {name: dict(counts) for name, counts in tally.items()}
        print(f"  {change}: " + ", ".join(f"{name} {counts['found']}" for name, counts in tally.items()), flush=True)
    return {"faces": len(shown), "by_change": result}


def framings(images: NDArray[np.uint8]) -> dict[str, Any]:
    """Return each detector's framing next to MTCNN's, on the faces both find; the one in its file is undone first."""
    compared: dict[str, Any] = {name: create_detector(name, min_face=48, threads=1) for name in detector_names()}
    compared["centerface"]._onet = SimpleNamespace(look=lambda *_: None)  # its boxes, not those of O-Net
    boxes: dict[str, list[NDArray[np.float64] | None]] = {name: [] for name in compared}
    for image in images:
        picture = enlarged(image, TIMES)
        for name, detector in compared.items():
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


def summary(figures: dict[str, Any]) -> list[Row]:
    photos, rows = figures["photos"], []
    for name, counts in photos["detectors"].items():
        for group in ("upright, 40 px and more", "sunglasses, hand or hair"):
            rows.append((f"{name}: {group}", f"{counts['found'][group]} of {photos['faces'][group]}", ""))
        rows.append((f"{name}: false boxes in {photos['pictures']} photos", str(counts["false"]), ""))
        rows.append((f"{name}: time per photo", f"{counts['ms_per_picture']:.0f} ms", ""))
        turns = [tally[name] for change, tally in figures["changed"]["by_change"].items() if change.startswith("turned")]
        rows.append((f"{name}: turned", f"{sum(t['found'] for t in turns)} of {len(turns) * figures['changed']['faces']}", ""))
    return rows


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--photos", type=Path, required=True, metavar="DIR", help="folder of the photos")
    parser.add_argument("--faces", type=Path, required=True, metavar="CSV", help="table of the marked faces")
    parser.add_argument("--fer2013", type=Path, metavar="CSV", help="FER2013's table; also measures the framing")
    parser.add_argument("--number", type=int, default=300, help="training faces for the framing (300)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    step = 8 if arguments.quick else 1
    faces = read_faces(arguments.faces)
    figures = {
        "photos": on_photos(arguments.photos, faces, step),
        "changed": on_changed(arguments.photos, faces, step),
    }
    if arguments.fer2013:
        figures["framing"] = framings(load_sample(arguments, "train", arguments.number).images)
    write_run("detection", figures, summary(figures), arguments)


if __name__ == "__main__":
    main()
