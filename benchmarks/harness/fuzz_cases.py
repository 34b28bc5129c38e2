"""Random small instances of every kind, and an oracle in plain Python."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.check import Instance
from benchmarks.harness.fuzz_rules import quotas_around
from subsetopt import instances

__all__ = ["brute_force", "draw"]

_LARGEST = 14
Maker = Callable[[np.random.Generator, int, int], NDArray[Any]]


def draw(seed: int, i: int, largest: int = _LARGEST) -> tuple[Instance, list[str]]:
    """Return instance i of a seed (at most ``largest`` losses), and what it consists of."""
    rng = np.random.default_rng((seed, i))
    n = int(rng.integers(1, largest + 1))
    k = int(rng.integers(0, n + 1))
    name = _NAMES[rng.integers(len(_NAMES))]
    losses = _MAKERS[name](rng, n, k)
    keywords: dict[str, Any] = {}
    if rng.random() < 0.15:
        keywords["target"] = _target(rng, losses)
    if rng.random() < 0.1:
        keywords["base_weights"] = rng.random(n) + (rng.random() < 0.5)
    if rng.random() < 0.5:
        keywords |= _constraints(rng, n, k)
    return Instance(losses, k, keywords), [name, *keywords]


def brute_force(instance: Instance) -> float:
    """Return the smallest residual over every subset, infinity when none is feasible."""
    n, k = instance.values.size, instance.k
    at_most = instance.keywords.get("cardinality") == "at_most"
    best = np.inf
    for size in range(0 if at_most else k, k + 1):
        for subset in combinations(range(n), size):
            indices = np.array(subset, dtype=np.int64)
            if instance.feasible(indices):
                best = min(best, instance.residual(indices))
    return float(best)


def _library(name: str) -> Maker:
    def make(rng: np.random.Generator, n: int, k: int) -> NDArray[Any]:
        # The outlier's place depends on k, and exists only for 0 < k < n and n of at least 3.
        if name == "edge-outlier" and (n < 3 or not 0 < k < n):
            return rng.exponential(size=n).astype(np.float32)
        return instances.FAMILIES[name](rng, n, k)

    return make


_MAKERS: dict[str, Maker] = {name: _library(name) for name in instances.FAMILIES} | {
    "float64": lambda rng, n, k: rng.lognormal(0.0, 1.0, n),
    "float16": lambda rng, n, k: rng.exponential(size=n).astype(np.float16),
    "int64": lambda rng, n, k: rng.integers(-20, 21, n),
    "signed": lambda rng, n, k: rng.normal(size=n) * 10.0 ** rng.integers(-3, 4),
    "few-values": lambda rng, n, k: rng.choice([0.0, 0.5, 1.0, -1.5], n),
    "half-zero": lambda rng, n, k: np.where(rng.random(n) < 0.5, 0.0, rng.random(n)),
    "huge": lambda rng, n, k: rng.exponential(size=n) * 1e200,
    "tiny": lambda rng, n, k: rng.exponential(size=n) * 1e-200,
    "wide": lambda rng, n, k: 10.0 ** rng.uniform(-8.0, 8.0, n),
    "offset": lambda rng, n, k: 1000.0 + rng.random(n),
    "zeros": lambda rng, n, k: np.zeros(n),
    "decimal": lambda rng, n, k: np.round(rng.random(n) * 5.0, int(rng.integers(1, 4))),
}
_NAMES = tuple(_MAKERS)


def _target(rng: np.random.Generator, losses: NDArray[Any]) -> float:
    """Return a subset's mean, a value near the mean, or one out of reach."""
    values = losses.astype(np.float64)
    kind = rng.integers(3)
    if kind == 0:
        return float(rng.choice(values, max(1, values.size // 2), replace=False).mean())
    if kind == 1:
        return float(values.mean() * (1.0 + 0.1 * rng.normal()))
    return float(values.max() * 3.0 + 1.0)


def _constraints(rng: np.random.Generator, n: int, k: int) -> dict[str, Any]:
    keywords: dict[str, Any] = {}
    roles = rng.random(n)
    if rng.random() < 0.3:
        keywords["include"] = np.flatnonzero(roles < 0.12)
    if rng.random() < 0.3:
        keywords["exclude"] = np.flatnonzero(roles > 0.85)
    if rng.random() < 0.5:
        keywords |= _quotas(rng, n, k)
    if rng.random() < 0.4:
        costs = rng.random(n) if rng.random() < 0.5 else rng.integers(0, 5, n).astype(float)
        share = 1.4 * rng.random() * k / n
        keywords |= {"costs": costs, "capacity": float(costs.sum() * share)}
    if rng.random() < 0.4:
        keywords["cardinality"] = "at_most"
    return keywords


def _quotas(rng: np.random.Generator, n: int, k: int) -> dict[str, Any]:
    """Return quotas around what a random subset has."""
    groups = rng.integers(0, 3, size=n)
    return quotas_around(rng, groups, rng.choice(n, k, replace=False), 1)
