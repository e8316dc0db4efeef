"""MTCNN: a cascade of three small networks that finds faces and five landmarks in each.

Zhang et al., "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks", 2016. P-Net proposes boxes
at every scale of the picture, R-Net refines them, O-Net refines them again and adds the landmarks. The weights are those of
the `mtcnn` 1.0 wheel; the networks run on ONNX Runtime from graphs that `scripts/build_mtcnn_graphs.py` wrote. Ours differs
from that wheel's code in three points: each scale is resized from the one before, suppression is greedy, and the last
threshold is 0.90. In a video O-Net alone follows a known face: its box, squared and fed back, stays on the face.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien.faces.framing import check_arguments, check_picture, resized
from mien.faces.mtcnn_weights import load_weights
from mien.onnx_session import Session, open_session
from mien.structures import Face

Array = NDArray[np.float32]

CELL, STRIDE = 12, 2
"""Side of P-Net's window and the step between two windows, px."""

FACTOR = 0.709
"""Ratio of one scale of the picture to the one before, about half the area."""

THRESHOLDS = (0.6, 0.7)
"""Scores a box needs to pass P-Net and R-Net; O-Net's is the argument `threshold`."""

SMALLEST = 20
"""Side of the smallest face looked for in a picture that was shrunk, px of the shrunk picture."""

FOLLOW = 0.7
"""Score a followed face needs, if the detector's threshold is not lower: a face known to be there needs less proof."""

MOVED = 0.1
"""A followed box that moved by more than this fraction of its side is looked at once more, from where it went."""

LARGEST = 192
"""Side of the largest face that is followed at full resolution, px."""


class MTCNN:
    """The detector.

    Args:
        min_face: Side of the smallest face to find, px of the picture; the time goes with its inverse square.
        threshold: Score a face needs, 0 to 1. At 0.7 it finds a few more faces and several times as many false ones.
        max_size: Longer side a picture is shrunk to before anything else, px; it bounds time and memory.
        threads: Threads the networks run on.

    Raises:
        CheckpointError: The weights are missing or damaged.
    """

    def __init__(self, min_face: float = 40, threshold: float = 0.9, max_size: int = 1280, threads: int = 2) -> None:
        check_arguments(min_face, threshold, max_size, threads, CELL)
        self.min_face = min_face
        self.threshold = threshold
        self.max_size = max_size
        self._pnet, self._rnet, self._onet = (_session(name, threads) for name in ("pnet", "rnet", "onet"))

    def detect(self, image: NDArray[np.uint8]) -> list[Face]:
        """Return the faces of an RGB picture, the most certain first.

        Boxes and landmarks are in px of `image`, where the first pixel covers 0 to 1; boxes may reach outside it.

        Args:
            image: RGB, uint8 (H, W, 3), range 0-255.

        Raises:
            InputError: The array has another shape or type.
        """
        check_picture(image)
        if min(image.shape[:2]) < CELL:
            return []
        shrink = min(1.0, self.max_size / max(image.shape[:2]))
        picture = resized(Image.fromarray(image), shrink)
        smallest = max(self.min_face * shrink, min(self.min_face, SMALLEST))
        boxes, scores, landmarks = self._cascade(picture, smallest)
        back = np.array([image.shape[1] / picture.width, image.shape[0] / picture.height], np.float32)
        return [
            Face(box * np.tile(back, 2), float(score), points * back)
            for box, score, points in zip(boxes, scores, landmarks, strict=True)
        ]

    def follow(self, image: NDArray[np.uint8], faces: Sequence[Face]) -> list[Face | None]:
        """Return each face of the frame before as it stands in this one; None where it is lost.

        O-Net alone looks around each box, which takes about a twentieth of the time of `detect` a face. A face may move by 0.4
        of its size between the two frames; one that turned up elsewhere is for `detect` to find.

        Args:
            image: The next frame, RGB, uint8 (H, W, 3), range 0-255.
            faces: Faces of the frame before, or where they are expected in this one, px.

        Raises:
            InputError: The array has another shape or type.
        """
        check_picture(image)
        return [self._look_again(image, face) for face in faces]

    def _look_again(self, image: NDArray[np.uint8], face: Face) -> Face | None:
        """Return what O-Net sees at a face's box, or None."""
        square = _square(face.box_xyxy[None])
        part, start, scale = _around(image, square[0])
        if not part.size:
            return None
        pixels, square = _normalise(part), ((square - start) * scale).astype(np.float32)
        for _ in range(2):
            boxes, scores, landmarks = _refine(self._onet, pixels, square, threshold=-1)
            if not len(boxes):
                return None
            before, square = square, _square(boxes)
            if np.abs(square - before).max() <= MOVED * (before[0, 2] - before[0, 0]):
                break
        if not scores[0] > min(FOLLOW, self.threshold):
            return None
        return Face(boxes[0] / scale + start, float(scores[0]), landmarks[0] / scale[:2] + start[:2])

    def _cascade(self, picture: Image.Image, smallest: float) -> tuple[Array, Array, Array]:
        """Return boxes (N, 4), scores (N,) and landmarks (N, 5, 2) in px of `picture`, best first."""
        proposals = self._propose(picture, smallest)
        pixels = _normalise(np.asarray(picture))
        boxes, scores, _ = _refine(self._rnet, pixels, proposals, THRESHOLDS[1])
        keep = suppress(boxes, scores, 0.7)
        boxes, scores, landmarks = _refine(self._onet, pixels, _square(boxes[keep]), self.threshold)
        keep = suppress(boxes, scores, 0.7, of_smaller=True)
        return boxes[keep], scores[keep], landmarks[keep]

    def _propose(self, picture: Image.Image, smallest: float) -> Array:
        """Return P-Net's square boxes over all scales, (N, 4) in px of `picture`."""
        boxes, scores = np.empty((0, 4), np.float32), np.empty(0, np.float32)
        scale, level = CELL / smallest, picture
        while min(picture.size) * scale >= CELL:
            size = (round(picture.width * scale), round(picture.height * scale))
            level = level.resize(size, Image.Resampling.BILINEAR)
            found, certain = _windows(*self._pnet.run(None, {"picture": _normalise(np.asarray(level))}))
            found *= np.tile(np.array(picture.size, np.float32) / size, 2)
            keep = suppress(found, certain, 0.5)
            boxes, scores = np.concatenate([boxes, found[keep]]), np.concatenate([scores, certain[keep]])
            scale *= FACTOR
        return _square(boxes[suppress(boxes, scores, 0.7)])


