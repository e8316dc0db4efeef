import contextlib
import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mien.datasets import tables
from mien.datasets.tables import read_pixel_table
from mien.errors import DataError

CLASSES = ("cross", "glad", "blank")
USAGE = {"Training": 0, "Test": 1}
HEADER = "emotion,pixels,Usage\n"


def read(path: Path, content: str | bytes, side: int = 2) -> tables.PixelTable:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_pixel_table(path, CLASSES, USAGE, side=side)


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("emotion,pixels,Usage", "1,0 10 200 255,Test"),
        ("emotion, Usage, pixels", "1,Test,0 10 200 255"),  # icml_face_data.csv
        ('"emotion","pixels","Usage"', '"1","0 10 200 255","Test"'),
        ("\ufeffemotion,pixels,Usage", "1,0 10 200 255,Test"),
        ("id,emotion,pixels,Usage", "x.png,1,0 10 200 255,Test"),
        ("emotion,pixels,Usage", " 01 , 0  10\t200 0255 , Test "),
        ("emotion,pixels,Usage\r", "1,0 10 200 255,Test\r"),
        ("emotion,pixels,Usage", "\n   \n1,0 10 200 255,Test\n"),
    ],
)
def test_a_table_reads_the_same_however_it_is_written(tmp_path: Path, header: str, row: str):
    for end in ("\n", ""):
        table = read(tmp_path / "t.csv", f"{header}\n{row}{end}")
        assert table.images.tolist() == [[[0, 10], [200, 255]]]
        assert table.images.dtype == np.uint8
        assert (table.target.tolist(), table.split.tolist()) == ([1], [1])


def test_rows_are_read_in_order_and_an_irregular_one_among_them(tmp_path: Path):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (70, 24, 24))
    rows = [f"{i % 3},{' '.join(map(str, image.ravel()))},{'Test' if i % 5 else 'Training'}" for i, image in enumerate(images)]
    rows[30] = rows[30].replace(" ", "  ")
    table = read(tmp_path / "t.csv", HEADER + "\n".join(rows), side=24)
    assert (table.images == images).all()
    assert table.target.tolist() == [i % 3 for i in range(70)]
    assert table.split.tolist() == [int(i % 5 > 0) for i in range(70)]
    rows[65] = rows[65].replace(" ", " x", 1)
    with pytest.raises(DataError, match=r"t\.csv: row 67 has a pixel that is not a whole number"):
        read(tmp_path / "t.csv", HEADER + "\n".join(rows), side=24)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("3,1 2 3 4,Test", "row 3 has the class '3', not a number from 0 to 2"),
        ("²,1 2 3 4,Test", "row 3 has the class '²'"),
        ("9" * 5000 + ",1 2 3 4,Test", "row 3 has the class '9999.*'"),
        ("1,1 2 3,Test", r"row 3 has 3 pixels, not 4 \(2x2\)"),
        ("1,1 2 3 4 5,Test", "row 3 has 5 pixels"),
        (f"1,{'1 ' * 9999},Test", "row 3 has 9,999 pixels"),
        ("1,,Test", "row 3 has 0 pixels"),
        ("1,1 2 3 256,Test", r"row 3 has a pixel outside 0-255 \(1 to 256\)"),
        ("1,1 2 3 300,Test", "row 3 has a pixel outside 0-255"),
        ("1,1 2 3 -4,Test", "row 3 has a pixel outside 0-255"),
        ("1,1 2 3 1_0,Test", "row 3 has a pixel that is not a whole number"),
        ("1,1 2 3 +4,Test", "row 3 has a pixel that is not a whole number"),
        ("1,1 2 3 4e1,Test", "row 3 has a pixel that is not a whole number"),
        ("1,1 2 3 4,test", "row 3 has the Usage 'test', not one of Training, Test"),
        ("1;1 2 3 4;Test", "row 3 has 1 fields separated by commas, not 3"),
        ("1,1,2,3,4,Test", "row 3 has 6 fields"),
    ],
)
def test_a_bad_row_is_named_and_explained(tmp_path: Path, row: str, message: str):
    with pytest.raises(DataError, match=rf"t\.csv: {message}"):
        read(tmp_path / "t.csv", f"{HEADER}0,1 2 3 4,Training\n{row}\n0,1 2 3 4,Training\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("emotion;pixels;Usage\n1;1 2 3 4;Test\n", "separated by semicolons; save it again with commas"),
        ("emotion\tpixels\tUsage\n", "separated by tabs"),
        ((HEADER + "1,1 2 3 4,Test\n").encode("utf-16"), "is UTF-16 or binary, not UTF-8"),
        ((HEADER + "1,1 2 3 4,Test\n").encode("utf-16-le"), "is UTF-16 or binary"),
        ("emotion,pixels\n1,1 2 3 4\n", "its first line is not 'emotion,pixels,Usage'"),
        ("emotion,emotion,pixels,Usage\n", "its first line is not"),
        ("1,1 2 3 4,Test\n", "its first line is not"),
        ("", "its first line is not"),
        (HEADER, "contains no rows after its header"),
        (HEADER + "\n\n", "contains no rows after its header"),
    ],
)
def test_a_table_of_another_form_is_explained(tmp_path: Path, content: str | bytes, message: str):
    with pytest.raises(DataError, match=rf"t\.csv: .*{message}"):
        read(tmp_path / "t.csv", content)


