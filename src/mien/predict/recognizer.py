"""`Recognizer`: pictures and videos in, expressions out. One object serves the notebook, the command line and the server."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from mien import weights
from mien.errors import InputError
from mien.faces import create_detector
from mien.faces.crop import FRAME, FRAME_MARGIN, FRAME_SCALE, align_face, crop_face, is_plausible
from mien.predict.backend import Backend
from mien.predict.onnx_backend import OnnxBackend
from mien.preprocess import check_crops, preprocess
from mien.structures import Face, Prediction

if TYPE_CHECKING:
    from mien.faces import Detector
    from mien.image import ImageSource
    from mien.predict.stream import VideoOptions
    from mien.structures import Reading
    from mien.video.reader import VideoReader
    from mien.video.sources import Source


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return probabilities of logits along the last axis, of the same shape.

    >>> softmax(np.array([[1000.0, 1000.0]])).tolist()
    [[0.5, 0.5]]
    """
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


class Recognizer:
    """Finds faces in pictures and videos and names their expressions.

    Args:
        model: A bundled model's name, the path of an `.onnx` file, or a loaded backend; None takes the default model.
        detector: A detector's name or a loaded one; None takes every picture for one ready face crop.
        min_face: Faces whose shorter side is below this are left out, px; None leaves none out, and the size to look for to the
            detector. Only with a name.
        max_faces: Keep at most this many faces of a picture, the largest; None keeps all.
        align: Turn every face upright by its five landmarks before it is cut out; None where it has them. True needs a detector
            that gives them.
        unsure_below: Confidence below which a prediction is marked `unsure`.
        threads: Threads of one network's run, and of the detector's; None takes every core this process may use, and the
            detector's own number.
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
        align: bool | None = None,
        unsure_below: float = 0.5,
        threads: int | None = None,
        batch_size: int = 64,
    ) -> None:
        if batch_size < 1 or (max_faces is not None and max_faces < 1) or not 0 <= unsure_below <= 1:
            raise InputError(
                "batch_size and max_faces must be at least 1 and unsure_below from 0 to 1, "
                f"got {batch_size}, {max_faces} and {unsure_below}"
            )
        self.backend = _load_backend(model, threads)
        self.detector = _load_detector(detector, min_face=min_face, threads=threads) if isinstance(detector, str) else detector
        if align and self.detector is None:
            raise InputError("ready crops have no landmarks to align by; choose a detector, or leave align out")
        if align and not getattr(self.detector, "landmarks", True):
            raise InputError(f"the detector {detector} gives no landmarks to align by; choose mtcnn, or leave align out")
        self.min_face = min_face
        self.max_faces = max_faces
        self.align = align
        self.unsure_below = unsure_below
        self.batch_size = batch_size

    @property
    def classes(self) -> tuple[str, ...]:
        """The model's classes, by index."""
        return self.backend.info.classes

    @overload
    def predict(  # type: ignore[overload-overlap]
        self, source: ImageSource, video: VideoOptions | None = None, *, bgr: bool = False
    ) -> list[Prediction]: ...

    @overload
    def predict(
        self, source: Iterable[ImageSource], video: VideoOptions | None = None, *, bgr: bool = False
    ) -> Iterator[list[Prediction]]: ...

    def predict(self, source: Any, video: VideoOptions | None = None, *, bgr: bool = False) -> Any:
        """Return the expression of every face in one source, or yield such a list for each of several.

        Within a picture or frame the largest face comes first; where none is found, the list is empty. A video's list holds
        all its frames, a folder's all its files; for long ones see `stream`.

        Args:
            source: A picture (path, the bytes of a file, PIL image or array, RGB uint8 (H, W, 3)), a video's path or URL, an
                open file, a folder or glob; or a list or an iterator of them, read as the results are asked for (pictures up
                to a batch ahead), which gives a list for each picture and video.
            video: How videos are read; None takes `VideoOptions()`.
            bgr: Arrays are BGR, as OpenCV gives them.

        Raises:
            InputError: A source cannot be read; of several this ends the lists, while `stream` goes on.
        """
        one = isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview, np.ndarray)) or hasattr(source, "read")
        if isinstance(source, Iterable) and not one:
            return self._predict_each(source, video, bgr)
        return [prediction for reading in self.stream([source], video, bgr=bgr) for prediction in _read(reading)]

    def _predict_each(
        self, sources: Iterable[ImageSource], video: VideoOptions | None, bgr: bool
    ) -> Iterator[list[Prediction]]:
        for _, readings in groupby(self.stream(sources, video, bgr=bgr), key=lambda reading: reading.number):
            yield [prediction for reading in readings for prediction in _read(reading)]

    def stream(
        self,
        sources: Iterable[ImageSource | Source],
        video: VideoOptions | None = None,
        *,
        bgr: bool = False,
        live: bool = False,
        on_video: Callable[[VideoReader], None] | None = None,
    ) -> Iterator[Reading]:
        """Yield what is read in each picture and each frame, in order, as it is read: any number, any length.

        A source that cannot be read yields a reading with its error, after what could be read of it, and stops nothing.

        Args:
            sources: Paths, folders, globs, URLs, `camera:0`, `-` for standard input, bytes, PIL images, arrays; see
                `mien.video.sources.expand`.
            video: How videos are read; None takes `VideoOptions()`.
            bgr: Arrays are BGR, as OpenCV gives them.
            live: Give each frame's reading at once, as a camera needs it, not a batch's together; frames that came meanwhile
                are left out.
            on_video: Called with each video when it was opened: its size, rate and duration.
        """
        from mien.predict.stream import VideoOptions, read
        from mien.video.sources import expand

        found = expand(sources, repeats=True)
        return read(self, map(_rgb, found) if bgr else found, video or VideoOptions(), live, on_video)

    def predict_faces(self, crops: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        """Return the expression of each ready face crop, in their order.

        Args:
            crops: uint8, grey (H, W) or RGB (H, W, 3), range 0-255; they may differ in size.

        Raises:
            InputError: A crop is of another type or shape.
        """
        return [Prediction(self.classes, p, unsure=self.is_unsure(p)) for p in self.probabilities(crops)]

    def is_unsure(self, probs: NDArray[np.float32]) -> bool:
        """Return whether the greatest of the probabilities (K,) is below `unsure_below`."""
        return float(probs.max()) < self.unsure_below

    def is_large(self, face: Face) -> bool:
        """Return whether the shorter side of a face's box is at least `min_face`, if that was asked for."""
        left, top, right, bottom = face.box_xyxy.tolist()
        return self.min_face is None or min(right - left, bottom - top) >= self.min_face

    def find_faces(self, image: NDArray[np.uint8]) -> list[Face]:
        """Return the faces of a picture, RGB uint8 (H, W, 3), the largest first, at most `max_faces`."""
        faces = [] if self.detector is None else filter(self.is_large, self.detector.detect(image))
        return sorted(faces, key=lambda face: face.area, reverse=True)[: self.max_faces]

    def crops(self, image: NDArray[np.uint8], faces: Sequence[Face | None]) -> list[NDArray[np.uint8]]:
        """Return what the network sees of each face of a picture; None takes the whole picture.

        Raises:
            InputError: A face has no landmarks, and they are aligned.
        """
        return [image if face is None else self._crop(image, face) for face in faces]

    def _crop(self, image: NDArray[np.uint8], face: Face) -> NDArray[np.uint8]:
        spec = self.backend.info.preprocess
        if not (is_plausible(face) if self.align is None else self.align):
            return crop_face(image, face, spec.crop_scale, spec.crop_shift)
        template = FRAME - [0, spec.crop_shift / FRAME_SCALE]
        margin = (spec.crop_scale / FRAME_SCALE * (1 + 2 * FRAME_MARGIN) - 1) / 2
        return align_face(image, face, max(spec.size), template, margin)

    def probabilities(self, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return the class probabilities of ready face crops, float32 (N, K)."""
        check_crops(crops)
        spec, size = self.backend.info.preprocess, self.batch_size
        batches = [self.backend.logits(preprocess(crops[i : i + size], spec)) for i in range(0, len(crops), size)]
        return softmax(np.concatenate(batches)) if batches else np.empty((0, len(self.classes)), np.float32)


def _read(reading: Reading) -> tuple[Prediction, ...]:
    """Return the predictions of a reading, or raise its error."""
    if reading.error is not None:
        raise reading.error
    return reading.predictions


def _rgb(source: Source) -> Source:
    """Return a source with the channels of an array the other way round."""
    is_colour = isinstance(source.value, np.ndarray) and source.value.ndim == 3
    return replace(source, value=source.value[..., ::-1]) if is_colour else source


def _load_backend(model: str | os.PathLike[str] | Backend | None, threads: int | None) -> Backend:
    if model is None:
        return OnnxBackend(weights.default_weights(), threads)
    if isinstance(model, (str, os.PathLike)):
        return OnnxBackend(weights.resolve(model), threads)
    return model


def _load_detector(name: str, **arguments: float | None) -> Detector:
    return create_detector(name, **{key: value for key, value in arguments.items() if value is not None})
