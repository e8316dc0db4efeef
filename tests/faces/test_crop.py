from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from mien.errors import InputError
from mien.faces.crop import ARCFACE, FRAME, align_face, crop_face, is_plausible, similarity, template_points
from mien.faces.mtcnn import MTCNN
from mien.structures import Face

Array = NDArray[np.float64]

PHOTO = Image.open(Path(__file__).parents[2] / "docs" / "assets" / "astronaut.jpg").convert("RGB")  # NASA, public domain
POINTS = np.array([[204.2, 100.9], [247.0, 103.2], [225.2, 126.8], [204.6, 140.4], [244.1, 141.6]])
"""Eyes, nose and mouth corners of the photo, marked by eye, px."""

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def test_a_square_box_is_cut_exactly() -> None:
    face = Face([10, 20, 30, 40], 1.0)
    np.testing.assert_array_equal(crop_face(IMAGE, face, 1.0, 0.0), IMAGE[20:40, 10:30])


def test_scale_and_shift() -> None:
    face = Face([30, 20, 40, 40], 1.0)  # centre (35, 30), longer side 20
    np.testing.assert_array_equal(crop_face(IMAGE, face, 1.5, 0.1), IMAGE[17:47, 20:50])
    np.testing.assert_array_equal(crop_face(IMAGE, face, 0.5, -0.25), IMAGE[20:30, 30:40])


def test_outside_the_picture_a_crop_repeats_its_edge() -> None:
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
def test_wrong_numbers_of_a_crop_are_refused(scale: float, shift: float) -> None:
    with pytest.raises(InputError, match="positive scale"):
        crop_face(IMAGE, Face([0, 0, 1, 1], 1.0), scale, shift)


def test_empty_pictures_are_refused() -> None:
    with pytest.raises(InputError, match="needs a picture"):
        crop_face(np.zeros((0, 5, 3), np.uint8), Face([0, 0, 1, 1], 1.0))


def face(points: Array) -> Face:
    return Face([0, 0, 1, 1], 1.0, points)


def by_decomposition(points: Array, template: Array) -> Array:
    """Umeyama's equations 38 to 43, with a singular value decomposition."""
    p, q = points - points.mean(axis=0), template - template.mean(axis=0)
    u, d, vt = np.linalg.svd(q.T @ p / len(p))
    sign = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    turn = u @ np.diag(sign) @ vt * (d @ sign) / (p**2).sum(axis=1).mean()
    return np.column_stack([turn, template.mean(axis=0) - turn @ points.mean(axis=0)])


def turned(points: Array, degrees: float, scale: float, shift: tuple[float, float]) -> Array:
    c, s = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    return points @ np.array([[c, s], [-s, c]]) + shift


@given(st.floats(-180, 180), st.floats(0.05, 20), st.floats(-500, 500), st.floats(-500, 500))
def test_an_exact_similarity_is_found_again(degrees: float, scale: float, x: float, y: float) -> None:
    points = turned(template_points(112), degrees, scale, (x, y))
    matrix = similarity(points, template_points(112))
    assert np.abs(points @ matrix[:, :2].T + matrix[:, 2] - template_points(112)).max() < 1e-8


@pytest.mark.parametrize("seed", range(20))
def test_in_least_squares_as_umeyama_has_it(seed: int) -> None:
    random = np.random.default_rng(seed)
    points, template = random.normal(size=(2, 5, 2)) * 30
    template = template if seed % 2 else points + random.normal(size=(5, 2))
    np.testing.assert_allclose(similarity(points, template), by_decomposition(points, template), atol=1e-9)


def test_a_mirrored_face_is_not_mirrored_back() -> None:
    matrix = similarity(POINTS * [-1, 1], template_points(112))
    assert np.linalg.det(matrix[:, :2]) > 0


@pytest.mark.parametrize(
    "points", [np.zeros((5, 2)), np.ones((5, 2)), np.zeros((4, 2)), np.zeros((5, 3)), np.full((5, 2), np.nan)]
)
def test_points_that_give_no_similarity_are_refused(points: Array) -> None:
    with pytest.raises(InputError):
        similarity(points, ARCFACE)


def test_the_template_is_arcface_at_112() -> None:
    np.testing.assert_allclose(template_points(112)[2] - 0.5, [56.0252, 71.7366])


def test_a_margin_shows_more_around_the_same_middle() -> None:
    wide = template_points(100, margin=0.25)
    np.testing.assert_allclose(wide, (template_points(100) - 50) / 1.5 + 50)


