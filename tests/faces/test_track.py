from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray
from PIL import Image

from mien.errors import InputError
from mien.faces.cuts import SceneCuts
from mien.faces.track import Tracker, appearance, assign, iou
from mien.structures import Face

RANDOM = np.random.default_rng(0)
COARSE = Image.fromarray(RANDOM.integers(0, 256, (24, 32, 3), dtype=np.uint8))
IMAGE = np.asarray(COARSE.resize((320, 240), Image.Resampling.BICUBIC))
"""A picture that looks different everywhere."""

GREY = np.full((240, 320, 3), 90, np.uint8)


def face(x: float, y: float, size: float = 40) -> Face:
    return Face([x - size / 2, y - size / 2, x + size / 2, y + size / 2], 1.0)


def picture(*people: tuple[float, float, int]) -> NDArray[np.uint8]:
    """A grey picture with a 40 px patch of `IMAGE` for each person: centre x, y, which patch."""
    canvas = GREY.copy()
    for x, y, who in people:
        left, top = round(x - 20), round(y - 20)
        canvas[top : top + 40, left : left + 40] = IMAGE[100:140, 45 * who : 45 * who + 40]
    return canvas


def update(tracker: Tracker, time: float, *people: tuple[float, float, int]) -> list[int]:
    return tracker.update(time, picture(*people), [face(x, y) for x, y, _ in people])


def test_numbers_follow_the_faces_whatever_their_order() -> None:
    tracker = Tracker()
    assert update(tracker, 0, (60, 60, 0), (200, 60, 1)) == [1, 2]
    assert update(tracker, 0.1, (195, 62, 1), (63, 60, 0)) == [2, 1]
    assert update(tracker, 0.2, (190, 64, 1), (66, 60, 0), (120, 180, 2)) == [2, 1, 3]
    assert update(tracker, 0.3) == []
    assert update(tracker, 0.4, (180, 68, 1)) == [2]


def test_motion_and_looks_tell_two_people_apart_who_cross() -> None:
    tracker = Tracker()
    for k in range(21):  # they pass 25 px apart: nearer to where the other was than a step
        assert update(tracker, k / 10, (60 + 10 * k, 100, 0), (260 - 10 * k, 145, 1)) == [1, 2]


def test_looks_alone_tell_two_people_apart_who_swap_places_unseen() -> None:
    tracker = Tracker()
    update(tracker, 0, (100, 100, 0), (145, 100, 1))
    assert update(tracker, 0.7, (100, 100, 1), (145, 100, 0)) == [2, 1]


@pytest.mark.parametrize(("hidden", "expected"), [(9, 1), (10, 1), (11, 2)])
def test_being_hidden_up_to_the_longest_gap_keeps_the_number(hidden: int, expected: int) -> None:
    tracker = Tracker(max_gap=1.0)
    update(tracker, 0, (100, 100, 0))
    for k in range(1, hidden + 1):
        update(tracker, k / 10)
    assert update(tracker, (hidden + 1) / 10, (105, 100, 0)) == [expected]


def test_time_in_which_nobody_looked_is_not_being_hidden() -> None:
    tracker = Tracker(max_gap=1.0)
    update(tracker, 0, (100, 100, 0))
    update(tracker, 1.0)
    for k in range(11, 14):
        assert tracker.update(k / 10, GREY, [], searched=False) == []
    assert update(tracker, 1.4, (105, 100, 0)) == [1]


def test_sparse_frames_keep_the_numbers_of_who_is_in_both() -> None:
    tracker = Tracker(max_gap=1.0)
    for k in range(4):
        assert update(tracker, 5.0 * k, (100 + 8 * k, 100, 0), (220 - 6 * k, 120, 1)) == [1, 2]


@pytest.mark.parametrize("stopped", [True, False])
def test_who_walked_behind_something_comes_out_there_or_further(stopped: bool) -> None:
    tracker = Tracker()
    for k in range(10):
        assert update(tracker, k / 10, (60 + 12 * k, 100, 0)) == [1]
    assert update(tracker, 1.8, (168 if stopped else 276, 100, 0)) == [1]


