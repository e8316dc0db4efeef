"""`mien split`, through the real command line."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from mien.datasets import load_corpus
from mien.labels import label_set

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def split(command: Command) -> Command:
    """Run `mien split`."""
    return partial(command, "split")


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """A folder of twenty pictures of each of three classes."""
    for index in range(60):
        folder = tmp_path / "faces" / ("happy", "sad", "contempt")[index % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 4 * index, np.uint8)).save(folder / f"{index}.png")
    return tmp_path / "faces"


def cells(out: str, first: str) -> list[str]:
    """The fields of a line of the table."""
    (line,) = (line for line in out.splitlines() if line.startswith(f"│ {first} "))
    return line.replace("│", " ").split()[1:]


def recipe_line(out: str) -> object:
    """What the command says a recipe should hold."""
    (line,) = (line for line in out.splitlines() if "data.protocol: " in line)
    return yaml.safe_load(line.partition("data.protocol: ")[2])


def test_what_it_writes_a_recipe_reads(split, tmp_path: Path, fer2013_csv: Path) -> None:
    path = tmp_path / "splits" / "split.json"
    part = {"name": "kfold", "folds": 4, "fold": 1, "val": 0.25, "seed": 3}
    status, out, err = split(fer2013_csv, "--corpus", "fer2013", "--protocol", yaml.safe_dump(part), "--out", path)
    assert (status, err) == (0, "")
    assert "fer2013: 4-fold by image, fold 1, 25 % of train for val by image, seed 3" in out
    assert [cells(out, "together")[i] for i in (0, 1, 2, 3)] == ["90", "30", "40", "160"]
    assert sum(int(cells(out, name)[2]) for name in label_set("fer2013")) == 40
    assert f"wrote {path}" in out
    read = load_corpus("fer2013", fer2013_csv, protocol=recipe_line(out))
    wanted = load_corpus("fer2013", fer2013_csv, protocol=part)
    assert (read.rows.split == wanted.rows.split).all()
    assert (read.splits, read.protocol) == (wanted.splits, wanted.protocol)


def test_steps_follow_one_another_and_options_reach_the_reader(split, tmp_path: Path, faces: Path) -> None:
    path = tmp_path / "split.json"
    steps = "[{name: map_to, label_set: fer2013, drop: [contempt]}, {name: random_split, test: 0.25}]"
    options = ("--option", "size=8", "--option", "colour=false")
    status, out, err = split(faces, "--corpus", "folder", "--protocol", steps, "--out", path, *options)
    assert (status, err) == (0, "")
    assert "folder: labels of fer2013 without contempt; random 25 % test by image, seed 0" in out
    assert cells(out, "happy") == cells(out, "sad") == ["15", "5", "20"]
    assert cells(out, "neutral") == ["0", "0", "0"]
    assert "20 of 60 images are in no split" in out
    read = load_corpus("folder", faces, options={"size": 8, "colour": False}, protocol=recipe_line(out))
    assert read.classes == label_set("fer2013")
    assert [len(read.where(name)) for name in read.splits] == [30, 10]


def test_a_picture_that_is_left_out_is_said(split, tmp_path: Path, faces: Path) -> None:
    (faces / "sad" / "damaged.png").write_bytes(b"no picture")
    status, out, err = split(
        faces, "--corpus", "folder", "--protocol", "{name: random_split}", "--out", tmp_path / "split.json"
    )
    assert status == 3
    assert cells(out, "together")[-1] == "60"
    assert "left out: " in err
    assert "damaged.png" in err


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        ("{name: kfold, folds: [", ["--protocol", "cannot be read"]),
        ("{name: leave_one_subject_out, subject: 2020-99-99}", ["--protocol", "cannot be read"]),
        ("kfold", ["--protocol kfold", "is neither a protocol"]),
        ("", ["is neither a protocol", "{name: kfold"]),
        ("{}", ["is neither a protocol"]),
        ("[]", ["is neither a protocol"]),
        ("[{name: kfold}, official]", ["is neither a protocol"]),
        ("{name: k_fold}", ["unknown protocol 'k_fold'", "did you mean 'kfold'"]),
        ("{name: kfold, fodls: 3}", ["no argument 'fodls'", "did you mean 'folds'"]),
        ("{name: kfold, by: subject}", ["fer2013 does not name the subject"]),
        ("{name: map_to, label_set: rafdb, drop: [calm]}", ["no class 'calm' to drop"]),
    ],
)
def test_a_protocol_that_cannot_be_is_one_line(split, tmp_path: Path, fer2013_csv: Path, protocol: str, words: list[str]):
    path = tmp_path / "split.json"
    status, out, err = split(fer2013_csv, "--corpus", "fer2013", "--protocol", protocol, "--out", path)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert all(word in err for word in words), err
    assert not path.exists()


def test_other_arguments_that_cannot_be(split, tmp_path: Path, fer2013_csv: Path) -> None:
    usual = {"--corpus": "fer2013", "--protocol": "{name: kfold}", "--out": tmp_path / "split.json"}
    for change, word in (
        ({"--out": tmp_path / "split.txt"}, "--out split.json"),
        ({"--corpus": "fer2014"}, "did you mean 'fer2013'"),
        ({"--option": "size"}, "write it as key=value"),
        ({"--out": fer2013_csv / "split.json"}, "part of the path is a file"),
    ):
        status, out, err = split(fer2013_csv, *(word for pair in (usual | change).items() for word in pair))
        assert (status, out) == (2, "")
        assert word in err


def test_the_file_is_the_protocol_file_of_the_library(split, tmp_path: Path, fer2013_csv: Path) -> None:
    path = tmp_path / "split.json"
    assert split(fer2013_csv, "--corpus", "fer2013", "--protocol", "{name: official}", "--out", path)[0] == 0
    values = json.loads(path.read_text())
    assert values["splits"] == {"train": "0-95", "public_test": "96-127", "private_test": "128-159"}
    assert (values["protocol"], values["corpus"]) == ("official", "fer2013")


def test_a_protocol_that_is_read_is_not_overwritten(split, tmp_path: Path, fer2013_csv: Path) -> None:
    path, usual = tmp_path / "split.json", (fer2013_csv, "--corpus", "fer2013", "--protocol")
    assert split(*usual, "{name: kfold, folds: 4, fold: 0}", "--out", path)[0] == 0
    before = path.read_bytes()
    steps = f"[{{name: file, path: '{path}'}}, {{name: map_to, label_set: rafdb}}]"
    status, _, err = split(*usual, steps, "--out", path)
    assert (status, "split.json: is read by this run" in err) == (2, True)
    assert path.read_bytes() == before
    path.write_text('{"model": {}, "standard": {}}')
    assert "split.json: holds something else" in split(*usual, "{name: kfold}", "--out", path)[2]
    status, out, _ = split(*usual, "{name: kfold}", "--out", tmp_path / "a\x1b[2J.json")
    assert status == 0
    assert all(line.isprintable() for line in out.splitlines())
