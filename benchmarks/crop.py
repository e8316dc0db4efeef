"""Accuracy against the margin, shift and rotation of the crop, with and without detection and alignment.

    python -m benchmarks.crop fer2013.csv

The faces are FER2013's PublicTest, in two parts:

- whole frame: the corpus's own crop is zoomed, shifted or rotated. Above a zoom of 1 it is continued at its edges, where a
  photo would show more of the head.
- detected: the frame is enlarged four times, continued at its edges and given to MTCNN. Its box is cropped with every
  `crop_scale` and `crop_shift`, or its five landmarks are aligned to their average position in FER2013's frames, which is
  measured on training faces. Faces that MTCNN misses are excluded from this part and from its reference.

`-crop.png` next to the JSON shows all of it. The best crop belongs in the model's `PreprocessSpec`.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.fer2013 import SIDE, Crop, Sample, about_model, add_arguments, enlarged, load_sample, outcome, score
from benchmarks.record import Row, argument_parser, write_run
from mien.faces import Detector, create_detector
from mien.faces.crop import FRAME_MARGIN, align_face, crop_face
from mien.predict.recognizer import Recognizer
from mien.preprocess import PreprocessSpec
from mien.structures import Face

MARGINS = (0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3)
SHIFTS = (-0.15, -0.1, -0.05, 0.0, 0.05, 0.1, 0.15)
ROLLS = (0, 5, 10, 15, 20, 25, 30)

SCALES = (0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1)
CROP_SHIFTS = (-0.1, -0.05, 0.0, 0.05, 0.1)
ALIGN_MARGINS = (-0.1, -0.05, 0.0, 0.05, 0.1)
DETECTED_ROLLS = (0, 10, 20, 30)

TWICE, FOUR = 2, 4
"""How many times a face is enlarged before it is moved, and before it is detected."""

Turned = tuple[Crop, Face | None]


def moved(face: Crop, margin: float = 1.0, down: float = 0.0, right: float = 0.0, roll: float = 0.0) -> Crop:
    """Return a frame zoomed, shifted (in its sides) and turned (degrees, counter-clockwise), grey (96, 96)."""
    side = SIDE * TWICE
    c, s = np.cos(np.radians(roll)), np.sin(np.radians(roll))
    turn = margin * np.array([[c, -s], [s, c]])  # from px of the result to px of the enlarged frame
    start = np.array([side * (1 + right), side * (1 + down)]) - turn @ np.array([side / 2, side / 2])
    data = np.column_stack([turn, start]).ravel().tolist()
    picture = Image.fromarray(enlarged(face, TWICE)).convert("L")
    return np.asarray(picture.transform((side, side), Image.Transform.AFFINE, data, Image.Resampling.BICUBIC))


def either_way(index: int, roll: float) -> float:
    """Return the angle, its sign changing from face to face."""
    return roll if index % 2 else -roll


def whole_frame(recognizer: Recognizer, sample: Sample) -> dict[str, Any]:
    """Return the score of the frames as they are and of every zoom, shift and rotation."""

    def curve(values: Sequence[float], name: str) -> list[dict[str, float]]:
        rows = []
        for value in values:
            steps = [either_way(i, value) if name == "roll" else value for i in range(len(sample.images))]
            crops = [moved(face, **{name: step}) for face, step in zip(sample.images, steps, strict=True)]
            rows.append({name: value, **score(recognizer, crops, sample)})
        reached = ", ".join(f"{row[name]:g}: {100 * row['accuracy']:.1f}" for row in rows)
        print(f"  {name}: {reached} %", flush=True)
        return rows

    return {
        "as_it_is": score(recognizer, list(sample.images), sample),
        "margin": curve(MARGINS, "margin"),
        "down": curve(SHIFTS, "down"),
        "right": curve(SHIFTS, "right"),
        "roll": curve(ROLLS, "roll"),
    }


def found_face(detector: Detector, picture: Crop) -> Face | None:
    """Return the most certain face whose centre lies in the picture's middle quarter, if there is one."""
    side = picture.shape[0]
    for face in detector.detect(picture):
        left, top, right, bottom = face.box_xyxy
        if max(abs((left + right) / 2 - side / 2), abs((top + bottom) / 2 - side / 2)) < side / 8:
            return face
    return None


def turned(face: Crop, roll: float) -> Crop:
    """Return a face enlarged for the detector, turned by `roll` degrees around the frame's centre."""
    picture = Image.fromarray(enlarged(face, FOUR))
    return np.asarray(picture.rotate(roll, Image.Resampling.BICUBIC) if roll else picture)


def mean_points(detector: Detector, images: Crop) -> NDArray[np.float64]:
    """Return where the five points lie on average, as fractions of the frame's side, (5, 2)."""
    faces = (found_face(detector, turned(face, 0)) for face in images)
    points = np.array([face.landmarks for face in faces if face is not None], np.float64)
    return (np.median(points, axis=0) - SIDE * FOUR / 2) / (SIDE * FOUR)


