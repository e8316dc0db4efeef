"""`mien.explain`: maps of small random networks, made as checkpoints are made, and of a small exported one."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from mien import Recognizer, cli, read_image
from mien.checkpoint import save_checkpoint
from mien.errors import InputError, MienError, UnknownNameError
from mien.explain import Faithfulness, compare_scores, explain, explain_crops, load_backend, measure_faithfulness
from mien.explain.attention import attention, has_attention
from mien.explain.base import project
from mien.explain.cam import _back
from mien.explain.faithfulness import CONTROL
from mien.labels import label_set
from mien.model_info import ModelInfo
from mien.models import create_model
from mien.preprocess import PreprocessSpec

ASTRONAUT = Path(__file__).parents[2] / "docs/assets/astronaut.jpg"
LAYERS = {"sa_csp_ca": 2, "resnet50_cbam_erf": 32, "resemotenet": 1, "vgg16_gcca": 9, "stn_resnet50": 1}


class Corner:
    """A network whose first class is the brightness of the top left quarter."""

    device = "cpu"
    info = ModelInfo("corner", {}, ("a", "b"), "custom", PreprocessSpec((16, 16), 1, (0.5,), (0.25,)))

    def logits(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        bright = batch[:, 0, :8, :8].mean((1, 2))
        return np.stack([4 * bright, np.zeros_like(bright)], 1).astype(np.float32)


def corner_face() -> NDArray[np.uint8]:
    face = np.full((16, 16), 60, np.uint8)
    face[:8, :8] = 250
    return face


@pytest.mark.parametrize("method", ["occlusion", "rise"])
def test_the_map_finds_what_matters_and_is_faithful(method: str) -> None:
    recognizer = Recognizer(Corner(), detector=None)
    (found,) = explain_crops(recognizer, [corner_face()], method)
    values = found.crop_maps[method]
    assert values.min() == 0
    assert values.max() == pytest.approx(1)
    assert values[:8, :8].mean() > 3 * values[8:, 8:].mean()
    right = measure_faithfulness(recognizer.backend, found.inputs, values, 0)
    wrong = measure_faithfulness(recognizer.backend, found.inputs, 1 - values, 0)
    assert right.deletion < wrong.deletion
    assert right.insertion > wrong.insertion
    (again,) = explain_crops(recognizer, [corner_face()], method)
    assert (again.crop_maps[method] == values).all()


@pytest.mark.parametrize("name", LAYERS)
def test_attention_and_cam_of_every_system(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name)
    spec = PreprocessSpec((64, 64), model.in_channels, (0.5,) * model.in_channels, (0.25,) * model.in_channels)
    save_checkpoint(tmp_path / "a.safetensors", model.state_dict(), ModelInfo(name, {}, label_set("fer2013"), "fer2013", spec))
    backend = load_backend(tmp_path / "a.safetensors")
    face = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    recognizer = Recognizer(backend, detector=None)
    before = recognizer.probabilities([face])
    (found,) = explain_crops(recognizer, [face], ["attention", "grad_cam"])
    assert len(found.crop_maps) == LAYERS[name] + 1
    for values in found.maps.values():
        assert values.shape == (64, 64)
        assert 0 <= values.min() <= values.max() <= 1
    assert (found.box is not None) == (name == "stn_resnet50")
    assert (recognizer.probabilities([face]) == before).all()


def test_attention_of_timms_squeeze_and_excitation_is_recorded() -> None:
    torch.manual_seed(0)
    model = create_model("resnet50_se", in_channels=1, stem="small").eval()
    block, seen = model.backbone.layer4[2], {}
    torch.nn.init.ones_(block.bn3.weight)  # it starts at zero
    block.se.register_forward_hook(lambda layer, inputs, output: seen.update(x=inputs[0], y=output.clone()))
    backend = SimpleNamespace(model=model, info=Corner.info)
    found = attention(backend, np.random.default_rng(0).random((2, 1, 48, 48), np.float32), np.zeros(2, np.int64))
    assert has_attention(model)
    assert len(found.maps) == len(found.channels) == 16
    assert seen["x"].abs().sum() > 0
    assert torch.allclose(seen["x"] * torch.from_numpy(found.channels["layer4.2.se"])[..., None, None], seen["y"])


def test_a_window_without_area_has_no_map() -> None:
    values = np.random.default_rng(0).random((8, 8), np.float32)
    assert _back(values, np.eye(2, 3, dtype=np.float32)) == pytest.approx(values, abs=1e-6)
    for theta in (np.zeros((2, 3)), np.array([[1.0, 1, 0], [1, 1, 0]]), np.array([[0.1, 0, 0], [0, 0.1, 0]])):
        with pytest.raises(InputError, match=r"without area.*choose the method attention, occlusion or rise"):
            _back(values, theta.astype(np.float32))


def test_maps_are_compared_with_random_maps_face_by_face() -> None:
    faces = [{"rise": Faithfulness(0.1, 0.6), CONTROL: Faithfulness(0.3, 0.3)}] * 2
    faces.append({"rise": Faithfulness(0.2, 0.5), CONTROL: Faithfulness(0.3, 0.4)})
    (name, curves), *others = compare_scores(faces).items()
    assert name == "rise"
    assert not others
    assert curves["deletion"]["difference"] == pytest.approx(-0.5 / 3)
    low, high = curves["deletion"]["interval"]
    assert high - low == pytest.approx(2 * 1.96 * np.std([-0.2, -0.2, -0.1], ddof=1) / np.sqrt(3))
    assert curves["insertion"]["random"] == pytest.approx(1 / 3)


def test_a_map_is_where_the_face_is_in_the_photo() -> None:
    image = read_image(ASTRONAUT)
    found = explain(None, image, "occlusion")
    inside = project(np.ones((8, 8), np.float32), found.matrix, found.size) > 0
    rows, columns = np.nonzero(found.maps["occlusion"])
    assert found.maps["occlusion"].shape == image.shape[:2]
    assert inside[rows, columns].all()
    assert found.prediction.face is not None
    left, top, right, bottom = found.prediction.face.box_xyxy
    assert left < columns.mean() < right
    assert (top + bottom) / 2 < rows.mean() < bottom  # at the smile


def test_errors_say_what_to_do(tiny_onnx: Path) -> None:
    recognizer = Recognizer(tiny_onnx, detector=None)
    face = np.zeros((40, 40, 3), np.uint8)
    with pytest.raises(UnknownNameError, match="unknown explanation method 'ris'; did you mean 'rise'"):
        explain(recognizer, face, "ris")
    with pytest.raises(InputError, match="choose the method occlusion or rise, or give the checkpoint"):
        explain(recognizer, face, "grad_cam")
    with pytest.raises(UnknownNameError, match="unknown class 'hapy'; did you mean 'happy'"):
        explain(recognizer, face, "rise", target="hapy")
    with pytest.raises(MienError, match="no face found"):
        explain(str(tiny_onnx), face, "rise")
    with pytest.raises(InputError, match="explain one of its members: dlib_resnet-fer2013-small, "):
        explain_crops(Recognizer("ensemble", detector=None), [face])


def test_the_command_writes_pictures_and_numbers(tmp_path: Path, tiny_onnx: Path) -> None:
    words = ["explain", str(ASTRONAUT), "--model", str(tiny_onnx), "--method", "occlusion", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == 0, done.output
    assert {path.name for path in (tmp_path / "out").glob("*.*")} >= {
        "astronaut.png",
        "astronaut-occlusion.png",
        "explain.json",
    }
    (photo,) = json.loads((tmp_path / "out/explain.json").read_text())["photos"]
    assert {*photo["faces"][0]["maps"]["occlusion"]} == {"range", "deletion", "insertion"}


def test_the_map_of_a_photo_does_not_replace_the_picture_of_another(tmp_path: Path, tiny_onnx: Path) -> None:
    for name in ("a.png", "a-occlusion.png"):
        Image.new("RGB", (48, 48), "grey").save(tmp_path / name)
    words = ["explain", str(tmp_path / "a.png"), str(tmp_path / "a-occlusion.png"), "--model", str(tiny_onnx), "--no-detect"]
    words += ["--method", "occlusion", "--no-faithfulness", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == 0, done.output
    written = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert written == ["a-occlusion-2.png", "a-occlusion-occlusion.png", "a-occlusion.png", "a.png"]


def test_gradient_free_methods_import_no_torch(tiny_onnx: Path) -> None:
    code = f"""
import sys, numpy as np
from mien import Recognizer
from mien.explain import explain
explain(Recognizer({str(tiny_onnx)!r}, detector=None), np.zeros((40, 40, 3), np.uint8), ["rise", "occlusion"])
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=120)
