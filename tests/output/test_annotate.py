from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mien.errors import OutputError
from mien.labels import LABEL_SETS
from mien.output.annotate import COLOURS, NOWHERE, Annotator, _panel_size, annotate, write_picture
from mien.structures import Face, Prediction


def prediction(
    box: list[float] | None,
    label: str = "happy",
    classes: tuple[str, ...] = LABEL_SETS["fer2013"],
    track: int | None = None,
    unsure: bool = False,
) -> Prediction:
    probs = [0.9 if name == label else 0.1 / (len(classes) - 1) for name in classes]
    return Prediction(classes, probs, None if box is None else Face(box, 0.9), track=track, unsure=unsure)


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


def test_bars_never_cover_another_face() -> None:
    image = grey(300, 300)
    alone = annotate(image, [prediction([100, 100, 200, 220])])
    crowded = annotate(image, [prediction([100, 100, 200, 220]), prediction([205, 60, 299, 260]), prediction([5, 60, 95, 260])])
    assert (alone[120:200, 210:290] != 90).any()
    assert (crowded[120:200, 215:285] == 90).all()


def test_a_picture_without_faces_is_unchanged() -> None:
    assert (annotate(grey(300, 300), []) == 90).all()


@pytest.mark.parametrize("suffix", [".jpg", ".PNG", ".webp"])
def test_writes_the_format_its_ending_names(tmp_path: Path, suffix: str) -> None:
    write_picture(tmp_path / f"a{suffix}", grey(20, 30))
    with Image.open(tmp_path / f"a{suffix}") as picture:
        assert picture.size == (30, 20)


def test_a_full_disk_leaves_no_partial_picture(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))  # the system writes the first 500 bytes and says so
    try:
        with pytest.raises(OutputError, match=r"a\.jpg"):
            write_picture(tmp_path / "a.jpg", np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_an_ending_without_a_format_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"a picture's name must end in \.jpg"):
        write_picture(tmp_path / "a.docx", grey(20, 30))
    assert list(tmp_path.iterdir()) == []


def side_of_the_bars(drawn: np.ndarray, box: list[float]) -> str:
    """Return on which side of a face the dark panel is, in the middle of a grey picture: left, right or nowhere."""
    rows = drawn[round(box[1]) + 12 : round(box[3]) - 12].max(axis=(0, 2)) < 256
    dark = (drawn[round(box[1]) + 12 : round(box[3]) - 12].max(axis=2) < 60).mean(axis=0) * rows
    left, right = dark[: round(box[0]) - 8].sum(), dark[round(box[2]) + 8 :].sum()
    return "nowhere" if max(left, right) < 20 else "left" if left > right else "right"


def test_the_bars_do_not_change_sides_while_a_face_trembles() -> None:
    random, annotator, alone, sides = np.random.default_rng(0), Annotator(), set(), []
    fits = 640 - 100 - 3 * 1.2 - _panel_size(10, LABEL_SETS["fer2013"])[0]
    for _ in range(15):
        left = fits + random.uniform(-3, 3)
        found = prediction([left, 150, left + 100, 280], track=4)
        sides.append(side_of_the_bars(annotator.draw(grey(480, 640), [found]), [left, 150, left + 100, 280]))
        alone.add(side_of_the_bars(annotate(grey(480, 640), [found]), [left, 150, left + 100, 280]))
    assert alone == {"left", "right"}  # without memory it would jump
    assert len(set(sides)) == 1


def test_the_bars_change_sides_when_there_is_no_room_left() -> None:
    annotator = Annotator()
    sides = []
    for left in range(300, 520, 20):
        found = prediction([left, 150, left + 100, 280], track=4)
        sides.append(side_of_the_bars(annotator.draw(grey(480, 640), [found]), [left, 150, left + 100, 280]))
    assert sides == sorted(sides, reverse=True)
    assert set(sides) == {"right", "left"}


def test_bars_without_room_do_not_flicker() -> None:
    shown = []
    annotator, random = Annotator(), np.random.default_rng(1)
    for _ in range(20):
        height = 56 + random.uniform(-3, 3)  # about the smallest face that gets bars
        box = [200, 150, 250, 150 + height]
        shown.append(side_of_the_bars(annotator.draw(grey(480, 640), [prediction(box, track=1)]), box))
    assert sum(a != b for a, b in pairwise(shown)) <= 1