@pytest.mark.parametrize("other", [face(300, 200), face(100, 100, 90), face(100, 100, 15)])
def test_too_far_or_of_another_size_is_another_person(other: Face) -> None:
    tracker = Tracker()
    image = np.repeat(np.tile(np.arange(320, dtype=np.uint8) % 250, (240, 1))[..., None], 3, axis=2)  # alike everywhere
    assert tracker.update(0, image, [face(100, 100)]) == [1]
    assert tracker.update(0.1, image, [other]) == [2]


def test_another_look_is_another_person() -> None:
    tracker = Tracker()
    update(tracker, 0, (100, 100, 0))
    assert update(tracker, 0.1, (100, 100, 1)) == [2]


def test_numbers_are_never_used_again() -> None:
    tracker = Tracker(max_gap=0)
    assert [update(tracker, k, (100, 100, k % 2)) for k in range(5)] == [[1], [2], [3], [4], [5]]
    tracker.end()
    assert update(tracker, 5, (100, 100, 0)) == [6]


def test_an_earlier_time_ends_every_track() -> None:
    tracker = Tracker()
    update(tracker, 5, (100, 100, 0))
    assert update(tracker, 4.9, (100, 100, 0)) == [2]


def test_expected_is_where_the_motion_leads() -> None:
    tracker = Tracker()
    for k in range(30):
        update(tracker, k / 20, (60 + 5 * k, 100, 0))
    (expected,) = tracker.expected(1.5).values()
    np.testing.assert_allclose(expected.box_xyxy, face(210, 100).box_xyxy, atol=0.1)
    update(tracker, 1.5)
    assert tracker.expected(1.6) == {}  # out of sight


def test_steps_of_any_length_give_the_same_motion() -> None:
    tracker, time = Tracker(), 0.0
    for step in np.random.default_rng(1).choice([0.01, 0.03, 0.1], 40):
        time += float(step)
        assert update(tracker, time, (60 + 40 * time, 100, 0)) == [1]
    (expected,) = tracker.expected(time + 0.5).values()
    np.testing.assert_allclose(expected.box_xyxy, face(60 + 40 * (time + 0.5), 100).box_xyxy, atol=0.5)


def test_memory_is_flat_over_hours() -> None:
    tracker = Tracker(max_gap=1.0)
    for k in range(500):  # somebody new at every step
        tracker.update(k * 0.5, IMAGE, [face(*RANDOM.uniform(30, 200, 2))])
        assert len(tracker._tracks) <= 4  # a second, and the step since it was last looked for


@pytest.mark.parametrize("max_gap", [-1, float("nan"), float("inf")])
def test_wrong_gaps_are_refused(max_gap: float) -> None:
    with pytest.raises(InputError, match="max_gap"):
        Tracker(max_gap)


def test_a_look_ignores_light_and_roll_but_not_tint(studio: Any, detector: Any) -> None:
    def look(image: NDArray[Any]) -> NDArray[np.float64]:
        (found,) = detector.detect(image.astype(np.uint8))
        return appearance(image.astype(np.uint8), found)

    still = studio.film.frame(studio.pose(160, 120))
    own = look(still)
    assert own @ own == pytest.approx(1)
    assert own @ look(still * 0.6 + 30) > 0.97
    assert own @ look(studio.film.frame(studio.pose(150, 110, 1.2, 20))) > 0.95
    assert own @ look(still * np.array([1.0, 0.75, 0.5])) < 0.93
    assert own @ look(still[:, ::-1]) < 0.75


@pytest.mark.parametrize("box", [[-50, -50, -10, -10], [300, 200, 900, 900], [0.2, 0.2, 0.4, 0.4]])
def test_a_look_of_any_box_is_finite(box: list[float]) -> None:
    assert np.isfinite(appearance(IMAGE, Face(box, 1.0))).all()
    assert np.isfinite(appearance(GREY, Face(box, 1.0, np.zeros((5, 2))))).all()


def test_iou() -> None:
    a, b = [face(10, 10, 20)], [face(10, 10, 20), face(20, 10, 20), face(100, 100)]
    np.testing.assert_allclose(iou(a, b), [[1, 1 / 3, 0]])
    assert iou([], b).shape == (0, 3)
    assert iou(a, []).shape == (1, 0)


