"""Images of a corpus that are the same picture: byte-identical, nearly the same, or mirrored.

Byte-identical images have the same digest. Near twins are found in two steps:

1. Candidates are pairs whose perceptual hashes (`imagehash.phash`, 64 bits) differ in at most `HASH_BITS` bits. All pairs are
   compared by matrix products, a tile of `BLOCK` x `BLOCK` at a time, so that memory does not grow with the corpus.
2. Candidates are verified by their pixels, as grey 48x48 pictures. They are shifted against each other by up to `SHIFT` px and
   standardised over their overlap, so that brightness and contrast do not count. Their root mean square difference must be at
   most `NEAR`.

Photos that are rotated, or cropped further apart, are not found. results/audit/README.md says how many pairs are right by eye.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien.errors import OutputError, reason, require

HASH_BITS = 10
"""Most of the 64 bits in which the perceptual hashes of candidates differ."""

NEAR = 0.4
"""Largest pixel distance of near twins, in standard deviations; that of unrelated pictures is about 1.41."""

FAR = 0.9
"""Candidates further apart than this without a shift are dropped at once; this loses less than 1 % of the twins."""

SIDE = 48
"""Side of the pictures that are compared, px."""

SHIFT = 2
"""Most that pictures are shifted against each other along each axis, px."""

BLOCK = 2048
"""Number of images whose hashes, or candidates whose pixels, are compared at once."""

IN_MEMORY = 250_000_000
"""Bytes of pictures to compare (2,304 each) that stay in memory; more go to a temporary file."""

Pairs = NDArray[np.int64]
Step = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Twins:
    """Which images are the same picture.

    Attributes:
        first: The first row with the same bytes as each row, int64 (N,); the row's own number if it is the first.
        blank: Whether all pixels of an image are the same, (N,); such images have no near twins.
        near: Pairs of near twins, ascending, int64 (P, 2); each group of identical images is represented by its first row.
        near_distance: Their pixel distances, float32 (P,).
        mirrored: Pairs nearer to each other when one of them is mirrored, int64 (M, 2).
        mirrored_distance: Their pixel distances with one mirrored, float32 (M,).
    """

    first: NDArray[np.int64]
    blank: NDArray[np.bool_]
    near: Pairs
    near_distance: NDArray[np.float32]
    mirrored: Pairs
    mirrored_distance: NDArray[np.float32]

    @property
    def exact(self) -> Pairs:
        """Each byte-identical image with the first of its group, int64 (E, 2)."""
        later = np.flatnonzero(self.first != np.arange(len(self.first)))
        return np.stack([self.first[later], later], axis=1)

    def groups(self) -> list[NDArray[np.int64]]:
        """Return the rows of each group of byte-identical images, by first row."""
        order = np.argsort(self.first, kind="stable")
        cuts = np.flatnonzero(np.diff(self.first[order])) + 1
        return [rows for rows in np.split(order, cuts) if len(rows) > 1]

    def in_split(self, split: NDArray[np.integer], splits: int) -> dict[str, NDArray[np.bool_]]:
        """Return, by kind of twin, whether each image has such a twin among the images of each split.

        Args:
            split: Split of each image, (N,); an image with a negative split counts as no one's twin.
            splits: Number of splits, S.

        Returns:
            bool (N, S) under "exact" (another image with the same bytes), "near", "mirrored" and "any".
        """
        held = np.zeros((len(self.first), splits), np.int64)  # images of a group in each split, at the group's first row
        used = np.flatnonzero(split >= 0)
        np.add.at(held, (self.first[used], split[used]), 1)
        itself = np.zeros_like(held)
        itself[used, split[used]] = 1
        found = {"exact": held[self.first] > itself}
        for kind, pairs in (("near", self.near), ("mirrored", self.mirrored)):
            reached = np.zeros(held.shape, bool)
            for here, there in ((0, 1), (1, 0)):
                np.logical_or.at(reached, pairs[:, here], held[pairs[:, there]] > 0)
            found[kind] = reached[self.first]
        return found | {"any": found["exact"] | found["near"] | found["mirrored"]}


def digests(images: NDArray[np.uint8], rows: Iterable[int] | None = None) -> NDArray[np.uint64]:
    """Return a digest of each image's bytes, uint64; one in 10^19 pairs of different images shares one by chance.

    Args:
        images: uint8 (N, H, W) or (N, H, W, 3); read one at a time.
        rows: Which of them; all by default.
    """
    chosen = range(len(images)) if rows is None else rows
    short = (hashlib.blake2b(images[row].tobytes(), digest_size=8).digest() for row in chosen)
    return np.array([int.from_bytes(digest, "little") for digest in short], np.uint64)


def find_twins(images: NDArray[np.uint8], on_step: Step | None = None) -> Twins:
    """Return which images are byte-identical, near or mirrored twins.

    Args:
        images: uint8 (N, H, W) or (N, H, W, 3), N at least 1.
        on_step: Called with the name of the step, how much of it is done, and how much there is.

    Raises:
        MissingExtraError: imagehash is not installed.
    """
    _, start, group = np.unique(digests(images), return_index=True, return_inverse=True)
    first = start[group].astype(np.int64)
    blank = np.array([bool((image == image[0, 0]).all()) for image in images])
    rows = np.unique(first[~blank])
    small, hashes, mirrored_hashes = _hash_pictures(images, rows, on_step)
    near, distance = _find_pairs(small, hashes, hashes, False, on_step)
    mirrored, mirrored_distance = _find_pairs(small, hashes, mirrored_hashes, True, on_step)
    nearer = mirrored_distance < pixel_distance(small, mirrored)  # a face resembles its own mirror image
    mirrored, mirrored_distance = mirrored[nearer], mirrored_distance[nearer]
    return Twins(first, blank, rows[near], distance, rows[mirrored], mirrored_distance)


def _hash_pictures(
    images: NDArray[np.uint8], rows: NDArray[np.int64], on_step: Step | None
) -> tuple[NDArray[np.uint8], NDArray[np.int8], NDArray[np.int8]]:
    """Return the rows' pictures, grey (R, 48, 48), and the hashes of them and of their mirror images, -1 or 1 (R, 64)."""
    phash = require("imagehash", "train").phash
    hashes = np.empty((2, len(rows), 64), np.int8)

    def pictures() -> Iterator[NDArray[np.uint8]]:
        for i, row in enumerate(rows):
            picture = Image.fromarray(images[row]).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
            for view, shown in enumerate((picture, picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT))):
                hashes[view, i] = np.where(phash(shown).hash.ravel(), 1, -1)
            yield np.asarray(picture)
            if on_step is not None and (i + 1 == len(rows) or i % BLOCK == 0):
                on_step("hashing", i + 1, len(rows))

    return _as_array(pictures(), len(rows)), hashes[0], hashes[1]


