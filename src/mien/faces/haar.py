"""OpenCV's Haar cascade: a cascade of boosted rectangle features over grey pictures, without a network and without landmarks.

Viola and Jones, "Rapid Object Detection using a Boosted Cascade of Simple Features", 2001. The cascade is Lienhart's
`haarcascade_frontalface_alt2`, which OpenCV 4 carries (Intel licence, BSD style) and OpenCV 5 no longer does. It finds upright
frontal faces only and is here for comparison with older work. Boxes are converted to MTCNN's framing.
"""

from __future__ import annotations

import importlib
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien.errors import CheckpointError, MissingExtraError
from mien.faces.detect import Framing, check_arguments, check_picture, shrink
from mien.provenance import available_cores
from mien.structures import Face

CASCADE = "haarcascade_frontalface_alt2.xml"

SMALLEST = 20
"""Side of the cascade's window, px."""

STEP = 1.1
"""Ratio of one scale of the picture to the next."""

HALF = 4
"""Number of agreeing windows that gives a score of 0.5."""

FRAMING = Framing(width=0.83, height=1.08, down=0.01)
"""From its boxes, which are squares, to MTCNN's, measured by `benchmarks/detection.py`."""

_LOCK = threading.Lock()
"""A cascade gives wrong answers in two threads at once, and OpenCV's number of threads belongs to the whole process."""

ADVICE = "run: pip install --force-reinstall 'opencv-python-headless<5'"


class Haar:
    """The detector. Calls from several threads take turns.

    Args:
        min_face: Side of the smallest face to find, px of the picture; the time goes with its inverse square.
        threshold: Lowest score of a face, 0 to 1. The score is n / (n + 4), where n windows agree on the face.
        max_size: Longer side a picture is shrunk to before anything else, px; it bounds time and memory.
        threads: Threads the cascade runs on. OpenCV has one setting for the whole process; it is restored after each picture.

    Raises:
        MissingExtraError: OpenCV is not installed.
        CheckpointError: OpenCV has no cascade, because it is version 5 or corrupt.
    """

    landmarks = False

    def __init__(self, min_face: float = 40, threshold: float = 0.5, max_size: int = 1280, threads: int = 2) -> None:
        check_arguments(min_face, threshold, max_size, threads, SMALLEST)
        self.min_face = min_face
        self.threshold = threshold
        self.max_size = max_size
        self.threads = threads
        self._cv2 = _opencv()
        self._cascade = _cascade(self._cv2)

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
        picture = shrink(full, self.max_size / max(full.size))
        back = np.array([full.width / picture.width, full.height / picture.height], np.float32)
        smallest = max(SMALLEST, round(self.min_face / FRAMING.height / float(back.max())))
        grey = np.asarray(picture.convert("L"))
        with _LOCK:
            before = self._cv2.getNumThreads()
            self._cv2.setNumThreads(min(self.threads, available_cores()))
            try:
                level = self._cv2.equalizeHist(grey)
                found, agreeing = self._cascade.detectMultiScale2(level, STEP, minNeighbors=1, minSize=(smallest, smallest))
            finally:
                self._cv2.setNumThreads(before)
        squares = np.array(found, np.float32).reshape(-1, 4)  # left, top, width, height
        squares[:, 2:] += squares[:, :2]
        windows = np.array(agreeing, np.int64).reshape(-1)
        boxes, scores = FRAMING.apply(squares * np.tile(back, 2)), windows / (windows + HALF)
        order = np.argsort(-scores, kind="stable")
        return [Face(boxes[i], float(scores[i])) for i in order if scores[i] > self.threshold]

    def __reduce__(self) -> tuple[Any, ...]:
        return Haar, (self.min_face, self.threshold, self.max_size, self.threads)


def _opencv() -> ModuleType:
    try:
        return importlib.import_module("cv2")
    except ImportError as error:  # OpenCV, or a library that it needs
        raise MissingExtraError(
            f"the detector haar needs OpenCV 4, which cannot be imported ({error}); run: pip install 'mien[detectors]'"
        ) from None


def _cascade(cv2: ModuleType) -> Any:
    if not hasattr(cv2, "CascadeClassifier") or not hasattr(cv2, "data"):
        raise CheckpointError(f"OpenCV {cv2.__version__} has no Haar cascades, version 4 has; {ADVICE}")
    path = Path(cv2.data.haarcascades) / CASCADE
    if not path.is_file():
        raise CheckpointError(f"{path}: no such cascade; {ADVICE}")
    try:
        cascade = cv2.CascadeClassifier(str(path))
    except (cv2.error, SystemError):  # OpenCV's Python binding raises either
        cascade = None
    if cascade is None or cascade.empty():
        raise CheckpointError(f"{path}: this cascade is corrupt; {ADVICE}")
    return cascade
