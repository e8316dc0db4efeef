"""`Recognizer`: pictures in, expressions out. One object serves the notebook, the command line, the server, the batch job."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mien import weights
from mien.errors import InputError, MienError
from mien.faces import create_detector
from mien.faces.crop import crop_face
from mien.image import read_image
from mien.preprocess import preprocess
from mien.runtime.backend import Backend
from mien.runtime.onnx_backend import OnnxBackend
from mien.structures import Face, Prediction

if TYPE_CHECKING:
    from mien.faces import Detector
    from mien.image import ImageSource


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return probabilities of logits along the last axis, of the same shape.

    >>> softmax(np.array([[1000.0, 1000.0]])).tolist()
    [[0.5, 0.5]]
    """
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


class Recognizer:
    """Finds faces in pictures and names their expressions.

    Args:
        model: A bundled model's name, the path of an `.onnx` file, or a loaded backend; None takes the default model.
        detector: A detector's name or a loaded one; None takes every picture for one ready face crop.
        min_face: Shorter side of the smallest face looked for, px; None leaves it to the detector. Only with a name.
        max_faces: Keep at most this many faces of a picture, the largest; None keeps all.
        threads: Threads of one network's run, the detector's too; None takes every core this process may use.
        batch_size: Faces run through the network at once.

    Attributes:
        backend: The loaded network.
        detector: The loaded detector, or None.

    Raises:
        CheckpointError: The model is missing or damaged.
        UnknownNameError: No such model or detector.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Backend | None = None,
        *,
        detector: str | Detector | None = "mtcnn",
        min_face: float | None = None,
        max_faces: int | None = None,
        threads: int | None = None,
        batch_size: int = 64,
    ) -> None:
        if batch_size < 1 or (max_faces is not None and max_faces < 1):
            raise InputError(f"batch_size and max_faces must be at least 1, got {batch_size} and {max_faces}")
        self.backend = _load_backend(model, threads)
        self.detector = _load_detector(detector, min_face=min_face, threads=threads) if isinstance(detector, str) else detector
        self.max_faces = max_faces
        self.batch_size = batch_size

    @property
    def classes(self) -> tuple[str, ...]:
        """The model's classes, by index."""
        return self.backend.info.classes

    def predict(self, source: ImageSource) -> list[Prediction]:
        """Return the expression of every face in one picture, the largest face first; none found is an empty list.

        Args:
            source: A path, the bytes of a file, a PIL image or an array, RGB uint8 (H, W, 3).

        Raises:
            InputError: The picture cannot be read.
        """
        image = read_image(source)
        if self.detector is None:
            faces: Sequence[Face | None] = [None]
            crops = [image]
        else:
            spec = self.backend.info.preprocess
            faces = self.find_faces(image)
            crops = [crop_face(image, face, spec.crop_scale, spec.crop_shift) for face in faces]
        name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
        probs = self.probabilities(crops)
        return [Prediction(self.classes, p, face, name) for p, face in zip(probs, faces, strict=True)]

    def predict_many(self, sources: Iterable[ImageSource]) -> Iterator[tuple[ImageSource, list[Prediction] | MienError]]:
        """Yield each picture with its predictions, or with the error that says why it has none.

        Pictures are read one at a time, as they are asked for, so their number has no bound; a bad one stops nothing.
        """
        for source in sources:
            try:
                yield source, self.predict(source)
            except MienError as error:
                yield source, error

    def predict_faces(self, crops: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        """Return the expression of each ready face crop, in their order.

        Args:
            crops: uint8, grey (H, W) or RGB (H, W, 3), range 0-255; they may differ in size.

        Raises:
            InputError: A crop is of another type or shape.
        """
        return [Prediction(self.classes, p) for p in self.probabilities(crops)]

    def find_faces(self, image: NDArray[np.uint8]) -> list[Face]:
        """Return the faces of a picture, RGB uint8 (H, W, 3), the largest first, at most `max_faces`."""
        faces = [] if self.detector is None else self.detector.detect(image)
        return sorted(faces, key=_area, reverse=True)[: self.max_faces]

    def probabilities(self, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return the class probabilities of ready face crops, float32 (N, K)."""
        spec, size = self.backend.info.preprocess, self.batch_size
        batches = [self.backend.logits(preprocess(crops[i : i + size], spec)) for i in range(0, len(crops), size)]
        return softmax(np.concatenate(batches)) if batches else np.empty((0, len(self.classes)), np.float32)


def _load_backend(model: str | os.PathLike[str] | Backend | None, threads: int | None) -> Backend:
    if model is None:
        return OnnxBackend(weights.default_weights(), threads)
    if isinstance(model, (str, os.PathLike)):
        return OnnxBackend(weights.resolve(model), threads)
    return model


def _load_detector(name: str, **arguments: float | None) -> Detector:
    return create_detector(name, **{key: value for key, value in arguments.items() if value is not None})


def _area(face: Face) -> float:
    left, top, right, bottom = face.box_xyxy
    return float((right - left) * (bottom - top))
