"""`Recognizer`: from a picture or a video to the expression of every face in it.

`Recognizer.stream` is the whole way, and its steps follow it in this file: open a source, find the faces, crop them, classify
the crops in batches, smooth over time, yield. Memory holds at most one batch of pictures and the frames that a centred filter
waits for, whatever the number of sources and the length of a video.
"""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mien.calibration import calibrated_probs, prediction_set, set_limit
from mien.errors import InputError, MienError, reason
from mien.faces import DEFAULT_DETECTOR, create_detector
from mien.faces.crop import (
    align_face,
    crop_face,
    crop_square,
    is_plausible,
    model_template,
    similarity,
    template_points,
)
from mien.faces.detect import check_faces
from mien.faces.quality import measure_quality, trusted
from mien.faces.track import VideoFaces
from mien.image import read_image
from mien.predict.backend import Backend, crop_logits, open_backend
from mien.predict.onnx_backend import check_logits
from mien.predict.smoothing import create_smoother
from mien.preprocess import check_crops
from mien.structures import Face, Frame, Prediction, Quality, Reading
from mien.video.live import newest
from mien.video.reader import VideoReader, check_part, open_video
from mien.video.sources import Source, expand

if TYPE_CHECKING:
    from mien.faces import Detector
    from mien.image import ImageSource

BATCH_BYTES = 32 * 2**20
"""Bytes of pictures that complete a batch, however few faces they show."""

WAITING_BYTES = 512 * 2**20
"""Bytes of frames that a centred filter may keep waiting."""


@dataclass(frozen=True, slots=True)
class VideoOptions:
    """How videos are read. Pictures ignore it.

    Attributes:
        fps: Frames per second to look at; None takes every frame.
        start: Where to begin, in seconds.
        end: Where to end, in seconds; None reads to the end.
        detect_every: Detect faces in every n-th frame and follow them in between.
        smooth: Filter over time for each person's probabilities: `none`, `exponential` or `centred`.
        smooth_seconds: Length of that filter, in seconds.

    Raises:
        InputError: A number is out of range.
        UnknownNameError: There is no such filter.
    """

    fps: float | None = None
    start: float | None = None
    end: float | None = None
    detect_every: int = 5
    smooth: str = "exponential"
    smooth_seconds: float = 0.3

    def __post_init__(self) -> None:
        if self.detect_every < 1:
            raise InputError(f"detect_every must be at least 1, got {self.detect_every}")
        check_part(self.fps, self.start, self.end)
        create_smoother(self.smooth, self.smooth_seconds)


@dataclass(slots=True, eq=False)
class _Located:
    """A picture or frame whose faces are found but not classified yet, or the error of a source."""

    name: str
    number: int
    frame: Frame | None = None
    faces: Sequence[tuple[int | None, Face | None]] = ()  # each with its track; the face is None for a ready crop
    crops: list[NDArray[np.uint8]] = field(default_factory=list)
    live: bool = False
    error: MienError | None = None


