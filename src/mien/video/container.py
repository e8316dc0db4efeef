"""Opening a video, with limits: a path, URL, camera, bytes or open file comes in, a PyAV container out, or an `InputError`.

`locate` checks a source and says how ffmpeg opens it; `open_video_stream` opens it and picks the video stream.
"""

from __future__ import annotations

import ctypes
import io
import os
import re
import shutil
import sys
import tempfile
import weakref
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from mien.errors import InputError, reason
from mien.provenance import available_cores

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

VideoSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO

MAX_PIXELS = 36_000_000
"""Pixels of the largest frame that is decoded, a little over 8K. A decoder holds many frames at once."""

FRAME_LIMIT = {"max_pixels": str(MAX_PIXELS + 10**6)}
"""The option that stops a decoder at larger frames than the header says. ffmpeg counts some padding too."""

STRICT = {"err_detect": "aggressive"}
"""The option that makes ffmpeg report slices of H.264 that end before their data does; see docs/video.md."""

MAX_ALLOCATION = 256 * 2**20
"""Bytes that ffmpeg may allocate at once. The index of a forty-hour video takes 200 MB."""

TIMEOUT = 10.0
"""Seconds that a camera or URL may send nothing."""

PLAYLISTS = frozenset(("hls", "dash", "concat", "sdp", "rtsp", "image2", "lavfi", "ffmetadata", "webm_dash_manifest"))
"""ffmpeg's formats that open other files or addresses. A file of one of them is not read, whatever its name is."""

LIVE_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp", "tcp")
"""Schemes of live streams. An `http` or `https` URL may be a file or a stream."""

SCHEMES = ("http", "https", *LIVE_SCHEMES)
"""Schemes of the URLs that mien reads."""


@dataclass(frozen=True, slots=True)
class Location:
    """How PyAV opens a source.

    Attributes:
        file: The file, URL or device as ffmpeg names it, or an open file.
        name: What errors call it.
        format: The device's format; None lets ffmpeg detect it.
        options: ffmpeg's options.
        timeout: Seconds to wait for data; None for a file, which needs no limit.
        live: Whether it is a camera or live stream, which cannot be read again.
    """

    file: Any
    name: str
    format: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    timeout: float | None = None
    live: bool = False


class TemporaryCopy:
    """A seekable copy, on disk, of a stream that cannot seek. It is deleted when the last reference to it goes.

    Args:
        stream: An open binary file, read to its end.

    Raises:
        OSError: The stream cannot be read, or the disk is full.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        shutil.copyfileobj(stream, self._file)
        self._file.seek(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def scheme_of(name: str) -> str | None:
    """Return the scheme of a URL in lower case; None for a path.

    >>> scheme_of("RTSP://door/1"), scheme_of("C:/film.mp4")
    ('rtsp', None)
    """
    match = re.match(r"([a-z][a-z0-9+.-]+)://", name, re.IGNORECASE)
    return match[1].lower() if match else None


def shown_url(url: str) -> str:
    """Return a URL's scheme, host and path, which are safe to show: user, password, query and fragment may be secret.

    The path ends before the first part with `=` (or `%3D`, or `%3F`), because some cameras expect the password there.

    >>> shown_url("rtsp://me:secret@door:554/1"), shown_url("https://host/film.mp4?token=secret#t=2")
    ('rtsp://door:554/1', 'https://host/film.mp4')
    >>> shown_url("rtsp://door/cam/user=me_password=secret_channel=1")
    'rtsp://door/cam/'
    """
    scheme, _, rest = url.partition("://")
    host, slash, path = re.split(r"[?#]", rest)[0].partition("/")
    host = host.rpartition("@")[2]
    if not re.fullmatch(r"(\[[^\[\]]*\]|[^:]*)(:\d*)?", host):  # the start of a password with `/`, `?` or `#` in it
        return f"{scheme}://..."
    return f"{scheme}://{host}{slash}" + re.sub(r"[^/]*(=|%3[df]).*", "", path, flags=re.DOTALL | re.IGNORECASE)


def locate(source: VideoSource, name: str | None = None) -> Location:
    """Return how to open a source, after checking that it can be read.

    Args:
        source: A path, a URL, a camera, a file's bytes or an open binary file.
        name: What errors call it; None takes its path, its URL as `shown_url` gives it, or "this video".

    Raises:
        InputError: It has the wrong type, an unknown scheme, or is not a file that can be read.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _stream(io.BytesIO(source), name or "this video (bytes)")
    if hasattr(source, "read"):
        return _stream(cast(BinaryIO, source), name or str(getattr(source, "name", "this video (a stream)")))
    if not isinstance(source, (str, os.PathLike)):
        raise InputError(f"cannot read a video from {type(source).__name__}. Give a path, a URL, bytes or an open file.")
    path = os.fspath(source)
    if path.startswith("camera:"):
        return _camera(path, name or path, sys.platform)
    if scheme := scheme_of(path):
        name = name or shown_url(path)
        if scheme not in SCHEMES:
            raise InputError(f"{name}: mien does not read {scheme}:// URLs, only {', '.join(SCHEMES)}. Download it first.")
        options = {"rtsp_transport": "tcp"} if scheme.startswith("rtsp") else {}
        return Location(path, name, None, options, TIMEOUT, scheme in LIVE_SCHEMES)
    return _path(path, name or path)


