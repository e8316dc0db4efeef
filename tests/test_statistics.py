"""Statistics of accuracies, against figures worked out by hand or published."""

import numpy as np
import pytest

from mien.statistics import (
    bootstrap_of_seeds,
    interval_of_images,
    interval_of_runs,
    interval_of_sum,
    mcnemar,
    mean_and_deviation,
)


def test_the_deviation_divides_by_the_number_of_runs():
    assert mean_and_deviation([1.0, 2.0, 3.0, 4.0]) == (2.5, pytest.approx(1.25**0.5))


def test_the_interval_of_runs_is_students():
    low, high = interval_of_runs([1.0, 2.0, 3.0])  # t of 2 degrees of freedom: 4.303, standard error 1 / sqrt 3
    assert (low, high) == (pytest.approx(2 - 4.3027 / 3**0.5, abs=1e-4), pytest.approx(2 + 4.3027 / 3**0.5, abs=1e-4))
    assert interval_of_runs([0.5, 0.5]) == (0.5, 0.5)


def test_the_interval_of_images_is_wilsons():
    low, high = interval_of_images(81, 263)  # Newcombe 1998, Statistics in Medicine 17, table I
    assert (low, high) == (pytest.approx(0.2553, abs=1e-4), pytest.approx(0.3662, abs=1e-4))


def test_mcnemars_test_looks_at_the_images_on_which_two_networks_differ():
    row = np.array([True] * 8 + [False] * 2 + [True] * 90)
    reference = np.array([False] * 8 + [True] * 2 + [True] * 90)
    assert mcnemar(row, reference) == pytest.approx(2 * (1 + 10 + 45) / 2**10)
    assert mcnemar(row, row) == 1


def test_the_bootstrap_contains_the_mean_of_the_differences():
    differences = [0.010, 0.014, 0.012, 0.009, 0.016]
    low, high = bootstrap_of_seeds(differences)
    assert 0.009 <= low < np.mean(differences) < high <= 0.016
    assert bootstrap_of_seeds([0.01, 0.01, 0.01]) == (0.01, 0.01)


def test_the_interval_of_a_difference_is_newcombes():
    """Newcombe 1998, "Interval estimation for the difference between independent proportions", table II, method 10."""
    for (a, m), (b, n), low, high in (((56, 70), (48, 80), 0.0524, 0.3339), ((9, 10), (3, 10), 0.1705, 0.8090)):
        figures = [(a / m, interval_of_images(a, m)), (b / n, interval_of_images(b, n))]
        assert interval_of_sum(figures, [1, -1]) == pytest.approx((low, high), abs=6e-5)
    assert interval_of_sum([(0.8, (0.6, 0.9))], [1]) == pytest.approx((0.6, 0.9))


def test_the_interval_of_a_mean_of_shares_holds_as_often_as_it_says():
    random, truth, images = np.random.default_rng(0), np.array([0.9, 0.5, 0.97]), np.array([60, 30, 20])
    inside = 0
    for counts in random.binomial(images, truth, (400, 3)):
        figures = [(c / n, interval_of_images(int(c), int(n))) for c, n in zip(counts, images, strict=True)]
        low, high = interval_of_sum(figures, [1 / 3] * 3)
        inside += low <= truth.mean() <= high
    assert 0.92 < inside / 400 < 0.98
