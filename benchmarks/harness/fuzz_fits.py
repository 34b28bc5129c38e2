"""The best nonnegative weights of every subset, in whole numbers."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Fits"]


class Fits:
    """Squared residuals of the nonnegative least squares problem of every subset.

    Some best fit has linearly independent vectors with positive weights, at most d of them, and is
    the plain least squares fit of these. So every independent set is fitted without constraints,
    the fits with positive weights are kept, and the best fit of a subset is the best one kept of
    all sets within it.

    Parameters
    ----------
    columns
        The vectors in whole numbers, one list per coordinate.
    aim
        The target, in whole numbers; weights may be in any unit.
    """

    def __init__(self, columns: Sequence[Sequence[int]], aim: Sequence[int]) -> None:
        d, n = len(columns), len(columns[0])
        vectors = [[column[j] for column in columns] for j in range(n)]
        gram = [[sum(a * b for a, b in zip(u, v, strict=True)) for v in vectors] for u in vectors]
        toward = [sum(a * b for a, b in zip(v, aim, strict=True)) for v in vectors]
        whole = Fraction(sum(a * a for a in aim))
        fits = {0: whole}
        for size in range(1, min(d, n) + 1):
            for chosen in combinations(range(n), size):
                explained = _explained(
                    [[gram[i][j] for j in chosen] for i in chosen], [toward[i] for i in chosen]
                )
                if explained is not None:
                    fits[sum(1 << j for j in chosen)] = whole - explained
        order = sorted(set(fits.values()))
        ranks = {square: rank for rank, square in enumerate(order)}
        self.squares = order
        self.table: NDArray[Any] = np.full(1 << n, len(order))
        for subset, square in fits.items():
            self.table[subset] = ranks[square]
        for j in range(n):  # The best of all subsets of each subset.
            pairs = self.table.reshape(-1, 2, 1 << j)
            np.minimum(pairs[:, 1], pairs[:, 0], out=pairs[:, 1])

    def least(self, subsets: NDArray[np.int64]) -> Fraction:
        """Return the smallest squared residual of some subsets, at least one."""
        return self.squares[int(self.table[subsets].min())]


def _explained(gram: list[list[int]], toward: list[int]) -> Fraction | None:
    """Return by how much a set of vectors lowers the squared residual.

    None where they are not independent, or the weight of one is not positive.
    """
    size = len(toward)
    rows = [[*row, right] for row, right in zip(gram, toward, strict=True)]
    previous = 1
    for step in range(size):  # Fraction-free elimination; pivots are positive minors of the matrix.
        pivot = rows[step][step]
        if pivot <= 0:
            return None
        for i in range(size):
            if i != step:
                factor = rows[i][step]
                rows[i] = [
                    (pivot * a - factor * b) // previous
                    for a, b in zip(rows[i], rows[step], strict=True)
                ]
        previous = pivot
    weights = [rows[i][size] for i in range(size)]
    if min(weights) <= 0:
        return None
    above = sum(weight * right for weight, right in zip(weights, toward, strict=True))
    return Fraction(above, previous)
