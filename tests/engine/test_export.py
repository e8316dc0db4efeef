import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import timm.models.vgg
import torch
import torchvision.models.vgg

import mien
from mien.checkpoint import load_checkpoint, save_checkpoint
from mien.datasets import Corpus
from mien.engine.export import Export, calibration_crops, export_int8, export_onnx, restamp, write_card
from mien.engine.torch_backend import TorchBackend
from mien.errors import CheckpointError, MienError
from mien.labels import label_set
from mien.model_info import ModelInfo
from mien.models import create_model, names, resemotenet, sa_csp_ca, vgg16, vgg16_gcca
from mien.predict.onnx_backend import OnnxBackend
from mien.preprocess import PreprocessSpec, preprocess
from mien.weights import card_path, known_sha256, read_card, sha256

FACES = list(np.random.default_rng(1).integers(0, 256, (9, 48, 48), dtype=np.uint8))
SMALL: dict[str, dict[str, Any]] = {
    "resnet50": {"layers": (1, 1, 1, 1), "channels": (16, 32, 64, 128)},
    "seresnet50": {"layers": (1, 1, 1, 1), "channels": (16, 32, 64, 128)},
    "vgg16": {"mlp_ratio": 1 / 64},
}
"""Arguments that make timm's large networks small without leaving out an operator."""

NARROW = (16, 32, 64, 128, 128)
"""Channels of VGG-16's blocks, a quarter of the paper's."""


