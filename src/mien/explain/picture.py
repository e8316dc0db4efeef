"""Drawing maps: over a photo, a sheet with all maps of its faces, and a montage of a corpus with a row for each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mien.explain.base import Explanation, project
from mien.explain.faithfulness import Faithfulness
from mien.output.paint import font

TILE = 200
"""Side of a tile, px."""

COLUMNS = 8
"""Maps in a row of a sheet, at most."""

GAP, TEXT = 6, 13
"""Px between tiles, and size of the text under them, px."""

COLOURS = np.array([[0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]], float)
"""Colours of the values from 0 to 1, evenly spaced: dark to light, in the manner of Matplotlib's inferno."""

OPACITY = 0.8
"""Share of the colour where a map is 1; where it is 0, the picture is unchanged."""


def overlay(image: NDArray[np.uint8], values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return a picture in grey with a map over it in colour, RGB uint8 (H, W, 3).

    Args:
        image: RGB uint8 (H, W, 3) or grey (H, W).
        values: The map, float (H, W) in [0, 1].
    """
    picture = Image.fromarray(image).convert("L")
    grey = np.asarray(picture, np.float32)[..., None]
    positions = np.linspace(0, 1, len(COLOURS))
    colour = np.stack([np.interp(values, positions, COLOURS[:, i]) for i in range(3)], axis=2)
    share = OPACITY * values[..., None]
    return ((1 - share) * grey + share * colour).round().astype(np.uint8)


def photo_overlay(image: NDArray[np.uint8], explanations: Sequence[Explanation], name: str) -> NDArray[np.uint8]:
    """Return a photo with one map of all its faces over it."""
    drawn = overlay(image, np.max([project(each.crop_maps[name], each.matrix, each.size) for each in explanations], 0))
    lines = Image.fromarray(drawn)
    for each in explanations:
        corners = _corners(each.matrix)
        ImageDraw.Draw(lines).polygon([tuple(point) for point in corners], outline=(255, 255, 255))
    return np.asarray(lines)


def sheet(
    image: NDArray[np.uint8],
    explanations: Sequence[Explanation],
    scores: Sequence[Mapping[str, Faithfulness]] = (),
) -> NDArray[np.uint8]:
    """Return a picture with, for each face, the face and all its maps over it, in the frame of the photo.

    Args:
        image: The photo, RGB uint8 (H, W, 3).
        explanations: Of its faces.
        scores: For each face, how faithful its maps are, by name; written under them.
    """
    rows: list[list[tuple[NDArray[np.uint8], str]]] = []
    for number, each in enumerate(explanations):
        corners = _corners(each.matrix)
        low, high = corners.min(0), corners.max(0)
        border = 0.08 * (high - low).max() if each.prediction.face is not None else 0.0
        low, high = np.maximum(low - border, 0), np.minimum(high + border, image.shape[1::-1])
        scale = TILE / max(1.0, float((high - low).max()))
        shape = tuple(np.maximum(np.round((high - low) * scale), 1).astype(int)[::-1].tolist())
        box = tuple(low.tolist() + high.tolist())
        small = np.asarray(Image.fromarray(image).resize(shape[::-1], Image.Resampling.BICUBIC, box=box))
        # from px of the tile to px of the photo, then to fractions of the crop
        matrix = np.column_stack([each.matrix[:, :2] / scale, each.matrix[:, :2] @ low + each.matrix[:, 2]])
        prediction = each.prediction
        answer = f"{prediction.label} {prediction.confidence:.0%}"
        if each.target != prediction.label:
            answer += f", explained: {each.target}"
        tiles = [(_with_box(small, each, low, scale), answer)]
        for name, values in each.crop_maps.items():
            text = f"{name}\n{each.ranges[name][0]:.2g} to {each.ranges[name][1]:.2g}"
            if scores and name in scores[number]:
                text += f"\ndel {scores[number][name].deletion:.2f}  ins {scores[number][name].insertion:.2f}"
            tiles.append((overlay(small, project(values, matrix, shape)), text))
        for first in range(1, max(2, len(tiles)), COLUMNS):
            rows.append([tiles[0], *tiles[first : first + COLUMNS]])
    return _grid(rows)


def montage(
    rows: Mapping[str, tuple[Sequence[NDArray[np.uint8]], Sequence[NDArray[np.float32]]]], examples: int = 5
) -> NDArray[np.uint8]:
    """Return a picture with a row for each class: the mean map over the mean face, then examples.

    Args:
        rows: By title, the faces of a class, uint8 of any size, and their maps, float (h, w) in [0, 1].
        examples: Faces shown in a row.
    """
    drawn = []
    for title, (faces, maps) in rows.items():
        large = [_resize(face) for face in faces]
        mean = np.mean([np.asarray(face, np.float32) for face in large], 0).round().astype(np.uint8)
        tiles = [(mean, f"{title}\nmean of {len(faces)}"), (overlay(mean, _enlarge(np.mean(maps, 0))), "mean map")]
        tiles += [(overlay(face, _enlarge(each)), "") for face, each in list(zip(large, maps, strict=True))[:examples]]
        drawn.append(tiles)
    return _grid(drawn)


def _corners(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the corners of a crop in px of its picture, (4, 2)."""
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    return (corners - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T


def _with_box(small: NDArray[np.uint8], each: Explanation, low: NDArray[np.float64], scale: float) -> NDArray[np.uint8]:
    if each.box is None:
        return small
    picture = Image.fromarray(small)
    points = [tuple(point) for point in ((each.box - low) * scale).tolist()]
    ImageDraw.Draw(picture).line([*points, points[0]], fill=(255, 220, 0), width=2)
    return np.asarray(picture)


def _resize(face: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(face).convert("RGB").resize((TILE // 2, TILE // 2), Image.Resampling.BICUBIC))


def _enlarge(values: NDArray[np.float32]) -> NDArray[np.float32]:
    resized = Image.fromarray(values.astype(np.float32)).resize((TILE // 2, TILE // 2), Image.Resampling.BILINEAR)
    return np.clip(np.asarray(resized), 0, 1)


def _grid(rows: Sequence[Sequence[tuple[NDArray[np.uint8], str]]]) -> NDArray[np.uint8]:
    """Return tiles in rows on white, each with its text, of up to three lines, under it."""
    tiles = [tile for row in rows for tile in row]
    width = max(image.shape[1] for image, _ in tiles)
    heights = [max(image.shape[0] + _text_height(text) for image, text in row) for row in rows]
    columns = max(map(len, rows))
    page = Image.new("RGB", (GAP + columns * (width + GAP), GAP + sum(heights) + GAP * len(rows)), "white")
    draw, top = ImageDraw.Draw(page), GAP
    for row, height in zip(rows, heights, strict=True):
        for i, (image, text) in enumerate(row):
            left = GAP + i * (width + GAP)
            page.paste(Image.fromarray(image), (left, top))
            for line, words in enumerate(text.split("\n")):
                while words and font(TEXT).getlength(words) > width:
                    words = words[:-1]
                draw.text((left, top + image.shape[0] + 2 + line * (TEXT + 3)), words, font=font(TEXT), fill="black")
        top += height + GAP
    return np.asarray(page)


def _text_height(text: str) -> int:
    return 4 + (text.count("\n") + 1) * (TEXT + 3) if text else 0
