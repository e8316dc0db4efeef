import contextlib
import csv
import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mien.datasets import Corpus, load_corpus
from mien.datasets.corpus import Listing, Reader
from mien.datasets.manifest import read_manifest
from mien.datasets.protocols.splits import leave_one_subject_out
from mien.errors import DataError, MienError
from mien.groups import read_groups
from mien.labels import label_set, nfc

SMALL = {"size": 6, "colour": False}


def draw(root: Path, count: int = 5) -> Path:
    for i in range(count):
        Image.fromarray(np.full((6, 6), 10 * i, np.uint8)).save(root / f"{i}.png")
    return root


def write(root: Path, text: str | bytes, name: str = "faces.csv") -> Path:
    path = root / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def load(path: Path, **options: object) -> Corpus:
    return load_corpus("manifest", path, options={**SMALL, **options})


def test_a_table_is_read_row_for_row(tmp_path: Path):
    path = write(
        draw(tmp_path),
        "path,label,split,subject,sequence,note\n0.png,Happiness,test,s1,a,x\n./1.png,sad,Training,s2,b,\n\n2.png,happy,valid,s1,c,y\n",
    )
    corpus = load(path)
    assert corpus.images[:, 0, 0].tolist() == [0, 10, 20]
    assert corpus.classes == ("happy", "sad")
    assert corpus.target.tolist() == [0, 1, 0]
    assert corpus.splits == ("train", "val", "test")
    assert corpus.rows.split.tolist() == [2, 0, 1]
    assert corpus.rows.subjects == ("s1", "s2", "s1")
    assert corpus.rows.sequences == ("a", "b", "c")
    assert corpus.files == ("0.png", "1.png", "2.png")


def test_two_spellings_of_an_accent_are_one_name(tmp_path: Path):
    first, second = (
        "0.png,d\u00e9go\u00fbt,Ren\u00e9e,\u00e9,set\u00e9",
        "1.png,de\u0301gou\u0302t,Rene\u0301e,e\u0301,sete\u0301",
    )
    path = write(draw(tmp_path), f"path,label,subject,sequence,split\n{first}\n{second}\n")
    corpus = load(path)
    assert corpus.classes == ("d\u00e9go\u00fbt",)
    assert corpus.rows.subjects == ("Ren\u00e9e",) * 2
    assert corpus.rows.sequences == ("\u00e9",) * 2
    assert corpus.splits == ("set\u00e9",)
    alone = load_corpus("manifest", path, options=SMALL)
    assert leave_one_subject_out(replace(alone, rows=replace(alone.rows, subjects=("Ren\u00e9e", "x"))), "Rene\u0301e").splits


def test_optional_columns_may_be_absent(tmp_path: Path):
    corpus = load(write(draw(tmp_path), "label,path\nsad,0.png\n"))
    assert corpus.splits == ("all",)
    assert corpus.rows.subjects == corpus.rows.sequences == ()


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_delimiter_mark_and_line_ends_do_not_matter(tmp_path: Path, delimiter: str, mark: str, end: str):
    rows = [["Path", " label ", "split"], ["0.png", "sad", "train"], ['a "b"' + delimiter + ".png", "happy", "my, own; split"]]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=end).writerows(rows)
    draw(tmp_path)
    (tmp_path / "1.png").rename(tmp_path / rows[2][0])
    corpus = load(write(tmp_path, mark + text.getvalue()))
    assert corpus.images[:, 0, 0].tolist() == [0, 10]
    assert corpus.splits == ("train", "my, own; split")


def test_a_label_set_gives_the_order(tmp_path: Path):
    corpus = load(write(draw(tmp_path), "path,label\n0.png,Fearful\n"), label_set="fer2013")
    assert corpus.classes == label_set("fer2013")
    assert corpus.target.tolist() == [2]


def test_pictures_lie_where_the_table_says(tmp_path: Path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "pictures").mkdir()
    draw(tmp_path / "pictures")
    path = write(tmp_path / "tables", f"path,label\n../pictures/0.png,sad\n{tmp_path}/pictures/1.png,sad\n")
    corpus = load(path)
    assert corpus.images[:, 0, 0].tolist() == [0, 10]
    assert corpus.files == (f"{tmp_path}/pictures/0.png", f"{tmp_path}/pictures/1.png")


def parquet(where: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), where)
    return where


def test_parquet_reads_like_csv(tmp_path: Path):
    draw(tmp_path)
    table = load(write(tmp_path, "path,label,split,subject\n0.png,sad,train,7\n1.png,happy,test,8\n"))
    labels = pa.array(["sad", "happy"]).dictionary_encode()
    columns = {"path": ["0.png", "1.png"], "extra": [[1], [2]], "label": labels, "split": ["train", "test"], "subject": [7, 8]}
    other = load(parquet(tmp_path / "faces.parquet", **columns))
    assert other.fingerprint == table.fingerprint
    assert other.rows.subjects == table.rows.subjects == ("7", "8")
    assert (other.classes, other.splits, other.files) == (table.classes, table.splits, table.files)


