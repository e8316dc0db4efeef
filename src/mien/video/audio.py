"""The sound of a video that is drawn anew: passed on as it is where the new file takes its codec, encoded again where not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from mien.errors import InputError
from mien.video.container import Apart, VideoSource, locate

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer

KEPT = {
    "mp4": {"aac", "mp3", "ac3", "eac3", "alac"},
    "mov": {"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s24le"},
    "matroska": {"aac", "mp3", "ac3", "eac3", "flac", "opus", "vorbis", "dca", "pcm_s16le", "pcm_s24le"},
    "webm": {"opus", "vorbis"},
}
"""Codecs that are passed on into each container: those that players expect there."""

ENCODERS = {"mp4": "aac", "mov": "aac", "matroska": "aac", "webm": "libopus"}
"""What all others are encoded with."""

RATES = {"aac": (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000), "libopus": (48000,)}
"""Samples a second that each encoder takes."""

BIT_RATE = 128_000

SEEK_FROM = 2.0
"""Seconds into a video from which on its sound is sought, not read from the start."""


def find_sound(source: VideoSource, out: OutputContainer, start: float) -> Sound | None:
    """Add the sound of a video to a file that is about to be written; return None if it has none.

    Args:
        source: The video, which another reader may be reading: its path, its address, its bytes, or the open file.
        out: The file, before its first packet.
        start: What part of the video is the file's beginning, in seconds from its first frame.

    Raises:
        InputError: It cannot be opened a second time, is sent live, or its sound is of a kind ffmpeg does not know.
    """
    import av

    address = locate(cast(BinaryIO, Apart(cast(BinaryIO, source))) if hasattr(source, "read") else source)
    try:
        container = av.open(
            address.file, "r", address.format, address.options, timeout=address.timeout, metadata_errors="replace"
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{address.name}: cannot be opened a second time, for its sound ({_why(error)})") from None
    try:
        if not container.streams.audio:
            container.close()
            return None
        if address.timeout is not None and container.duration is None:
            raise ValueError("it is read as it is sent")
        return Sound(container, out, start)
    except (av.FFmpegError, LookupError, ValueError, TypeError, NotImplementedError) as error:
        container.close()
        raise InputError(f"{address.name}: its sound cannot be passed on ({_why(error)})") from None


class Sound:
    """The sound of a video, on its way into another file.

    Attributes:
        copied: It is passed on as it is, not encoded again.
        problem: Why it ended before its time; None if it did not.
    """

    def __init__(self, container: InputContainer, out: OutputContainer, start: float) -> None:
        self._container, self._out, self._start = container, out, start
        self._source: Any = container.streams.audio[0]
        self._tick = self._source.time_base or Fraction(1, 1000)
        kind = out.format.name
        self.copied = self._source.codec_context.name.removesuffix("float") in KEPT[kind]
        # Times count from the first frame; a sound that was recorded earlier begins before it.
        video: Any = container.streams.video[0]
        origin = (video.start_time or 0) * (video.time_base or 0)
        self._shift = round((float(origin) + start) / self._tick)
        # An edit list has a player decode the packet before the first one heard; other containers know no such thing.
        self._lead = kind in ("mp4", "mov")
        self._target = (
            out.add_stream_from_template(self._source) if self.copied else _encoder(out, self._source, ENCODERS[kind])
        )
        self.problem: str | None = None
        self._last: int | None = None
        self._waiting: Any = None
        self._packets = self._read()

    def pass_on(self, until: float) -> None:
        """Write the sound until this second of the new file."""
        stop = until / self._tick
        while True:
            packet = next(self._packets, None) if self._waiting is None else self._waiting
            self._waiting = packet
            if packet is None or packet.pts >= stop:
                return
            self._waiting = None
            if self.copied:
                packet.stream = self._target
                self._out.mux(packet)
            else:
                self._encode(packet)

    def finish(self) -> None:
        """Write what the encoder holds."""
        if not self.copied:
            self._out.mux(self._target.encode(None))

    def close(self) -> None:
        """Close the video it came from."""
        self._container.close()

    def _read(self) -> Iterator[Any]:
        """Yield what is to be written, packets or decoded frames, with times from the start of the new file."""
        import av

        if self._start >= SEEK_FROM:
            with suppress(av.FFmpegError):  # then it is read from the start
                self._container.seek(self._shift, stream=self._source)
        try:
            for packet in self._container.demux(self._source):
                for piece in [packet] if self.copied else packet.decode():
                    if piece.pts is not None and self._is_next(piece):
                        yield piece
        except (av.FFmpegError, OSError, ValueError) as error:
            self.problem = getattr(error, "strerror", None) or str(error)

    def _is_next(self, piece: Any) -> bool:
        """Move a piece to its time; whether it lies in the new file and after the one before."""
        piece.pts -= self._shift
        if self.copied:
            piece.dts = piece.pts
        length = piece.duration or 0
        if piece.pts < (-length if self._lead and self.copied else 0) or (self._last is not None and piece.pts <= self._last):
            return False
        self._last = piece.pts
        return True

    def _encode(self, frame: Any) -> None:
        import av

        try:
            packets = self._target.encode(frame)
        except (av.FFmpegError, ValueError) as error:  # such as a change from stereo to mono in the middle
            self.problem, self._packets = str(error), iter(())
            return
        self._out.mux(packets)


def _encoder(out: OutputContainer, source: AudioStream, name: str) -> Any:
    rate = source.rate if source.rate in RATES[name] else 48000
    stream: Any = out.add_stream(name, rate=rate, layout="stereo" if source.channels > 1 else "mono")
    stream.bit_rate = BIT_RATE
    return stream


def _why(error: Exception) -> str:
    """Return what an error says, without the address, which may hold a password."""
    return getattr(error, "strerror", None) or type(error).__name__
