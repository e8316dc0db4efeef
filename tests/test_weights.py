import json
import shutil
from pathlib import Path

import pytest

from mien import weights
from mien.errors import CheckpointError, UnknownNameError
from mien.labels import label_set
from mien.predict.onnx_backend import OnnxBackend


@pytest.fixture
def folder(tmp_path: Path, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the wheel's, with one intact model."""
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    model = shutil.copy(tiny_onnx, bundle / f"{weights.DEFAULT}.onnx")
    weights.card_path(model).write_text(json.dumps({"sha256": weights.sha256(model), "bytes": model.stat().st_size}))
    monkeypatch.setattr(weights, "FOLDER", bundle)
    return bundle


def test_a_bundled_name_is_checked_and_found(folder: Path) -> None:
    assert list(weights.bundled()) == [weights.DEFAULT]
    assert weights.resolve(weights.DEFAULT) == weights.default_weights() == folder / f"{weights.DEFAULT}.onnx"


def test_a_path_needs_no_card(tiny_onnx: Path) -> None:
    assert weights.resolve(tiny_onnx) == weights.resolve(str(tiny_onnx)) == tiny_onnx
    assert weights.read_card(tiny_onnx) == {}


def test_an_unknown_name_lists_the_nearest(folder: Path) -> None:
    with pytest.raises(UnknownNameError, match=f"did you mean '{weights.DEFAULT}'"):
        weights.resolve(weights.DEFAULT[:-2])


def test_a_missing_path_and_a_checkpoint_say_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such model file"):
        weights.resolve(tmp_path / "none.onnx")
    with pytest.raises(CheckpointError, match="mien export"):
        weights.resolve(tmp_path / "best.safetensors")


def test_a_changed_byte_is_found(folder: Path) -> None:
    model = folder / f"{weights.DEFAULT}.onnx"
    damaged = bytearray(model.read_bytes())
    damaged[100] ^= 1
    model.write_bytes(damaged)
    with pytest.raises(CheckpointError, match="is corrupt"):
        weights.default_weights()


@pytest.mark.parametrize(("card", "message"), [("[]", "card is corrupt"), ("{", "card is corrupt"), ("{}", "no card")])
def test_a_bad_card(folder: Path, card: str, message: str) -> None:
    (folder / f"{weights.DEFAULT}.json").write_text(card)
    with pytest.raises(CheckpointError, match=message):
        weights.default_weights()


def test_an_install_without_models_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    with pytest.raises(CheckpointError, match="pip install --force-reinstall mien"):
        weights.default_weights()


def test_every_model_in_the_wheel_is_intact() -> None:
    for path in weights.bundled().values():
        weights.verify(path)


def test_the_card_next_to_a_file_of_the_user_is_compared(tiny_onnx: Path) -> None:
    """Fault 18: the card of a path was never read."""
    content, card = tiny_onnx.read_bytes(), weights.card_path(tiny_onnx)
    right = {"sha256": weights.sha256(tiny_onnx), "bytes": len(content), "classes": list(label_set("fer2013")), "arch": "tiny"}
    for values in (right, {"colour": "red"}):  # the second is not a card
        card.write_text(json.dumps(values))
        assert OnnxBackend(weights.resolve(tiny_onnx)).info.arch == "tiny"
    for change in ({"sha256": "0" * 64}, {"bytes": 7}, {"classes": ["a", "b"]}, {"arch": "other"}, {"precision": "int8"}):
        card.write_text(json.dumps(right | change))
        with pytest.raises(
            CheckpointError, match=rf"tiny\.onnx: is not the file that its card tiny\.json .*\({next(iter(change))} diff"
        ):
            OnnxBackend(weights.resolve(tiny_onnx))
