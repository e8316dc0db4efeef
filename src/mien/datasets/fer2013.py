"""FER2013 from the files people have: Kaggle's tables of pixels, or folders of pictures; plain, zipped or gzipped.

Source: Goodfellow et al. 2013, "Challenges in Representation Learning". 48x48 grey, seven classes; 28,709 Training,
3,589 PublicTest and 3,589 PrivateTest rows. Standard protocol: fit on train, select on public_test, report private_test once.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from mien.datasets.corpus import CORPORA, Listing, Rows
from mien.datasets.files import SPLIT_NAMES, file_names, find_table, is_archive, is_picture, split_name
from mien.datasets.tables import USAGE, PixelTable, read_pixel_table
from mien.datasets.votes import find_votes, read_votes, require_same_rows, soften
from mien.errors import DataError
from mien.labels import canonical, label_set

SPLITS = ("train", "public_test", "private_test")

FOLDER_SPLITS = {"train": 0, "val": 1, "public_test": 1, "test": 2, "private_test": 2}
"""Split number of a picture by mien's name of its split folder, unless the picture's own name tells it."""

TABLES = ("fer2013.csv", "icml_face_data.csv")
"""Names of the table, the preferred one first: Kaggle's zip of the challenge has the second one, and parts of it."""

COUNTS = {
    "train": (3995, 436, 4097, 7215, 4830, 3171, 4965),
    "public_test": (467, 56, 496, 895, 653, 415, 607),
    "private_test": (491, 55, 528, 879, 594, 416, 626),
}
"""Images of each class in each official split."""

PRIVATE_TEST = sum(COUNTS["private_test"])


@CORPORA.register("fer2013", soft_label_options=("votes",), counts=COUNTS)
def read_fer2013(source: Path, votes: str | None = None) -> Listing:
    """Return the content of a copy of FER2013: splits train, public_test and private_test.

    Args:
        source: `fer2013.csv` or `icml_face_data.csv` (columns emotion, pixels and Usage in any order), or a folder with one of
            them; or a folder with `train/<class>/*`, `val/<class>/*` and `test/<class>/*` (any of them, in the usual
            spellings), at any depth. All may be zipped, the table also gzipped or in Kaggle's `fer2013.tar.gz`. Pictures
            whose names begin with Training_, PublicTest_ or PrivateTest_ go to that split. Others of `val` go to public_test,
            on which one selects, and those of `test` to private_test. Pictures elsewhere are left out and listed.
        votes: FER+'s votes on the rows of the table, `fer2013new.csv`: the file's name in the source or next to it, or its
            path. `Rows.votes` are then labels softened by them (see `mien.datasets.votes.soften`); `Rows.target` does not
            change.

    Raises:
        DataError: A row or file is wrong, a folder of classes is in no split, or the votes do not belong to this table.
    """
    file = find_fer2013_table(source)
    if file is None:
        if votes is not None:
            raise DataError(f"{source}: contains pictures, but votes need the rows of the table; pass fer2013.csv, or no votes")
        return _read_folders(source)
    table, soft_labels = read_fer2013_table(file), None
    if votes is not None:
        found = read_votes(find_votes(file, votes))
        require_same_rows(source, table.split, found)
        train = table.split == USAGE["Training"]
        if len(np.unique(table.target[train])) < 2:
            raise DataError(
                f"{source}: its Training rows have fewer than two classes, too few to learn from votes; leave votes out"
            )
        soft_labels = soften(found.counts, table.target, train, len(label_set("fer2013")))
    return Listing(Rows(label_set("fer2013"), table.target, table.split, SPLITS, votes=soft_labels), table.images)


def find_fer2013_table(source: Path) -> Path | None:
    """Return the file with FER2013's table: the source, or a file in it; None if the source contains pictures.

    Raises:
        DataError: Several folders in the source have a table.
    """
    if source.is_dir():
        return find_table(source, [name + end for end in ("", ".gz", ".zip") for name in TABLES] + ["fer2013.tar.gz"])
    if not is_archive(source):
        return source
    paths = [PurePosixPath(name) for name in file_names(source, [])[1]]
    return source if any(path.name in TABLES for path in paths) or not any(map(_is_face, paths)) else None


def read_fer2013_table(file: Path) -> PixelTable:
    """Return the rows of FER2013's table; see `mien.datasets.tables.read_pixel_table`."""
    return read_pixel_table(file, label_set("fer2013"), prefer=TABLES)


def _is_face(path: PurePosixPath) -> bool:
    """Return whether a path ends like `train/happy/x.png`."""
    return len(path.parts) >= 3 and split_name(path.parts[-3]) is not None and is_picture(path.name)


def _folder_split(path: PurePosixPath) -> int:
    """Return the split number that the folders of `train/happy/x.png` tell."""
    return FOLDER_SPLITS[SPLIT_NAMES[path.parts[-3].lower()]]


def _read_folders(source: Path) -> Listing:
    skipped: list[str] = []
    tree, names = file_names(source, skipped)
    pictures = [PurePosixPath(name) for name in names if is_picture(name)]
    paths = [path for path in pictures if _is_face(path)]
    others = [path for path in pictures if not _is_face(path)]
    roots = {str(path.parents[2]) for path in paths}
    if not roots:
        raise DataError(
            f"{source}: contains neither {' nor '.join(TABLES)} nor pictures under train/<class> or test/<class>; "
            "is it a FER2013 folder?"
        )
    if len(roots) > 1:  # perhaps the same faces twice
        raise DataError(
            f"{source}: has train or test folders in several places ({', '.join(sorted(roots)[:5])}); pass one of them"
        )
    classes = label_set("fer2013")
    for path in others:  # faces in a split folder of an unknown name must not go missing unnoticed
        if len(path.parts) >= 3 and str(path.parents[2]) in roots and canonical(path.parts[-2]) in classes:
            raise DataError(
                f"{source}: {path.parents[1]} contains folders of classes, but is not named like a split; "
                f"rename it to {', '.join(FOLDER_SPLITS)}, or move it away"
            )
    skipped += [f"{path}: is not in a folder such as train/happy" for path in others]
    paths.sort(key=lambda path: (_folder_split(path), path.parts))
    target, split = [], []
    for path in paths:
        if (expression := canonical(path.parts[-2])) not in classes:
            raise DataError(f"{source}: {path.parent} is not a class of fer2013 ({', '.join(classes)})")
        target.append(classes.index(expression))
        split.append(USAGE.get(path.name.split("_")[0], _folder_split(path)))
    if (count := split.count(USAGE["PrivateTest"])) > PRIVATE_TEST:
        raise DataError(
            f"{source}: has {count:,} pictures in private_test, but FER2013 has {PRIVATE_TEST:,}; those of PublicTest, which "
            "select the epoch, seem to be among them. Use a copy that separates them, or read it as the corpus folder"
        )
    rows = Rows(classes, np.array(target, np.int64), np.array(split, np.int8), SPLITS)
    return Listing(rows, [tree / str(path) for path in paths], skipped=tuple(skipped))
