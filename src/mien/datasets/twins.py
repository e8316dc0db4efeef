"""Images of a corpus that are the same picture: byte-identical, nearly the same, or mirrored.

Byte-identical images have the same digest. Near twins are found in two steps:

1. Candidates are pairs whose perceptual hashes (`imagehash.phash`, 64 bits) differ in at most `HASH_BITS` bits. All pairs are
   compared by matrix products, a tile of `BLOCK` x `BLOCK` at a time, so that memory does not grow with the corpus.
2. Candidates are verified by their pixels, as grey 48x48 pictures. They are shifted against each other by up to `SHIFT` px and
   standardised over their overlap, so that brightness and contrast do not count. Their root mean square difference must be at
   most `NEAR`.

Photos that are rotated, or cropped further apart, are not found. results/audit/README.md says how many pairs are right by eye.
The hashes of a corpus are computed once and kept in its cache folder.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien.atomic import atomic_path
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

HASHES = "phash.npy"
"""File of the hashes in the cache folder of a corpus, bits of uint8 (2, N, 8): of the pictures and of their mirror images."""

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
    blank = np.array([_is_blank(image) for image in images])
    rows = np.unique(first[~blank])
    hashes = _hash_pictures(images, rows, on_step)
    small = _as_array((_small(images[row]) for row in rows), len(rows))
    near, distance = _find_pairs(small, hashes[0], hashes[0], False, on_step)
    mirrored, mirrored_distance = _find_mirrored(small, hashes, on_step)
    return Twins(first, blank, rows[near], distance, rows[mirrored], mirrored_distance)


def twins_in(
    images: NDArray[np.uint8],
    rows: NDArray[np.int64],
    others: NDArray[np.uint8],
    other_rows: NDArray[np.int64],
    on_step: Step | None = None,
) -> dict[str, NDArray[np.bool_]]:
    """Return, by kind of twin, whether each of some images has such a twin among some others.

    Args:
        images: The images of a corpus, uint8 (N, H, W) or (N, H, W, 3).
        rows: Which of them to look at, (R,).
        others: The images of the same corpus or of another one, of any size.
        other_rows: Which of them to compare with, (M,).
        on_step: As of `find_twins`.

    Returns:
        bool (R,) under "exact", "near", "mirrored" and "any", as `Twins.in_split` counts them.

    Raises:
        MissingExtraError: imagehash is not installed.
    """
    exact = np.isin(digests(images, rows), digests(others, other_rows))
    near, mirrored = _pairs_between(images, rows, others, other_rows, on_step)
    found = {"exact": exact, "near": np.isin(rows, near[:, 0]), "mirrored": np.isin(rows, mirrored[:, 0])}
    return found | {"any": found["exact"] | found["near"] | found["mirrored"]}


def twins_of(
    images: NDArray[np.uint8], rows: NDArray[np.int64], on_step: Step | None = None
) -> dict[int, list[tuple[int, str]]]:
    """Return the twins of some images among all images of their corpus.

    Args:
        images: The corpus, uint8 (N, H, W) or (N, H, W, 3).
        rows: Which of them to look at, a few, (R,).
        on_step: As of `find_twins`.

    Returns:
        For each of the rows, the row and the kind (`exact`, `near` or `mirrored`) of each twin.

    Raises:
        MissingExtraError: imagehash is not installed.
    """
    names = digests(images)
    found = {
        row: [(int(other), "exact") for other in np.flatnonzero(names == names[row]) if other != row] for row in rows.tolist()
    }
    everyone = np.array([row for row in range(len(images)) if not _is_blank(images[row])], np.int64)
    hashes = _hash_pictures(images, everyone, on_step).astype(np.float32)
    ours = hashes[:, np.isin(everyone, rows)]
    agreeing = [(hashes[0] @ ours[view].T).max(1, initial=-64) for view in (0, 1)]  # a few of all pairs: no tiles are needed
    candidates = everyone[np.maximum(*agreeing) >= 64 - 2 * HASH_BITS]
    for kind, pairs in zip(("near", "mirrored"), _pairs_between(images, rows, images, candidates, None), strict=True):
        for row, other in pairs.tolist():
            if row != other:
                found[row].append((other, kind))
    return found


def _pairs_between(
    images: NDArray[np.uint8],
    rows: NDArray[np.int64],
    others: NDArray[np.uint8],
    other_rows: NDArray[np.int64],
    on_step: Step | None,
) -> tuple[Pairs, Pairs]:
    """Return the near and the mirrored twins of some images among others, each (P, 2): a row and the row of its twin."""
    ours = np.array([row for row in rows if not _is_blank(images[row])], np.int64)
    theirs = np.array([row for row in other_rows if not _is_blank(others[row])], np.int64)
    if not (len(ours) and len(theirs)):
        return np.empty((0, 2), np.int64), np.empty((0, 2), np.int64)
    hashes = np.concatenate([_hash_pictures(others, theirs, on_step), _hash_pictures(images, ours, on_step)], axis=1)
    parts = (others, theirs), (images, ours)
    small = _as_array((_small(source[row]) for source, chosen in parts for row in chosen), hashes.shape[1])
    names = np.concatenate([digests(source, chosen) for source, chosen in parts])
    near, _ = _find_pairs(small, hashes[0], hashes[0], False, on_step, len(theirs))
    near = near[names[near[:, 0]] != names[near[:, 1]]]  # the others are exact
    mirrored, _ = _find_mirrored(small, hashes, on_step, len(theirs))
    return tuple(np.stack([ours[pairs[:, 1] - len(theirs)], theirs[pairs[:, 0]]], 1) for pairs in (near, mirrored))  # type: ignore[return-value]


def _is_blank(image: NDArray[np.uint8]) -> bool:
    return bool((image == image[0, 0]).all())


def _small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image as the grey picture that is compared, uint8 (48, 48)."""
    return np.asarray(Image.fromarray(image).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX))


