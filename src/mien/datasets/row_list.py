"""Row lists: some images of a corpus in a CSV, to leave them out of a training or to draw them less often.

`mien analyse` writes them and the recipe's `data.exclude` and `data.weights` read them. Each row names the corpus by its
fingerprint, which covers all pixels, labels and official splits. So a row number means the same image however the corpus is
split later, also in a list that was sorted, shortened or joined from several.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mien.atomic import atomic_path
from mien.datasets.corpus import Corpus
from mien.errors import DataError, reason
from mien.text import escape_formula

DIGITS = 16
"""Digits of the fingerprint in each row; two corpora share them with a probability of 1 in 10^19."""


def corpus_id(corpus: Corpus) -> str:
    """Return the name and the first digits of the fingerprint of a corpus, such as `fer2013:d83fc4a0a726846d`."""
    return f"{corpus.name}:{corpus.fingerprint[:DIGITS]}"


def write_row_list(
    path: Path,
    corpus: Corpus,
    rows: NDArray[np.int64],
    weights: NDArray[np.floating],
    more: Sequence[tuple[str, Sequence[object]]] = (),
) -> None:
    """Write a row list with the columns `row`, `weight`, `corpus`, those of `more`, and `file` if the corpus has files.

    Args:
        path: The CSV.
        corpus: The corpus.
        rows: Row numbers in it, (R,), in the order of the list.
        weights: A weight of each, (R,), at least 0.
        more: Names and values (R,) of columns for people to read.

    Raises:
        OutputError: The file cannot be written.
    """
    more = [*more, *([("file", [corpus.files[row] for row in rows])] if corpus.files else [])]
    with atomic_path(path) as tmp_path, tmp_path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["row", "weight", "corpus", *(name for name, _ in more)])
        for i, (row, weight) in enumerate(zip(rows, weights, strict=True)):
            words = [escape_formula(str(values[i])) for _, values in more]
            writer.writerow([int(row), f"{weight:.5f}", corpus_id(corpus), *words])


def read_row_list(path: str | os.PathLike[str], corpus: Corpus, weighted: bool = False) -> dict[int, float]:
    """Return the weight of each row in a list; 0 if weights are not wanted.

    Args:
        path: A CSV with the columns `row` and `corpus`, and `weight` if weights are wanted. Others do not matter.
        corpus: The corpus, split in any way.
        weighted: Read the weights.

    Raises:
        DataError: The file is missing or damaged or of another corpus, or has a row twice or one that the corpus does not have.
    """
    needed = ("row", "corpus", *(("weight",) if weighted else ()))
    found = dict[int, float]()
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if missing := [name for name in needed if name not in (reader.fieldnames or ())]:
                raise DataError(
                    f"{path}: has no column {', '.join(missing)}; give a list such as the suspects.csv of mien analyse"
                )
            for line in reader:
                where = f"{path}, line {reader.line_num}"
                if line["corpus"] != corpus_id(corpus):
                    raise DataError(
                        f"{where}: is a row of {line['corpus'] or 'no corpus'}, but this is {corpus_id(corpus)}; give the list "
                        "of this copy of the corpus, read with the same options"
                    )
                text, weight = line["row"], float(line["weight"]) if weighted else 0.0
                if not (text.isascii() and text.isdigit() and int(text) < len(corpus.target)):
                    raise DataError(f"{where}: has the row {text!r}; the corpus has the rows 0 to {len(corpus.target) - 1}")
                if not (math.isfinite(weight) and weight >= 0):
                    raise DataError(f"{where}: has the weight {weight:g}; give a number of at least 0")
                if int(text) in found:
                    raise DataError(f"{where}: has row {text} again; name each row once")
                found[int(text)] = weight
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({reason(error)}); mien analyse writes such a list") from None
    except (ValueError, TypeError, AttributeError, csv.Error) as error:
        raise DataError(
            f"{path}: is not a list of rows, or is damaged ({' '.join(str(error).split())}); write it again"
        ) from None
    if not found:
        raise DataError(f"{path}: names no row; leave it out of the recipe")
    return found