def _stream(stream: BinaryIO, name: str) -> Location:
    try:
        if not stream.seekable():
            stream = cast(BinaryIO, TemporaryCopy(stream))
        length = stream.seek(0, os.SEEK_END)
        stream.seek(0)
    except OSError as error:
        raise InputError(f"{name} cannot be copied for reading ({reason(error)}). Save it as a file first.") from None
    if not length:
        raise InputError(f"{name} is empty (0 bytes). Copy or download it again.")
    return Location(stream, name, options={"protocol_whitelist": "none"})  # a playlist in it reaches no other file


def _path(path: str, name: str) -> Location:
    file = Path(path)
    try:
        if file.is_dir():
            raise InputError(f"{name} is a folder. Give a video in it.")
        if file.exists() and not file.is_file():
            raise InputError(f"{name} is not a regular file. Give a video, or a camera as camera:{path}.")
        with file.open("rb") as stream:
            if not stream.read(1):
                raise InputError(f"{name} is empty (0 bytes). Copy or download it again.")
    except FileNotFoundError:
        raise InputError(f"{name}: no such file. Check the path.") from None
    except PermissionError:
        raise InputError(f"{name}: no permission to read it. Check its owner and mode.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{name!r} cannot be read ({reason(error)}). Check the path.") from None
    # With `file:` before it, because ffmpeg takes the name 12:30.mp4 for a URL.
    return Location(f"file:{file.absolute()}", name, options={"protocol_whitelist": "file"})


def _camera(camera: str, name: str, platform: str) -> Location:
    """Return how to open a camera, given by its number, its device's path (Linux) or its name (macOS, Windows)."""
    device = camera.removeprefix("camera:")
    if not device:
        raise InputError("camera: needs a number or a name. The first camera is camera:0.")
    if platform == "darwin":
        # Many cameras refuse ffmpeg's default rate of 29.97.
        return Location(device, name, "avfoundation", {"framerate": "30", "pixel_format": "uyvy422"}, TIMEOUT, True)
    if platform != "win32":
        return Location(f"/dev/video{device}" if device.isdecimal() else device, name, "v4l2", {}, TIMEOUT, True)
    if device.isdecimal():
        import av

        names = [each.name for each in av.enumerate_input_devices("dshow") if "video" in each.media_types]
        if int(device) >= len(names):
            raise InputError(f"camera:{device}: no such camera. There are {len(names)}: {', '.join(names) or 'none'}.")
        device = names[int(device)]
    return Location(f"video={device}", name, "dshow", {}, TIMEOUT, True)


