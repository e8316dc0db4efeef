"""The cache: every source is decoded once, into memory-mapped uint8.

A cache is a folder named after the corpus and the state of its source (`mien.datasets.source_key`), so a changed source is
decoded again. Pictures are decoded in parallel, a pile at a time, so memory does not grow with the corpus. A build that was
stopped goes on after its last whole pile; of two processes one builds and the other waits. The fingerprint is a digest of the
content, so two layouts of the same images in the same order have the same one.
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
from typing import Any, TextIO, cast

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from mien.datasets.corpus import CORPORA, Corpus, Listing, Rows, read_listing
from mien.datasets.reading.options import check_options
from mien.datasets.reading.source import Tree, read_picture, reason
from mien.datasets.source_key import source_key
from mien.errors import DataError, InputError, MissingExtraError, OutputError

PILE = 256
"""Pictures decoded between two notes of how far a build is, at most."""

PILE_BYTES = 64_000_000
"""Bytes of a pile at most, as its pictures are stored."""

ELSEWHERE: set[str] = set()
"""Corpora whose source only names its pictures: those are looked at, too, to see whether anything changed."""

CHANGED = "was changed while it was read; run it again when it stays as it is"

BESIDE = {"ferplus": ("fer2013new.csv",)}
"""Files that a corpus reads beside its source, where that is a file."""

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
        DataError: The source is missing, cannot be read or changes meanwhile, or an option is unknown or of another type.
        OutputError: The cache cannot be written.
    """
    path, options = Path(source), options or {}
    check_options(name, CORPORA.get(name), options)
    _require_source(path, name)
    root = _cache_root(cache)
    listing, key, named = _read_names(name, path, options, root)
    folder = root / f"{name}-{key}"
    if not (folder / "meta.json").exists():
        listing = listing or read_listing(name, path, options)
        if len(listing.rows.target) == 0:
            raise DataError(f"{path}: holds no image of {name}; is it the right file or folder?")
        with _writing(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.with_suffix(".lock")):
                if not (folder / "meta.json").exists():  # else another process was first
                    _build(folder, listing, path, on_step)
                    _finish(folder, path, source_key(path, options, named, apart=root) == key)
            folder.with_suffix(".lock").unlink(missing_ok=True)
    return _open(name, folder)


def _read_names(name: str, path: Path, options: dict[str, Any], root: Path) -> tuple[Listing | None, str, list[Path]]:
    """Return what a source that names its pictures holds (None of other sources), the source's key, and files apart from it.

    Raises:
        DataError: The source cannot be read, or was changed while it was: the key would not be that of what was read.
    """
    named = _read_besides(name, path, options)
    if name not in ELSEWHERE:
        return None, source_key(path, options, named, apart=root), named
    before = source_key(path, options, apart=root)
    listing = read_listing(name, path, options)
    named = [*cast(Sequence[Path], listing.images), *named]
    key = source_key(path, options, named, apart=root)
    if source_key(path, options, apart=root) != before:  # asked last, so that nothing changed before the key was taken either
        raise DataError(f"{path}: {CHANGED}")
    return listing, key, named


def _require_source(path: Path, name: str) -> None:
    try:
        if path.is_file() or path.is_dir():
            return
        wrong = "is neither a file nor a folder" if path.exists() else "no such file or folder"
    except OSError as error:  # a name that is too long, a folder that may not be entered
        wrong = reason(error)
    raise DataError(f"{path}: {wrong}; pass the {name} file or folder with --data")


def _read_besides(name: str, path: Path, options: dict[str, Any]) -> list[Path]:
    """Return the files beside the source, and those that options name, by a path or by their name beside the source."""
    files = [path.parent / file for file in BESIDE.get(name, ())]
    files += [folder / value for value in options.values() if isinstance(value, str) for folder in (Path(), path.parent)]
    return [file for file in files if os.path.isfile(file)]  # noqa: PTH113 (a Path's raises of a name that is too long)


def _cache_root(cache: str | os.PathLike[str] | None) -> Path:
    return Path(cache or os.environ.get("MIEN_CACHE") or Path.home() / ".cache" / "mien")


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{folder}: cannot write the cache ({reason(error)}); set MIEN_CACHE to a folder with room") from None


def _finish(folder: Path, source: Path, unchanged: bool) -> None:
    """Give a cache its name, so that a reader never sees half of one; refuse it if the source changed meanwhile."""
    building = folder.with_suffix(".part")
    if not unchanged:
        shutil.rmtree(building)
        raise DataError(f"{source}: {CHANGED}")
    if folder.exists():  # somebody deleted a part of it
        shutil.rmtree(folder)
    building.rename(folder)


