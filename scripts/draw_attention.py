"""Draw the attention maps of trained networks: for each run the face, then the face with each map on top.

    python scripts/draw_attention.py runs/a runs/b --photo photo.jpg --out attention.png

The colours of a map go from its smallest to its largest value; both are printed above it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mien.atomic import atomic_path
from mien.checkpoint import load_checkpoint
from mien.errors import InputError
from mien.faces import create_detector
from mien.faces.crop import crop_face
from mien.image import read_image
from mien.preprocess import preprocess

COLUMNS = 8


def attention_of(run: Path, photo: Path) -> tuple[str, NDArray[np.uint8], dict[str, NDArray[np.float32]], str]:
    """Return the name of a run's network, the cropped face, its attention maps in [0, 1], and its prediction."""
    model, info = load_checkpoint(run)
    image = read_image(photo)
    faces = create_detector().detect(image)
    if not faces:
        raise InputError(f"{photo}: no face found; choose a photo with a larger face")
    crop = crop_face(image, faces[0], info.preprocess.crop_scale, info.preprocess.crop_shift)
    inputs = torch.from_numpy(preprocess([crop], info.preprocess))
    with torch.no_grad():
        probs = model(inputs).softmax(1)[0]
        maps = {name: values[0].float().numpy() for name, values in model.attention_maps(inputs).items()}
    best = int(probs.argmax())
    return info.arch, crop, maps, f"{info.classes[best]} {100 * probs[best]:.0f} %"


def draw(path: Path, runs: list[Path], photo: Path) -> None:
    """Write the picture, with at most `COLUMNS` maps in a row."""
    lines: list[tuple[str, NDArray[np.uint8], list[tuple[str, NDArray[np.float32]]]]] = []
    for arch, crop, maps, prediction in (attention_of(run, photo) for run in runs):
        named = list(maps.items())
        for first in range(0, max(len(named), 1), COLUMNS):
            lines.append((f"{arch}\n{prediction}" if not first else "", crop, named[first : first + COLUMNS]))
    columns = 1 + max(len(maps) for _, _, maps in lines)
    figure = Figure(figsize=(1.9 * columns, 2.2 * len(lines)), layout="constrained")
    grid = figure.subplots(len(lines), columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for line, (title, crop, maps) in zip(grid, lines, strict=True):
        if title:
            line[0].imshow(crop)
            line[0].set_title(title, fontsize=8)
        for axes, (name, values) in zip(line[1:], maps, strict=False):
            axes.imshow(crop.mean(2), cmap="gray", extent=(0, 1, 0, 1))
            axes.imshow(values, cmap="inferno", alpha=0.55, extent=(0, 1, 0, 1), interpolation="bilinear")
            axes.set_title(f"{name}\n{values.shape[0]}x{values.shape[1]}, {values.min():.2f}-{values.max():.2f}", fontsize=7)
    with atomic_path(path) as tmp_path:
        figure.savefig(tmp_path, dpi=110, format="png")


def main() -> None:
    """Read the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs, or checkpoints")
    parser.add_argument("--photo", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    draw(arguments.out, arguments.runs, arguments.photo)


if __name__ == "__main__":
    main()