def test_the_order_of_the_predictions_changes_nothing() -> None:
    first, second = prediction([100, 150, 220, 290], track=1), prediction([300, 140, 420, 290], "sad", track=2)
    drawings = [Annotator().draw(grey(480, 640), order) for order in ([first, second], [second, first])]
    np.testing.assert_array_equal(*drawings)


def test_text_keeps_its_size_while_a_face_grows_a_little() -> None:
    annotator, random = Annotator(), np.random.default_rng(0)
    sizes = set()
    for _ in range(20):
        width = 100 + random.uniform(-5, 5)
        annotator.draw(grey(480, 640), [prediction([100, 100, 100 + width, 230], track=1)])
        sizes.add(annotator._layouts[1].text)
    assert len(sizes) == 1


def coloured(row: np.ndarray, label: str) -> float:
    return float((row == COLOURS[label]).all(axis=-1).mean())


def test_unsure_predictions_have_a_dashed_box_and_a_dark_label_with_a_question_mark() -> None:
    box = [200, 150, 360, 330]
    sure, unsure = (annotate(grey(480, 640), [prediction(box, "sad", unsure=doubt)]) for doubt in (False, True))
    edge = slice(202, 358)
    assert coloured(sure[328, edge], "sad") == 1
    assert 0.3 < coloured(unsure[328, edge], "sad") < 0.8
    label = slice(126, 148), slice(202, 280)
    assert coloured(sure[label], "sad") > 0.5
    assert coloured(unsure[label], "sad") == 0
    assert unsure[label].mean() < 90


def test_a_person_of_a_video_is_numbered() -> None:
    box = [200, 150, 360, 330]
    drawings = [annotate(grey(480, 640), [prediction(box, track=track)]) for track in (None, 1, 2)]
    for one, other in ((0, 1), (1, 2)):
        differing = (drawings[one] != drawings[other]).any(axis=2)
        assert differing[:150].any()  # the label
        assert not differing[150:].any()


def test_several_faces_of_a_picture_have_the_numbers_of_the_table() -> None:
    """As the people of a video with these numbers have; a single face needs none."""
    boxes = [[30, 100, 120, 200], [170, 100, 260, 200], [310, 100, 400, 200]]
    image = grey(300, 440)
    still = annotate(image, [prediction(box) for box in boxes])
    numbered = annotate(image, [prediction(box, track=i) for i, box in enumerate(boxes, 1)])
    assert (still == numbered).all()
    assert (annotate(image, [prediction(boxes[0])]) != annotate(image, [prediction(boxes[0], track=1)])).any()


def test_bars_move_to_a_corner_of_the_picture_if_there_is_no_room_next_to_the_face() -> None:
    image = grey(480, 640)
    box = [20, 160, 620, 470]
    drawn = annotate(image, [prediction(box)])
    assert (drawn[10:120, 520:].max(axis=2) < 60).mean() > 0.3
    with_another = annotate(image, [prediction(box), prediction([560, 20, 600, 60])])
    assert (with_another[90:150, 480:] == 90).all()


def panel(drawn: np.ndarray) -> np.ndarray:
    """Return which pixels of a picture that was grey 250 are under a panel of bars."""
    dark = drawn.max(axis=2) < 120
    return dark & (np.ptp(drawn.astype(int), axis=2) < 25)


def bright(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 250, np.uint8)