def _build(folder: Path, listing: Listing, source: Path, on_step: Callable[[int, int], None] | None) -> None:
    """Write the arrays beside `folder`."""
    building = folder.with_suffix(".part")
    building.mkdir(exist_ok=True)
    rows, skipped, files = listing.rows, list(listing.skipped), list[str]()
    shape: tuple[int, ...]
    if isinstance(listing.images, np.ndarray):
        (building / "images.bin").write_bytes(np.ascontiguousarray(listing.images).data)
        shape, files = listing.images.shape, list(listing.origins)
        if on_step is not None:
            on_step(len(rows.target), len(rows.target))
    else:
        bad = _decode(building, listing, listing.images, on_step)
        keep = np.array([i not in bad for i in range(len(listing.images))])
        if not keep.any():
            shutil.rmtree(building)
            raise DataError(f"{source}: none of its {len(keep):,} pictures can be used; the first: {bad[0]}")
        rows, skipped = rows.take(keep), [*skipped, *bad.values()]
        base = source if source.is_dir() else source.parent
        files = [_relative(file, base) for file, kept in zip(listing.images, keep, strict=True) if kept]
        shape = (len(files), *listing.size, *((3,) if listing.colour else ()))
    for key in ARRAYS:
        if (array := getattr(rows, key)) is not None:
            np.save(building / f"{key}.npy", array)
    meta = {key: getattr(rows, key) for key in NAMES}
    meta |= {"shape": shape, "files": files, "skipped": skipped, "fingerprint": _fingerprint(building, rows)}
    (building / "journal").unlink(missing_ok=True)
    (building / "meta.json").write_text(json.dumps(meta))


def _decode(
    building: Path, listing: Listing, files: Sequence[Tree], on_step: Callable[[int, int], None] | None
) -> dict[int, str]:
    """Append every picture to `images.bin`; return, by row, why some could not be."""
    journal, images = building / "journal", building / "images.bin"
    size = listing.size[0] * listing.size[1] * (3 if listing.colour else 1)
    done, bad = _resume(journal, images, size)
    pile_size = max(1, min(PILE, PILE_BYTES // size))
    with images.open("ab") as out, journal.open("w") as log, ThreadPoolExecutor(os.cpu_count()) as pool:
        out.truncate((done - len(bad)) * size)
        _note(log, done, bad)
        if done and on_step is not None:
            on_step(done, len(files))
        for first in range(done, len(files), pile_size):
            pile = files[first : first + pile_size]
            failed: dict[int, str] = {}
            for row, picture in enumerate(pool.map(lambda file: _stored(file, listing), pile), start=first):
                if isinstance(picture, str):
                    failed[row] = picture
                else:
                    out.write(picture.data)
            out.flush()
            _note(log, first + len(pile), failed)
            bad |= failed
            if on_step is not None:
                on_step(first + len(pile), len(files))
    return bad


def _note(log: TextIO, done: int, bad: dict[int, str]) -> None:
    log.write(json.dumps([done, bad]) + "\n")
    log.flush()


def _resume(journal: Path, images: Path, size: int) -> tuple[int, dict[int, str]]:
    """Return how many pictures an earlier build dealt with, and which of them were bad.

    What is noted counts as far as its pictures were written: after a failure of power they may be missing.
    """
    done, bad = 0, dict[int, str]()
    written = images.stat().st_size if images.exists() else 0
    for line in journal.read_text().splitlines() if journal.exists() else []:
        try:
            upto, failed = json.loads(line)
        except ValueError:  # the line that was being written
            break
        failed = bad | {int(row): why for row, why in failed.items()}
        if (upto - len(failed)) * size > written:
            break
        done, bad = upto, failed
    return done, bad


def _stored(file: Tree, listing: Listing) -> NDArray[np.uint8] | str:
    """Return a picture as it is stored, or why it cannot be."""
    try:
        pixels = read_picture(file)
        if listing.faces:
            from mien.datasets.crops import largest_face

            pixels = largest_face(pixels)
    except (InputError, MissingExtraError) as error:
        message = str(error)
        return message if str(file) in message else f"{file}: {message}"
    picture = Image.fromarray(pixels).convert("RGB" if listing.colour else "L")
    if picture.size != listing.size[::-1]:
        picture = picture.resize(listing.size[::-1], Image.Resampling.BILINEAR)
    return np.ascontiguousarray(picture)


def _relative(file: Tree, base: Path) -> str:
    """Return a picture's path in its archive or below a folder; the whole path where it lies elsewhere."""
    if not isinstance(file, Path):
        return file.at
    return str(file.relative_to(base) if file.is_relative_to(base) else file)


def _fingerprint(building: Path, rows: Rows) -> str:
    digest = hashlib.sha256()
    with (building / "images.bin").open("rb") as file:
        while block := file.read(1 << 24):
            digest.update(block)
    for array in (rows.target, rows.split):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _open(name: str, folder: Path) -> Corpus:
    try:
        meta = json.loads((folder / "meta.json").read_text())
        images = np.memmap(folder / "images.bin", np.uint8, "r", shape=tuple(meta["shape"]))
        arrays = {key: np.load(folder / f"{key}.npy") for key in ARRAYS if (folder / f"{key}.npy").exists()}
        fields: dict[str, Any] = {key: tuple(meta[key]) for key in NAMES} | arrays
        fingerprint, files, skipped = meta["fingerprint"], tuple(meta["files"]), tuple(meta["skipped"])
        rows = Rows(**fields)
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise DataError(f"{folder}: this cache is damaged ({reason(error)}); delete the folder and run it again") from None
    return Corpus(name, images, rows, fingerprint, files=files, skipped=skipped)
