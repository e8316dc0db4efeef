"""Opening a video: a path, an address, a camera, bytes or an open file comes in, a PyAV container out, or an `InputError`."""

from __future__ import annotations

import ctypes
import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from mien.errors import InputError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

VideoSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO

MAX_PIXELS = 36_000_000
"""Pixels of the largest frame that is decoded, a little over 8K; a decoder holds many frames at once."""

LARGE = 1_000_000
"""Pixels from which several frames are decoded at once, a little over 720p."""

MAX_BLOCK = 256 * 2**20
"""Bytes that ffmpeg may ask for at once; the index of forty hours takes 200 MB, a damaged one 2 GB."""

TIMEOUT = 10.0
"""Seconds a camera or an address may be silent."""

LIVE_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "srt", "udp", "tcp")
"""Schemes of addresses that are read as they are sent; `http` and `https` may be files or streams."""

SCHEMES = ("http", "https", *LIVE_SCHEMES)
"""Schemes of the addresses that are read."""

TEXT_ART = frozenset(("tty", "bin", "xbin", "adf", "idf"))
"""What ffmpeg makes of plain text: a film of letters."""

_URL = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)

_PASSWORD = re.compile(r"(?<=://)([^/:@?#\[]*):(?!\d{1,5}[/?#])(?:[^?#]*|.*)@")
"""What stands between a user's name and the host, also with signs that should have been encoded; a port and a path do not."""

_SECRET = re.compile(
    r"([?&;#/](?:[^=&;#/]*(?:pass|pwd|psw|token|secret|credential)[^=&;#/]*|[^=&;#/]*(?:key|pas)|(?:[^=&;#/]*[_-])?(?:auth|pw|sig)"
    r"|authorization|[^=&;#/]*signature)=)[^&#]+",
    re.IGNORECASE,
)
"""A field of an address whose name says that its value is secret."""

_SECRET_PART = re.compile(r"(_(?:password|passwd|pass|pwd)=)[^&/?#]+?(?=_[a-z]+=|[&/?#]|$)", re.IGNORECASE)
"""The same as some cameras write it: `/user=me_password=secret_channel=1`."""


@dataclass(frozen=True, slots=True)
class Address:
    """What PyAV is told to open.

    Attributes:
        file: A name in ffmpeg's words, or an open file.
        name: What errors call it.
        format: The device's format; None lets ffmpeg find out.
        options: ffmpeg's options.
        timeout: Seconds to wait for data; None waits for ever, as for a file on a disk.
        live: It is read as it is sent, and cannot be read again.
    """

    file: Any
    name: str
    format: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    timeout: float | None = None
    live: bool = False


class Copy:
    """What a stream sends, on the disk for as long as somebody holds this.

    Args:
        stream: An open binary file, read to its end.

    Raises:
        OSError: It cannot be read, or the disk is full.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        shutil.copyfileobj(stream, self._file)
        self._file.seek(0)

    def __del__(self) -> None:
        self._file.close()

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, at most so many."""
        return self._file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place, as a file does."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the place."""
        return self._file.tell()

    def seekable(self) -> bool:
        """Return that it can go back."""
        return True


class Apart:
    """An open file that is read from a place of its own, while another reader goes on where it is.

    Args:
        stream: An open binary file that can go back.
    """

    def __init__(self, stream: BinaryIO | Copy) -> None:
        self._stream, self._place = stream, 0

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, at most so many."""
        with self._here():
            return self._stream.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place, as a file does."""
        with self._here():
            return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """Return the place."""
        return self._place

    def seekable(self) -> bool:
        """Return that it can go back."""
        return True

    @contextmanager
    def _here(self) -> Iterator[None]:
        others = self._stream.tell()
        self._stream.seek(self._place)
        try:
            yield
        finally:
            self._place = self._stream.tell()
            self._stream.seek(others)


def scheme_of(name: str) -> str | None:
    """Return the scheme of an address, in lower case; None of a path.

    >>> scheme_of("RTSP://door/1"), scheme_of("C:/film.mp4")
    ('rtsp', None)
    """
    match = _URL.match(name)
    return match[1].lower() if match else None


