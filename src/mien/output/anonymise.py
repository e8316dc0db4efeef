"""Covers the faces of pictures and videos.

A video is read twice. First every frame is searched with a low threshold, and the faces are followed. Then the frames are
written with the faces covered, also where a face was lost for a while. What cannot be found is not covered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien.errors import InputError, MienError, UnknownNameError
from mien.faces import create_detector
from mien.faces.detect import Detector, Follower
from mien.faces.track import SAME_FACE, Tracker, iou
from mien.image import read_image
from mien.output.annotate import write_picture
from mien.output.paint import Box, fill
from mien.output.summary import Seen
from mien.structures import Face, Frame
from mien.video.reader import VideoReader, open_video
from mien.video.sources import Source
from mien.video.writer import VideoWriter

STYLES = ("mask", "pixelate", "blur")
"""`mask` fills a face with grey and leaves nothing of it; the others keep a trace."""

THRESHOLD, MIN_FACE = 0.2, 20
"""Lowest score of a face that is covered, 0 to 1, and the side of the smallest, px: far below those of recognition."""

MARGIN = 0.35
"""How far a cover reaches beyond the face's box on every side, in longer sides of the box: it includes ears and hairline."""

LOST = 3.0
"""Seconds for which a face may be lost. It is then covered wherever it may have been in between."""

HOLD = 1.0
"""Seconds for which a face's position is covered before it is first found and after it was last found."""

CELLS = 6
"""Cells per side of a face that is pixelated or blurred."""

GREY = (60, 60, 60)


def create_face_finder(min_face: float = MIN_FACE) -> Detector:
    """Return the detector that finds faces of at least `min_face` px to cover."""
    return create_detector("centerface", min_face=min_face, threshold=THRESHOLD)


def check_style(style: str) -> None:
    """Raise an `UnknownNameError` for an unknown style."""
    if style not in STYLES:
        raise UnknownNameError(f"unknown style {style!r}; choose one of {', '.join(STYLES)}")


def cover(image: NDArray[np.uint8], boxes: Iterable[Box], style: str = "mask") -> NDArray[np.uint8]:
    """Return a copy of a picture, RGB uint8 (H, W, 3), with boxes covered in one of the `STYLES`."""
    covered = image.copy()
    height, width = image.shape[:2]
    for box in boxes:
        left, top = max(0, int(box.left)), max(0, int(box.top))
        right, bottom = min(width, int(np.ceil(box.right))), min(height, int(np.ceil(box.bottom)))
        if left >= right or top >= bottom:
            continue
        if style == "mask":
            fill(covered, Box(left, top, right, bottom), GREY)
            continue
        part = Image.fromarray(image[top:bottom, left:right])
        cells = part.resize((CELLS, CELLS), Image.Resampling.BOX)
        back = Image.Resampling.NEAREST if style == "pixelate" else Image.Resampling.BICUBIC
        covered[top:bottom, left:right] = np.asarray(cells.resize(part.size, back))
    return covered


def anonymise_picture(source: Source, path: Path, detector: Detector, style: str = "mask") -> int:
    """Write a picture with its faces covered, without its metadata, and return the number of faces.

    Raises:
        InputError: The picture cannot be read.
        OutputError: It cannot be written.
    """
    image = read_image(source.value, source.name)
    boxes = [_grown(face) for face in detector.detect(image)]
    write_picture(path, cover(image, boxes, style))
    return len(boxes)


