"""A corpus in memory-mapped form, and the cache it is kept in.

A source (a CSV, a folder) is decoded once. The arrays lie in a cache folder named after the source's path, size and time of
change, so a changed source is decoded again; the fingerprint is a digest of the decoded content, so two layouts of the same
images in the same order have the same one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mien.errors import DataError, OutputError
from mien.labels import label_set
from mien.registry import Registry

CACHE_FORMAT = 1


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """Images with labels and official splits.

    Attributes:
        name: Registered name of the corpus, also of its label set.
        images: Grey images, uint8 (N, H, W), memory-mapped when they come from the cache.
        target: Class index of each image, int64 (N,).
        split: Index into `splits` for each image, int8 (N,).
        splits: Names of the official splits, training first.
        fingerprint: Digest of images, targets and splits.
    """

    name: str
    images: NDArray[np.uint8]
    target: NDArray[np.int64]
    split: NDArray[np.int8]
    splits: tuple[str, ...]
    fingerprint: str

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, by target."""
        return label_set(self.name)

    def where(self, split: str) -> NDArray[np.int64]:
        """Return the row numbers of a split, ascending.

        Raises:
            DataError: The corpus has no such split, or no image in it.
        """
        if split not in self.splits:
            raise DataError(f"{self.name} has no split {split!r}; its splits are {', '.join(self.splits)}")
        rows = np.flatnonzero(self.split == self.splits.index(split))
        if len(rows) == 0:
            raise DataError(f"this copy of {self.name} holds no image of the split {split!r}; use a copy that does")
        return rows

    def twin_free(self, split: str) -> NDArray[np.bool_]:
        """Return, for each row of `where(split)`, whether no byte-identical image lies in the training split."""
        train = {image.tobytes() for image in self.images[self.where(self.splits[0])]}
        return np.array([image.tobytes() not in train for image in self.images[self.where(split)]])


Reader = Callable[[Path], tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int8], tuple[str, ...]]]
CORPORA: Registry[tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int8], tuple[str, ...]]] = Registry("corpus")


def load_corpus(name: str, source: str | os.PathLike[str], cache: str | os.PathLike[str] | None = None) -> Corpus:
    """Return a corpus, decoded from its source or taken from the cache.

    Args:
        name: Registered name, such as `"fer2013"`.
        source: The file or folder its users have.
        cache: Folder of caches; by default `$MIEN_CACHE`, else `~/.cache/mien`.

    Raises:
        UnknownNameError: No such corpus.
        DataError: The source is missing or a row of it is bad.
        OutputError: The cache cannot be written.
    """
    reader = CORPORA.get(name)
    path = Path(source)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; pass the {name} file or folder with --data")
    folder = _cache_root(cache) / f"{name}-{_source_key(path)}"
    if not (folder / "meta.json").exists():
        images, target, split, splits = reader(path)
        _write(folder, images, target, split, splits)
    return _open(name, folder)


def _cache_root(cache: str | os.PathLike[str] | None) -> Path:
    return Path(cache or os.environ.get("MIEN_CACHE") or Path.home() / ".cache" / "mien")


def _source_key(path: Path) -> str:
    """Return a digest of the source's path and of the size and time of change of every file in it."""
    digest = hashlib.sha256(f"{CACHE_FORMAT}:{path.resolve()}".encode())
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        stat = file.stat()
        digest.update(f"{file.name}:{stat.st_size}:{stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:20]


def _write(
    folder: Path, images: NDArray[np.uint8], target: NDArray[np.int64], split: NDArray[np.int8], splits: tuple[str, ...]
) -> None:
    """Write the arrays beside `folder` and rename, so that a reader never sees half a cache."""
    digest = hashlib.sha256()
    for array in (images, target, split):
        digest.update(np.ascontiguousarray(array).data)
    meta = {"format": CACHE_FORMAT, "splits": splits, "fingerprint": digest.hexdigest()}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=folder.name, dir=folder.parent))
    except OSError as error:
        raise OutputError(
            f"{folder.parent}: cannot write the cache ({error.strerror}); set MIEN_CACHE to a folder with room"
        ) from None
    try:
        for key, array in (("images", images), ("target", target), ("split", split)):
            np.save(building / f"{key}.npy", array)
        (building / "meta.json").write_text(json.dumps(meta))
        building.rename(folder)
    except OSError as error:
        shutil.rmtree(building, ignore_errors=True)
        if not (folder / "meta.json").exists():  # else another process was first with the same content
            raise OutputError(
                f"{folder}: cannot write the cache ({error.strerror}); set MIEN_CACHE to a folder with room"
            ) from None


def _no_cache(folder: Path, error: OSError) -> OutputError:
    return OutputError(f"{folder}: cannot write the cache ({error.strerror}); set MIEN_CACHE to a folder with room")


def _open(name: str, folder: Path) -> Corpus:
    meta = json.loads((folder / "meta.json").read_text())
    images = np.load(folder / "images.npy", mmap_mode="r")
    target, split = np.load(folder / "target.npy"), np.load(folder / "split.npy")
    return Corpus(name, images, target, split, tuple(meta["splits"]), meta["fingerprint"])
