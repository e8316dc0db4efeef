"""The commands around training, in one process, on a small file of the real layout."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mien.checkpoint import load_checkpoint
from mien.cli import app, main
from mien.datasets import load_corpus
from mien.datasets.votes import COLUMNS
from mien.errors import MienError
from mien.predict.recognizer import Recognizer

QUICK = ["--set", "train.batch_size=16", "--set", "train.compile=false", "--epochs", "1"]
SMALL = ["--set", "model.name=dlib_resnet", "--set", "model.arguments={in_channels: 1, depth: 4}"]


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments: object) -> str:
    """Return the message of the error a command ends in."""
    with pytest.raises(MienError) as caught:
        CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    return str(caught.value)


def test_from_training_to_recognition(tmp_path: Path, fer2013_csv: Path):
    folder, exported = tmp_path / "run\x1b[2J[b]", tmp_path / "model.onnx"
    train = ("train", "sa_csp_ca/fer2013", "--data", fer2013_csv, "--out", folder, *QUICK, *SMALL)
    shown = run(*train, "--seed", 4)
    assert "epoch 1/1" in shown
    assert "min left" in shown
    assert "epoch 1/1" not in run(*train, "--seed", 4)  # resumed: nothing left to do
    assert "belongs to a run of another recipe" in refused(*train, "--seed", 5)
    shown += run("evaluate", folder, "--data", fer2013_csv, "--split", "private_test")
    assert shown.count("run\\x1b[2J[b]") == 5  # kept in, next, three files
    assert all(line.isprintable() for line in shown.splitlines())
    results = json.loads((folder / "private_test.json").read_text())
    assert results["model"]["seed"] == 4
    assert results["backend"] == "torch"
    run("evaluate", folder, "--data", fer2013_csv, "--view", "mirror")
    assert json.loads((folder / "public_test-mirror.json").read_text())["view"] == "mirror"
    assert "choose one of single, mirror, ten" in refused("evaluate", folder, "--data", fer2013_csv, "--view", "both")
    with Image.open(folder / "private_test-confusion.png") as picture:
        assert min(picture.size) > 500
    shown = run("export", folder, exported, "--int8", "--data", fer2013_csv)
    assert "points lost" in shown
    run("evaluate", exported, "--data", fer2013_csv, "--split", "private_test", "--out", tmp_path / "onnx.json")
    again = json.loads((tmp_path / "onnx.json").read_text())
    run("evaluate", exported, "--data", fer2013_csv)
    assert json.loads((tmp_path / "model-public_test.json").read_text())["backend"] == "onnx"  # beside the weights
    assert again["standard"]["accuracy"] == pytest.approx(results["standard"]["accuracy"], abs=0.001)
    lost = json.loads((tmp_path / "model-int8.json").read_text())["points_lost"]
    assert set(lost) == {"public_test"}
    assert Recognizer(tmp_path / "model-int8.onnx", detector=None).classes[3] == "happy"


def test_a_model_that_learnt_from_votes_is_measured_without_them(tmp_path: Path, fer2013_csv: Path):
    folder, votes = tmp_path / "run", fer2013_csv.with_name("fer2013new.csv")
    train = ("train", "sa_csp_ca/fer2013-votes", "--data", fer2013_csv, "--out", folder, *QUICK, "--set", "model.start=null")
    assert "fer2013new.csv: no such file; get FER+'s votes" in refused(*train)
    lines = ["Usage,Image name," + ",".join(COLUMNS)]
    for usage, count in {"Training": 96, "PublicTest": 32, "PrivateTest": 32}.items():
        lines += [
            f"{usage},x.png," + ",".join("9" if c == i % 7 else "1" if c == 9 else "0" for c in range(10)) for i in range(count)
        ]
    votes.write_text("\n".join(lines))
    run(*train)
    votes.unlink()
    run("evaluate", folder, "--data", fer2013_csv)
    results = json.loads((folder / "public_test.json").read_text())
    _, info = load_checkpoint(folder)
    assert info.recipe["data"]["options"] == {"votes": "fer2013new.csv"}
    assert info.data_fingerprint == results["data"]["fingerprint"] == load_corpus("fer2013", fer2013_csv).fingerprint
    assert results["standard"]["accuracy"] == pytest.approx(info.results["public_test"]["accuracy"])


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Pictures of one's own: train and test by class, one class unknown to FER2013 and spelt in two ways."""
    random = np.random.default_rng(0)
    for name in ("train/joie", "train/de\u0301gou\u0302t", "test/Happiness", "test/d\u00e9go\u00fbt", "test/sad"):
        (tmp_path / "own" / name).mkdir(parents=True)
        for i in range(8):
            Image.fromarray(random.integers(0, 256, (48, 48)).astype(np.uint8)).save(tmp_path / "own" / name / f"{i}.png")
    return tmp_path / "own"


