"""The names of all files of a folder or archive in one pass, and the text of a small one.

For readers whose corpus lies in hundreds of folders: asking an archive for the files of one folder looks at every name in it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from mien.datasets.reading.source import Tree, Walk, folders, is_folder, open_tree, read_small, scan
from mien.datasets.reading.split_names import split_name
from mien.errors import DataError, InputError

MAX_TEXT = 50_000_000
"""Bytes of the largest file of labels that is read; RAF-DB's has 0.3 million."""


def file_names(source: Path, skipped: list[str]) -> tuple[Tree, list[str]]:
    """Return a source opened, and the names in it, relative, with forward slashes, sorted; without what systems litter.

    Args:
        source: A folder or a zip archive. Links to folders are followed once.
        skipped: A line is added for each link that is not followed; see `mien.datasets.reading.source.Walk`.

    Raises:
        DataError: It is neither, or the archive is damaged.
    """
    tree = open_tree(source)
    if isinstance(tree, zipfile.Path):
        names = [name for name in tree.root.namelist() if not name.endswith("/")]
    else:
        walk = Walk(tree, skipped)
        found = (entry.path for folder in walk.everywhere(tree) for entry in scan(str(folder)) if not is_folder(entry))
        names = [Path(path).relative_to(tree).as_posix() for path in found]
    return tree, sorted({name for name in names if not _is_litter(name)})  # an archive may hold a name twice


def table_in(folder: Path, names: Sequence[str]) -> Path | None:
    """Return a table that lies in a folder, or in the only folder in it that has one, as where an archive was unpacked.

    Args:
        folder: The folder. Where a folder in it is called like a split, it holds pictures, and folders are not looked into.
        names: Names of the table, the best first.

    Raises:
        DataError: The folder cannot be read, or several folders in it hold such a table.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    inner = [Path(str(place)) for place in folders(folder)]
    if any(split_name(place.name) is not None for place in inner):
        return None
    found = [next(place / name for name in names if (place / name).is_file()) for place in inner if _has(place, names)]
    if len(found) > 1:
        raise DataError(f"{folder}: holds {', '.join(str(file.relative_to(folder)) for file in found[:5])}; pass one of them")
    return found[0] if found else None


def _has(folder: Path, names: Sequence[str]) -> bool:
    return any((folder / name).is_file() for name in names)


def _is_litter(name: str) -> bool:
    """Return whether a file is hidden or macOS's copy of its properties (`.DS_Store`, `__MACOSX/._x.png`)."""
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def read_text(file: Tree) -> str:
    """Return the text of a small file, UTF-8; bytes that are not become U+FFFD.

    Raises:
        DataError: It cannot be read, or is too large for a file of labels.
    """
    try:
        data = read_small(file, MAX_TEXT)
    except InputError as error:
        raise DataError(f"{error}; is it the right file of labels?") from None
    return data.decode("utf-8-sig", "replace")
