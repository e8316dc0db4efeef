"""Row lists: what is written is read, and a list of another corpus or a damaged one is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mien.datasets import Corpus, Rows, read_row_list, write_row_list
from mien.errors import DataError

CORPUS = Corpus(
    "folder",
    np.zeros((4, 8, 8), np.uint8),
    Rows(("happy", "sad"), np.array([0, 1, 0, 1]), np.zeros(4, np.int8), ("all",)),
    fingerprint="0123456789abcdef" + "0" * 48,
    files=("a.png", "=b.png", "c.png", "d.png"),
)


def test_a_list_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    write_row_list(path, CORPUS, np.array([3, 1]), np.array([0.25, 2.0]), [("label", ["sad", "sad"])])
    assert path.read_text().splitlines() == [
        "row,weight,corpus,label,file",
        "3,0.25000,folder:0123456789abcdef,sad,d.png",
        "1,2.00000,folder:0123456789abcdef,sad,./=b.png",
    ]
    assert read_row_list(path, CORPUS, weighted=True) == {3: 0.25, 1: 2.0}
    path.write_text("\ufeffcorpus,row\nfolder:0123456789abcdef,2\n", encoding="utf-8")  # of a person, saved by a spreadsheet
    assert read_row_list(path, CORPUS) == {2: 0.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("row,weight\n1,0.5\n", "has no column corpus"),
        ("row,corpus\n1,C\n", "has no column weight"),
        ("row,weight,corpus\n1,0.5,folder:ffffffffffffffff\n", r"line 2: is a row of folder:f+, but this is folder:0123"),
        ("row,weight,corpus\n4,0.5,C\n", r"line 2: has the row '4'; the corpus has the rows 0 to 3"),
        ("row,weight,corpus\n-1,0.5,C\n", "has the row '-1'"),
        ("row,weight,corpus\n1.0,0.5,C\n", "has the row '1.0'"),
        ("row,weight,corpus\n1,0.5,C\n1,0.6,C\n", "line 3: has row 1 again"),
        ("row,weight,corpus\n1,-0.5,C\n", "has the weight -0.5"),
        ("row,weight,corpus\n1,inf,C\n", "has the weight inf"),
        ("row,weight,corpus\n1,much,C\n", "is not a list of rows, or is damaged"),
        ("row,weight,corpus\n1\n", "is not a list of rows, or is damaged|is a row of no corpus"),
        ("row,weight,corpus\n", "names no row"),
        ("", "has no column row, corpus, weight"),
        ("row,weight,corpus\n1,0.5,\0\n", "is not a list|is a row of"),
        ("row,weight,corpus\n" + 5000 * "1" + ",0.5,C\n", "is not a list of rows"),
    ],
)
def test_a_wrong_list_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text.replace("C\n", "folder:0123456789abcdef\n"))
    with pytest.raises(DataError, match=message):
        read_row_list(path, CORPUS, weighted=True)


def test_a_missing_or_binary_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_row_list(tmp_path / "none.csv", CORPUS)
    (tmp_path / "rows.csv").write_bytes(b"row,corpus\n\xff\xfe\n")
    with pytest.raises(DataError, match="is damaged"):
        read_row_list(tmp_path / "rows.csv", CORPUS)


def test_the_list_fits_the_corpus_however_it_is_split(tmp_path: Path) -> None:
    write_row_list(tmp_path / "rows.csv", CORPUS, np.array([3]), np.array([0.0]))
    other = replace(CORPUS, rows=replace(CORPUS.rows, split=np.array([1, 0, 1, -1], np.int8), splits=("train", "test")))
    assert read_row_list(tmp_path / "rows.csv", other) == {3: 0.0}
    with pytest.raises(DataError, match="give the list of this copy"):
        read_row_list(tmp_path / "rows.csv", replace(CORPUS, name="manifest"))
