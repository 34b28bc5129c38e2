"""The constraints that fuzzed problems are given, around a subset that satisfies most of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["RULES", "constraints", "quotas_around"]

Generator = np.random.Generator
Subset = NDArray[np.int64]
Rules = dict[str, Any]


def constraints(rng: Generator, n: int, k: int, witness: Subset) -> tuple[Rules, list[str]]:
    """Return keywords of ``so.Problem``, and the names of the rules that made them."""
    keywords: Rules = {}
    names: list[str] = []
    if rng.random() < 0.3:
        return keywords, names
    for name, share, make in RULES:
        if rng.random() < share:
            keywords |= make(rng, n, k, witness)
            names.append(name)
    return keywords, names


def _named(rng: Generator, n: int, pool: Subset, most: int) -> Any:
    """Return some of a pool of candidates: as indices, or as a mask."""
    count = min(pool.size, int(rng.integers(0, most + 1)))
    chosen = rng.choice(pool, count, replace=False) if count else np.empty(0, np.int64)
    if rng.random() < 0.7:
        return chosen.astype(np.int64)
    mask = np.zeros(n, dtype=np.bool_)
    mask[chosen] = True
    return mask


def _forced(rng: Generator, n: int, k: int, witness: Subset) -> Rules:
    pool = witness if rng.random() < 0.9 else np.arange(n)
    return {"include": _named(rng, n, pool, min(k, 3))}


def _barred(rng: Generator, n: int, k: int, witness: Subset) -> Rules:
    others = np.setdiff1d(np.arange(n), witness)
    return {"exclude": _named(rng, n, others if rng.random() < 0.9 else np.arange(n), 3)}


def _quotas_of_one(rng: Generator, n: int, k: int, witness: Subset) -> Rules:
    groups = rng.integers(0, max(2, n), n)
    groups[witness] = np.arange(witness.size)
    quotas = {int(g): (0, 1) if rng.random() < 0.6 else 1 for g in np.unique(groups)}
    if rng.random() < 0.8:
        absent = [g for g in quotas if g >= witness.size]
        quotas |= dict.fromkeys(absent, (0, 1))
    return {"groups": groups, "quotas": {g: q for g, q in quotas.items() if rng.random() < 0.8}}


def quotas_around(rng: Generator, groups: Subset, members: Subset, widest: int) -> Rules:
    """Return quotas (low, high) around what a subset has; a fifth of them at random.

    Parameters
    ----------
    rng
        A generator.
    groups
        The group of every candidate, 0 to 2, shape (n,).
    members
        The candidates in the subset.
    widest
        The most that a quota's upper end lies above what the subset has.
    """
    counts = np.bincount(groups[members], minlength=3)
    quotas: dict[int, int | tuple[int, int]] = {}
    for label in range(3):
        if rng.random() < 0.3:
            continue
        count = int(counts[label]) if rng.random() < 0.8 else int(rng.integers(0, 4))
        low, high = (
            max(0, count - int(rng.integers(0, 2))),
            count + int(rng.integers(0, widest + 1)),
        )
        quotas[label] = (low, high) if low < high else low
    return {"groups": groups, "quotas": quotas}


def _quotas(rng: Generator, n: int, k: int, witness: Subset) -> Rules:
    """Return quotas around what a subset has."""
    return quotas_around(rng, rng.integers(0, 3, n), witness, 2)


_LABELS: tuple[list[Any], ...] = (
    ["cat", "dog", "cow"],
    [b"a", b"b", b"c"],
    [1.5, 2.5, 3.5],
    [True, False, True],
    [np.datetime64("2024-01-01"), np.datetime64("2024-01-02"), np.datetime64("2024-02-01")],
    [-1, 2**40, 7],
    ["x" * 40, "y" * 40, ""],
)


def _labelled(rng: Generator, n: int, k: int, witness: Subset) -> Rules:
    """Return quotas that a subset keeps, on labels of several types, some of which are absent."""
    names = _LABELS[rng.integers(len(_LABELS))]
    groups = np.array(names)[rng.integers(0, 3, n)]
    chosen = groups[witness]
    quotas: dict[Any, Any] = {}
    for label in set(names):
        count = int((chosen == label).sum())
        quotas[label] = count if rng.random() < 0.5 else (max(0, count - 1), count + 1)
        if not count and rng.random() < 0.1:
            quotas[label] = 1
    return {"groups": groups, "quotas": quotas}


def _within(rng: Generator, costs: NDArray[Any], witness: Subset) -> float:
    """Return a capacity that a subset uses up, or that leaves a little, or much, or lacks it."""
    spent = math.fsum(costs[witness].tolist())
    return float(spent * rng.choice([1.0, 1.0 + 1e-9, 1.2, 3.0, 1.0 - 1e-6, 0.5]))


def _costs(rng: Generator, n: int, k: int, witness: Subset) -> Rules:
    costs = rng.random(n).astype(rng.choice(["float64", "float32", "float16"]))
    return {"costs": costs, "capacity": _within(rng, costs, witness)}


def _whole_costs(rng: Generator, n: int, k: int, witness: Subset) -> Rules:
    """Return whole costs, small or large, and the cost of a subset, or one unit less."""
    top = int(10 ** rng.integers(1, 13))
    costs = rng.integers(0, top, n)
    capacity: float = int(costs[witness].sum()) - int(rng.integers(0, 2))
    if rng.random() < 0.5:
        return {"costs": costs.astype(np.float64), "capacity": float(max(0, capacity))}
    return {"costs": costs, "capacity": max(0, capacity)}


def _large_whole_costs(rng: Generator, n: int, k: int, witness: Subset) -> Rules:
    """Return costs in the region where float64 begins to leave out whole numbers."""
    costs = 2 ** int(rng.integers(46, 55)) + rng.integers(-3, 4, n)
    if rng.random() < 0.3:
        costs[rng.integers(0, n, n // 2)] = rng.integers(0, 5)
    capacity = sum(costs[witness].tolist()) - int(rng.integers(0, 2))
    return {"costs": costs, "capacity": max(0, capacity)}


def _decimal_costs(rng: Generator, n: int, k: int, witness: Subset) -> Rules:
    """Return decimals, and the cost of a subset as it would be written, or computed."""
    digits = int(rng.integers(1, 4))
    costs = (rng.integers(1, 100, n) / 10.0**digits).round(digits)
    total = float(costs[witness].sum())
    return {"costs": costs, "capacity": round(total, digits) if rng.random() < 0.7 else total}


def _sentinels(rng: Generator, n: int, k: int, witness: Subset) -> Rules:
    """Return costs of which some mean "never": far above all others."""
    costs = rng.random(n).round(3) if rng.random() < 0.5 else rng.random(n)
    others = np.setdiff1d(np.arange(n), witness)
    if others.size:
        never = rng.choice(others, max(1, others.size // 3), replace=False)
        costs[never] = 10.0 ** rng.choice([1, 6, 9, 12, 18, 30, 300])
    return {"costs": costs, "capacity": float(costs[witness].sum() * (1.0 + rng.random()))}


def _unlimited(rng: Generator, n: int, k: int, witness: Subset) -> Rules:
    return {"costs": rng.random(n) * 10.0 ** rng.integers(-3, 9), "capacity": math.inf}


def _free(rng: Generator, n: int, k: int, witness: Subset) -> Rules:
    """Return costs of 0, a capacity of 0, or one below 0."""
    costs = rng.choice([0.0, 0.0, 1.0], n)
    costs[witness] = 0.0
    return {"costs": costs, "capacity": float(rng.choice([0.0, 0.0, 0.5, -1.0]))}


def _fewer(rng: Generator, n: int, k: int, witness: Subset) -> Rules:
    return {"cardinality": "at_most"}


RULES: tuple[tuple[str, float, Callable[[Generator, int, int, Subset], Rules]], ...] = (
    ("include", 0.2, _forced),
    ("exclude", 0.2, _barred),
    ("quotas", 0.15, _quotas),
    ("labels", 0.12, _labelled),
    ("quotas of one", 0.2, _quotas_of_one),
    ("costs", 0.12, _costs),
    ("whole costs", 0.12, _whole_costs),
    ("whole costs near 2**53", 0.04, _large_whole_costs),
    ("decimal costs", 0.12, _decimal_costs),
    ("sentinel costs", 0.12, _sentinels),
    ("infinite capacity", 0.07, _unlimited),
    ("capacity of 0", 0.03, _free),
    ("at most", 0.3, _fewer),
)
"""Name, share of the problems, and maker; a later rule takes the place of an earlier one's."""
