"""Frames out of a video: a file, bytes, a URL or a camera comes in, frames with their number and time come out, one at a time.

A frame's number counts every frame of the file, decoded or not. Its time is its own time stamp, so variable frame rates are
exact. A seek counts the frames before the part without decoding them: tables of several parts of a video join on both.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import chain
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from mien.errors import InputError, reason
from mien.structures import Frame
from mien.video.container import MAX_PIXELS, VideoSource, check_size, locate, open_video_stream
from mien.video.damage import MAX_HELD, MAX_HELD_BYTES, DamageTracker, Decoded, Holes
from mien.video.timestamps import Clock, FrameNumbers, declared_duration, duration_of, has_own_times, is_shown

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame

TAIL = 8
"""Number of trailing frames to check: if one of them is corrupt, a file without a declared duration is truncated."""


def open_video(
    source: VideoSource,
    *,
    fps: float | None = None,
    start: float | None = None,
    end: float | None = None,
    name: str | None = None,
) -> VideoReader:
    """Return a reader of a video's frames; its first frame is decoded at once.

    Args:
        source: A path, a URL (`rtsp://`, `http://` ...), a camera (`camera:0`, or `camera:` and the device's path or name), a
            file's bytes, or an open binary file; a file that cannot seek is copied to the disk first.
        fps: Frames per second to sample: the first one at or after each multiple of 1/fps; None takes every frame.
        start: First second to read; None starts at the first frame.
        end: Second at which to stop; None reads to the end.
        name: What errors call the video; None takes its path, its URL without secrets, or "this video".

    Raises:
        InputError: It cannot be opened, has no video stream, no frame can be decoded, or a number is out of range.
    """
    first, last = check_part(fps, start, end)
    return VideoReader(source, fps, first, last, name)


def check_part(fps: float | None, start: float | None, end: float | None) -> tuple[float, float]:
    """Return the first second to read and the second at which to stop.

    Raises:
        InputError: A number is out of range.
    """
    if fps is not None and not 0 < fps < math.inf:
        raise InputError(f"the frame rate to sample at must be above 0, got {fps}")
    first, last = start or 0.0, math.inf if end is None else end
    if not 0 <= first < last:
        raise InputError(f"the part to read must start at 0 s or later and end after its start, got {start} to {end}")
    return first, last


class VideoReader:
    """A video that is being read. Iterate over its frames once; use it in `with` or close it.

    Frames are upright: rotated and mirrored as the file says. Pixels that are not square are made square by stretching one
    side. A frame of another size than the first is scaled to it.

    Frames whose pixels may be wrong because the file is corrupt have `damaged` set. Iterating raises an `InputError` after the
    last readable frame if the video is truncated, if frames before its end are missing or damaged, or if a live stream stops.

    Attributes:
        name: What errors call it.
        size: Width and height of a frame, px.
        fps: Average frame rate; None if unknown.
        duration: In seconds, as the header says; None if unknown.
        frames: Estimated number of frames, before sampling and cutting; None if unknown.
        live: Whether it is a camera or live stream.
        sound: Whether it has sound.
        damaged: Frames so far that are missing or were decoded with errors.
        marked: Frames so far whose pixels may be wrong, because they or frames that they copy from are damaged.
    """

    def __init__(self, source: VideoSource, sample: float | None, start: float, end: float, name: str | None = None) -> None:
        self._location = locate(source, name)
        self.name = self._location.name
        self._sample, self._start, self._end = sample, start, end
        self.damaged = self.marked = 0
        self._open()
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.fps = float(rate) if rate and 0 < rate <= 1000 else None
        self._tick = self._stream.time_base or Fraction(1, 1000)
        self._clock = Clock(self._tick, self.fps)
        try:
            self._following = self._decode()
            first = next(self._following, None)
            if first is None:
                raise InputError(
                    f"{self.name} has no frame that can be decoded: it is corrupt, truncated, or has frames of more than "
                    f"{MAX_PIXELS // 10**6} megapixels. Copy or download it again, or make it smaller."
                )
            self._describe(first.frame)
            self._frames = self._read(first)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        return self._frames

    def __next__(self) -> Frame:
        return next(self._frames)

    def close(self) -> None:
        """Close the file or camera; there are no more frames."""
        with suppress(ValueError, AttributeError):  # another thread is in it; or there is none yet
            self._frames.close()  # ffmpeg crashes if a closed file is read
        self._container.close()

    def _open(self) -> None:
        self._container, self._stream = open_video_stream(self._location)
        rate = self._stream.average_rate
        interval = float(1 / rate / self._stream.time_base) if rate and self._stream.time_base else None
        self._is_broadcast = self._container.format.name == "mpegts"  # its recordings may end within a frame
        self._numbers = FrameNumbers(has_own_times(self._container, self._stream), interval, self._is_broadcast)
        self._holes = Holes(self._container, self._stream, self._location)
        self.duration = duration_of(self._container, self._stream)
        self.live = self._location.live or (self._location.timeout is not None and self.duration is None)
        self._damage = DamageTracker(self._stream.codec_context.name, self._is_broadcast, hold=not self.live)
        self._failure: str | None = None  # why reading stopped, if nothing came after
        self._tail: deque[bool] = deque(maxlen=TAIL)  # whether each of the last frames is corrupt

    def _describe(self, first: VideoFrame) -> None:
        """Set the attributes that need the header or the first frame."""
        stream = self._stream
        self.sound = len(self._container.streams.audio) > 0
        self.frames = stream.frames or (round(self.duration * self.fps) if self.duration and self.fps else None)
        self._rotation = _rotation(first)
        self._stored_size = _square_pixels(first.width, first.height, stream.sample_aspect_ratio)
        self.size = self._stored_size[::-1] if self._rotation[0] else self._stored_size
        check_size(self.name, *self.size)
        self._clock.origin = self._numbers.first_stamp(self._numbers.stamp(first)) or 0

    def _read(self, first: Decoded) -> Generator[Frame, None, None]:
        """Yield the wanted frames, then check that the video is complete."""
        tolerance = min(float(self._tick) / 2, 0.0005) + 1e-9  # a container may round a time stamp by this
        is_part = self._start > tolerance
        due, lost = self._start - tolerance, 0
        waiting: deque[tuple[Decoded, int, float, NDArray[np.uint8] | None, int]] = deque()
        self._found = False
        for decoded in chain([first], self._from_start() if is_part and not self.live else self._following):
            pts = self._numbers.stamp(decoded.frame)
            number, time = self._numbers.frame(pts), self._clock.time(pts)
            if time >= self._end - tolerance:
                break
            if self._numbers.lost > lost:
                self._damage.lost(decoded.place)
            image = None if time < due else self._image(decoded.frame)
            if time >= due and self._sample:
                due = (math.floor((time + tolerance) * self._sample) + 1) / self._sample - tolerance
            # Only the picture waits: a frame would keep the decoder from using its memory again.
            without_frame = decoded._replace(frame=None)  # type: ignore[arg-type]
            waiting.append((without_frame, number, time, image, self._numbers.lost - lost))
            lost = self._numbers.lost
            most = min(MAX_HELD, MAX_HELD_BYTES // (3 * math.prod(self.size)))
            while waiting and (self._damage.is_settled(waiting[0][0]) or len(waiting) > most):
                yield from self._settled(*waiting.popleft())
        else:
            while waiting:
                yield from self._settled(*waiting.popleft())
            self.damaged = max(self.damaged + self._damage.errors(), self._holes.left_out)
            if not self._numbers.trusted and (self._holes.found or (self._damage.counts_missing and not self._holes.empty)):
                self.damaged += max(0, self._stream.frames - self._numbers.passed)
            self._check_end()
        while waiting:
            yield from self._settled(*waiting.popleft())
        if not self._found:
            until = "on" if math.isinf(self._end) else f"to {self._end:g} s"
            raise InputError(
                f"{self.name} has no frame from {self._start:g} s {until}. It was read to {self._clock.end:.2f} s. "
                "Choose another part."
            )
        if (self.damaged or self.marked) and not self.live:
            raise InputError(
                f"{self.name} is corrupt: {self.damaged:,} frames are missing or have errors. {self.marked:,} of the frames "
                "read are damaged, and their answers marked as unsure. Copy or download it again."
            )

    def _settled(
        self, decoded: Decoded, number: int, time: float, image: NDArray[np.uint8] | None, lost: int
    ) -> Iterator[Frame]:
        """Count the damage of a frame, given how many were lost before it, and yield it if it is wanted."""
        errors = self._damage.errors(decoded) + lost
        tolerance = min(float(self._tick) / 2, 0.0005) + 1e-9
        if time < self._start - tolerance:
            return
        if not self._found and self._start > tolerance:  # those before the part do not count
            errors = min(errors, round((time - self._start) * (self.fps or 0)))
        elif not self._found and self._is_broadcast:  # those before the first key frame cannot be decoded
            errors = 0
        self.damaged += errors
        self.marked += decoded.damaged and not decoded.excused
        if image is not None:
            self._found = True
            yield Frame(image, number, time, decoded.damaged)

    def _from_start(self) -> Iterator[Decoded]:
        """Yield the frames from the key frame before the start on, after counting those before the start."""
        import av

        self._clock.last = None  # the next frame does not follow the first
        target = self._clock.stamp(self._start)
        for packet, after_hole in self._packets():
            if is_shown(packet):
                self._numbers.packet(packet, after_hole)
                self._numbers.count(target)
            if not self._numbers.known or (packet.dts is not None and packet.dts > target):
                break
        if self._numbers.known and not self._holes.shift:
            for seconds in (0, 10, 60):  # before the target, until there is a key frame
                self._numbers.jump(target)
                self._tail.clear()
                self._damage.restart()
                self._holes.restart()
                try:
                    self._container.seek(target - round(seconds / self._tick), stream=self._stream)
                except av.FFmpegError:
                    continue
                frames = self._decode()
                first = next(frames, None)
                if first is not None and first.frame.pts is not None and first.frame.pts <= target:
                    yield from chain([first], frames)
                    return
        self._container.close()  # without time stamps or key frames: decode it all
        self._open()
        yield from self._decode()

    def _decode(self) -> Iterator[Decoded]:
        """Yield frames in the order they are shown, from the current position; skip and count corrupt packets."""
        import av

        hole = False
        for packet, after_hole in self._packets():
            hole = hole or after_hole
            if is_shown(packet):
                if self._numbers.packet(packet, hole):
                    self._damage.cut()
                self._damage.packet(packet, packet.pts if self._numbers.known else None, hole)
                hole = False
            if self._is_broadcast:  # noted; the decoder would mark the frame, but another one may be meant
                packet.is_corrupt = False
            try:
                # The decoder would report a packet that the file's end cut off late, and lose other frames with it.
                frames = None if packet.is_corrupt else packet.decode()
            except (av.FFmpegError, ValueError):
                frames = None
            if frames is None:
                self._damage.undecodable()
                self._failure = "its last part is corrupt"
                continue
            if packet.size:
                self._failure = None
                self._clock.packet(packet)
            elif packet.dts is None and (hole or self._is_truncated()):  # the last one; AVI files have empty ones within
                self._numbers.cut()
                self._damage.cut()
            self._tail.extend(frame.is_corrupt and not self._is_broadcast for frame in frames)
            for frame in frames:
                decoded = self._damage.frame(frame, frame.pts if self._numbers.known else None, not packet.size)
                if decoded is not None:
                    yield decoded
        self._damage.end()

    def _packets(self) -> Iterator[tuple[Packet, bool]]:
        """Yield the video's packets, each with whether bytes before it were skipped, and an empty one at the end."""
        import av
        from av.packet import Packet

        hole = False
        hold = self._holes.spoil_times and not self.live
        held: list[tuple[Packet, bool]] = []  # the latest packet, until it is known whether bytes after it were skipped
        for _ in range(100):  # give up after so many corrupt places
            try:
                for packet in self._container.demux(*self._holes.streams):
                    if self._holes.before(packet):
                        hole = True
                        if hold and (held or not packet.size):
                            self._holes.left_out += 1
                        for lost, after_hole in held:
                            self._damage.packet(lost, None, after_hole)
                        held.clear()
                        if self._holes.cuts:
                            self._damage.cut()
                    yield from held
                    held.clear()
                    if packet.stream is self._stream:
                        held.append((packet, hole))
                        hole = False
                    if not hold:
                        yield from held
                        held.clear()
                yield from held
                return
            except (av.FFmpegError, OSError, LookupError) as error:  # LookupError: a stream that the header does not name
                self._failure = reason(error)
                if self._location.timeout is not None:
                    break
        yield from held
        flush = Packet()  # makes the decoder return the frames it holds
        flush.stream = self._stream
        yield flush, False

    def _image(self, frame: VideoFrame) -> NDArray[np.uint8] | None:
        """Return a frame as RGB (H, W, 3), upright; None if it cannot be converted."""
        import av

        width, height = self._stored_size
        try:
            # With threads, scaling a frame costs four times as much.
            image = frame.to_ndarray(format="rgb24", width=width, height=height, threads=1)
        except (av.FFmpegError, ValueError):
            self.damaged += 1
            return None
        transpose, flip_rows, flip_columns = self._rotation
        image = image.swapaxes(0, 1) if transpose else image
        return np.ascontiguousarray(image[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1])

    def _is_truncated(self) -> bool:
        """Return whether the video should have been longer, when it has been read."""
        declared = declared_duration(self._container, self._stream)
        return self._failure is not None or (any(self._tail) if declared is None else self._clock.falls_short(declared))

    def _check_end(self) -> None:
        """Raise an `InputError` if the video should have been longer."""
        end = self._clock.end
        if self.live:
            raise InputError(
                f"{self.name}: the stream stopped at {end:.2f} s ({self._failure or 'no more data'}). Start it again."
            )
        if self._is_truncated():
            declared = declared_duration(self._container, self._stream)
            of = "" if declared is None else f" of {declared:.2f} s"
            raise InputError(
                f"{self.name} is truncated or corrupt: it ends at {end:.2f} s{of}. The frames until there were read. "
                "Copy or download it again."
            )


def _rotation(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """Return whether to transpose a frame, then reverse its rows and its columns, from its display matrix."""
    from av.sidedata.sidedata import Type

    data: Any = frame.side_data  # the declared type lacks the mapping
    if Type.DISPLAYMATRIX not in data:
        return False, False, False
    matrix = memoryview(data[Type.DISPLAYMATRIX]).cast("i")
    # A step to the right in the stored frame is a step of (a, b) on the screen, a step down one of (c, d).
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, d < 0, a < 0
    return True, b < 0, c < 0


def _square_pixels(width: int, height: int, aspect: Fraction | None) -> tuple[int, int]:
    """Return a frame's size with square pixels: one side stays, the other grows."""
    if not aspect or not 1 / 4 <= aspect <= 4:  # a header that claims more is wrong
        return width, height
    return (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))
