"""`mien analyse`, through the real command line, on what `mien evaluate` wrote."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from mien.datasets import load_corpus, read_row_list
from mien.datasets.votes import COLUMNS

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def mien(command: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command in a wide terminal."""
    monkeypatch.setenv("COLUMNS", "200")
    return command


@pytest.fixture
def results(mien: Command, tiny_onnx: Path, fer2013_csv: Path, tmp_path: Path) -> Path:
    assert mien("evaluate", tiny_onnx, "--data", fer2013_csv, "--split", "train", "--out", tmp_path / "train.json")[0] == 0
    return tmp_path / "train.json"


def write_votes(path: Path) -> Path:
    """Write ten votes for every row of the small fer2013.csv: everyone sees happiness."""
    usage = ["Training"] * 96 + ["PublicTest"] * 32 + ["PrivateTest"] * 32
    lines = [["Usage", "Image name", *COLUMNS]]
    lines += [
        [word, f"fer{i:07}.png", *("10" if name == "happiness" else "0" for name in COLUMNS)] for i, word in enumerate(usage)
    ]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return path


def test_it_writes_tables_and_figures_and_a_list_that_training_takes(
    mien: Command, results: Path, fer2013_csv: Path, tmp_path: Path
) -> None:
    write_votes(tmp_path / "fer2013new.csv")
    out = tmp_path / "analysis"
    status, printed, err = mien("analyse", results, "--data", fer2013_csv, "--out", out, "--top", 3, "--worst", 0.1)
    assert (status, err) == (0, "")
    names = ("mistakes.csv", "pairs.csv", "suspects.csv", "risk-coverage.csv", "summary.json")
    pictures = ("mistakes.png", "reliability.png", "risk-coverage.png")
    assert [line for line in printed.splitlines() if line.startswith("wrote ")] == [
        f"wrote {out / n}" for n in (*names, *pictures)
    ]
    assert {path.name for path in out.iterdir()} == {*names, *pictures}
    assert "10 happy" in printed
    assert "FER+'s voters prefer another class for" in printed
    with Image.open(out / "mistakes.png") as picture:
        assert picture.width > 1000
    corpus = load_corpus("fer2013", fer2013_csv)
    assert len(read_row_list(out / "suspects.csv", corpus)) == 10
    tiny = (
        "model.name=dlib_resnet",
        "model.arguments={in_channels: 1, depth: 1}",
        "train.compile=false",
        "train.batch_size=16",
    )
    changes = [
        word for text in (*tiny, "optim.warmup_epochs=0", f"data.exclude={out / 'suspects.csv'}") for word in ("--set", text)
    ]
    status, _, err = mien(
        "train", "sa_csp_ca/fer2013", "--data", fer2013_csv, "--out", tmp_path / "run", "--epochs", 1, "--devices", 1, *changes
    )
    assert (status, err) == (0, "")
    assert "exclude_sha256: " in (tmp_path / "run/recipe.yaml").read_text()


def test_votes_can_be_elsewhere(mien: Command, results: Path, fer2013_csv: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    votes = write_votes(tmp_path / "elsewhere/votes.csv")
    common = ("analyse", results, "--data", fer2013_csv, "--out", tmp_path / "out")
    assert "FER+'s voters" not in mien(*common)[1]
    assert "FER+'s voters" in mien(*common, "--votes", votes)[1]
    status, _, err = mien(*common, "--votes", tmp_path / "none.csv")
    assert status == 2
    assert "no such file; get FER+'s votes" in err


def test_what_cannot_be_analysed_is_refused(mien: Command, results: Path, fer2013_csv: Path, tmp_path: Path) -> None:
    def refused(*arguments: object, file: Path = results, data: Path = fer2013_csv) -> str:
        status, _, err = mien("analyse", file, "--data", data, "--out", tmp_path / "out", *arguments)
        assert status == 2
        assert not (tmp_path / "out").exists()
        return err

    assert "give a share from above 0 to 0.5" in refused("--worst", "5")
    assert "no such file or folder; pass the fer2013 file" in refused(data=tmp_path / "none.csv")
    lines = fer2013_csv.read_text().splitlines()
    other = tmp_path / "other.csv"
    other.write_text("\n".join(lines[:1] + lines[2:]) + "\n")
    assert "give the copy that was measured" in refused(data=other)
    edited = tmp_path / "edited.json"
    edited.write_text(results.read_text().replace('"fp32"', '"int8"'))
    shutil.copy(results.with_name("train-predictions.csv"), tmp_path / "edited-predictions.csv")
    assert "was edited by hand" in refused(file=edited)
    results.with_name("train-predictions.csv").unlink()
    assert "evaluate the model again to write it" in refused()
