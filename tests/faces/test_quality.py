import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from mien.faces.crop import FRAME, align_face
from mien.faces.quality import DETAIL, SHARPNESS, measure_quality, trusted
from mien.structures import Face, Quality

PHOTO = Image.open(Path(__file__).parents[2] / "docs" / "assets" / "astronaut.jpg").convert("RGB")  # NASA, public domain
POINTS = np.array([[204.2, 100.9], [247.0, 103.2], [225.2, 126.8], [204.6, 140.4], [244.1, 141.6]])
FACE = Face([180, 60, 272, 176], 0.99, POINTS)
CROP = Image.fromarray(align_face(np.asarray(PHOTO), FACE, 48, FRAME))


def of(*crops: Image.Image | np.ndarray) -> list[Quality]:
    return measure_quality([np.asarray(crop) for crop in crops], [None] * len(crops))


def test_a_clear_face_keeps_its_confidence() -> None:
    (seen,) = of(CROP)
    assert SHARPNESS[0] < seen.sharpness < SHARPNESS[1]
    assert seen.detail > 2 * DETAIL
    assert trusted(0.9, seen) == 0.9
    assert trusted(0.9, None) == 0.9


@pytest.mark.parametrize("picture", ["black", "grey", "ramp", "noise"])
def test_where_there_is_nothing_to_see_no_confidence_can_be_trusted(picture: str) -> None:
    random = np.random.default_rng(0)
    values = {
        "black": np.zeros((48, 48)),
        "grey": np.full((48, 48, 3), 130),
        "ramp": np.add.outer(np.arange(48), np.arange(48)),
        "noise": random.normal(128, 60, (48, 48)).clip(0, 255),
    }
    (seen,) = of(values[picture].astype(np.uint8))
    assert trusted(1.0, seen) == 0


def test_sharpness_falls_with_blur_darkness_and_size() -> None:
    blurred = [CROP.filter(ImageFilter.GaussianBlur(sigma)) for sigma in (0, 0.7, 1.5, 3)]
    darker = [CROP.point([round(level * light) for level in range(256)] * 3) for light in (1, 0.5, 0.2, 0.05)]
    smaller = [CROP.resize((side, side), Image.Resampling.BOX) for side in (48, 32, 16, 5)]
    for crops in (blurred, darker, smaller):
        sharpness = [seen.sharpness for seen in of(*crops)]
        assert sharpness == sorted(sharpness, reverse=True)
        assert sharpness[-1] < SHARPNESS[0]
    assert [seen.brightness for seen in of(*darker)] == pytest.approx(
        [np.asarray(d.convert("L")).mean() for d in darker], abs=1
    )
    assert [seen.size for seen in of(*smaller)] == [48, 32, 16, 5]


def test_what_the_network_gets_more_contrast_of_is_seen_better() -> None:
    dark, blank = CROP.point([round(level * 0.1) for level in range(256)] * 3), np.full((48, 48), 7, np.uint8)
    faint_noise = np.random.default_rng(0).normal(20, 2, (48, 48)).round().astype(np.uint8)
    crops = [np.asarray(dark), blank, faint_noise, np.asarray(CROP)]
    before, after = measure_quality(crops, [None] * 4), measure_quality(crops, [None] * 4, None, min_contrast=0.125)
    assert [trusted(0.9, seen) for seen in before] == [0, 0, 0, 0.9]
    assert [trusted(0.9, seen) for seen in after] == [0.9, 0, 0, 0.9]
    assert [seen.brightness for seen in after] == [seen.brightness for seen in before]
    assert after[3] == before[3]


@pytest.mark.parametrize("part", ["left lens", "right lens", "mask"])
def test_a_hidden_eye_or_mouth_costs_confidence(part: str) -> None:
    covered = CROP.copy()
    boxes = {"left lens": (6, 11, 23, 26), "right lens": (25, 11, 42, 26), "mask": (6, 26, 42, 47)}
    ImageDraw.Draw(covered).ellipse(boxes[part], fill=(40, 60, 90))
    (seen,) = of(covered)
    assert seen.detail < DETAIL
    assert trusted(0.9, seen) == pytest.approx(0.7)
    assert trusted(0.1, seen) == 0


def test_a_face_cut_off_by_the_edge_costs_confidence() -> None:
    inside, outside = (Face(box, 0.9) for box in ([0, 0, 40, 40], [0, 0, 40, 58]))
    costs = [trusted(0.9, measure_quality([np.asarray(CROP)], [face], (40, 40))[0]) for face in (inside, outside)]
    assert costs == pytest.approx([0.9, 0.7])


def turned(yaw: float, roll: float) -> Face:
    """Return a face whose eyes and mouth are in a plane, the nose half the distance between the eyes before it."""
    head = np.array([[-1, -1, 0], [1, -1, 0], [0, 0.2, 1.0], [-0.7, 1, 0], [0.7, 1, 0]]) * 30
    a, b = math.radians(yaw), math.radians(roll)
    x = head[:, 0] * math.cos(a) + head[:, 2] * math.sin(a)
    points = np.stack([x * math.cos(b) - head[:, 1] * math.sin(b), x * math.sin(b) + head[:, 1] * math.cos(b)], 1)
    return Face([50, 50, 150, 150], 0.9, points + 100)


@pytest.mark.parametrize("roll", [-170, -90, -20, 0, 35, 90, 180])
@pytest.mark.parametrize("yaw", [-50, -20, 0, 30])
def test_yaw_and_roll_come_from_the_landmarks(yaw: float, roll: float) -> None:
    (seen,) = measure_quality([np.zeros((40, 40), np.uint8)], [turned(yaw, roll)], (200, 200))
    assert seen.yaw == pytest.approx(yaw, abs=1e-3)
    assert seen.roll is not None
    assert (seen.roll - roll + 180) % 360 - 180 == pytest.approx(0, abs=1e-3)


def test_size_and_cut_come_from_the_box() -> None:
    faces = [Face([10, 10, 40, 50], 0.9), Face([-10, 20, 30, 60], 0.9), Face([-50, -50, -10, -10], 0.9), None]
    seen = measure_quality([np.zeros((40, 40), np.uint8)] * 4, faces, (100, 80))
    assert [(each.size, each.cut) for each in seen] == [(30, 0), (40, 0.25), (40, 1), (40, None)]
    assert all(each.yaw is each.roll is None for each in seen)


def test_no_faces() -> None:
    assert measure_quality([], [], (10, 10)) == []