PHOTOS = ["astronaut", "coffee", "rocket", "chelsea", "camera", "clock"]


def view(name: str, x: float = 0.5, y: float = 0.5, part: float = 0.7) -> NDArray[np.uint8]:
    """A window on a photograph: `part` of its width, `x` and `y` from 0 to 1 of the way across and down."""
    photo = np.asarray(Image.fromarray(getattr(skimage.data, name)()).convert("RGB"))
    height, width = photo.shape[:2]
    wide = min(width, height * 16 / 9) * part
    left, top = (width - wide) * x, (height - wide * 9 / 16) * y
    box = (left, top, left + wide, top + wide * 9 / 16)
    return np.asarray(Image.fromarray(photo).resize((320, 180), Image.Resampling.BILINEAR, box=box))


def cuts(*frames: NDArray[np.uint8]) -> list[bool]:
    finder = SceneCuts()
    return [finder.is_cut(frame) for frame in frames]


@pytest.mark.parametrize("name", PHOTOS)
def test_every_change_of_photograph_is_a_cut(name: str) -> None:
    finder = SceneCuts()
    finder.is_cut(view(name))
    for other in PHOTOS:
        if other != name:
            assert finder.is_cut(view(other)), other
            assert not finder.is_cut(view(other))
            assert finder.is_cut(view(name)), other


@pytest.mark.parametrize("name", PHOTOS)
def test_pans_and_zooms_are_no_cuts(name: str) -> None:
    assert not any(cuts(*(view(name, x, 0.5, 0.5) for x in np.linspace(0, 1, 6))))
    assert not any(cuts(*(view(name, part=part) for part in np.geomspace(0.9, 0.4, 8))))


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize(("gain", "lift"), [(1.5, 0.0), (2.5, 40.0), (1.0, 160.0), (1.0, 255.0), (0.3, 0.0), (0.0, 0.0)])
def test_flashes_and_darkness_are_no_cuts(name: str, gain: float, lift: float) -> None:
    still = view(name)
    assert not any(cuts(still, np.clip(still * gain + lift, 0, 255).astype(np.uint8), still, still))


def test_a_cut_behind_a_flash_is_one() -> None:
    assert cuts(view("coffee"), np.full((180, 320, 3), 255, np.uint8), view("rocket")) == [False, False, True]


@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (2000, 30)])
def test_frames_of_any_shape(shape: tuple[int, int]) -> None:
    assert cuts(*[np.full((*shape, 3), value, np.uint8) for value in (0, 90, 255)]) == [False] * 3


def cheapest(costs: NDArray[np.float64]) -> tuple[int, float]:
    """Largest number of allowed pairs, negative, and their lowest cost, by brute force; no more rows than columns."""
    best = (0, 0.0)
    for columns in permutations(range(costs.shape[1]), costs.shape[0]):
        chosen = costs[np.arange(costs.shape[0]), list(columns)]
        kept = chosen[np.isfinite(chosen)]
        best = min(best, (-len(kept), float(kept.sum())))
    return best


@pytest.mark.parametrize("forbidden", [0, 0.3, 0.8])
def test_no_assignment_is_cheaper(forbidden: float) -> None:
    random = np.random.default_rng(0)
    for rows, columns in [(1, 1), (1, 4), (2, 2), (3, 3), (3, 5), (4, 4), (4, 6), (5, 5)] * 2:
        costs = random.uniform(0, 3, size=(rows, columns))
        costs[random.random(costs.shape) < forbidden] = np.inf
        for matrix in (costs, costs.T):
            pairs = assign(matrix)
            assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
            count, least = cheapest(costs)
            assert (-len(pairs), pytest.approx(sum(matrix[pair] for pair in pairs))) == (count, least)


def test_taking_the_nearest_first_would_lose() -> None:
    assert assign([[1, 2], [2, 9]]) == [(0, 1), (1, 0)]


@pytest.mark.parametrize("costs", [[], [[], []], np.empty((0, 3)), np.full((2, 3), np.inf)])
def test_nothing_to_assign(costs: Any) -> None:
    assert assign(costs) == []
