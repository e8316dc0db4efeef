"""`mien predict --events` and `mien observe`, with the small network."""

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def observe(command: Command) -> Command:
    """Run `mien observe`."""
    return partial(command, "observe")


def test_a_table_gives_the_events_of_the_run_that_wrote_it(mien: Command, observe: Command, folder: Path) -> None:
    now, later, table = folder / "now.csv", folder / "later.csv", folder / "t.jsonl"
    options = ["--min-seconds", 0.1, "--merge-gap", 0.1]
    assert mien(folder / "in", "--no-detect", "--out", table, "--events", now, *options)[0] == 0
    status, out, err = observe(table, "--events", later, *options)
    assert (status, err) == (0, "")
    assert f"wrote {later}" in out
    assert now.read_text() == later.read_text()
    with now.open() as file:
        assert {Path(line["source"]).name for line in csv.DictReader(file)} == {"a.mp4", "b.mkv"}
    assert observe(table, "--events", folder / "tiers", "--events-format", "textgrid")[0] == 0
    assert sorted(path.name for path in (folder / "tiers").glob("[!.]*")) == ["a.TextGrid", "b.TextGrid"]


def test_events_do_not_replace_the_table(observe: Command, mien: Command, folder: Path) -> None:
    table = folder / "a.csv"
    assert mien(folder / "in/a.mp4", "--no-detect", "--out", table)[0] == 0
    before = table.read_bytes()
    status, _, err = observe(table, "--events", folder)
    assert (status, "another file of this run" in err) == (2, True), err
    assert table.read_bytes() == before


def test_a_table_of_pictures_has_no_events(mien: Command, observe: Command, photo: Path, tmp_path: Path) -> None:
    assert mien(photo, "--no-detect", "--out", tmp_path / "t.csv")[0] == 0
    status, _, err = observe(tmp_path / "t.csv", "--events", tmp_path / "e.eaf")
    assert (status, err) == (2, "error: the table has no row of a video, so there are no events\n")


def test_windows_of_a_table(mien: Command, observe: Command, folder: Path) -> None:
    table, windows, out = folder / "t.csv", folder / "windows.csv", folder / "out.csv"
    assert mien(folder / "in/b.mkv", "--no-detect", "--out", table, "--fps", 10)[0] == 0
    windows.write_text("name,start,end,condition\nrest,0,2,none\nfilm,2,6.5,funny\n")
    status, _, err = observe(table, "--windows", windows, "--out", out, "--baseline", "rest")
    assert (status, err) == (0, "")
    with out.open() as file:
        lines = list(csv.DictReader(file))
    assert [(line["window"], line["condition"], line["frames"]) for line in lines] == [
        ("rest", "none", "20"),
        ("film", "funny", "45"),
    ]
    assert {line["detection_rate"] for line in lines} == {"1.0"}
    assert float(lines[0]["change_happy"]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "name what to write"),
        (["--windows", "w.csv"], "give both"),
        (["--events", "e.csv", "--baseline", "rest"], "a baseline needs --windows"),
        (["--windows", "w.csv", "--out", "o.csv", "--baseline", "a", "--baseline-seconds", "0", "1"], "choose one of them"),
        (["--events", "t.csv"], "is read by this run"),
        (["--windows", "w.csv", "--out", "w.csv"], "is read by this run"),
        (["--windows", "w.csv", "--out", "o.json"], "end its name in .csv"),
    ],
)
def test_wrong_options(
    observe: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text("source,frame,time,track,label,happy,neutral\n")
    Path("w.csv").write_text("name,start,end\na,0,1\n")
    status, _, err = observe("t.csv", *options)
    assert status == 2
    assert message in err
    assert Path("w.csv").read_text() == "name,start,end\na,0,1\n"
