import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from mien.errors import DataError, InputError, LabelError, OutputError
from mien.output.observe import Baseline, Window, WindowTable, read_windows, write_window_table
from mien.output.read_table import read_rows
from mien.output.table import Row, empty_row, row, write_table
from mien.structures import Prediction

CLASSES = ("happy", "neutral", "sad")


def face(time: float, probs: list[float], track: int = 1, source: str = "a.mp4") -> Row:
    return row(Prediction(CLASSES, probs, None, source, round(time * 10), time, track))


HAPPY, NEUTRAL, SAD = [0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.1, 0.2, 0.7]
ROWS = [
    *(face(i / 10, NEUTRAL) for i in range(5)),
    *(face(i / 10, HAPPY) for i in range(5, 8)),
    face(0.8, [0.9, 0.05, 0.05]),
    empty_row(CLASSES, "a.mp4", 9, 0.9),
    face(1.0, SAD),
]


def measured(rows: list[Row], windows: list[Window], baseline: Baseline | None = None) -> list[dict[str, Any]]:
    table = WindowTable(CLASSES, windows, baseline)
    table.extend(rows)
    return table.rows()


def test_one_window_by_hand() -> None:
    (line,) = measured(ROWS, [Window("smile", 0.3, 1.0)])
    assert (line["source"], line["person"], line["window"]) == ("a.mp4", 1, "smile")
    assert (line["frames"], line["frames_read"], line["detection_rate"]) == (6, 7, round(6 / 7, 6))
    assert (line["share_neutral"], line["share_happy"], line["share_sad"]) == (round(2 / 6, 6), round(4 / 6, 6), 0)
    assert line["mean_happy"] == pytest.approx((2 * 0.2 + 3 * 0.8 + 0.9) / 6, abs=1e-6)
    assert line["peak_happy"] == 0.9
    assert line["peak_latency_happy"] == pytest.approx(0.5)
    assert (line["latency_happy"], line["latency_neutral"], line["latency_sad"]) == (pytest.approx(0.2), 0, None)


def test_a_person_who_is_not_seen_has_a_row_with_empty_cells() -> None:
    rows = [face(i / 10, HAPPY, track) for i in range(10) for track in (1, 2) if track == 1 or i < 3]
    lines = measured(rows, [Window("late", 0.5, 0.9)])
    assert [(line["person"], line["frames"], line["mean_happy"]) for line in lines] == [(1, 4, 0.8), (2, 0, None)]
    assert [line["detection_rate"] for line in lines] == [1, 0]


def test_a_video_without_a_face_has_a_row_too() -> None:
    (line,) = measured(
        [empty_row(CLASSES, "dark.mp4", i, i / 10) for i in range(9)], [Window("film", 0, 0.5)], Baseline(None, (0, 0.3))
    )
    assert (line["source"], line["person"], line["frames"], line["frames_read"]) == ("dark.mp4", None, 0, 5)
    assert (line["detection_rate"], line["mean_happy"], line["change_happy"]) == (0, None, None)
    with pytest.raises(DataError, match="no row of a video"):
        measured([row(Prediction(CLASSES, HAPPY, source="photo.jpg"))], [Window("film", 0, 0.5)])


def test_the_detection_rate_is_empty_if_frames_are_missing() -> None:
    holes = [entry for entry in ROWS if entry["label"] is not None]
    table = WindowTable(CLASSES, [Window("all", 0, 1)])
    table.extend(holes)
    (line,) = table.rows()
    assert (line["frames"], line["frames_read"], line["detection_rate"]) == (9, None, None)
    assert "--all-frames" in table.notes[0]
    assert measured(holes[:8], [Window("all", 0, 0.7)])[0]["detection_rate"] == 1, "their numbers show that none is missing"


@pytest.mark.parametrize(
    ("baseline", "span", "mean"),
    [
        (Baseline(window="rest"), (0, 0.4), NEUTRAL),
        (Baseline(seconds=(0.5, 0.7)), (0.5, 0.7), HAPPY),
    ],
)
def test_change_from_a_baseline(baseline: Baseline, span: tuple[float, float], mean: list[float]) -> None:
    lines = measured(ROWS, [Window("rest", 0, 0.4), Window("end", 1, 1.1)], baseline)
    assert [line["window"] for line in lines] == ["rest", "end"]
    assert (lines[1]["baseline_start"], lines[1]["baseline_end"]) == span
    for name, sad, before in zip(CLASSES, SAD, mean, strict=True):
        assert lines[1][f"change_{name}"] == pytest.approx(sad - before, abs=1e-6)


