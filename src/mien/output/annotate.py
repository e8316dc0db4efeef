"""Draw predictions on a picture or a video's frames: box, label, and a small panel of bars.

Sizes follow the picture's and the face's, so a thumbnail and a poster are read alike, the poster also when it is shown small.
Colours are those of Okabe and Ito, told apart by colour-blind readers; every label also says its expression in words. A
doubtful one has a question mark, a dark label and a dashed frame.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from mien.atomic import atomic_buffer
from mien.errors import OutputError
from mien.output.paint import Box, Colour, column_tile, fill, font, outline, paste, text_size, text_tile
from mien.structures import Prediction

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

WHITE: Colour = (255, 255, 255)

TRACK = 32
"""Opacity of the empty part of a bar, of 256."""

BAR = 4.0
"""Length of a full bar, as a multiple of the text's size."""

SMALLEST = 256
"""Pictures with a shorter side below this, px, are enlarged first: text needs room."""

READ = 0.0105
"""Height of the smallest text, as a share of the picture's longer side: 10 px where that is shown 1,000 px long."""

TALLEST, MOST = 1.6, 0.25
"""A panel taller than this many times its face is left out where those of all would hide more than this of the picture."""

INNER = (0.2, 0.25, 0.8, 0.9)
"""Where eyes, nose and mouth are in the box of a face: left, top, right and bottom, as shares of it."""

COVERED = 0.2
"""Share of that part of its own face that a panel may cover, where there is no other place."""

STEADY = 0.18
"""In a video, text keeps its size until the face asks for one that differs by this share."""

REMEMBERED = 256
"""People of a video whose places are remembered; the ones not seen for longest are forgotten."""

NOWHERE = -1

OVER = 100
"""Number of the first place of a panel over its own face."""

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF"}
"""Endings a picture may be written with, and the format each names."""


def annotate(image: NDArray[np.uint8], predictions: Iterable[Prediction]) -> NDArray[np.uint8]:
    """Return a copy of a picture with its predictions drawn on it.

    Each face gets its box and its label with the confidence. The bars of all classes stand beside it, below it or above it;
    those of a face that fills the picture over the edge of it. They are left out where they would cover another face or its
    label, and where many faces are small. A ready crop, which has no face box, gets a strip at its right for them.

    Args:
        image: RGB uint8 (H, W, 3), the picture the predictions came from.
        predictions: What `Recognizer.predict` returned for it.

    Returns:
        RGB uint8 (H, W, 3), of the picture's size; enlarged by a whole factor if the shorter side is below `SMALLEST` px, and
        wider by the strip for a ready crop.
    """
    return Annotator().draw(image, predictions)


@dataclass
class _Place:
    """How large a person's label was drawn last, and which place it and the bars took: None not yet, `NOWHERE` no room."""

    text: int | None = None
    label: int | None = None
    bars: int | None = None


class Annotator:
    """Draws on the frames of one video, one after the other.

    It remembers where each person's label and bars stood: they stay on their side of the face as long as there is room, so
    they do not jump back and forth between frames. One object serves one video.
    """

    def __init__(self) -> None:
        self._places: dict[int, _Place] = {}
        self._strip: tuple[str, ...] | None = None

    def draw(self, image: NDArray[np.uint8], predictions: Iterable[Prediction]) -> NDArray[np.uint8]:
        """Return a copy of the next frame with its predictions drawn on it; image and result as of `annotate`."""
        found = list(predictions)
        factor = _enlargement(*image.shape[:2])
        canvas = np.array(ImageOps.scale(Image.fromarray(image), factor)) if factor > 1 else image.copy()
        height, width = canvas.shape[:2]
        boxes = [_face_box(prediction, width, height, factor) for prediction in found]
        self._strip = next((prediction.classes for prediction in found if prediction.face is None), self._strip)
        if self._strip:  # also of a frame without a face: all frames of a video have one size
            canvas = _widened(canvas, self._strip)
        sheet = _Sheet(canvas, boxes, _unit(width, height))
        # Who has a place keeps it before others look for one; in the order of their numbers, which does not change.
        places = [self._place(prediction.track) for prediction in found]
        order = sorted(range(len(found)), key=lambda i: (places[i].bars in (None, NOWHERE), found[i].track or 0))
        for draw in (sheet.frame, sheet.label, sheet.bars):  # every label lies above every frame
            for i in order:
                draw(found[i], boxes[i], places[i])
        return canvas

    def _place(self, track: int | None) -> _Place:
        place = _Place() if track is None else self._places.pop(track, _Place())
        if track is not None:
            self._places[track] = place  # the one seen last stands last
            if len(self._places) > REMEMBERED:
                del self._places[next(iter(self._places))]
        return place


