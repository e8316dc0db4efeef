"""What a person may name: pictures, videos, folders, patterns, lists, cameras, addresses, standard input, data in memory.

`expand` turns it all into one stream of `Source`, in order, lazily, each thing once. What cannot be read becomes a source
with an error in its place, so one bad name stops nothing.
"""

from __future__ import annotations

import glob
import io
import os
import re
import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

import numpy as np
from PIL import Image

from mien.errors import InputError
from mien.image import is_picture
from mien.video.container import LIVE_SCHEMES, SCHEMES, Copy, scheme_of, without_password
from mien.video.kinds import Kind, by_content, by_ending


@dataclass(frozen=True, slots=True)
class Source:
    """One picture or video to read, or why there is none.

    Attributes:
        name: The path or address; of a thing in memory, what it is and its place among the inputs, from 1.
        kind: What it is; "live" is a camera or a stream that is read as it is sent.
        value: What `read_image` or `open_video` takes; None with an error.
        error: Why it cannot be read; None otherwise.
    """

    name: str
    kind: Kind
    value: Any = None
    error: InputError | None = None


MARK = ".drawn-by-mien"
"""A hidden file in the folders of drawings that mien has made: what lies there is no source unless it is named itself."""


def expand(inputs: Any, *, recursive: bool = True, repeats: bool = False) -> Iterator[Source]:
    """Yield every picture and video that is named, in order, the same file once.

    Args:
        inputs: One of the following, or a list or iterator of them, nested or not:
            a file; its ending says whether it is a picture or a video, and its content if the ending is unknown;
            a folder: its files of known endings in natural order (`a2` before `a10`), then its folders; left out are hidden
            ones and those that mien made for its drawings;
            a pattern such as `"*.jpg"` or `"**/*.mp4"`, unless a file has that very name; files of unknown endings are left
            out unless the pattern gives the ending, and so are those in folders of drawings that it does not name;
            `"@names.txt"`: a text file of names, one a line, blank lines and those that begin with `#` left out; `"@-"` reads
            the names from standard input;
            `"-"`: a picture or video on standard input;
            `"camera:0"`, or an address such as `"rtsp://door/1"`;
            bytes or an open binary file of a picture or video; a Pillow image; an array, uint8, RGB or grey.
        recursive: Go into the folders of folders.
        repeats: Yield a file again each time it is named.

    Yields:
        A source each; one of kind "error", with its `error`, for a name that cannot be read, an empty folder, or a pattern
        that nothing matches.
    """
    return _Expansion(recursive, repeats).each(inputs)


def drawn(folder: str | os.PathLike[str]) -> bool:
    """Return whether a folder is one that mien has made for drawings."""
    return Path(folder, MARK).is_file()


class _Expansion:
    """The things named so far."""

    def __init__(self, recursive: bool, repeats: bool) -> None:
        self.recursive, self.repeats = recursive, repeats
        self.count = 0
        self.seen: set[str] = set()
        self.folders: set[str] = set()
        self.addresses: dict[str, list[str]] = {}  # by what is shown of them

    def each(self, item: Any) -> Iterator[Source]:
        """Yield what one input stands for."""
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
            kind = type(item).__name__
            yield _bad(f"input {self.count}", f"cannot be read from {kind}; give a path, bytes, an image or an array")

    def _named(self, name: str) -> Iterator[Source]:
        """Yield what a text stands for."""
        if name == "-":
            yield _standard_input()
        elif name.startswith("@") and not os.path.lexists(name):
            yield from self._listed(name[1:])
        else:
            yield from self._address_or_path(name)

    def _address_or_path(self, name: str) -> Iterator[Source]:
        if name.startswith("camera:") or scheme_of(name):
            yield from self._once(name, self._distinct(_address(name), name))
        else:
            yield from self._path(name)

    def _distinct(self, source: Source, address: str) -> Source:
        """Return the source of an address, numbered if another one, of other secrets, is shown alike."""
        same = self.addresses.setdefault(source.name, [])
        if address not in same:
            same.append(address)
        number = same.index(address) + 1
        return source if number == 1 else replace(source, name=f"{source.name} ({number})")

    def _path(self, name: str) -> Iterator[Source]:
        try:
            if not name:
                yield _bad("''", "is no name; give a path, or . for this folder")
            elif Path(name).is_dir():
                yield from self._folder(name)
            elif glob.has_magic(name) and not os.path.lexists(name):
                yield from self._pattern(name)
            else:
                key = os.path.realpath(name)
                if self.repeats or key not in self.seen:
                    yield from self._once(key, _file(name))
        except (OSError, ValueError) as error:
            yield _bad(name, f"cannot be read ({_reason(error)}); check the path")

    def _once(self, key: str, source: Source) -> Iterator[Source]:
        if self.repeats or key not in self.seen:
            self.seen.add(key)
            yield source

    def _pattern(self, name: str) -> Iterator[Source]:
        """Yield the sources of the files that match, of the folders too unless the pattern goes into them itself."""
        ending = Path(name).suffix.lower()
        named = sum(1 for _ in takewhile(lambda part: not glob.has_magic(part), Path(name).parts))
        found, of_results = False, cache(drawn)
        for match in sorted(glob.iglob(name, recursive=True), key=_natural):  # noqa: PTH207 -- keeps a path as it is written
            parts = Path(match).parts
            if any(of_results(os.path.join(*parts[: i + 1])) for i in range(named, len(parts))):  # noqa: PTH118
                continue
            if Path(match).is_dir():
                wanted = "**" not in name and self.recursive
            else:
                wanted = by_ending(match) is not None or (Path(match).suffix.lower() == ending != "")
            if wanted:
                found = True
                yield from self._path(match)
        if not found:
            yield _bad(name, "no picture or video matches; check the pattern, or put the folder's name before it")

    def _listed(self, name: str) -> Iterator[Source]:
        """Yield what the lines of a file of names stand for."""
        try:
            with _lines(name) as lines:
                for line in lines:
                    entry = line.rstrip("\r\n")
                    if entry.strip() and not entry.startswith("#"):
                        self.count += 1
                        yield from self._address_or_path(entry)
        except (OSError, ValueError) as error:
            yield _bad(f"@{name}", f"the list of names cannot be read ({_reason(error)}); check the path")

    def _folder(self, name: str) -> Iterator[Source]:
        """Yield the files of a folder, those of its folders after them; say so if there are none."""
        if self.repeats:
            self.folders = set()
        found = yield from self._inside(name, os.path.realpath(name))
        if not found:
            yield _bad(name, "holds no picture or video of a known ending; name another folder, or the files themselves")

    def _inside(self, folder: str, real: str) -> Generator[Source, None, bool]:
        """Yield a folder's sources; return whether there was any, an error or a file named before included."""
        if real in self.folders:  # also what ends a circle of links
            return True
        self.folders.add(real)
        try:
            files, folders = _sorted(folder)
        except OSError as error:
            yield _bad(folder, f"the folder cannot be read ({_reason(error)}); check its owner and mode")
            return True
        for name, linked in files:
            path = os.path.join(folder, name)  # noqa: PTH118 -- pathlib is slow where names are many
            key = os.path.realpath(path) if linked else f"{real}{os.sep}{name}"
            yield from self._once(key, Source(path, by_ending(name) or "picture", path))
        found = bool(files)
        for name in folders if self.recursive else ():
            path = os.path.join(folder, name)  # noqa: PTH118
            if not drawn(path):
                found = (yield from self._inside(path, os.path.realpath(path))) or found
        return found