def keep(sample: Sample, chosen: list[int]) -> Sample:
    """Return some faces of a sample."""
    return replace(sample, images=sample.images[chosen], target=sample.target[chosen], twin_free=sample.twin_free[chosen])


def detected(recognizer: Recognizer, detector: Detector, sample: Sample, template: NDArray[np.float64]) -> dict[str, Any]:
    """Return the score of every crop around MTCNN's box and of every margin of alignment, on the faces it finds."""
    faces = [found_face(detector, turned(face, 0)) for face in sample.images]
    chosen = [i for i, face in enumerate(faces) if face is not None]
    found = keep(sample, chosen)
    pairs = [(turned(sample.images[i], 0), face) for i in chosen if (face := faces[i]) is not None]
    grid, aligned, rights = [], [], []
    for scale, shift in itertools.product(SCALES, CROP_SHIFTS):
        scores, right = outcome(recognizer, [crop_face(p, f, scale, shift) for p, f in pairs], found)
        grid.append({"crop_scale": scale, "crop_shift": shift, **scores})
        rights.append(right)
    for margin in ALIGN_MARGINS:
        crops = [align_face(p, f, SIDE * TWICE, template, margin) for p, f in pairs]
        scores, right = outcome(recognizer, crops, found)
        aligned.append({"margin": margin, **scores})
        rights.append(right)
    now, best = the_models(grid, recognizer.backend.info.preprocess), max(range(len(grid)), key=lambda i: grid[i]["accuracy"])
    default = ALIGN_MARGINS.index(FRAME_MARGIN)
    first = max(range(len(rights)), key=lambda i: rights[i].sum())
    return {
        "faces": len(faces),
        "found": len(chosen),
        "whole_frame": score(recognizer, list(found.images), found),
        "crop": grid,
        "models_crop": grid[now],
        "best_crop": grid[best],
        "aligned": aligned,
        "default": aligned[default],
        "default_over_models_crop": gain(rights[len(grid) + default], rights[now]),
        "best_of_all_over_default": gain(rights[first], rights[len(grid) + default]),
    }


def gain(right: NDArray[np.bool_], before: NDArray[np.bool_]) -> dict[str, float]:
    """Return by how much more faces are right than were before, and the standard error of that."""
    more = right.astype(float) - before
    return {"mean": round(more.mean(), 4), "standard_error": round(more.std() / len(more) ** 0.5, 4)}


def the_models(grid: list[dict[str, Any]], spec: PreprocessSpec) -> int:
    """Return which crop of the grid is nearest to the model's."""
    away = [abs(row["crop_scale"] - spec.crop_scale) + abs(row["crop_shift"] - spec.crop_shift) for row in grid]
    return int(np.argmin(away))


def rolled(recognizer: Recognizer, detector: Detector, sample: Sample, template: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Return, for turned faces, the score of the turned frame, of MTCNN's box and of alignment, on the faces it finds."""
    spec, rows = recognizer.backend.info.preprocess, []
    for roll in DETECTED_ROLLS:
        pictures = [turned(face, either_way(i, roll)) for i, face in enumerate(sample.images)]
        faces = [found_face(detector, picture) for picture in pictures]
        chosen = [i for i, face in enumerate(faces) if face is not None]
        found = keep(sample, chosen)
        pairs = [(pictures[i], face) for i in chosen if (face := faces[i]) is not None]
        frames = [moved(sample.images[i], roll=either_way(i, roll)) for i in chosen]
        boxes = [crop_face(picture, face, spec.crop_scale, spec.crop_shift) for picture, face in pairs]
        upright = [align_face(picture, face, SIDE * TWICE, template, FRAME_MARGIN) for picture, face in pairs]
        scores = {"frame": frames, "box": boxes, "aligned": upright}
        row = {"roll": roll, "found": len(chosen), **{key: score(recognizer, crops, found) for key, crops in scores.items()}}
        rows.append(row)
    return rows


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw accuracy against zoom, shift and rotation: of the whole frame above, of what the detector found below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.6), layout="constrained")
    axes = figure.subplots(2, 3, sharey=True)
    _draw_frame(axes[0], found["whole_frame"])
    _draw_detected(axes[1], found["detected"], found["rolled"])
    names = (("Whole frame: zoom", "Whole frame: shift", "Whole frame: rotation"),
             ("Detected: crop around the box", "Detected: aligned by five points", "Detected: rotation"))  # fmt: skip
    units = (("side, in sides of the frame", "in sides of the frame", "degrees"),
             ("crop_scale: side, in longer sides of the box", "margin, in sides of the frame", "degrees"))  # fmt: skip
    for axis, name, unit in zip(axes.flat, sum(names, ()), sum(units, ()), strict=True):
        axis.set_title(name, fontsize=10.5, loc="left", fontweight="bold")
        axis.set_xlabel(unit, fontsize=9)
        axis.grid(axis="y", color="0.9", lw=0.8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8.5)
        axis.legend(frameon=False, fontsize=8.5, loc="lower center", ncols=2)
    low, high = axes[0][0].get_ylim()
    axes[0][0].set_ylim(low - 0.45 * (high - low), high)  # room for the legends
    for row in axes:
        row[0].set_ylabel("accuracy, %")
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _draw_frame(axes: Any, frame: dict[str, Any]) -> None:
    for axis in axes:
        axis.axhline(100 * frame["as_it_is"]["accuracy"], color="0.35", lw=1, ls="--", label="as it is")
    _curve(axes[0], frame["margin"], "margin", "zoomed", "#0b5394")
    _curve(axes[1], frame["down"], "down", "downwards", "#0b5394")
    _curve(axes[1], frame["right"], "right", "to the right", "#e69138")
    _curve(axes[2], frame["roll"], "roll", "turned", "#0b5394")


