import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien.structures import Face, Prediction, Quality

POINTS = np.arange(10).reshape(5, 2)


def test_a_face_is_checked_and_frozen() -> None:
    face = Face([1, 2, 3, 4], np.float32(0.5), POINTS)
    assert face.box_xyxy.dtype == np.float32
    assert type(face.score) is float
    with pytest.raises(dataclasses.FrozenInstanceError):
        face.score = 1.0  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        face.box_xyxy[0] = 9


@pytest.mark.parametrize("box", [[1, 2, 3], [3, 2, 1, 4], [1, 4, 3, 4], [0, 0, float("nan"), 1], [[0, 0, 1, 1]]])
def test_a_bad_box_is_refused(box: list[float]) -> None:
    with pytest.raises(ValueError, match="box_xyxy"):
        Face(box, 0.5)


def test_bad_landmarks_are_refused() -> None:
    with pytest.raises(ValueError, match="landmarks"):
        Face([0, 0, 1, 1], 0.5, np.zeros((4, 2)))


def test_a_face_does_not_follow_the_array_it_was_made_of() -> None:
    box = np.array([0, 0, 1, 1], np.float32)
    face = Face(box, 0.5)
    box[2] = 7
    assert face.box_xyxy[2] == 1


@pytest.mark.parametrize("landmarks", [None, POINTS])
def test_a_face_survives_json(landmarks: np.ndarray | None) -> None:
    face = Face([0.25, 1.5, 30, 40], 0.75, landmarks)
    assert Face.from_dict(json.loads(json.dumps(face.to_dict()))).to_dict() == face.to_dict()


def test_a_prediction_names_its_most_probable_class() -> None:
    prediction = Prediction(("happy", "sad"), [0.25, 0.75])
    assert prediction.label == "sad"
    assert prediction.confidence == 0.75


@pytest.mark.parametrize("probs", [[0.5, 0.6], [1.5, -0.5], [1.0], [float("nan"), 1.0]])
def test_bad_probabilities_are_refused(probs: list[float]) -> None:
    with pytest.raises(ValueError, match="probs"):
        Prediction(("happy", "sad"), probs)


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=8))
def test_a_prediction_survives_json(weights: list[float]) -> None:
    classes = tuple(f"class {i}" for i in range(len(weights)))
    prediction = Prediction(classes, np.array(weights) / sum(weights), Face([0, 0, 5, 5], 0.5), "a.jpg")
    seen = Quality(5, 20.5, 10.25, 99, -12.5, None, 0.5)
    prediction = dataclasses.replace(prediction, quality=seen, set=classes[:2])
    again = Prediction.from_dict(json.loads(json.dumps(prediction.to_dict())))
    assert (again.quality, again.set) == (seen, classes[:2])
    assert again.classes == classes
    assert again.source == "a.jpg"
    np.testing.assert_allclose(again.probs, prediction.probs, atol=1e-6)
