"""A corpus: images with labels, splits and what else its files say of them, memory-mapped from the cache.

A reader, one a corpus, turns the files people have into a `Listing`; `mien.datasets.cache` decodes a listing once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.datasets.reading.options import STORED, check_options, stored_size
from mien.datasets.reading.source import Tree
from mien.datasets.twins import digests
from mien.errors import DataError
from mien.registry import Registry


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
        protocol: Name of the protocol `rows.split` follows; see `mien.datasets.protocols.splits`.
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

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return some images, uint8 (M, H, W) or (M, H, W, 3), from the cache's file and not through its map.

        Pages of a map that were touched count as the process's memory; what is read here is only what is asked for.
        """
        images = self.images
        if not (isinstance(images, np.memmap) and isinstance(images.base, mmap)):  # a part of a map does not say where it lies
            return np.array(images[rows])
        found = np.empty((len(rows), *images.shape[1:]), np.uint8)
        size = int(np.prod(images.shape[1:]))
        with Path(str(images.filename)).open("rb", buffering=0) as file:
            for image, row in zip(found, rows, strict=True):
                file.seek(images.offset + int(row) * size)
                file.readinto(image.data)
        return found

    @property
    def split_fingerprint(self) -> str:
        """Digest of which row is in which split: two corpora of one fingerprint may be split differently."""
        digest = hashlib.sha256(json.dumps([self.fingerprint, self.splits]).encode())
        digest.update(np.ascontiguousarray(self.rows.split).data)
        return digest.hexdigest()

    def twin_free(self, split: str, train: str = "train") -> NDArray[np.bool_] | None:
        """Return, for each row of `where(split)`, whether no byte-identical image lies in training; None without training rows.

        Args:
            split: The split that is asked about.
            train: Name of the training split.
        """
        if train not in self.splits or not (self.rows.split == self.splits.index(train)).any():
            return None
        return ~np.isin(digests(self.images, self.where(split)), digests(self.images, self.where(train)))


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
        DataError: An option is unknown or of another type, or the source cannot be read.
    """
    reader = CORPORA.get(name)
    check_options(name, reader, options)
    stored = {key: options[key] for key in STORED if key in options}
    own = {key: value for key, value in options.items() if key not in stored}
    listing = reader(source, **own)
    if stored and isinstance(listing.images, np.ndarray):
        raise DataError(f"{name}: this source holds pixels, not pictures; leave out {', '.join(stored)}")
    if "size" in stored:
        stored["size"] = stored_size(stored["size"])
    return replace(listing, **stored)
