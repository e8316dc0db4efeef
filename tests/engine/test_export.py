import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import mien
from mien.checkpoint import load_checkpoint, save_checkpoint
from mien.datasets import load_corpus
from mien.engine.export import calibration_crops, export_int8, export_onnx, write_card
from mien.engine.torch_backend import TorchBackend
from mien.errors import CheckpointError, MienError
from mien.model_info import ModelInfo
from mien.models import create_model, names
from mien.predict.onnx_backend import OnnxBackend
from mien.preprocess import preprocess
from mien.weights import sha256

FACES = list(np.random.default_rng(1).integers(0, 256, (9, 48, 48), dtype=np.uint8))


@pytest.fixture
def checkpoint(tmp_path: Path, tiny_info: ModelInfo) -> Path:
    return save(tmp_path, tiny_info, "sa_csp_ca")


def save(folder: Path, info: ModelInfo, name: str) -> Path:
    """Write a checkpoint, at the network's least size, whose batch norms have seen data so that no two logits are alike."""
    torch.manual_seed(0)
    model = create_model(name)
    spec = replace(
        info.preprocess,
        channels=model.in_channels,
        size=(model.minimum_size, model.minimum_size),
        mean=(0.5,) * model.in_channels,
        std=(0.2,) * model.in_channels,
    )
    for _ in range(4):
        model(torch.from_numpy(preprocess(FACES, spec)))
    save_checkpoint(folder / "m.safetensors", model.state_dict(), replace(info, arch=name, arguments={}, preprocess=spec))
    return folder / "m.safetensors"


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_every_network_says_the_same_on_onnx_runtime(tmp_path: Path, tiny_info: ModelInfo, name: str):
    checkpoint = save(tmp_path, tiny_info, name)
    done = export_onnx(checkpoint, tmp_path / "m.onnx", FACES)
    ours, theirs = TorchBackend(checkpoint), OnnxBackend(tmp_path / "m.onnx")
    assert theirs.info == replace(ours.info, precision="fp32", mien_version=mien.__version__)
    for count in (1, 9):
        batch = preprocess(FACES[:count], ours.info.preprocess)
        np.testing.assert_allclose(theirs.logits(batch), ours.logits(batch), atol=1e-4)
    assert done.max_difference < 1e-4
    assert done.agreement == 1
    held = (tmp_path / "m.onnx").read_bytes()
    assert b"site-packages" not in held
    assert str(Path(__file__).parents[2]).encode() not in held  # no path of the machine it was exported on


def test_half_the_size_says_nearly_the_same(tmp_path: Path, checkpoint: Path):
    whole = export_onnx(checkpoint, tmp_path / "whole.onnx", FACES)
    half = export_onnx(checkpoint, tmp_path / "half.onnx", FACES, half_size=True)
    assert half.path.stat().st_size < 0.55 * whole.path.stat().st_size
    backend = OnnxBackend(half.path)
    batch = preprocess(FACES, half.info.preprocess)
    ours, theirs = OnnxBackend(whole.path).logits(batch), backend.logits(batch)
    assert backend.info.precision == "fp32", "it computes in float32"
    assert 1e-7 < half.max_difference < 1e-2 * np.ptp(ours)
    assert np.abs(ours - theirs).max() == pytest.approx(half.max_difference, abs=1e-5)
    done = export_int8(checkpoint, half.path, tmp_path / "m-int8.onnx", FACES * 8)
    assert done.path.stat().st_size < 0.4 * whole.path.stat().st_size


def test_a_weight_beyond_float16_is_not_halved(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    model, info = load_checkpoint(checkpoint)
    model.classifier.weight.data *= 1e8
    save_checkpoint(checkpoint, model.state_dict(), info)
    monkeypatch.setattr("mien.engine.export.TOLERANCE", np.inf)
    with pytest.raises(MienError, match=r"m\.onnx: not written, classifier\.weight does not fit float16"):
        export_onnx(checkpoint, tmp_path / "m.onnx", FACES, half_size=True)
    assert not (tmp_path / "m.onnx").exists()


def test_a_file_that_float16_changes_is_not_written(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mien.engine.export.HALF_AGREES", 1.01)
    with pytest.raises(MienError, match=r"m\.onnx: not written, float16 changes what it says"):
        export_onnx(checkpoint, tmp_path / "m.onnx", FACES, half_size=True)
    assert not (tmp_path / "m.onnx").exists()


def test_int8_is_smaller_and_near(tmp_path: Path, checkpoint: Path):
    export_onnx(checkpoint, tmp_path / "m.onnx")
    done = export_int8(checkpoint, tmp_path / "m.onnx", tmp_path / "m-int8.onnx", FACES * 8)
    spread = np.ptp(TorchBackend(checkpoint).logits(preprocess(FACES, done.info.preprocess)))
    assert OnnxBackend(tmp_path / "m-int8.onnx").info.precision == "int8"
    assert (tmp_path / "m-int8.onnx").stat().st_size < 0.4 * (tmp_path / "m.onnx").stat().st_size
    assert 0 < done.max_difference < spread


def test_the_card_states_the_file(tmp_path: Path, checkpoint: Path):
    done = export_onnx(checkpoint, tmp_path / "m.onnx")
    card = json.loads(write_card(done, parameters=7).read_text())
    assert card["sha256"] == sha256(tmp_path / "m.onnx")
    assert card["bytes"] == (tmp_path / "m.onnx").stat().st_size
    assert (card["arch"], card["parameters"], card["labels_equal_to_torch"]) == ("sa_csp_ca", 7, 1)


def test_what_differs_from_torch_is_not_written(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mien.engine.export.TOLERANCE", -1.0)
    with pytest.raises(MienError, match="not written, its logits differ"):
        export_onnx(checkpoint, tmp_path / "m.onnx")
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith((".", "m."))) == ["m.safetensors"]


def test_a_network_that_answers_nan_is_not_written(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(TorchBackend, "logits", lambda self, batch: np.full((len(batch), 7), np.nan, np.float32))
    with pytest.raises(MienError, match="not written, its logits differ"):
        export_onnx(checkpoint, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_calibration_takes_training_images_only(fer2013_csv: Path):
    corpus = load_corpus("fer2013", fer2013_csv)
    train = {image.tobytes() for image in corpus.images[corpus.where("train")]}
    crops = calibration_crops(corpus, count=20)
    assert len(crops) == 20
    assert all(crop.tobytes() in train for crop in crops)


def test_a_missing_checkpoint_is_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        export_onnx(tmp_path / "none", tmp_path / "m.onnx")