def open_container(location: Location) -> InputContainer:
    """Return an open container.

    Raises:
        InputError: ffmpeg cannot open it.
    """
    import av

    _limit_allocations()
    if hasattr(location.file, "seek"):
        location.file.seek(0)
    options = location.options | FRAME_LIMIT
    if location.timeout is None:
        options["format_whitelist"] = _formats_of_files()
    try:
        return av.open(location.file, "r", location.format, options, timeout=location.timeout, metadata_errors="replace")
    except (av.FFmpegError, ValueError, OSError) as error:
        if location.format:
            text = "{}: no such camera, or another program uses it ({}). The first camera is camera:0."
        elif location.timeout is not None:
            text = "{} cannot be opened ({}). Check the URL and the network."
        elif _is_text(location):
            text = "{} is not a video mien can read: it is text, such as a playlist ({}). Give the videos themselves."
        else:
            text = "{} is not a video mien can read, or its start or end is missing ({}). Copy or download it again."
        raise InputError(text.format(location.name, reason(error))) from None


def open_video_stream(location: Location) -> tuple[InputContainer, VideoStream]:
    """Return an open container and its video stream, ready to decode.

    Raises:
        InputError: It cannot be opened, has no video stream, is too large, or needs a codec that ffmpeg does not have.
    """
    import av
    from av.stream import Disposition

    container, name = open_container(location), location.name
    try:
        if container.format.name in ("tty", "bin", "xbin", "adf", "idf"):  # ffmpeg renders text as a video
            raise InputError(f"{name} is text, not a video. Give a video.")
        # The cover picture of a song is a video stream too.
        streams = [each for each in container.streams.video if not each.disposition & Disposition.attached_pic]
        if not streams:
            raise InputError(f"{name} is not a video mien can read (no video stream). Give a video.")
        stream = next((each for each in streams if each.disposition & Disposition.default), streams[0])
        decoder = stream.codec_context
        if decoder is None:
            advice = "Convert it first, for example: ffmpeg -i INPUT -c:v libx264 OUTPUT.mp4"
            raise InputError(f"{name} is not a video mien can read (unknown codec). {advice}")
        check_size(name, decoder.width, decoder.height)
    except InputError:
        container.close()
        raise
    decoder.options = FRAME_LIMIT | (STRICT if decoder.name == "h264" else {})
    # Frame threads pay for frames above 720p only: each thread adds a frame of delay and holds frames in memory.
    frame_threads = decoder.width * decoder.height > 1_000_000 and not location.live
    with suppress(av.FFmpegError, RuntimeError):  # ffmpeg already opened the decoder: it keeps its threads
        stream.thread_type = "AUTO" if frame_threads else "SLICE"
        # With several threads for one frame, ffmpeg does not conceal or report most errors in H.264.
        stream.thread_count = 1 if decoder.name == "h264" and not frame_threads else min(4, available_cores())
    return container, stream


def check_size(name: str, width: int, height: int) -> None:
    """Raise an `InputError` if frames are too large."""
    if width * height > MAX_PIXELS:
        limit = f"{MAX_PIXELS // 10**6} megapixels"
        raise InputError(f"{name} has frames of {width}x{height}, more than the {limit} mien reads. Make it smaller.")


@cache
def _formats_of_files() -> str:
    """Return the names of ffmpeg's formats without `PLAYLISTS`, as its option `format_whitelist` takes them."""
    import av

    return ",".join(sorted(name for name in av.formats_available - PLAYLISTS if av.ContainerFormat(name).is_input))


def _is_text(location: Location) -> bool:
    """Return whether the first line of a file is text."""
    try:
        if isinstance(location.file, str):
            with Path(location.file.removeprefix("file:")).open("rb") as file:
                start = file.read(256)
        else:
            location.file.seek(0)
            start = location.file.read(256)
        return start.partition(b"\n")[0].decode("utf-8-sig").strip().isprintable()
    except (OSError, ValueError):
        return False


@cache
def _limit_allocations() -> None:
    """Limit what ffmpeg allocates at once to `MAX_ALLOCATION`, in the whole process.

    A header of a few bytes can claim an index of 2 GB, which ffmpeg then allocates (see benchmarks/hostile_video_memory.py).
    PyAV has no option for this, so the function of its own libavutil is called. Where that is not found, nothing changes.
    """
    import av

    package = Path(av.__file__).parent
    for folder in (package.parent / "av.libs", package / ".dylibs"):  # in the wheels for Linux and Windows, and for macOS
        for library in folder.glob("*avutil*"):
            with suppress(OSError, AttributeError):
                ctypes.CDLL(str(library)).av_max_alloc(ctypes.c_size_t(MAX_ALLOCATION))
