"""MTCNN: a cascade of three small networks that finds faces and five landmarks in each.

Zhang et al., "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks", 2016. P-Net proposes boxes
at every scale of the picture, R-Net refines them, O-Net refines them again and adds the landmarks. The weights come from the
installed `mtcnn` 1.0 wheel (MIT licence, Iván de Paz Centeno), the graphs from `scripts/build_mtcnn_graphs.py`.

This code differs from that wheel's in three points: each scale is resized from the one before, suppression is greedy, and the
last threshold is 0.90. In a video O-Net alone follows a known face: its box, squared and fed back, stays on the face.
CenterFace uses O-Net too, for exact boxes and landmarks.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path

import joblib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien.errors import CheckpointError
from mien.faces.detect import check_arguments, check_picture, nms, read_verified, roll, search_again, shrink, turn
from mien.onnx_session import Session, open_session
from mien.structures import Face

Array = NDArray[np.float32]

CELL, STRIDE = 12, 2
"""Side of P-Net's window and the step between two windows, px."""

FACTOR, FINE_FACTOR = 0.709, 0.84
"""Ratio of one scale of the picture to the one before, about half the area; and in a picture that is searched again."""

THRESHOLDS = (0.6, 0.7)
"""Lowest scores of boxes that pass P-Net and R-Net; O-Net's is the argument `threshold`."""

SMALLEST = 20
"""Side of the smallest face looked for in a picture that was shrunk, px of the shrunk picture."""

FOLLOW = 0.7
"""Lowest score of a followed face, unless the detector's threshold is lower: a face known to be there needs less proof."""

MOVED = 0.1
"""If a followed box moves by more than this fraction of its side, O-Net looks again at its new position."""

LARGEST = 192
"""Side of the largest face that is followed at full resolution, px."""

SHA256: dict[str, str] = {
    "pnet": "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5",
    "rnet": "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee",
    "onet": "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3",
}
"""SHA-256 of each network's weights file in mtcnn 1.0."""

LAYERS: dict[str, tuple[str, ...]] = {
    "pnet": ("conv1", "conv2", "conv3", "box", "logits"),
    "rnet": ("conv1", "conv2", "conv3", "dense", "box", "logits"),
    "onet": ("conv1", "conv2", "conv3", "conv4", "dense", "box", "landmarks", "logits"),
}
"""Layers in the order of the file. Each has a weight and a bias; all but the outputs (the last two or three) a PReLU slope."""

ADVICE = "run: pip install --force-reinstall 'mtcnn==1.0.*'"


class MTCNN:
    """The detector.

    Args:
        min_face: Side of the smallest face to find, px of the picture; the time goes with its inverse square.
        threshold: Lowest score of a face, 0 to 1. At 0.7 it finds a few more faces and several times as many false ones.
        max_size: Longer side a picture is shrunk to before anything else, px; it bounds time and memory.
        threads: Threads the networks run on.

    Raises:
        CheckpointError: The weights are missing or corrupt.
    """

    def __init__(self, min_face: float = 40, threshold: float = 0.9, max_size: int = 1280, threads: int = 2) -> None:
        check_arguments(min_face, threshold, max_size, threads, CELL)
        self.min_face = min_face
        self.threshold = threshold
        self.max_size = max_size
        self._pnet, self._rnet = (_load(network, threads) for network in ("pnet", "rnet"))
        self.onet = ONet(threads)

    def detect(self, image: NDArray[np.uint8]) -> list[Face]:
        """Return the faces of an RGB picture, highest score first.

        A picture in which nothing is found is searched again: in finer steps, then turned by 90, 270 and 180 degrees. Boxes and
        landmarks are in px of `image`, where the first pixel covers 0 to 1. Boxes may reach outside the picture.

        Args:
            image: RGB, uint8 (H, W, 3), range 0-255.

        Raises:
            InputError: The array has another shape or type.
        """
        return self.detect_frame(image) or search_again(self._search, image)

    def detect_frame(self, image: NDArray[np.uint8]) -> list[Face]:
        """Return the faces of a video's frame: as `detect`, but nothing is searched again, as the next frame follows soon."""
        check_picture(image)
        return self._search(image, fine=False)

    def follow(self, image: NDArray[np.uint8], faces: Sequence[Face]) -> list[Face | None]:
        """Return where each face of the previous frame is in this one; None where it is lost.

        Only O-Net runs, around each box. That takes about a twentieth of the time of `detect` per face. A face may move by 0.4
        of its size between the two frames; only `detect` finds one that moved further.

        Args:
            image: The next frame, RGB, uint8 (H, W, 3), range 0-255.
            faces: Faces of the previous frame, or where they are expected in this one, px.

        Raises:
            InputError: The array has another shape or type.
        """
        check_picture(image)
        return [self.onet.look(image, face, min(FOLLOW, self.threshold)) for face in faces]

    def _search(self, image: NDArray[np.uint8], fine: bool) -> list[Face]:
        if min(image.shape[:2]) < CELL:
            return []
        scale = min(1.0, self.max_size / max(image.shape[:2]))
        picture = shrink(Image.fromarray(image), scale)
        smallest = max(self.min_face * scale, min(self.min_face, SMALLEST))
        proposals = self._propose(picture, smallest, FINE_FACTOR if fine else FACTOR)
        pixels = _normalize(np.asarray(picture))
        boxes, scores, _ = _refine(self._rnet, pixels, proposals, THRESHOLDS[1])
        keep = nms(boxes, scores, 0.7)
        boxes, scores, landmarks = _refine(self.onet.session, pixels, _square(boxes[keep]), self.threshold)
        back = np.array([image.shape[1] / picture.width, image.shape[0] / picture.height], np.float32)
        return [
            Face(boxes[i] * np.tile(back, 2), float(scores[i]), landmarks[i] * back)
            for i in nms(boxes, scores, 0.7, of_smaller=True)
        ]

    def _propose(self, picture: Image.Image, smallest: float, factor: float) -> Array:
        """Return P-Net's square boxes over all scales, (N, 4) in px of `picture`."""
        boxes, scores = np.empty((0, 4), np.float32), np.empty(0, np.float32)
        scale, level = CELL / smallest, picture
        while min(picture.size) * scale >= CELL:
            size = (round(picture.width * scale), round(picture.height * scale))
            level = level.resize(size, Image.Resampling.BILINEAR)
            windows, certain = _windows(*self._pnet.run(None, {"picture": _normalize(np.asarray(level))}))
            windows *= np.tile(np.array(picture.size, np.float32) / size, 2)
            keep = nms(windows, certain, 0.5)
            boxes, scores = np.concatenate([boxes, windows[keep]]), np.concatenate([scores, certain[keep]])
            scale *= factor
        return _square(boxes[nms(boxes, scores, 0.7)])


