"""`load_corpus`: the one way to a corpus, decoded once into memory-mapped uint8.

A cache is a folder named after the corpus and a digest of its source, so a changed source is decoded again. Pictures are
decoded in parallel and in chunks, so memory does not grow with the corpus. A build that was stopped resumes after its last
whole chunk; of two processes one builds and the other waits.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from pathlib import Path
from stat import S_ISDIR
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien.atomic import atomic_path
from mien.datasets.corpus import CORPORA, Corpus, Listing, Reader, Rows, check_options
from mien.datasets.crops import largest_face
from mien.datasets.files import Tree, open_picture, walk
from mien.datasets.protocols.splits import OUT, apply_protocol
from mien.errors import DataError, InputError, MissingExtraError, OutputError, reason, require
from mien.image import STRIP
from mien.provenance import available_cores
from mien.text import printable

CACHE_FORMAT = 6

CHUNK = 256
"""Most pictures that are decoded before they are written."""

CHUNK_BYTES = 32_000_000
"""Most bytes of a chunk, as its pictures are stored."""

BAD = "bad"
"""Folder, in a cache that is being built, with the rows of the pictures that cannot be used."""

CHANGED = "changed while it was read; run it again when nothing writes to it"

ARRAYS = ("target", "split", "votes", "valence_arousal")
NAMES = ("classes", "splits", "subjects", "sequences")

OnStep = Callable[[int, int], None]


def load_corpus(
    name: str,
    source: str | os.PathLike[str],
    cache: str | os.PathLike[str] | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    protocol: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    soft_labels: bool = True,
    on_step: OnStep | None = None,
) -> Corpus:
    """Return a corpus, decoded from its source or taken from the cache.

    Args:
        name: Registered name, such as `"fer2013"`.
        source: The file or folder.
        cache: Folder for caches; by default `$MIEN_CACHE`, else `~/.cache/mien`.
        options: Options of this corpus by name, see docs/datasets.md.
        protocol: How to split it: one protocol or a list of them, see `apply_protocol`. By default the official splits.
        soft_labels: Use the options that create soft labels, such as `votes` of FER2013. With False their files are not needed,
            which is enough for evaluation.
        on_step: Called with the number of decoded pictures and the total, while the cache is built.

    Raises:
        UnknownNameError: There is no such corpus or protocol.
        DataError: The source is missing, cannot be read or changes while it is read; the protocol does not fit it; or an option
            is wrong.
        OutputError: The cache cannot be written.
        MissingExtraError: The extra `train` is not installed.
    """
    filelock, reader, path = require("filelock", "train"), CORPORA.get(name), Path(source)
    options = {key: value for key, value in (options or {}).items() if soft_labels or key not in reader.soft_label_options}
    check_options(name, options)
    _require_source(path, name)
    root = Path(cache or os.environ.get("MIEN_CACHE") or Path.home() / ".cache" / "mien")

    listing, outside = None, files_outside(reader, path, options)
    if reader.lists_pictures:  # read it first, because the pictures belong to the key
        before = source_key(path, options, exclude=root)
        listing = reader(path, **options)
        outside += [file for file in listing.images if isinstance(file, Path)]
    key = source_key(path, options, outside, exclude=root)
    if reader.lists_pictures and source_key(path, options, exclude=root) != before:  # else the key is not that of what was read
        raise DataError(f"{path}: {CHANGED}")

    folder = root / f"{name}-{key}"
    if not (folder / "meta.json").exists():
        listing = listing or reader(path, **options)
        if len(listing.rows.target) == 0:
            raise DataError(f"{path}: contains no image of {name}; is it the right file or folder?")
        try:
            root.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(folder.with_suffix(".lock")):
                if not (folder / "meta.json").exists():  # else another process was first
                    building = folder.with_suffix(".building")
                    _build(building, listing, path, on_step)
                    if source_key(path, options, outside, exclude=root) != key:
                        shutil.rmtree(building)
                        raise DataError(f"{path}: {CHANGED}")
                    if folder.exists():  # somebody deleted a part of it
                        shutil.rmtree(folder)
                    building.rename(folder)
            with suppress(OSError):  # Windows keeps it while another process waits for it
                folder.with_suffix(".lock").unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(
                f"{folder}: cannot write the cache ({reason(error)}); set MIEN_CACHE to a folder with free space"
            ) from None

    corpus = _open(name, folder)
    if isinstance(protocol, Mapping):
        protocol = [protocol] if protocol else []
    for step in protocol or []:
        corpus = apply_protocol(corpus, step)
    return corpus


def _require_source(path: Path, name: str) -> None:
    try:
        if path.is_file() or path.is_dir():
            return
        wrong = "is neither a file nor a folder" if path.exists() else "no such file or folder"
    except OSError as error:  # a name that is too long, a folder without permission
        wrong = reason(error)
    raise DataError(f"{path}: {wrong}; pass the {name} file or folder with --data")


# The key of a source


def files_outside(reader: Reader, path: Path, options: Mapping[str, Any]) -> list[Path]:
    """Return the files next to the source that its reader reads, and those that options name, by path or next to the source."""
    files = [path.parent / file for file in reader.files_next_to]
    files += [folder / value for value in options.values() if isinstance(value, str) for folder in (Path(), path.parent)]
    return [file for file in files if os.path.isfile(file)]  # noqa: PTH113 (a Path raises for a name that is too long)


def source_key(path: Path, options: Mapping[str, Any], outside: Sequence[Path] = (), exclude: Path | None = None) -> str:
    """Return a digest of the options and of the path, size and times of every file, 20 hexadecimal digits.

    It changes when a file is added, removed, renamed, moved or written. It is asked for whenever a corpus is loaded, so files
    are not read: a hundred thousand take a second or two.

    Args:
        path: The file or folder.
        options: Values by option.
        outside: Files outside it that belong to it.
        exclude: A folder in it that does not.

    Raises:
        DataError: A folder cannot be read.
    """
    root, skipped = path.resolve(), list[str]()
    total = _digest(f"{CACHE_FORMAT}:{json.dumps(options, sort_keys=True, default=str)}")
    total += _digest(f"root:{_state(str(root)) if root.is_file() else root}")
    names = walk(root, skipped, exclude) if root.is_dir() else ()
    files = chain((f"{root}/{name}" for name in names if not name.endswith("/")), (str(file.absolute()) for file in outside))
    for line in chain(map(_state, files), skipped):
        total += _digest(line)  # a sum, because sorting a million files takes too much memory
    return f"{total % 2**256:064x}"[-20:]


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(os.fsencode(text)).digest(), "big")


def _state(file: str) -> str:
    """Return the path, size and times of a file; the inode's (ctime) too, because unpacking and copying restore the other."""
    try:
        stat = os.stat(file)  # noqa: PTH116 (a Path for each of a million files takes seconds)
    except (OSError, ValueError):  # a broken link, a missing picture
        return f"{file}:-"
    if S_ISDIR(stat.st_mode):  # its times change with whatever is written in it
        return f"{file}:folder"
    return f"{file}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"


