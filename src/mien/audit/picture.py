"""A picture of twins: pairs side by side, with label, split and origin under each image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mien.datasets.corpus import Corpus
from mien.datasets.twins import Pairs, Twins

FACE = 112
"""Side of each image, px."""

COLUMNS = 6
"""Pairs side by side."""

GAP = 24
"""Space between two pairs, px; within a pair it is 2."""

LINE = 15
"""Height of a line of text, px."""

PAPER, INK, PALE, ALARM = (255, 255, 255), (20, 20, 20), (110, 110, 110), (190, 60, 0)
"""Colours, RGB; `ALARM` marks what should not differ between twins."""

ORIGIN = 2
"""Number of the line under an image that says where it comes from."""


def draw_twins(corpus: Corpus, twins: Twins, per_kind: int = 12, seed: int = 0) -> NDArray[np.uint8]:
    """Return a picture of some twins, RGB uint8 (H, W, 3): byte-identical, near and mirrored pairs with their captions.

    Args:
        corpus: The corpus.
        twins: The result of `find_twins`.
        per_kind: Most pairs of each kind; they are drawn at random.
        seed: Seed of the draw.
    """
    random = RandomState(seed)
    parts = []
    for title, pairs in _kinds(corpus, twins).items():
        chosen = pairs[np.sort(random.permutation(len(pairs))[:per_kind])]
        shown = "" if len(chosen) == len(pairs) else f", {len(chosen)} of them drawn at random"
        if len(pairs):
            parts.append(draw_pairs(corpus, chosen, f"{title}: {len(pairs):,} {'pair' if len(pairs) == 1 else 'pairs'}{shown}"))
    return np.concatenate(parts) if parts else draw_pairs(corpus, np.empty((0, 2), np.int64), f"No twins in {corpus.name}")


def _kinds(corpus: Corpus, twins: Twins) -> dict[str, Pairs]:
    """Return the pairs worth seeing, by title; blank images are left out."""
    exact = twins.exact[~twins.blank[twins.exact[:, 0]]]
    found: dict[str, Pairs] = {}
    for name, pairs in (("Byte-identical", exact), ("Nearly the same", twins.near)):
        labels, splits = (values[pairs[:, 0]] != values[pairs[:, 1]] for values in (corpus.target, corpus.rows.split))
        found[f"{name}, labels differ"] = pairs[labels]
        found[f"{name}, in two splits"] = pairs[splits & ~labels]
        found[f"{name}, in one split"] = pairs[~splits & ~labels]
    return found | {"Mirrored": twins.mirrored}


def draw_pairs(corpus: Corpus, pairs: Pairs, title: str) -> NDArray[np.uint8]:
    """Return pairs of images under a title, RGB uint8 (H, W, 3).

    Args:
        corpus: The corpus.
        pairs: Row numbers, (P, 2).
        title: Text above them.
    """
    step = (2 * FACE + 2 + GAP, FACE + 3 * LINE + 14)
    rows = -(-len(pairs) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * step[0] + GAP // 2, 34 + rows * step[1]), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP // 2, 8), title, INK, ImageFont.load_default(16))
    for number, (left, right) in enumerate(pairs.tolist()):
        x, y = GAP // 2 + number % COLUMNS * step[0], 34 + number // COLUMNS * step[1]
        same = _lines(corpus, left), _lines(corpus, right)
        for side, row in enumerate((left, right)):
            at = (x + side * (FACE + 2), y)
            sheet.paste(_face(corpus.images[row]), at)
            _caption(draw, at, same[side], same[1 - side])
    return np.asarray(sheet)


def _face(image: NDArray[np.uint8]) -> Image.Image:
    picture = Image.fromarray(image).convert("RGB")
    picture.thumbnail((FACE, FACE))
    scale = FACE / max(picture.size)
    return picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC)


def _lines(corpus: Corpus, row: int) -> list[str]:
    """Return label, split and origin of an image."""
    split = corpus.rows.split[row]
    return [
        corpus.classes[corpus.target[row]],
        corpus.splits[split] if split >= 0 else "no split",
        Path(corpus.origin(row)).stem,
    ]


def _caption(draw: ImageDraw.ImageDraw, at: tuple[int, int], lines: Sequence[str], other: Sequence[str]) -> None:
    for number, (line, compared) in enumerate(zip(lines, other, strict=True)):
        colour = PALE if number == ORIGIN else INK if line == compared else ALARM
        font = ImageFont.load_default(11 if number == ORIGIN else 12)
        draw.text((at[0], at[1] + FACE + 3 + number * LINE), _fitted(draw, line, font), colour, font)


def _fitted(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Return a text shortened at its beginning to the width of an image: the end of a path says most."""
    cut = text
    while draw.textlength(cut, font) > FACE:
        text = text[1:]
        cut = f"...{text}"
    return cut
