"""Seeded losses and vectors of many shapes, shared by tests, benchmarks and docs.

Each family is named for what makes it hard: ties and decimals lie on a lattice, outliers put the
optimum out of reach of any tolerance, a planted subset has a known optimum of 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subsetopt.errors import OptionError, did_you_mean

__all__ = ["FAMILIES", "losses", "planted", "vectors"]

Family = Callable[[np.random.Generator, int, int], NDArray[Any]]


def losses(family: str, n: int, k: int, seed: int = 0) -> NDArray[Any]:
    """Return a loss vector of a family.

    Parameters
    ----------
    family
        One of ``FAMILIES``.
    n, k
        Number of losses, and number of losses to choose, by which outliers are placed.
    seed
        Nonnegative int; same seed, same vector.

    Returns
    -------
    ndarray
        Shape (n,), float32.

    Raises
    ------
    OptionError
        If there is no such family.

    Examples
    --------
    >>> losses("integer", 5, 2, seed=1).dtype
    dtype('float32')
    """
    if family not in FAMILIES:
        raise OptionError(
            f"no family named {family!r}.{did_you_mean(family, FAMILIES)} "
            f"Known: {', '.join(FAMILIES)}."
        )
    return FAMILIES[family](np.random.default_rng((seed, n)), n, k)


def planted(n: int, k: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return losses on a fine lattice and a subset of size k whose mean is exactly theirs.

    The losses are multiples of 2**-20, so that every sum is exact in float64; the optimum is 0.
    Needs 0 < k < n. The last loss outside the planted subset is set so that the means agree.
    """
    rng = np.random.default_rng((seed, n, k))
    units = rng.integers(1, 1 << 22, size=n) * k
    subset = np.sort(rng.choice(n, k, replace=False))
    rest = np.setdiff1d(np.arange(n), subset)
    # mean(all) = mean(subset) means sum(rest) = (n - k) / k * sum(subset).
    wanted = (n - k) * units[subset].sum() // k
    units[rest[-1]] += wanted - units[rest].sum()
    return np.ldexp(units.astype(np.float64), -20), subset


def vectors(n: int, d: int, seed: int = 0) -> NDArray[np.float64]:
    """Return vectors with Gaussian directions, a few of them much larger than most, like gradients.

    Parameters
    ----------
    n, d
        Number of vectors, and number of coordinates of each.
    seed
        Nonnegative int; same seed, same vectors.

    Returns
    -------
    ndarray
        Shape (n, d): rows of standard normal numbers, each times an exponential one.

    Examples
    --------
    >>> vectors(3, 2, seed=1).shape
    (3, 2)
    """
    rng = np.random.default_rng((seed, n, d))
    return rng.normal(size=(n, d)) * rng.exponential(size=(n, 1))


def _exponential(rng: np.random.Generator, n: int, k: int) -> NDArray[Any]:
    return rng.exponential(size=n).astype(np.float32)


def _lognormal(rng: np.random.Generator, n: int, k: int) -> NDArray[Any]:
    return rng.lognormal(0.0, 2.0, size=n).astype(np.float32)


def _uniform(rng: np.random.Generator, n: int, k: int) -> NDArray[Any]:
    return rng.random(n).astype(np.float32)


def _gaussian(rng: np.random.Generator, n: int, k: int) -> NDArray[Any]:
    return rng.normal(size=n).astype(np.float32)


def _bimodal(rng: np.random.Generator, n: int, k: int) -> NDArray[Any]:
    hard = rng.random(n) < 0.2
    return np.where(hard, rng.normal(5.0, 0.5, n), rng.exponential(0.05, n)).astype(np.float32)


def _integer(rng: np.random.Generator, n: int, k: int) -> NDArray[Any]:
    return rng.integers(0, 10, size=n).astype(np.float32)


def _two_decimal(rng: np.random.Generator, n: int, k: int) -> NDArray[Any]:
    return np.round(rng.exponential(size=n), 2).astype(np.float32)


def _bfloat16(rng: np.random.Generator, n: int, k: int) -> NDArray[Any]:
    # The upper half of a float32 is a bfloat16; dropping the lower half rounds towards zero.
    raw = rng.exponential(size=n).astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
    return raw.view(np.float32)


def _all_equal(rng: np.random.Generator, n: int, k: int) -> NDArray[Any]:
    return np.full(n, 0.7, dtype=np.float32)


def _far_outlier(rng: np.random.Generator, n: int, k: int) -> NDArray[Any]:
    values = rng.exponential(size=n)
    values[rng.integers(n)] = 1000.0 * n
    return values.astype(np.float32)


def _edge_outlier(rng: np.random.Generator, n: int, k: int) -> NDArray[Any]:
    # The outlier is so large that no subset reaches the mean: with it, the k - 1 smallest others
    # still exceed the mean by up to 5%; without it, the k largest others fall short.
    values = np.sort(rng.exponential(size=n))[::-1].copy()
    rest = values[1:]
    k = max(1, min(k, n - 1))
    # With the outlier x: x + smallest(k-1) = k * mean, so x (1 - k/n) = k/n * sum(rest) - smallest.
    smallest = rest[rest.size - (k - 1) :].sum()
    largest = rest[:k].sum()
    upper = (k / n * rest.sum() - smallest) / (1.0 - k / n)
    lower = largest * n / k - rest.sum()
    values[0] = max(upper, lower) * (1.0 + 0.05 * rng.random())
    return rng.permutation(values).astype(np.float32)


FAMILIES: dict[str, Family] = {
    "exponential": _exponential,
    "lognormal": _lognormal,
    "uniform": _uniform,
    "gaussian": _gaussian,
    "bimodal": _bimodal,
    "integer": _integer,
    "two-decimal": _two_decimal,
    "bfloat16": _bfloat16,
    "all-equal": _all_equal,
    "far-outlier": _far_outlier,
    "edge-outlier": _edge_outlier,
}
