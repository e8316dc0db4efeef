"""The state of a source in one word: it changes when a file is added, removed, renamed, moved or written.

Asked for whenever a corpus is loaded, so files are looked at and not read: a second or two for a hundred thousand.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from stat import S_ISDIR
from typing import Any

from mien.datasets.reading.source import Walk, scan

CACHE_FORMAT = 5


def source_key(path: Path, options: dict[str, Any], named: Sequence[Path] = (), apart: Path | None = None) -> str:
    """Return a digest, 20 hexadecimal digits, of the options and of path, size and times of change of each file.

    Args:
        path: The file or folder.
        options: Plain values.
        named: Pictures outside it that it names.
        apart: A folder that is left out, should it lie in the source.

    Raises:
        DataError: A folder cannot be read.
    """
    total = _digest(f"{CACHE_FORMAT}:{json.dumps(options, sort_keys=True, default=str)}")
    for line in _states(path.resolve(), named, apart):
        total += _digest(line)  # a sum, because a million files cost too much memory to be sorted
    return f"{total % 2**256:064x}"[-20:]


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(os.fsencode(text)).digest(), "big")


def _states(root: Path, named: Sequence[Path], apart: Path | None) -> Iterator[str]:
    yield f"root:{_state(str(root)) if root.is_file() else root}"
    if root.is_dir():
        for folder in Walk(root, [], apart).everywhere(root):
            for entry in scan(os.fspath(folder)):  # type: ignore[arg-type]
                if not entry.is_dir(follow_symlinks=False):
                    yield _state(entry.path)
    yield from (_state(str(picture.absolute())) for picture in named)


def _state(file: str) -> str:
    """Return path, size and times of change of a file.

    The time of the inode (ctime) is among them: tools that unpack and copy set the other one back.
    """
    try:
        stat = os.stat(file)  # noqa: PTH116 (a million files: a Path each would take seconds)
    except (OSError, ValueError):  # a dead link, a missing picture
        return f"{file}:-"
    if S_ISDIR(stat.st_mode):  # its times change with whatever is written in it
        return f"{file}:folder"
    return f"{file}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"