def _as_array(pictures: Iterable[NDArray[np.uint8]], count: int) -> NDArray[np.uint8]:
    """Return pictures as one array (count, 48, 48), in a temporary file if they are many."""
    shape = (count, SIDE, SIDE)
    if count * SIDE * SIDE <= IN_MEMORY:
        small = np.empty(shape, np.uint8)
        for i, picture in enumerate(pictures):
            small[i] = picture
        return small
    try:
        with tempfile.TemporaryFile() as file:  # it has no name, and disappears with the array
            for picture in pictures:
                file.write(picture.tobytes())
            file.flush()
            return np.memmap(file, np.uint8, "r", shape=shape).view(np.ndarray)
    except OSError as error:
        raise OutputError(
            f"{tempfile.gettempdir()}: cannot hold {count * SIDE * SIDE / 1e6:,.0f} MB ({reason(error)}); "
            "set TMPDIR to a folder with more space"
        ) from None


def _find_pairs(
    small: NDArray[np.uint8], left: NDArray[np.int8], right: NDArray[np.int8], mirrored: bool, on_step: Step | None
) -> tuple[Pairs, NDArray[np.float32]]:
    """Return the verified pairs i < j, ascending, and their distances."""
    found, distances = [np.empty((0, 2), np.int64)], [np.empty(0, np.float32)]
    for start in range(0, len(left), BLOCK):
        for across in range(start, len(left), BLOCK):
            here, there = left[start : start + BLOCK].astype(np.float32), right[across : across + BLOCK].astype(np.float32)
            agreeing = here @ there.T  # bits that agree minus bits that differ; exact in float32
            pairs = np.argwhere(agreeing >= here.shape[1] - 2 * HASH_BITS) + np.array((start, across))
            pairs = pairs[pairs[:, 0] < pairs[:, 1]]
            pairs = pairs[pixel_distance(small, pairs, mirrored, shift=0) <= FAR]
            distance = pixel_distance(small, pairs, mirrored)
            found.append(pairs[distance <= NEAR])
            distances.append(distance[distance <= NEAR])
        if on_step is not None:
            on_step("comparing mirrored" if mirrored else "comparing", min(start + BLOCK, len(left)), len(left))
    pairs, distance = np.concatenate(found), np.concatenate(distances)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[order], distance[order]


def pixel_distance(small: NDArray[np.uint8], pairs: Pairs, mirrored: bool = False, shift: int = SHIFT) -> NDArray[np.float32]:
    """Return the distance between the pictures of each pair at their best alignment, float32 (P,), 0 to 2.

    Args:
        small: Grey pictures, uint8 (R, S, S).
        pairs: Row numbers, (P, 2).
        mirrored: Mirror the second of each pair.
        shift: Most that they are shifted against each other along each axis, px.

    Returns:
        Root mean square difference of the pixels in standard deviations: sqrt(2 - 2 r) at a correlation of r.
    """
    best = np.full(len(pairs), -1, np.float32)
    shifts = [(down, right) for down in range(-shift, shift + 1) for right in range(-shift, shift + 1)]
    for start in range(0, len(pairs), BLOCK):
        part = slice(start, start + BLOCK)
        a, b = (small[pairs[part, side]].astype(np.float32) for side in (0, 1))
        b = b[:, :, ::-1] if mirrored else b
        for down, right in shifts:
            correlation = _correlation(_cropped(a, down, right), _cropped(b, -down, -right))
            best[part] = np.maximum(best[part], correlation)
    return np.sqrt(np.maximum(2 - 2 * best, 0))


def _cropped(pictures: NDArray[np.float32], down: int, right: int) -> NDArray[np.float32]:
    """Return pictures without their first `down` rows and `right` columns, or their last ones if negative; one row each."""
    height, width = pictures.shape[1:]
    cut = pictures[:, max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
    return cut.reshape(len(pictures), -1)


def _correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the correlation of each row of `a` with that of `b`; 0 if one of them is constant."""
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (a, b))
    size = np.sqrt(np.einsum("ij,ij->i", a, a) * np.einsum("ij,ij->i", b, b))
    return np.einsum("ij,ij->i", a, b) / np.maximum(size, 1e-6)
