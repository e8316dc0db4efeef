import csv
import json
from pathlib import Path

import pytest

from mien.errors import OutputError
from mien.runtime.table import columns, rows, write_csv, write_json
from mien.structures import Face, Prediction

CLASSES = ("happy", "sad")
FOUND = [
    Prediction(CLASSES, [0.75, 0.25], Face([1, 2, 30.5, 40], 0.99), "a.jpg"),
    Prediction(CLASSES, [0.5, 0.5], Face([3, 4, 10, 20], 0.9), "a.jpg"),
    Prediction(CLASSES, [0.125, 0.875], None, "b, b.jpg"),
]


def test_rows_have_the_stated_columns_in_order() -> None:
    first, second, third = rows(FOUND)
    assert list(first) == columns(CLASSES)
    assert list(first.values()) == ["a.jpg", 1, 1.0, 2.0, 30.5, 40.0, 0.99, "happy", 0.75, 0.75, 0.25]
    assert second["face"] == 2
    assert [third[key] for key in ("face", "left", "score", "label")] == [1, None, None, "sad"]


def test_csv_reads_back(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", FOUND, CLASSES)
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["source"] for row in table] == ["a.jpg", "a.jpg", "b, b.jpg"]
    assert table[2]["left"] == ""
    assert float(table[0]["happy"]) == 0.75


def test_no_face_leaves_the_header(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", [], CLASSES)
    assert (tmp_path / "t.csv").read_text().strip() == ",".join(columns(CLASSES))


def test_a_file_name_that_is_no_utf8_keeps_its_bytes(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", [Prediction(CLASSES, [0.5, 0.5], None, "caf\udce9.jpg")], CLASSES)
    assert b"caf\xe9.jpg,1," in (tmp_path / "t.csv").read_bytes()


def test_json_reads_back(tmp_path: Path) -> None:
    write_json(tmp_path / "t.json", FOUND)
    again = [Prediction.from_dict(values) for values in json.loads((tmp_path / "t.json").read_text())]
    assert [p.to_dict() for p in again] == [p.to_dict() for p in FOUND]


@pytest.mark.parametrize("name", ["file/t.csv", "/dev/full"])
def test_what_cannot_be_written_says_so(tmp_path: Path, name: str) -> None:
    if name == "/dev/full" and not Path(name).exists():
        pytest.skip("this system has no /dev/full")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_csv(tmp_path / name, FOUND, CLASSES)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
