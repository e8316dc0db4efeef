"""`mien calibrate` on a small file of the real layout."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from mien.calibration import calibrated_probs, class_bias
from mien.checkpoint import load_checkpoint, save_checkpoint
from mien.cli import app
from mien.datasets import Corpus, load_corpus
from mien.engine.calibrate import calibrate, frequencies
from mien.engine.export import export_onnx, restamp, write_card
from mien.engine.torch_backend import TorchBackend
from mien.errors import DataError, InputError
from mien.evaluate import evaluate, predict_split
from mien.metrics import classification_report
from mien.model_info import ModelInfo
from mien.models import create_model
from mien.predict.onnx_backend import OnnxBackend
from mien.predict.recognizer import Recognizer
from mien.preprocess import preprocess
from mien.weights import read_card, sha256


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random, path = np.random.default_rng(0), tmp_path_factory.mktemp("fer") / "fer2013.csv"
    lines = ["emotion,pixels,Usage"]
    for usage, count in {"Training": 14, "PublicTest": 280, "PrivateTest": 14}.items():
        for i in range(count):
            pixels = random.integers(0, 80, 48 * 48) + 25 * (i % 7)
            lines.append(f"{i % 7},{' '.join(map(str, pixels))},{usage}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def corpus(data: Path) -> Corpus:
    return load_corpus("fer2013", data)


@pytest.fixture
def checkpoint(tmp_path: Path, tiny_info: ModelInfo, corpus: Corpus) -> Path:
    """A network without training, which knows what it would have been trained on."""
    torch.manual_seed(0)
    network = create_model("dlib_resnet", num_classes=7, in_channels=1, depth=4)
    part = {"corpus": "fer2013", "train": "train", "select": "public_test"}
    info = replace(tiny_info, arch="dlib_resnet", arguments={"in_channels": 1, "depth": 4}, recipe={"data": part})
    info = replace(info, data_fingerprint=corpus.fingerprint, split_fingerprint=corpus.split_fingerprint)
    save_checkpoint(tmp_path / "best.safetensors", network.state_dict(), info)
    return tmp_path / "best.safetensors"


def test_a_model_file_learns_its_calibration_and_nothing_else(
    tmp_path: Path, checkpoint: Path, data: Path, corpus: Corpus
) -> None:
    exported = export_onnx(checkpoint, tmp_path / "model.onnx")
    write_card(exported)
    path, before = exported.path, OnnxBackend(exported.path)
    old = sha256(path)
    shown = CliRunner().invoke(app, ["calibrate", str(path), "--data", str(data)], catch_exceptions=False).output
    assert "the calibration error on public_test was" in shown
    after = OnnxBackend(path)
    assert after.info == replace(before.info, calibration=after.info.calibration)
    assert set(after.info.calibration) == {"temperature", "power", "lead", "set_limits", "split", "images"}
    assert (after.info.calibration["split"], after.info.calibration["images"]) == ("public_test", 280)
    batch = preprocess(list(corpus.read(corpus.where("private_test"))), after.info.preprocess)
    np.testing.assert_array_equal(before.logits(batch), after.logits(batch))
    card = read_card(path)
    assert (card["sha256"], card["bytes"], card["former_sha256"]) == (sha256(path), path.stat().st_size, [old])
    target = corpus.target[corpus.where("public_test")]
    raw, fitted = (predict_split(each, corpus, "public_test") for each in (before, after))
    measured = evaluate(after, corpus, "public_test").results
    assert {share: each["coverage"] >= float(share) for share, each in measured["sets"].items()} == dict.fromkeys(
        ("0.8", "0.9", "0.95", "0.99"), True
    )
    assert 1 <= measured["sets"]["0.8"]["size"] <= measured["sets"]["0.99"]["size"] <= 7
    assert evaluate(before, corpus, "public_test").results["sets"] is None
    error = classification_report(raw, target, corpus.classes)["ece"]
    assert f"was {error:.2%}".replace("%", " %") in shown
    losses = [-np.log(probs[np.arange(len(target)), target]).mean() for probs in (raw, fitted)]
    assert losses[1] < losses[0] + 1e-4
    sets = [
        p.set
        for p in Recognizer(after, detector=None, coverage=0.9).predict_faces(list(corpus.read(corpus.where("public_test"))))
    ]
    names = [corpus.classes[label] for label in target]
    assert np.mean([name in each for name, each in zip(names, sets, strict=True) if each]) >= 0.9


def test_balance_corrects_for_how_often_the_training_drew_each_class(tmp_path: Path, checkpoint: Path, data: Path) -> None:
    lines = data.read_text().splitlines()
    others = [line for line in lines if line.endswith("Training") and line[0] != "1"]
    (tmp_path / "rare.csv").write_text("\n".join([*lines, *others, *others, *others]) + "\n")
    corpus = load_corpus("fer2013", tmp_path / "rare.csv")
    model, info = load_checkpoint(checkpoint)
    info = replace(info, data_fingerprint=corpus.fingerprint, split_fingerprint=corpus.split_fingerprint)
    save_checkpoint(checkpoint, model.state_dict(), info)
    drawn = frequencies(info, corpus)
    assert drawn.tolist() == [8, 2, 8, 8, 8, 8, 8]
    for sampling, expected in (("weighted", 2.0), ("balanced", 1.0)):
        part = info.recipe["data"] | {"sampling": sampling}
        shares = frequencies(replace(info, recipe={"data": part}), corpus)
        assert shares[0] / shares[1] == pytest.approx(expected)
    raw = np.log(predict_split(TorchBackend(checkpoint), corpus, "public_test"))
    values = calibrate(checkpoint, corpus, balance=0.5).values
    assert values["bias"] == class_bias(drawn, 0.5)
    balanced = predict_split(TorchBackend(checkpoint), corpus, "public_test")
    np.testing.assert_allclose(balanced, calibrated_probs(raw, values), atol=1e-5)


def test_figures_of_a_file_with_another_bias_do_not_count(tmp_path: Path, checkpoint: Path) -> None:
    exported = export_onnx(checkpoint, tmp_path / "model.onnx")
    write_card(exported)
    restamp(exported.path, replace(exported.info, calibration={"bias": [1.0, *[0.0] * 6]}))
    assert read_card(exported.path)["former_sha256"] == []


def test_a_checkpoint_keeps_its_tensors_and_hands_its_calibration_to_the_export(
    tmp_path: Path, checkpoint: Path, corpus: Corpus
) -> None:
    before, _ = load_checkpoint(checkpoint)
    values = calibrate(checkpoint, corpus).values
    after, info = load_checkpoint(checkpoint)
    assert info.calibration == values == json.loads(json.dumps(values))
    assert all(
        (one == other).all() for one, other in zip(before.state_dict().values(), after.state_dict().values(), strict=True)
    )
    assert export_onnx(checkpoint, tmp_path / "model.onnx").info.calibration == values


def test_only_the_selection_split_of_the_same_data_will_do(checkpoint: Path, corpus: Corpus, tmp_path: Path) -> None:
    network, info = load_checkpoint(checkpoint)
    other = tmp_path / "other.safetensors"
    save_checkpoint(other, network.state_dict(), replace(info, data_fingerprint="0" * 16))
    with pytest.raises(DataError, match="is not the data that trained the model"):
        calibrate(other, corpus)
    save_checkpoint(other, network.state_dict(), replace(info, recipe={"data": info.recipe["data"] | {"select": None}}))
    with pytest.raises(DataError, match="without a selection split"):
        calibrate(other, corpus)
    with pytest.raises(InputError, match=r"copy its \.onnx file first"):
        CliRunner().invoke(app, ["calibrate", "sa_csp_ca-fer2013", "--data", "x.csv"], catch_exceptions=False)
