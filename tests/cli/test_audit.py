"""`mien audit`, through the real command line."""

import csv
import json
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def audit(command: Command) -> Command:
    """Run `mien audit`."""
    return partial(command, "audit")


def refused(result: tuple[int, str, str], *words: str) -> None:
    status, out, err = result
    assert status == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert all(word in err for word in words), err


@pytest.fixture
def leaking_csv(fer2013_csv: Path) -> Path:
    """The small fer2013.csv, its first training row once more in each test split."""
    rows = fer2013_csv.read_text().splitlines()
    copies = [rows[1].replace("Training", usage) for usage in ("PublicTest", "PrivateTest")]
    fer2013_csv.write_text("\n".join([*rows, *copies]) + "\n")
    return fer2013_csv


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of six pictures, one of them damaged."""
    random = np.random.default_rng(0)
    for index, name in enumerate(("angry", "happy", "sad") * 2):
        (tmp_path / "faces" / "train" / name).mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(random.integers(0, 256, (48, 48)).astype(np.uint8))
        picture.save(tmp_path / "faces" / "train" / name / f"{index}.png")
    (tmp_path / "faces" / "train" / "sad" / "5.png").write_bytes(b"no picture")
    return tmp_path / "faces"


def test_the_summary_says_what_was_found(audit, leaking_csv: Path) -> None:
    status, out, err = audit(leaking_csv, "--corpus", "fer2013")
    assert (status, err) == (0, "")
    assert "fer2013: 162 images, 7 classes, 48 x 48 px, grey, splits: official" in out
    (sums,) = (line for line in out.splitlines() if line.startswith("│ together"))
    assert sums.replace("│", " ").split() == ["together", "96", "33", "33", "162", "100.0", "%"]
    assert "private_test: of 33 images, 1 (3.0%) have a twin in train: 1 (3.0%) byte-identical" in out
    assert "byte-identical: 1 group of 3 images, 0 with different labels" in out


def test_the_files_are_written(audit, tmp_path: Path, leaking_csv: Path) -> None:
    report, picture = tmp_path / "reports" / "fer.json", tmp_path / "twins.png"
    status, out, _ = audit(leaking_csv, "--corpus", "fer2013", "--out", report, "--picture", picture)
    assert status == 0
    assert out.count("wrote ") == 3
    assert json.loads(report.read_text())["twins"]["exact"]["across"]["public_test"]["train"] == 1
    with (tmp_path / "reports" / "fer-twins.csv").open(newline="") as file:
        assert [row["twin"] for row in csv.DictReader(file)] == ["row 160", "row 161"]
    with Image.open(picture) as drawn:
        assert drawn.size[0] > 1000


def test_a_broken_picture_is_named_and_the_status_says_so(audit, folder: Path, tmp_path: Path) -> None:
    status, out, err = audit(folder, "--corpus", "fer2013", "--out", tmp_path / "report.json")
    assert status == 3
    assert "5.png" in err
    assert err.endswith("1 of 6 entries could not be read\n")
    assert "5 picture files, 5 grey; smallest 48 x 48 px" in out
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["data"]["images"] == 5
    assert "5.png" in report["skipped"][0]


def test_many_broken_pictures_are_not_all_listed(audit, folder: Path) -> None:
    for number in range(30):
        shutil.copy(folder / "train" / "sad" / "5.png", folder / "train" / "sad" / f"bad{number}.png")
    status, _, err = audit(folder, "--corpus", "fer2013")
    assert status == 3
    assert err.count("skipped: ") == 11
    assert "21 more" in err


def test_options_reach_the_reader(audit, folder: Path) -> None:
    status, out, _ = audit(folder, "--corpus", "fer2013", "--option", "size=32", "--option", "colour=true")
    assert status == 3
    assert "32 x 32 px, RGB" in out


def test_mistakes_are_one_line_and_status_2(audit, tmp_path: Path, fer2013_csv: Path) -> None:
    named = (fer2013_csv, "--corpus", "fer2013")
    refused(audit(fer2013_csv, "--corpus", "fer2031"), "did you mean 'fer2013'")
    refused(audit(tmp_path / "none.csv", "--corpus", "fer2013"), "no such file")
    refused(audit(*named, "--out", tmp_path / "report.txt"), "--out report.json")
    refused(audit(*named, "--option", "size"), "write it as key=value")
    refused(audit(*named, "--option", "size=["), "the value cannot be read")
    refused(audit(*named, "--option", "shape=3"), "no option 'shape'")


def test_a_picture_of_no_format_is_refused_before_the_work(audit, tmp_path: Path, fer2013_csv: Path) -> None:
    refused(audit(fer2013_csv, "--corpus", "fer2013", "--picture", tmp_path / "twins.txt"), "is not named like a picture")
    assert not (tmp_path / "cache").exists()


def test_without_imagehash_it_names_the_extra(monkeypatch: pytest.MonkeyPatch, audit, fer2013_csv: Path) -> None:
    monkeypatch.setitem(sys.modules, "imagehash", None)
    refused(audit(fer2013_csv, "--corpus", "fer2013"), "pip install 'mien[train]'")


def test_a_name_that_is_no_text_is_reported(audit, folder: Path, tmp_path: Path) -> None:
    (folder / "train" / "sad" / "5.png").unlink()
    try:
        shutil.copy(
            folder / "train" / "happy" / "1.png", folder / "train" / "sad" / "caf\udce9.png"
        )  # Latin-1 on a disk of UTF-8
    except (OSError, UnicodeError):
        pytest.skip("this file system takes UTF-8 only")
    files = ("--out", tmp_path / "report.json", "--picture", tmp_path / "twins.png")
    status, out, _ = audit(folder, "--corpus", "fer2013", *files)
    assert (status, out.count("wrote ")) == (0, 3)
    with (tmp_path / "report-twins.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["twin"] == "train/sad/caf\\udce9.png"


def test_a_name_that_is_a_formula_is_not_one_in_the_table(audit, folder: Path, tmp_path: Path) -> None:
    (folder / "train" / "sad" / "5.png").unlink()
    (folder / "train" / "=cmd()").mkdir()
    shutil.copy(folder / "train" / "happy" / "1.png", folder / "train" / "=cmd()" / "1.png")
    assert audit(folder, "--corpus", "folder", "--out", tmp_path / "report.json")[0] == 0
    with (tmp_path / "report-twins.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert "./=cmd()" in (row["label"], row["twin_label"])


def test_a_corpus_is_not_overwritten(audit, folder: Path, fer2013_csv: Path, tmp_path: Path) -> None:
    picture = folder / "train" / "happy" / "1.png"
    before = picture.read_bytes()
    refused(audit(folder, "--corpus", "folder", "--picture", picture), "1.png: may belong to the folder that this run reads")
    assert picture.read_bytes() == before
    twins = Path(shutil.copy(fer2013_csv, tmp_path / "fer-twins.csv"))
    arguments = ("--corpus", "fer2013", "--out", tmp_path / "fer.json")
    refused(audit(twins, *arguments), "fer-twins.csv: is read by this run")
    assert twins.read_bytes() == fer2013_csv.read_bytes()


def test_an_option_of_another_type_is_one_line_and_status_2(audit, folder: Path) -> None:
    refused(audit(folder, "--corpus", "ferplus", "--option", "classes=[8]"), "give a whole number")
    refused(audit(folder, "--corpus", "folder", "--option", "size={a: 1, 2: 3}"), "size is")
    refused(audit(folder, "--corpus", "folder", "--option", "faces=no way"), "give true or false")