class Recognizer:
    """Finds the faces in pictures and videos and recognises their expressions.

    Several threads may share one: each gets the answers it would get alone. It keeps working after a fork, and it can be
    pickled and copied, unless a loaded backend or detector of your own cannot.

    Args:
        model: Name of a bundled model, `ensemble`, path of an `.onnx` file, `hf://user/model` on the Hugging Face Hub, or a
            loaded backend; None takes the default model.
        detector: Name of a detector, or a loaded one; None treats every picture as one ready face crop.
        min_face: Ignore faces whose shorter side is below this, in px. With the name of a detector it is also the size the
            detector looks for. None ignores none.
        max_faces: Keep at most this many faces per picture, the largest; None keeps all.
        align: Rotate each face upright by its five landmarks before it is cropped. None aligns the faces that have plausible
            landmarks; True requires a detector that returns them.
        unsure_below: Predictions with a confidence below this are marked `unsure`. The limit is 0.2 higher if an eye, the mouth
            or a quarter of the face is hidden. If there is nothing to see, every answer is unsure (see
            `mien.faces.quality.trusted`). 0 marks none.
        coverage: Also give each prediction a `set` of expressions. On faces like those the model was calibrated on, this share
            of the sets contains the right one. None gives no sets.
        threads: Threads of the network and of the detector; None takes every core this process may use, and the detector's own
            default.
        batch_size: Faces per run of the network.
        providers: Execution providers of ONNX Runtime for the network, in order of preference, such as `"openvino"` or
            `["CUDA", "CPU"]`. None takes CUDA if it works, else the CPU. Detectors run on the CPU.

    Attributes:
        backend: The loaded network.
        detector: The loaded detector, or None.

    Raises:
        CheckpointError: The model is missing or damaged.
        UnknownNameError: There is no such model, detector or provider.
        InputError: An argument is out of range, or the network does not run on one of `providers`.
        MissingExtraError: The installed ONNX Runtime does not have one of `providers`.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Backend | None = None,
        *,
        detector: str | Detector | None = DEFAULT_DETECTOR,
        min_face: float | None = None,
        max_faces: int | None = None,
        align: bool | None = None,
        unsure_below: float = 0.5,
        coverage: float | None = None,
        threads: int | None = None,
        batch_size: int = 64,
        providers: str | Sequence[str] | None = None,
    ) -> None:
        if batch_size < 1 or (max_faces is not None and max_faces < 1) or not 0 <= unsure_below <= 1:
            raise InputError(
                "batch_size and max_faces must be at least 1 and unsure_below from 0 to 1, "
                f"got {batch_size}, {max_faces} and {unsure_below}"
            )
        if model is None or isinstance(model, (str, os.PathLike)):
            model = open_backend(model, threads, providers)
        elif providers is not None:
            raise InputError("providers is for a model that is named; give it to the backend when you load that")
        self.backend: Backend = model
        given = {key: value for key, value in {"min_face": min_face, "threads": threads}.items() if value is not None}
        self._own_detector = not isinstance(detector, str)  # one of mien's own needs no check
        self.detector = create_detector(detector, **given) if isinstance(detector, str) else detector
        if align and self.detector is None:
            raise InputError("ready crops have no landmarks to align by; choose a detector, or leave align out")
        if align and not getattr(self.detector, "landmarks", True):
            raise InputError(f"the detector {detector} returns no landmarks to align by; choose mtcnn, or leave align out")
        self.min_face = min_face
        self.max_faces = max_faces
        self.align = align
        self.unsure_below = unsure_below
        self.coverage = coverage
        self._set_limit = None if coverage is None else set_limit(model.info.calibration, coverage)
        self.batch_size = batch_size

    @property
    def classes(self) -> tuple[str, ...]:
        """The model's classes, by index."""
        return self.backend.info.classes

    def predict(self, source: ImageSource, video: VideoOptions | None = None, *, bgr: bool = False) -> list[Prediction]:
        """Return the expression of every face in one source.

        The largest face of a picture or frame comes first. A video gives the predictions of all its frames, a folder those of
        all its files. The list is empty if no face is found. For many sources or long videos use `stream`.

        Args:
            source: A picture (path, bytes of a file, PIL image, or RGB array, uint8 (H, W, 3)), a path or address of a video,
                an open file, a folder or a glob pattern.
            video: How videos are read; None takes `VideoOptions()`.
            bgr: Arrays are BGR, as OpenCV returns them.

        Raises:
            InputError: The source, or a file in the folder, cannot be read; or there is more than one source. The others are
                still read, and the error's `predictions` holds theirs.
        """
        single = (str, os.PathLike, bytes, bytearray, memoryview, np.ndarray)
        if isinstance(source, Iterable) and not isinstance(source, single) and not hasattr(source, "read"):
            raise InputError(
                "predict takes one source; for several call stream, which yields a reading for each picture or frame"
            )
        predictions, errors = list[Prediction](), list[MienError]()
        for reading in self.stream([source], video, bgr=bgr):
            predictions += reading.predictions
            if reading.error is not None:
                errors.append(reading.error)
        if errors and predictions:
            error = InputError(
                f"{errors[0]} ({len(errors):,} could not be read completely; the {len(predictions):,} predictions of the rest "
                "are in the `predictions` of this error; `stream` yields a reading for each picture or frame)"
            )
            error.predictions = predictions
            raise error from errors[0]
        if errors:
            raise errors[0]
        return predictions

    def stream(
        self,
        sources: Iterable[ImageSource | Source],
        video: VideoOptions | None = None,
        *,
        bgr: bool = False,
        live: bool = False,
        on_video: Callable[[VideoReader], None] | None = None,
    ) -> Iterator[Reading]:
        """Yield a reading for each picture and each video frame, in order and as soon as it is ready.

        A source that cannot be read yields a reading with its error, after the frames that could be read. The other sources are
        still read.

        Args:
            sources: Paths, folders, glob patterns, addresses, `camera:0`, `-` for standard input, bytes, PIL images, arrays;
                see `mien.video.sources.expand`. Pictures are opened up to a batch ahead.
            video: How videos are read; None takes `VideoOptions()`.
            bgr: Arrays are BGR, as OpenCV returns them.
            live: Yield each frame at once instead of classifying a batch of frames together. Of a camera or network stream,
                skip the frames that arrive in the meantime.
            on_video: Called with each video after it is opened.
        """
        options = video or VideoOptions()
        smoother = create_smoother(options.smooth, options.smooth_seconds, self.unsure_below)
        located = self._locate(expand(sources, repeats=True), options, bgr, live, on_video)
        for batch in _batches(located, 1 if live else self.batch_size):
            for reading in self._classify(batch):
                yield from map(self._with_sets, smoother.push(reading))
        yield from map(self._with_sets, smoother.flush())

    def frames(self, frames: Iterable[Frame], video: VideoOptions | None = None, *, name: str = "frames") -> Iterator[Reading]:
        """Yield a reading for each frame of a video that you decode yourself, such as a camera's, as soon as it is ready.

        Faces are followed and smoothed over time, as in `stream`.

        Args:
            frames: The frames, in order of time.
            video: How faces are followed and smoothed; its `fps`, `start` and `end` are ignored.
            name: The source that readings and predictions name.
        """
        options = video or VideoOptions()
        smoother = create_smoother(options.smooth, options.smooth_seconds, self.unsure_below)
        for located in self._follow(frames, options, name, 0, live=True):
            for reading in self._classify([located]):
                yield from map(self._with_sets, smoother.push(reading))
        yield from map(self._with_sets, smoother.flush())

    def _locate(
        self,
        sources: Iterable[Source],
        options: VideoOptions,
        bgr: bool,
        live: bool,
        on_video: Callable[[VideoReader], None] | None,
    ) -> Iterator[_Located]:
        """Open each source and yield its pictures or frames with their faces cropped."""
        for number, source in enumerate(sources):
            try:
                if source.error is not None:
                    raise source.error
                if source.kind == "picture":
                    image = _read_picture(source, bgr)
                    faces = [None] if self.detector is None else self.find_faces(image)
                    yield _Located(
                        source.name, number, Frame(image), [(None, face) for face in faces], self.crops(image, faces)
                    )
                    continue
                with open_video(
                    source.value, fps=options.fps, start=options.start, end=options.end, name=source.name
                ) as reader:
                    _check_waiting(reader, options)
                    if on_video is not None:
                        on_video(reader)
                    frames = newest(reader) if live and reader.live else reader
                    yield from self._follow(frames, options, source.name, number, reader.live)
            except MienError as error:
                yield _Located(source.name, number, error=error)

    def _follow(self, frames: Iterable[Frame], options: VideoOptions, name: str, number: int, live: bool) -> Iterator[_Located]:
        """Yield the frames of one video with their faces followed and cropped."""
        tracked = None if self.detector is None else VideoFaces(self.detector, options.detect_every)
        for frame in frames:
            found = [(1, None)] if tracked is None else self._largest(tracked.step(frame))
            crops = self.crops(frame.image, [face for _, face in found])
            yield _Located(name, number, frame, found, crops, live=live)

    def find_faces(self, image: NDArray[np.uint8]) -> list[Face]:
        """Return the faces of a picture, RGB uint8 (H, W, 3), the largest first, at most `max_faces`."""
        found = [] if self.detector is None else self.detector.detect(image)
        return [face for _, face in self._largest([(None, face) for face in found])]

    def _largest(self, found: Sequence[tuple[Any, Face]]) -> list[tuple[Any, Face]]:
        """Return the faces of at least `min_face`, each with its track, the largest first, at most `max_faces`."""
        large = [each for each in found if self.min_face is None or _shorter_side(each[1]) >= self.min_face]
        return sorted(large, key=lambda each: each[1].area, reverse=True)[: self.max_faces]

    def crops(self, image: NDArray[np.uint8], faces: Sequence[Face | None]) -> list[NDArray[np.uint8]]:
        """Return the part of a picture that the network sees of each face; None stands for the whole picture.

        Raises:
            InputError: Faces are aligned, and one has no landmarks; or the user's detector returned an impossible face.
        """
        if self._own_detector:
            check_faces([face for face in faces if face is not None], image)
        spec = self.backend.info.preprocess
        template, margin = model_template(spec.crop_scale, spec.crop_shift)
        crops = []
        for face in faces:
            if face is None:
                crops.append(image)
            elif self._is_aligned(face):
                crops.append(align_face(image, face, max(spec.size), template, margin))
            else:
                crops.append(crop_face(image, face, spec.crop_scale, spec.crop_shift))
        return crops

    def crop_matrix(self, image: NDArray[np.uint8], face: Face | None) -> NDArray[np.float64]:
        """Return the affine map, (2, 3), from px of a picture to fractions of the sides of a face's crop by `crops`."""
        spec = self.backend.info.preprocess
        if face is not None and self._is_aligned(face) and face.landmarks is not None:
            template, margin = model_template(spec.crop_scale, spec.crop_shift)
            return similarity(face.landmarks, template_points(1, template, margin))
        left, top, width, height = 0, 0, image.shape[1], image.shape[0]
        if face is not None:
            left, top, width = crop_square(face, spec.crop_scale, spec.crop_shift)
            height = width
        return np.array([[1 / width, 0, -left / width], [0, 1 / height, -top / height]])

    def _is_aligned(self, face: Face) -> bool:
        return is_plausible(face) if self.align is None else self.align

    def _classify(self, batch: list[_Located]) -> Iterator[Reading]:
        """Yield the readings of a batch, all its crops classified together."""
        probs = iter(self.probabilities([crop for each in batch for crop in each.crops]))
        for each in batch:
            frame = each.frame
            if frame is None:
                yield Reading(each.name, None, error=each.error, number=each.number)
                continue
            faces = [face for _, face in each.faces]
            quality = measure_quality(each.crops, faces, frame.image.shape[:2], self._min_contrast)
            predictions = tuple(
                Prediction(
                    self.classes, p, face, each.name, frame.index, frame.time, track, self._is_unsure(p, q) or frame.damaged, q
                )
                for (track, face), p, q in zip(each.faces, islice(probs, len(each.faces)), quality, strict=True)
            )
            yield Reading(each.name, frame, predictions, number=each.number)

    def predict_faces(self, crops: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        """Return the expression of each ready face crop, in their order.

        Args:
            crops: uint8, grey (H, W) or RGB (H, W, 3), range 0-255; sizes may differ.

        Raises:
            InputError: A crop has another type or shape.
        """
        probs, size = self.probabilities(crops), self.batch_size
        parts = [crops[i : i + size] for i in range(0, len(crops), size)]
        quality = [each for part in parts for each in measure_quality(part, [None] * len(part), None, self._min_contrast)]
        predictions = (
            Prediction(self.classes, p, unsure=self._is_unsure(p, q), quality=q) for p, q in zip(probs, quality, strict=True)
        )
        return list(map(self._with_set, predictions))

    @property
    def _min_contrast(self) -> float:
        return self.backend.info.preprocess.min_contrast

    def _is_unsure(self, probs: NDArray[np.float32], quality: Quality) -> bool:
        return trusted(float(probs.max()), quality) < self.unsure_below

    def _with_sets(self, reading: Reading) -> Reading:
        return (
            reading
            if self._set_limit is None
            else replace(reading, predictions=tuple(map(self._with_set, reading.predictions)))
        )

    def _with_set(self, prediction: Prediction) -> Prediction:
        if self._set_limit is None:
            return prediction
        limit = self._set_limit if trusted(prediction.confidence, prediction.quality) else 0.0  # nothing to see: all of them
        return replace(prediction, set=tuple(self.classes[index] for index in prediction_set(prediction.probs, limit)))

    def probabilities(self, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return the class probabilities of ready face crops, calibrated if the model is, float32 (N, K)."""
        check_crops(crops)
        if isinstance(crops, np.ndarray) and crops.ndim == 3 and len(crops) in (3, 4):
            raise InputError(
                f"crops must be a list, got one array of shape {crops.shape}; if it is one crop with its channels first, give "
                f"[crop[:3].transpose(1, 2, 0)]; if it is {len(crops)} grey crops, give list(crops)"
            )
        size = self.batch_size
        logits = [crop_logits(self.backend, crops[i : i + size]) for i in range(0, len(crops), size)]
        if not logits:
            return np.empty((0, len(self.classes)), np.float32)
        check_logits(stacked := np.concatenate(logits), len(crops), self.backend.info, type(self.backend).__name__)
        return calibrated_probs(stacked, self.backend.info.calibration)

    def __copy__(self) -> Recognizer:
        new = object.__new__(type(self))
        vars(new).update(vars(self))
        return new

    def __getstate__(self) -> dict[str, Any]:  # for pickle and deepcopy
        for part in (self.backend, self.detector):
            if not type(part).__module__.startswith("mien."):
                _check_can_travel(part)
        return vars(self)


def _check_can_travel(part: object) -> None:
    """Refuse a loaded backend or detector of the user that cannot be pickled."""
    try:
        pickle.dumps(part)
    except (AttributeError, pickle.PicklingError):
        pass  # its class or a function is not in a module; other picklers, such as cloudpickle, can do that
    except Exception as error:  # it may raise anything
        raise InputError(
            f"this Recognizer cannot be copied or sent to another process, because its {type(part).__name__} cannot "
            f"({reason(error)}); create the Recognizer in the other process, or give that class a method __reduce__"
        ) from None


def _batches(located: Iterator[_Located], size: int) -> Iterator[list[_Located]]:
    """Yield groups with about `size` faces; fewer if their pictures are large or come from a live source."""
    batch: list[_Located] = []
    faces, held = 0, 0
    for each in located:
        batch.append(each)
        faces += max(1, len(each.faces))  # pictures without a face fill a batch too
        held += each.frame.image.nbytes if each.frame is not None else 0
        if faces >= size or held >= BATCH_BYTES or each.live:
            yield batch
            batch, faces, held = [], 0, 0
    if batch:
        yield batch


def _read_picture(source: Source, bgr: bool) -> NDArray[np.uint8]:
    """Return the RGB pixels of a picture; an array of the caller is copied, because it may change before its batch is full."""
    value = source.value
    if not isinstance(value, np.ndarray):
        return read_image(value, source.name)
    image = read_image(value[..., ::-1] if bgr and value.ndim == 3 else value, source.name)
    return image.copy() if np.may_share_memory(image, value) else image


def _check_waiting(video: VideoReader, options: VideoOptions) -> None:
    """Refuse a centred filter whose waiting frames would take too much memory."""
    frame_bytes = 3 * math.prod(video.size)
    rate = min(options.fps or math.inf, video.fps or 30.0)
    needed = frame_bytes * rate * options.smooth_seconds
    if options.smooth == "centred" and needed > WAITING_BYTES:
        raise InputError(
            f"{video.name}: smoothing 'centred' over {options.smooth_seconds:g} s would keep {needed / 2**20:,.0f} MB of "
            f"frames in memory; use at most {WAITING_BYTES / frame_bytes / rate:.2g} s, fewer frames a second, or 'exponential'"
        )


def _shorter_side(face: Face) -> float:
    left, top, right, bottom = face.box_xyxy.tolist()
    return min(right - left, bottom - top)
