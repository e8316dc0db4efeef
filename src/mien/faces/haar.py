"""OpenCV's Haar cascade: a cascade of boosted rectangle features over grey pictures; no network, no landmarks.

Viola and Jones, "Rapid Object Detection using a Boosted Cascade of Simple Features", 2001; the cascade is Lienhart's
`haarcascade_frontalface_alt2`, which OpenCV 4 carries (Intel licence, BSD style) and OpenCV 5 no longer does. It is here as the
plainest alternative: upright frontal faces only. Boxes come back in MTCNN's frame (see `mien.faces.framing`).
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien.errors import CheckpointError, MissingExtraError
from mien.faces.framing import Framing, check_arguments, check_picture, resized
from mien.structures import Face

CASCADE = "haarcascade_frontalface_alt2.xml"

SMALLEST = 20
"""Side of the cascade's window, px."""

STEP = 1.1
"""Ratio of one scale of the picture to the next."""

HALF = 4
"""Windows that agree on a face for a score of one half."""

FRAMING = Framing(width=0.83, height=1.08, down=0.01)
"""From its boxes, which are squares, to MTCNN's, as `benchmarks/detectors.py` measured it."""

ADVICE = "run: pip install --force-reinstall 'opencv-python<5'"


class Haar:
    """The detector. Calls of one instance must not overlap.

    Args:
        min_face: Side of the smallest face to find, px of the picture; the time goes with its inverse square.
        threshold: Score a face needs, 0 to 1. The score is n / (n + 4), where n windows agree on the face.
        max_size: Longer side a picture is shrunk to before anything else, px; it bounds time and memory.
        threads: Threads the cascade runs on. OpenCV has one number for the whole process; it is put back after each picture.

    Raises:
        MissingExtraError: OpenCV is not installed.
        CheckpointError: OpenCV has no cascade: it is version 5 or damaged.
    """

    landmarks = False
    """It gives none."""

    def __init__(self, min_face: float = 40, threshold: float = 0.5, max_size: int = 1280, threads: int = 2) -> None:
        check_arguments(min_face, threshold, max_size, threads, SMALLEST)
        self.min_face = min_face
        self.threshold = threshold
        self.max_size = max_size
        self.threads = threads
        self._cv2 = _opencv()
        self._cascade = _cascade(self._cv2)

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
        picture = resized(full, self.max_size / max(full.size))
        back = np.array([full.width / picture.width, full.height / picture.height], np.float32)
        smallest = max(SMALLEST, round(self.min_face / FRAMING.height / float(back.max())))
        squares, agreeing = self._squares(np.asarray(picture.convert("L")), smallest)
        boxes, scores = FRAMING.apply(squares * np.tile(back, 2)), agreeing / (agreeing + HALF)
        order = np.argsort(-scores, kind="stable")
        return [Face(boxes[i], float(scores[i])) for i in order if scores[i] > self.threshold]

    def _squares(self, grey: NDArray[np.uint8], smallest: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the cascade's boxes (N, 4) in a grey picture (H, W) and how many windows agree on each, (N,)."""
        before = self._cv2.getNumThreads()
        self._cv2.setNumThreads(self.threads)
        try:
            level = self._cv2.equalizeHist(grey)
            found, agreeing = self._cascade.detectMultiScale2(level, STEP, minNeighbors=1, minSize=(smallest, smallest))
        finally:
            self._cv2.setNumThreads(before)
        boxes = np.array(found, np.float32).reshape(-1, 4)  # left, top, width, height
        boxes[:, 2:] += boxes[:, :2]
        return boxes, np.array(agreeing, np.int64).reshape(-1)


def _opencv() -> ModuleType:
    """Return OpenCV."""
    try:
        return importlib.import_module("cv2")
    except ImportError as error:  # also one of its libraries
        raise MissingExtraError(
            f"the detector haar needs OpenCV 4, which cannot be imported ({error}); run: pip install 'mien[detectors]'"
        ) from None


def _cascade(cv2: ModuleType) -> Any:
    """Return the loaded cascade."""
    if not hasattr(cv2, "CascadeClassifier") or not hasattr(cv2, "data"):
        raise CheckpointError(f"OpenCV {cv2.__version__} has no Haar cascades, version 4 has; {ADVICE}")
    path = Path(cv2.data.haarcascades) / CASCADE
    if not path.is_file():
        raise CheckpointError(f"{path}: no such cascade; {ADVICE}")
    try:
        cascade = cv2.CascadeClassifier(str(path))
    except (cv2.error, SystemError):  # the binding turns some of OpenCV's errors into the second
        cascade = None
    if cascade is None or cascade.empty():
        raise CheckpointError(f"{path}: this cascade is damaged; {ADVICE}")
    return cascade