@pytest.fixture
def _small_networks(monkeypatch: pytest.MonkeyPatch, trim_memory: Callable[[], None]) -> Iterator[None]:
    """Make the large networks small without leaving out an operator: exporting one takes several times its memory."""
    full = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda network, **given: full(network, **(given | SMALL.get(network, {}))))
    monkeypatch.setattr(resemotenet, "BLOCKS", (32, 64, 128))
    monkeypatch.setattr(resemotenet, "HEAD", (64, 32, 16))
    monkeypatch.setattr(sa_csp_ca, "BLOCKS", ((24, 1), (64, 2)))
    for network in (vgg16, vgg16_gcca):
        monkeypatch.setattr(network, "BLOCKS", NARROW)
    for layers, name in ((torchvision.models.vgg.cfgs, "D"), (timm.models.vgg.cfgs, "vgg16")):
        monkeypatch.setitem(layers, name, [part if part == "M" else part // 4 for part in layers[name]])
    yield
    trim_memory()


def save(path: Path, name: str, **arguments: object) -> Path:
    """Write a checkpoint, at the network's least size, whose batch norms have seen data so that no two logits are alike."""
    torch.manual_seed(0)
    model = create_model(name, **arguments)
    channels, side = model.in_channels, model.minimum_size
    spec = PreprocessSpec((side, side), channels, (0.5,) * channels, (0.2,) * channels)
    with torch.no_grad():
        for _ in range(4):
            model(torch.from_numpy(preprocess(FACES, spec)))
    info = ModelInfo(name, arguments, label_set("fer2013"), "fer2013", spec)
    save_checkpoint(path, model.state_dict(), info)
    return path


@pytest.fixture
def checkpoint(tmp_path: Path, larger: Path, traced: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `larger` that is exported without tracing it once more, for tests of what follows."""
    monkeypatch.setattr("mien.engine.export._trace", lambda model, info, path: shutil.copy(traced, path))
    return Path(shutil.copy(larger, tmp_path / "m.safetensors"))


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network whose file is mostly weights: ten residual blocks, 1.1 M parameters."""
    return save(tmp_path_factory.mktemp("larger") / "m.safetensors", "dlib_resnet", depth=10)


@pytest.fixture(scope="module")
def whole(larger: Path) -> Export:
    """The float32 file of `larger`."""
    return export_onnx(larger, larger.with_name("whole.onnx"), FACES)


@pytest.fixture(scope="module")
def traced(larger: Path, whole: Export) -> Path:
    """The same file without mien's facts, as the exporter leaves it."""
    model = onnx.load(whole.path)
    del model.metadata_props[:]
    onnx.save(model, larger.with_name("traced.onnx"))
    return larger.with_name("traced.onnx")


@pytest.mark.slow
@pytest.mark.usefixtures("_small_networks")
@pytest.mark.parametrize("name", names())
def test_every_network_says_the_same_on_onnx_runtime(tmp_path: Path, name: str):
    checkpoint = save(tmp_path / "m.safetensors", name, **({"depth": 4} if name == "dlib_resnet" else {}))
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


def test_half_the_size_says_nearly_the_same(tmp_path: Path, checkpoint: Path, whole: Export):
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


def test_a_weight_beyond_float16_is_not_halved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoint = save(tmp_path / "m.safetensors", "vanilla_cnn")
    model, info = load_checkpoint(checkpoint)
    model.classifier.weight.data *= 1e8
    save_checkpoint(checkpoint, model.state_dict(), info)
    monkeypatch.setattr("mien.engine.export.TOLERANCE", np.inf)
    with pytest.raises(MienError, match=r"m\.onnx: not written, classifier\.weight does not fit float16"):
        export_onnx(checkpoint, tmp_path / "m.onnx", FACES, half_size=True)
    assert not (tmp_path / "m.onnx").exists()


def test_a_file_that_float16_changes_is_not_written(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mien.engine.export.HALF_AGREEMENT", 1.01)
    with pytest.raises(MienError, match=r"m\.onnx: not written, float16 changes its predictions"):
        export_onnx(checkpoint, tmp_path / "m.onnx", FACES, half_size=True)
    assert not (tmp_path / "m.onnx").exists()


def test_int8_is_smaller_and_near(tmp_path: Path, larger: Path, whole: Export):
    done = export_int8(larger, whole.path, tmp_path / "m-int8.onnx", FACES * 8)
    spread = np.ptp(TorchBackend(larger).logits(preprocess(FACES, done.info.preprocess)))
    assert OnnxBackend(tmp_path / "m-int8.onnx").info.precision == "int8"
    assert (tmp_path / "m-int8.onnx").stat().st_size < 0.4 * whole.path.stat().st_size
    assert 0 < done.max_difference < spread


def test_the_card_states_the_file(whole: Export):
    card = json.loads(write_card(whole, parameters=7).read_text())
    assert card["sha256"] == sha256(whole.path)
    assert card["bytes"] == whole.path.stat().st_size
    assert (card["arch"], card["parameters"], card["labels_equal_to_torch"]) == ("dlib_resnet", 7, 1)


def test_restamping_changes_the_facts_and_the_card_but_no_answer(tmp_path: Path, whole: Export):
    path = Path(shutil.copy(whole.path, tmp_path / "m.onnx"))
    write_card(replace(whole, path=path), parameters=7)
    first, before = sha256(path), OnnxBackend(path)
    for commit in ("first", "second", "second"):
        info = replace(before.info, commit=commit)
        restamp(path, info)
    after, card = OnnxBackend(path), read_card(path)
    assert after.info == info
    batch = preprocess(FACES, whole.info.preprocess)
    np.testing.assert_array_equal(before.logits(batch), after.logits(batch))
    assert (card["sha256"], card["bytes"], card["parameters"]) == (sha256(path), path.stat().st_size, 7)
    assert known_sha256(path)[0] == card["sha256"]
    assert known_sha256(path)[1] == first
    assert len(known_sha256(path)) == 3, "the last restamping changed nothing"
    restamp(path, replace(info, preprocess=replace(info.preprocess, smooth=0.1)))
    assert known_sha256(path) == [sha256(path)], "other preprocessing gives other answers"


def test_an_older_card_does_not_stay_next_to_a_new_file(tmp_path: Path, checkpoint: Path):
    card = card_path(tmp_path / "m.onnx")
    card.write_text('{"sha256": "of another file"}')
    export_onnx(checkpoint, tmp_path / "m.onnx", FACES)
    assert not card.exists()
    assert OnnxBackend(tmp_path / "m.onnx").info.arch == "dlib_resnet"


@pytest.mark.parametrize("difference", [1.0, np.nan])
def test_what_differs_from_torch_is_not_written(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, difference: float
):
    logits = TorchBackend.logits
    monkeypatch.setattr(TorchBackend, "logits", lambda self, batch: logits(self, batch) + np.float32(difference))
    with pytest.raises(MienError, match="not written, its logits differ"):
        export_onnx(checkpoint, tmp_path / "m.onnx")
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith((".", "m."))) == ["m.safetensors"]


def test_calibration_takes_training_images_only(corpus: Corpus):
    train = {image.tobytes() for image in corpus.images[corpus.where("train")]}
    crops = calibration_crops(corpus, count=20)
    assert len(crops) == 20
    assert all(crop.tobytes() in train for crop in crops)


def test_a_missing_checkpoint_is_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        export_onnx(tmp_path / "none", tmp_path / "m.onnx")
