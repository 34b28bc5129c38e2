"""Slow, obvious twins of the kernels, for the tests."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import gcd

import numpy as np
from numpy.typing import NDArray

__all__ = ["best_single_swap", "lattice_distance", "least_distance", "nearest_completion"]


def best_single_swap(
    values: NDArray[np.float64], mark: NDArray[np.uint8], residual: float
) -> tuple[int, int]:
    """Return the swap (i out, j in) whose ``values[j] - values[i]`` is nearest the residual."""
    inside, outside = np.flatnonzero(mark == 1), np.flatnonzero(mark == 0)
    pairs = [(int(i), int(j)) for i in inside for j in outside]
    if not pairs:
        return -1, -1
    return min(pairs, key=lambda p: abs(residual - (values[p[1]] - values[p[0]])))


def nearest_completion(values: NDArray[np.float64], size: int, target: float) -> NDArray[np.int64]:
    """Return positions chosen one by one, each nearest to the average still missing."""
    free = list(range(values.size))
    chosen = []
    for step in range(size):
        wanted = target / (size - step)
        pick = min(free, key=lambda p: (abs(values[p] - wanted), p))
        free.remove(pick)
        chosen.append(pick)
        target -= values[pick]
    return np.array(chosen, dtype=np.int64)


def lattice_distance(values: NDArray[np.float64], size: int, target: float) -> Fraction:
    """Return the distance of the target from ``size * v_0 + G Z`` in exact rational arithmetic."""
    exact = [Fraction(float(v)) for v in values]
    denominator = 1
    for v in exact:
        denominator = max(denominator, v.denominator)  # powers of two: the largest is common
    ints = [int(v * denominator) for v in exact]
    step = 0
    for a in ints:
        step = gcd(step, abs(a - ints[0]))
    offset = Fraction(float(target)) - Fraction(size * ints[0], denominator)
    if step == 0:
        return abs(offset)
    unit = Fraction(step, denominator)
    rest = offset % unit
    return min(rest, unit - rest)


def least_distance(values: NDArray[np.float64], size: int, target: float) -> float:
    """Return the least ``|sum - target|`` over all subsets of that size."""
    return min(
        abs(float(sum(values[list(c)])) - target) for c in combinations(range(values.size), size)
    )
