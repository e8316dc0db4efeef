"""A corpus: images with labels, splits and what else its files say of them, memory-mapped from the cache.

A reader, one a corpus, turns the files people have into a `Listing`; `mien.datasets.cache` decodes a listing once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.datasets.source import Tree
from mien.datasets.twins import digests
from mien.errors import DataError
from mien.registry import Registry, nearest


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """What a corpus says of its images, one entry an image.

    Attributes:
        classes: The classes, by target.
        target: Class index, int64 (N,).
        split: Index into `splits`, int8 (N,).
        splits: Names of the official splits, training first; `("all",)` where a corpus has none.
        votes: Share of the votes each class got, float32 (N, K), rows of sum 1; None where a corpus has one label an image.
        subjects: The person in each image; empty where unknown.
        sequences: The sequence each image is a frame of; empty where unknown.
        valence_arousal: Both in [-1, 1], float32 (N, 2); None where unknown.
    """

    classes: tuple[str, ...]
    target: NDArray[np.int64]
    split: NDArray[np.int8]
    splits: tuple[str, ...]
    votes: NDArray[np.float32] | None = None
    subjects: tuple[str, ...] = ()
    sequences: tuple[str, ...] = ()
    valence_arousal: NDArray[np.float32] | None = None

    def take(self, keep: NDArray[Any]) -> Rows:
        """Return some of the rows, by a mask (N,) or by their numbers."""
        chosen = np.arange(len(self.target))[keep]
        return replace(
            self,
            target=self.target[chosen],
            split=self.split[chosen],
            votes=None if self.votes is None else self.votes[chosen],
            subjects=tuple(self.subjects[i] for i in chosen) if self.subjects else (),
            sequences=tuple(self.sequences[i] for i in chosen) if self.sequences else (),
            valence_arousal=None if self.valence_arousal is None else self.valence_arousal[chosen],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Listing:
    """What a reader found: rows, and where their pixels are.

    Attributes:
        rows: The rows.
        images: Pixels already decoded, uint8 (N, H, W) or (N, H, W, 3), or a picture file for each row.
        size: Height and width pictures are stored in, px; each is resized to it as a whole.
        colour: Store RGB; else grey.
        faces: Cut the largest face out of each picture with the default detector; a picture without one is skipped.
        skipped: A line for each entry that was left out, naming it and why.
        origins: Where each row of decoded pixels came from, if its number does not say it.
    """

    rows: Rows
    images: NDArray[np.uint8] | Sequence[Tree]
    size: tuple[int, int] = (48, 48)
    colour: bool = False
    faces: bool = False
    skipped: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """Images with their rows.

    Attributes:
        name: Registered name.
        images: Grey, uint8 (N, H, W), or RGB, uint8 (N, H, W, 3); memory-mapped.
        rows: What is known of each image.
        fingerprint: Digest of images, targets and official splits.
        protocol: Name of the protocol `rows.split` follows; see `mien.datasets.splits`.
        files: The picture file of each image, relative to the source, or its row in a table; empty where rows are numbered so.
        skipped: A line for each entry of the source that was left out.
    """

    name: str
    images: NDArray[np.uint8]
    rows: Rows
    fingerprint: str
    protocol: str = "official"
    files: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, by target."""
        return self.rows.classes

    @property
    def target(self) -> NDArray[np.int64]:
        """Class index of each image, int64 (N,)."""
        return self.rows.target

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, training first."""
        return self.rows.splits

    def where(self, split: str) -> NDArray[np.int64]:
        """Return the row numbers of a split, ascending.

        Raises:
            DataError: The corpus has no such split, or no image in it.
        """
        if split not in self.splits:
            raise DataError(f"{self.name} has no split {split!r}; its splits are {', '.join(self.splits)}")
        rows = np.flatnonzero(self.rows.split == self.splits.index(split))
        if len(rows) == 0:
            raise DataError(f"this copy of {self.name} holds no image of the split {split!r}; use a copy that does")
        return rows

    def origin(self, row: int) -> str:
        """Return where an image came from: its file, or its row in the table (counted from 0, without the header)."""
        return self.files[row] if self.files else f"row {row}"

    def twin_free(self, split: str) -> NDArray[np.bool_]:
        """Return, for each row of `where(split)`, whether no byte-identical image lies in the training split."""
        train = digests(self.images, self.where(self.splits[0]))
        return ~np.isin(digests(self.images, self.where(split)), train)


Reader = Callable[..., Listing]
CORPORA: Registry[Listing] = Registry("corpus")


def read_listing(name: str, source: Path, options: dict[str, Any]) -> Listing:
    """Return what a corpus's reader finds in a source.

    Args:
        name: Registered name of the corpus.
        source: The file or folder.
        options: The reader's own options, and `size`, `colour` and `faces` of `Listing`.

    Raises:
        UnknownNameError: No such corpus.
        DataError: An option is unknown, or the source cannot be read.
    """
    reader = CORPORA.get(name)
    stored = {key: options[key] for key in ("size", "colour", "faces") if key in options}
    own = {key: value for key, value in options.items() if key not in stored}
    known = [key for key in inspect.signature(reader).parameters if key != "source"]
    for key in own:
        if key not in known:
            raise DataError(f"{name} has no option {key!r}{nearest(key, [*known, 'size', 'colour', 'faces'])}")
    listing = reader(source, **own)
    if stored and isinstance(listing.images, np.ndarray):
        raise DataError(f"{name}: this source holds pixels, not pictures; leave out {', '.join(stored)}")
    if "size" in stored:
        stored["size"] = _size(stored["size"])
    return replace(listing, **stored)


def _size(value: Any) -> tuple[int, int]:
    sides = [value, value] if isinstance(value, int) else value
    if not (isinstance(sides, list | tuple) and len(sides) == 2 and all(type(n) is int and 1 <= n <= 4096 for n in sides)):
        raise DataError(f"size is {value!r}; give the side, or height and width, in px, from 1 to 4,096")
    return sides[0], sides[1]
