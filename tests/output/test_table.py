import csv
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mien.errors import InputError, LabelError, MissingExtraError, OutputError
from mien.output import table
from mien.output.table import (
    FORMATS,
    SCHEMA,
    Row,
    check_table,
    columns,
    escape_formula,
    escape_invalid_utf8,
    json_line,
    row,
    rows,
    to_dataframe,
    write_table,
)
from mien.structures import Face, Prediction, Quality

ROOT = Path(__file__).parents[2]
CLASSES = ("happy", "sad")
MARKS = [[2, 3], [8, 3.25], [5, 6], [3, 9], [7.125, 9]]
SEEN = Quality(29.5, 21.128, 7, 120.25, None, -3.5, 0)
FOUND = [
    Prediction(CLASSES, [0.75, 0.25], Face([1, 2, 30.5, 40], 0.99, MARKS), "a.mp4", 0, 0.0, 1, quality=SEEN),
    Prediction(CLASSES, [0.5, 0.5], Face([3, 4, 10, 20], 0.9), "a.mp4", 0, 0.0, 2, True),
    Prediction(CLASSES, [0.1, 0.9], Face([3, 4, 10, 20], 0.9), "a.mp4", 2, 1 / 15, 2),
    Prediction(CLASSES, [0.125, 0.875], None, "b, b.jpg", quality=Quality(48, 30, 12, 99), set=("sad", "happy")),
]


def read_csv(path: Path) -> list[Row]:
    """Read by Python's own reader, each column as its type in SCHEMA."""
    kinds = {"integer": int, "number": float, "boolean": "true".__eq__, "text": str}
    kind = {column.name: kinds[column.kind] for column in SCHEMA}
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return [
            {name: None if cell == "" else kind.get(name, float)(cell) for name, cell in line.items()}
            for line in csv.DictReader(file)
        ]


def read_jsonl(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def read_parquet(path: Path) -> list[Row]:
    return pq.read_table(path).to_pylist()


READERS = {".csv": read_csv, ".jsonl": read_jsonl, ".parquet": read_parquet}


def test_a_row_has_the_stated_columns_in_order() -> None:
    first, second, third, fourth = rows(FOUND)
    assert list(first) == columns(CLASSES)
    marks = [2.0, 3.0, 8.0, 3.25, 5.0, 6.0, 3.0, 9.0, 7.12, 9.0]
    head = ["a.mp4", 0, 0.0, 1, 1, 1.0, 2.0, 30.5, 40.0, *marks]
    assert list(first.values()) == [
        *head,
        0.99,
        29.5,
        21.13,
        7.0,
        120.25,
        None,
        -3.5,
        0.0,
        "happy",
        0.75,
        False,
        None,
        0.75,
        0.25,
    ]
    assert (fourth["set"], fourth["size"], fourth["cut"]) == ("sad; happy", 48, None)
    assert [entry["face"] for entry in (first, second, third, fourth)] == [1, 2, 1, 1]
    assert [third[key] for key in ("time", "track", "nose_x", "score")] == [0.066667, 2, None, 0.9]
    empty = [key for key, value in fourth.items() if value is None]
    assert empty == ["frame", "time", "track", *columns(())[5:20], "yaw", "roll", "cut"]


def test_the_documentation_describes_every_column() -> None:
    lines = [f"| `{name}` | {kind} | {unit} | {meaning} |" for name, kind, unit, meaning in SCHEMA]
    assert "| --- | --- | --- | --- |\n" + "\n".join(lines) + "\n\n" in (ROOT / "docs/tables.md").read_text()
    assert columns(()) == [column.name for column in SCHEMA]


@pytest.mark.parametrize("ending", FORMATS)
def test_every_format_reads_back(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"t{ending}"
    assert write_table(path, FOUND, CLASSES) == 4
    assert READERS[ending](path) == list(rows(FOUND))
    assert list(tmp_path.iterdir()) == [path]


NUMBERS = st.floats(-1e5, 1e5, width=32)
NAMES = st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=8)


@st.composite
def faces(draw: st.DrawFn) -> Face:
    left, top = draw(NUMBERS), draw(NUMBERS)
    box = [left, top, left + draw(st.integers(1, 999)), top + draw(st.integers(1, 999))]
    marks = draw(st.none() | st.lists(st.tuples(NUMBERS, NUMBERS), min_size=5, max_size=5))
    return Face(box, draw(st.floats(0, 1) | st.just(float("nan"))), marks)


@st.composite
def predictions(draw: st.DrawFn) -> Prediction:
    chance = draw(st.floats(0, 1, width=32))
    source = draw(
        st.none() | NAMES | st.binary(min_size=1, max_size=6).map(lambda name: name.decode("utf-8", "surrogateescape"))
    )
    frame, track = draw(st.none() | st.integers(0, 2**40)), draw(st.none() | st.integers(1, 2**40))
    time = draw(st.none() | st.floats(0, 1e6))
    place = draw(st.none() | faces())
    return Prediction(CLASSES, [chance, 1 - chance], place, source, frame, time, track, draw(st.booleans()))


@pytest.mark.parametrize("ending", FORMATS)
@settings(max_examples=20, deadline=None)
@given(found=st.lists(predictions(), max_size=4))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, ending: str, found: list[Prediction]) -> None:
    path = tmp_path_factory.getbasetemp() / f"round{ending}"
    write_table(path, found, CLASSES)
    shown = escape_formula if ending == ".csv" else escape_invalid_utf8
    expected = [entry | {"source": entry["source"] and shown(entry["source"])} for entry in rows(found)]
    assert READERS[ending](path) == expected


