"""From sources to readings: pictures and the frames of videos, located, recognised in batches, smoothed; in order, one by one.

Nothing is kept longer than a batch (and the window of a centred filter, large frames on the disk), so the length of a video and
the number of pictures have no bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mien.errors import InputError, MienError
from mien.faces.track import VideoFaces
from mien.image import read_image
from mien.predict.smoothing import create_smoother
from mien.structures import Face, Frame, Prediction, Reading
from mien.video.live import newest
from mien.video.reader import VideoReader, check_part, open_video

if TYPE_CHECKING:
    from mien.faces import Detector
    from mien.predict.recognizer import Recognizer
    from mien.video.sources import Source

OnVideo = Callable[[VideoReader], None]

HELD = 1 << 25
"""Bytes of pictures that wait for their batch, at most; at least one does."""


@dataclass(frozen=True, slots=True)
class VideoOptions:
    """How a video is read; pictures are read the same whatever it says.

    Attributes:
        fps: Frames looked at in a second; None takes all.
        start: Where to begin, in seconds.
        end: Where to end, in seconds; None reads to the end.
        detect_every: Look for faces in every frame of this number, and follow those found in the frames between.
        smooth: What smooths the probabilities of each track over time: none, exponential or centred.
        smooth_seconds: How long that filter is, in seconds.

    Raises:
        InputError: A number is out of range.
        UnknownNameError: No such filter.
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
class Located:
    """A picture or frame whose faces are known and not yet recognised, or the error of a source."""

    source: Source
    number: int
    frame: Frame | None = None
    faces: Sequence[Face | None] = ()
    tracks: Sequence[int | None] = ()
    crops: list[NDArray[np.uint8]] = field(default_factory=list)
    error: MienError | None = None
    live: bool = False  # it is sent as it happens: nothing waits for more of it


def read(
    recognizer: Recognizer, sources: Iterable[Source], options: VideoOptions, live: bool, on_video: OnVideo | None = None
) -> Iterator[Reading]:
    """Yield what is read in each picture and frame, in order; a source that cannot be read yields its error and stops nothing.

    Args:
        recognizer: What finds, crops and recognises faces.
        sources: What `mien.video.sources.expand` returned.
        options: How videos are read.
        live: Recognise every frame at once instead of waiting for a batch; of a camera or stream, which is never waited for,
            only the newest.
        on_video: Called with each video when it was opened.
    """
    smoother = create_smoother(options.smooth, options.smooth_seconds, recognizer.unsure_below)
    for batch in _batches(_located(recognizer, sources, options, live, on_video), 1 if live else recognizer.batch_size):
        for reading in _recognised(recognizer, batch):
            yield from smoother.push(reading)
    yield from smoother.flush()


def _located(
    recognizer: Recognizer, sources: Iterable[Source], options: VideoOptions, live: bool, on_video: OnVideo | None
) -> Iterator[Located]:
    for number, source in enumerate(sources):
        try:
            if source.error is not None:
                raise source.error
            if source.kind == "picture":
                yield _in_picture(recognizer, source, number)
            else:
                yield from _in_video(recognizer, source, number, options, live, on_video)
        except MienError as error:
            yield Located(source, number, error=error)


def _in_picture(recognizer: Recognizer, source: Source, number: int) -> Located:
    image = read_image(source.value, source.name)
    if isinstance(source.value, np.ndarray) and np.may_share_memory(image, source.value):
        image = image.copy()  # it waits for its batch, and its owner may fill it again
    frame = Frame(image)
    faces = recognizer.find_faces(frame.image) if recognizer.detector is not None else [None]
    return Located(source, number, frame, faces, [None] * len(faces), recognizer.crops(frame.image, faces))


def _in_video(
    recognizer: Recognizer, source: Source, number: int, options: VideoOptions, live: bool, on_video: OnVideo | None
) -> Iterator[Located]:
    step = _crop_of_each_frame if recognizer.detector is None else _follower(recognizer.detector, options)
    with open_video(source.value, fps=options.fps, start=options.start, end=options.end, name=source.name) as video:
        if on_video is not None:
            on_video(video)
        for frame in newest(video) if live and video.live else video:
            large = [each for each in step(frame) if each[1] is None or recognizer.is_large(each[1])]
            found = _largest(large, recognizer.max_faces)
            faces = [face for _, face in found]
            crops = recognizer.crops(frame.image, faces)
            yield Located(source, number, frame, faces, [track for track, _ in found], crops, live=video.live)


def _follower(detector: Detector, options: VideoOptions) -> Callable[[Frame], list[tuple[int, Face]]]:
    return VideoFaces(detector, detect_every=options.detect_every).step


def _crop_of_each_frame(frame: Frame) -> list[tuple[int, None]]:
    """Take each frame for one ready crop of one person."""
    return [(1, None)]


def _largest(found: Sequence[tuple[int, Face | None]], count: int | None) -> list[tuple[int, Face | None]]:
    """Return at most so many of the faces, the largest first."""
    return sorted(found, key=lambda each: 0.0 if each[1] is None else -each[1].area)[:count]


def _batches(located: Iterator[Located], size: int) -> Iterator[list[Located]]:
    """Yield runs of located frames with about `size` faces, or fewer where their pictures are large or come live."""
    batch: list[Located] = []
    faces, held = 0, 0
    for each in located:
        batch.append(each)
        faces += max(1, len(each.faces))  # pictures without a face wait too
        held += each.frame.image.nbytes if each.frame is not None else 0
        if faces >= size or held >= HELD or each.live:
            yield batch
            batch, faces, held = [], 0, 0
    if batch:
        yield batch


def _recognised(recognizer: Recognizer, batch: list[Located]) -> Iterator[Reading]:
    """Yield the readings of a batch, its faces recognised together."""
    probs = iter(recognizer.probabilities([crop for each in batch for crop in each.crops]))
    for each in batch:
        frame, name = each.frame, each.source.name
        if frame is None:
            yield Reading(name, None, error=each.error, number=each.number)
            continue
        predictions = tuple(
            Prediction(recognizer.classes, p, face, name, frame.index, frame.time, track, recognizer.is_unsure(p))
            for face, track, p in zip(each.faces, each.tracks, probs, strict=False)  # `probs` goes on with the next frame's
        )
        yield Reading(name, frame, predictions, number=each.number)
