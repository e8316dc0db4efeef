"""What a user may name: pictures, videos, folders, patterns, lists, cameras, URLs, standard input, data in memory.

`expand` turns all of it into one stream of `Source`, in order, lazily, each file once. A name that cannot be read becomes a
source with an error in its place, so one bad name does not stop the others.
"""

from __future__ import annotations

import codecs
import glob
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, islice, takewhile
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import numpy as np
from PIL import Image

from mien.errors import InputError, reason
from mien.folders import walk_folder
from mien.image import ENDINGS, is_picture
from mien.video.container import LIVE_SCHEMES, SCHEMES, TemporaryCopy, locate, open_video_stream, scheme_of, shown_url

Kind = Literal["picture", "video", "live", "error"]

VIDEOS = frozenset(
    (".mp4", ".m4v", ".mov", ".qt", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m2v", ".vob", ".ts", ".mts", ".m2ts", ".wmv",
     ".asf", ".flv", ".f4v", ".ogv", ".3gp", ".3g2", ".mxf", ".dv", ".mjpeg", ".mjpg", ".h264", ".264", ".h265", ".265",
     ".hevc", ".ivf", ".y4m", ".rm", ".rmvb", ".nut", ".divx")
)  # fmt: skip
"""Endings of videos."""

MARK = ".drawn-by-mien"
"""A hidden file in the folders that mien makes for its drawings. `expand` skips these folders unless they are named."""


@dataclass(frozen=True, slots=True)
class Source:
    """One picture or video to read, or why there is none.

    Attributes:
        name: The path, or the scheme, host and path of a URL; for data in memory its kind and its number among the inputs,
            from 1. Different URLs have different names: the second that would be shown alike ends with ` (2)`.
        kind: What it is; "live" is a camera or a live stream.
        value: What `read_image` or `open_video` takes; None with an error.
        error: Why it cannot be read; None otherwise.
    """

    name: str
    kind: Kind
    value: Any = None
    error: InputError | None = None


def expand(inputs: Any, *, repeats: bool = False) -> Iterator[Source]:
    """Yield every picture and video that is named, in order, the same file once.

    Args:
        inputs: One of the following, or a list or iterator of them, nested or not.
            A file: its ending, or else its content, says whether it is a picture or a video.
            A folder: its pictures and videos in natural order (`a2` before `a10`), then those of its folders. Hidden ones
            and folders that mien made for its drawings are skipped; for links see `mien.folders.walk_folder`.
            A pattern such as `"*.jpg"` or `"**/*.mp4"`, unless a file has that very name. A match with an unknown ending is
            skipped unless the pattern has the same ending. So is one in a folder of drawings, unless the pattern names it.
            `"@names.txt"`: a text file with one name per line; blank lines and lines that begin with `#` are skipped.
            `"@-"` reads the names from standard input.
            `"-"`: a picture or video on standard input.
            `"camera:0"`, or a URL such as `"rtsp://door/1"`.
            Bytes or an open binary file of a picture or video; a Pillow image; a uint8 array, RGB or grey.
        repeats: Yield a file again each time it is named.

    Yields:
        One source per picture or video; one of kind "error", with its `error`, for a name that cannot be read, an empty
        folder, or a pattern without a match.
    """
    return _Expansion(repeats).each(inputs)


