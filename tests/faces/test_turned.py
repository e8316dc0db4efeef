"""Faces that are turned, covered or hard to see: the second look at a face, and the second search of a picture."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mien.errors import InputError
from mien.faces import Detector, create_detector, detector_names
from mien.faces.centerface import CenterFace
from mien.faces.detect import check_faces, roll, turn
from mien.faces.mtcnn import MTCNN
from mien.faces.track import VideoFaces
from mien.predict.recognizer import Recognizer
from mien.structures import Face, Frame

Picture = NDArray[np.uint8]

PORTRAIT = Image.fromarray(skimage.data.astronaut()).crop((100, 0, 340, 240))  # NASA, public domain
UPRIGHT = np.asarray(PORTRAIT)


def turned(degrees: float) -> Picture:
    """Return the portrait turned clockwise about the face's centre, (125, 121), on a grey ground."""
    return np.asarray(PORTRAIT.rotate(-degrees, Image.Resampling.BICUBIC, center=(125, 121), fillcolor=(128, 128, 128)))


@pytest.fixture(scope="module")
def centerface() -> CenterFace:
    return CenterFace(threads=1)


@pytest.fixture(scope="module")
def recognizer(centerface: CenterFace) -> Recognizer:
    return Recognizer(detector=centerface, threads=1)


@pytest.mark.parametrize("degrees", [45, 90, 135, 180, 225, 270, 315])
def test_a_turned_face_gets_the_label_of_the_upright_one(recognizer: Recognizer, degrees: int) -> None:
    (upright,) = recognizer.predict(UPRIGHT)
    (prediction,) = recognizer.predict(turned(degrees))
    assert prediction.face is not None
    assert prediction.face.landmarks is not None
    assert abs((roll(prediction.face.landmarks) - degrees + 180) % 360 - 180) < 15
    assert prediction.label == upright.label
    assert abs(prediction.confidence - upright.confidence) < 0.25


