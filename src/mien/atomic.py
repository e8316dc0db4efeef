"""Files that are written whole or not at all: write beside the target, then rename."""

from __future__ import annotations

import errno
import io
import os
import re
import secrets
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mien.errors import OutputError

STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Signals that may end a run."""

UNFINISHED = re.compile(r"\..*-[0-9a-f]{8}(\.\w+)?", re.DOTALL)
"""What `atomic_path` calls a file while it is written."""

_ADVICE: dict[int | None, str] = {
    errno.ENOSPC: "free some space or write to another disk",
    errno.EDQUOT: "free some space or write to another disk",
    errno.EACCES: "choose a folder you may write to",
    errno.EPERM: "choose a folder you may write to",
    errno.EROFS: "choose a folder you may write to",
    errno.ENOTDIR: "part of the path is a file; choose another folder",
    errno.EEXIST: "part of the path is a file; choose another folder",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def output_error(path: str | os.PathLike[str], error: OSError) -> OutputError:
    """Return the error that says why `path` cannot be written and what to do."""
    advice = _ADVICE.get(error.errno, "check the path and the disk")
    return OutputError(f"{path}: cannot be written ({error.strerror or error}); {advice}")


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`, of the same suffix, for the caller to write one file at.

    When the block ends well the file takes its final name, replacing an older one; when it fails, the temporary file is
    removed and an older one stays as it was. Missing folders are created. A device or pipe, such as `/dev/stdout`, is written
    directly.

    Args:
        path: The file's final name.

    Raises:
        OutputError: The block or the renaming met an `OSError`: a read-only folder, a full disk, a path under a file.
    """
    target = Path(path)
    try:
        if target.is_dir():
            raise OutputError(f"{path}: is a folder; name a file in it")
        if _is_stream(target):
            yield target
        else:
            yield from _replacing(target.resolve())  # the file a link points at, not the link
    except OSError as error:
        raise output_error(path, error) from None


@contextmanager
def atomic_buffer(path: str | os.PathLike[str]) -> Iterator[io.BytesIO]:
    """Yield a buffer that becomes one file, as with `atomic_path`; for Pillow, which takes half a write to a full disk for all.

    Raises:
        OutputError: As of `atomic_path`.
    """
    with atomic_path(path) as beside:
        buffer = io.BytesIO()
        yield buffer
        beside.write_bytes(buffer.getvalue())


def remove_unfinished(folder: Path) -> None:
    """Remove what a process that was killed while it wrote into a folder left half-written there; that folder must be its own.

    Raises:
        OutputError: One cannot be removed.
    """
    for file in list(folder.iterdir()) if folder.is_dir() else []:
        if UNFINISHED.fullmatch(file.name):
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                raise output_error(file, error) from None


def check_place(target: Path) -> None:
    """Check now what writing a file, or into a folder, would meet after hours of work: no folder, or a protected one.

    Raises:
        OutputError: It may not be written, or not be looked into.
    """
    try:
        if target.exists() and not (target.is_file() or target.is_dir()):
            return  # a pipe
        nearest = next(path for path in (target.absolute(), *target.absolute().parents) if path.exists())
        folder = nearest.parent if nearest == target.absolute() and nearest.is_file() else nearest
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise output_error(target, error) from None


def _is_stream(target: Path) -> bool:
    """Whether a path is a device, a pipe, or a name of an open stream, even of one that goes to a file."""
    if target.parent == Path("/dev/fd") or target in (Path("/dev/stdout"), Path("/dev/stderr")):
        return True
    return target.exists() and not target.is_file()


def _replacing(target: Path) -> Iterator[Path]:
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.stem[:100]}-{secrets.token_hex(4)}{target.suffix}")
    try:
        yield beside
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put Ctrl-C and `kill` off until the block is done, however often they come: what is written half-way is spoilt."""
    if threading.current_thread() is not threading.main_thread():  # only the main one is interrupted
        yield
        return
    came: list[Any] = []
    handlers = {number: signal.getsignal(number) for number in STOPS}
    ours = {number: handler for number, handler in handlers.items() if callable(handler)}
    try:
        for number in ours:
            signal.signal(number, lambda *arguments: came.append(arguments))
        yield
    finally:  # also where the block failed: who asked to stop still wants it
        for number, handler in ours.items():
            signal.signal(number, handler)
        if came:
            ours[came[0][0]](*came[0])
