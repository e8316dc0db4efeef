from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from mien.errors import InputError, UnknownNameError
from mien.predict.smoothing import SMOOTHERS, Smoother, create_smoother
from mien.structures import Frame, Prediction, Quality, Reading

CLASSES = ("happy", "sad", "surprise")
IMAGE = np.zeros((4, 4, 3), np.uint8)
HAPPY, SAD = np.array([0.8, 0.1, 0.1]), np.array([0.1, 0.7, 0.2])
KINDS = ["exponential", "centred"]


def reading(
    time: float | None, tracks: dict[int | None, NDArray[np.float64]], source: str = "a.mp4", number: int = 0
) -> Reading:
    predictions = tuple(Prediction(CLASSES, probs, source=source, time=time, track=track) for track, probs in tracks.items())
    return Reading(source, Frame(IMAGE, None, time), predictions, number=number)


def run(smoother: Smoother, readings: Iterable[Reading]) -> list[Reading]:
    return [done for given in readings for done in smoother.push(given)] + list(smoother.flush())


def first(results: list[Reading]) -> NDArray[np.float64]:
    """First class's probability of the only face of each reading."""
    return np.array([float(result.predictions[0].probs[0]) for result in results])


def step(times: Iterable[float], at: float = 0.0) -> list[Reading]:
    """One person, sad before `at` and happy from then on."""
    return [reading(time, {1: HAPPY if time >= at else SAD}) for time in times]


def grid(random: bool, seconds: float = 4.0) -> NDArray[np.float64]:
    """Times around 0, steady or not."""
    if not random:
        return np.arange(-seconds, seconds, 0.02)
    steps = np.random.default_rng(0).choice([0.005, 0.02, 0.05], size=2000)
    return np.cumsum(steps)[np.cumsum(steps) < 2 * seconds] - seconds


def test_names() -> None:
    assert SMOOTHERS.names() == ["none", "exponential", "centred"]
    with pytest.raises(UnknownNameError, match="did you mean 'centred'"):
        create_smoother("centered")


def test_none_gives_everything_back_untouched() -> None:
    smoother = create_smoother("none", unsure_below=1.0)
    given = step(grid(False))
    assert [list(smoother.push(r)) == [r] for r in given] == [True] * len(given)
    assert list(smoother.flush()) == []


