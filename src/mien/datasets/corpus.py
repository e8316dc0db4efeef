"""A corpus: images with labels, splits and whatever else its files tell, memory-mapped from the cache.

A `Reader`, one per corpus, turns the files people have into a `Listing`. `mien.datasets.load_corpus` decodes a listing once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from mmap import mmap
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray

from mien.datasets.files import Tree
from mien.datasets.twins import digests
from mien.errors import DataError
from mien.registry import Registry, nearest


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Labels and splits of a corpus, one entry per image.

    Attributes:
        classes: The classes, by target.
        target: Class index, int64 (N,).
        split: Index into `splits`, int8 (N,).
        splits: Names of the official splits, training first; `("all",)` if a corpus has none.
        votes: Soft labels: the share of each class, float32 (N, K), each row sums to 1; None if each image has one label.
        subjects: The person in each image; empty if unknown.
        sequences: The video sequence or photo that each image comes from; empty if unknown.
        valence_arousal: Valence and arousal, both in [-1, 1], float32 (N, 2); None if unknown.
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
class Corpus:
    """The images of a corpus with their labels and splits.

    Attributes:
        name: Registered name.
        images: Grey, uint8 (N, H, W), or RGB, uint8 (N, H, W, 3); memory-mapped.
        rows: Labels and splits of each image.
        fingerprint: Hash of images, targets and official splits.
        protocol: Description of the splits in `rows.split`, such as `official`.
        files: Where each image comes from: its file, relative to the source, or its row in a table. Empty if image i is row i
            of the table.
        skipped: One line for each entry of the source that was left out.
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
            raise DataError(f"this copy of {self.name} has no image in the split {split!r}; use a copy that does")
        return rows

    def origin(self, row: int) -> str:
        """Return where an image comes from: its file, or its row in the table (from 0, without the header)."""
        return self.files[row] if self.files else f"row {row}"

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return some images, uint8 (M, H, W) or (M, H, W, 3), read from the cache file instead of its memory map.

        Pages of a memory map count as memory of the process once they are touched, so reading needs less memory.
        """
        images = self.images
        if not (isinstance(images, np.memmap) and isinstance(images.base, mmap)):  # a slice of a map does not know its offset
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
        """Hash of the splits; it differs when the same corpus (equal `fingerprint`) is split in another way."""
        digest = hashlib.sha256(json.dumps([self.fingerprint, self.splits]).encode())
        digest.update(np.ascontiguousarray(self.rows.split).data)
        return digest.hexdigest()

    def twin_free(self, split: str, train: str = "train") -> NDArray[np.bool_] | None:
        """Return which rows of `where(split)` have no byte-identical image in training, bool; None if there is no training row.

        Args:
            split: The split to check.
            train: Name of the training split.
        """
        if train not in self.splits or not (self.rows.split == self.splits.index(train)).any():
            return None
        return ~np.isin(digests(self.images, self.where(split)), digests(self.images, self.where(train)))


@dataclass(frozen=True, slots=True, eq=False)
class Listing:
    """What a reader found: rows, and where their pixels are.

    Attributes:
        rows: The rows.
        images: Decoded pixels, uint8 (N, H, W) or (N, H, W, 3), or a picture file for each row.
        size: Height and width in which pictures are stored, px; each is resized to it as a whole.
        colour: Store RGB; else grey.
        faces: Crop the largest face of each picture with the default detector; a picture without a face is left out.
        pad: Pixels added to each side of a picture after it is resized, which repeat its edge: a looser crop.
        skipped: A line for each entry that was left out, with its name and the reason.
        origins: Where each row of decoded pixels comes from, if its number does not tell.
    """

    rows: Rows
    images: NDArray[np.uint8] | Sequence[Tree]
    size: tuple[int, int] = (48, 48)
    colour: bool = False
    faces: bool = False
    pad: int = 0
    skipped: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of a picture as it is stored: (H, W), or (H, W, 3) in colour."""
        height, width = (side + 2 * self.pad for side in self.size)
        return (height, width, 3) if self.colour else (height, width)


