"""The one walk over a folder that a user names: corpora, photos to prepare, and what `mien predict` reads all go through it.

Like `os.walk`, with three rules of mien: hidden entries are left out, each folder is read once however many links lead to it,
and folders may be nested deeper than Python's stack.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from mien.atomic import file_id
from mien.image import ENDINGS


def walk_folder(
    top: str | os.PathLike[str],
    skipped: list[str],
    on_error: Callable[[OSError], None],
    exclude: str | os.PathLike[str] | None = None,
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield the path of each folder, the names of its folders, sorted, and those of its files, in no order; from the top down.

    The folders in a folder come after it, in the order of its list; the caller may sort that list or remove some. A link to a
    folder outside the tree is followed once. A link to a folder in the tree or above it is not: its target has its own place.

    Args:
        top: The folder.
        skipped: Gets a line for each link to a folder that is not followed, and for each broken link. Of one that ends like a
            picture, whoever reads the picture says that it is missing.
        on_error: Called with the error of a folder that cannot be read, which is then left out.
        exclude: A folder that is not entered.
    """
    root = Path(os.path.realpath(top))
    entered = {file_id(folder) for folder in (top, exclude) if folder is not None}
    waiting = [os.fspath(top)]
    while waiting:
        folder, links_and_folders, folders, files = waiting.pop(), list[os.DirEntry[str]](), list[str](), list[str]()
        try:
            with os.scandir(folder) as entries:
                for entry in (entry for entry in entries if is_shown(entry.name)):
                    if entry.is_symlink() or entry.is_dir():
                        links_and_folders.append(entry)
                    else:
                        files.append(entry.name)
        except OSError as error:
            on_error(error)
            continue
        for entry in sorted(links_and_folders, key=lambda entry: entry.name):
            identity = file_id(entry.path)
            if not os.path.isdir(entry.path):  # noqa: PTH112 (a Path for each of a million names takes seconds)
                files.append(entry.name)
                if identity is None and Path(entry.name).suffix.lower() not in ENDINGS:
                    skipped.append(f"{entry.path}: is a broken link")
            elif entry.is_symlink() and (identity in entered or _has_own_place(Path(os.path.realpath(entry.path)), root)):
                skipped.append(f"{entry.path}: links to a folder that is read elsewhere or contains it; not followed")
            elif identity not in entered:  # else it is `exclude`
                entered.add(identity)
                folders.append(entry.name)
        yield folder, folders, files
        waiting += [os.path.join(folder, name) for name in reversed(folders)]  # noqa: PTH118


def is_shown(name: str) -> bool:
    """Return whether a file or folder is neither hidden nor what macOS adds to archives."""
    return not name.startswith(".") and name != "__MACOSX"


def _has_own_place(target: Path, root: Path) -> bool:
    """Return whether a link's target is read without the link, or contains the whole tree."""
    inside = target.is_relative_to(root) and all(map(is_shown, target.relative_to(root).parts))
    return inside or root.is_relative_to(target)
