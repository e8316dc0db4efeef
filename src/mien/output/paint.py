"""Painting on an RGB array in place: filled boxes, frames, and tiles of text that are rendered once and kept.

A Pillow drawing needs the whole picture copied in and out, which for large frames costs more than the drawing; here only the
painted px are touched. Pillow renders the text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

SMOOTHING = 4
"""A tile's rounded ground is drawn this many times larger and scaled down, so that its corners are smooth."""


class Box(NamedTuple):
    """A rectangle in px of the drawn picture."""

    left: float
    top: float
    right: float
    bottom: float

    def grown(self, by: float) -> Box:
        """Return the rectangle with every edge moved outwards."""
        return Box(self.left - by, self.top - by, self.right + by, self.bottom + by)

    @property
    def area(self) -> float:
        """Area, px squared."""
        return (self.right - self.left) * (self.bottom - self.top)

    def part(self, left: float, top: float, right: float, bottom: float) -> Box:
        """Return a part of the rectangle, its edges as shares of width and height."""
        width, height = self.right - self.left, self.bottom - self.top
        return Box(self.left + left * width, self.top + top * height, self.left + right * width, self.top + bottom * height)

    def shared(self, other: Box) -> float:
        """Return the area that two rectangles share, px squared."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, width) * max(0.0, height)

    def overlaps(self, other: Box) -> bool:
        """Return whether two rectangles share any area."""
        return self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom

    def within(self, width: int, height: int) -> bool:
        """Return whether the rectangle lies inside a picture of that size."""
        return self.left >= 0 and self.top >= 0 and self.right <= width and self.bottom <= height

    def moved_into(self, width: int, height: int) -> Box:
        """Return the rectangle moved, not cut, into a picture of that size; its left top corner if it is too large."""
        x = min(max(self.left, 0), max(0, width - (self.right - self.left))) - self.left
        y = min(max(self.top, 0), max(0, height - (self.bottom - self.top))) - self.top
        return Box(self.left + x, self.top + y, self.right + x, self.bottom + y)


class Tile(NamedTuple):
    """A small picture with transparency, ready to be blended.

    Attributes:
        ink: Colour times opacity, uint16 (h, w, 3), range 0-65280.
        clear: What shows of the ground, uint16 (h, w, 1), range 0-256.
    """

    ink: NDArray[np.uint16]
    clear: NDArray[np.uint16]


def fill(image: NDArray[np.uint8], box: Box, colour: Colour, opacity: int = 256) -> None:
    """Fill a box; what lies outside the picture is left out. `opacity` is 0 to 256."""
    part = _part(image, round(box.left), round(box.top), round(box.right), round(box.bottom))
    if opacity == 256:
        part[...] = colour
    else:
        ink = (np.array(colour, np.uint16) * opacity).astype(np.uint16)
        part[...] = (part.astype(np.uint16) * np.uint16(256 - opacity) + ink) >> 8


def outline(image: NDArray[np.uint8], box: Box, line: int, colour: Colour, opacity: int = 256, dash: float = 0) -> None:
    """Draw a box's edges, `line` px wide, inside it; in dashes of about `dash` px if that is above 0."""
    left, top, right, bottom = (float(round(edge)) for edge in box)
    for start, end in _dashes(left, right, dash):
        fill(image, Box(start, top, end, top + line), colour, opacity)
        fill(image, Box(start, bottom - line, end, bottom), colour, opacity)
    for start, end in _dashes(top + line, bottom - line, dash):
        fill(image, Box(left, start, left + line, end), colour, opacity)
        fill(image, Box(right - line, start, right, end), colour, opacity)


def _dashes(start: float, end: float, dash: float) -> Iterator[tuple[float, float]]:
    """Yield the drawn parts of a line that starts and ends with one."""
    count = 2 * round((end - start) / dash / 2) + 1 if dash else 1
    step = (end - start) / count
    yield from ((start + i * step, start + (i + 1) * step) for i in range(0, count, 2))


def paste(image: NDArray[np.uint8], tile: Tile, left: float, top: float) -> None:
    """Blend a tile into a picture with its left top corner there; what lies outside is left out."""
    x, y = round(left), round(top)
    height, width = tile.clear.shape[:2]
    part = _part(image, x, y, x + width, y + height)
    rows, columns = slice(max(0, -y), max(0, -y) + part.shape[0]), slice(max(0, -x), max(0, -x) + part.shape[1])
    part[...] = (part * tile.clear[rows, columns] + tile.ink[rows, columns]) >> 8


def _part(image: NDArray[np.uint8], left: int, top: int, right: int, bottom: int) -> NDArray[np.uint8]:
    return image[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]


@lru_cache(maxsize=64)
def text_tile(text: str, size: int, ink: Colour, ground: tuple[int, ...], widest: str = "") -> Tile:
    """Return one line of text on a rounded ground.

    Args:
        text: What it says.
        size: Of the text, px.
        ink: The text's colour.
        ground: The ground's colour, RGB or RGBA.
        widest: Make it wide enough for this text too, so that a changing number does not change the width.
    """
    width, height = text_size(widest or text, size)
    picture = _ground(math.ceil(max(width, text_size(text, size)[0])), math.ceil(height), size * 0.25, ground)
    ImageDraw.Draw(picture).text((size * 0.35, height / 2), text, font=font(size), fill=ink, anchor="lm")
    return _tile(picture)


def text_size(text: str, size: int) -> tuple[float, float]:
    """Return width and height, px, of `text_tile`."""
    return font(size).getlength(text) + 0.7 * size, 1.5 * size


@lru_cache(maxsize=16)
def column_tile(names: Sequence[str], size: int, width: int, height: int, ink: Colour, ground: tuple[int, ...]) -> Tile:
    """Return names below each other at the left of a rounded ground of that size, px; text of `size` px."""
    picture = _ground(width, height, size * 0.4, ground)
    draw, row = ImageDraw.Draw(picture), (height - size * 0.5) / len(names)
    for i, name in enumerate(names):
        draw.text((size * 0.5, size * 0.25 + (i + 0.5) * row), name, font=font(size), fill=ink, anchor="lm")
    return _tile(picture)


def _ground(width: int, height: int, radius: float, colour: tuple[int, ...]) -> Image.Image:
    red, green, blue, alpha = (*colour, 255)[:4]
    mask = Image.new("L", (width * SMOOTHING, height * SMOOTHING))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, *(edge - 1 for edge in mask.size)), radius * SMOOTHING, fill=alpha)
    picture = Image.new("RGBA", (width, height), (red, green, blue))
    picture.putalpha(mask.resize((width, height), Image.Resampling.BOX))
    return picture


def _tile(picture: Image.Image) -> Tile:
    pixels = np.asarray(picture).astype(np.uint16)
    alpha = pixels[..., 3:] + (pixels[..., 3:] >> 7)  # 255 becomes 256
    return Tile(pixels[..., :3] * alpha, 256 - alpha)


@lru_cache(maxsize=32)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return Pillow's own font at that size, px."""
    return ImageFont.load_default(size)
