"""Frames into a video: frames with their own times in, a file that plays anywhere out, with the sound of the original video.

H.264 (VP9 in .webm), 4:2:0, constant quality. Frame times are exact to the millisecond, so variable frame rates survive. The
sound is cut to the frames written. No frame refers to a later one: players then show the last frame for its full time, and
the times need no reordering.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from mien.atomic import atomic_path, output_error, remove_unfinished, uninterrupted
from mien.errors import InputError, OutputError
from mien.provenance import available_cores
from mien.video.audio import Sound, find_sound
from mien.video.container import LIVE_SCHEMES, SCHEMES, VideoSource, scheme_of

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.packet import Packet

    from mien.structures import Frame

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""Endings of videos that mien writes, and ffmpeg's container for each."""

TICK = Fraction(1, 90_000)
"""Seconds per unit of the encoder's times; .mkv and .webm round them to 1 ms."""

FPS = 25.0
"""Frames per second for frames without a time, by default."""

H264: dict[str, object] = {"crf": "20", "preset": "veryfast", "bf": "0"}
"""Options of H.264. At a constant rate factor of 20 (0 is lossless, 51 the worst) the eye hardly sees a difference."""

VP9: dict[str, object] = {"crf": "30", "b": "0", "deadline": "realtime", "cpu-used": "8", "row-mt": "1", "lag-in-frames": "0"}


