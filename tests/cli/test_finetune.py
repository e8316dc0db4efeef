"""`mien finetune` from a folder to the commands that follow, on pictures named like CK+48's."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mien.checkpoint import load_checkpoint
from mien.cli import app
from mien.errors import MienError


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def refused(*arguments: object) -> str:
    with pytest.raises(MienError) as caught:
        CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    return str(caught.value)


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for number, name in enumerate(("Anger", "contempt", "happy")):
        (tmp_path / "faces" / name).mkdir(parents=True)
        for i in range(16):
            pixels = random.integers(0, 100, (48, 48))
            pixels[10:30, 12 * number : 12 * number + 10] = 255
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"faces/{name}/S{i % 8:03}_00{number}_{i:08}.png")
    return tmp_path / "faces"


def test_a_folder_is_fine_tuned_on_and_measured_before_and_after(tmp_path: Path, faces: Path):
    (faces / "fear").mkdir()
    (faces / "happy/S999_000_00000000.png").write_text("not a picture")
    out = tmp_path / "run"
    command = ("finetune", faces, "--out", out, "--subject", "S[0-9]+", "--epochs", 1, "--threads", 1)
    shown = run(*command)
    for words in (
        "fear: contains no picture",
        "S999_000_00000000.png",
        "classifier by class: angry, happy from the file; contempt new; disgust, fear, sad, surprise, neutral unused",
        "of them, whose class the start has",
        "95 % interval",
        "next: mien export",
    ):
        assert words in shown
    gain, measured = json.loads((out / "finetune.json").read_text()), json.loads((out / "test.json").read_text())
    assert gain["new_classes"] == ["contempt"]
    assert gain["all"]["images"] == measured["standard"]["images"]
    assert gain["all"]["after"] == pytest.approx(measured["standard"]["accuracy"])
    assert gain["all"]["difference"] == pytest.approx(gain["all"]["after"] - gain["all"]["before"])
    assert gain["all"]["images"] > gain["known_classes"]["images"] > 0
    assert load_checkpoint(out)[1].classes == ("angry", "contempt", "happy")
    assert "epoch 1/1" not in run(*command)  # resumed: nothing left to do
    assert "belongs to a run of another recipe" in refused(*command, "--seed", 5)
    (faces / "happy/S999_000_00000000.png").unlink()
    again = run("finetune", faces, "--out", tmp_path / "folds", "--folds", 2, "--epochs", 1, "--threads", 1)
    assert "accuracy on 48 test images:" in again
    assert "WARNING: the people in the pictures are not known" in again
    assert len(json.loads((tmp_path / "folds/finetune.json").read_text())["folds"]) == 2


def test_a_table_names_people_in_its_column(tmp_path: Path, faces: Path):
    lines = ["path,label,subject"]
    lines += [f"{file.relative_to(faces)},{file.parent.name},{file.name[:4]}" for file in sorted(faces.glob("*/*.png"))]
    (faces / "faces.csv").write_text("\n".join(lines))
    out = tmp_path / "run"
    assert "people in the pictures" not in run("finetune", faces / "faces.csv", "--out", out, "--epochs", 1, "--threads", 1)
    assert load_checkpoint(out)[1].recipe["data"]["protocol"]["by"] == "subject"
    assert "name people in its column subject" in refused("finetune", faces / "faces.csv", "--out", out, "--subject", "S")


def test_what_cannot_be_done_is_said_before_training(tmp_path: Path, faces: Path):
    (tmp_path / "full").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    out = ("--out", tmp_path / "run")
    assert "exists and holds no run of mien finetune" in refused("finetune", faces, "--out", tmp_path / "full")
    assert "choose one of tensorboard, wandb, mlflow" in refused("finetune", faces, *out, "--logger", "comet")
    assert "data.protocol: mien finetune fills this in" in refused(
        "finetune", faces, *out, "--folds", 2, "--set", "data.protocol={}"
    )
    assert "contains no pictures under <class>" in refused("finetune", tmp_path / "empty", *out)
    assert "contains no pictures under <class>" in refused("finetune", tmp_path / "full", *out)
    assert "no such file" in refused("finetune", tmp_path / "nowhere", *out).lower()
    assert "does not have the weights" in refused("finetune", faces, *out, "--model", "dlib_resnet-fer2013-small-int8")