def test_the_most_neutral_stretch_is_found() -> None:
    most = [0.05, 0.9, 0.05]
    parts = [(HAPPY, 60), (NEUTRAL, 20), (most, 50), (SAD, 70)]
    probs = [each for each, count in parts for _ in range(count)]
    rows = [face(i / 10, each) for i, each in enumerate(probs)]
    (line,) = measured(rows, [Window("start", 0, 3)], Baseline())
    assert (line["baseline_start"], line["baseline_end"]) == (8.0, 13.0)
    assert line["change_neutral"] == pytest.approx(0.1 - 0.9)
    table = WindowTable(CLASSES, [Window("start", 0, 3)], Baseline())
    table.extend(rows[:40])  # shorter than a stretch
    assert table.rows()[0]["change_neutral"] is None
    assert "change_" in table.notes[0]
    apart = [*rows[:30], *(entry | {"time": entry["time"] + 2} for entry in rows[30:60])]
    assert measured(apart, [Window("start", 0, 3)], Baseline())[0]["baseline_start"] is None, "out of sight in between"


def test_a_baseline_by_a_class_that_the_model_does_not_have() -> None:
    with pytest.raises(LabelError, match="no expression neutral"):
        WindowTable(("happy", "sad"), [Window("a", 0, 1)], Baseline())


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        ([Window("w", 2, 3)], r"'w', 2 to 3 s, is outside a.mp4, whose last row is at 1 s"),
        ([Window("w", 0, 9)], "outside a.mp4"),
        ([Window("w", 0, 1, person=3)], "person 3, but a.mp4 has 1"),
        ([Window("w", 0, 1, source="b.mp4")], r"b.mp4, which is none of the table's videos \(a.mp4\)"),
    ],
)
def test_windows_that_do_not_fit_the_table(windows: list[Window], message: str) -> None:
    with pytest.raises(DataError, match=message):
        measured(ROWS, windows)