def write_picture(path: str | os.PathLike[str], image: NDArray[np.uint8]) -> None:
    """Write a picture, RGB uint8 (H, W, 3), whole or not at all; the name's ending chooses the format.

    Raises:
        OutputError: The ending names no format, or the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise OutputError(f"{path}: its ending names no picture format; end it with one of {', '.join(FORMATS)}")
    with atomic_buffer(path) as buffer:
        try:
            Image.fromarray(image).save(buffer, FORMATS[suffix], quality=92)
        except (ValueError, OSError) as error:  # of the format: the buffer lies in memory
            size = f"{image.shape[1]}x{image.shape[0]} px"
            raise OutputError(f"{path}: {FORMATS[suffix]} cannot hold {size} ({error}); let its name end in .png") from None


def _enlargement(height: int, width: int) -> int:
    """Return the whole factor that brings the shorter side to `SMALLEST` px, the longer one at most to eight times that."""
    return max(1, min(-(-SMALLEST // min(height, width)), 8 * SMALLEST // max(height, width)))


def _face_box(prediction: Prediction, width: int, height: int, factor: int) -> Box:
    right, bottom = width - 1, height - 1
    if prediction.face is None:
        return Box(0, 0, right, bottom)
    edges = prediction.face.box_xyxy.astype(float) * factor
    return Box(*np.clip(edges, 0, [right, bottom, right, bottom]).tolist())


def _widened(image: NDArray[np.uint8], classes: Sequence[str]) -> NDArray[np.uint8]:
    """Return the picture with an empty strip at its right, as wide as a panel: a ready crop has no room to spare."""
    height, width = image.shape[:2]
    unit = _unit(width, height)
    panel, _ = _panel_size(_bar_text(round(_wanted_text(width, unit, width))), classes)
    wider = np.full((height, width + math.ceil(panel + 6 * unit), 3), SHADE[:3], np.uint8)
    wider[:, :width] = image
    return wider


class _Sheet:
    """The picture being drawn on, and the places already taken."""

    def __init__(self, image: NDArray[np.uint8], faces: Sequence[Box], unit: float) -> None:
        self.image, self.unit = image, unit
        self.height, self.width = image.shape[:2]
        self.faces = faces
        self.taken: list[Box] = []

    def frame(self, prediction: Prediction, box: Box, place: _Place) -> None:
        """Draw a face's box: the expression's colour between dark edges, so that it shows on any ground; dashed in doubt."""
        longer = max(self.width, self.height)
        place.text = _text(box.right - box.left, self.unit, longer, place.text)
        if prediction.face is None:
            return
        line = max(2, round(longer / 1200), round(min(1.5 * self.unit, 0.04 * (box.right - box.left))))
        dash = 6 * line if prediction.unsure else 0
        outline(self.image, box.grown(1), line + 2, (0, 0, 0), 100 if dash else 150)
        outline(self.image, box, line, _colour(prediction.label), dash=dash)

    def label(self, prediction: Prediction, box: Box, place: _Place) -> None:
        """Draw the label above a face, else below it, else inside it."""
        assert place.text is not None
        name = prediction.label + ("?" if prediction.unsure else "")
        name = name if prediction.track is None else f"{prediction.track}: {name}"
        text, widest = f"{name} {prediction.confidence:.0%}", f"{name} 100%"
        where = self._label_place(box, place, *text_size(widest, place.text))
        colour = _colour(prediction.label)
        ground, ink = (SHADE, _pale(colour)) if prediction.unsure else (colour, _ink(colour))
        paste(self.image, text_tile(text, place.text, ink, ground, widest), where.left, where.top)
        self.taken.append(where)

    def _label_place(self, box: Box, place: _Place, width: float, height: float) -> Box:
        left = min(box.left, max(0, self.width - width))
        tops = [box.top - height - self.unit, box.bottom + self.unit, box.top, box.bottom - height]
        places = {number: Box(left, top, left + width, top + height) for number, top in enumerate(tops)}
        place.label = self._choose(places, place.label, box, height / 3)
        return places[2 if place.label == NOWHERE else place.label].moved_into(self.width, self.height)

    def bars(self, prediction: Prediction, box: Box, place: _Place) -> None:
        """Draw a bar for each class beside a face or, for want of room, over its edge; nowhere if every place is taken."""
        assert place.text is not None
        size = _bar_text(place.text)
        width, height = _panel_size(size, prediction.classes)
        where = self._bars_place(box, place, width, height)
        if where is None:
            return
        self.taken.append(where)
        paste(self.image, column_tile(prediction.classes, size, width, height, WHITE, SHADE), where.left, where.top)
        pad, thick = size * 0.5, size * 0.3
        start, top, row = (
            round(where.left) + width - pad - size * BAR,
            round(where.top),
            (height - pad) / len(prediction.classes),
        )
        for i, (name, prob) in enumerate(zip(prediction.classes, prediction.probs.tolist(), strict=True)):
            middle = top + pad / 2 + (i + 0.5) * row
            bar = Box(start, middle - thick, start + size * BAR, middle + thick)
            fill(self.image, bar, WHITE, TRACK)
            fill(self.image, bar._replace(right=start + size * BAR * prob), _colour(name))

    def _bars_place(self, box: Box, place: _Place, width: int, height: int) -> Box | None:
        beside, over = self._beside(box, place, width, height), self._over(box, width, height)
        slack, kept = 6 * self.unit, place.bars
        place.bars = NOWHERE
        if not self._hides_too_much(box, kept, width, height):
            clear = {n: each for n, each in beside.items() if not each.grown(-slack if n == kept else 0).overlaps(box)}
            place.bars = self._choose(clear, NOWHERE if kept in over else kept, box, slack)
            if place.bars == NOWHERE:
                inner = box.part(*INNER)
                most = COVERED * inner.area * (1 + STEADY if kept in over else 1)
                over = {number: each for number, each in over.items() if each.shared(inner) <= most}
                place.bars = self._choose(over, kept, box, slack)
        return None if place.bars == NOWHERE else (beside | over)[place.bars].moved_into(self.width, self.height)

    def _beside(self, box: Box, place: _Place, width: int, height: int) -> dict[int, Box]:
        """Return the places of a panel around its face, the best first."""
        assert place.text is not None
        gap = 3 * self.unit
        above = box.top - text_size("", place.text)[1] - self.unit - gap - height
        corners = [
            (box.right + gap, box.top),
            (box.left - gap - width, box.top),
            (box.right + gap, box.bottom - height),
            (box.left - gap - width, box.bottom - height),
            (box.left, box.bottom + gap),
            (box.right - width, box.bottom + gap),
        ]
        numbered = dict(enumerate(corners))
        if len(self.faces) == 1:  # then it is clear whose bars they are, wherever they stand
            numbered |= dict(enumerate(self._corners(width, height), 6))
        numbered |= {10: (box.left, above), 11: (box.right - width, above)}
        return {number: Box(left, top, left + width, top + height) for number, (left, top) in numbered.items()}

    def _over(self, box: Box, width: int, height: int) -> dict[int, Box]:
        """Return the places of a panel over the edge of its face, the one that hides least of eyes, nose and mouth first."""
        gap = 3 * self.unit
        right, bottom = self.width - width - gap, self.height - height - gap
        columns = (min(box.right - gap, right), max(box.left + gap - width, gap), box.right - width, box.left)
        rows = (min(box.bottom - gap, bottom), max(box.top + gap - height, gap), box.bottom - height, box.top)
        corners = [(left, top) for top in rows for left in columns]
        places = {OVER + number: Box(left, top, left + width, top + height) for number, (left, top) in enumerate(corners)}
        inner = box.part(*INNER)
        return dict(sorted(places.items(), key=lambda each: (each[1].shared(inner), each[1].shared(box))))

    def _corners(self, width: int, height: int) -> list[tuple[float, float]]:
        gap = 3 * self.unit
        return [(x, y) for y in (gap, self.height - height - gap) for x in (self.width - width - gap, gap)]

    def _hides_too_much(self, box: Box, kept: int | None, width: int, height: int) -> bool:
        spread = 1 if kept in (None, NOWHERE) else 1 + STEADY
        tall = height > spread * TALLEST * (box.bottom - box.top)
        return tall and len(self.faces) * width * height > spread * MOST * self.width * self.height

    def _choose(self, places: Mapping[int, Box], kept: int | None, own: Box, slack: float) -> int:
        """Return the number of the place to take: the kept one if it is nearly free, else the first free one, or `NOWHERE`.

        Who had no room takes only a place that is free by more than `slack` px: nobody comes and goes with every frame.
        """
        if kept is not None and kept in places and self._is_free(places[kept], -slack, own):
            return kept
        spare = slack if kept == NOWHERE else 0
        return next((number for number, place in places.items() if self._is_free(place, spare, own)), NOWHERE)

    def _is_free(self, place: Box, spare: float, own: Box) -> bool:
        """Return whether a place lies in the picture and touches no other face, label or panel, by `spare` px."""
        others = [face for face in self.faces if face is not own]
        inside = place.grown(min(spare, 0)).within(self.width, self.height)
        return inside and not any(place.grown(spare).overlaps(other) for other in (*others, *self.taken))


def _unit(width: int, height: int) -> float:
    """Return the px of a hair line in a picture of that size."""
    return max(1.0, min(width, height) / 400)


def _wanted_text(face_width: float, unit: float, longer: float) -> float:
    """Return the label's font size, px: it follows the face, within what suits a picture of that longer side."""
    largest = 13 * unit
    smallest = max(11 * min(unit, 1.3), min(READ * longer, largest))
    return min(max(face_width * 0.13, smallest), largest)


def _text(face_width: float, unit: float, longer: float, kept: int | None) -> int:
    wanted = _wanted_text(face_width, unit, longer)
    return kept if kept is not None and abs(wanted / kept - 1) < STEADY else round(wanted)


def _bar_text(label_text: int) -> int:
    return round(label_text * 0.8)


def _panel_size(size: int, classes: Sequence[str]) -> tuple[int, int]:
    """Return width and height, px, of a panel of bars with text of that size."""
    names = max(font(size).getlength(name) for name in classes)
    return math.ceil(names + size * (BAR + 1.5)), math.ceil(size * (1.35 * len(classes) + 0.5))


def _colour(expression: str) -> Colour:
    return COLOURS.get(expression, OTHER)


def _pale(colour: Colour) -> Colour:
    red, green, blue = ((part + 255) // 2 for part in colour)
    return red, green, blue


def _ink(ground: Colour) -> Colour:
    red, green, blue = ground
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else WHITE