def test_a_bundled_model_is_measured_on_pictures_of_ones_own(tmp_path: Path, own: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    measure = ("evaluate", "dlib_resnet-fer2013-small", "--data", own, "--corpus", "folder", "--split", "test")
    shown = run(*measure, "--option", "size=48", "--map-to", "ckplus")
    results = json.loads((tmp_path / "dlib_resnet-fer2013-small-own-test-as-ckplus.json").read_text())
    data = results["data"]
    assert (data["corpus"], data["protocol"], data["options"]) == ("folder", "own splits", {"size": 48})
    assert data["unknown_classes"] == {"d\u00e9go\u00fbt": 8}
    assert results["standard"]["images"] == 16
    assert "on folder test (own splits)" in " ".join(shown.split())
    assert "WARNING: the fingerprints do not show" in shown
    assert "8 of d\u00e9go\u00fbt" in shown
    verified = run("verify", tmp_path / "dlib_resnet-fer2013-small-own-test-as-ckplus.json", "--data", own)
    assert "holds: " in verified
    assert "of 16 images are correct" in verified
    for folder in ("train/joie", "train/de\u0301gou\u0302t", "test/d\u00e9go\u00fbt"):
        shutil.rmtree(own / folder)
    assert "its private_test has 3,589 images" in refused(*measure[:4], "--split", "private_test")
    assert "if your data are another, say so with --corpus" in refused("evaluate", measure[1], "--data", tmp_path / "none")
    assert "say which with --corpus" in refused(*measure[:4], "--option", "size=48")
    assert "unknown label set 'ckplu'" in refused(*measure, "--map-to", "ckplu")


def test_a_folder_whose_test_is_its_training_is_found_out(tmp_path: Path, own: Path):
    """The second finding of a review: accuracy on the training images, in a file that called it an official test."""
    recipe, folder = tmp_path / "my.yaml", tmp_path / "run"
    text = (
        run("recipes", "sa_csp_ca/fer2013")
        .replace("corpus: fer2013", "corpus: folder")
        .replace("select: public_test", "select:")
    )
    recipe.write_text(text)
    shutil.rmtree(own / "test")
    few = ("--set", "train.batch_size=8", "--set", "data.options={size: 48}")
    run("train", recipe, "--data", own, "--out", folder, *QUICK[2:], *SMALL, *few)
    copy = tmp_path / "copy"
    shutil.copytree(own / "train", copy / "test")
    assert "may have seen these test images" in refused("evaluate", folder, "--data", copy, "--split", "test")
    Image.new("L", (48, 48), 9).save(copy / "test" / "joie" / "new.png")
    shown = run("evaluate", folder, "--data", copy, "--split", "test")
    assert "WARNING: the fingerprints do not show" in shown
    assert json.loads((folder / "test.json").read_text())["data"]["protocol"] == "own splits"
    shown = run("evaluate", folder, "--data", copy, "--split", "test", "--training-data", own)
    assert "16 of 17 images have a byte-identical copy among the training images" in " ".join(shown.split())
    twins = json.loads((folder / "test.json").read_text())["twins"]
    assert (twins["training"], twins["exact"]) == ("given", 16)
    assert "are not checked, because the training data" in run("verify", folder / "test.json", "--data", copy)
    with Image.open(own / "train" / "joie" / "0.png") as picture:
        picture.save(own / "train" / "joie" / "new.png")
    assert "other data than trained the model" in refused(
        "evaluate", folder, "--data", copy, "--split", "test", "--training-data", own
    )


def test_recipes_are_listed_and_shown():
    assert "sa_csp_ca/fer2013" in run("recipes")
    assert "corpus: fer2013" in run("recipes", "sa_csp_ca/fer2013")


def test_a_variant_of_a_file_is_shown_and_a_file_names_its_variants(tmp_path: Path):
    path = tmp_path / "my.yaml"
    path.write_text(
        run("recipes", "sa_csp_ca/fer2013") + "variants:\n  slow: {optim: {lr: 0.01}}\n  fast: {optim: {lr: 0.3}}\n"
    )
    shown = run("recipes", f"{path}:slow")
    assert "name: sa_csp_ca/fer2013/slow" in shown
    assert "lr: 0.01" in shown
    assert "variants" not in shown
    train = ("train", path, "--data", "none.csv", "--out", tmp_path / "run")
    assert f"my.yaml: has the variants slow, fast; choose one, such as {path}:slow" in refused(*train)


def test_mistakes_are_named(tmp_path: Path, fer2013_csv: Path):
    train = ("train", "sa_csp_ca/fer2013", "--data", fer2013_csv, "--out", tmp_path / "run")
    assert "did you mean 'epochs'" in refused(*train, "--set", "train.epoch=1")
    assert "write it as key=value" in refused(*train, "--set", "train.epochs")
    assert "did you mean 'sa_csp_ca/fer2013'" in refused("train", "sa_csp_ca/fer", *train[2:])
    assert "no such file" in refused(*train[:2], "--data", tmp_path / "none.csv", *train[4:])
    assert "suffix .onnx" in refused("export", tmp_path, tmp_path / "model.pt")
    assert "--data" in refused("export", tmp_path, tmp_path / "model.onnx", "--int8")
    assert "--out results.json" in refused("evaluate", tmp_path, "--data", fer2013_csv, "--out", tmp_path / "results")
    assert "no such checkpoint" in refused("evaluate", tmp_path, "--data", fer2013_csv)
    assert "is a file" in refused("evaluate", "sa_csp_ca-fer2013", "--data", "none.csv", "--out", fer2013_csv / "a.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            "loss.arguments.label_smothing=0.1",
            "loss.arguments: unknown argument 'label_smothing'; did you mean 'label_smoothing'",
        ),
        ("model.arguments.groupz=2", "model.arguments: unknown argument 'groupz'; did you mean 'groups'"),
        ("model.name=sa_csp_cs", "model.name: unknown model 'sa_csp_cs'; did you mean 'sa_csp_ca'"),
        ("loss.name=cross_entropi", "loss.name: unknown loss 'cross_entropi'; did you mean 'cross_entropy'"),
        ("optim.name=adamv", "optim.name: unknown optimizer 'adamv'; did you mean 'adam"),
    ],
)
def test_names_are_checked_before_anything_is_read(tmp_path: Path, change: str, words: str):
    train = "train", "sa_csp_ca/fer2013", "--data", tmp_path / "none.csv", "--out", tmp_path / "run"
    assert words in refused(*train, "--set", change)
    assert "no such file" in refused(*train)


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads_train_nothing(tmp_path: Path, threads: int):
    train = ["train", "sa_csp_ca/fer2013", "--data", "none.csv", "--out", str(tmp_path / "run"), "--threads", str(threads)]
    result = CliRunner().invoke(app, train)
    assert result.exit_code == 2
    assert "--threads" in result.output


