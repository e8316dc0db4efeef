"""Draw predictions on a picture: box, label, and a small panel of bars where there is room.

Sizes follow the picture's and the face's, so a thumbnail and a poster are read alike. Colours are those of Okabe and Ito,
told apart by colour-blind readers; every label also says its expression in words.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from mien.atomic import atomic_path
from mien.errors import OutputError
from mien.structures import Prediction

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "angry": (213, 94, 0),
    "contempt": (230, 159, 0),
    "disgust": (0, 158, 115),
    "fear": (204, 121, 167),
    "happy": (240, 228, 66),
    "neutral": (220, 220, 220),
    "sad": (0, 114, 178),
    "surprise": (86, 180, 233),
}
"""Colour of each expression, RGB, range 0-255."""

OTHER: Colour = (150, 150, 150)
"""Colour of any other class."""

SHADE = (16, 18, 24, 205)
"""Panel behind the bars, RGBA."""

TRACK = (255, 255, 255, 32)
"""The empty part of a bar, RGBA."""

BAR = 4.0
"""Length of a full bar, as a multiple of the text's size."""

SMALLEST = 256
"""Pictures with a shorter side below this, px, are enlarged first: text needs room."""

TALLEST = 1.6
"""A panel taller than this many times its face is left out: it would hide more than it says."""


FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF"}
"""Endings a picture may be written with, and the format each names."""


class Box(NamedTuple):
    """A rectangle in px of the drawn picture."""

    left: float
    top: float
    right: float
    bottom: float

    def grown(self, by: float) -> Box:
        """Return the rectangle with every edge moved outwards."""
        return Box(self.left - by, self.top - by, self.right + by, self.bottom + by)

    def overlaps(self, other: Box) -> bool:
        """Return whether two rectangles share any area."""
        return self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom

    def within(self, width: int, height: int) -> bool:
        """Return whether the rectangle lies inside a picture of that size."""
        return self.left >= 0 and self.top >= 0 and self.right <= width and self.bottom <= height


def annotate(image: NDArray[np.uint8], predictions: Iterable[Prediction]) -> NDArray[np.uint8]:
    """Return a copy of a picture with its predictions drawn on it.

    Each face gets its box and its label with the confidence; the bars of all classes stand beside it where they cover no other
    face. A ready crop, which has no face box, gets a strip at its right for them.

    Args:
        image: RGB uint8 (H, W, 3), the picture the predictions came from.
        predictions: What `Recognizer.predict` returned for it.

    Returns:
        RGB uint8 (H, W, 3), of the picture's size; enlarged by a whole factor if the shorter side is below `SMALLEST` px, and
        wider by the strip for a ready crop.
    """
    found = list(predictions)
    factor = _enlargement(*image.shape[:2])
    picture = ImageOps.scale(Image.fromarray(image), factor) if factor > 1 else Image.fromarray(image).copy()
    boxes = [_box(prediction, picture, factor) for prediction in found]
    if any(prediction.face is None for prediction in found):
        picture = _widened(picture, found[0].classes)
    canvas = _Canvas(picture, boxes)
    for draw in (canvas.frame, canvas.label, canvas.bars):  # every label lies above every frame
        for prediction, box in zip(found, boxes, strict=True):
            draw(prediction, box)
    return np.asarray(picture)


