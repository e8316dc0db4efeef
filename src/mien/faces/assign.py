"""Optimal assignment: which of these goes with which of those at the least total cost.

Kuhn's Hungarian method (1955) in the form of shortest augmenting paths with potentials (Jonker and Volgenant 1987), O(n^2 m):
a tenth of a millisecond for a few faces. Written here because SciPy, which has it, would double the base install.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def assign(cost: ArrayLike) -> list[tuple[int, int]]:
    """Return the (row, column) pairs of the cheapest assignment, by row.

    As many pairs as can be are made; a pair of infinite cost is never one.

    >>> assign([[1, 2, 9], [1, 5, 9]])
    [(0, 1), (1, 0)]
    >>> assign([[np.inf, np.inf], [3, 4]])
    [(1, 0)]

    Args:
        cost: (rows, columns), finite or +inf.
    """
    costs = np.asarray(cost, np.float64)
    if costs.ndim != 2 or not costs.size:
        return []
    if costs.shape[0] > costs.shape[1]:
        return sorted((row, column) for column, row in assign(costs.T))
    allowed = np.isfinite(costs)
    reach = np.ptp(costs[allowed]) + 1 if allowed.any() else 1.0
    highest = costs[allowed].max(initial=0.0)
    filled = np.where(allowed, costs, highest + reach * len(costs))  # dearer than any way around it
    return [(row, int(column)) for row, column in enumerate(_match(filled)) if allowed[row, column]]


def _match(cost: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return each row's column, at the least total; `cost` has no more rows than columns and is finite."""
    rows, columns = cost.shape
    owner = np.full(columns + 1, -1)  # row that holds each column; the last is the one being placed
    of_row, of_column = np.zeros(rows), np.zeros(columns)  # potentials
    for row in range(rows):
        owner[columns], at = row, columns
        least, before = np.full(columns, np.inf), np.full(columns, columns)
        done = np.zeros(columns + 1, bool)
        while owner[at] >= 0:  # the shortest path to a free column
            done[at] = True
            step = cost[owner[at]] - of_row[owner[at]] - of_column
            better = ~done[:columns] & (step < least)
            least[better], before[better] = step[better], at
            at_next = int(np.where(done[:columns], np.inf, least).argmin())
            delta = least[at_next]
            of_row[owner[done]] += delta
            of_column[done[:columns]] -= delta
            least[~done[:columns]] -= delta
            at = at_next
        while at != columns:  # hand the columns on along it
            owner[at], at = owner[before[at]], before[at]
    found = np.empty(rows, np.intp)
    found[owner[:columns][owner[:columns] >= 0]] = np.nonzero(owner[:columns] >= 0)[0]
    return found
