"""The names of all files of a folder or archive in one pass, and the text of a small one.

For readers whose corpus lies in hundreds of folders: asking an archive for the files of one folder looks at every name in it.
"""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePosixPath

from mien.datasets.reading.source import Tree, Walk, is_folder, open_tree, read_small, scan
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