def test_a_window_names_its_video_by_path_or_file_name() -> None:
    rows = [face(i / 10, HAPPY, source=name) for name in ("x/a.mp4", "y/a.mp4", "y/b.mp4") for i in range(5)]
    windows = [Window("one", 0, 0.3, source="x/a.mp4"), Window("two", 0, 0.3, source="b.mp4")]
    assert [(line["source"], line["window"]) for line in measured(rows, windows)] == [("x/a.mp4", "one"), ("y/b.mp4", "two")]
    with pytest.raises(DataError, match=r"several videos \(x/a.mp4, y/a.mp4\)"):
        measured(rows, [Window("one", 0, 0.3, source="a.mp4")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,start\na,1", "no column end"),
        ("name;start;end\na;1;2", r"no column name \(found: name;start;end\)"),
        ("name,start,end\n", "has no window"),
        ("name,start,end\na,2,1", "line 2: the window 'a' must end after it starts, got 2 to 1 s"),
        ("name,start,end\na,-1,1", "line 2"),
        ("name,start,end\na,1,\nb,1,2", "line 2: start and end must be seconds"),
        ("name,start,end\na,0:05,1", "line 2: start and end must be seconds"),
        ("name,start,end\na,1,2\nb,1,2\na,3,4", "line 4: the window 'a' has the name of line 2"),
        ("name,start,end\n,1,2", "line 2: the window '' has no name"),
        ("name,start,end\na,1,2,3", "more cells"),
        ("name,start,end,person\na,1,2,Anna", "person a number"),
    ],
)
def test_wrong_windows(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "w.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_windows(tmp_path / "w.csv")


def test_a_name_may_be_in_several_videos_and_of_several_people(tmp_path: Path) -> None:
    text = "name,start,end,source,person,trial\na,1,2,x.mp4,,7\na,1,2,y.mp4,,8\nb,1,2,,1,9\nb,1,2,,2,9\n"
    (tmp_path / "w.csv").write_text("\ufeff" + text, encoding="utf-8")
    windows = read_windows(tmp_path / "w.csv")
    assert [(each.source, each.person, each.extra) for each in windows] == [
        ("x.mp4", None, {"trial": "7"}),
        ("y.mp4", None, {"trial": "8"}),
        (None, 1, {"trial": "9"}),
        (None, 2, {"trial": "9"}),
    ]


def test_the_table_of_windows_is_read_by_pandas_with_the_columns_of_the_windows(tmp_path: Path) -> None:
    table = WindowTable(CLASSES, [Window("smile", 0.3, 1.0, extra={"condition": "funny, film"})])
    table.extend(ROWS)
    assert write_window_table(tmp_path / "out.csv", table) == 1
    read = pd.read_csv(tmp_path / "out.csv")
    assert read["condition"].tolist() == ["funny, film"]
    assert read["latency_sad"].isna().all()
    assert [*read.columns] == table.columns
    with pytest.raises(OutputError, match="written as CSV"):
        write_window_table(tmp_path / "out.xlsx", table)
    with pytest.raises(DataError, match="a column frames, which the result has too"):
        WindowTable(CLASSES, [Window("smile", 0, 1, extra={"frames": "1"})])
    with pytest.raises(DataError, match="no window is called rest; --baseline takes one of smile"):
        WindowTable(CLASSES, [Window("smile", 0, 1)], Baseline(window="rest"))
    with pytest.raises(InputError, match="must end after it starts"):
        Baseline(seconds=(2, 1))


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl"])
def test_every_format_of_a_table_is_read_again(tmp_path: Path, ending: str) -> None:
    picture = row(Prediction(CLASSES, HAPPY, source="photo.jpg"))
    path = tmp_path / f"t{ending}"
    write_table(path, [picture, *ROWS], CLASSES, {"all_frames": "True"}, all_frames=True)
    table = read_rows(path)
    assert table.classes == CLASSES
    assert table.all_frames == (ending == ".parquet")
    names = ("source", "frame", "time", "track", "label", *CLASSES)
    assert [tuple(entry[name] for name in names) for entry in table.rows] == [
        tuple(entry[name] for name in names) for entry in (picture, *ROWS)
    ]


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl"])
def test_tables_without_the_columns(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"t{ending}"
    values = {"source": ["a"], "time": [1.0], "label": ["happy"], "happy": [1.0]}
    if ending == ".parquet":
        pa.parquet.write_table(pa.table(values), path)
    elif ending == ".csv":
        path.write_text("source,time,label,happy\na,1,happy,1\n")
    else:
        path.write_text(json.dumps({key: value[0] for key, value in values.items()}) + "\n")
    with pytest.raises(DataError, match="has no column track"):
        read_rows(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"is empty|is not a Parquet file"):
        read_rows(path)


def write(path: Path, entries: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(entries[0]))
        writer.writeheader()
        writer.writerows(entries)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time": "soon"}, "row 2: the cell time is 'soon', not a number"),
        ({"track": ""}, "row 2: a face of a video has no track"),
        ({"label": ""}, "row 2: has no label; the table is truncated"),
        ({"label": "bored"}, "row 2: its label is 'bored'"),
        ({"happy": "7"}, "columns other than those of mien are taken for expressions"),
        ({"time": "-1"}, "row 2: a.mp4 goes back from 0 s to -1 s; sort the rows"),
        ({"time": "inf"}, "not a number"),
    ],
)
def test_wrong_rows(tmp_path: Path, change: dict[str, str], message: str) -> None:
    path = write(tmp_path / "t.csv", [ROWS[0], ROWS[1] | change])
    with pytest.raises(DataError, match=message):
        list(read_rows(path).rows)


def test_columns_of_the_user_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the cell participant is 'P01', not a number; mien takes columns that are not its own"):
        list(read_rows(write(tmp_path / "t.csv", [ROWS[0] | {"participant": "P01"}])).rows)


def test_other_files_are_no_tables(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no table mien can read"):
        read_rows(tmp_path / "t.xlsx")
    with pytest.raises(DataError, match="cannot be read"):
        read_rows(tmp_path / "t.csv")
    (tmp_path / "t.jsonl").write_text('{"source": "a"}\n[1]\n')
    with pytest.raises(DataError, match="no column time"):
        read_rows(tmp_path / "t.jsonl")


def test_all_tracks_of_one_person(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", [face(0.0, HAPPY, 1), face(9.0, HAPPY, 2)])
    assert [entry["track"] for entry in read_rows(path, one_person=True).rows] == [1, 1]
    path = write(tmp_path / "t.csv", [face(0.0, HAPPY, 1), face(0.0, HAPPY, 2)])
    with pytest.raises(DataError, match="two faces at 0 s; predict with --max-faces 1"):
        list(read_rows(path, one_person=True).rows)