def _draw_detected(axes: Any, boxes: dict[str, Any], rolls: list[dict[str, Any]]) -> None:
    for axis in axes[:2]:
        axis.axhline(100 * boxes["whole_frame"]["accuracy"], color="0.35", lw=1, ls="--", label="their whole frames")
    for shift, colour in zip(CROP_SHIFTS, ("#9fc5e8", "#6fa8dc", "#0b5394", "#e69138", "#f6b26b"), strict=True):
        rows = [row for row in boxes["crop"] if row["crop_shift"] == shift]
        _curve(axes[0], rows, "crop_scale", f"shift {shift:+g}" if shift else "shift 0", colour)
    _curve(axes[1], boxes["aligned"], "margin", "aligned", "#38761d")
    axes[1].set_xticks(ALIGN_MARGINS)
    parts = (("frame", "whole frame", "0.35"), ("box", "around the box", "#0b5394"), ("aligned", "aligned", "#38761d"))
    for key, name, colour in parts:
        _curve(axes[2], [{"roll": row["roll"], **row[key]} for row in rolls], "roll", name, colour)


def _curve(axis: Any, rows: list[dict[str, Any]], name: str, label: str, colour: str) -> None:
    values, heights = [row[name] for row in rows], [100 * row["accuracy"] for row in rows]
    axis.plot(values, heights, "o-", color=colour, ms=3.5, lw=1.5, label=label)


def summary(found: dict[str, Any]) -> list[Row]:
    boxes = found["detected"]
    now, best, default = boxes["models_crop"], boxes["best_crop"], boxes["default"]
    aligned = max(boxes["aligned"], key=lambda row: row["accuracy"])
    margin = max(found["whole_frame"]["margin"], key=lambda row: row["accuracy"])

    def per_cent(row: dict[str, float]) -> str:
        return f"{100 * row['accuracy']:.1f} %"

    def points(key: str) -> str:
        return f"{100 * boxes[key]['mean']:+.1f} points (standard error {100 * boxes[key]['standard_error']:.1f})"

    return [
        ("whole frame", per_cent(found["whole_frame"]["as_it_is"]), ""),
        (f"whole frame, best margin {margin['margin']:g}", per_cent(margin), ""),
        ("of fewer faces, found by MTCNN", f"{boxes['found']} of {boxes['faces']}", ""),
        ("whole frame, those found", per_cent(boxes["whole_frame"]), ""),
        (f"MTCNN's box, the model's crop (scale {now['crop_scale']:g}, shift {now['crop_shift']:g})", per_cent(now), ""),
        (f"MTCNN's box, the best crop (scale {best['crop_scale']:g}, shift {best['crop_shift']:g})", per_cent(best), ""),
        (f"aligned by five points, the default (margin {default['margin']:g})", per_cent(default), ""),
        (f"aligned by five points, the best margin ({aligned['margin']:g})", per_cent(aligned), ""),
        ("the default over the box's crop", points("default_over_models_crop"), ""),
        ("the best of all over the default", points("best_of_all_over_default"), ""),
    ]


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return all figures."""
    recognizer = Recognizer(arguments.model, detector=None, threads=arguments.threads)
    detector = create_detector("mtcnn", min_face=60, threads=arguments.threads)
    number, fewer = (200, 200) if arguments.quick else (arguments.number, arguments.detect)
    sample = load_sample(arguments, number=number)
    template = mean_points(detector, load_sample(arguments, "train", fewer // 2).images)
    smaller = load_sample(arguments, number=fewer)
    return {
        "data": sample.about,
        "model": about_model(recognizer),
        "mean_points": template.round(4).tolist(),
        "whole_frame": whole_frame(recognizer, sample),
        "detected": detected(recognizer, detector, smaller, template),
        "rolled": rolled(recognizer, detector, keep(smaller, list(range(min(len(smaller.images), fewer // 2)))), template),
    }


def main() -> None:
    parser = argument_parser(__doc__)
    add_arguments(parser, number=2000)
    parser.add_argument("--detect", type=int, default=1500, help="faces that go through the detector (1500)")
    arguments = parser.parse_args()
    found = measure(arguments)
    path = write_run("crop", found, summary(found), arguments)
    draw(found, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
