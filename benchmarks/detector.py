"""Faces that MTCNN finds, false boxes, and time.

    python -m benchmarks.detector

All faces are one face, NASA's portrait of Eileen Collins (`skimage.data.astronaut`, public domain). The counts therefore say
how the detector copes with size, rotation and image quality, not how it does on people in general. Two sets, seven sizes each:

- one difficulty: rotated by up to 45 degrees; or upright and dark, blurred, JPEG quality 5 or grey; each also mirrored (154)
- several: every rotation with every image quality (245), hard on purpose so that changes show

The detector was chosen on 481 faces of group photos, of which it found 475. That set is not available, so these counts cannot
be compared with it. Times can, as ratios, on one machine.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from benchmarks.record import Row, argument_parser, write_run
from benchmarks.timing import interleaved, milliseconds
from mien.faces import Detector, create_detector
from mien.structures import Face

Picture = Image.Image

FACE = (225.5, 121.0, 110.0)
"""Centre and longer side of the astronaut's face, marked by hand, px."""

SIZES = (96, 64, 48, 32, 24, 20, 16)
ROLLS = (-45, -30, -15, 0, 15, 30, 45)
CANVAS = (320, 240)

TEXTURES = (
    "brick", "gravel", "grass", "coins", "moon", "page", "text", "clock", "coffee", "chelsea", "cell", "hubble_deep_field",
    "rocket", "retina", "immunohistochemistry", "horse", "microaneurysms", "colorwheel", "logo", "checkerboard",
)  # fmt: skip
"""Pictures of scikit-image that show no person."""


def jpeg(picture: Picture, quality: int = 5) -> Picture:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


DAMAGE: dict[str, Callable[[Picture, int], Picture]] = {
    "none": lambda picture, size: picture,
    "dark": lambda picture, size: ImageEnhance.Brightness(picture).enhance(0.2),
    "blurred": lambda picture, size: picture.filter(ImageFilter.GaussianBlur(size / 24)),
    "jpeg5": lambda picture, size: jpeg(picture),
    "grey": lambda picture, size: picture.convert("L").convert("RGB"),
}


def pose(size: int, roll: int) -> Picture:
    """Return the astronaut on a canvas, her face `size` px at the centre and turned by `roll` degrees."""
    around = 512
    picture = Image.fromarray(np.pad(skimage.data.astronaut(), ((around, around), (around, around), (0, 0)), mode="edge"))
    x, y, side = FACE[0] + around, FACE[1] + around, FACE[2]
    half = [length * side / size / 2 for length in CANVAS]
    turned = picture.rotate(roll, Image.Resampling.BICUBIC, center=(x, y))
    box = (max(0, x - half[0]), max(0, y - half[1]), min(turned.width, x + half[0]), min(turned.height, y + half[1]))
    scale = size / side
    part = turned.resize(
        (round((box[2] - box[0]) * scale), round((box[3] - box[1]) * scale)), Image.Resampling.LANCZOS, box=box
    )
    canvas = Image.new("RGB", CANVAS, (128, 128, 128))
    canvas.paste(part, (round(CANVAS[0] / 2 - (x - box[0]) * scale), round(CANVAS[1] / 2 - (y - box[1]) * scale)))
    return canvas


def positives() -> Iterator[tuple[str, int, int, str, NDArray[np.uint8]]]:
    """Yield set, size, roll, damage and picture."""
    for size, roll in itertools.product(SIZES, ROLLS):
        picture = pose(size, roll)
        for name, damage in DAMAGE.items():
            image = np.asarray(damage(picture, size))
            yield "several hardships", size, roll, name, image
            if roll == 0 or name == "none":
                yield "one hardship", size, roll, name, image
                yield "one hardship", size, roll, name, np.ascontiguousarray(image[:, ::-1])


def negatives() -> Iterator[tuple[str, NDArray[np.uint8]]]:
    for value in (0, 128, 255):
        yield f"blank {value}", np.full((480, 640, 3), value, np.uint8)
    yield "noise", np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    for name in TEXTURES:
        pixels = getattr(skimage.data, name)()
        pixels = pixels * np.uint8(255) if pixels.dtype == bool else pixels
        yield name, np.asarray(Image.fromarray(pixels).convert("RGB"))


def is_the_face(face: Face, size: int) -> bool:
    """Whether a box lies within a quarter of the face's size of it and is 0.6 to 1.6 times as large."""
    left, top, right, bottom = face.box_xyxy
    off = np.hypot((left + right) / 2 - CANVAS[0] / 2, (top + bottom) / 2 - CANVAS[1] / 2)
    return bool(off < size / 4 and 0.6 < max(right - left, bottom - top) / size < 1.6)


def count(detector: Detector) -> dict[str, Any]:
    """Return how many faces are found, by size, roll and damage, and the false boxes by picture."""
    tally: dict[str, list[int]] = {}
    extra = 0
    for kind, size, roll, damage, image in positives():
        faces = detector.detect(image)
        hit = any(is_the_face(face, size) for face in faces)
        extra += len(faces) - hit
        for key in ("all", f"size {size}", f"roll {abs(roll)}", damage):
            total = tally.setdefault(f"{kind}, {key}", [0, 0])
            total[0] += hit
            total[1] += 1
    false = {name: len(detector.detect(image)) for name, image in negatives()}
    return {
        "found_of": tally,
        "false_beside_faces": extra,
        "false_without_face": sum(false.values()),
        "pictures_without_face": len(false),
        "false_in": {name: number for name, number in false.items() if number},
    }


def speed(rounds: int) -> list[dict[str, Any]]:
    """Return the time for one picture of 640x480 with one face 106 px high."""
    picture = Image.new("RGB", (640, 480), (128, 128, 128))
    picture.paste(Image.fromarray(skimage.data.astronaut()).resize((480, 480)), (80, 0))
    image = np.asarray(picture)
    settings = {f"{size} {threads}": (size, threads) for size, threads in itertools.product((20, 40, 60), (1, 2))}
    calls = {
        key: partial(create_detector(min_face=size, threads=threads).detect, image) for key, (size, threads) in settings.items()
    }
    seconds = interleaved(calls, rounds)
    return [
        {"min_face": size, "threads": threads, "ms": milliseconds(seconds[key])} for key, (size, threads) in settings.items()
    ]


def summary(found: dict[str, Any], times: list[dict[str, Any]]) -> list[Row]:
    rows: list[Row] = []
    for setting, counts in found.items():
        hit, number = counts["found_of"]["one hardship, all"]
        rows.append((f"{setting}: faces found under one hardship", f"{hit} of {number}", ""))
        false, pictures = counts["false_without_face"], counts["pictures_without_face"]
        rows.append((f"{setting}: false boxes in pictures without a face", f"{false} in {pictures}", ""))
    for time in times:
        what = f"640x480, one face, min_face {time['min_face']}, threads {time['threads']}, median"
        rows.append((what, f"{time['ms']['median']:.1f} ms", ""))
    return rows


def main() -> None:
    arguments = argument_parser(__doc__).parse_args()
    settings = ((20, 0.9), (20, 0.7), (40, 0.9))[: 1 if arguments.quick else None]
    found = {
        f"min_face {min_face}, threshold {threshold}": count(create_detector(min_face=min_face, threshold=threshold))
        for min_face, threshold in settings
    }
    times = speed(rounds=3 if arguments.quick else 20)
    write_run("detector", {"faces": found, "ms_640x480": times}, summary(found, times), arguments)


if __name__ == "__main__":
    main()