def without_password(address: str) -> str:
    """Return an address as it may be shown: its password, if it has one, as stars; and what its query names as secret.

    >>> without_password("rtsp://me:secret@door:554/1"), without_password("http://door:8/a")
    ('rtsp://me:***@door:554/1', 'http://door:8/a')
    >>> without_password("http://door/v.cgi?user=me&pwd=secret&camera=2")
    'http://door/v.cgi?user=me&pwd=***&camera=2'
    """
    shown = _PASSWORD.sub(r"\1:***@", address)
    return _SECRET_PART.sub(r"\1***", _SECRET.sub(r"\1***", shown))


def piece(address: Address, start: int, size: int) -> bytes:
    """Return at most so many bytes of a file, from a place on, one below 0 from its end; none of what is sent."""
    with suppress(OSError, ValueError), ExitStack() as files:
        if hasattr(address.file, "seek"):
            stream = Apart(address.file)
        elif address.timeout is None:
            stream = Apart(files.enter_context(Path(address.file.removeprefix("file:")).open("rb")))
        else:
            return b""
        length = stream.seek(0, os.SEEK_END)
        stream.seek(start if start >= 0 else max(0, length + start))
        return stream.read(size)
    return b""


def locate(source: VideoSource, name: str | None = None) -> Address:
    """Return what to open for a source; `name` is what errors call one in memory.

    Raises:
        InputError: It is of the wrong type, of an unknown scheme, or no file that can be read.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _opened(io.BytesIO(source), name or "this video (bytes)", len(source))
    if hasattr(source, "read"):
        return _from_stream(cast(BinaryIO, source), name or str(getattr(source, "name", "this video (a stream)")))
    if not isinstance(source, (str, os.PathLike)):
        raise InputError(f"cannot read a video from {type(source).__name__}; give a path, an address, bytes or an open file")
    path = os.fspath(source)
    if path.startswith("camera:"):
        return _camera(path, sys.platform)
    if scheme_of(path):
        return _network(path)
    return _path(path)


def _opened(stream: BinaryIO, name: str, length: int) -> Address:
    if not length:
        raise InputError(f"{name}: is empty (0 bytes); copy or download it again")
    return Address(stream, name, options={"protocol_whitelist": "none"})  # a playlist in it reaches no other file


def _from_stream(stream: BinaryIO, name: str) -> Address:
    """Return an open file as it is if it can go back, else a copy of it on the disk."""
    try:
        if not stream.seekable():
            stream = cast(BinaryIO, Copy(stream))
        length = stream.seek(0, os.SEEK_END)
        stream.seek(0)
    except OSError as error:
        raise InputError(f"{name}: cannot be copied for reading ({error}); save it as a file first") from None
    return _opened(stream, name, length)


def _path(name: str) -> Address:
    path = Path(name)
    try:
        if path.is_dir():
            raise InputError(f"{name}: is a folder; give a video in it")
        if path.exists() and not path.is_file():
            raise InputError(f"{name}: is not a regular file; give a video, or a camera as camera:{name}")
        with path.open("rb") as stream:
            if not stream.read(1):
                raise InputError(f"{name}: is empty (0 bytes); copy or download it again")
    except FileNotFoundError:
        raise InputError(f"{name}: no such file; check the path") from None
    except PermissionError:
        raise InputError(f"{name}: no permission to read it; check its owner and mode") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{name!r}: cannot be read ({error}); check the path") from None
    # Said to be a file, because ffmpeg takes the name 12:30.mp4 for an address.
    return Address(f"file:{path.absolute()}", name, options={"protocol_whitelist": "file"})


def _network(name: str) -> Address:
    scheme, shown = scheme_of(name), without_password(name)
    if scheme not in SCHEMES:
        raise InputError(f"{shown}: is of no scheme mien reads ({', '.join(SCHEMES)}); download it first")
    options = {"rtsp_transport": "tcp"} if scheme.startswith("rtsp") else {}
    return Address(name, shown, None, options, TIMEOUT, scheme in LIVE_SCHEMES)


def _camera(name: str, platform: str) -> Address:
    """Return how a camera is opened: by its number, or by its device's path (Linux) or name (macOS, Windows)."""
    which = name.removeprefix("camera:")
    if not which:
        raise InputError("camera: names no camera; the first one is camera:0")
    if platform == "darwin":
        # Its default rate, 29.97, is one that many cameras refuse.
        return Address(which, name, "avfoundation", {"framerate": "30", "pixel_format": "uyvy422"}, TIMEOUT, True)
    if platform == "win32":
        device = _dshow_names(name)[int(which)] if which.isdecimal() else which
        return Address(f"video={device}", name, "dshow", {}, TIMEOUT, True)
    device = f"/dev/video{which}" if which.isdecimal() else which
    return Address(device, name, "v4l2", {}, TIMEOUT, True)


