"""Draw predictions on a picture or on a video's frames: box, label, and a small panel of bars.

Sizes follow the picture and the face, so that text is readable on a thumbnail and on a poster that is shown small. The colours
are those of Okabe and Ito, which colour-blind readers can tell apart; every label also names its expression. An unsure
prediction has a question mark, a dark label and a dashed box.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from mien.atomic import atomic_buffer
from mien.errors import OutputError
from mien.languages import translate
from mien.output.fonts import require_font
from mien.output.paint import Box, Colour, fill, font, list_tile, outline, paste, text_size, text_tile
from mien.output.table import check_ending
from mien.structures import Prediction

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF"}
"""File endings of a picture, and the format of each."""

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

WHITE: Colour = (255, 255, 255)

SHADE = (16, 18, 24, 205)
"""Background of the bars and of unsure labels, RGBA."""

BAR_LENGTH = 4.0
"""Length of a full bar, as a multiple of the font size."""

MIN_SIDE = 256
"""Pictures whose shorter side is below this, px, are enlarged first, so that text fits."""

MIN_TEXT = 0.0105
"""Smallest font size, as a share of the picture's longer side: 10 px if that is shown 1,000 px long."""

MAX_PANEL_HEIGHT, MAX_PANEL_SHARE = 1.6, 0.25
"""Panels taller than 1.6 times their face are left out if all panels would cover over a quarter of the picture."""

INNER_FACE = (0.2, 0.25, 0.8, 0.9)
"""Part of a face's box that contains eyes, nose and mouth: left, top, right and bottom, as shares of the box."""

MAX_COVERED = 0.2
"""Share of the inner face that its own panel may cover if there is no other position."""

HYSTERESIS = 0.18
"""In a video, text keeps its size until the face asks for one that differs by this share, so that it does not flicker."""

REMEMBERED = 256
"""People of a video whose layout is remembered; those not seen for longest are forgotten."""

NOWHERE = -1
"""Position of a label or panel for which there is no room."""

OVER_FACE = 100
"""Number of the first position of a panel over its own face; those around the face have lower numbers."""


def annotate(image: NDArray[np.uint8], predictions: Iterable[Prediction]) -> NDArray[np.uint8]:
    """Return a copy of a picture with its predictions drawn on it.

    Each face gets its box and its label with the confidence. Several faces also get their numbers, as in the table: `1` is the
    first prediction. A panel of bars for all classes is drawn next to the face, below or above it, or over the edge of a face
    that fills the picture. It is left out where it would cover another face or label, and where many faces are small. A ready
    crop, which has no box, gets a strip at its right for the panel.

    Args:
        image: RGB uint8 (H, W, 3), the picture the predictions are from.
        predictions: What `Recognizer.predict` returned for it.

    Returns:
        RGB uint8 (H, W, 3), of the picture's size. A picture whose shorter side is below `MIN_SIDE` px is enlarged by a whole
        factor. That of a ready crop is wider by the strip.
    """
    return Annotator().draw(image, predictions)


@dataclass
class _Layout:
    """A person's number, font size and the positions of label and bars in the last frame; 0 and None before the first."""

    number: int | None = None
    text: int = 0
    label: int | None = None
    bars: int | None = None