UNREAD = (".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".pef", ".srw", ".jp2", ".psd", ".tga")
"""Endings of photos that mien does not read. Such a file in a folder is an error, unless another one has the same photo."""


def drawn(folder: str | os.PathLike[str]) -> bool:
    """Return whether mien made a folder for its drawings."""
    return Path(folder, MARK).is_file()


def by_ending(name: str) -> Kind | None:
    """Return what a file is by its ending; None if unknown.

    >>> by_ending("holiday.JPG"), by_ending("talk.mp4"), by_ending("notes.txt")
    ('picture', 'video', None)
    """
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 -- pathlib is slow for many names
    return "picture" if suffix in ENDINGS else "video" if suffix in VIDEOS else None


class _Expansion:
    """Expands inputs and remembers what was named so far."""

    def __init__(self, repeats: bool) -> None:
        self.repeats = repeats
        self.count = 0  # inputs so far
        self.seen: set[str] = set()  # real paths, cameras and URLs
        self.urls: dict[str, list[str]] = {}  # URLs by how they are shown

    def each(self, item: Any) -> Iterator[Source]:
        """Yield the sources of one input, or of a list of them."""
        if isinstance(item, Source):
            yield item
        elif isinstance(item, (str, os.PathLike)):
            self.count += 1
            yield from self._named(os.fsdecode(item))
        elif isinstance(item, (bytes, bytearray, memoryview, Image.Image, np.ndarray)) or hasattr(item, "read"):
            self.count += 1
            yield _in_memory(item, self.count)
        elif isinstance(item, Iterable) and not isinstance(item, dict):
            for each in item:
                yield from self.each(each)
        else:
            self.count += 1
            name, kind = f"input {self.count}", type(item).__name__
            yield _bad(f"{name} is of type {kind}, which mien cannot read. Give a path, bytes, an image or an array.", name)

    def _named(self, name: str) -> Iterator[Source]:
        if sys.stdin is None and name in ("-", "@-"):
            yield _bad(f"{name}: standard input is closed. Send the data through a pipe.", name)
        elif name == "-":
            yield _open_file(sys.stdin.buffer, "standard input")
        elif name.startswith("@") and not os.path.lexists(name):
            yield from self._listed(name[1:])
        else:
            yield from self._path_or_url(name)

    def _listed(self, name: str) -> Iterator[Source]:
        """Yield the sources in a file of names, which may hold any bytes that a path may."""
        found = False
        try:
            with nullcontext(sys.stdin.buffer) if name == "-" else Path(name).open("rb") as lines:
                for line in lines:
                    if not found and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                        raise ValueError("it is UTF-16 text; save it as UTF-8")
                    entry = line.decode("utf-8-sig", "surrogateescape").rstrip("\r\n")
                    if entry.strip() and not entry.startswith("#"):
                        found = True
                        self.count += 1
                        yield from self._path_or_url(entry)
        except (OSError, ValueError) as error:
            yield _bad(f"@{name}: the list of names cannot be read ({reason(error)}). Check the path.", f"@{name}")
        else:
            if not found:
                yield _bad(f"@{name}: there is no name in the list. Check what writes it.", f"@{name}")

    def _path_or_url(self, name: str) -> Iterator[Source]:
        if name.startswith("camera:") or scheme_of(name):
            yield from self._once(name, self._camera_or_url(name))
        else:
            yield from self._path(name)

    def _camera_or_url(self, name: str) -> Source:
        """Return the source of a camera or URL, numbered if another URL is shown the same."""
        scheme = scheme_of(name)
        shown = shown_url(name) if scheme else name
        alike = self.urls.setdefault(shown, [])
        if name not in alike:
            alike.append(name)
        if (number := alike.index(name) + 1) > 1:
            shown = f"{shown} ({number})"
        if scheme and scheme not in SCHEMES:
            return _bad(f"{shown}: mien does not read {scheme}:// URLs, only {', '.join(SCHEMES)}. Download it first.", shown)
        return Source(shown, "video" if scheme and scheme not in LIVE_SCHEMES else "live", name)

    def _path(self, name: str) -> Iterator[Source]:
        try:
            if not name:
                yield _bad("'' is not a name. Give a path, or . for this folder.", "''")
            elif Path(name).is_dir():
                yield from self._folder(name)
            elif glob.has_magic(name) and not os.path.lexists(name):
                yield from self._pattern(name)
            else:
                yield from self._once(os.path.realpath(name), _file(name))
        except (OSError, ValueError) as error:
            yield _bad(f"{name} cannot be read ({reason(error)}). Check the path.", name)

    def _once(self, key: str, source: Source) -> Iterator[Source]:
        if self.repeats or key not in self.seen:
            self.seen.add(key)
            yield source

    def _pattern(self, pattern: str) -> Iterator[Source]:
        """Yield the sources that match. A folder that matches is read too, unless the pattern has `**`."""
        suffix, found = Path(pattern).suffix.lower(), False
        named = sum(1 for _ in takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts))
        is_drawn = cache(drawn)
        for match in sorted(glob.iglob(pattern, recursive=True), key=_natural):  # noqa: PTH207 -- keeps a path as it is written
            if any(map(is_drawn, islice(accumulate(Path(match).parts, os.path.join), named, None))):
                continue
            if Path(match).is_dir():
                wanted = "**" not in pattern
            else:
                wanted = by_ending(match) is not None or Path(match).suffix.lower() == suffix != ""
            if wanted:
                found = True
                yield from self._path(match)
        if not found:
            yield _bad(f"{pattern}: no picture or video matches. Check the pattern, or put the folder before it.", pattern)

    def _folder(self, name: str) -> Iterator[Source]:
        """Yield the sources in a folder, its files before its folders."""
        found, unreadable = False, list[Source]()

        def fail(error: OSError) -> None:
            text = f"{error.filename}: the folder cannot be read ({reason(error)}). Check its owner and mode."
            unreadable.append(_bad(text, error.filename))

        for folder, folders, files in walk_folder(name, [], fail):
            found = found or bool(unreadable)
            yield from unreadable
            unreadable.clear()
            real = os.path.realpath(folder)
            stems = {os.path.splitext(file)[0] for file in files if by_ending(file)}  # noqa: PTH122
            for file in sorted(files, key=_natural):
                stem, ending = os.path.splitext(file)  # noqa: PTH122
                if ending.lower() in UNREAD and stem not in stems:
                    found = True
                    yield from self._path(os.path.join(folder, file))  # noqa: PTH118
                if kind := by_ending(file):
                    found = True
                    path = os.path.join(folder, file)  # noqa: PTH118 -- pathlib is slow for many names
                    key = os.path.realpath(path) if os.path.islink(path) else f"{real}{os.sep}{file}"  # noqa: PTH114
                    yield from self._once(key, Source(path, kind, path))
            folders[:] = sorted((each for each in folders if not drawn(Path(folder, each))), key=_natural)
        if not (found or unreadable):
            text = f"{name}: no picture or video with a known ending is in it. Name another folder, or the files themselves."
            unreadable.append(_bad(text, name))
        yield from unreadable


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts names as people do, numbers by their value.

    >>> sorted(["a10.png", "a2.png", "B1.png"], key=_natural)
    ['a2.png', 'a10.png', 'B1.png']
    """
    parts = re.split(r"([0-9]+)", name.lower())
    return [*((int(part), "") if part.isdecimal() else (0, part) for part in parts), (0, name)]


def _file(name: str) -> Source:
    """Return the source of a path that is not a folder."""
    if re.fullmatch(r"/dev/video[0-9]+", name):
        return Source(f"camera:{name}", "live", f"camera:{name}")
    path = Path(name)
    if not path.exists():
        return _bad(f"{name}: no such file. Check the path.", name)
    kind = by_ending(name)
    if kind is None and path.is_file():
        with path.open("rb") as stream:
            kind = "picture" if is_picture(stream) else None
        with suppress(InputError):
            if kind is None:
                open_video_stream(locate(path))[0].close()
                kind = "video"
    if kind is None:
        return _bad(f"{name} is neither a picture nor a video mien can read. Leave it out or convert it.", name)
    return Source(name, kind, name)


def _in_memory(item: Any, number: int) -> Source:
    """Return the source of bytes, an open file, an image or an array."""
    if isinstance(item, (Image.Image, np.ndarray)):
        return Source(f"picture {number}", "picture", item)
    if hasattr(item, "read"):
        return _open_file(item, str(getattr(item, "name", f"input {number}")))
    kind: Kind = "picture" if not len(item) or is_picture(io.BytesIO(item)) else "video"
    return Source(f"{kind} {number}", kind, item)


def _open_file(stream: BinaryIO, name: str) -> Source:
    """Return the source of an open binary file; one that cannot seek is copied to the disk first."""
    try:
        if not stream.seekable():
            stream = cast(BinaryIO, TemporaryCopy(stream))
        if not stream.read(1):
            return _bad(f"{name} is empty (0 bytes). Check what sends it.", name)
        stream.seek(0)
        return Source(name, "picture", stream.read()) if is_picture(stream) else Source(name, "video", stream)
    except (OSError, ValueError, TypeError) as error:  # TypeError: it is a text file
        return _bad(f"{name} cannot be read ({reason(error)}). Save it as a file first.", name)


def _bad(text: str, name: str) -> Source:
    return Source(name, "error", None, InputError(text))
