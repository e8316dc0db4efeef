"""The cache: every source is decoded once, into memory-mapped uint8.

A cache is a folder named after the corpus, its options, and the path, size and time of change of every file of the source, so a
changed source is decoded again. Pictures are decoded in parallel, a pile at a time, so memory does not grow with the
corpus. A build that was stopped goes on after its last whole pile; of two processes one builds and the other waits. The
fingerprint is a digest of the content, so two layouts of the same images in the same order have the same one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from mien.datasets.corpus import CORPORA, Corpus, Listing, Rows, read_listing, source_files
from mien.datasets.source import Tree, read_picture
from mien.errors import DataError, InputError, OutputError

CACHE_FORMAT = 2
PILE = 256
"""Pictures decoded between two notes of how far a build is."""

ARRAYS = ("target", "split", "votes", "valence_arousal")
NAMES = ("classes", "splits", "subjects", "sequences")


def load_corpus(
    name: str,
    source: str | os.PathLike[str],
    cache: str | os.PathLike[str] | None = None,
    *,
    options: dict[str, Any] | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Corpus:
    """Return a corpus, decoded from its source or taken from the cache.

    Args:
        name: Registered name, such as `"fer2013"`.
        source: The file or folder its users have.
        cache: Folder of caches; by default `$MIEN_CACHE`, else `~/.cache/mien`.
        options: The reader's own options (`mien.datasets.read_<name>`), and `size`, `colour` and `faces`.
        on_step: Called with the pictures decoded and their number while the cache is built.

    Raises:
        UnknownNameError: No such corpus.
        DataError: The source is missing or cannot be read, or an option is unknown.
        OutputError: The cache cannot be written.
    """
    CORPORA.get(name)
    path, options = Path(source), options or {}
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; pass the {name} file or folder with --data")
    folder = _cache_root(cache) / f"{name}-{_source_key(path, options)}"
    if not (folder / "meta.json").exists():
        listing = read_listing(name, path, options)
        if len(listing.rows.target) == 0:
            raise DataError(f"{path}: holds no image of {name}; is it the right file or folder?")
        with _writing(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.with_suffix(".lock")):
                if not (folder / "meta.json").exists():  # else another process was first
                    _build(folder, listing, path, on_step)
            folder.with_suffix(".lock").unlink(missing_ok=True)
    return _open(name, folder)


def _cache_root(cache: str | os.PathLike[str] | None) -> Path:
    return Path(cache or os.environ.get("MIEN_CACHE") or Path.home() / ".cache" / "mien")


def _source_key(path: Path, options: dict[str, Any]) -> str:
    """Return a digest of the source's path, of the size and time of change of every file in it, and of the options."""
    digest = hashlib.sha256(f"{CACHE_FORMAT}:{path.resolve()}:{json.dumps(options, sort_keys=True)}".encode())
    for file in source_files(path):
        stat = file.stat() if file.exists() else None  # a dead link
        digest.update(f"{file.name}:{stat.st_size}:{stat.st_mtime_ns}".encode() if stat else b"-")
    return digest.hexdigest()[:20]


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot write the cache ({error.strerror}); set MIEN_CACHE to a folder with room"
        ) from None


def _build(folder: Path, listing: Listing, source: Path, on_step: Callable[[int, int], None] | None) -> None:
    """Write the arrays beside `folder` and rename, so that a reader never sees half a cache."""
    building = folder.with_suffix(".part")
    building.mkdir(exist_ok=True)
    rows, skipped, files = listing.rows, list(listing.skipped), list[str]()
    shape: tuple[int, ...]
    if isinstance(listing.images, np.ndarray):
        (building / "images.bin").write_bytes(np.ascontiguousarray(listing.images).data)
        shape = listing.images.shape
    else:
        bad = _decode(building, listing, listing.images, on_step)
        keep = np.array([i not in bad for i in range(len(listing.images))])
        if not keep.any():
            shutil.rmtree(building)
            raise DataError(f"{source}: none of its {len(keep):,} pictures can be used; the first: {bad[0]}")
        rows, skipped = rows.take(keep), [*skipped, *bad.values()]
        files = [_relative(file, source) for file, kept in zip(listing.images, keep, strict=True) if kept]
        shape = (len(files), *listing.size, *((3,) if listing.colour else ()))
    for key in ARRAYS:
        if (array := getattr(rows, key)) is not None:
            np.save(building / f"{key}.npy", array)
    meta = {key: getattr(rows, key) for key in NAMES}
    meta |= {"shape": shape, "files": files, "skipped": skipped, "fingerprint": _fingerprint(building, rows)}
    (building / "journal").unlink(missing_ok=True)
    (building / "meta.json").write_text(json.dumps(meta))
    building.rename(folder)


