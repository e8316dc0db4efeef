"""Statistics of accuracies, against figures worked out by hand or published."""

import numpy as np
import pytest

from mien.statistics import bootstrap_of_seeds, interval_of_images, interval_of_runs, mcnemar, mean_and_deviation


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
