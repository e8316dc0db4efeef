"""Write files completely or not at all: to a temporary file next to the target, which is then renamed.

`uninterrupted` is here too: it delays Ctrl-C and `kill` while a file is being finished.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import secrets
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mien.errors import OutputError, reason

STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Signals that ask a run to end."""

UNFINISHED = re.compile(r"\.(.*)-[0-9a-f]{8}(\.\w+)?", re.DOTALL)
"""Names of the temporary files of `atomic_path`."""

IDLE = 600
"""Seconds after which an unfinished file that nothing was written to belongs to a process that was killed."""

_CORPUS_FILES = (".csv", ".txt", ".npz", ".parquet", ".png", ".jpg", ".jpeg")
"""Endings of outputs that a corpus has too."""

_ADVICE: dict[int | None, str] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space or write to another disk"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "choose a folder you may write to"),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), "part of the path is a file; choose another folder"),
    errno.ENAMETOOLONG: "choose a shorter name",
}


def output_error(path: str | os.PathLike[str], error: OSError) -> OutputError:
    """Return the error that says why `path` cannot be written and what to do."""
    advice = _ADVICE.get(error.errno, "check the path and the disk")
    if sys.platform == "win32" and isinstance(error, PermissionError):
        advice += ", or close the program that has the file open"
    return OutputError(f"{path}: cannot be written ({reason(error)}); {advice}")


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path with the same suffix, in the same folder, at which the caller writes one file.

    If the block succeeds, the file is renamed to `path` and replaces an older one. If it fails, the temporary file is removed
    and an older file is kept. Missing folders are created. A device or pipe, such as `/dev/stdout`, is written directly.

    Args:
        path: The file's final name.

    Raises:
        OutputError: The block or the renaming raised an `OSError`: a read-only folder, a full disk, a path under a file.
    """
    target = Path(path)
    try:
        if target.is_dir():
            raise OutputError(f"{path}: is a folder; name a file in it")
        stream = str(target.parent) == "/dev/fd" or str(target) in ("/dev/stdout", "/dev/stderr")  # even redirected to a file
        if stream or (target.exists() and not target.is_file()):
            yield target
            return
        target = target.resolve()  # replace the file a link points at, not the link
        target.parent.mkdir(parents=True, exist_ok=True)
        tmp_path = target.with_name(f".{target.stem[:100]}-{secrets.token_hex(4)}{target.suffix}")
        try:
            yield tmp_path
            if not tmp_path.stat().st_mode & 0o077:  # safetensors makes its files private, whatever the user wants
                mask = os.umask(0o077)
                os.umask(mask)
                tmp_path.chmod(0o666 & ~mask)
            tmp_path.replace(target)
        finally:
            tmp_path.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(path, error) from None


def write_json(path: str | os.PathLike[str], values: Any) -> None:
    """Write values as JSON, completely or not at all.

    Raises:
        OutputError: As `atomic_path`.
    """
    with atomic_path(path) as tmp_path:
        tmp_path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


@contextmanager
def atomic_buffer(path: str | os.PathLike[str]) -> Iterator[io.BytesIO]:
    """Yield a buffer that is written to one file, as by `atomic_path`; for Pillow, which ignores a write that was cut short.

    Raises:
        OutputError: As `atomic_path`.
    """
    with atomic_path(path) as tmp_path:
        buffer = io.BytesIO()
        yield buffer
        tmp_path.write_bytes(buffer.getvalue())


def remove_unfinished(folder: Path, names: Iterable[str] | None = None, idle: float = IDLE) -> None:
    """Remove the temporary files that a killed process left in a folder.

    Args:
        folder: The folder.
        names: Only those of files with these names; None for all, if no other process may be writing there.
        idle: Keep those that were written to in the last so many seconds: another process may be at work.

    Raises:
        OutputError: A file cannot be removed.
    """
    wanted = None if names is None else {(Path(name).stem[:100], Path(name).suffix) for name in names}
    for file in list(folder.iterdir()) if folder.is_dir() else []:
        found = UNFINISHED.fullmatch(file.name)
        if found and (wanted is None or (found[1], found[2] or "") in wanted):
            try:
                if time.time() - file.stat().st_mtime >= idle:
                    file.unlink(missing_ok=True)
            except OSError as error:
                raise output_error(file, error) from None


def file_id(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Return what identifies a file or folder whatever path leads to it; None if it does not exist."""
    try:
        found = os.stat(path)  # noqa: PTH116 (a name such as camera:0 need not be a path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def check_outputs(outputs: Iterable[Path | None], inputs: Iterable[str | os.PathLike[str]]) -> None:
    """Check that files can be written and replace nothing that the same run reads, before it does any work.

    Args:
        outputs: The files to write; None is left out.
        inputs: What is read: files, folders, or names of other things, such as `camera:0`. Pictures and tables in a folder
            count too.

    Raises:
        OutputError: An output is an input, is named twice, or cannot be written (see `check_place`).
    """
    wanted = [output for output in outputs if output is not None]
    for output in wanted:
        check_place(output)
    replaced = any(output.is_file() for output in wanted)  # if not, a million inputs need not be looked at
    read = {file_id(path): Path(path) for path in inputs} if replaced else {}
    read.pop(None, None)
    folders = {path.resolve() for path in read.values() if path.is_dir()}
    seen = set[Path]()
    for output in wanted:
        real = output.resolve()
        if output.is_file() and file_id(output) in read:
            raise OutputError(f"{output}: is read by this run, which would overwrite it; choose another name")
        if output.is_file() and real.suffix.lower() in _CORPUS_FILES and folders & {*real.parents}:
            raise OutputError(f"{output}: may belong to the folder that this run reads; choose another folder")
        if real in seen and (output.is_file() or not output.exists()):
            raise OutputError(f"{output}: is named for two outputs; choose two names")
        seen.add(real)


def check_kind(output: Path, *keys: str) -> None:
    """Check that a JSON file to write replaces none of another kind, such as a model's card the results of a model.

    Args:
        output: The file to write.
        keys: What every file of its kind contains.

    Raises:
        OutputError: There is a JSON file without these keys.
    """
    try:
        held = json.loads(output.read_text(encoding="utf-8")) if output.is_file() else None
    except (OSError, ValueError, RecursionError):
        return  # not JSON
    if isinstance(held, dict) and not {*keys} <= {*held}:
        raise OutputError(f"{output}: holds something else ({', '.join(list(held)[:3])}, ...); choose another name")


def check_place(target: Path) -> None:
    """Check that a file, or files in a folder, can be written, so that hours of work are not lost at the end.

    Raises:
        OutputError: The folder is protected, or part of the path is a file.
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


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Delay Ctrl-C and `kill` until the block is done, so that a file is not left half-written."""
    if threading.current_thread() is not threading.main_thread():  # Python interrupts the main thread only
        yield
        return
    received: list[Any] = []
    handlers = {number: signal.getsignal(number) for number in STOPS}
    ours = {number: handler for number, handler in handlers.items() if callable(handler)}
    try:
        for number in ours:
            signal.signal(number, lambda *arguments: received.append(arguments))
        yield
    finally:  # also if the block failed: the user still wants to stop
        for number, handler in ours.items():
            signal.signal(number, handler)
        if received:
            ours[received[0][0]](*received[0])
