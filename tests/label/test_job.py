"""A job on the files of this machine: what it reads, what it writes, how it continues, and what it refuses."""

import json
import os
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from crops import crop, read, shard, write_crops, write_parquet, write_video

from mien import Recognizer, cli
from mien.errors import CheckpointError, DataError, InputError, OutputError, UnknownNameError
from mien.label import Report, label_collection
from mien.label.engines import enter_folder
from mien.output.table import reading_rows

Label = Callable[..., Report]


def test_every_kind_of_source_gives_the_rows_of_the_recognizer(label: Label, tmp_path: Path, tiny_onnx: Path) -> None:
    folder = write_crops(tmp_path / "in", 5)
    write_video(folder / "film.mp4", 3)
    (folder / "more").mkdir()
    (folder / "more/shard.tar").write_bytes(shard(3))
    write_parquet(folder / "more/rows.parquet", {"id": [7, 8, 9], "image": [crop(0), crop(1), crop(2)]}, row_group_size=2)
    (folder / ".hidden").mkdir()
    (folder / ".hidden/a.png").write_bytes(crop(0))

    report = label([folder, folder / "*.png"])
    sources, errors = read(tmp_path / "out")
    pictures = [f"{folder}/{i:03d}.png" for i in range(5)]
    rows = [f"{folder}/more/rows.parquet::{i}" for i in range(3)]
    members = [f"{folder}/more/shard.tar::{i:03d}.png" for i in range(3)]
    assert sorted(sources) == sorted([*pictures, *[f"{folder}/film.mp4"] * 3, *rows, *members])
    assert (report.units, report.inputs, report.faces, report.errors, errors) == (6, 12, 14, 0, [])

    recognizer = Recognizer(tiny_onnx, detector=None, threads=1)
    wanted = [row for reading in recognizer.stream(pictures[:4]) for row in reading_rows(reading, recognizer.classes)]
    assert pq.ParquetFile(tmp_path / "out/faces/part-00000.parquet").read().to_pylist() == wanted
    assert pq.read_table(tmp_path / "out/faces").num_rows == 14  # the folder is a dataset, without the list of errors


def test_the_manifest_says_what_was_read_with_what(label: Label, tmp_path: Path) -> None:
    folder = write_crops(tmp_path / "in", 5)
    label([folder])
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert {"mien", "model_sha256", "detector", "smooth", "unit_size"} <= {*manifest["settings"]}
    assert [len(unit["files"]) for unit in manifest["units"]] == [4, 1]
    found = (folder / "004.png").stat()
    assert manifest["units"][1]["files"] == [[f"{folder}/004.png", found.st_size, str(found.st_mtime_ns)]]


def test_only_units_without_a_part_are_done_again(label: Label, tmp_path: Path) -> None:
    label([write_crops(tmp_path / "in", 12)])
    parts = sorted((tmp_path / "out/faces").iterdir())
    before = [part.stat().st_mtime_ns for part in parts]
    parts[1].unlink()
    (tmp_path / "out/faces/.part-00001-0123abcd.parquet").write_bytes(b"PAR1")  # as a killed worker leaves it
    (tmp_path / "in/new.png").write_bytes(crop(0))  # came after the plan
    steps = list[tuple[int, int]]()
    report = label([tmp_path / "in"], on_step=lambda done, total: steps.append((done, total)))
    assert steps == [(3, 3)]
    assert (report.resumed, report.faces) == (2, 12)
    assert sorted((tmp_path / "out/faces").iterdir()) == parts
    assert [part.stat().st_mtime_ns == time for part, time in zip(parts, before, strict=True)] == [True, False, True]