@pytest.mark.parametrize("degrees", [3, 7, -20, 45, 177])
@pytest.mark.parametrize("scale", [0.4, 1.0, 2.3, 4.0])
def test_every_pixel_comes_from_its_place(degrees: float, scale: float) -> None:
    """On a ramp a pixel's value is its place: the mean error is below 0.1 px, no other than 8 bits explain."""
    columns, rows = np.meshgrid(np.arange(256), np.arange(256))
    ramps = np.stack([columns, rows, np.zeros_like(rows)], axis=-1).astype(np.uint8)
    size = round(160 / scale)
    points = turned(template_points(size) - size / 2, degrees, scale, (131.3, 120.8))
    aligned = align_face(ramps, face(points), size).astype(float)
    matrix = similarity(template_points(size), points)
    places = np.stack(np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5), axis=-1) @ matrix[:, :2].T + matrix[:, 2]
    aligned += 0.5  # Pillow cuts fractions off
    error = aligned[..., :2] - (places - 0.5)  # the first pixel's middle, at 0.5 px, holds 0
    error = error[((places > 2) & (places < 254)).all(axis=-1)]
    assert np.abs(error.mean(axis=0)).max() < 0.1
    assert np.abs(error).max() < 1.5


@pytest.mark.parametrize("degrees", [-30, -10, 15, 40])
@pytest.mark.parametrize("size", [48, 112])
def test_a_turned_photo_gives_the_same_face(degrees: int, size: int) -> None:
    centre = np.array([225.0, 121.0])
    picture = PHOTO.rotate(-degrees, Image.Resampling.BICUBIC, center=tuple(centre))  # Pillow turns the other way
    points = turned(POINTS - centre, degrees, 1.0, tuple(centre))
    still = align_face(np.asarray(PHOTO), face(POINTS), size).astype(float)
    again = align_face(np.asarray(picture), face(points), size).astype(float)
    assert np.abs(again - still).mean() < 3.5
    assert np.corrcoef(again.ravel(), still.ravel())[0, 1] > 0.995


def test_found_landmarks_make_a_turned_face_upright() -> None:
    detector = MTCNN(min_face=60, threads=1)
    crops = []
    for degrees in (0, 20):
        picture = np.asarray(PHOTO.rotate(degrees, Image.Resampling.BICUBIC, center=(225, 121)))
        (found,) = detector.detect(picture)
        crops.append(align_face(picture, found, 64).astype(float).ravel())
    assert np.corrcoef(crops)[0, 1] > 0.95


def test_shrinking_smooths() -> None:
    """Stripes of one px become an even grey, not a pattern."""
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    aligned = align_face(stripes, face(turned(template_points(32) - 16, 10, 6.0, (128, 128))), 32)
    assert np.ptp(aligned.astype(int)) < 12
    assert abs(aligned.mean() - 127.5) < 3


def test_outside_the_picture_an_aligned_face_repeats_its_edge() -> None:
    image = np.full((50, 50, 3), (10, 200, 60), np.uint8)
    aligned = align_face(image, face(turned(template_points(80), 30, 1.0, (-20, 10))), 80)
    assert np.abs(aligned.astype(int) - image[0, 0]).max() <= 1


def test_no_landmarks_is_a_clear_error() -> None:
    with pytest.raises(InputError, match="no landmarks to align by; choose a detector"):
        align_face(np.asarray(PHOTO), Face([0, 0, 1, 1], 1.0), 48)


@pytest.mark.parametrize(("size", "margin"), [(0, 0.0), (48, -0.5), (48, float("nan"))])
def test_wrong_numbers_of_an_alignment_are_refused(size: int, margin: float) -> None:
    with pytest.raises(InputError, match="alignment needs"):
        align_face(np.asarray(PHOTO), face(POINTS), size, margin=margin)


@pytest.mark.parametrize("points", [[[50, 50]] * 5, 50 + 1e-6 * FRAME, 50 + 500 * (FRAME - 0.5)])
def test_landmarks_that_are_no_faces_are_told(points: Any) -> None:
    assert not is_plausible(Face([20, 20, 80, 80], 0.9, points))
    assert not is_plausible(Face([20, 20, 80, 80], 0.9))
    assert is_plausible(Face([20, 20, 80, 80], 0.9, 50 + 57 * (FRAME - 0.5)))


def test_a_square_without_end_is_refused() -> None:
    """Points that no turn and no scale bring near a face's: the least squares shrink them to one."""
    x, y = (FRAME - FRAME.mean(axis=0)).T
    odd = Face([20, 20, 60, 60], 0.9, 40 + 20 * np.column_stack([-x * (y @ y) / (x @ x), y]))
    assert not is_plausible(odd)
    with pytest.raises(InputError, match="landmarks cannot belong to a face"):
        align_face(np.zeros((60, 80, 3), np.uint8), odd, 48, FRAME)
