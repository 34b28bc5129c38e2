"""What others do, written plainly in NumPy: the yardsticks of ``python -m benchmarks vectors``.

Vectors are rows; every function returns a weight for each. No vector may be 0.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.optimize import nnls  # type: ignore[import-untyped]

__all__ = ["frank_wolfe", "giga", "matching_pursuit", "residual", "single_swaps", "tuned_giga"]

Floats = NDArray[np.floating[Any]]
# A direction shorter than this, relative to unit vectors, is rounding.
_SHORT = 1e-14
# An atom whose squared sine with the point reached is below this counts as that point.
_SAME = 1e-6


def residual(vectors: Floats, weights: Floats) -> float:
    """Return the distance of the weighted sum from the mean."""
    return float(np.linalg.norm(vectors.mean(axis=0) - weights @ vectors))


def giga(vectors: Floats, steps: int) -> Floats:
    """Return the weights of greedy iterative geodesic ascent.

    Campbell & Broderick, Bayesian coreset construction via greedy iterative geodesic ascent, ICML
    2018, algorithm 2: every direction is computed and normalized in every step.
    """
    target = vectors.mean(axis=0)
    norms, length = np.linalg.norm(vectors, axis=1), np.linalg.norm(target)
    atoms, goal = vectors / norms[:, None], target / length
    weights, y = np.zeros(len(vectors)), np.zeros(len(target))
    for _ in range(steps):
        towards = goal - (goal @ y) * y
        if np.linalg.norm(towards) < _SHORT:
            break
        towards /= np.linalg.norm(towards)
        directions = atoms - (atoms @ y)[:, None] * y
        sizes = np.linalg.norm(directions, axis=1)
        usable = sizes > 1e-7
        scores = np.full(len(vectors), -np.inf)
        scores[usable] = directions[usable] @ towards / sizes[usable]
        pick = int(np.argmax(scores))
        z0, z1, z2 = goal @ atoms[pick], goal @ y, atoms[pick] @ y
        ahead, back = z0 - z1 * z2, z1 - z0 * z2
        if y.any() and (ahead <= 0.0 or back < 0.0):
            break
        share = ahead / (ahead + back) if y.any() else 1.0
        y = (1.0 - share) * y + share * atoms[pick]
        weights *= 1.0 - share
        weights[pick] += share
        size = np.linalg.norm(y)
        y, weights = y / size, weights / size
    return np.asarray(weights * (length / norms) * (goal @ y))


def tuned_giga(vectors: Floats, steps: int) -> Floats:
    """Return what :func:`giga` does, with one matrix product per step and no needless copies.

    The score of an atom a is ``(a.t - (a.y)(t.y)) / sqrt(1 - (a.y)^2)`` but for a factor that all
    have in common.
    """
    target = vectors.mean(axis=0)
    norms, length = np.linalg.norm(vectors, axis=1), np.linalg.norm(target)
    atoms, goal = vectors / norms[:, None], target / length
    ahead = atoms @ goal
    pick = int(np.argmax(ahead))
    y, weights = atoms[pick].copy(), np.zeros(len(vectors))
    weights[pick] = 1.0
    along, scores, sines = (np.empty_like(norms) for _ in range(3))
    for _ in range(steps - 1):
        reached = float(goal @ y)
        if 1.0 - reached <= _SHORT:
            break
        np.matmul(atoms, y, out=along)
        np.multiply(along, along, out=sines)
        np.subtract(1.0, sines, out=sines)
        np.maximum(sines, _SAME, out=sines)
        np.sqrt(sines, out=sines)
        np.multiply(along, -reached, out=scores)
        scores += ahead
        scores /= sines
        pick = int(scores.argmax())
        z0, z2 = ahead[pick], along[pick]
        forth, back = z0 - reached * z2, reached - z0 * z2
        if forth <= 0.0 or back < 0.0:
            break
        y *= back
        y += forth * atoms[pick]
        size = float(np.sqrt(y @ y))
        y /= size
        weights *= back / size
        weights[pick] += forth / size
    return np.asarray(weights * (length / norms) * (goal @ y))


def matching_pursuit(vectors: Floats, steps: int, normalized: bool = False) -> Floats:
    """Return the weights of orthogonal matching pursuit with a nonnegative refit after every step.

    Killamsetty et al., GRAD-MATCH, ICML 2021, without its ridge term, which leaves a larger
    residual. ``normalized`` looks for the least angle, as do Campbell & Broderick, instead of the
    largest product.
    """
    chosen: list[int] = []
    fitted = np.zeros(0)
    target = rest = vectors.mean(axis=0)
    directions = vectors / np.linalg.norm(vectors, axis=1)[:, None] if normalized else vectors
    for _ in range(steps):
        products = directions @ rest
        pick = int(np.argmax(products))
        if products[pick] <= 0.0 or pick in chosen:
            break
        chosen.append(pick)
        columns = vectors[chosen].T
        fitted = nnls(columns, target)[0]
        rest = target - columns @ fitted
    weights = np.zeros(len(vectors))
    weights[chosen] = fitted
    return weights


def frank_wolfe(vectors: Floats, steps: int) -> Floats:
    """Return the weights of Frank-Wolfe on the Hilbert coreset polytope.

    Campbell & Broderick, Automated scalable Bayesian inference via Hilbert coresets, JMLR 2019,
    for the mean instead of the sum: ``w >= 0`` with ``sum_i ||v_i|| w_i`` the mean norm.
    """
    target, norms = vectors.mean(axis=0), np.linalg.norm(vectors, axis=1)
    atoms, length = vectors / norms[:, None], norms.mean()
    shares = np.zeros(len(vectors))
    shares[int(np.argmax(atoms @ target))] = 1.0
    for _ in range(steps - 1):
        point = length * (shares @ atoms)
        pick = int(np.argmax(atoms @ (target - point)))
        ahead = length * atoms[pick] - point
        square = ahead @ ahead
        step = ahead @ (target - point) / square if square > 0.0 else 0.0
        if step <= 0.0:
            break
        shares *= 1.0 - min(1.0, step)
        shares[pick] += min(1.0, step)
    return np.asarray(shares * (length / norms))


def single_swaps(
    vectors: Floats, size: int, seconds: float, seed: int
) -> tuple[NDArray[np.int64], float]:
    """Return the best subset of single-swap descents from random starts, and the time they took.

    Uniform weights. One descent at least; another while there is time.
    """
    begun = time.perf_counter()
    rng, goal = np.random.default_rng(seed), size * vectors.mean(axis=0)
    best, least = np.zeros(0, dtype=np.int64), np.inf
    while not best.size or time.perf_counter() - begun < seconds:
        order = rng.permutation(len(vectors))
        square = _descend(vectors, goal, order, size)
        if square < least:
            best, least = order[:size].copy(), square
    return best, time.perf_counter() - begun


@njit(cache=True, fastmath=True)
def _descend(vectors: Any, goal: Any, order: Any, size: int) -> float:
    """Exchange each member for the point that helps most, in turn, until none helps."""
    n, d = vectors.shape
    r = goal.copy()
    for a in range(size):
        r -= vectors[order[a]]
    now, since, a = (r * r).sum(), 0, 0
    while since < size:
        u = r + vectors[order[a]]
        least, at = now, -1
        for b in range(size, n):
            square = 0.0
            for c in range(d):
                x = u[c] - vectors[order[b], c]
                square += x * x
            if square < least * (1.0 - 1e-9):
                least, at = square, b
        since += 1
        if at >= 0:
            r = u - vectors[order[at]]
            order[a], order[at] = order[at], order[a]
            now, since = least, 0
        a = (a + 1) % size
    return float(now)