@pytest.mark.parametrize("name", KINDS)
def test_a_steady_answer_is_unchanged(name: str) -> None:
    results = run(create_smoother(name, 0.5), [reading(t, {1: SAD}) for t in grid(True)])
    for result in results:
        np.testing.assert_allclose(result.predictions[0].probs, SAD, atol=1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_probabilities_sum_to_one(name: str) -> None:
    random = np.random.default_rng(0)
    results = run(create_smoother(name, 0.2), [reading(t, {1: random.dirichlet(np.ones(3) / 4)}) for t in grid(True)])
    np.testing.assert_allclose([r.predictions[0].probs.sum() for r in results], 1, atol=1e-6)


@pytest.mark.parametrize("random", [False, True])
def test_the_step_response_of_exponential(random: bool) -> None:
    times, tau = grid(random), 0.3
    begins = times[times >= 0][0]
    before = times[times < 0][-1]
    expected = [0.1 if t < begins else 0.8 - 0.7 * math.exp(-(t - before) / tau) for t in times]
    np.testing.assert_allclose(first(run(create_smoother("exponential", tau), step(times))), expected, atol=1e-6)


@pytest.mark.parametrize("random", [False, True])
def test_the_step_response_of_centred(random: bool) -> None:
    """The integral of the triangle, whatever the sampling, to half a step of it; symmetric, halfway at the step."""
    times, half = grid(random), 0.5
    x = np.clip(times / half, -1, 1)
    expected = 0.1 + 0.7 * (0.5 + x - np.sign(x) * x**2 / 2)
    np.testing.assert_allclose(first(run(create_smoother("centred", half), step(times))), expected, atol=0.7 * 0.025 / half)


def test_dense_sampling_weighs_nothing_twice() -> None:
    """Half the window sampled ten times as often: the answer at the step stays in the middle."""
    times = np.concatenate([np.arange(-100, 0) * 0.01 - 0.005, np.arange(11) * 0.1])
    result = first(run(create_smoother("centred", 0.5), step(times)))
    assert abs(result[100] - 0.45) < 0.7 * 0.1 / 0.5
    assert abs(np.mean([0.1] * 50 + [0.8] * 5) - 0.45) > 0.25  # as a mean over samples would be


@pytest.mark.parametrize("name", KINDS)
def test_order_is_kept_and_nothing_is_lost(name: str) -> None:
    times = grid(True)
    given = [reading(t, {1: HAPPY, 2: SAD} if i % 3 else {}) for i, t in enumerate(times)]
    results = run(create_smoother(name, 0.4), given)
    assert [r.frame for r in results] == [r.frame for r in given]
    assert [[p.track for p in r.predictions] for r in results] == [[p.track for p in r.predictions] for r in given]


def test_centred_answers_as_late_as_its_half_window_and_not_later() -> None:
    smoother, answered = create_smoother("centred", 0.25), []
    for i in range(20):
        answered.append(len(list(smoother.push(reading(i / 8, {1: HAPPY})))))
    assert answered == [0, 0] + [1] * 18
    assert [r.frame.time for r in smoother.flush() if r.frame] == [18 / 8, 19 / 8]
    assert list(smoother.flush()) == []


def test_answers_of_one_time_count_alike() -> None:
    results = run(create_smoother("centred", 0.5), [reading(0.0, {1: HAPPY}), reading(0.0, {1: SAD}), reading(3.0, {2: SAD})])
    np.testing.assert_allclose(first(results), [0.45, 0.45, 0.1], atol=1e-6)


def test_exponential_answers_at_once() -> None:
    smoother = create_smoother("exponential", 5)
    assert [len(list(smoother.push(r))) for r in step(grid(False))] == [1] * len(grid(False))
    assert list(smoother.flush()) == []


@pytest.mark.parametrize("name", KINDS)
def test_people_do_not_mix(name: str) -> None:
    times = grid(True, 1.0)
    both = run(create_smoother(name, 0.3), [reading(t, {1: HAPPY if t >= 0 else SAD, 2: SAD}) for t in times])
    alone = run(create_smoother(name, 0.3), step(times))
    assert first(both).tolist() == first(alone).tolist()
    for result in both:
        np.testing.assert_allclose(result.predictions[1].probs, SAD, atol=1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_a_long_gap_starts_anew_and_a_short_one_does_not(name: str) -> None:
    for gap, anew in ((1.2, True), (0.8, False)):
        times = [-0.3, -0.2, -0.1, gap - 0.1, gap]
        results = first(run(create_smoother(name, 2.0), step(times)))
        assert (abs(results[3] - 0.8) < 1e-6) == anew
        assert (abs(results[2] - 0.1) < 1e-6) == (anew or name == "exponential")


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("change", [{"source": "b.mp4"}, {"number": 1}, {"time": -5.0}])
def test_another_source_or_an_earlier_time_starts_anew(name: str, change: dict[str, object]) -> None:
    readings = [*step([-0.2, -0.1]), reading(**{"time": 0.0, "tracks": {1: HAPPY}, **change})]  # type: ignore[arg-type]
    results = run(create_smoother(name, 1.0), readings)
    np.testing.assert_allclose(first(results), [0.1, 0.1, 0.8], atol=1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_flush_forgets(name: str) -> None:
    smoother = create_smoother(name, 1.0)
    run(smoother, step([-0.2, -0.1]))
    assert first(run(smoother, step([0.0])))[0] == pytest.approx(0.8)


@pytest.mark.parametrize("name", KINDS)
def test_pictures_errors_and_untracked_faces_pass_in_order(name: str) -> None:
    picture, error = reading(None, {None: HAPPY}), Reading("a.mp4", None, error=InputError("a.mp4: is cut short"))
    untracked = reading(0.1, {None: HAPPY})
    given = [picture, reading(0.0, {1: SAD}), untracked, error, picture]
    results = run(create_smoother(name, 0.5), given)
    assert [r.frame for r in results] == [r.frame for r in given]
    assert results[0] is results[4] is picture
    assert results[3] is error
    assert results[2].predictions == untracked.predictions
    assert list(create_smoother(name, 0.5).push(picture)) == [picture]


@pytest.mark.parametrize("name", KINDS)
def test_label_and_doubt_follow_the_smoothed_answer(name: str) -> None:
    """A single frame of another opinion changes nothing but the confidence."""
    times = np.arange(40) * 0.05
    results = run(
        create_smoother(name, 0.5, unsure_below=0.75), [reading(t, {1: SAD if i == 20 else HAPPY}) for i, t in enumerate(times)]
    )
    assert {r.predictions[0].label for r in results} == {"happy"}
    unsure = [r.predictions[0].unsure for r in results]
    assert unsure[20]
    assert not unsure[19 if name == "exponential" else 5]
    assert not unsure[39]


@pytest.mark.parametrize("name", KINDS)
def test_memory_is_flat_over_a_long_video(name: str) -> None:
    """A new person every ten frames: what is remembered does not grow."""
    smoother = create_smoother(name, 0.2)
    known: Callable[[], int] = lambda: len(getattr(smoother, "_state" if name == "exponential" else "_answers"))  # noqa: E731
    sizes = []
    for i in range(3000):
        list(smoother.push(reading(i * 0.1, {i // 10: HAPPY})))
        sizes.append(known())
    assert max(sizes) <= 4


@pytest.mark.parametrize("name", KINDS)
def test_a_frame_with_nothing_to_see_is_unsure_however_steady_the_answer(name: str) -> None:
    times = np.arange(0, 2, 0.1)
    steady = [reading(t, {1: np.array([0.98, 0.01, 0.01])}) for t in times]
    seen = [Quality(50, 0.0 if i == 10 else 30.0, 30, 90) for i in range(len(times))]
    given = [
        replace(each, predictions=(replace(each.predictions[0], quality=quality),))
        for each, quality in zip(steady, seen, strict=True)
    ]
    results = run(create_smoother(name, 0.3, unsure_below=0.5), given)
    assert [r.predictions[0].unsure for r in results] == [i == 10 for i in range(len(times))]


@pytest.mark.parametrize("arguments", [{"seconds": 0}, {"seconds": math.inf}, {"unsure_below": 1.5}, {"max_gap": 0}])
@pytest.mark.parametrize("name", KINDS)
def test_wrong_numbers_are_refused(name: str, arguments: dict[str, float]) -> None:
    with pytest.raises(InputError, match="smoothing needs seconds"):
        create_smoother(name, **arguments)


@pytest.mark.parametrize("name", KINDS)
def test_damaged_frames_change_no_other(name: str) -> None:
    """A green frame may say anything."""
    good = [reading(t, {1: HAPPY}) for t in np.arange(0, 1, 0.04)]
    for k in (10, 11):
        bad = reading(k * 0.04, {1: SAD})
        good[k] = replace(bad, frame=replace(bad.frame, damaged=True))  # type: ignore[type-var]
    found = first(run(create_smoother(name, 0.3), good))
    np.testing.assert_allclose(found, [SAD[0] if k in (10, 11) else HAPPY[0] for k in range(len(good))], atol=1e-6)