class VideoWriter:
    """Writes frames as a video, complete or not at all; use it in `with`.

    The file gets its name when the writer is closed, also after Ctrl-C: then it holds the frames written so far. Any other
    exception leaves no file behind. Without a frame there is no file.

    Args:
        path: The file; its ending names the container: .mp4, .m4v, .mov, .mkv or .webm.
        like: The video that the frames come from, whose sound is kept: a path, bytes, an open file that can seek, even while
            it is read, or an `http` URL of a file, which is then downloaded twice. None, a camera and a live stream have no
            sound.
        fps: Frames per second, for frames without a time and for how long the last frame is shown; None shows the last frame
            as long as the one before.

    Attributes:
        frames: Number of frames written.
        sound: "none", "copied", "encoded", "cut short" where the sound of `like` is corrupt, or "left out" where it cannot be
            read.

    Raises:
        OutputError: The ending names no container, `like` is the file itself, or, from `write` and `close`, the file cannot
            be written.
    """

    def __init__(self, path: str | os.PathLike[str], *, like: VideoSource | None = None, fps: float | None = None) -> None:
        self._path = path
        self._kind = CONTAINERS.get(Path(path).suffix.lower())
        if self._kind is None:
            raise OutputError(f"{path} does not end like a video mien can write. End it with one of {', '.join(CONTAINERS)}.")
        with suppress(OSError, ValueError):  # one of them is not a file
            if isinstance(like, (str, os.PathLike)) and Path(like).samefile(path):
                raise OutputError(f"{path} is the video that is read. Write to another name.")
        self._like = like if like is not None and _can_be_read_twice(like) else None
        self._fps = fps
        self.frames = 0
        self.sound = "none"
        self._files = ExitStack()
        self._out: OutputContainer | None = None
        self._sound: Sound | None = None
        self._start = 0.0
        self._times: deque[int] = deque()  # of the frames in the encoder
        self._gap = round(1 / (fps or FPS) / TICK)
        self._last = 0
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None or issubclass(kind, KeyboardInterrupt):
            self.close()
        else:
            self.discard()

    def write(self, frame: Frame) -> None:
        """Write the next frame; one of another size than the first is scaled to it.

        Args:
            frame: RGB uint8 (H, W, 3), with its time in seconds or None. The file begins at the time of the first frame.

        Raises:
            OutputError: It cannot be written: a full disk, a read-only folder. No file is left behind.
        """
        if self._closed:
            raise ValueError("the video is closed")
        with uninterrupted(), self._or_discard():
            if self._out is None:
                self._open(frame)
            self._encode(frame)

    def close(self) -> None:
        """Finish the file and give it its name.

        Raises:
            OutputError: It cannot be written. No file is left behind.
        """
        if self._closed:
            return
        with uninterrupted(), self._or_discard():
            if self._out is not None:
                self._mux(self._stream.encode(None))
                if self._sound:
                    self._sound.write_until(float((self._last + self._gap) * TICK))
                    self._sound.finish()
                    self.sound = "cut short" if self._sound.problem else self.sound
                self._out.close()
            self._closed = True
            self._files.close()

    def discard(self) -> None:
        """Stop and leave no file behind; do nothing if the writer is closed."""
        if self._closed:
            return
        self._closed = True
        if self._out is not None:
            with suppress(Exception):  # what could not be written is thrown away
                self._out.close()
        discarded = OutputError(f"{self._path} is discarded")
        self._files.__exit__(type(discarded), discarded, None)  # an error makes `atomic_path` remove the temporary file

    @contextmanager
    def _or_discard(self) -> Iterator[None]:
        import av

        try:
            yield
        except BaseException as error:
            self.discard()
            if isinstance(error, OSError):
                raise output_error(self._path, error) from None
            if isinstance(error, (av.FFmpegError, LookupError)):
                raise OutputError(f"{self._path} cannot be encoded ({error}). Try another ending, such as .mp4.") from None
            raise

    def _open(self, first: Frame) -> None:
        import av

        path = Path(self._path)
        with suppress(OSError, OutputError):
            remove_unfinished(path.resolve().parent, [path.resolve().name])
        tmp_path = self._files.enter_context(atomic_path(path))
        options = {"movflags": "+faststart"} if self._kind in ("mp4", "mov") else {}
        self._out = av.open(str(tmp_path), "w", format=self._kind, options=options)
        height, width = _even(first.image).shape[:2]
        webm = self._kind == "webm"
        rate = Fraction(self._fps or FPS).limit_denominator(1001)
        self._stream: Any = self._out.add_stream("libvpx-vp9" if webm else "libx264", rate=rate)
        self._stream.options = VP9 if webm else H264
        context = self._stream.codec_context
        context.width, context.height, context.pix_fmt, context.time_base = width, height, "yuv420p", TICK
        context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709, so that all players show the same
        context.color_range = 1  # 16 to 235, as players expect
        context.thread_type, context.thread_count = "FRAME", min(4, available_cores())  # each thread holds frames
        self._start = first.time or 0.0
        if self._like is not None:
            try:
                self._sound = find_sound(self._like, self._out, self._start)
            except InputError:
                self.sound = "left out"
        if self._sound:
            self._files.callback(self._sound.close)
            self.sound = "copied" if self._sound.copied else "encoded"

    def _encode(self, frame: Frame) -> None:
        import av

        time = self.frames / (self._fps or FPS) if frame.time is None else frame.time - self._start
        pts = round(time / TICK)
        if self.frames:
            pts = max(pts, self._last + 1)
            self._gap = self._gap if self._fps else pts - self._last
        picture = av.VideoFrame.from_ndarray(_even(frame.image), format="rgb24")
        context = self._stream.codec_context
        picture = picture.reformat(context.width, context.height, "yuv420p", dst_colorspace="ITU709", threads=1)
        picture.pts, picture.time_base = pts, TICK
        self._times.append(pts)
        self._last = pts
        self.frames += 1
        self._mux(self._stream.encode(picture))
        if self._sound:
            self._sound.write_until(float(pts * TICK))

    def _mux(self, packets: list[Packet]) -> None:
        """Write encoded frames, each lasting until the next one."""
        assert self._out is not None
        for packet in packets:
            start = self._times.popleft()
            end = self._times[0] if self._times else self._last + self._gap
            packet.duration = max(1, round((end - start) * TICK / packet.time_base))
            self._out.mux(packet)


def _can_be_read_twice(video: VideoSource) -> bool:
    if not isinstance(video, (str, os.PathLike)):
        return not hasattr(video, "seekable") or video.seekable()
    scheme = scheme_of(os.fspath(video))
    return scheme not in LIVE_SCHEMES if scheme in SCHEMES else Path(video).is_file()


def _even(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture of even width and height, as 4:2:0 needs, by repeating the last row or column."""
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(image)
