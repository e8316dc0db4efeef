"""Videos: a file, bytes, an address or a camera comes in, frames with their number and time come out, one at a time.

A frame's number counts every frame of the file, decoded or not, so a damaged frame leaves a gap and no other frame moves. Its
time is its own time stamp, from the first frame's, so a frame rate that varies is no matter. A seek range counts the frames
before it without decoding them: tables made of parts of a video join on either.
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

from mien.errors import InputError
from mien.structures import Frame
from mien.video.container import MAX_PIXELS, VideoSource, check_size, locate, open_container
from mien.video.timestamps import Clock, Numbers, duration_of, trusted
from mien.video.whole import breaks_off, promised

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame

__all__ = ["MAX_PIXELS", "VideoReader", "VideoSource", "open_video"]

RETRIES = 100
"""Times that a damaged file is read on."""

MAX_ASPECT = 4
"""Widest pixel, as a multiple of its height, and the other way round; more is taken for damage."""

LAST = 8
"""Frames at the end of which one that is damaged says that the end is missing, where no header says how long a video is."""

ROUNDING = 0.0005
"""Seconds by which a time stamp may be rounded."""

LOOK_BACK = (0.0, 10.0, 60.0)
"""Seconds before the place looked for from which decoding is tried, until a key frame before it is met."""


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
        source: A path, an address (`rtsp://`, `http://` ...), a camera (`camera:0`, or `camera:` and the device's path or
            name), a file's bytes, or an open binary file; one that cannot seek is copied to the disk first.
        fps: Frames a second to sample: the first one at or after each multiple of 1/fps; None takes every frame.
        start: Take frames from this second on; None from the first.
        end: Take frames before this second; None to the last.
        name: What errors call a video in memory.

    Raises:
        InputError: It cannot be opened, has no video or none that can be decoded, or a number is out of range.
    """
    first, last = check_part(fps, start, end)
    return VideoReader(source, fps, first, last, name)


