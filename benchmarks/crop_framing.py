"""The square around a detected face that matches the framing of FER2013.

    python -m benchmarks.crop_framing fer2013/training.png

A network trained on FER2013 expects faces framed as that corpus frames them. Each sampled 48 x 48 face is enlarged four times,
continued at its edges so that the detector sees a whole head, and detected. The side and centre of the frame, in units of the
longer side of the box, give `PreprocessSpec.crop_scale` and `crop_shift`. Only numbers are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.record import argument_parser, write_run
from mien.faces import Detector, create_detector

SIDE, ROW = 48, 100
"""Side of a face and faces in a row of the contact sheet."""

ENLARGE = 4


def faces(sheet: Path, number: int, seed: int) -> Iterator[NDArray[np.uint8]]:
    """Yield a random sample of the sheet's faces, grey (48, 48); blank ones are left out."""
    pixels = np.asarray(Image.open(sheet).convert("L"))
    cells = [(row, column) for row in range(pixels.shape[0] // SIDE) for column in range(ROW)]
    for index in np.random.default_rng(seed).permutation(len(cells))[:number]:
        row, column = cells[index]
        face = pixels[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE]
        if face.std() > 1:
            yield face


def framing(face: NDArray[np.uint8], detector: Detector) -> tuple[float, float, float] | None:
    """Return the frame's side and its centre's offset right and down from the box's, in longer sides of the box."""
    side = SIDE * ENLARGE
    large = np.asarray(Image.fromarray(face).convert("RGB").resize((side, side), Image.Resampling.BICUBIC))
    found = detector.detect(np.pad(large, ((side // 2, side // 2), (side // 2, side // 2), (0, 0)), mode="edge"))
    if not found:
        return None
    left, top, right, bottom = found[0].box_xyxy.tolist()
    longer = max(right - left, bottom - top)
    return side / longer, (side - (left + right) / 2) / longer, (side - (top + bottom) / 2) / longer


def spread(values: NDArray[np.float64]) -> dict[str, float]:
    low, quarter, median, three, high = np.percentile(values, [5, 25, 50, 75, 95]).round(4).tolist()
    return {"median": median, "p5": low, "p25": quarter, "p75": three, "p95": high}


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("sheet", type=Path, help="FER2013's Training images as one contact sheet, 100 a row")
    parser.add_argument("--number", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    detector = create_detector(min_face=60, threads=1)
    number = 100 if arguments.quick else arguments.number
    rows = [framing(face, detector) for face in faces(arguments.sheet, number, arguments.seed)]
    table = np.array([row for row in rows if row is not None])
    found = {name: spread(table[:, i]) for i, name in enumerate(("crop_scale", "shift_right", "crop_shift"))}
    summary = [(f"{name}, median", f"{values['median']:.3f}", "") for name, values in found.items()]
    write_run("crop_framing", {"faces": len(rows), "detected": len(table), **found}, summary, arguments)


if __name__ == "__main__":
    main()