@dataclass(frozen=True, slots=True)
class Reader:
    """How the files of a corpus are read, and what is special about them.

    Attributes:
        read: Returns the listing of a source, a file or folder; its other arguments are the reader's options.
        files_next_to: Names of files that are read from the folder of the source, if that is a file.
        lists_pictures: The source is a list of picture files, which may change while the list does not.
        soft_label_options: Options that only change `Rows.votes`, which training alone uses.
        counts: Published number of images of each class, in the order of the corpus's label set, in each official split; empty
            if unknown.
        own_data: Whether users bring their own pictures, which have no published splits.
        columns: Returns what else the source tells about its pictures, such as the age of each person, by column. Its arguments
            are the source, `Corpus.files` and the wanted columns; what is unknown of a picture is "".
    """

    read: Callable[..., Listing]
    files_next_to: tuple[str, ...] = ()
    lists_pictures: bool = False
    soft_label_options: tuple[str, ...] = ()
    counts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    own_data: bool = False
    columns: Callable[[Path, Sequence[str], Sequence[str]], Mapping[str, Sequence[str]]] | None = None

    def __call__(self, source: Path, **options: Any) -> Listing:
        """Return what is in a source.

        Args:
            source: The file or folder.
            options: Options of `read`, and `size`, `colour`, `faces` and `pad` of `Listing`; see `check_options`.

        Raises:
            DataError: The source cannot be read.
        """
        stored = {key: options.pop(key) for key in STORAGE_OPTIONS if key in options}
        listing = self.read(source, **options)
        if stored and isinstance(listing.images, np.ndarray):
            raise DataError(f"{source}: contains pixels, not pictures; leave out {', '.join(stored)}")
        if "size" in stored:
            stored["size"] = _parse_size(stored["size"])
        return replace(listing, **stored)


class CorpusRegistry(Registry[Listing]):
    """The readers of the corpora, by name."""

    def register(self, name: str, **special: Any) -> Callable[[Callable[..., Listing]], Callable[..., Listing]]:
        """Return a decorator that registers a function as the `Reader` of a corpus; `special` are the other fields of it."""

        def add(read: Callable[..., Listing]) -> Callable[..., Listing]:
            super(CorpusRegistry, self).register(name)(Reader(read, **special))
            return read

        return add

    def get(self, name: str) -> Reader:
        """Return the reader of a corpus; see `Registry.get`."""
        return cast(Reader, super().get(name))


CORPORA = CorpusRegistry("corpus")

STORAGE_OPTIONS = ("size", "colour", "faces", "pad")
"""Options of every corpus of pictures: how its pictures are stored."""

MAX_PAD = 512
"""Largest `pad`, px."""

_TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuse options that the reader of a corpus does not have, and values of another type.

    This comes before anything is read, so that `colour: "no"` is refused and not taken for true.

    Args:
        name: Registered name of the corpus.
        options: Values by option.

    Raises:
        UnknownNameError: There is no such corpus.
        DataError: Names the option, and says what to give.
    """
    hints = get_type_hints(CORPORA.get(name).read)
    known = {key: hint for key, hint in hints.items() if key not in ("source", "return")} | {
        "colour": bool,
        "faces": bool,
        "pad": int,
    }
    for key, value in options.items():
        if key == "size":
            _parse_size(value)
            continue
        if key not in known:
            raise DataError(f"{name} has no option {key!r}{nearest(str(key), [*dict.fromkeys((*known, *STORAGE_OPTIONS))])}")
        types = get_args(known[key]) or (known[key],)
        if isinstance(value, bool):  # not a number, although Python counts it as one
            fits = bool in types
        else:
            fits = isinstance(value, types) or (isinstance(value, int) and float in types)
        if not fits:
            words = " or ".join(_TYPE_NAMES[wanted] for wanted in types if wanted in _TYPE_NAMES)
            raise DataError(f"{name}: {key} is {value!r}; give {words}")
        if key == "pad" and not 0 <= value <= MAX_PAD:
            raise DataError(f"{name}: pad is {value!r}; give a number of px from 0 to {MAX_PAD}")


def _parse_size(value: Any) -> tuple[int, int]:
    """Return the height and width that the option `size` means, px."""
    sides = [value, value] if isinstance(value, int) else value
    if not (isinstance(sides, list | tuple) and len(sides) == 2 and all(type(n) is int and 1 <= n <= 4096 for n in sides)):
        raise DataError(f"size is {value!r}; give the side, or height and width, in px, from 1 to 4,096")
    return sides[0], sides[1]
