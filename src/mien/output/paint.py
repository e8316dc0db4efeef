"""Painting on an RGB array in place: filled boxes, outlines, and tiles of text that are rendered once and cached.

Pillow renders the text, but does not draw on the picture. It would copy the whole picture in and out, which takes longer for
large frames than drawing. Here only the painted pixels change.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mien.languages import language_in_use
from mien.output.fonts import PILLOWS, find_font, load_font

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

SUPERSAMPLING = 4
"""A tile's background is drawn this many times larger and scaled down, so that its rounded corners are smooth."""


class Box(NamedTuple):
    """A rectangle, in px of the picture."""

    left: float
    top: float
    right: float
    bottom: float

    def grown(self, by: float) -> Box:
        """Return the rectangle with every edge moved outwards by so many px."""
        return Box(self.left - by, self.top - by, self.right + by, self.bottom + by)

    @property
    def area(self) -> float:
        """Area, px squared."""
        return (self.right - self.left) * (self.bottom - self.top)

    def part(self, left: float, top: float, right: float, bottom: float) -> Box:
        """Return a part of the rectangle, whose edges are given as shares of the width and height."""
        width, height = self.right - self.left, self.bottom - self.top
        return Box(self.left + left * width, self.top + top * height, self.left + right * width, self.top + bottom * height)

    def intersection(self, other: Box) -> float:
        """Return the area that two rectangles share, px squared."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, width) * max(0.0, height)

    def overlaps(self, other: Box) -> bool:
        """Return whether two rectangles share any area."""
        return self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom

    def within(self, width: int, height: int) -> bool:
        """Return whether the rectangle is inside a picture of that size."""
        return self.left >= 0 and self.top >= 0 and self.right <= width and self.bottom <= height

    def moved_into(self, width: int, height: int) -> Box:
        """Return the rectangle moved, not cut, into a picture of that size; if too large, its top left corner is inside."""
        x = min(max(self.left, 0), max(0, width - (self.right - self.left))) - self.left
        y = min(max(self.top, 0), max(0, height - (self.bottom - self.top))) - self.top
        return Box(self.left + x, self.top + y, self.right + x, self.bottom + y)


class Tile(NamedTuple):
    """A small picture with transparency, ready to be blended."""

    premultiplied: NDArray[np.uint16]  # colour times opacity, (h, w, 3), range 0-65280
    transparency: NDArray[np.uint16]  # (h, w, 1), range 0-256: at 256 only the picture below shows


def fill(image: NDArray[np.uint8], box: Box, colour: Colour, opacity: int = 256) -> None:
    """Fill the part of a box that is inside the picture; `opacity` ranges from 0 to 256."""
    part = _part(image, round(box.left), round(box.top), round(box.right), round(box.bottom))
    if opacity == 256:
        part[...] = colour
    else:
        premultiplied = (np.array(colour, np.uint16) * opacity).astype(np.uint16)
        part[...] = (part.astype(np.uint16) * np.uint16(256 - opacity) + premultiplied) >> 8


def outline(image: NDArray[np.uint8], box: Box, line: int, colour: Colour, opacity: int = 256, dash: float = 0) -> None:
    """Draw the edges of a box, `line` px wide, inside it. `dash` is the length of a dash, px; 0 for a solid line."""
    left, top, right, bottom = (float(round(edge)) for edge in box)
    for start, end in _dashes(left, right, dash):
        fill(image, Box(start, top, end, top + line), colour, opacity)
        fill(image, Box(start, bottom - line, end, bottom), colour, opacity)
    for start, end in _dashes(top + line, bottom - line, dash):
        fill(image, Box(left, start, left + line, end), colour, opacity)
        fill(image, Box(right - line, start, right, end), colour, opacity)


def _dashes(start: float, end: float, dash: float) -> Iterator[tuple[float, float]]:
    """Yield the dashes of a line, the first at its start and the last at its end."""
    count = 2 * round((end - start) / dash / 2) + 1 if dash else 1
    step = (end - start) / count
    yield from ((start + i * step, start + (i + 1) * step) for i in range(0, count, 2))


def paste(image: NDArray[np.uint8], tile: Tile, left: float, top: float) -> None:
    """Blend a tile into a picture, its top left corner at that point; only the part inside the picture is drawn."""
    x, y = round(left), round(top)
    height, width = tile.transparency.shape[:2]
    part = _part(image, x, y, x + width, y + height)
    rows, columns = slice(max(0, -y), max(0, -y) + part.shape[0]), slice(max(0, -x), max(0, -x) + part.shape[1])
    part[...] = (part * tile.transparency[rows, columns] + tile.premultiplied[rows, columns]) >> 8


def _part(image: NDArray[np.uint8], left: int, top: int, right: int, bottom: int) -> NDArray[np.uint8]:
    return image[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]


def text_tile(text: str, size: int, colour: Colour, background: tuple[int, ...], widest: str = "") -> Tile:
    """Return one line of text on a background with rounded corners.

    Args:
        text: The text.
        size: Font size, px.
        colour: Colour of the text.
        background: Colour of the background, RGB or RGBA.
        widest: A text that must also fit, so that a changing number does not change the width.
    """
    width = math.ceil(max(text_size(widest, size)[0], text_size(text, size)[0]))
    return _text_tile(text, font(size, text), size, width, colour, background)


@lru_cache(maxsize=64)
def _text_tile(text: str, letters: Font, size: int, width: int, colour: Colour, background: tuple[int, ...]) -> Tile:
    height = text_size("", size)[1]
    picture = _background(width, math.ceil(height), size * 0.25, background)
    ImageDraw.Draw(picture).text((size * 0.35, height / 2), text, font=letters, fill=colour, anchor="lm")
    return _tile(picture)


def text_size(text: str, size: int) -> tuple[float, float]:
    """Return the width and height of a `text_tile`, px."""
    return font(size, text).getlength(text) + 0.7 * size, 1.5 * size


@lru_cache(maxsize=16)
def list_tile(
    names: Sequence[str], letters: Font, size: int, width: int, height: int, colour: Colour, background: tuple[int, ...]
) -> Tile:
    """Return names in a column, in a font of size `size`, at the left of a background of `width` x `height` px."""
    picture = _background(width, height, size * 0.4, background)
    draw, row = ImageDraw.Draw(picture), (height - size * 0.5) / len(names)
    for i, name in enumerate(names):
        draw.text((size * 0.5, size * 0.25 + (i + 0.5) * row), name, font=letters, fill=colour, anchor="lm")
    return _tile(picture)


def _background(width: int, height: int, radius: float, colour: tuple[int, ...]) -> Image.Image:
    red, green, blue, alpha = (*colour, 255)[:4]
    mask = Image.new("L", (width * SUPERSAMPLING, height * SUPERSAMPLING))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, *(edge - 1 for edge in mask.size)), radius * SUPERSAMPLING, fill=alpha)
    picture = Image.new("RGBA", (width, height), (red, green, blue))
    picture.putalpha(mask.resize((width, height), Image.Resampling.BOX))
    return picture


def _tile(picture: Image.Image) -> Tile:
    pixels = np.asarray(picture).astype(np.uint16)
    alpha = pixels[..., 3:] + (pixels[..., 3:] >> 7)  # 255 becomes 256
    return Tile(pixels[..., :3] * alpha, 256 - alpha)


def font(size: int, text: str = "") -> Font:
    """Return a font at that size, px, with the letters of the language in use and, if possible, those of the text."""
    letters = language_in_use().letters
    further = "" if text.isascii() else "".join(sorted(set(text)))
    return load_font(find_font(letters + further) or find_font(letters) or PILLOWS, size)