def _dshow_names(name: str) -> list[str]:
    """Return the names of Windows' cameras, at least as many as the number asked for."""
    import av

    names = [device.name for device in av.enumerate_input_devices("dshow") if "video" in device.media_types]
    if int(name.removeprefix("camera:")) >= len(names):
        raise InputError(f"{name}: no such camera; there are {len(names)}: {', '.join(names) or 'none'}")
    return names


def check_size(name: str, width: int, height: int) -> None:
    """Raise an `InputError` if frames are too large."""
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{name}: has frames of {width}x{height}, more than the {MAX_PIXELS // 10**6} megapixels mien reads; "
            "make it smaller"
        )


def _limit() -> dict[str, str]:
    """Return what keeps a decoder from larger frames, even where the header lies; it counts some padding."""
    return {"max_pixels": str(MAX_PIXELS + 10**6)}


@cache
def _limit_memory() -> None:
    """Hold ffmpeg to `MAX_BLOCK`, for the whole process; where its library cannot be found it keeps its own limit, 2 GB."""
    import av

    package = Path(av.__file__).parent
    for folder in (package.parent / "av.libs", package / ".dylibs"):  # where wheels of Linux, Windows and macOS keep it
        for library in folder.glob("*avutil*"):
            with suppress(OSError, AttributeError):
                ctypes.CDLL(str(library)).av_max_alloc(ctypes.c_size_t(MAX_BLOCK))


def open_container(address: Address) -> tuple[InputContainer, VideoStream]:
    """Return an open container and its video stream, ready to decode.

    Raises:
        InputError: It is no video, holds sound alone, is too large, or needs a codec that is not there.
    """
    import av

    _limit_memory()
    if hasattr(address.file, "seek"):
        address.file.seek(0)
    options = address.options | _limit()
    try:
        container = av.open(address.file, "r", address.format, options, timeout=address.timeout, metadata_errors="replace")
    except (av.FFmpegError, ValueError, OSError) as error:
        raise InputError(_why_not(address, error)) from None
    try:
        return container, _video_stream(container, address)
    except InputError:
        container.close()
        raise


def _why_not(address: Address, error: Exception) -> str:
    """Return why something could not be opened and what to do."""
    text = getattr(error, "strerror", None) or " ".join(str(error).split())
    if address.name.startswith("camera:"):
        return f"{address.name}: no such camera, or another program holds it ({text}); the first one is camera:0"
    if address.timeout is not None:
        return f"{address.name}: cannot be opened ({text}); check the address and the network"
    return f"{address.name}: is no video mien reads, or its start or end is missing ({text}); copy or download it again"


def _video_stream(container: InputContainer, address: Address) -> VideoStream:
    import av
    from av.stream import Disposition

    name = address.name
    if container.format.name in TEXT_ART:
        raise InputError(f"{name}: is text, not a video")
    # The cover of a song is a video stream too.
    streams = [each for each in container.streams.video if not each.disposition & Disposition.attached_pic]
    if not streams:
        raise InputError(f"{name}: holds sound or data but no video; give a video")
    stream = next((each for each in streams if each.disposition & Disposition.default), streams[0])
    context = stream.codec_context
    if context is None:
        raise InputError(f"{name}: is in a codec this ffmpeg has not; convert it: ffmpeg -i INPUT -c:v libx264 OUTPUT.mp4")
    check_size(name, context.width, context.height)
    context.options = _limit()
    try:
        # Decoding whole frames side by side pays for large ones only: each thread waits its turn, holds frames, and is late.
        large = context.width * context.height > LARGE and not address.live
        stream.thread_type = "AUTO" if large else "SLICE"
        stream.thread_count = min(4, os.cpu_count() or 1)
    except (av.FFmpegError, RuntimeError):  # the decoder was opened while looking: it stays as it is
        pass
    return stream


def is_video(name: str) -> bool:
    """Return whether a file holds a video."""
    try:
        open_container(locate(name))[0].close()
    except InputError:
        return False
    return True
