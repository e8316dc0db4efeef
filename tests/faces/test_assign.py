from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from mien.faces.assign import assign


def cheapest(cost: np.ndarray) -> tuple[int, float]:
    """Most allowed pairs and their least cost, by trying everything; `cost` has no more rows than columns."""
    best = (0, 0.0)
    for columns in permutations(range(cost.shape[1]), cost.shape[0]):
        chosen = cost[np.arange(cost.shape[0]), list(columns)]
        kept = chosen[np.isfinite(chosen)]
        best = min(best, (-len(kept), float(kept.sum())))
    return best


@pytest.mark.parametrize("seed", range(40))
def test_no_assignment_is_cheaper(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = int(random.integers(1, 6))
    cost = random.normal(size=(rows, int(random.integers(rows, 7))))
    cost[random.random(cost.shape) < (0, 0.3, 0.8)[seed % 3]] = np.inf
    for costs, turned in ((cost, False), (cost.T, True)):
        pairs = assign(costs)
        assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
        total = sum(costs[pair] for pair in pairs)
        count, least = cheapest(costs.T if turned else costs)
        assert (-len(pairs), pytest.approx(total)) == (count, least)


def test_taking_the_nearest_first_would_lose() -> None:
    assert assign([[1, 2], [2, 9]]) == [(0, 1), (1, 0)]


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
def test_nothing_to_assign(shape: tuple[int, int]) -> None:
    assert assign(np.empty(shape)) == []


def test_nothing_allowed() -> None:
    assert assign(np.full((2, 3), np.inf)) == []