def test_bad_inputs_are_listed_and_the_others_read(
    label: Label, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny_onnx: Path
) -> None:
    folder = write_crops(tmp_path / "in", 3)
    (folder / "bad.png").write_bytes(b"no picture")
    (folder / "rows.parquet").write_bytes(b"PAR1 no table")
    write_parquet(folder / "holes.parquet", {"image": [crop(0), None]})
    (folder / "empty.tar").write_bytes(bytes(10240))
    arguments = [
        "label",
        str(folder),
        "--out",
        str(tmp_path / "out"),
        "--no-detect",
        "--workers",
        "0",
        "--model",
        str(tiny_onnx),
    ]
    monkeypatch.setattr(sys, "argv", ["mien", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    sources, errors = read(tmp_path / "out")
    assert (stop.value.code, len(sources)) == (3, 4)
    found = {line["source"].removeprefix(f"{folder}/"): line["reason"] for line in errors}
    assert {*found} == {"bad.png", "rows.parquet", "holes.parquet::1", "empty.tar"}
    assert "truncated or corrupt" in found["rows.parquet"]
    printed = capsys.readouterr()
    assert "wrote 4 faces of 4 pictures and videos" in printed.out
    assert "4 inputs could not be read completely" in printed.err


@pytest.mark.parametrize("cut", [0.5, 0.9, 1.0])
def test_a_shard_cut_short_keeps_the_members_before(label: Label, tmp_path: Path, cut: float) -> None:
    content = shard(6).rstrip(b"\0")  # 1.0: only the mark at the end is missing
    (tmp_path / "cut.tar").write_bytes(content[: int(len(content) * cut)])
    label([tmp_path / "cut.tar"])
    sources, errors = read(tmp_path / "out")
    assert sources == [f"{tmp_path}/cut.tar::{i:03d}.png" for i in range(len(sources))]
    assert len(sources) == {0.5: 3, 0.9: 5, 1.0: 6}[cut]
    (error,) = errors
    assert error["source"] == f"{tmp_path}/cut.tar"
    assert f"after {len(sources)} pictures and videos, which were read" in error["reason"]


def test_columns_of_parquet_files(label: Label, tmp_path: Path) -> None:
    write_crops(tmp_path / "in/faces", 2)
    paths = write_parquet(
        tmp_path / "in/paths.parquet", {"id": [1, 2, 3], "path": ["faces/000.png", "faces/001.png", "none.png"]}
    )
    label([paths], tmp_path / "paths", column="path")
    sources, errors = read(tmp_path / "paths")
    assert sources == [f"{tmp_path}/in/faces/000.png", f"{tmp_path}/in/faces/001.png"]
    assert [(error["source"], "no such file" in error["reason"]) for error in errors] == [(f"{tmp_path}/in/none.png", True)]

    images = [{"bytes": crop(0), "path": "x.png"}, {"bytes": None, "path": "faces/001.png"}]  # as Hugging Face stores them
    label([write_parquet(tmp_path / "in/hub.parquet", {"image": images})], tmp_path / "hub", column="image")
    assert read(tmp_path / "hub") == ([f"{tmp_path}/in/hub.parquet::0", f"{tmp_path}/in/faces/001.png"], [])


@pytest.mark.parametrize(
    ("column", "message"),
    [("picture", "has no column 'picture'; it has id"), (None, "which column has the pictures"), ("id", "'id' is int64, not")],
)
def test_a_schema_without_the_column_is_refused_before_anything_is_written(
    label: Label, tmp_path: Path, column: str | None, message: str
) -> None:
    table = write_parquet(tmp_path / "rows.parquet", {"id": [1], "a": [crop(0)], "b": [crop(1)]})
    with pytest.raises(DataError, match=message):
        label([table], column=column)
    assert not (tmp_path / "out").exists()


def test_a_file_that_changed_after_the_plan_is_an_error(label: Label, tmp_path: Path) -> None:
    label([write_crops(tmp_path / "in", 4)])
    (tmp_path / "out/faces/part-00000.parquet").unlink()
    (tmp_path / "in/002.png").write_bytes(crop(77))
    (tmp_path / "in/003.png").unlink()
    label([tmp_path / "in"])
    sources, errors = read(tmp_path / "out")
    assert len(sources) == 2
    assert ["has changed since" in errors[0]["reason"], "no such file" in errors[1]["reason"]] == [True, True]


def test_what_is_refused(label: Label, tmp_path: Path) -> None:
    folder = write_crops(tmp_path / "in", 4)
    label([folder])
    with pytest.raises(OutputError, match=r"other settings \(unit_size: 4, now 5\)"):
        label([folder], unit_size=5)
    with pytest.raises(OutputError, match="of mien label did not write"):
        label([folder], folder)
    with pytest.raises(InputError, match=r"nothing: no such file or folder"):
        label([tmp_path / "nothing"], tmp_path / "new")
    with pytest.raises(InputError, match=r"contains no picture"):
        label([folder / "*.jpg"], tmp_path / "new")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InputError, match=r"is not a picture, video, .tar or .parquet"):
        label([tmp_path / "notes.txt"], tmp_path / "new")
    with pytest.raises(InputError, match="workers"):
        label([folder], tmp_path / "new", workers=-1)
    with pytest.raises(UnknownNameError, match="spark"):
        label([folder], tmp_path / "new", engine="spark")
    assert not (tmp_path / "new").exists()
    assert len(list(folder.iterdir())) == 4


def test_two_jobs_on_one_folder(label: Label, tmp_path: Path) -> None:
    folder = write_crops(tmp_path / "in", 4)
    label([folder])
    other = sqlite3.connect(tmp_path / "out/.lock", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(OutputError, match="another mien label is writing"):
        label([folder])
    other.close()
    assert label([folder]).faces == 4


def test_the_output_of_another_job_is_no_input(label: Label, tmp_path: Path) -> None:
    folder = write_crops(tmp_path / "in", 3)
    label([folder], folder / "first")
    assert label([folder], folder / "second").faces == 3


def test_relative_paths_belong_to_a_folder(label: Label, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_crops(tmp_path / "in", 4)
    monkeypatch.chdir(tmp_path)
    label(["in"], "out")
    assert read(tmp_path / "out")[0] == [f"in/{i:03d}.png" for i in range(4)]
    monkeypatch.chdir(tmp_path / "in")
    with pytest.raises(OutputError, match="folder: "):
        label(["in"], tmp_path / "out")


def test_a_machine_without_the_folder_of_relative_paths(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone: the worker's machine cannot enter it \(No such file"):
        enter_folder(str(tmp_path / "gone"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read everything")
def test_a_folder_without_permission_is_listed(label: Label, tmp_path: Path) -> None:
    folder = write_crops(tmp_path / "in", 2)
    write_crops(folder / "closed", 1).chmod(0)
    label([folder])
    (folder / "closed").chmod(0o700)
    assert [error["source"] for error in read(tmp_path / "out")[1]] == [f"{folder}/closed"]


def test_a_model_on_the_hub_is_not_taken_for_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_OFFLINE", "1")
    with pytest.raises(CheckpointError, match=r"^hf://nobody/nothing: is not in the cache"):
        label_collection([str(tmp_path)], tmp_path / "out", "hf://nobody/nothing")
