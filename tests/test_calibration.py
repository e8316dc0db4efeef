import numpy as np
import pytest
from scipy.special import softmax

from mien.calibration import COVERAGES, calibrated_probs, class_bias, fit_calibration, prediction_set, set_limit, unbiased
from mien.errors import DataError, InputError
from mien.metrics import classification_report

TRUE = {"temperature": 2.5, "power": 1.6, "lead": 0.25}


def sample(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return logits, and labels drawn from the probabilities that `TRUE` makes of them."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(count, 7)) * 1.5
    probs = calibrated_probs(logits, TRUE)
    return logits, (probs.cumsum(1) < random.random((count, 1))).sum(1).clip(0, 6)


def test_without_a_calibration_it_is_the_softmax_and_the_temperature_divides_the_logits() -> None:
    logits, _ = sample(50, 0)
    np.testing.assert_allclose(calibrated_probs(logits, {}), softmax(logits, 1), rtol=1e-5)
    np.testing.assert_allclose(calibrated_probs(logits, {"temperature": 2.5}), softmax(logits / 2.5, 1), rtol=1e-5)


def test_power_and_lead_are_as_documented() -> None:
    scores = np.exp([0.25, -((1 / 2.5) ** 1.6), -((3 / 2.5) ** 1.6)])
    np.testing.assert_allclose(calibrated_probs(np.array([[5.0, 4.0, 2.0]]), TRUE)[0], scores / scores.sum(), rtol=1e-6)


def test_calibration_changes_no_label() -> None:
    logits = np.random.default_rng(0).normal(size=(500, 7)).astype(np.float32) * 10
    for calibration in (TRUE, {"temperature": 20.0, "power": 4.0}, {"temperature": 0.05, "power": 0.25, "lead": 2.0}):
        np.testing.assert_array_equal(calibrated_probs(logits, calibration).argmax(1), logits.argmax(1))


def test_the_fit_finds_what_made_the_labels_and_lowers_the_error_on_other_images() -> None:
    fitted = fit_calibration(*sample(8_000, 1))
    assert [fitted[name] for name in TRUE] == pytest.approx(list(TRUE.values()), rel=0.1, abs=0.05)
    logits, target = sample(8_000, 2)
    before, after = (classification_report(calibrated_probs(logits, c), target, list("abcdefg"))["ece"] for c in ({}, fitted))
    assert after < 0.02 < 0.05 < before


def test_the_bias_changes_log_probabilities_and_stays_with_its_class_when_only_some_are_asked_for() -> None:
    logits, bias = sample(50, 0)[0], [0.0, 3.0, -1.0, 0.5, 0.0, -2.0, 1.0]
    np.testing.assert_allclose(calibrated_probs(logits, {"bias": bias}), softmax(logits + bias, 1), rtol=1e-5)
    changed = calibrated_probs(logits, TRUE) * np.exp(bias)
    np.testing.assert_allclose(calibrated_probs(logits, TRUE | {"bias": bias}), changed / changed.sum(1)[:, None], rtol=1e-4)
    some = calibrated_probs(logits, {"bias": bias}, [6, 1])
    np.testing.assert_allclose(some, softmax((logits + bias)[:, [6, 1]], 1), rtol=1e-5)


def test_the_bias_corrects_for_a_class_that_training_seldom_showed() -> None:
    random, frequencies = np.random.default_rng(5), np.array([0.02, 0.49, 0.49])
    target = random.integers(0, 3, 3_000)  # all classes are equally frequent here
    evidence = random.normal(size=(3_000, 3)) + 2 * np.eye(3)[target]
    logits, bias = evidence + np.log(frequencies), class_bias(frequencies, 1.0)  # a network that learnt the frequencies
    assert sum(bias) == pytest.approx(0, abs=1e-3)
    np.testing.assert_array_equal((logits + bias).argmax(1), evidence.argmax(1))
    found = [
        (each.argmax(1) == target)[target == 0].mean() for each in (logits, logits + class_bias(frequencies, 0.5), evidence)
    ]
    assert found[0] < found[1] - 0.2 < found[2] - 0.4
    fitted = fit_calibration(logits, target, bias)
    assert fitted["bias"] == bias
    without = unbiased(fitted)
    assert without == fit_calibration(logits, target) | {"set_limits": fitted["set_limits"]}
    found = [(calibrated_probs(logits, each).argmax(1) == target)[target == 0].mean() for each in (without, fitted)]
    assert found[0] < found[1] - 0.2


def test_a_correction_that_cannot_be() -> None:
    with pytest.raises(InputError, match=r"from 0 to 1, got 1\.5"):
        class_bias(np.ones(3), 1.5)
    with pytest.raises(DataError, match="no image of some class"):
        class_bias(np.array([1.0, 0.0]), 0.5)


def test_prediction_sets_contain_the_right_class_as_often_as_asked() -> None:
    fitted = fit_calibration(*sample(5_000, 3))
    logits, target = sample(5_000, 4)
    probs = calibrated_probs(logits, fitted)
    sizes = []
    for coverage in COVERAGES:
        sets = [prediction_set(each, set_limit(fitted, coverage)) for each in probs]
        assert np.mean([label in each for label, each in zip(target, sets, strict=True)]) == pytest.approx(coverage, abs=0.02)
        sizes.append(np.mean(list(map(len, sets))))
    assert sizes == sorted(sizes)


def test_a_prediction_set_has_the_most_probable_first_and_is_never_empty() -> None:
    probs = np.array([0.2, 0.45, 0.05, 0.3], np.float32)
    assert prediction_set(probs, 0.2).tolist() == [1, 3, 0]
    assert prediction_set(probs, 0.9).tolist() == [1]
    assert prediction_set(probs, 0.0).tolist() == [1, 3, 0, 2]


def test_what_cannot_be_fitted_or_was_not_is_refused() -> None:
    with pytest.raises(DataError, match="at least 200 images"):
        fit_calibration(*sample(199, 0))
    with pytest.raises(InputError, match="mien calibrate"):
        set_limit({}, 0.9)
    with pytest.raises(InputError, match=r"choose one of 0\.8, 0\.9, 0\.95, 0\.99"):
        set_limit(fit_calibration(*sample(200, 0)), 0.7)