# Building and opening


def _build(building: Path, listing: Listing, source: Path, on_step: OnStep | None) -> None:
    """Write a listing's images, rows and notes into a folder."""
    building.mkdir(exist_ok=True)
    rows, skipped, files = listing.rows, list(listing.skipped), list(listing.origins)
    shape: tuple[int, ...]
    if isinstance(listing.images, np.ndarray):
        (building / "images.bin").write_bytes(np.ascontiguousarray(listing.images).data)
        shape = listing.images.shape
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
        shape = (len(files), *listing.stored_shape)

    fingerprint = hashlib.sha256()  # of content alone: two layouts of the same images in the same order share it
    with (building / "images.bin").open("rb") as file:
        while block := file.read(1 << 24):
            fingerprint.update(block)
    for array in (rows.target, rows.split):
        fingerprint.update(np.ascontiguousarray(array).data)
    for key in ARRAYS:
        if (array := getattr(rows, key)) is not None:
            np.save(building / f"{key}.npy", array)
    meta = {key: getattr(rows, key) for key in NAMES}
    meta |= {"shape": shape, "files": files, "skipped": skipped, "fingerprint": fingerprint.hexdigest()}
    shutil.rmtree(building / BAD, ignore_errors=True)
    (building / "meta.json").write_text(json.dumps(meta))


