"""`mien verify` on a small run that `mien train` and `mien evaluate` wrote."""

import io
import json
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from mien.cli import app
from mien.results import digest, predictions_path, read_results
from mien.weights import bundled, known_sha256

TRAIN = [
    "--set", "model.name=dlib_resnet", "--set", "model.arguments={in_channels: 1, depth: 1}", "--set", "train.batch_size=16",
    "--set", "train.compile=false", "--set", "data.protocol={name: random_split, test: 0.4}", "--set", "data.select=null",
    "--epochs", "1",
]  # fmt: skip


def run(*arguments: object) -> tuple[int, str, str]:
    """Return the exit status, standard output and standard error of a command."""
    out, err = io.StringIO(), io.StringIO()  # not CliRunner, which mixes the two with click below 8.2
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        app([str(a) for a in arguments])
    return ended.value.code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, shared_fer2013_csv: Path) -> Path:
    """A run's folder with its evaluation on a random test split, and an export of it with its own evaluation."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIEN_CACHE", str(tmp_path_factory.mktemp("cache")))
        for words in (
            ["train", "sa_csp_ca/fer2013", "--data", shared_fer2013_csv, "--out", folder, *TRAIN],
            ["evaluate", folder, "--data", shared_fer2013_csv, "--split", "test"],
            ["export", folder, folder / "small.onnx", "--int8", "--data", shared_fer2013_csv],
            ["evaluate", folder / "small.onnx", "--data", shared_fer2013_csv, "--split", "test"],
            ["evaluate", folder / "small-int8.onnx", "--data", shared_fer2013_csv, "--split", "test"],
        ):
            status, _, error = run(*words)
            assert status == 0, error
    return folder


@pytest.fixture
def folder(tmp_path: Path, trained: Path) -> Path:
    """The test's own copy of the results and weights."""
    files = [file for file in trained.iterdir() if file.suffix in (".json", ".csv", ".safetensors", ".onnx")]
    (tmp_path / "run").mkdir()
    for file in files:
        shutil.copy(file, tmp_path / "run")
    return tmp_path / "run"


def change(path: Path, changes: dict[str, Any], sign: bool = False, old: bool = False) -> None:
    """Edit a results file: with a digest that fits (a forger's), without one (an old file), or with the digest it had."""
    values = json.loads(path.read_text())
    for dotted, value in changes.items():
        *sections, key = dotted.split(".")
        part = values
        for section in sections:
            part = part[section]
        part[key] = value
    if sign:
        values["digest"] = digest(values)
    if old:
        del values["digest"], values["versions"]
    path.write_text(json.dumps(values))


def test_figures_hold(folder: Path, fer2013_csv: Path):
    """Weights are found next to the results by their sha256: those of the run and of its two exports."""
    names = ("test.json", "small-test.json", "small-int8-test.json")
    status, shown, error = run("verify", *(folder / name for name in names), "--data", fer2013_csv)
    assert (status, error) == (0, "")
    correct = sum(row[i] for i, row in enumerate(read_results(folder / "test.json")["confusion"]))
    assert f"test.json: holds: {correct} of 64 images are correct" in shown
    assert shown.count(": holds: ") == 3
    assert shown.count("0 of 64 predictions changed") == 3
    assert "digest" not in shown


def test_an_edit_by_hand_does_not_hold(folder: Path, fer2013_csv: Path):
    change(folder / "test.json", {"standard.accuracy": 0.99})
    status, shown, _ = run("verify", folder / "test.json", folder / "small-test.json", "--data", fer2013_csv)
    assert status == 1
    assert "test.json: does not hold" in shown
    assert "was edited by hand" in shown
    assert "small-test.json: holds" in shown


@pytest.mark.parametrize("how", ["sign", "old"])
def test_a_figure_that_was_never_measured_does_not_hold(folder: Path, fer2013_csv: Path, how: str):
    correct = round(64 * read_results(folder / "test.json")["standard"]["accuracy"])
    change(folder / "test.json", {"standard.accuracy": (correct + 2) / 64}, **{how: True})
    status, shown, _ = run("verify", folder / "test.json", "--data", fer2013_csv)
    assert status == 1
    assert "does not hold (tolerance: 0 images)" in shown
    assert f"standard: {correct} of 64 images are correct ({100 * correct / 64:.2f} %), 2 fewer than in the file" in shown
    assert ("it has no digest" in shown) == (how == "old")


@pytest.mark.parametrize("key", ["macro_f1", "ece", "kappa"])
def test_other_figures_are_checked_too(folder: Path, fer2013_csv: Path, key: str):
    change(folder / "test.json", {f"standard.{key}": 0.87654}, sign=True)
    status, shown, _ = run("verify", folder / "test.json", "--data", fer2013_csv)
    assert status == 1
    assert f"standard: {key} is " in shown
    assert "but the file has 0.8765" in shown


def test_a_recall_is_checked_too(folder: Path, fer2013_csv: Path):
    change(folder / "test.json", {"twin_free.recall.happy": 0.87654}, sign=True)
    status, shown, _ = run("verify", folder / "test.json", "--data", fer2013_csv)
    assert status == 1
    assert "twin_free: recall happy is " in shown


def test_an_older_file_holds_with_a_note(folder: Path, fer2013_csv: Path):
    values = json.loads((folder / "test.json").read_text())
    for key in ("digest", "training", "versions", "study"):
        del values[key]
    for part in ("standard", "twin_free"):
        for key in ("kappa", "fpr", "votes_agreement"):
            del values[part][key]
    (folder / "test.json").write_text(json.dumps(values))
    status, shown, _ = run("verify", folder / "test.json", "--data", fer2013_csv)
    assert status == 0
    assert "note: it has no digest, so edits by hand may go unnoticed" in shown