def _session(network: str, threads: int) -> Session:
    """Return a network ready to run, its weights supplied from memory."""
    graph = Path(__file__).with_name(f"mtcnn_{network}.onnx").read_bytes()
    return open_session(graph, threads, any_shape=True, weights=load_weights(network))


def _around(image: NDArray[np.uint8], square: Array) -> tuple[NDArray[np.uint8], Array, Array]:
    """Return the picture around a square, twice its size or what of that is inside, shrunk if the square is large.

    Returns:
        The part, uint8 (h, w, 3), empty if all of it is outside; its left and top, px, twice (4,); its px by a px of the
        picture, twice (4,).
    """
    side = float(square[2] - square[0])
    edges = np.concatenate([np.floor(square[:2] - side / 2), np.ceil(square[2:] + side / 2)])
    left, top, right, bottom = np.clip(edges, 0, np.tile(image.shape[1::-1], 2)).astype(int).tolist()
    part = image[top:bottom, left:right]
    whole = size = np.array([right - left, bottom - top])
    if side > LARGEST and part.size:
        size = np.maximum(1, np.round(whole * LARGEST / side)).astype(int)
        part = np.asarray(Image.fromarray(part).resize(size.tolist(), Image.Resampling.BILINEAR, reducing_gap=2.0))
    return part, np.tile([left, top], 2), np.tile(size / np.maximum(whole, 1), 2)


def _normalise(pixels: NDArray[np.uint8]) -> Array:
    """Return a picture (H, W, 3) as the networks take it, (1, 3, H, W) in about [-1, 1]."""
    values = np.empty((1, 3, *pixels.shape[:2]), np.float32)
    np.subtract(pixels.transpose(2, 0, 1)[None], np.float32(127.5), out=values)
    values *= np.float32(1 / 128)
    return values


def _score(logits: Array) -> Array:
    """Return the probability of a face from the logits (N, 2) of no face and face."""
    return 1 / (1 + np.exp(np.clip(logits[:, 0] - logits[:, 1], -80, 80)))


def _windows(box: Array, logits: Array) -> tuple[Array, Array]:
    """Return the windows that pass P-Net, (N, 4) in px of its input, and their scores.

    Args:
        box: Corrections, (1, 4, rows, columns), in units of the window.
        logits: Of no face and face, (1, 2, rows, columns).
    """
    rows, columns = np.nonzero(logits[0, 1] - logits[0, 0] > np.log(THRESHOLDS[0] / (1 - THRESHOLDS[0])))
    corner = np.stack([columns, rows, columns, rows], axis=1) * STRIDE + np.array([0, 0, CELL, CELL])  # (N, 4)
    windows = corner + CELL * box[0, :, rows, columns]
    return windows.astype(np.float32), _score(logits[0, :, rows, columns])


def _refine(network: Session, pixels: Array, boxes: Array, threshold: float) -> tuple[Array, Array, Array]:
    """Return the boxes that pass R-Net or O-Net, corrected, their scores and their landmarks.

    Args:
        network: R-Net or O-Net.
        pixels: The picture, (1, 3, H, W), normalised.
        boxes: Square boxes, (N, 4) in px.
        threshold: Score to pass.
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
    """Return boxes grown to squares around their centres."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0, keepdims=True) / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def suppress(boxes: Array, scores: Array, threshold: float, of_smaller: bool = False) -> NDArray[np.intp]:
    """Return the indices of the boxes that no better kept box overlaps by more than `threshold`, best first.

    Args:
        boxes: Left, top, right, bottom, (N, 4).
        scores: (N,).
        threshold: Greatest overlap allowed, intersection over union.
        of_smaller: Take the intersection over the smaller area instead, so that a box inside another goes.
    """
    order = np.argsort(-scores, kind="stable")
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        corner = np.maximum(boxes[best, :2], boxes[order, :2])
        shared = np.maximum(np.minimum(boxes[best, 2:], boxes[order, 2:]) - corner, 0).prod(axis=1)
        whole = np.minimum(area[best], area[order]) if of_smaller else area[best] + area[order] - shared
        order = order[shared <= threshold * whole]
    return np.array(kept, np.intp)
