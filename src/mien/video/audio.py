"""The sound of a video whose frames are written again: copied where the new container takes its codec, else encoded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from mien.errors import InputError, reason
from mien.video.container import VideoSource, locate, open_container

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer

COPIED = {
    "mp4": {"aac", "mp3", "ac3", "eac3", "alac"},
    "mov": {"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s24le"},
    "matroska": {"aac", "mp3", "ac3", "eac3", "flac", "opus", "vorbis", "dca", "pcm_s16le", "pcm_s24le"},
    "webm": {"opus", "vorbis"},
}
"""Codecs that are copied into each container: those that players expect there. Other sound is encoded."""

RATES = {"aac": (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000), "libopus": (48000,)}
"""Samples per second that each encoder takes."""


class _SharedFile:
    """An open file that another reader reads too: each keeps its own position."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._position = stream, 0

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._at_position(self._stream.seek, offset, whence)

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        return self._at_position(self._stream.read, size)

    def _at_position(self, call: Callable[..., Any], *arguments: int) -> Any:
        others = self._stream.tell()
        self._stream.seek(self._position)
        result = call(*arguments)
        self._position = self._stream.tell()
        self._stream.seek(others)
        return result


def find_sound(source: VideoSource, out: OutputContainer, start: float) -> Sound | None:
    """Add a stream for the sound of a video to a file that is being written; return None if the video has no sound.

    Args:
        source: The video, which another reader may be reading: its path, URL, bytes or open file.
        out: The file, before its first packet.
        start: Second of the video, counted from its first frame, at which the file begins.

    Raises:
        InputError: The video cannot be opened a second time, is a live stream, or ffmpeg does not know its sound.
    """
    import av

    location = locate(cast(BinaryIO, _SharedFile(cast(BinaryIO, source))) if hasattr(source, "read") else source)
    container = open_container(location)
    try:
        if not container.streams.audio:
            container.close()
            return None
        if location.timeout is not None and container.duration is None:
            raise ValueError("it is a live stream")
        return Sound(container, out, start)
    except (
        av.FFmpegError,
        LookupError,
        ValueError,
        TypeError,
        NotImplementedError,
    ) as error:  # PyAV has no base class for them
        container.close()
        raise InputError(f"{location.name}: its sound cannot be kept ({reason(error)}). Add it with another program.") from None


class Sound:
    """The sound of a video, on its way into another file.

    Attributes:
        copied: Whether it is copied, not encoded.
        problem: Why it ended early; None if it did not.
    """

    def __init__(self, container: InputContainer, out: OutputContainer, start: float) -> None:
        self._container, self._out, self._start = container, out, start
        self._source: Any = container.streams.audio[0]
        self._tick = self._source.time_base or Fraction(1, 1000)
        kind = out.format.name
        self.copied = self._source.codec_context.name.removesuffix("float") in COPIED[kind]
        # Time 0 is that of the first frame; sound that starts earlier has negative times.
        video: Any = container.streams.video[0]
        origin = (video.start_time or 0) * (video.time_base or 0)
        self._shift = round((float(origin) + start) / self._tick)
        # The edit list of MP4 and MOV lets a player decode the packet before the first one it plays. Others have none.
        self._lead = self.copied and kind in ("mp4", "mov")
        self._target = out.add_stream_from_template(self._source) if self.copied else _encoder(out, self._source)
        self.problem: str | None = None
        self._last: int | None = None
        self._pieces = self._read()
        self._next = next(self._pieces, None)

    def write_until(self, time: float) -> None:
        """Write the sound before this second of the new file."""
        while self._next is not None and self._next.pts < time / self._tick:
            if self.copied:
                self._next.stream = self._target
                self._out.mux(self._next)
            else:
                self._encode(self._next)
            self._next = next(self._pieces, None)

    def finish(self) -> None:
        """Write what the encoder holds."""
        if not self.copied:
            self._out.mux(self._target.encode(None))

    def close(self) -> None:
        """Close the video it came from."""
        self._container.close()

    def _read(self) -> Iterator[Any]:
        """Yield packets to copy or decoded frames to encode, with times from the start of the new file."""
        import av

        if self._start >= 2:  # seconds; an earlier start is reached faster without
            with suppress(av.FFmpegError):  # then it is read from the beginning
                self._container.seek(self._shift, stream=self._source)
        try:
            for packet in self._container.demux(self._source):
                for piece in [packet] if self.copied else packet.decode():
                    if piece.pts is not None and self._is_wanted(piece):
                        yield piece
        except (av.FFmpegError, OSError, ValueError) as error:
            self.problem = reason(error)

    def _is_wanted(self, piece: Any) -> bool:
        """Shift a piece to its time in the new file; return whether it is within the file and after the piece before."""
        piece.pts -= self._shift
        if self.copied:
            piece.dts = piece.pts
        if piece.pts < (-(piece.duration or 0) if self._lead else 0) or (self._last is not None and piece.pts <= self._last):
            return False
        self._last = piece.pts
        return True

    def _encode(self, frame: Any) -> None:
        import av

        try:
            packets = self._target.encode(frame)
        except (av.FFmpegError, ValueError) as error:  # such as a change from stereo to mono
            self.problem, self._pieces = str(error), iter(())
            return
        self._out.mux(packets)


def _encoder(out: OutputContainer, source: AudioStream) -> Any:
    name = "libopus" if out.format.name == "webm" else "aac"
    rate = source.rate if source.rate in RATES[name] else 48000
    stream: Any = out.add_stream(name, rate=rate, layout="stereo" if source.channels > 1 else "mono")
    stream.bit_rate = 128_000
    return stream
