import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mien.errors import CheckpointError, InputError, UnknownNameError
from mien.faces.crop import FRAME, FRAME_MARGIN, FRAME_SCALE, crop_face
from mien.model_info import ModelInfo
from mien.predict.onnx_backend import OnnxBackend
from mien.predict.recognizer import Recognizer, softmax
from mien.preprocess import preprocess
from mien.structures import Face, Prediction

PICTURE = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)


class Fixed:
    """A detector that finds the same faces in every picture."""

    def __init__(self, *faces: Face) -> None:
        self.faces = list(faces)

    def detect(self, image: np.ndarray) -> list[Face]:
        return self.faces


SMALL, LARGE = Face([5, 5, 25, 30], 0.99), Face([40, 20, 120, 110], 0.9)


@pytest.fixture
def recognizer(tiny_onnx: Path) -> Recognizer:
    return Recognizer(tiny_onnx, detector=Fixed(SMALL, LARGE), batch_size=2)


def crops(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    return [random.integers(0, 256, (30 + 7 * i, 48, 3)[: 2 + i % 2], dtype=np.uint8) for i in range(count)]


def test_the_largest_face_comes_first(recognizer: Recognizer) -> None:
    predictions = recognizer.predict(PICTURE)
    assert [p.face for p in predictions] == [LARGE, SMALL]
    assert all(p.classes == recognizer.classes for p in predictions)
    assert [p.source for p in predictions] == ["picture 1"] * 2
    assert all(p.track is None and p.time is None for p in predictions)


def test_max_faces_keeps_the_largest(tiny_onnx: Path) -> None:
    assert [p.face for p in Recognizer(tiny_onnx, detector=Fixed(SMALL, LARGE), max_faces=1).predict(PICTURE)] == [LARGE]


def test_a_face_is_cropped_and_preprocessed_as_the_model_says(recognizer: Recognizer, tiny_info: ModelInfo) -> None:
    crop = crop_face(PICTURE, LARGE, tiny_info.preprocess.crop_scale, tiny_info.preprocess.crop_shift)
    logits = recognizer.backend.logits(preprocess([crop], tiny_info.preprocess))
    np.testing.assert_allclose(recognizer.predict(PICTURE)[0].probs, softmax(logits)[0], atol=1e-6)


def test_an_upright_face_is_aligned_to_what_its_crop_shows(recognizer: Recognizer, tiny_onnx: Path) -> None:
    spec = recognizer.backend.info.preprocess
    smooth = np.asarray(Image.fromarray(PICTURE).resize((40, 30)).resize((160, 120), Image.Resampling.BICUBIC))
    face = Face([50, 30, 110, 90], 0.9, [80, 60] + FRAME_SCALE * 60 / (1 + 2 * FRAME_MARGIN) * (FRAME - 0.5))
    shown = [Recognizer(tiny_onnx, detector=Fixed(face), align=align).crops(smooth, [face]) for align in (False, True)]
    expected, aligned = (preprocess(crops, spec) * np.reshape(spec.std, (1, -1, 1, 1)) for crops in shown)
    assert np.abs(expected - aligned).mean() < 0.2 * np.abs(expected - aligned[..., ::-1]).mean()


@pytest.mark.parametrize("degrees", [-25, 25])
def test_alignment_reads_a_tilted_face_as_the_upright_one(degrees: int) -> None:
    photo = Image.open(Path(__file__).parents[2] / "docs" / "assets" / "astronaut.jpg").convert("RGB")
    tilted = np.asarray(photo.rotate(degrees, Image.Resampling.BICUBIC, center=(225, 120)))
    upright = Recognizer(align=True).predict(np.asarray(photo))[0]
    away = [np.abs(Recognizer(align=align).predict(tilted)[0].probs - upright.probs).max() for align in (True, False)]
    assert away[0] < 0.2
    assert away[0] < away[1]


def test_faces_are_aligned_where_they_have_landmarks(tiny_onnx: Path) -> None:
    marked = Face(LARGE.box_xyxy, 0.9, [80, 65] + 70 * (FRAME - 0.5))
    plain, aligned, left = (
        Recognizer(tiny_onnx, detector=Fixed(face), align=align).crops(PICTURE, [face])[0]
        for face, align in ((LARGE, None), (marked, None), (marked, False))
    )
    np.testing.assert_array_equal(plain, left)
    assert aligned.shape == (40, 40, 3) != plain.shape


def test_alignment_needs_landmarks(tiny_onnx: Path) -> None:
    with pytest.raises(InputError, match="choose a detector, or leave align out"):
        Recognizer(tiny_onnx, detector=None, align=True)
    with pytest.raises(InputError, match="haar returns no landmarks"):
        Recognizer(tiny_onnx, detector="haar", align=True)
    (reading,) = Recognizer(tiny_onnx, detector=Fixed(SMALL), align=True).stream([PICTURE])
    assert "choose a detector that gives them" in str(reading.error)


def test_every_kind_of_source_gives_the_same(recognizer: Recognizer, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(PICTURE).save(path)
    expected = recognizer.predict(PICTURE)[0].probs
    for source in (path, str(path), path.read_bytes(), Image.fromarray(PICTURE)):
        first = recognizer.predict(source)[0]
        np.testing.assert_array_equal(first.probs, expected)
        assert first.source == (str(path) if isinstance(source, (str, Path)) else "picture 1")


def test_an_open_file_is_one_source(recognizer: Recognizer, tmp_path: Path) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    with (tmp_path / "a.png").open("rb") as file:
        assert [p.face for p in recognizer.predict(file)] == [LARGE, SMALL]


def test_batched_equals_single(recognizer: Recognizer) -> None:
    faces = crops(7)
    batched = recognizer.predict_faces(faces)
    single = [recognizer.predict_faces([face])[0] for face in faces]
    assert len(batched) == 7
    np.testing.assert_allclose([p.probs for p in batched], [p.probs for p in single], atol=1e-5)
    assert all(p.face is None for p in batched)


def test_a_bad_crop_among_many_is_named_by_its_place(recognizer: Recognizer) -> None:
    faces = crops(7) * 11
    faces[70] = faces[70].astype(np.float32)
    with pytest.raises(InputError, match="crop 70 must be uint8"):
        recognizer.predict_faces(faces)


def test_no_face_is_an_empty_result(tiny_onnx: Path) -> None:
    assert Recognizer(tiny_onnx, detector=Fixed()).predict(PICTURE) == []
    assert Recognizer(tiny_onnx).predict(np.zeros((80, 80, 3), np.uint8)) == []
    assert Recognizer(tiny_onnx, detector=None).predict_faces([]) == []


@pytest.mark.parametrize("crop", [np.zeros((9, 8, *more), np.uint8) for more in ((), (1,), (3,), (4,))])
def test_one_crop_is_no_list_of_crops(tiny_onnx: Path, crop: np.ndarray) -> None:
    recognizer = Recognizer(tiny_onnx, detector=None)
    with pytest.raises(InputError, match=r"give \[crop\]"):
        recognizer.predict_faces(crop)  # type: ignore[arg-type]
    assert len(recognizer.predict_faces(np.zeros((2, 9, 8), np.uint8))) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [3, 4])
def test_a_crop_with_its_channels_first_is_not_several_grey_crops(tiny_onnx: Path, channels: int) -> None:
    recognizer = Recognizer(tiny_onnx, detector=None)
    array = np.zeros((channels, 48, 48), np.uint8)
    with pytest.raises(
        InputError, match=rf"{re.escape('[crop[:3].transpose(1, 2, 0)]')}.* {channels} grey crops, give list\(crops\)"
    ):
        recognizer.predict_faces(array)  # type: ignore[arg-type]
    assert len(recognizer.predict_faces(list(array))) == channels


def test_without_a_detector_a_picture_is_one_face(tiny_onnx: Path) -> None:
    recognizer = Recognizer(tiny_onnx, detector=None)
    (prediction,) = recognizer.predict(PICTURE)
    assert prediction.face is None
    np.testing.assert_array_equal(prediction.probs, recognizer.predict_faces([PICTURE])[0].probs)


def test_a_bad_picture_among_many_stops_nothing(recognizer: Recognizer, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    readings = list(recognizer.stream([PICTURE, tmp_path / "bad.jpg", tmp_path / "missing.jpg", PICTURE]))
    assert [reading.number for reading in readings] == [0, 1, 2, 3]
    assert [len(reading.predictions) for reading in readings] == [2, 0, 0, 2]
    assert [type(reading.error) for reading in readings] == [type(None), InputError, InputError, type(None)]


def test_sources_together_give_what_each_gives_alone(recognizer: Recognizer, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(PICTURE[::-1]).save(path)
    sources = [PICTURE, path, path, PICTURE]
    readings = list(recognizer.stream(iter(sources)))
    assert [reading.number for reading in readings] == [0, 1, 2, 3]
    for reading, source in zip(readings, sources, strict=True):
        alone = recognizer.predict(source)
        np.testing.assert_allclose([p.probs for p in reading.predictions], [p.probs for p in alone], atol=1e-5)


@pytest.mark.parametrize("several", [[PICTURE], (PICTURE, PICTURE), iter([PICTURE]), []])
def test_predict_takes_one_source(recognizer: Recognizer, several: object) -> None:
    with pytest.raises(InputError, match="call stream"):
        recognizer.predict(several)  # type: ignore[arg-type]


def test_stream_reads_only_what_is_asked_for(recognizer: Recognizer) -> None:
    def endless() -> Iterator[np.ndarray]:
        while True:
            yield PICTURE

    assert len(next(recognizer.stream(endless())).predictions) == 2


def test_bgr_only_when_said(recognizer: Recognizer) -> None:
    rgb = recognizer.predict(PICTURE)
    bgr = recognizer.predict(np.ascontiguousarray(PICTURE[..., ::-1]), bgr=True)
    np.testing.assert_array_equal([p.probs for p in rgb], [p.probs for p in bgr])
    turned = np.ascontiguousarray(PICTURE[..., ::-1])
    for nested in ([turned], [[turned]], turned):
        (reading,) = recognizer.stream(nested, bgr=True)
        np.testing.assert_array_equal([p.probs for p in rgb], [p.probs for p in reading.predictions])
    wrong = recognizer.predict(np.ascontiguousarray(PICTURE[..., ::-1]))
    assert not np.array_equal([p.probs for p in rgb], [p.probs for p in wrong])


def test_unsure_is_a_confidence_below_what_is_asked(tiny_onnx: Path) -> None:
    confidence = Recognizer(tiny_onnx, detector=None).predict(PICTURE)[0].confidence
    for below, unsure in ((confidence - 0.01, False), (confidence + 0.01, True)):
        recognizer = Recognizer(tiny_onnx, detector=None, unsure_below=below)
        assert recognizer.predict(PICTURE)[0].unsure is unsure
        assert recognizer.predict_faces([PICTURE])[0].unsure is unsure


@pytest.mark.parametrize("damage", ["text", "truncated", "empty", "folder", "missing"])
def test_an_unreadable_picture_is_an_input_error(recognizer: Recognizer, tmp_path: Path, damage: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(PICTURE).save(buffer, "JPEG")
    content = {"text": b"no picture", "truncated": buffer.getvalue()[:2000], "empty": b""}
    path = tmp_path / "a.jpg"
    if damage in content:
        path.write_bytes(content[damage])
    elif damage == "folder":
        path.mkdir()
    with pytest.raises(InputError, match=r"a\.jpg"):
        recognizer.predict(path)


@pytest.mark.parametrize("array", [PICTURE.astype(np.float32), np.zeros((0, 5, 3), np.uint8), np.zeros((2, 5, 5, 3), np.uint8)])
def test_a_bad_array_is_an_input_error(recognizer: Recognizer, array: np.ndarray) -> None:
    with pytest.raises(InputError):
        recognizer.predict(array)


def test_a_loaded_backend_is_taken_as_it_is(tiny_onnx: Path) -> None:
    backend = OnnxBackend(tiny_onnx)
    assert Recognizer(backend, detector=None).backend is backend


def test_wrong_arguments(tiny_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown model 'none'"):
        Recognizer("none")
    with pytest.raises(CheckpointError, match="no such model file"):
        Recognizer(tmp_path / "none.onnx")
    with pytest.raises(UnknownNameError, match="did you mean 'mtcnn'"):
        Recognizer(tiny_onnx, detector="mtcn")
    with pytest.raises(InputError):
        Recognizer(tiny_onnx, batch_size=0)
    with pytest.raises(InputError):
        Recognizer(tiny_onnx, min_face=-1)


def test_softmax_is_stable_and_sums_to_one() -> None:
    probs = softmax(np.array([[1e4, -1e4, 0.0], [-800, -801, -802]], np.float32))
    assert np.isfinite(probs).all()
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-6)
    assert probs.dtype == np.float32


def test_a_real_face_is_found(tiny_onnx: Path) -> None:
    data = pytest.importorskip("skimage.data")
    (prediction,) = Recognizer(tiny_onnx).predict(data.astronaut())
    assert prediction.face is not None
    left, top, right, bottom = prediction.face.box_xyxy
    assert left < 225 < right
    assert top < 130 < bottom
    assert isinstance(prediction, Prediction)


def test_min_face_leaves_out_what_is_smaller(tiny_onnx: Path) -> None:
    side = min(SMALL.box_xyxy[2:] - SMALL.box_xyxy[:2])
    for least, expected in ((side, [LARGE, SMALL]), (side + 1, [LARGE]), (1000, [])):
        recognizer = Recognizer(tiny_onnx, detector=Fixed(SMALL, LARGE), min_face=least)
        assert [p.face for p in recognizer.predict(PICTURE)] == expected
