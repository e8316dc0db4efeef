from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien.errors import InputError
from mien.faces.crop import crop_face
from mien.structures import Face

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def test_a_square_box_is_cut_exactly() -> None:
    face = Face([10, 20, 30, 40], 1.0)
    np.testing.assert_array_equal(crop_face(IMAGE, face, 1.0, 0.0), IMAGE[20:40, 10:30])


def test_scale_and_shift() -> None:
    face = Face([30, 20, 40, 40], 1.0)  # centre (35, 30), longer side 20
    np.testing.assert_array_equal(crop_face(IMAGE, face, 1.5, 0.1), IMAGE[17:47, 20:50])
    np.testing.assert_array_equal(crop_face(IMAGE, face, 0.5, -0.25), IMAGE[20:30, 30:40])


def test_outside_the_edges_are_continued() -> None:
    crop = crop_face(IMAGE, Face([-10, -10, 10, 10], 1.0))
    np.testing.assert_array_equal(crop, np.pad(IMAGE[:10, :10], ((10, 0), (10, 0), (0, 0)), mode="edge"))
    crop = crop_face(IMAGE, Face([500, 500, 520, 520], 1.0))
    assert (crop == IMAGE[-1, -1]).all()


def test_grey_pictures_keep_their_shape() -> None:
    assert crop_face(IMAGE[..., 0], Face([10, 20, 30, 40], 1.0)).shape == (20, 20)


def test_the_crop_is_a_copy() -> None:
    image = IMAGE.copy()
    crop_face(image, Face([10, 20, 30, 40], 1.0))[:] = 0
    np.testing.assert_array_equal(image, IMAGE)


@given(
    st.floats(-200, 200), st.floats(-200, 200), st.floats(0.1, 150), st.floats(0.1, 150), st.floats(0.1, 3), st.floats(-1, 1)
)
def test_every_crop_is_square(left: float, top: float, width: float, height: float, scale: float, shift: float) -> None:
    face = Face([left, top, left + width, top + height], 1.0)
    crop = crop_face(IMAGE, face, scale, shift)
    sides = face.box_xyxy[2:] - face.box_xyxy[:2]
    assert crop.shape[0] == crop.shape[1]
    assert abs(crop.shape[0] - scale * sides.max()) <= 1
    assert crop.shape[2] == 3


@pytest.mark.parametrize(("scale", "shift"), [(0, 0), (-1, 0), (float("nan"), 0), (1, float("inf"))])
def test_wrong_numbers_are_refused(scale: float, shift: float) -> None:
    with pytest.raises(InputError, match="positive scale"):
        crop_face(IMAGE, Face([0, 0, 1, 1], 1.0), scale, shift)


def test_empty_pictures_are_refused() -> None:
    with pytest.raises(InputError, match="needs a picture"):
        crop_face(np.zeros((0, 5, 3), np.uint8), Face([0, 0, 1, 1], 1.0))
