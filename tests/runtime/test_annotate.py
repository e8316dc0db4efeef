from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mien.errors import OutputError
from mien.labels import LABEL_SETS
from mien.runtime.annotate import COLOURS, annotate, write_picture
from mien.structures import Face, Prediction


def prediction(box: list[float] | None, label: str = "happy", classes: tuple[str, ...] = LABEL_SETS["fer2013"]) -> Prediction:
    probs = [0.9 if name == label else 0.1 / (len(classes) - 1) for name in classes]
    return Prediction(classes, probs, None if box is None else Face(box, 0.9))


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)


@pytest.mark.parametrize(("height", "width"), [(256, 256), (480, 640), (3000, 200), (2000, 3000)])
def test_draws_on_a_copy_of_the_same_size(height: int, width: int) -> None:
    image = grey(height, width)
    box = [0.3 * width, 0.3 * height, 0.6 * width, 0.6 * height]
    drawn = annotate(image, [prediction(box)])
    assert drawn.dtype == np.uint8
    assert (image == 90).all()
    assert drawn.shape[0] % height == 0
    assert (drawn.reshape(-1, 3) == COLOURS["happy"]).all(axis=1).any()


def test_a_tiny_picture_is_enlarged_so_that_text_fits() -> None:
    assert annotate(grey(48, 64), [prediction([10, 10, 40, 40])]).shape == (288, 384, 3)
    assert annotate(grey(1, 1), []).shape == (256, 256, 3)
    assert max(annotate(grey(2, 3000), [prediction([0, 0, 2, 2])]).shape) == 3000


def test_a_ready_crop_gets_a_strip_for_the_bars() -> None:
    drawn = annotate(grey(300, 300), [prediction(None)])
    assert drawn.shape[0] == 300
    assert drawn.shape[1] > 350


@pytest.mark.parametrize(
    "box",
    [
        [-50, -50, 40, 40],
        [280, 280, 400, 400],
        [0, 0, 300, 300],
        [-90, -90, -10, -10],
        [150, 150, 151, 151],
    ],
)
def test_any_box_is_drawn_inside_the_picture(box: list[float]) -> None:
    drawn = annotate(grey(300, 300), [prediction(box)])
    assert drawn.shape == (300, 300, 3)
    ground = (drawn.reshape(-1, 3) == COLOURS["happy"]).all(axis=1).sum()
    assert ground > 300  # the label, whole


@pytest.mark.parametrize("name", LABEL_SETS)
def test_every_class_of_every_label_set_can_be_drawn(name: str) -> None:
    classes = LABEL_SETS[name]
    faces = [prediction([60 * i, 100, 60 * i + 50, 160], label, classes) for i, label in enumerate(classes)]
    assert annotate(grey(400, 640), faces).shape == (400, 640, 3)


def test_bars_cover_no_other_face() -> None:
    image = grey(300, 300)
    alone = annotate(image, [prediction([100, 100, 200, 220])])
    crowded = annotate(image, [prediction([100, 100, 200, 220]), prediction([205, 60, 299, 260]), prediction([5, 60, 95, 260])])
    assert (alone[120:200, 210:290] != 90).any()
    assert (crowded[120:200, 215:285] == 90).all()


def test_a_picture_without_faces_stays_as_it_is() -> None:
    assert (annotate(grey(300, 300), []) == 90).all()


@pytest.mark.parametrize("suffix", [".jpg", ".PNG", ".webp"])
def test_writes_the_format_its_ending_names(tmp_path: Path, suffix: str) -> None:
    write_picture(tmp_path / f"a{suffix}", grey(20, 30))
    with Image.open(tmp_path / f"a{suffix}") as picture:
        assert picture.size == (30, 20)


def test_an_ending_without_a_format_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"names no picture format; end it with one of \.jpg"):
        write_picture(tmp_path / "a.docx", grey(20, 30))
    assert list(tmp_path.iterdir()) == []