def test_int8_may_differ_by_a_few_images_and_float32_may_not(folder: Path, fer2013_csv: Path, monkeypatch: pytest.MonkeyPatch):
    """The files have two more correct images than the networks classify. The tolerance, one in 1,000, is 0 of 64 images."""
    int8, fp32 = folder / "small-int8-test.json", folder / "small-test.json"
    for path in (int8, fp32):
        correct = round(64 * read_results(path)["standard"]["accuracy"])
        assert correct < 62
        change(path, {"standard.accuracy": (correct + 2) / 64, "confusion": [[0] * 7] * 7}, sign=True)
        predictions_path(path).unlink()
    assert run("verify", int8, "--data", fer2013_csv)[0] == 1
    monkeypatch.setattr(sys.modules["mien.cli.verify"], "TOLERANCE", 2 / 64)
    status, shown, _ = run("verify", int8, "--data", fer2013_csv)
    assert status == 0
    assert "int8-test.json: holds: " in shown
    assert "(tolerance: 2 images)" in shown
    assert "2 fewer than in the file" in shown
    status, shown, _ = run("verify", fp32, "--data", fer2013_csv)
    assert status == 1
    assert "does not hold (tolerance: 0 images)" in shown


def test_edited_predictions_do_not_hold(folder: Path, fer2013_csv: Path):
    file = predictions_path(folder / "test.json")
    file.write_text("\n".join(file.read_text().splitlines()[:-1]))
    status, shown, _ = run("verify", folder / "test.json", "--data", fer2013_csv)
    assert status == 1
    assert "test-predictions.csv: does not belong to test.json, or was changed" in shown
    file.unlink()
    status, shown, _ = run("verify", folder / "test.json", "--data", fer2013_csv)
    assert status == 0
    assert "predictions changed" not in shown


def test_without_data_only_the_files_are_checked(folder: Path):
    status, shown, _ = run("verify", folder / "test.json")
    assert status == 0
    assert "give the corpus with --data to measure again" in shown
    weights = (folder / "best.safetensors").rename(folder.parent / "kept.safetensors")
    assert run("verify", folder / "test.json")[0] == 0
    assert "its files and weights are consistent" in run("verify", folder / "test.json", "--weights", weights)[1]
    assert run("verify", folder / "test.json", "--weights", folder / "small.onnx")[0] == 2
    change(folder / "test.json", {"standard.accuracy": 0.99})
    assert run("verify", folder / "test.json")[0] == 1


def test_weights_can_be_elsewhere(folder: Path, fer2013_csv: Path, tmp_path: Path):
    elsewhere = (folder / "best.safetensors").rename(tmp_path / "kept.safetensors")
    status, shown, error = run("verify", folder / "test.json", folder / "small-test.json", "--data", fer2013_csv)
    assert status == 3
    assert "small-test.json: holds" in shown
    assert "nor bundled; give their file with --weights FILE" in error
    assert run("verify", folder / "test.json", "--data", fer2013_csv)[0] == 2
    assert run("verify", folder / "test.json", "--data", fer2013_csv, "--weights", elsewhere)[0] == 0
    status, _, error = run("verify", folder / "test.json", "--data", fer2013_csv, "--weights", folder / "small.onnx")
    assert status == 2
    assert "these are other weights" in error
    status, _, error = run("verify", folder / "test.json", "--data", fer2013_csv, "--weights", tmp_path / "none.onnx")
    assert status == 2
    assert "no such file" in error


def test_other_data_verify_nothing(folder: Path, fer2013_csv: Path):
    lines = fer2013_csv.read_text().splitlines()
    fer2013_csv.write_text("\n".join([*lines, lines[-1]]))
    status, shown, error = run("verify", folder / "test.json", "--data", fer2013_csv)
    assert (status, shown) == (2, "")
    assert "is other data (data fingerprint" in error


def test_another_split_verifies_nothing(folder: Path, fer2013_csv: Path):
    change(folder / "test.json", {"data.split_fingerprint": "0" * 64}, sign=True)
    status, _, error = run("verify", folder / "test.json", "--data", fer2013_csv)
    assert status == 2
    assert "is other data (split fingerprint" in error


def test_a_bundled_model_is_found_by_its_sha256(tmp_path: Path, fer2013_csv: Path):
    out = tmp_path / "bundled.json"
    assert run("evaluate", "dlib_resnet-fer2013", "--data", fer2013_csv, "--out", out)[0] == 0
    assert "bundled.json: holds" in run("verify", out, "--data", fer2013_csv)[1]
    known = known_sha256(bundled()["dlib_resnet-fer2013"])
    assert len(known) > 1
    former = known[-1]
    assert json.loads(out.read_text())["model"]["weights_sha256"] != former
    change(out, {"model.weights_sha256": former}, sign=True)  # measured before the file's metadata was written again
    assert "bundled.json: holds" in run("verify", out, "--data", fer2013_csv)[1]


def test_what_cannot_be_verified_is_named(folder: Path, fer2013_csv: Path):
    change(folder / "small-test.json", {"model.weights_sha256": None}, sign=True)
    (folder / "other.json").write_text("{}")
    for name, words in (
        ("none.json", "none.json: cannot be verified: cannot be read"),
        ("other.json", "other.json: cannot be verified: is not a results file"),
        ("small-test.json", "does not have the sha256 of its weights"),
    ):
        status, _, error = run("verify", folder / name, "--data", fer2013_csv)
        assert status == 2
        assert words in error
    status, _, error = run("verify", folder / "test.json", "--data", folder / "none.csv")
    assert status == 2
    assert "none.csv: no such file or folder" in error