def _decode(
    building: Path, listing: Listing, files: Sequence[Tree], on_step: Callable[[int, int], None] | None
) -> dict[int, str]:
    """Append every picture to `images.bin`; return, by row, why some could not be."""
    journal, images = building / "journal", building / "images.bin"
    done, bad = _resume(journal)
    size = listing.size[0] * listing.size[1] * (3 if listing.colour else 1)
    with images.open("ab") as out, journal.open("a") as log, ThreadPoolExecutor(os.cpu_count()) as pool:
        out.truncate((done - len(bad)) * size)
        for first in range(done, len(files), PILE):
            pile = files[first : first + PILE]
            failed: dict[int, str] = {}
            for row, picture in enumerate(pool.map(lambda file: _stored(file, listing), pile), start=first):
                if isinstance(picture, str):
                    failed[row] = picture
                else:
                    out.write(picture.data)
            out.flush()
            log.write(json.dumps([first + len(pile), failed]) + "\n")
            log.flush()
            bad |= failed
            if on_step is not None:
                on_step(first + len(pile), len(files))
    return bad


def _resume(journal: Path) -> tuple[int, dict[int, str]]:
    """Return how many pictures an earlier build dealt with, and which of them were bad."""
    done, bad = 0, dict[int, str]()
    for line in journal.read_text().splitlines() if journal.exists() else []:
        try:
            done, failed = json.loads(line)
        except ValueError:  # the line that was being written
            break
        bad |= {int(row): reason for row, reason in failed.items()}
    return done, bad


def _stored(file: Tree, listing: Listing) -> NDArray[np.uint8] | str:
    """Return a picture as it is stored, or why it cannot be."""
    try:
        pixels = read_picture(file)
        if listing.faces:
            from mien.datasets.crops import largest_face

            pixels = largest_face(pixels)
    except InputError as error:
        message = str(error)
        return message if str(file) in message else f"{file}: {message}"
    picture = Image.fromarray(pixels).convert("RGB" if listing.colour else "L")
    if picture.size != listing.size[::-1]:
        picture = picture.resize(listing.size[::-1], Image.Resampling.BILINEAR)
    return np.ascontiguousarray(picture)


def _relative(file: Tree, source: Path) -> str:
    return (
        str(file.relative_to(source))
        if isinstance(file, Path) and file.is_relative_to(source)
        else str(getattr(file, "at", file))
    )


def _fingerprint(building: Path, rows: Rows) -> str:
    digest = hashlib.sha256()
    with (building / "images.bin").open("rb") as file:
        while block := file.read(1 << 24):
            digest.update(block)
    for array in (rows.target, rows.split):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _open(name: str, folder: Path) -> Corpus:
    meta = json.loads((folder / "meta.json").read_text())
    images = np.memmap(folder / "images.bin", np.uint8, "r", shape=tuple(meta["shape"]))
    arrays = {key: np.load(folder / f"{key}.npy") for key in ARRAYS if (folder / f"{key}.npy").exists()}
    fields: dict[str, Any] = {key: tuple(meta[key]) for key in NAMES} | arrays
    rows = Rows(**fields)
    return Corpus(name, images, rows, meta["fingerprint"], files=tuple(meta["files"]), skipped=tuple(meta["skipped"]))