def anonymise_video(
    source: Source,
    path: Path,
    detector: Detector,
    style: str = "mask",
    sound: bool = True,
    on_frame: Callable[[str, Frame, VideoReader], None] | None = None,
) -> tuple[Seen, str, MienError | None]:
    """Write a video with its faces covered.

    Args:
        source: The video, a file.
        path: The file to write.
        detector: Finds the faces.
        style: One of `STYLES`.
        sound: Keep the sound.
        on_frame: Called with `searching` or `writing`, each frame and the video.

    Returns:
        The frames with and without a cover, `VideoWriter.sound`, and why the rest of the video could not be read, or None.

    Raises:
        InputError: The video cannot be read at all, or not twice.
        OutputError: It cannot be written. No file is left behind.
    """
    if source.kind != "video" or not isinstance(source.value, str) or not Path(source.value).is_file():
        raise InputError(f"{source.name}: is read twice, so it must be a file; save it as one first")
    with open_video(source.value, name=source.name) as reader:
        boxes = find_boxes(_until_error(reader, [], on_frame, "searching"), detector)
    seen, errors = Seen(), list[MienError]()
    writer = VideoWriter(path, like=source.value if sound else None)
    try:
        with open_video(source.value, name=source.name) as reader:
            height, width = reader.size[1], reader.size[0]
            for frame in _until_error(reader, errors, on_frame, "writing"):
                # A frame that was not searched is covered as a whole.
                covers = boxes.get(frame.index or 0, [Box(0, 0, width, height)])
                seen.add(frame.time or 0.0, len(covers), frame.damaged)
                writer.write(replace(frame, image=cover(frame.image, covers, style)))
        writer.close()
    except BaseException:
        writer.discard()
        raise
    return seen, writer.sound, errors[0] if errors else None


def _until_error(
    reader: VideoReader, errors: list[MienError], on_frame: Callable[[str, Frame, VideoReader], None] | None, step: str
) -> Iterable[Frame]:
    """Yield the frames that can be read."""
    try:
        for frame in reader:
            yield frame
            if on_frame is not None:
                on_frame(step, frame, reader)
    except InputError as error:
        errors.append(error)


def find_boxes(frames: Iterable[Frame], detector: Detector) -> dict[int, list[Box]]:
    """Return what to cover in each frame of a video, by the frame's number.

    A face is covered where it is found, with a margin. While it is lost, for `LOST` seconds at most, a box around the positions
    before and after is covered. Its first position is covered for `HOLD` seconds before, its last one for `HOLD` seconds after.
    """
    find = getattr(detector, "detect_frame", detector.detect)
    tracker = Tracker(LOST)
    times: dict[int, float] = {}
    tracks: dict[int, list[tuple[int, Box]]] = {}  # by person: the number of each frame with the face, and the cover
    previous: Sequence[Face] = []
    for frame in frames:
        index, time = frame.index or 0, frame.time or 0.0
        faces = list(find(frame.image))
        if isinstance(detector, Follower):  # a face of the frame before that is not detected may still be followed
            followed = [face for face in detector.follow(frame.image, previous) if face is not None]
            detected = (iou(followed, faces) >= SAME_FACE).sum(axis=1).tolist()
            faces += [face for face, again in zip(followed, detected, strict=True) if not again]
        times[index] = time
        for number, face in zip(tracker.update(time, frame.image, faces), faces, strict=True):
            tracks.setdefault(number, []).append((index, _grown(face)))
        previous = faces
    boxes: dict[int, list[Box]] = {index: [] for index in times}
    order = sorted(times)
    position = {index: i for i, index in enumerate(order)}
    for track in tracks.values():
        for index, box in track:
            boxes[index].append(box)
        for (index, box), (later, other) in pairwise(track):  # while the face was lost
            around = Box(*map(min, box[:2], other[:2]), *map(max, box[2:], other[2:]))
            for between in order[position[index] + 1 : position[later]]:
                boxes[between].append(around)
        for (index, box), step in ((track[0], -1), (track[-1], 1)):  # before it was first found, and after it was last found
            i = position[index] + step
            while 0 <= i < len(order) and abs(times[order[i]] - times[index]) <= HOLD:
                boxes[order[i]].append(box)
                i += step
    return boxes


def _grown(face: Face) -> Box:
    box = Box(*face.box_xyxy.astype(float).tolist())
    return box.grown(MARGIN * max(box.right - box.left, box.bottom - box.top))