class ONet:
    """MTCNN's last network by itself: it looks again at a face that is already known.

    Args:
        threads: Threads the network runs on.

    Raises:
        CheckpointError: The weights are missing or corrupt.
    """

    def __init__(self, threads: int) -> None:
        self.session = _load("onet", threads)

    def look(self, image: NDArray[np.uint8], face: Face, threshold: float) -> Face | None:
        """Return a face with O-Net's score, box and landmarks; None if the score is not above a threshold.

        A face that its landmarks show turned by more than 45 degrees is turned upright first, by quarter turns.

        Args:
            image: RGB, uint8 (H, W, 3), range 0-255.
            face: Where the face is, within 0.4 of its size.
            threshold: Lowest score, 0 to 1.
        """
        part, start, scale = _surroundings(image, _square(face.box_xyxy[None])[0])
        if not part.size:
            return None
        quarters = 0 if face.landmarks is None else round(roll(face.landmarks) / 90) % 4
        size = part.shape[1::-1]
        points = None if face.landmarks is None else (face.landmarks - start[:2]) * scale[:2]
        known = turn(Face((face.box_xyxy - start) * scale, face.score, points), size, quarters)
        part = np.rot90(part, quarters)
        pixels, square = _normalize(part), _square(known.box_xyxy[None])
        for _ in range(2):
            boxes, scores, landmarks = _refine(self.session, pixels, square, threshold=-1)
            if not len(boxes):
                return None
            before, square = square, _square(boxes)
            if np.abs(square - before).max() <= MOVED * (before[0, 2] - before[0, 0]):
                break
        if not scores[0] > threshold:
            return None
        found = turn(Face(boxes[0], float(scores[0]), landmarks[0]), part.shape[1::-1], -quarters)
        assert found.landmarks is not None
        return Face(found.box_xyxy / scale + start, found.score, found.landmarks / scale[:2] + start[:2])


def weights_folder() -> Path:
    """Return the folder of the installed `mtcnn` wheel that holds the weights.

    The package is located but never imported, because importing it needs TensorFlow.

    Raises:
        CheckpointError: The wheel is not installed.
    """
    spec = importlib.util.find_spec("mtcnn")
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointError(f"the face detector's weights come in the package mtcnn, which is not installed; {ADVICE}")
    return Path(spec.submodule_search_locations[0]) / "assets" / "weights"


def load_weights(network: str, folder: Path | None = None) -> dict[str, Array]:
    """Return the weights of `"pnet"`, `"rnet"` or `"onet"` by their names in the ONNX graph.

    Convolutions have the shape (out, in, rows, columns), dense layers (in, out), PReLU slopes (channels, 1, 1) or (width,).

    Args:
        network: One of the three.
        folder: Where the `.lz4` files are; None for the installed wheel.

    Raises:
        CheckpointError: The file is missing, unreadable or not the expected one.
    """
    path = (folder or weights_folder()) / f"{network}.lz4"
    # The file is a joblib pickle, and a pickle can run code: unpickle only the exact bytes that are known.
    arrays = iter(joblib.load(io.BytesIO(read_verified(path, SHA256[network], ADVICE))))
    weights = {}
    for layer in LAYERS[network]:
        weight = next(arrays)
        weights[f"{layer}.weight"] = weight.transpose(3, 2, 0, 1) if weight.ndim == 4 else weight
        weights[f"{layer}.bias"] = next(arrays)
        if layer.startswith(("conv", "dense")):
            slope = next(arrays)
            weights[f"{layer}.slope"] = slope.reshape(-1, 1, 1) if slope.ndim == 3 else slope
    return {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in weights.items()}