@settings(max_examples=20, deadline=None)
@given(found=st.lists(predictions(), max_size=4))
def test_the_dataframe_holds_the_same(found: list[Prediction]) -> None:
    frame = to_dataframe(found, CLASSES)
    assert list(frame.columns) == columns(CLASSES)
    read = [{name: None if pd.isna(value) else value for name, value in line.items()} for line in frame.to_dict("records")]
    assert read == [entry | {"source": escape_invalid_utf8(entry["source"])} for entry in rows(found)]


@pytest.mark.parametrize("count", [0, 4])
def test_types_do_not_depend_on_the_rows(tmp_path: Path, count: int) -> None:
    found = to_dataframe(FOUND[:count], CLASSES)
    kinds = {"text": "string", "integer": "Int64", "number": "float64", "boolean": "bool"}
    assert {name: str(kind) for name, kind in found.dtypes.items()} == {
        **{column.name: kinds[column.kind] for column in SCHEMA},
        **dict.fromkeys(CLASSES, "float64"),
    }
    write_table(tmp_path / "t.parquet", FOUND[:count], CLASSES)
    schema = pq.read_schema(tmp_path / "t.parquet")
    assert [str(schema.field(name).type) for name in ("source", "track", "left", "unsure", "sad")] == [
        "string",
        "int64",
        "double",
        "bool",
        "double",
    ]
    again = pd.read_parquet(tmp_path / "t.parquet", dtype_backend="numpy_nullable")
    pd.testing.assert_frame_equal(again.astype(found.dtypes), found)


def test_a_table_without_rows_has_its_columns(tmp_path: Path) -> None:
    for ending in FORMATS:
        assert write_table(tmp_path / f"t{ending}", [], CLASSES) == 0
    assert (tmp_path / "t.csv").read_text() == ",".join(columns(CLASSES)) + "\n"
    assert (tmp_path / "t.jsonl").read_text() == ""
    assert pq.read_schema(tmp_path / "t.parquet").names == columns(CLASSES)
    assert list(to_dataframe([]).columns) == columns(())


def test_parquet_describes_its_columns(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", FOUND, CLASSES, {"model": "sä_csp_ca", "smoothing": "0.3 s"})
    schema = pq.read_schema(tmp_path / "t.parquet")
    assert {schema.metadata[key.encode()].decode() for key in ("model", "smoothing")} == {"sä_csp_ca", "0.3 s"}
    assert schema.field("left").metadata[b"unit"] == b"px"
    assert schema.field("sad").metadata[b"meaning"] == b"probability of sad"
    assert [schema.field(name).nullable for name in ("source", "left", "face", "sad")] == [True, True, False, False]


def test_pandas_reads_the_csv_without_options(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", FOUND, CLASSES)
    raw = (tmp_path / "t.csv").read_bytes()
    assert raw.startswith(b"source,")  # no byte order mark
    assert b"\r" not in raw
    read = pd.read_csv(tmp_path / "t.csv")
    assert read["source"].tolist() == ["a.mp4"] * 3 + ["b, b.jpg"]
    assert read["unsure"].dtype == bool
    np.testing.assert_allclose(read["sad"], [0.25, 0.5, 0.9, 0.875])


def test_a_file_name_that_is_not_utf8(tmp_path: Path) -> None:
    found = [Prediction(CLASSES, [0.5, 0.5], None, os.fsdecode(b"caf\xe9.jpg"))]
    for ending in FORMATS:
        write_table(tmp_path / f"t{ending}", found, CLASSES)
    assert b"\ncaf\xe9.jpg,,,,1," in (tmp_path / "t.csv").read_bytes()
    assert read_jsonl(tmp_path / "t.jsonl")[0]["source"] == r"caf\xe9.jpg"
    assert read_parquet(tmp_path / "t.parquet")[0]["source"] == r"caf\xe9.jpg"
    assert to_dataframe(found)["source"][0] == r"caf\xe9.jpg"


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t"])
def test_a_source_is_never_a_formula(tmp_path: Path, sign: str) -> None:
    write_table(tmp_path / "t.csv", [Prediction(CLASSES, [0.5, 0.5], None, f"{sign}cmd|' /C calc'!A0")], CLASSES)
    assert read_csv(tmp_path / "t.csv")[0]["source"] == f"./{sign}cmd|' /C calc'!A0"
    assert escape_formula("-") == "./-"
    assert escape_formula("a=b") == "a=b"


@pytest.mark.parametrize("name", ["score", "left_eye_x", "happy", "", "two\nlines", "\ud800", "=1+1"])
def test_a_class_that_cannot_be_a_column_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(LabelError, match="rename it in the model"):
        write_table(tmp_path / "t.csv", [], (*CLASSES, name))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["t.xlsx", "t.csv.gz", "t"])
def test_an_unknown_ending_names_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"\.csv, \.parquet or \.jsonl"):
        write_table(tmp_path / name, FOUND, CLASSES)