@pytest.mark.parametrize("size", [(1050, 900), (256, 256), (480, 640), (1080, 1920)])
@pytest.mark.parametrize("box", [(0.0, 0.0, 1.0, 1.0), (0.13, 0.09, 0.85, 0.88), (0.2, 0.2, 0.75, 0.9)])
def test_bars_cover_the_edge_of_a_face_that_fills_the_picture(
    size: tuple[int, int], box: tuple[float, float, float, float]
) -> None:
    left, top, right, bottom = (round(share * side) for share, side in zip(box, (*size[::-1], *size[::-1]), strict=True))
    covered = panel(annotate(bright(*size), [prediction([left, top, right, bottom])]))
    assert covered.sum() > 5000
    assert covered[top:bottom, left:right].mean() < 0.3
    wide, high = right - left, bottom - top
    eyes_to_mouth = covered[top + round(0.4 * high) : top + round(0.8 * high), left + wide // 4 : right - wide // 4]
    assert eyes_to_mouth.mean() < 0.02


def test_six_small_faces_in_a_large_picture_have_bars() -> None:
    boxes = [[123 + 300 * i, 137 + 400 * (i % 2), 173 + 300 * i, 200 + 400 * (i % 2)] for i in range(6)]
    annotator = Annotator()
    covered = panel(annotator.draw(bright(1080, 1920), [prediction(box, track=i) for i, box in enumerate(boxes)]))
    for i, (left, top, right, bottom) in enumerate(boxes):
        assert annotator._layouts[i].bars == 0  # at the right
        assert covered[top : top + 100, right + 20 : right + 80].mean() > 0.5
        assert covered[top + 5 : bottom - 5, left + 5 : right - 5].mean() == 0


def test_text_is_readable_if_a_large_picture_is_shown_1000_px_wide() -> None:
    annotator = Annotator()
    for width in (1280, 3840):
        drawn = annotator.draw(bright(width * 9 // 16, width), [prediction([300, 300, 350, 360], track=width)])
        place = annotator._layouts[width]
        assert place.text is not None
        assert place.text * 1000 / width > 9.9
        assert place.bars == 0
        assert panel(drawn[300:400, 380:440]).mean() > 0.5


@pytest.mark.parametrize("size", [(600, 400), (900, 600), (48, 48), (300, 500)])
def test_a_ready_crop_of_any_shape_has_its_bars_in_the_strip(size: tuple[int, int]) -> None:
    annotator = Annotator()
    annotator.draw(bright(*size), [prediction(None, track=1)])
    assert annotator._layouts[1].bars == 0


def test_bars_cover_the_edges_of_two_faces_that_fill_the_picture() -> None:
    covered = panel(annotate(bright(480, 640), [prediction([20, 40, 300, 440]), prediction([340, 40, 620, 440])]))
    for left, right in ((20, 300), (340, 620)):
        assert 0.05 < covered[40:440, left:right].mean() < 0.3
        assert covered[180:400, left + 56 : right - 56].mean() < 0.02


def test_a_crowd_has_no_bars_and_a_group_has_bars_that_cover_no_face() -> None:
    annotator = Annotator()
    crowd = [[60 * i + 10, 80 * j + 40, 60 * i + 50, 80 * j + 90] for i in range(20) for j in range(8)]
    annotator.draw(bright(720, 1280), [prediction(box, track=i) for i, box in enumerate(crowd)])
    assert {place.bars for place in annotator._layouts.values()} == {NOWHERE}
    group = [[160 * i + 20, 300, 160 * i + 110, 410] for i in range(8)]
    covered = panel(annotate(bright(720, 1280), [prediction(box) for box in group]))
    assert covered.sum() > 8 * 5000
    for left, top, right, bottom in group:
        assert not covered[top + 5 : bottom - 5, left + 5 : right - 5].any()


def test_bars_leave_the_face_as_soon_as_there_is_room_and_do_not_jump() -> None:
    annotator, places = Annotator(), []
    for i in range(40):
        edge = 100 - 4 * i + (-1) ** i  # it goes to the left, trembling
        annotator.draw(bright(480, 640), [prediction([edge + 60, 20, edge + 490, 470], track=1)])
        places.append(annotator._layouts[1].bars)
    changes = [(a, b) for a, b in pairwise(places) if a != b]
    assert len(changes) <= 2
    assert places[0] != 0
    assert places[-1] == 0


def test_all_frames_of_ready_crops_have_one_size() -> None:
    annotator = Annotator()
    assert annotator.draw(grey(300, 300), [prediction(None, track=1)]).shape == annotator.draw(grey(300, 300), []).shape


def test_the_number_of_remembered_people_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mien.output.annotate.REMEMBERED", 3)
    annotator = Annotator()
    for track in (1, 2, 3, 1, 4):
        annotator.draw(grey(256, 256), [prediction([10, 10, 40, 40], track=track)])
    assert list(annotator._layouts) == [3, 1, 4]


def test_the_input_may_be_read_only() -> None:
    image = grey(300, 300)
    image.flags.writeable = False
    assert annotate(image, [prediction([100, 100, 200, 200])]).flags.writeable


def test_a_picture_too_wide_for_its_format(tmp_path: Path) -> None:
    wide = np.zeros((8, 16_500, 3), np.uint8)
    with pytest.raises(OutputError, match=r"WEBP cannot store 16500x8 px .*\.png"):
        write_picture(tmp_path / "w.webp", wide)
    write_picture(tmp_path / "w.png", wide)
    assert [path.name for path in tmp_path.iterdir()] == ["w.png"]