def _hash_pictures(images: NDArray[np.uint8], rows: NDArray[np.int64], on_step: Step | None) -> NDArray[np.int8]:
    """Return the hashes of some pictures and of their mirror images, -1 or 1 (2, R, 64).

    Those of a cached corpus are computed for all its pictures, and kept next to them.
    """
    phash = require("imagehash", "train").phash
    file = None
    if isinstance(images, np.memmap) and isinstance(images.base, mmap):  # the whole cache, and not a slice of it
        file = Path(str(images.filename)).with_name(HASHES)
        with suppress(OSError, ValueError, EOFError):
            kept = np.load(file)
            if kept.shape == (2, len(images), 8) and kept.dtype == np.uint8:
                return _as_signs(kept[:, rows])
    wanted = rows if file is None else np.arange(len(images))
    bits = np.empty((2, len(wanted), 8), np.uint8)
    for i, row in enumerate(wanted):
        picture = Image.fromarray(_small(images[row]))
        for view, shown in enumerate((picture, picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT))):
            bits[view, i] = np.packbits(phash(shown).hash.ravel())
        if on_step is not None and (i + 1 == len(wanted) or i % BLOCK == 0):
            on_step("hashing", i + 1, len(wanted))
    if file is None:
        return _as_signs(bits)
    with suppress(OutputError), atomic_path(file) as tmp_path, tmp_path.open("wb") as stream:  # only speed depends on it
        np.save(stream, bits)
    return _as_signs(bits[:, rows])


def _as_signs(bits: NDArray[np.uint8]) -> NDArray[np.int8]:
    return np.unpackbits(bits, axis=-1).astype(np.int8) * 2 - 1


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


def _find_mirrored(
    small: NDArray[np.uint8], hashes: NDArray[np.int8], on_step: Step | None, cut: int | None = None
) -> tuple[Pairs, NDArray[np.float32]]:
    """Return the verified pairs that are nearer when one of them is mirrored, and their distances; see `_find_pairs`."""
    pairs, distance = _find_pairs(small, hashes[0], hashes[1], True, on_step, cut)
    nearer = distance < pixel_distance(small, pairs)  # a face resembles its own mirror image
    return pairs[nearer], distance[nearer]


def _find_pairs(
    small: NDArray[np.uint8],
    left: NDArray[np.int8],
    right: NDArray[np.int8],
    mirrored: bool,
    on_step: Step | None,
    cut: int | None = None,
) -> tuple[Pairs, NDArray[np.float32]]:
    """Return the verified pairs i < j, ascending, and their distances; with a `cut`, only those with i < cut <= j."""
    found, distances = [np.empty((0, 2), np.int64)], [np.empty(0, np.float32)]
    end = len(left) if cut is None else cut
    for start in range(0, end, BLOCK):
        stop = min(start + BLOCK, end)
        for across in range(start if cut is None else cut, len(left), BLOCK):
            here, there = left[start:stop].astype(np.float32), right[across : across + BLOCK].astype(np.float32)
            agreeing = here @ there.T  # bits that agree minus bits that differ; exact in float32
            pairs = np.argwhere(agreeing >= here.shape[1] - 2 * HASH_BITS) + np.array((start, across))
            pairs = pairs[pairs[:, 0] < pairs[:, 1]]
            pairs = pairs[pixel_distance(small, pairs, mirrored, shift=0) <= FAR]
            distance = pixel_distance(small, pairs, mirrored)
            found.append(pairs[distance <= NEAR])
            distances.append(distance[distance <= NEAR])
        if on_step is not None:
            on_step("comparing mirrored" if mirrored else "comparing", stop, end)
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