def packed_weights(network: str) -> bytes:
    """Return the weights of a network as the file of external data that its ONNX graph names.

    Raises:
        CheckpointError: As `load_weights`.
    """
    return b"".join(array.tobytes() for array in load_weights(network).values())


def _load(network: str, threads: int) -> Session:
    graph = Path(__file__).with_name(f"mtcnn_{network}.onnx").read_bytes()
    return open_session(graph, threads, any_shape=True, weights=load_weights(network))


def _surroundings(image: NDArray[np.uint8], square: Array) -> tuple[NDArray[np.uint8], Array, Array]:
    """Return the part of a picture around a square, twice the square's size, shrunk if the square is large.

    Returns:
        The part, uint8 (h, w, 3), empty if all of it is outside the picture; its left and top, px, repeated (4,); its scale in
        x and y, repeated (4,).
    """
    side = float(square[2] - square[0])
    edges = np.concatenate([np.floor(square[:2] - side / 2), np.ceil(square[2:] + side / 2)])
    left, top, right, bottom = np.clip(edges, 0, np.tile(image.shape[1::-1], 2)).astype(int).tolist()
    part = image[top:bottom, left:right]
    original = size = np.array([right - left, bottom - top])
    if side > LARGEST and part.size:
        size = np.maximum(1, np.round(original * LARGEST / side)).astype(int)
        part = np.asarray(Image.fromarray(part).resize(size.tolist(), Image.Resampling.BILINEAR, reducing_gap=2.0))
    return part, np.tile([left, top], 2), np.tile(size / np.maximum(original, 1), 2)


def _normalize(pixels: NDArray[np.uint8]) -> Array:
    """Return a picture (H, W, 3) as the networks expect it, (1, 3, H, W) in about [-1, 1]."""
    values = np.empty((1, 3, *pixels.shape[:2]), np.float32)
    np.subtract(pixels.transpose(2, 0, 1)[None], np.float32(127.5), out=values)
    values *= np.float32(1 / 128)
    return values


def _score(logits: Array) -> Array:
    """Return the probability of a face from logits (N, 2): no face, face."""
    return 1 / (1 + np.exp(np.clip(logits[:, 0] - logits[:, 1], -80, 80)))


def _windows(box: Array, logits: Array) -> tuple[Array, Array]:
    """Return the windows that pass P-Net, (N, 4) in px of its input, and their scores.

    Args:
        box: Corrections, (1, 4, rows, columns), in units of the window.
        logits: No face and face, (1, 2, rows, columns).
    """
    rows, columns = np.nonzero(logits[0, 1] - logits[0, 0] > np.log(THRESHOLDS[0] / (1 - THRESHOLDS[0])))
    corner = np.stack([columns, rows, columns, rows], axis=1) * STRIDE + np.array([0, 0, CELL, CELL])  # (N, 4)
    windows = corner + CELL * box[0, :, rows, columns]
    return windows.astype(np.float32), _score(logits[0, :, rows, columns])


def _refine(network: Session, pixels: Array, boxes: Array, threshold: float) -> tuple[Array, Array, Array]:
    """Return the boxes that pass R-Net or O-Net, corrected, with their scores and landmarks.

    Args:
        network: R-Net or O-Net.
        pixels: The picture, (1, 3, H, W), normalized.
        boxes: Square boxes, (N, 4) in px.
        threshold: Lowest score of a box that passes.
    """
    if not len(boxes):
        return boxes, np.empty(0, np.float32), np.empty((0, 5, 2), np.float32)
    offsets, *landmarks, logits = network.run(None, {"picture": pixels, "boxes": boxes})
    scores = _score(logits)
    size = np.tile(boxes[:, 2:] - boxes[:, :2], 2)  # (N, 4)
    refined = boxes + offsets * size
    passed = (scores > threshold) & (refined[:, 2:] - refined[:, :2] >= 1).all(axis=1)
    points = landmarks[0].reshape(-1, 2, 5).transpose(0, 2, 1) if landmarks else np.zeros((len(boxes), 5, 2), np.float32)
    points = boxes[:, None, :2] + points * size[:, None, :2]  # (N, 5, 2)
    return refined[passed], scores[passed], points[passed]


def _square(boxes: Array) -> Array:
    """Return boxes enlarged to squares around their centres."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0, keepdims=True) / 2
    return np.concatenate([centre - half, centre + half], axis=1)
