from __future__ import annotations

import importlib.util
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from mien.errors import CheckpointError, UnknownNameError
from mien.faces import create_detector, detector_names, mtcnn
from mien.faces.mtcnn import MTCNN, load_weights, weights_folder

ASTRONAUT = skimage.data.astronaut()  # NASA, public domain, 512 x 512

MARKED = np.array([[204.2, 100.9], [247.0, 103.2], [225.2, 126.8], [204.6, 140.4], [244.1, 141.6]])
"""Eye, eye, nose, mouth corner, mouth corner, left of the picture first, marked by eye on an enlargement, px."""

EYES = 42.9
"""Distance of the marked eyes, px."""

BOX = np.array([181, 65, 270, 178])
"""The face from hair to chin and ear to ear, marked by eye, px."""


@pytest.fixture(scope="module")
def detector() -> MTCNN:
    return MTCNN(min_face=20, threads=1)


def overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Intersection over union of two boxes."""
    shared = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return float(shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared))


def only(faces: list) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Box and landmarks of the only face."""
    assert len(faces) == 1
    return faces[0].box_xyxy.astype(float), faces[0].landmarks.astype(float)


def test_one_face_in_the_right_place(detector: MTCNN) -> None:
    faces = detector.detect(ASTRONAUT)
    box, landmarks = only(faces)
    assert faces[0].score > 0.99
    assert overlap(box, BOX) > 0.8
    assert np.hypot(*(landmarks - MARKED).T).max() < 0.1 * EYES


@pytest.mark.parametrize("angle", [-30, 30])
def test_rotated(detector: MTCNN, angle: int) -> None:
    centre = (225.0, 120.0)
    turned = Image.fromarray(ASTRONAUT).rotate(angle, Image.Resampling.BICUBIC, center=centre)
    _, landmarks = only(detector.detect(np.asarray(turned)))
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    expected = (MARKED - centre) @ np.array([[c, -s], [s, c]]) + centre
    assert np.hypot(*(landmarks - expected).T).max() < 0.15 * EYES


@pytest.mark.parametrize("height", [40, 28])
def test_small(detector: MTCNN, height: int) -> None:
    scale = height / (BOX[3] - BOX[1])
    side = round(512 * scale)
    box, landmarks = only(detector.detect(np.asarray(Image.fromarray(ASTRONAUT).resize((side, side)))))
    assert overlap(box, BOX * scale) > 0.6
    assert np.hypot(*(landmarks - MARKED * scale).T).max() < 0.15 * EYES * scale


@pytest.mark.parametrize("light", [0.3])
def test_dark(detector: MTCNN, light: float) -> None:
    box, landmarks = only(detector.detect(np.asarray(ImageEnhance.Brightness(Image.fromarray(ASTRONAUT)).enhance(light))))
    assert overlap(box, BOX) > 0.7
    assert np.hypot(*(landmarks - MARKED).T).max() < 0.15 * EYES


def test_grey(detector: MTCNN) -> None:
    box, _ = only(detector.detect(np.asarray(Image.fromarray(ASTRONAUT).convert("L").convert("RGB"))))
    assert overlap(box, BOX) > 0.8


def test_several_faces_of_several_sizes(detector: MTCNN) -> None:
    picture = Image.new("RGB", (900, 560), (120, 120, 120))
    portrait = Image.fromarray(ASTRONAUT).crop((130, 10, 320, 230))
    positions = [(0, 0, 2.2), (440, 20, 1.0), (660, 30, 0.7), (450, 300, 0.5), (600, 320, 0.4)]
    for x, y, scale in positions:
        picture.paste(portrait.resize((round(190 * scale), round(220 * scale))), (x, y))
    faces = detector.detect(np.asarray(picture))
    assert len(faces) == len(positions)
    assert [face.score for face in faces] == sorted((face.score for face in faces), reverse=True)
    for x, y, scale in positions:
        expected = (BOX - [130, 10, 130, 10]) * scale + [x, y, x, y]
        assert max(overlap(face.box_xyxy.astype(float), expected) for face in faces) > 0.6


@pytest.mark.parametrize("name", ["brick", "grass", "gravel", "text", "coins"])
def test_textures_have_none(detector: MTCNN, name: str) -> None:
    grey = getattr(skimage.data, name)()
    assert detector.detect(np.repeat(grey[..., None], 3, axis=2)) == []


def test_the_same_picture_gives_the_same_faces_whatever_came_before(detector: MTCNN) -> None:
    first = [face.to_dict() for face in detector.detect(ASTRONAUT)]
    detector.detect(skimage.data.coffee()[:200, :300])
    assert [face.to_dict() for face in detector.detect(ASTRONAUT)] == first
    assert [face.to_dict() for face in MTCNN(min_face=20, threads=1).detect(ASTRONAUT)] == first


def test_a_moved_face_moves_the_box(detector: MTCNN) -> None:
    box, landmarks = only(detector.detect(ASTRONAUT))
    dx, dy = 37, 23
    moved = np.pad(ASTRONAUT, ((dy, 0), (dx, 0), (0, 0)), mode="edge")[:512, :512]
    moved_box, moved_landmarks = only(detector.detect(moved))
    assert overlap(moved_box, box + np.array([dx, dy, dx, dy])) > 0.85
    assert np.hypot(*(moved_landmarks - landmarks - [dx, dy]).T).max() < 0.1 * EYES


def test_registry() -> None:
    assert "mtcnn" in detector_names()
    assert isinstance(create_detector("mtcnn", threads=1), MTCNN)
    with pytest.raises(UnknownNameError, match="did you mean 'mtcnn'"):
        create_detector("mtcn")


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, mien.faces; assert 'onnxruntime' not in sys.modules and 'joblib' not in sys.modules; "
        "mien.faces.create_detector(); assert not {'torch', 'tensorflow', 'mtcnn', 'onnx', 'cv2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("network", ["pnet", "rnet", "onet"])
def test_a_changed_byte_is_refused_before_anything_is_unpickled(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytearray((weights_folder() / f"{network}.lz4").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / f"{network}.lz4").write_bytes(data)
    monkeypatch.setattr(mtcnn.joblib, "load", lambda *_: pytest.fail("unpickled"))
    with pytest.raises(CheckpointError, match=r"corrupt or of another version .* pip install") as caught:
        load_weights(network, tmp_path)
    assert f"{network}.lz4" in str(caught.value)


def test_missing_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match=r"pnet\.lz4: cannot read"):
        load_weights("pnet", tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match="package mtcnn, which is not installed; run: pip install"):
        MTCNN()


def test_a_copy_of_the_weights_is_as_good(tmp_path: Path) -> None:
    shutil.copy(weights_folder() / "pnet.lz4", tmp_path)
    copy, installed = load_weights("pnet", tmp_path), load_weights("pnet")
    assert copy.keys() == installed.keys()
    assert copy["conv1.weight"].shape == (10, 3, 3, 3)


def test_the_graphs_are_what_the_script_writes(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    root = Path(__file__).parents[2]
    runpy.run_path(str(root / "scripts" / "build_mtcnn_graphs.py"))["main"](tmp_path)
    for network in ("pnet", "rnet", "onet"):
        name = f"mtcnn_{network}.onnx"
        assert (tmp_path / name).read_bytes() == (root / "src" / "mien" / "faces" / name).read_bytes()
