"""FER2013 from the files people have: Kaggle's tables of pixels, or folders of pictures; plain, zipped or gzipped.

Source: Goodfellow et al. 2013, "Challenges in Representation Learning". 48x48 grey, seven classes; 28,709 Training,
3,589 PublicTest and 3,589 PrivateTest rows. Standard protocol: fit on train, select on public_test, report private_test once.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from mien.datasets.corpus import CORPORA, Listing, Rows
from mien.datasets.expected_labels import soften
from mien.datasets.reading.pixels import PixelTable, read_pixel_table
from mien.datasets.reading.source import is_archive
from mien.datasets.reading.split_names import SPLIT_NAMES, USAGE, split_name
from mien.datasets.reading.tree import file_names, table_in
from mien.datasets.reading.vote_file import find_votes, read_votes, require_same_rows
from mien.errors import DataError
from mien.image import ENDINGS
from mien.labels import canonical, label_set

SPLITS = ("train", "public_test", "private_test")
PARTS = {"train": 0, "val": 1, "public_test": 1, "test": 2, "private_test": 2}
"""The split a picture of a folder belongs to, by mien's name of the folder, unless the picture's name says it."""

TABLES = ("fer2013.csv", "icml_face_data.csv")
"""Names of the table, the best first: Kaggle's zip of the challenge holds the second beside parts of it."""

PRIVATE_TEST = 3589
"""Images of PrivateTest."""


@CORPORA.register("fer2013")
def read_fer2013(source: Path, votes: str | None = None) -> Listing:
    """Return what a copy of FER2013 holds: splits train, public_test and private_test.

    Args:
        source: `fer2013.csv` or `icml_face_data.csv` (columns emotion, pixels and Usage in any order), or a folder that holds
            one; or a folder with `train/<class>/*`, `val/<class>/*` and `test/<class>/*` (any of them, in the usual
            spellings), there or further down. Any of them may be zipped, the table also gzipped or in Kaggle's
            `fer2013.tar.gz`. Pictures whose names begin with Training_, PublicTest_ or PrivateTest_ go to that split; other
            pictures of `val` go to public_test, on which one selects, those of `test` to private_test. Pictures that lie
            elsewhere are left out and noted.
        votes: FER+'s votes on the rows of the table, `fer2013new.csv`: the file's name in the source or beside it, or its path.
            `Rows.votes` are then labels softened by them (see `mien.datasets.expected_labels`); `Rows.target` stays as it is.

    Raises:
        DataError: A row or file is bad, a folder of classes is no split's, or the votes do not belong to this table; names it
            and says why.
    """
    table = find_table(source)
    if table is None:
        if votes is not None:
            raise DataError(f"{source}: holds pictures, and votes belong to rows of the table; pass fer2013.csv, or no votes")
        return _read_folders(source)
    read = read_fer2013_table(table)
    shares = None if votes is None else _soften(source, read, votes)
    return Listing(Rows(label_set("fer2013"), read.target, read.split, SPLITS, votes=shares), read.images)


def _soften(source: Path, table: PixelTable, votes: str) -> NDArray[np.float32]:
    """Return a table's labels softened by the votes on its rows, (N, 7)."""
    found = read_votes(find_votes(find_table(source) or source, votes))
    require_same_rows(source, table.split, found)
    train = table.split == USAGE["Training"]
    if len(np.unique(table.target[train])) < 2:
        raise DataError(f"{source}: its Training rows are of fewer than two classes, so votes say nothing; leave votes out")
    return soften(found.counts, table.target, train, len(label_set("fer2013")))


def find_table(source: Path) -> Path | None:
    """Return the file that holds FER2013's table: the source, or a file in it; None if the source holds pictures.

    Raises:
        DataError: The folder holds tables in several folders.
    """
    if source.is_dir():
        return table_in(source, [name + end for end in ("", ".gz", ".zip") for name in TABLES] + ["fer2013.tar.gz"])
    if not is_archive(source):
        return source
    paths = [PurePosixPath(name) for name in file_names(source, [])[1]]
    pictured = any(_is_face(path) for path in paths) and not any(path.name in TABLES for path in paths)
    return None if pictured else source


def read_fer2013_table(source: Path) -> PixelTable:
    """Return the rows of FER2013's table; see `mien.datasets.reading.pixels.read_pixel_table`."""
    return read_pixel_table(source, label_set("fer2013"), USAGE, prefer=TABLES)


def _is_face(path: PurePosixPath) -> bool:
    """Return whether a path ends like `train/happy/x.png`."""
    return len(path.parts) >= 3 and split_name(path.parts[-3]) is not None and path.suffix.lower() in ENDINGS


def _part(path: PurePosixPath) -> int:
    """Return the split of the folder that `train/happy/x.png` lies in."""
    return PARTS[SPLIT_NAMES[path.parts[-3].lower()]]


def _read_folders(source: Path) -> Listing:
    skipped: list[str] = []
    tree, names = file_names(source, skipped)
    pictured = [path for path in map(PurePosixPath, names) if path.suffix.lower() in ENDINGS]
    paths = [path for path in pictured if _is_face(path)]
    _require_one_place(source, {str(path.parents[2]) for path in paths})
    others = [path for path in pictured if not _is_face(path)]
    _require_no_other_split(source, paths[0].parents[2], others)
    skipped += [f"{path}: lies in no folder such as train/happy" for path in others]
    paths.sort(key=lambda path: (_part(path), path.parts))
    classes = {name: i for i, name in enumerate(label_set("fer2013"))}
    target, split = [], []
    for path in paths:
        if (expression := canonical(path.parts[-2])) not in classes:
            raise DataError(f"{source}: {path.parent} is not a class of fer2013 ({', '.join(classes)})")
        target.append(classes[expression])
        split.append(USAGE.get(path.name.split("_")[0], _part(path)))
    if (count := split.count(USAGE["PrivateTest"])) > PRIVATE_TEST:
        raise DataError(
            f"{source}: holds {count:,} pictures of private_test, FER2013 has {PRIVATE_TEST:,}: those of PublicTest, by which "
            "epochs are selected, seem to lie among them; use a copy that tells them apart, or read it as the corpus folder"
        )
    rows = Rows(label_set("fer2013"), np.array(target, np.int64), np.array(split, np.int8), SPLITS)
    return Listing(rows, [tree / str(path) for path in paths], skipped=tuple(skipped))


def _require_no_other_split(source: Path, place: PurePosixPath, others: list[PurePosixPath]) -> None:
    """Refuse a folder of classes beside `train` whose name is no split's: its faces would be missing unseen."""
    for path in others:
        if len(path.parts) >= 3 and path.parents[2] == place and canonical(path.parts[-2]) in label_set("fer2013"):
            raise DataError(
                f"{source}: holds {path.parents[1]} with folders of classes, and its name is no split's; "
                f"call it {', '.join(PARTS)}, or move it away"
            )


def _require_one_place(source: Path, places: set[str]) -> None:
    """Refuse a source that holds no `train` or `test` folders, or several copies, which may be the same faces twice."""
    if not places:
        raise DataError(
            f"{source}: holds neither {' nor '.join(TABLES)} nor pictures under train/<class> or test/<class>; "
            "is it a FER2013 folder?"
        )
    if len(places) > 1:
        found = ", ".join(sorted(places)[:5])
        raise DataError(f"{source}: holds train or test folders in several places ({found}); pass one of them")