class Annotator:
    """Draws on the frames of one video, in order.

    It remembers where each person's label and bars were. They stay on their side of the face as long as there is room, so they
    do not jump between frames. Use one object per video.

    Raises:
        OutputError: No font on this system has the letters of the language in use.
    """

    def __init__(self) -> None:
        require_font()
        self._layouts: dict[int, _Layout] = {}
        self._strip: tuple[str, ...] | None = None

    def draw(self, image: NDArray[np.uint8], predictions: Iterable[Prediction]) -> NDArray[np.uint8]:
        """Return a copy of the next frame with its predictions drawn on it; image and result are as in `annotate`."""
        found = list(predictions)
        shorter, longer = sorted(image.shape[:2])
        factor = max(1, min(math.ceil(MIN_SIDE / shorter), 8 * MIN_SIDE // longer))  # a narrow strip does not become huge
        canvas = np.array(ImageOps.scale(Image.fromarray(image), factor)) if factor > 1 else image.copy()
        height, width = canvas.shape[:2]
        unit = max(1.0, min(width, height) / 400)  # width of a thin line, px
        boxes = [_face_box(prediction, width, height, factor) for prediction in found]
        self._strip = next((prediction.classes for prediction in found if prediction.face is None), self._strip)
        if self._strip:  # also for a frame without a face: all frames of a video have one size
            panel, _ = _panel_size(_bar_text(round(_wanted_text(width, unit, width))), self._strip)
            canvas = np.hstack([canvas, np.full((height, math.ceil(panel + 6 * unit), 3), SHADE[:3], np.uint8)])
        sheet = _Sheet(canvas, boxes, unit)
        # People who have a position keep it, and the others choose after them, in the order of their track numbers.
        layouts = [self._layout(prediction.track) for prediction in found]
        for number, (prediction, layout) in enumerate(zip(found, layouts, strict=True), 1):
            layout.number = prediction.track if prediction.track is not None or len(found) == 1 else number
        order = sorted(range(len(found)), key=lambda i: (layouts[i].bars in (None, NOWHERE), found[i].track or 0))
        for draw in (sheet.draw_box, sheet.draw_label, sheet.draw_bars):  # every label is above every box
            for i in order:
                draw(found[i], boxes[i], layouts[i])
        return canvas

    def _layout(self, track: int | None) -> _Layout:
        layout = _Layout() if track is None else self._layouts.pop(track, _Layout())
        if track is not None:
            self._layouts[track] = layout  # at the end: the person seen last
            if len(self._layouts) > REMEMBERED:
                del self._layouts[next(iter(self._layouts))]
        return layout


def write_picture(path: str | os.PathLike[str], image: NDArray[np.uint8]) -> None:
    """Write a picture, RGB uint8 (H, W, 3), completely or not at all; the file's ending chooses the format.

    Raises:
        OutputError: The ending is of no picture format, or the file cannot be written.
    """
    kind = FORMATS[check_ending(path, "picture", tuple(FORMATS))]
    with atomic_buffer(path) as buffer:
        try:
            Image.fromarray(image).save(buffer, kind, quality=92)
        except (ValueError, OSError) as error:  # from the format, not from the disk: the buffer is in memory
            size = f"{image.shape[1]}x{image.shape[0]} px"
            raise OutputError(f"{path}: {kind} cannot store {size} ({error}); choose the ending .png") from None


def _face_box(prediction: Prediction, width: int, height: int, factor: int) -> Box:
    right, bottom = width - 1, height - 1
    if prediction.face is None:
        return Box(0, 0, right, bottom)
    edges = prediction.face.box_xyxy.astype(float) * factor
    return Box(*np.clip(edges, 0, [right, bottom, right, bottom]).tolist())


class _Sheet:
    """The picture being drawn on, and the positions already taken."""

    def __init__(self, image: NDArray[np.uint8], faces: Sequence[Box], unit: float) -> None:
        self.image, self.unit = image, unit
        self.height, self.width = image.shape[:2]
        self.faces = faces
        self.taken: list[Box] = []

    def draw_box(self, prediction: Prediction, box: Box, layout: _Layout) -> None:
        """Draw a face's box in the expression's colour between dark edges, which show on any background; dashed if unsure."""
        longer = max(self.width, self.height)
        wanted = _wanted_text(box.right - box.left, self.unit, longer)
        if not layout.text or abs(wanted / layout.text - 1) >= HYSTERESIS:
            layout.text = round(wanted)
        if prediction.face is None:
            return
        line = max(2, round(longer / 1200), round(min(1.5 * self.unit, 0.04 * (box.right - box.left))))
        dash = 6 * line if prediction.unsure else 0
        outline(self.image, box.grown(1), line + 2, (0, 0, 0), 100 if dash else 150)
        outline(self.image, box, line, _colour(prediction.label), dash=dash)

    def draw_label(self, prediction: Prediction, box: Box, layout: _Layout) -> None:
        """Draw the label above a face, else below it, else inside it."""
        background: tuple[int, ...]
        name = translate(prediction.label) + ("?" if prediction.unsure else "")
        name = name if layout.number is None else f"{layout.number}: {name}"
        text, widest = f"{name} {prediction.confidence:.0%}", f"{name} 100%"
        width, height = text_size(widest, layout.text)
        left = min(box.left, max(0, self.width - width))
        tops = (box.top - height - self.unit, box.bottom + self.unit, box.top, box.bottom - height)
        positions = {number: Box(left, top, left + width, top + height) for number, top in enumerate(tops)}
        layout.label = self._choose(positions, layout.label, box, height / 3)
        position = positions[2 if layout.label == NOWHERE else layout.label].moved_into(self.width, self.height)
        colour = _colour(prediction.label)
        red, green, blue = colour
        if prediction.unsure:
            background, ink = SHADE, ((red + 255) // 2, (green + 255) // 2, (blue + 255) // 2)
        else:  # black or white, whichever contrasts more
            background, ink = colour, (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else WHITE
        paste(self.image, text_tile(text, layout.text, ink, background, widest), position.left, position.top)
        self.taken.append(position)

    def draw_bars(self, prediction: Prediction, box: Box, layout: _Layout) -> None:
        """Draw a bar for each class next to a face, else over its edge, else not at all."""
        classes, size = prediction.classes, _bar_text(layout.text)
        width, height = _panel_size(size, classes)
        panel = self._panel(box, layout, width, height)
        if panel is None:
            return
        self.taken.append(panel)
        names = _shown(classes)
        tile = list_tile(names, font(size, "".join(names)), size, width, height, WHITE, SHADE)
        paste(self.image, tile, panel.left, panel.top)
        pad, half, length = size * 0.5, size * 0.3, size * BAR_LENGTH
        start, pitch = round(panel.left) + width - pad - length, (height - pad) / len(classes)
        for i, (name, prob) in enumerate(zip(classes, prediction.probs.tolist(), strict=True)):
            middle = round(panel.top) + pad / 2 + (i + 0.5) * pitch
            bar = Box(start, middle - half, start + length, middle + half)
            fill(self.image, bar, WHITE, opacity=32)  # the empty part is faint
            fill(self.image, bar._replace(right=start + length * prob), _colour(name))

    def _panel(self, box: Box, layout: _Layout, width: int, height: int) -> Box | None:
        """Choose the position of a panel and remember it; None if there is no room."""
        around, over = self._around(box, layout, width, height), self._over(box, width, height)
        slack, kept = 6 * self.unit, layout.bars
        layout.bars = NOWHERE
        leeway = 1 if kept in (None, NOWHERE) else 1 + HYSTERESIS
        tall = height > leeway * MAX_PANEL_HEIGHT * (box.bottom - box.top)
        if not tall or len(self.faces) * width * height <= leeway * MAX_PANEL_SHARE * self.width * self.height:
            clear = {n: each for n, each in around.items() if not each.grown(-slack if n == kept else 0).overlaps(box)}
            layout.bars = self._choose(clear, NOWHERE if kept in over else kept, box, slack)
            if layout.bars == NOWHERE:
                inner = box.part(*INNER_FACE)
                limit = MAX_COVERED * inner.area * (1 + HYSTERESIS if kept in over else 1)
                over = {number: each for number, each in over.items() if each.intersection(inner) <= limit}
                layout.bars = self._choose(over, kept, box, slack)
        return None if layout.bars == NOWHERE else (around | over)[layout.bars].moved_into(self.width, self.height)

    def _around(self, box: Box, layout: _Layout, width: int, height: int) -> dict[int, Box]:
        """Return the positions of a panel around its face, the best first."""
        gap = 3 * self.unit
        above = box.top - text_size("", layout.text)[1] - self.unit - gap - height
        corners = [
            (box.right + gap, box.top),
            (box.left - gap - width, box.top),
            (box.right + gap, box.bottom - height),
            (box.left - gap - width, box.bottom - height),
            (box.left, box.bottom + gap),
            (box.right - width, box.bottom + gap),
        ]
        numbered = dict(enumerate(corners))
        if len(self.faces) == 1:  # then the bars may be in any corner of the picture: it is clear whose they are
            x, y = self.width - width - gap, self.height - height - gap
            numbered |= {6: (x, gap), 7: (gap, gap), 8: (x, y), 9: (gap, y)}
        numbered |= {10: (box.left, above), 11: (box.right - width, above)}
        return {number: Box(left, top, left + width, top + height) for number, (left, top) in numbered.items()}

    def _over(self, box: Box, width: int, height: int) -> dict[int, Box]:
        """Return the positions of a panel over the edge of its face, first those that hide least of eyes, nose and mouth."""
        gap = 3 * self.unit
        right, bottom = self.width - width - gap, self.height - height - gap
        lefts = (min(box.right - gap, right), max(box.left + gap - width, gap), box.right - width, box.left)
        tops = (min(box.bottom - gap, bottom), max(box.top + gap - height, gap), box.bottom - height, box.top)
        corners = [(left, top) for top in tops for left in lefts]
        positions = {OVER_FACE + i: Box(left, top, left + width, top + height) for i, (left, top) in enumerate(corners)}
        inner = box.part(*INNER_FACE)
        return dict(sorted(positions.items(), key=lambda each: (each[1].intersection(inner), each[1].intersection(box))))

    def _choose(self, positions: Mapping[int, Box], kept: int | None, own: Box, slack: float) -> int:
        """Return the number of the position to take: the kept one if nearly free, else the first free one, or `NOWHERE`.

        A person without a position takes only one that is free by more than `slack` px, so that nothing flickers.
        """
        if kept is not None and kept in positions and self._is_free(positions[kept], -slack, own):
            return kept
        spare = slack if kept == NOWHERE else 0
        return next((number for number, position in positions.items() if self._is_free(position, spare, own)), NOWHERE)

    def _is_free(self, position: Box, spare: float, own: Box) -> bool:
        """Return whether a position is inside the picture and `spare` px away from other faces, labels and panels."""
        others = [face for face in self.faces if face is not own]
        inside = position.grown(min(spare, 0)).within(self.width, self.height)
        return inside and not any(position.grown(spare).overlaps(other) for other in (*others, *self.taken))


def _wanted_text(face_width: float, unit: float, longer: float) -> float:
    """Return the label's font size, px: it follows the face, within limits set by the picture's longer side."""
    largest = 13 * unit
    smallest = max(11 * min(unit, 1.3), min(MIN_TEXT * longer, largest))
    return min(max(face_width * 0.13, smallest), largest)


def _bar_text(label_text: int) -> int:
    return round(label_text * 0.8)


def _panel_size(size: int, classes: Sequence[str]) -> tuple[int, int]:
    """Return the width and height of a panel of bars with text of that font size, px."""
    shown = _shown(classes)
    names = max(map(font(size, "".join(shown)).getlength, shown))
    return math.ceil(names + size * (BAR_LENGTH + 1.5)), math.ceil(size * (1.35 * len(classes) + 0.5))


def _shown(classes: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(translate, classes))


def _colour(expression: str) -> Colour:
    return COLOURS.get(expression, OTHER)