def test_a_gzip_bomb_without_line_ends_is_refused_in_little_memory(tmp_path: Path):
    path = tmp_path / "t.csv.gz"
    with gzip.open(path, "wb", 1) as file:
        file.write(HEADER.encode())
        for _ in range(100):
            file.write(b"1" * 1_000_000)
    tracemalloc.start()
    with pytest.raises(DataError, match="row 2 is longer than a megabyte"):
        read_pixel_table(path, CLASSES, USAGE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


def test_a_table_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    row = "1,1 2 3 4,Test\n"
    monkeypatch.setattr(tables, "MAX_ROWS", 100)
    assert len(read(tmp_path / "t.csv", HEADER + 100 * row).target) == 100
    with pytest.raises(DataError, match="has more than 100 rows"):
        read(tmp_path / "t.csv", HEADER + 101 * row)
    monkeypatch.setattr(tables, "MAX_TABLE", 1000)
    with pytest.raises(DataError, match="unpacks to more than"):
        read(tmp_path / "t.csv", HEADER + 100 * row)


def test_a_gzipped_table_cut_short_is_named(tmp_path: Path):
    whole = gzip.compress((HEADER + "1,1 2 3 4,Test\n" * 5000).encode(), 0)
    for data in (whole[: len(whole) // 2], whole[:-4] + b"abcd", b"no gzip"):
        (tmp_path / "t.csv.gz").write_bytes(data)
        with pytest.raises(DataError, match=r"t\.csv\.gz: cannot be read"):
            read_pixel_table(tmp_path / "t.csv.gz", CLASSES, USAGE, side=2)


FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(st.binary(max_size=200) | st.text('0123 ,;\n\r"Testraing', max_size=80).map(str.encode), st.booleans())
def test_any_bytes_are_read_or_refused(tmp_path: Path, data: bytes, headed: bool):
    with contextlib.suppress(DataError):
        table = read(tmp_path / "t.csv", (HEADER.encode() if headed else b"") + data)
        assert len(table.images) == len(table.target) == len(table.split) > 0


@FUZZ
@given(
    st.lists(
        st.tuples(
            st.integers(-1, 3),
            st.lists(st.integers(-2, 260), min_size=3, max_size=5),
            st.sampled_from(["Training", "Test", "x"]),
        ),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from([" ", "  ", "\t"]),
)
def test_a_table_is_read_exactly_when_every_row_is_valid(tmp_path: Path, rows: list[tuple[int, list[int], str]], gap: str):
    lines = [f"{label},{gap.join(map(str, values))},{usage}\n" for label, values, usage in rows]
    bad = [not (0 <= c < 3 and len(v) == 4 and all(0 <= p < 256 for p in v) and u in USAGE) for c, v, u in rows]
    if any(bad):
        with pytest.raises(DataError, match=rf"row {bad.index(True) + 2} has"):
            read(tmp_path / "t.csv", HEADER + "".join(lines))
    else:
        table = read(tmp_path / "t.csv", HEADER + "".join(lines))
        assert table.images.reshape(-1, 4).tolist() == [values for _, values, _ in rows]
        assert table.target.tolist() == [label for label, _, _ in rows]