def test_turned_faces_next_to_an_upright_one_are_found(centerface: CenterFace) -> None:
    picture = np.concatenate([turned(90), UPRIGHT, turned(180), turned(270)], axis=1)
    faces = sorted(centerface.detect(picture), key=lambda face: float(face.box_xyxy[0]))
    angles = [roll(face.landmarks) for face in faces if face.landmarks is not None]
    assert np.abs((np.array(angles) - [90, 0, 180, 270] + 180) % 360 - 180).max() < 15


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_mtcnn_searches_a_picture_again_when_it_finds_nothing(degrees: int) -> None:
    detector, picture = MTCNN(threads=1), np.ascontiguousarray(np.rot90(UPRIGHT, -degrees // 90))
    assert detector.detect_frame(picture) == []
    (face,) = detector.detect(picture)
    (upright,) = detector.detect(UPRIGHT)
    expected = turn(upright, (240, 240), -degrees // 90)
    np.testing.assert_allclose(face.box_xyxy, expected.box_xyxy, atol=1)
    np.testing.assert_allclose(face.landmarks, expected.landmarks, atol=1)


@pytest.mark.parametrize("detector", [CenterFace, MTCNN])
def test_only_a_photo_without_a_face_is_searched_again(detector: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    searches = []
    search = detector._search
    monkeypatch.setattr(
        detector, "_search", lambda self, *values, **named: searches.append(self) or search(self, *values, **named)
    )
    found = detector(threads=1)
    found.detect(UPRIGHT)
    assert len(searches) == 1
    video, blank = VideoFaces(found, detect_every=1), np.zeros((120, 160, 3), np.uint8)
    assert [video.step(Frame(blank, index, index / 10)) for index in range(3)] == [[], [], []]
    assert len(searches) == 1 + 3
    found.detect(blank)
    assert len(searches) >= 1 + 3 + 5


@pytest.mark.parametrize("box", [(85, 100, 175, 125), (80, 135, 170, 190), (125, 60, 180, 190)])
def test_a_covered_face_is_found(centerface: CenterFace, box: tuple[int, int, int, int]) -> None:
    picture = PORTRAIT.copy()
    ImageDraw.Draw(picture).rectangle(box, fill=(30, 30, 40))
    assert len(centerface.detect(np.asarray(picture))) == 1


@pytest.mark.parametrize("edges", [(120, 0, 240, 240), (0, 0, 130, 240), (0, 115, 240, 240), (0, 0, 240, 135)])
def test_a_face_cut_by_the_edge_is_found(centerface: CenterFace, edges: tuple[int, int, int, int]) -> None:
    assert len(centerface.detect(np.asarray(PORTRAIT.crop(edges)))) == 1


def test_a_turned_face_is_followed(centerface: CenterFace) -> None:
    for degrees in (90, 180):
        (face,) = centerface.detect(turned(degrees))
        (followed,) = centerface.follow(np.roll(turned(degrees), (6, 4), axis=(0, 1)), [face])
        assert followed is not None
        np.testing.assert_allclose(followed.box_xyxy, face.box_xyxy + np.array([4, 6, 4, 6]), atol=8)
        assert followed.landmarks is not None
        assert abs((roll(followed.landmarks) - degrees + 180) % 360 - 180) < 15
    assert centerface.follow(np.zeros_like(UPRIGHT), [face]) == [None]
    far = [Face([-1e5, -1e5, 1e5, 1e5], 1.0), Face([900, 900, 940, 950], 1.0), Face([10, 10, 10.2, 10.2], 1.0)]
    assert centerface.follow(np.zeros_like(UPRIGHT), far) == [None] * 3


@pytest.mark.parametrize("name", detector_names())
def test_eight_threads_get_the_faces_of_one(name: str) -> None:
    detector: Detector = create_detector(name, threads=1)
    pictures = [np.roll(UPRIGHT, (dy, dx), axis=(0, 1)) for dy in (0, 3, 9) for dx in (0, 5, 11)]
    expected = [[face.to_dict() for face in detector.detect(picture)] for picture in pictures]
    assert any(expected)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(detector.detect, pictures * 4))
    assert [[face.to_dict() for face in faces] for faces in found] == expected * 4


@given(st.integers(-4, 4), st.integers(1, 90), st.integers(1, 90))
def test_a_face_is_turned_as_its_picture_is(quarters: int, right: int, down: int) -> None:
    points = [[10, 10], [20, 10], [15, 15], [11, 20], [19, 20]]
    face = Face([right, down, right + 5, down + 8], 1.0, points)
    picture = np.zeros((100, 120), np.uint8)
    picture[down : down + 8, right : right + 5] = 1
    moved = turn(face, (120, 100), quarters)
    rows, columns = np.nonzero(np.rot90(picture, quarters))
    assert moved.box_xyxy.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert moved.landmarks is not None
    assert abs((roll(moved.landmarks) + 90 * quarters + 180) % 360 - 180) < 1e-3
    back = turn(moved, (120, 100) if quarters % 2 == 0 else (100, 120), -quarters)
    np.testing.assert_array_equal(back.box_xyxy, face.box_xyxy)
    np.testing.assert_array_equal(back.landmarks, face.landmarks)


POINTS = np.array([[20, 20], [30, 20], [25, 25], [21, 32], [29, 32]])


@pytest.mark.parametrize(
    "face",
    [
        Face([-50, 10, -1, 40], 1.0),
        Face([10, 500, 40, 540], 1.0),
        Face([-1e5, -1e5, 1e5, 1e5], 1.0),
        Face([10, 10, 10.5, 40], 1.0),
        Face([15, 10, 35, 40], 1.0, POINTS + 1000),
        Face([15, 10, 35, 40], 1.0, np.where(np.arange(5)[:, None] == 2, -40, POINTS)),
    ],
)
def test_impossible_faces_of_ones_own_detector_are_refused(recognizer: Recognizer, face: Face) -> None:
    class Own:
        def detect(self, image: Picture) -> list[Face]:
            return [face]

    own = Recognizer(recognizer.backend, detector=Own())
    with pytest.raises(InputError, match=r"the detector returned .* for a picture of 80 x 60 px, which cannot be a face"):
        own.predict(np.zeros((60, 80, 3), np.uint8))


def test_faces_partly_outside_are_possible() -> None:
    image = np.zeros((60, 80), np.uint8)
    check_faces([Face([-20, -10, 15, 40], 1.0), Face([60, 30, 120, 110], 1.0), Face([15, 10, 35, 40], 1.0, POINTS)], image)
