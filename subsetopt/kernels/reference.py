"""Slow, obvious twins of the kernels, for the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import combinations
from math import gcd

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "best_single_swap",
    "flight",
    "geodesic_ascent",
    "herd",
    "lattice_distance",
    "least_distance",
    "matching_pursuit",
    "nearest_completion",
    "nonnegative_residual",
    "quota_span",
]


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


def quota_span(
    values: NDArray[np.float64],
    codes: NDArray[np.int64],
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    size: int,
) -> tuple[float, float] | None:
    """Return the least and greatest sum of ``size`` ascending values under quotas, or None.

    The greedy in one pass from either end: first what the lower quotas demand, then the best.
    """
    ends = []
    for positions in (range(values.size), range(values.size - 1, -1, -1)):
        taken = np.zeros(low.size, dtype=np.int64)
        spare = size - int(np.maximum(low, 0).sum())
        total = 0.0
        for p in positions:
            g = codes[p]
            if taken[g] >= low[g]:
                if taken[g] >= high[g] or spare <= 0:
                    continue
                spare -= 1
            taken[g] += 1
            total += float(values[p])
        if spare != 0 or (taken < low).any():
            return None
        ends.append(total)
    return ends[0], ends[1]


def flight(
    columns: NDArray[np.float64],
    pi: NDArray[np.float64],
    queue: NDArray[np.int64],
    uniform: Callable[[], float],
) -> Iterator[NDArray[np.float64]]:
    """Yield the probabilities after every move of the flight phase of the cube method.

    Each null vector is found anew by least squares; units come from the end of the queue.
    """
    pi = pi.copy()
    basis: list[int] = []
    for unit in queue[::-1].tolist():
        c = np.linalg.lstsq(columns[basis].T, columns[unit], rcond=None)[0]
        missed = columns[unit] - columns[basis].T @ c
        if np.abs(missed).max() > 1e-8 * np.abs(columns[unit]).max():
            basis.append(unit)
            continue
        working, u = [*basis, unit], np.append(-c, 1.0)
        with np.errstate(divide="ignore"):
            ends = np.stack([-pi[working] / u, (1.0 - pi[working]) / u])
        up, down = ends.max(axis=0).min(), -ends.min(axis=0).max()
        pi[working] += (up if uniform() * (up + down) < down else -down) * u
        pi[pi < 1e-12] = 0.0
        pi[pi > 1.0 - 1e-12] = 1.0
        yield pi.copy()
        basis = [b for b in working if 0.0 < pi[b] < 1.0]


def nonnegative_residual(points: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    """Return the least ``||target - w points||`` over w >= 0: least squares on every support."""
    best = float(np.linalg.norm(target))
    for size in range(1, points.shape[0] + 1):
        for support in combinations(range(points.shape[0]), size):
            w = np.linalg.lstsq(points[list(support)].T, target, rcond=None)[0]
            if (w >= 0.0).all():
                best = min(best, float(np.linalg.norm(target - w @ points[list(support)])))
    return best


def geodesic_ascent(
    vectors: NDArray[np.float64], target: NDArray[np.float64], steps: int
) -> NDArray[np.float64]:
    """Return the weights of GIGA as published (Campbell & Broderick 2018, algorithm 1)."""
    norms = np.linalg.norm(vectors, axis=1)
    length = float(np.linalg.norm(target))
    atoms, goal = vectors / norms[:, None], target / length
    y, w = np.zeros(target.size), np.zeros(vectors.shape[0])
    for _ in range(steps):
        towards = goal - (goal @ y) * y
        if np.linalg.norm(towards) < 1e-7:
            break
        towards = towards / np.linalg.norm(towards)
        directions = atoms - (atoms @ y)[:, None] * y
        sizes = np.linalg.norm(directions, axis=1)
        cosines = np.where(sizes > 1e-3, directions @ towards / np.maximum(sizes, 1e-3), -1.0)
        f = int(np.argmax(cosines))
        z0, z1, z2 = goal @ atoms[f], goal @ y, atoms[f] @ y
        ahead, back = z0 - z1 * z2, z1 - z0 * z2
        step = 1.0 if not y.any() else ahead / (ahead + back)
        y = (1.0 - step) * y + step * atoms[f]
        w *= 1.0 - step
        w[f] += step
        w /= np.linalg.norm(y)
        y /= np.linalg.norm(y)
    return np.asarray(w * length * (goal @ y) / norms)


def matching_pursuit(
    vectors: NDArray[np.float64], target: NDArray[np.float64], steps: int
) -> float:
    """Return the residual of matching pursuit with a nonnegative refit after every vector.

    The refit is by projected coordinate descent, run until nothing moves.
    """
    norms = np.linalg.norm(vectors, axis=1)
    support: list[int] = []
    w = np.zeros(0)
    residual = target
    for _ in range(steps):
        scores = vectors @ residual / norms
        scores[support] = -np.inf
        pick = int(np.argmax(scores))
        if scores[pick] <= 1e-12 * np.linalg.norm(target):
            break
        support.append(pick)
        chosen = vectors[support]
        w = np.append(w, 0.0)
        for _ in range(300):
            for a in range(len(support)):
                residual = target - w @ chosen
                w[a] = max(0.0, w[a] + chosen[a] @ residual / (chosen[a] @ chosen[a]))
        residual = target - w @ chosen
    return float(np.linalg.norm(residual))


def herd(vectors: NDArray[np.float64], size: int) -> list[int]:
    """Return the first samples of kernel herding without replacement."""
    target = vectors.mean(axis=0) if vectors.size else np.zeros(0)
    owed, chosen = target.copy(), []
    for _ in range(size):
        free = [i for i in range(vectors.shape[0]) if i not in chosen]
        pick = max(free, key=lambda i: float(owed @ vectors[i]))
        chosen.append(pick)
        owed = owed + target - vectors[pick]
    return chosen