def write_picture(path: str | os.PathLike[str], image: NDArray[np.uint8]) -> None:
    """Write a picture, RGB uint8 (H, W, 3), whole or not at all; the name's ending chooses the format.

    Raises:
        OutputError: The ending names no format, or the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise OutputError(f"{path}: its ending names no picture format; end it with one of {', '.join(FORMATS)}")
    with atomic_path(path) as beside:
        Image.fromarray(image).save(beside, FORMATS[suffix], quality=92)


def _enlargement(height: int, width: int) -> int:
    """Return the whole factor that brings the shorter side to `SMALLEST` px, the longer one at most to eight times that."""
    return max(1, min(-(-SMALLEST // min(height, width)), 8 * SMALLEST // max(height, width)))


def _box(prediction: Prediction, picture: Image.Image, factor: int) -> Box:
    right, bottom = picture.width - 1, picture.height - 1
    if prediction.face is None:
        return Box(0, 0, right, bottom)
    edges = prediction.face.box_xyxy.astype(float) * factor
    return Box(*np.clip(edges, 0, [right, bottom, right, bottom]).tolist())


def _widened(picture: Image.Image, classes: Sequence[str]) -> Image.Image:
    """Return the picture with an empty strip at its right, as wide as a panel: a ready crop has no room to spare."""
    unit = _unit(picture.size)
    width, _ = _panel_size(_bar_text(_text_size(picture.width, unit)), classes)
    wider = Image.new("RGB", (picture.width + round(width + 6 * unit), picture.height), SHADE[:3])
    wider.paste(picture)
    return wider


class _Canvas:
    """The picture being drawn on, and the places already taken."""

    def __init__(self, picture: Image.Image, boxes: Sequence[Box]) -> None:
        self.width, self.height = picture.size
        self.draw = ImageDraw.Draw(picture, "RGBA")
        self.unit = _unit(picture.size)
        self.taken = list(boxes)

    def frame(self, prediction: Prediction, box: Box) -> None:
        """Draw a face's box: the expression's colour on a dark edge, so that it shows on any ground."""
        if prediction.face is None:
            return
        line = max(2, round(self.unit * 1.5))
        self.draw.rounded_rectangle(box.grown(1), 2 * line, outline=(0, 0, 0, 150), width=line + 2)
        self.draw.rounded_rectangle(box, 2 * line, outline=_colour(prediction.label), width=line)

    def label(self, prediction: Prediction, box: Box) -> None:
        """Draw the label above a face, or inside its top edge where there is no room above."""
        size = _text_size(box.right - box.left, self.unit)
        text = f"{prediction.label} {prediction.confidence:.0%}"
        font, pad = _font(size), size * 0.35
        width, height = font.getlength(text) + 2 * pad, size * 1.5
        left = min(box.left, max(0, self.width - width))
        above = box.top - height - self.unit
        top = above if above >= 0 else min(box.top, self.height - height)
        place = Box(left, top, left + width, top + height)
        colour = _colour(prediction.label)
        self.draw.rounded_rectangle(place, size * 0.25, fill=colour)
        self.draw.text((left + pad, top + height / 2), text, font=font, fill=_ink(colour), anchor="lm")
        self.taken.append(place)

    def bars(self, prediction: Prediction, box: Box) -> None:
        """Draw a bar for each class beside a face; nowhere if every place is taken or outside the picture."""
        size = _bar_text(_text_size(box.right - box.left, self.unit))
        place = self._free(box, *_panel_size(size, prediction.classes))
        if place is None:
            return
        self.taken.append(place)
        self.draw.rounded_rectangle(place, size * 0.4, fill=SHADE)
        pad, length, thick = size * 0.5, size * BAR, size * 0.3
        start, row = place.right - pad - length, (place.bottom - place.top - pad) / len(prediction.classes)
        for i, (name, prob) in enumerate(zip(prediction.classes, prediction.probs.tolist(), strict=True)):
            middle = place.top + pad / 2 + (i + 0.5) * row
            self.draw.text((place.left + pad, middle), name, font=_font(size), fill=(255, 255, 255), anchor="lm")
            self.draw.rectangle((start, middle - thick, start + length, middle + thick), fill=TRACK)
            self.draw.rectangle((start, middle - thick, start + length * prob, middle + thick), fill=_colour(name))

    def _free(self, box: Box, width: float, height: float) -> Box | None:
        gap = 3 * self.unit
        if height > TALLEST * (box.bottom - box.top):
            return None
        corners = [
            (box.right + gap, box.top),
            (box.left - gap - width, box.top),
            (box.right + gap, box.bottom - height),
            (box.left - gap - width, box.bottom - height),
            (box.left, box.bottom + gap),
            (box.right - width, box.bottom + gap),
        ]
        places = [Box(left, top, left + width, top + height) for left, top in corners]
        return next((place for place in places if self._is_free(place)), None)

    def _is_free(self, place: Box) -> bool:
        return place.within(self.width, self.height) and not any(place.overlaps(other) for other in self.taken)


def _unit(size: tuple[int, int]) -> float:
    """Return the px of a hair line in a picture of that size."""
    return max(1.0, min(size) / 400)


def _text_size(face_width: float, unit: float) -> int:
    """Return the label's font size, px: it follows the face, within what suits the picture."""
    smallest, largest = 11 * min(unit, 1.3), 13 * unit
    return round(min(max(face_width * 0.13, smallest), largest))


def _bar_text(label_text: int) -> int:
    return round(label_text * 0.8)


def _panel_size(size: int, classes: Sequence[str]) -> tuple[float, float]:
    """Return width and height, px, of a panel of bars with text of that size."""
    names = max(_font(size).getlength(name) for name in classes)
    return names + size * (BAR + 1.5), size * (1.35 * len(classes) + 0.5)


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _colour(expression: str) -> Colour:
    return COLOURS.get(expression, OTHER)


def _ink(ground: Colour) -> Colour:
    red, green, blue = ground
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else (255, 255, 255)
