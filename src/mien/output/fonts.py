"""Finds a font with the letters of a language: Pillow's own has only those of English."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

from mien.errors import OutputError
from mien.languages import language_in_use

FONT = "MIEN_FONT"
"""The environment variable that names a font file to use."""

FILES = (
    "dejavusans.ttf", "liberationsans-regular.ttf", "notosans-regular.ttf", "arial.ttf", "segoeui.ttf", "helvetica.ttc",
    "notosanssc-regular.otf", "notosanssc-regular.ttf", "notosanscjksc-regular.otf", "notosanscjk-regular.ttc",
    "sourcehansanssc-regular.otf", "sourcehansans.ttc", "pingfang.ttc", "hiragino sans gb.ttc", "stheiti light.ttc",
    "msyh.ttc", "simhei.ttf", "simsun.ttc", "wqy-microhei.ttc", "wqy-zenhei.ttc", "droidsansfallbackfull.ttf",
    "arial unicode.ttf",
)  # fmt: skip
"""Files of common fonts in lower case, the preferred first: those of Latin letters, then those of Chinese ones."""

ABSENT = "\U0010ffff"
"""A character that no font has."""

FontFile = tuple[str, int]
"""The path of a font, and its number in the file; an empty path is Pillow's own font."""

PILLOWS: FontFile = ("", 0)


def require_font() -> FontFile:
    """Return a font with every letter of the language in use.

    Raises:
        OutputError: No font on this system has them.
    """
    found = find_font(language_in_use().letters)
    if found is None:
        code, letters = language_in_use().code, language_in_use().letters
        ranges = {"fonts-noto-cjk": "[\u2e80-\uffff]", "fonts-noto-core": "[\u0590-\u1dff]", "fonts-dejavu-core": ""}
        package = next(name for name, range in ranges.items() if re.search(range, letters))
        raise OutputError(
            f"no font on this system has the letters of the language {code}; install one (Debian and Ubuntu: "
            f"apt install {package}), or name a font file in the environment variable {FONT}"
        )
    return found


@lru_cache(maxsize=1024)
def find_font(letters: str) -> FontFile | None:
    """Return the first font that has all of some letters; None if there is none."""
    return next((each for each in _candidates() if _has(each, letters)), None)


@lru_cache(maxsize=64)
def load_font(file: FontFile, size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return a font at a size, px."""
    return ImageFont.truetype(file[0], size, file[1]) if file[0] else ImageFont.load_default(size)


def font_name(file: FontFile) -> str:
    """Return the name of a font's family, such as `Noto Sans CJK SC`; empty for Pillow's own."""
    return str(ImageFont.truetype(file[0], 20, file[1]).getname()[0]) if file[0] else ""


def _has(file: FontFile, letters: str) -> bool:
    try:
        font = load_font(file, 20)
    except OSError as error:
        if file[0] == os.environ.get(FONT):
            raise OutputError(f"{file[0]}: is not a font that can be read ({error}); correct {FONT}") from None
        return False
    absent = bytes(font.getmask(ABSENT))
    return all(bytes(font.getmask(letter)) != absent for letter in letters if not letter.isspace())


def _candidates() -> Iterator[FontFile]:
    if named := os.environ.get(FONT):
        yield named, 0
    yield PILLOWS
    if (matplotlib := find_spec("matplotlib")) and matplotlib.origin:
        yield str(Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"), 0
    files = _installed()
    names = [*(name for name in FILES if name in files), *sorted(name for name in files if re.match("notosans.*regular", name))]
    for name in names:
        yield files[name], _simplified(files[name]) if name.endswith(".ttc") else 0


@lru_cache(maxsize=1)
def _installed() -> dict[str, str]:
    """Return the fonts of this system by the names of their files in lower case."""
    home = Path(os.environ.get("HOME") or os.environ.get("USERPROFILE") or "/")
    folders = {
        "win32": [Path(os.environ.get("WINDIR", "C:/Windows")) / "Fonts", home / "AppData/Local/Microsoft/Windows/Fonts"],
        "darwin": [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library/Fonts"],
    }.get(
        sys.platform, [Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), home / ".local/share/fonts", home / ".fonts"]
    )
    found = (Path(folder, name) for each in folders for folder, _, names in os.walk(each) for name in sorted(names))
    return {path.name.lower(): str(path) for path in found if path.suffix.lower() in (".ttf", ".otf", ".ttc")}


def _simplified(path: str) -> int:
    """Return the number of the face for Simplified Chinese in a collection; 0 if none says so."""
    for number in range(16):
        try:
            if font_name((path, number)).endswith(" SC"):
                return number
        except OSError:  # the file has no more
            break
    return 0