def check_part(fps: float | None, start: float | None, end: float | None) -> tuple[float, float]:
    """Return the first second that is read and the one before which reading ends, or raise what `open_video` would.

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
    """A video that is being read: iterate over its frames, once; use it in `with` or close it.

    Frames are upright: turned and mirrored as the file says. Pixels that are not square are stretched, to the wider or the
    higher side, until they are. A frame of another size than the first is scaled to it.

    Iterating raises an `InputError` after the last frame that can be read if the video ends before its header says, within a
    frame or a packet, if frames before the end are missing because they are damaged, or if a live stream stops.

    Attributes:
        name: What errors call it.
        size: Width and height of a frame, px.
        fps: Its average frame rate; None if unknown.
        duration: In seconds, as its header says; None if unknown.
        frames: About how many frames it has, before sampling and cutting; None if unknown.
        live: It is read as it is sent: a camera or a network stream.
        sound: It has sound.
        damaged: Packets that could not be decoded, so far.
    """

    def __init__(self, source: VideoSource, sample: float | None, start: float, end: float, name: str | None = None) -> None:
        self._address = locate(source, name)
        self.name = self._address.name
        self._sample, self._start, self._end = sample, start, end
        self.damaged = 0
        self._open()
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.fps = float(rate) if rate and 0 < rate <= 1000 else None
        self._tick = self._stream.time_base or Fraction(1, 1000)
        self._clock = Clock(self._tick, self.fps)
        try:
            first = self._first_frame()
            self._describe(first)
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
        with suppress(ValueError, AttributeError):  # another thread is in it; there are none yet
            self._frames.close()  # ffmpeg crashes if a closed file is read on
        self._container.close()

    def _open(self) -> None:
        self._container, self._stream = open_container(self._address)
        self._numbers = Numbers(trusted(self._container, self._stream))
        self._failure: str | None = None
        self._reached: int | None = None  # where the last packet ends, in bytes
        self._damage: deque[bool] = deque(maxlen=LAST)  # whether each of the last frames was

    def _first_frame(self) -> VideoFrame:
        self._rest = self._decoded()
        first = next(self._rest, None)
        if first is None:
            raise InputError(
                f"{self.name}: none of its frames can be decoded; it is damaged, cut short, or has frames of more than "
                f"{MAX_PIXELS // 10**6} megapixels; make it anew, and smaller"
            )
        return first

    def _describe(self, first: VideoFrame) -> None:
        """Learn what the reader says about the video."""
        stream = self._stream
        self.duration = duration_of(self._container, stream)
        self.live = self._address.live or (self._address.timeout is not None and self.duration is None)
        self.sound = len(self._container.streams.audio) > 0
        self.frames = stream.frames or (round(self.duration * self.fps) if self.duration and self.fps else None)
        self._turn = _turn(first)
        self._stored = _square(first.width, first.height, stream.sample_aspect_ratio)
        self.size = self._stored[::-1] if self._turn[0] else self._stored
        check_size(self.name, *self.size)
        self._clock.origin = self._numbers.least(self._numbers.stamp(first)) or 0

    def _read(self, first: VideoFrame) -> Generator[Frame, None, None]:
        """Yield the frames that were asked for."""
        within = min(float(self._tick) / 2, ROUNDING) + 1e-9
        due, found, spared = self._start - within, False, 0
        rest = self._rest if self.live or self._start <= within else self._from_start()
        for frame in chain([first], rest):
            pts = self._numbers.stamp(frame)
            number, time = self._numbers.frame(pts), self._clock.time(pts)
            if time >= self._end - within:
                break
            if time < due:
                continue
            image = self._image(frame)
            if image is not None:
                if not found and (self._start > within or self._container.format.name == "mpegts"):
                    spared = self.damaged  # before the part, or before the first key frame of a broadcast
                found = True
                yield Frame(image, number, time)
            if self._sample:
                due = (math.floor((time + within) * self._sample) + 1) / self._sample - within
        else:
            self._check_end()
        if not found:
            until = "on" if math.isinf(self._end) else f"to {self._end:g} s"
            raise InputError(
                f"{self.name}: has no frame from {self._start:g} s {until}; it was read to {self._clock.end:.2f} s; "
                "choose another part"
            )
        if self.damaged > spared and not self.live:
            raise InputError(
                f"{self.name}: is damaged in {self.damaged - spared:,} places, whose frames are missing; the others were read; "
                "copy or download it again"
            )

    def _from_start(self) -> Iterator[VideoFrame]:
        """Yield the frames from the key frame before the start on, having counted those before."""
        target = self._clock.stamp(self._start)
        for packet in self._packets():
            self._numbers.packet(packet)
            if not self._numbers.known or (packet.dts is not None and packet.dts > target):
                break
        if self._numbers.known:
            for back in LOOK_BACK:
                self._numbers.jump(target)
                frames = self._sought(target - round(back / self._tick))
                first = next(frames, None)
                if first is not None and first.pts is not None and first.pts <= target:
                    self._clock.restart()
                    yield from chain([first], frames)
                    return
        self._container.close()  # without time stamps or key frames: decode it all
        self._open()
        self._clock.restart()
        yield from self._decoded()

    def _sought(self, stamp: int) -> Iterator[VideoFrame]:
        import av

        self._damage.clear()
        with suppress(av.FFmpegError):
            self._container.seek(stamp, stream=self._stream)
            yield from self._decoded()

    def _decoded(self) -> Iterator[VideoFrame]:
        """Yield frames, from where the container stands, in the order they are shown; skip and count damaged packets."""
        import av

        for packet in self._packets():
            self._numbers.packet(packet)
            try:
                # One that the file's end cut off: its error would come late and take whole frames along.
                frames = None if packet.is_corrupt and self._container.format.name != "mpegts" else packet.decode()
            except (av.FFmpegError, ValueError):
                frames = None
            if frames is None:
                self.damaged += 1
                self._failure = "its last part is damaged"
                continue
            if packet.size:
                self._failure = None
                self._clock.packet(packet)
                self._reached = None if packet.pos is None else packet.pos + packet.size
            self._damage.extend(frame.is_corrupt for frame in frames)
            yield from frames

    def _packets(self) -> Iterator[Packet]:
        """Yield the video's packets, an empty one at the end; go on behind damaged places of a file."""
        import av
        from av.packet import Packet

        for _ in range(RETRIES):
            try:
                yield from self._container.demux(self._stream)
                return
            except (av.FFmpegError, OSError) as error:
                self._failure = getattr(error, "strerror", None) or str(error)
                if self._address.timeout is not None:
                    break
        last = Packet()  # has the decoder give out what it holds
        last.stream = self._stream
        yield last

    def _image(self, frame: VideoFrame) -> NDArray[np.uint8] | None:
        """Return a frame's picture, RGB, upright; None if it has none."""
        import av

        width, height = self._stored
        try:
            # With threads, scaling a frame costs four times as much.
            image = frame.to_ndarray(format="rgb24", width=width, height=height, threads=1)
        except (av.FFmpegError, ValueError):
            self.damaged += 1
            return None
        swap, rows, columns = self._turn
        image = image.swapaxes(0, 1) if swap else image
        return np.ascontiguousarray(image[:: -1 if rows else 1, :: -1 if columns else 1])

    def _check_end(self) -> None:
        """Raise if the video should have gone on."""
        ended, whole = self._clock.end, promised(self._container, self._stream, self.duration, self._address)
        if self.live:
            raise InputError(
                f"{self.name}: the stream stopped at {ended:.2f} s ({self._failure or 'no more data'}); start again"
            )
        if self._failure or (self._clock.falls_short(whole) if whole is not None else self._breaks_off()):
            of = "" if whole is None else f" of {whole:.2f} s"
            raise InputError(
                f"{self.name}: ends at {ended:.2f} s{of}, cut short or damaged; its frames until there were read; "
                "copy or download it again"
            )

    def _breaks_off(self) -> bool:
        """Return whether a video whose header says nothing of its end lacks it."""
        if self._container.format.name != "mpegts" and any(self._damage):  # recordings of broadcasts end within a frame
            return True
        return breaks_off(self._container, self._address, self._reached)


def _turn(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """Return whether to swap a frame's axes, then turn its rows and its columns round; from its display matrix."""
    from av.sidedata.sidedata import Type

    data: Any = frame.side_data  # its declared type lacks what it holds
    if Type.DISPLAYMATRIX not in data:
        return False, False, False
    matrix = memoryview(data[Type.DISPLAYMATRIX]).cast("i")
    # A step to the right in the stored frame is a step of (a, b) on the screen, a step down one of (c, d).
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, d < 0, a < 0
    return True, b < 0, c < 0


def _square(width: int, height: int, aspect: Fraction | None) -> tuple[int, int]:
    """Return the size a frame takes with square pixels: one side stays, the other grows."""
    if not aspect or not Fraction(1, MAX_ASPECT) <= aspect <= MAX_ASPECT:
        return width, height
    return (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))