def test_the_ending_may_be_upper_case(tmp_path: Path) -> None:
    write_table(tmp_path / "T.CSV", FOUND, CLASSES)
    assert len(read_csv(tmp_path / "T.CSV")) == 4


def test_without_pyarrow_it_says_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    check_table("t.csv", CLASSES)
    with pytest.raises(MissingExtraError, match=r"pip install 'mien\[tables\]'"):
        check_table("t.parquet", CLASSES)


def test_without_pandas_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mien\[tables\]'"):
        to_dataframe(FOUND)


@pytest.mark.parametrize("ending", FORMATS)
def test_a_failure_leaves_the_older_table(tmp_path: Path, ending: str) -> None:
    def broken() -> Iterator[Prediction]:
        yield from FOUND
        raise KeyboardInterrupt

    path = tmp_path / f"t{ending}"
    path.write_text("older")
    with pytest.raises(KeyboardInterrupt):
        write_table(path, broken(), CLASSES)
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", FORMATS)
def test_a_path_under_a_file(tmp_path: Path, ending: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="part of the path is a file"):
        write_table(tmp_path / f"file/t{ending}", FOUND, CLASSES)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("ending", FORMATS)
def test_a_full_disk(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"t{ending}").symlink_to("/dev/full")
    with pytest.raises(OutputError, match="free some space"):
        write_table(tmp_path / f"t{ending}", FOUND, CLASSES)


def test_a_row_of_other_columns_is_refused(tmp_path: Path) -> None:
    short: dict[str, Any] = {"source": "a.jpg"}
    for wrong in (short, row(replace(FOUND[0], classes=("happy", "fear")))):
        with pytest.raises(ValueError, match="must have the columns"):
            write_table(tmp_path / "t.csv", [wrong], CLASSES)


def test_nan_and_infinity_become_empty(tmp_path: Path) -> None:
    entry = row(FOUND[0]) | {"time": float("nan"), "score": float("inf")}
    line = json_line(entry)
    assert "NaN" not in line
    assert json.loads(line)["time"] is None
    write_table(tmp_path / "t.csv", [entry], CLASSES)
    assert read_csv(tmp_path / "t.csv")[0]["score"] is None


class Counted(dict):
    """A row that knows how many of its kind are alive."""

    alive = 0

    def __init__(self, values: Row) -> None:
        super().__init__(values)
        Counted.alive += 1

    def __del__(self) -> None:
        Counted.alive -= 1


@pytest.mark.parametrize("ending", FORMATS)
def test_rows_are_written_as_they_come(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_CHUNK", 8)
    monkeypatch.setattr(table, "_ROW_GROUP", 16)
    entry = row(FOUND[0])

    def passing() -> Iterator[Row]:
        for number in range(400):
            yield Counted(entry | {"frame": number})
            assert Counted.alive <= 2
            if number == 399:
                (tmp_file,) = tmp_path.iterdir()
                assert tmp_file.stat().st_size > 4_000

    path = tmp_path / f"t{ending}"
    assert write_table(path, passing(), CLASSES) == 400
    assert [line["frame"] for line in READERS[ending](path)] == list(range(400))


def test_lists_of_predictions_are_one_table_and_number_faces_from_1_in_each() -> None:
    face = Prediction(CLASSES, [0.7, 0.3], None, "picture 1")
    numbers = to_dataframe([[face, face], [], [face], face])["face"].tolist()
    assert numbers == [1, 2, 1, 1]


@pytest.mark.parametrize("item", [None, "happy", 3])
def test_only_predictions_and_rows_are_accepted(tmp_path: Path, item: object) -> None:
    with pytest.raises(InputError, match="made of predictions"):
        write_table(tmp_path / "t.csv", [item], CLASSES)  # type: ignore[list-item]
    assert not (tmp_path / "t.csv").exists()


@pytest.mark.parametrize("ending", FORMATS)
def test_a_tables_own_name_need_not_be_utf8(tmp_path: Path, ending: str) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9" + ending.encode())
    assert write_table(path, [Prediction(CLASSES, [0.5, 0.5], None, "a.jpg")], CLASSES) == 1
    assert [os.fsencode(file.name) for file in tmp_path.iterdir()] == [b"caf\xe9" + ending.encode()]


def test_a_json_line_does_not_act_on_a_terminal() -> None:
    name = "a\x1b[2J\x9b2J\x7f\u202e\u2028.jpg"
    (entry,) = rows([Prediction(CLASSES, [0.5, 0.5], None, name)])
    assert json_line(entry).isprintable()
    assert json.loads(json_line(entry))["source"] == name