def test_a_bad_parquet_file_is_named(tmp_path: Path):
    draw(tmp_path)
    for name, columns, message in (
        ("a", {"path": ["0.png"]}, "has no column 'label'"),
        ("b", {"path": ["0.png", None], "label": ["sad", "sad"]}, "row 2 has an empty path"),
        ("c", {"path": ["0.png"], "label": [1.5]}, "row 1 contains float, not text"),
        ("d", {"path": ["0.png", "./0.png"], "label": ["sad", "sad"]}, r"row 2 names \./0\.png again, after row 1"),
        ("e", {"path": pa.array([], pa.string()), "label": pa.array([], pa.string())}, "contains no rows"),
    ):
        with pytest.raises(DataError, match=f"{name}.parquet: {message}"):
            load(parquet(tmp_path / f"{name}.parquet", **columns))
    whole = parquet(tmp_path / "whole.parquet", path=["0.png"], label=["sad"]).read_bytes()
    with pytest.raises(DataError, match=r"cut\.parquet: cannot be read as Parquet"):
        load(write(tmp_path, whole[:-20], "cut.parquet"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "contains no rows"),
        ("\n\n", "contains no rows"),
        ("path,label\n", "contains no rows"),
        ("file,label\n0.png,sad\n", r"has no column 'path'.* Known: file, label"),
        ("path,labels\n0.png,sad\n", r"has no column 'label'; did you mean 'labels'\?"),
        ("path,label,splits\n0.png,sad,train\n", "has a column 'splits'; rename it to 'split'"),
        ("path,label,path\n0.png,sad,1.png\n", "has the column 'path' more than once"),
        ("path|label\n0.png|sad\n", "has no column 'path'"),
        ("path,label\n0.png,sad\n1.png\n", "row 3 has 1 fields, not 2"),
        ("path,label\n0.png,sad\n1.png,sad,x\n", "row 3 has 3 fields, not 2"),
        ("path,label\n0.png,sad\n1.png, \n", "row 3 has an empty label"),
        ("path,label\n,sad\n", "row 2 has an empty path"),
        ("path,label,split\n0.png,sad,\n", "row 2 has an empty split"),
        ("path,label\n0.png,sad\n\n./x/../0.png,sad\n", r"row 4 names \./x/\.\./0\.png again, after row 2"),
        (
            "path,label\n0.png,sad\n1.png,hapy\n",
            r"row 3 has the label 'hapy', which rafdb does not have; did you mean 'happy'\?",
        ),
        ('path,label\n0.png,sad\n"1.png,sad\n2.png,sad\n', "cannot be read from row 3 on"),
        (b"path,label\n0.png,sad\ncaf\xe9.png,sad\n", r"row 3 is not in UTF-8 \(byte 0xe9\), perhaps in Windows-1252"),
        ("path,label\n0.png,sad\n".encode("utf-16"), "is UTF-16"),
        ("path,label\n0.png,sad\n1\0.png,sad\n", "row 3 has a path with a NUL"),
        (b"path,label\n" + b"x" * 2_000_000, "row 2 is longer than a megabyte"),
        ("path,label\n" + '"' + "x" * 200_000 + '",sad\n', "field larger than field limit"),
        ("path,label,split\n" + "".join(f"{i}.png,sad,{i}\n" for i in range(101)), "more than 100 different words"),
    ],
)
def test_a_bad_table_is_named(tmp_path: Path, text: str | bytes, message: str):
    with pytest.raises(DataError, match=rf"faces\.csv: {message}|faces\.csv: .*{message}"):
        load(write(draw(tmp_path), text), label_set="rafdb")
    assert not (tmp_path / "cache").exists()


def test_a_folder_is_no_table(tmp_path: Path):
    with pytest.raises(DataError, match="is a folder; pass the CSV or Parquet file"):
        load(tmp_path)


def test_a_missing_or_broken_picture_is_skipped_and_listed(tmp_path: Path):
    draw(tmp_path)
    (tmp_path / "text.jpg").write_text("no picture")
    text = "path,label,subject\n0.png,sad,a\ngone.png,sad,b\ntext.jpg,happy,c\n2.png,happy,d\n.,sad,e\n"
    corpus = load(write(tmp_path, text))
    assert corpus.images[:, 0, 0].tolist() == [0, 20]
    assert corpus.rows.subjects == ("a", "d")
    assert [line.split(f"{tmp_path}/")[-1].split(";")[0] for line in corpus.skipped[:1]] == ["gone.png: no such file"]
    assert "text.jpg: is not a picture" in corpus.skipped[1]
    assert "is a folder" in corpus.skipped[2]
    with pytest.raises(DataError, match=r"none of its 1 pictures can be used; the first: .*gone\.png"):
        load(write(tmp_path, "path,label\ngone.png,sad\n", "none.csv"))