def test_a_mistake_is_one_line_and_status_2(
    fer2013_csv: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    train = ["train", "sa_csp_ca/fer2013", "--data", fer2013_csv, "--out", fer2013_csv / "run", *QUICK]
    measure = ["evaluate", "sa_csp_ca-fer2013", "--data", fer2013_csv, "--split", "test"]
    for words in (train, measure):
        monkeypatch.setattr(sys, "argv", ["mien", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        shown = capsys.readouterr().err
        assert shown.count("\n") == 1
        assert shown.startswith("error: ")


@pytest.mark.parametrize(("hidden", "words"), [("kornia", ["train", "sa_csp_ca/fer2013"]), ("pydantic", ["recipes"])])
def test_a_package_that_is_missing_is_named_with_its_extra(tmp_path: Path, fer2013_csv: Path, hidden: str, words: list[str]):
    code = f"import sys; sys.modules[{hidden!r}] = None; from mien.cli import main; main()"
    more = ["--data", str(fer2013_csv), "--out", str(tmp_path / "run")] if words[0] == "train" else []
    result = subprocess.run([sys.executable, "-c", code, *words, *more], capture_output=True, text=True)
    assert result.returncode == 2
    assert f"needs the package {hidden}" in result.stderr
    assert "pip install 'mien[train]'" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_name_no_disk_takes_is_one_line():
    result = subprocess.run([sys.executable, "-m", "mien", "info", "a" * 300 + ".onnx"], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_a_value_that_yaml_takes_for_a_date(tmp_path: Path, fer2013_csv: Path):
    wrong = ("train", "sa_csp_ca/fer2013", "--data", fer2013_csv, "--out", tmp_path / "run", "--set", "name=2024-13-45")
    assert "the value cannot be read" in refused(*wrong)


def test_no_output_replaces_an_input_or_a_file_of_another_kind(tmp_path: Path, fer2013_csv: Path):
    out = tmp_path / "run"
    out.mkdir()
    mine, results = out / "recipe.yaml", out / "private_test.json"
    mine.write_text("# tried on Monday\n" + run("recipes", "sa_csp_ca/fer2013"))
    results.write_text('{"model": {}, "standard": {}}')
    assert "recipe.yaml: is read by this run" in refused("train", mine, "--data", fer2013_csv, "--out", out, *QUICK)
    assert "private_test.json: holds something else" in refused("export", out, out / "private_test.onnx")
    (tmp_path / "model-int8.json").write_text('{"model": {}, "standard": {}}')
    assert "model-int8.json: holds something else" in refused(
        "export", out, tmp_path / "model.onnx", "--int8", "--data", fer2013_csv
    )
    card = tmp_path / "other.json"
    card.write_text('{"sha256": "0", "arch": "tiny"}')
    measure = ("evaluate", "dlib_resnet-fer2013-small", "--data", fer2013_csv, "--split", "public_test")
    assert "other.json: holds something else (sha256, arch, ...)" in refused(*measure, "--out", card)
    training = tmp_path / "a-predictions.csv"
    shutil.copy(fer2013_csv, training)
    assert "a-predictions.csv: is read by this run" in refused(
        *measure, "--out", tmp_path / "a.json", "--training-data", training
    )
    assert training.read_bytes() == fer2013_csv.read_bytes()
    assert mine.read_text().startswith("# tried on Monday")