def _sorted(folder: str) -> tuple[list[tuple[str, bool]], list[str]]:
    """Return a folder's files of known endings, each with whether it is a link, and its folders; hidden ones left out."""
    files, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.append(entry.name)
            elif by_ending(entry.name):
                files.append((entry.name, entry.is_symlink()))
    return sorted(files, key=lambda file: _natural(file[0])), sorted(folders, key=_natural)


def _natural(name: str) -> list[tuple[int, str]]:
    """Return what sorts names as people do, numbers by their value.

    >>> sorted(["a10.png", "a2.png", "B1.png"], key=_natural)
    ['a2.png', 'a10.png', 'B1.png']
    """
    parts = re.split(r"([0-9]+)", name.lower())
    return [*((int(part), "") if part.isdecimal() else (0, part) for part in parts), (0, name)]


def _file(name: str) -> Source:
    """Return the source of a file that was named itself."""
    if re.fullmatch(r"/dev/video[0-9]+", name):
        return Source(f"camera:{name}", "live", f"camera:{name}")
    path = Path(name)
    if not path.exists():
        return _bad(name, "no such file; check the path")
    kind = by_ending(name)
    if kind is None and path.is_file():
        kind = by_content(name)
    if kind is None:
        return _bad(name, "is neither a picture nor a video mien reads; leave it out or convert it")
    return Source(name, kind, name)


def _address(name: str) -> Source:
    shown = without_password(name)
    if name.startswith("camera:") or scheme_of(name) in LIVE_SCHEMES:
        return Source(shown, "live", name)
    if scheme_of(name) in SCHEMES:
        return Source(shown, "video", name)
    return _bad(shown, f"is of no scheme mien reads ({', '.join(SCHEMES)}); download it first")


def _in_memory(item: Any, number: int) -> Source:
    """Return the source of bytes, an open file, an image or an array."""
    if isinstance(item, (Image.Image, np.ndarray)):
        return Source(f"picture {number}", "picture", item)
    if hasattr(item, "read"):
        return _from_stream(item, str(getattr(item, "name", f"input {number}")))
    kind: Kind = "picture" if not len(item) or is_picture(io.BytesIO(item)) else "video"
    return Source(f"{kind} {number}", kind, item)


def _standard_input() -> Source:
    if sys.stdin is None:
        return _bad("standard input", "is closed; send the picture or video through a pipe")
    return _from_stream(sys.stdin.buffer, "standard input")


def _from_stream(stream: BinaryIO, name: str) -> Source:
    """Return the source of an open binary file; one that cannot go back is copied to the disk first."""
    try:
        if not stream.seekable():
            stream = cast(BinaryIO, Copy(stream))
        if not stream.read(1):
            return _bad(name, "is empty (0 bytes); nothing was sent")
        stream.seek(0)
        return Source(name, "picture", stream.read()) if is_picture(stream) else Source(name, "video", stream)
    except (OSError, ValueError, TypeError) as error:  # TypeError: it holds text
        return _bad(name, f"cannot be read ({_reason(error)}); save it as a file first")


@contextmanager
def _lines(name: str) -> Iterator[TextIO]:
    """Open a file of names, which may hold any bytes that a path may; standard input stays open."""
    if name != "-":
        with Path(name).open(encoding="utf-8-sig", errors="surrogateescape") as lines:
            yield lines
        return
    if sys.stdin is None:
        raise OSError("standard input is closed")
    wrapper = io.TextIOWrapper(sys.stdin.buffer, "utf-8", "surrogateescape")
    try:
        yield wrapper
    finally:
        wrapper.detach()


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split())


def _bad(name: str, why: str) -> Source:
    return Source(name, "error", None, InputError(f"{name}: {why}"))