def test_a_changed_added_or_removed_picture_is_seen_though_the_table_stays(tmp_path: Path):
    path = write(draw(tmp_path), "path,label\n0.png,sad\n1.png,sad\nlater.png,sad\n")
    assert load(path).images[:, 0, 0].tolist() == [0, 10]
    Image.fromarray(np.full((6, 6), 99, np.uint8)).save(tmp_path / "later.png")
    assert load(path).images[:, 0, 0].tolist() == [0, 10, 99]
    (tmp_path / "3.png").replace(tmp_path / "0.png")
    assert load(path).images[:, 0, 0].tolist() == [30, 10, 99]
    (tmp_path / "1.png").unlink()
    corpus = load(path)
    assert corpus.images[:, 0, 0].tolist() == [30, 99]
    assert len(corpus.skipped) == 1


def test_ten_thousand_rows_of_parquet_and_more_are_read(tmp_path: Path):
    names = [f"{i}.png" for i in range(25_000)]
    listing = read_manifest(parquet(tmp_path / "many.parquet", path=names, label=["sad", "happy"] * 12_500))
    assert len(listing.rows.target) == 25_000
    assert listing.images[24_999] == tmp_path / "24999.png"
    assert listing.rows.target[:3].tolist() == [1, 0, 1]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"path,label\n", b"path;label;split\n0.png;sad;train\n", b"\xef\xbb\xbfpath\tlabel\n"]),
)
def test_any_bytes_are_read_or_refused(tmp_path: Path, data: bytes, header: bytes):
    path = write(tmp_path, header + data, "fuzz.csv")
    with contextlib.suppress(MienError):
        read_manifest(path)


TEXT = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\0\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"), max_size=12
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=6), st.sampled_from([",", ";", "\t"]), st.booleans())
def test_a_table_is_read_exactly_when_it_is_valid(
    tmp_path: Path, rows: list[tuple[str, str, str]], delimiter: str, marked: bool
):
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows([("path", "label", "subject"), *rows])
    path = write(tmp_path, text.getvalue().encode("utf-8-sig" if marked else "utf-8"), "table.csv")
    files = [os.path.normpath(tmp_path / name.strip()) for name, _, _ in rows]
    valid = all(name.strip() and label.strip() for name, label, _ in rows) and len(set(files)) == len(files)
    try:
        listing = read_manifest(path)
    except DataError:
        assert not valid
    else:
        assert valid
        assert [str(file) for file in listing.images] == files
        assert listing.rows.subjects == tuple(nfc(subject.strip()) for _, _, subject in rows)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_parquet_file_is_read_or_refused(tmp_path: Path, data: st.DataObject):
    whole = bytearray(parquet(tmp_path / "whole.parquet", path=["0.png", "1.png"], label=["sad", "happy"]).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(4, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(MienError):
        read_manifest(write(tmp_path, bytes(whole), "damaged.parquet"))


def test_a_table_that_changes_while_it_is_read_is_refused_and_leaves_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its cache would be named after the new table and hold the old one's labels, for good."""
    path = write(draw(tmp_path), "path,label\n0.png,happy\n1.png,sad\n")

    read = Reader.__call__

    def read_and_change(*arguments: Any, **options: Any) -> Listing:
        listing = read(*arguments, **options)
        write(tmp_path, "path,label\n0.png,sad\n1.png,happy\n")
        return listing

    with monkeypatch.context() as patch:
        patch.setattr(Reader, "__call__", read_and_change)
        with pytest.raises(DataError, match=r"faces\.csv: changed while it was read; run it again"):
            load(path)
    assert not list((tmp_path / "cache").glob("*"))
    corpus = load(path)
    assert [corpus.classes[i] for i in corpus.target] == ["sad", "happy"]


def test_splits_are_spelt_as_in_folders(tmp_path: Path):
    path = write(
        draw(tmp_path), "path,label,split\n0.png,sad,PrivateTest\n1.png,sad,eval\n2.png,sad,publictest\n3.png,sad,Training\n"
    )
    corpus = load(path)
    assert corpus.splits == ("train", "val", "public_test", "private_test")
    assert corpus.rows.split.tolist() == [3, 1, 2, 0]


def test_any_other_column_is_read_when_it_is_asked_for(tmp_path: Path):
    """Of CSV and Parquet, for the pictures that could be used."""
    draw(tmp_path)
    columns = {
        "path": ["0.png", "gone.png", "2.png"],
        "label": ["sad"] * 3,
        "age": [31.5, 2, None],
        "site": ["a", "b", "caf\u00e9"],
    }
    lines = zip(*({"age": ["31.5", "2", ""]}.get(name) or values for name, values in columns.items()), strict=True)
    text = "\n".join(",".join(line) for line in [tuple(columns), *lines])
    for path in (write(tmp_path, text), parquet(tmp_path / "faces.parquet", **columns)):
        corpus = load(path)
        assert corpus.files == ("0.png", "2.png")
        groups = read_groups(corpus, path, ["age", "SITE"])
        assert groups.columns == {"age": ["31.5", ""], "SITE": ["a", "caf\u00e9"]}
        with pytest.raises(DataError, match="has no column 'sites'; did you mean 'site'"):
            read_groups(corpus, path, ["sites"])
