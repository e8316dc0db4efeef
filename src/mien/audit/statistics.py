"""A corpus in numbers: images of each class in each split, size, and brightness per split.

The tables are those that papers print of their data (ResEmoteNet, Tables I and II), with the corpus's own class names.
"""

from __future__ import annotations

import json
import math
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien.datasets.corpus import Corpus
from mien.datasets.files import is_archive, open_tree

BLOCK = 8_000_000
"""Bytes of images whose pixels are counted at once; counting takes eight times as many."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Numbers about a corpus.

    Attributes:
        corpus: Its registered name.
        protocol: The protocol of its splits.
        height: Height of the stored images, px.
        width: Width of the stored images, px.
        channels: 1 for grey, 3 for RGB.
        classes: The classes, by target.
        splits: The splits, training first.
        counts: Number of images of each class (first index) in each split (second).
        mean: Mean pixel of each split, by channel, range 0-1; empty for a split without images.
        std: Standard deviation of the pixels, in the same form.
    """

    corpus: str
    protocol: str
    height: int
    width: int
    channels: int
    classes: tuple[str, ...]
    splits: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    mean: tuple[tuple[float, ...], ...]
    std: tuple[tuple[float, ...], ...]

    @property
    def images(self) -> int:
        """Number of images in a split."""
        return sum(map(sum, self.counts))

    def characteristics(self) -> list[list[str]]:
        """Return names and values: Table I of the papers."""
        return [
            ["images", f"{self.images:,}"],
            ["classes", f"{len(self.classes)}"],
            ["channels", f"{self.channels}"],
            ["size as stored, px", f"{self.width} x {self.height}"],
        ]

    def table(self) -> list[list[str]]:
        """Return a header, a row for each class and one of sums: Table II of the papers; shares are of all images."""
        sums = tuple(sum(column) for column in zip(*self.counts, strict=True))
        rows = [["class", *self.splits, "together", "share"]]
        for name, row in zip((*self.classes, "together"), (*self.counts, sums), strict=True):
            rows.append([name, *(f"{n:,}" for n in (*row, sum(row))), f"{100 * sum(row) / max(self.images, 1):.1f} %"])
        if len(self.splits) == 1:  # it equals the sum
            rows = [[*row[:2], *row[3:]] for row in rows]
        return rows

    def brightness(self) -> list[list[str]]:
        """Return a header and a row for each split: mean and standard deviation of its pixels, range 0-1, by channel."""
        rows = [["split", "mean", "standard deviation"]]
        for split, mean, std in zip(self.splits, self.mean, self.std, strict=True):
            rows.append([split, *(", ".join(f"{value:.4f}" for value in values) or "-" for values in (mean, std))])
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return the statistics as JSON types."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Statistics:
        """Return the statistics from the result of `to_dict`, as read from JSON."""
        nested = {key: tuple(map(tuple, values[key])) for key in ("counts", "mean", "std")}
        return cls(**(values | nested | {key: tuple(values[key]) for key in ("classes", "splits")}))


def statistics(corpus: Corpus) -> Statistics:
    """Return the statistics of a corpus; images in no split are not counted."""
    height, width = corpus.images.shape[1:3]
    channels = corpus.images.shape[3] if corpus.images.ndim == 4 else 1
    counts = np.zeros((len(corpus.classes), len(corpus.splits)), np.int64)
    used = corpus.rows.split >= 0
    np.add.at(counts, (corpus.target[used], corpus.rows.split[used]), 1)
    moments = [_moments(corpus.images, np.flatnonzero(corpus.rows.split == i), channels) for i in range(len(corpus.splits))]
    return Statistics(
        corpus.name,
        corpus.protocol,
        height,
        width,
        channels,
        corpus.classes,
        corpus.splits,
        tuple(map(tuple, counts.tolist())),
        tuple(mean for mean, _ in moments),
        tuple(std for _, std in moments),
    )


def _moments(images: NDArray[np.uint8], rows: NDArray[np.int64], channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of all pixels of some images, by channel, range 0-1, rounded to six places."""
    seen = np.zeros((channels, 256), np.int64)
    block = max(1, BLOCK // math.prod(images.shape[1:]))
    for start in range(0, len(rows), block):
        pixels = images[rows[start : start + block]].reshape(-1, channels)
        for channel in range(channels):
            seen[channel] += np.bincount(pixels[:, channel], minlength=256)
    if not len(rows):
        return (), ()
    value, share = np.arange(256) / 255, seen / seen.sum(axis=1, keepdims=True)
    mean = share @ value
    std = np.sqrt(share @ value**2 - mean**2)
    return tuple(np.round(mean, 6).tolist()), tuple(np.round(std, 6).tolist())


def picture_files(source: Path, files: Sequence[str]) -> dict[str, Any] | None:
    """Return the sizes and colour of a corpus's picture files, from their headers; None for a table of pixels.

    Args:
        source: The file or folder the corpus was read from.
        files: `Corpus.files`.

    Returns:
        The number of files, how many of them are grey, the number of different sizes, and the smallest, median and largest
        width and height, px.
    """
    headers = [header for header in _headers(source, files) if header is not None]
    if not headers:
        return None
    sizes = np.array([size for size, _ in headers])
    named = {"smallest": sizes.min(axis=0), "median": np.median(sizes, axis=0), "largest": sizes.max(axis=0)}
    return {
        "files": len(headers),
        "grey": sum(mode in ("1", "L", "LA", "I", "I;16", "F") for _, mode in headers),
        "sizes": len(np.unique(sizes, axis=0)),
        **{name: [int(width), int(height)] for name, (width, height) in named.items()},
    }


def _headers(source: Path, files: Sequence[str]) -> list[tuple[tuple[int, int], str] | None]:
    """Return width and height, and Pillow's mode, of each file; None if it no longer exists."""
    if not files:
        return []
    tree = open_tree(source) if source.is_dir() or is_archive(source) else source.parent
    found: list[tuple[tuple[int, int], str] | None] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about metadata
        for name in files:
            try:
                with (tree / name).open("rb") as stream, Image.open(stream) as picture:
                    found.append((picture.size, picture.mode))
            except (OSError, KeyError, zipfile.BadZipFile, ValueError):
                found.append(None)
    return found