def _decode(building: Path, listing: Listing, files: Sequence[Tree], on_step: OnStep | None) -> dict[int, str]:
    """Append every picture to `images.bin`; return why some could not be, by row.

    The bad rows of a chunk are written to a file of their own before its pictures. So the pictures in `images.bin` tell how far
    a build came that was stopped: every row that is not known to be bad was written.
    """
    size = int(np.prod(listing.stored_shape))
    chunk_size = max(1, min(CHUNK, CHUNK_BYTES // size))
    notes = [json.loads(note.read_text()) for note in (building / BAD).glob("[!.]*")]  # others are unfinished
    known = sorted((int(row), why) for note in notes for row, why in note.items())
    with (building / "images.bin").open("ab") as out, ThreadPoolExecutor(available_cores()) as pool:
        done = out.tell() // size
        for row, _ in known:
            done += row <= done
        done -= done % chunk_size
        bad = {row: why for row, why in known if row < done}
        out.truncate((done - len(bad)) * size)
        if done and on_step is not None:
            on_step(done, len(files))
        for first in range(done, len(files), chunk_size):
            chunk = files[first : first + chunk_size]
            stored = list(pool.map(lambda file: _stored(file, listing), chunk))
            failed = {row: why for row, why in enumerate(stored, first) if isinstance(why, str)}
            with atomic_path(building / BAD / f"{first}.json") as tmp_path, tmp_path.open("w") as note:
                json.dump(failed, note)
                note.flush()
                os.fsync(note)
            bad |= failed
            out.writelines(picture.data for picture in stored if not isinstance(picture, str))
            out.flush()
            if on_step is not None:
                on_step(first + len(chunk), len(files))
    return bad


def _stored(file: Tree, listing: Listing) -> NDArray[np.uint8] | str:
    """Return a picture as it is stored, or why it cannot be."""
    try:
        with open_picture(file) as pixels:
            if listing.faces:
                pixels = largest_face(pixels)
            picture, rows = Image.new("RGB" if listing.colour else "L", pixels.shape[1::-1]), max(1, STRIP // pixels.shape[1])
            for top in range(0, len(pixels), rows):
                picture.paste(Image.fromarray(pixels[top : top + rows]).convert(picture.mode), (0, top))
            if picture.size != listing.size[::-1]:
                picture = picture.resize(listing.size[::-1], Image.Resampling.BILINEAR)
            stored = np.ascontiguousarray(picture)
            return (
                np.pad(stored, [(listing.pad,) * 2] * 2 + [(0, 0)] * (stored.ndim - 2), mode="edge") if listing.pad else stored
            )
    except (InputError, MissingExtraError) as error:
        message = str(error)
        return message if printable(str(file)) in message else f"{printable(str(file))}: {message}"


def _relative(file: Tree, base: Path) -> str:
    """Return a picture's path in its archive or folder; the whole path if it is elsewhere."""
    if not isinstance(file, Path):
        return file.at
    return str(file.relative_to(base) if file.is_relative_to(base) else file)


def _open(name: str, folder: Path) -> Corpus:
    try:
        meta = json.loads((folder / "meta.json").read_text())
        images = np.memmap(folder / "images.bin", np.uint8, "r", shape=tuple(meta["shape"]))
        arrays = {key: np.load(folder / f"{key}.npy") for key in ARRAYS if (folder / f"{key}.npy").exists()}
        fields: dict[str, Any] = {key: tuple(meta[key]) for key in NAMES} | arrays
        fingerprint, files, skipped = meta["fingerprint"], tuple(meta["files"]), tuple(meta["skipped"])
        rows = Rows(**fields)
        within = 0 <= rows.target.min() <= rows.target.max() < len(rows.classes)
        within = within and OUT <= rows.split.min() <= rows.split.max() < len(rows.splits)
        if not (within and all(len(array) == len(images) for array in arrays.values())):
            raise ValueError("its files do not belong together")
    except Exception as error:  # numpy and json raise anything on damaged files
        raise DataError(f"{folder}: this cache is damaged ({reason(error)}); delete the folder and run it again") from None
    return Corpus(name, images, rows, fingerprint, files=files, skipped=skipped)
