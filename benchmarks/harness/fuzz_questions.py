"""Random small questions of every objective, and their answers by looking at every subset.

Nothing here is the library's own arithmetic: subsets are the rows of a matrix, objectives are
evaluated in extended precision, costs are added as the exact rational numbers that were written.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

import subsetopt as so

__all__ = ["Question", "ask"]

Generator = np.random.Generator
Array = NDArray[Any]
# 80-bit floats where the platform has them: squares of 1e200 neither vanish nor overflow.
Exact = np.longdouble

_LARGEST = 9
# A total cost within this share of the capacity may count as within it or not.
_EDGE = 2e-9


@dataclass(frozen=True)
class Question:
    """A problem as plain values.

    Attributes
    ----------
    kind
        The objective: "mean", "vectors", "top", "scored", "facility" or "center".
    data
        The arguments of the objective.
    k
        How many to choose.
    keywords
        The constraints, as keywords of ``so.Problem``.
    features
        What the question consists of, for the tables.
    """

    kind: str
    data: dict[str, Any]
    k: int
    keywords: dict[str, Any] = field(default_factory=dict)
    features: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        return len(next(iter(self.data.values())))

    @property
    def maximized(self) -> bool:
        return self.kind in ("top", "scored", "facility")

    def problem(self) -> so.Problem:
        """Return the problem that solvers are given."""
        return so.Problem(_OBJECTIVES[self.kind](**self.data), self.k, **self.keywords)

    @cached_property
    def subsets(self) -> NDArray[np.bool_]:
        """Every subset of an allowed size that keeps include, exclude and quotas, (subsets, n)."""
        rows = np.array(list(product((False, True), repeat=self.n)), dtype=np.bool_)
        rows = rows.reshape(-1, self.n)
        sizes, rules = rows.sum(axis=1), self.keywords
        at_most = rules.get("cardinality") == "at_most"
        keep = sizes <= self.k if at_most else sizes == self.k
        keep &= rows[:, rules.get("include", [])].all(axis=1)
        keep &= ~rows[:, rules.get("exclude", [])].any(axis=1)
        for label, quota in rules.get("quotas", {}).items():
            low, high = quota if isinstance(quota, tuple) else (quota, quota)
            members = np.array([bool(group == label) for group in rules["groups"]])
            counts = rows[:, members].sum(axis=1)
            keep &= (low <= counts) & (counts <= high)
        if self.kind == "center":
            keep &= rows.any(axis=1)  # The empty subset has no radius.
        return rows[keep]

    @cached_property
    def surely(self) -> NDArray[np.bool_]:
        """Which of the subsets are feasible beyond doubt, shape (subsets,)."""
        return self._affordable(1.0 - _EDGE) & self._within(1.0 - 1e-6)

    @cached_property
    def possibly(self) -> NDArray[np.bool_]:
        """Which of the subsets may pass for feasible: at the very edge rounding decides."""
        return self._affordable(1.0 + _EDGE) & self._within(1.0 + 1e-6)

    def _affordable(self, share: float) -> NDArray[np.bool_]:
        capacity = self.keywords.get("capacity", math.inf)
        if not math.isfinite(capacity):
            return np.full(len(self.subsets), capacity > 0)
        costs = [Fraction(repr(float(cost))) for cost in self.keywords["costs"]]
        whole = all(cost.denominator == 1 for cost in costs)
        limit = Fraction(repr(float(capacity))) * (1 if whole else Fraction(share))
        return np.array(
            [sum((costs[i] for i in np.flatnonzero(row)), Fraction(0)) <= limit
             for row in self.subsets], dtype=np.bool_,
        )  # fmt: skip

    def _within(self, share: float) -> NDArray[np.bool_]:
        if self.kind != "scored":
            return np.full(len(self.subsets), True)
        losses = self.data["losses"].astype(Exact)
        off = np.abs(losses.mean() - self.subsets @ losses / max(1, self.k))
        rounding = Exact(1e-9 * (share - 1.0) / 1e-6) * np.abs(losses).mean()
        return np.asarray(off <= Exact(self.data["tolerance"]) * Exact(share) + rounding)

    @cached_property
    def values(self) -> NDArray[Any]:
        """The objective of every subset, in extended precision."""
        return _VALUES[self.kind](self, self.subsets)

    @cached_property
    def best(self) -> float:
        """The optimum over the subsets that are feasible beyond doubt; NaN without any."""
        values = self.values[self.surely]
        if not values.size:
            return math.nan
        return float(values.max() if self.maximized else values.min())

    @cached_property
    def magnitude(self) -> float:
        """The largest number that an objective adds up: float64 sums are off by a share of it."""
        numbers = self.data["similarity" if self.kind == "facility" else next(iter(self.data))]
        largest = float(np.abs(numbers.astype(Exact)).max())
        return largest * self.n if self.kind in ("top", "scored", "facility") else largest

    @cached_property
    def tolerance(self) -> float:
        """By how much an optimal answer may miss the optimum, as the documentation states it."""
        numbers = next(iter(self.data.values()))
        narrow = numbers.dtype.kind == "f" and numbers.dtype.itemsize <= 4
        if self.kind in ("mean", "vectors"):
            size = np.abs(numbers.astype(Exact)).reshape(self.n, -1)
            scale = float(np.sqrt((size * size).sum(axis=1)).mean())
            return (2.0**-23 if narrow else 1e-9) * scale
        return 2e-9 * self.magnitude

    def value(self, indices: NDArray[np.int64]) -> float:
        """Return the objective of one subset."""
        row = np.zeros((1, self.n), dtype=np.bool_)
        row[0, indices] = True
        return float(_VALUES[self.kind](self, row)[0])

    def feasible(self, indices: NDArray[np.int64]) -> bool:
        """Return whether a subset may pass for feasible."""
        row = np.zeros(self.n, dtype=np.bool_)
        row[indices] = True
        same = (self.subsets == row).all(axis=1)
        return len(set(indices.tolist())) == len(indices) and bool((same & self.possibly).any())

    def warm_start(self, rng: Generator) -> NDArray[np.int64] | None:
        """Return a feasible subset, or None where there is none beyond doubt."""
        rows = self.subsets[self.surely]
        return np.flatnonzero(rows[rng.integers(len(rows))]) if len(rows) else None


def _mean(question: Question, rows: Array) -> Array:
    losses = question.data["losses"].astype(Exact)
    target = question.data.get("target")
    target = losses.mean() if target is None else Exact(target)
    return np.asarray(np.abs(target - rows @ losses / Exact(max(1, question.k))))


def _vectors(question: Question, rows: Array) -> Array:
    vectors = question.data["vectors"].astype(Exact)
    off = vectors.mean(axis=0) - rows @ vectors / Exact(max(1, question.k))
    return np.asarray(np.sqrt((off * off).sum(axis=1)))


def _total(question: Question, rows: Array) -> Array:
    return np.asarray(rows @ question.data["scores"].astype(Exact))


def _covered(question: Question, rows: Array) -> Array:
    similarity = question.data["similarity"].astype(Exact)
    return np.array([similarity[:, row].max(axis=1, initial=0).sum() for row in rows])


def _radius(question: Question, rows: Array) -> Array:
    points = question.data["features"].astype(Exact)
    apart = np.sqrt(((points[:, None] - points[None]) ** 2).sum(axis=2))
    return np.array([apart[:, row].min(axis=1, initial=np.inf).max(initial=0) for row in rows])


_VALUES: dict[str, Callable[[Question, Array], Array]] = {
    "mean": _mean, "vectors": _vectors, "top": _total, "scored": _total, "facility": _covered,
    "center": _radius,
}  # fmt: skip
_OBJECTIVES: dict[str, Callable[..., Any]] = {
    "mean": so.MeanMatching, "vectors": so.VectorMatching, "top": so.TopScores,
    "scored": so.ScoredMatching, "facility": so.FacilityLocation, "center": so.KCenter,
}  # fmt: skip


def ask(seed: int, i: int) -> Question:
    """Return question i of a seed."""
    rng = np.random.default_rng((seed, i, 1))
    n = int(rng.integers(2, _LARGEST + 1))
    k = int(rng.integers(1, n + 1))
    kind = str(rng.choice(list(_OBJECTIVES)))
    numbers = str(rng.choice(list(_NUMBERS)))
    data = _data(kind, numbers, rng, n)
    keywords: dict[str, Any] = {}
    features = [kind, numbers]
    for name, share, make in _RULES:
        if rng.random() < share:
            keywords |= make(rng, n, k)
            features.append(name)
    return Question(kind, data, k, keywords, tuple(features))


def _data(kind: str, numbers: str, rng: Generator, n: int) -> dict[str, Any]:
    draw = _NUMBERS[numbers]
    if kind == "mean":
        return {"losses": draw(rng, (n,))}
    if kind == "top":
        return {"scores": draw(rng, (n,))}
    if kind == "scored":
        losses = draw(rng, (n,))
        spread = float(np.abs(losses.astype(np.float64)).mean())
        return {
            "scores": rng.normal(size=n), "losses": losses,
            "tolerance": spread * float(rng.choice([0.01, 0.1, 0.5])),
        }  # fmt: skip
    d = int(rng.integers(1, 4))
    if kind == "vectors":
        return {"vectors": draw(rng, (n, d))}
    if kind == "center":
        return {"features": draw(rng, (n, d))}
    similarity = np.abs(draw(rng, (n, n)).astype(np.float64))
    return {"similarity": (similarity + similarity.T) / 2.0}


def _outlier(rng: Generator, shape: tuple[int, ...]) -> Array:
    values = 1.0 + 0.1 * rng.random(shape)
    values[rng.integers(shape[0])] *= 10.0 ** rng.integers(8, 11)
    return values


_NUMBERS: dict[str, Callable[[Generator, tuple[int, ...]], Array]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "exponential": lambda rng, shape: rng.exponential(size=shape).astype(np.float32),
    "float16": lambda rng, shape: rng.lognormal(0.0, 2.0, shape).astype(np.float16),
    "decimal": lambda rng, shape: rng.exponential(size=shape).round(3),
    "integer": lambda rng, shape: rng.integers(-20, 21, shape).astype(np.float64),
    "ties": lambda rng, shape: rng.choice([0.0, 0.5, 1.0], shape),
    "outlier of 1e8 to 1e10": _outlier,
    "huge": lambda rng, shape: rng.normal(size=shape) * 1e150,
    "tiny": lambda rng, shape: rng.normal(size=shape) * 1e-150,
    "wide": lambda rng, shape: 10.0 ** rng.uniform(-6.0, 6.0, shape),
    "offset": lambda rng, shape: 1000.0 + rng.random(shape),
}


def _forced(rng: Generator, n: int, k: int) -> dict[str, Any]:
    return {"include": rng.choice(n, int(rng.integers(1, min(k, 3) + 1)), replace=False)}


def _barred(rng: Generator, n: int, k: int) -> dict[str, Any]:
    return {"exclude": rng.choice(n, 1)}


def _quotas_of_one(rng: Generator, n: int, k: int) -> dict[str, Any]:
    groups = rng.integers(0, max(2, n // 2), n)
    quotas = {int(g): (0, 1) if rng.random() < 0.7 else 1 for g in np.unique(groups)}
    return {"groups": groups, "quotas": {g: q for g, q in quotas.items() if rng.random() < 0.8}}


def _labelled(rng: Generator, n: int, k: int) -> dict[str, Any]:
    """Return quotas that a random subset keeps, on labels of several types."""
    names: Any = [["cat", "dog", "cow"], [b"a", b"b", b"c"], [1.5, 2.5, 3.5], [True, False, True]][
        rng.integers(4)
    ]
    groups = np.array(names)[rng.integers(0, 3, n)]
    witness = groups[rng.choice(n, k, replace=False)]
    quotas: dict[Any, Any] = {}
    for label in np.unique(groups).tolist():
        count = int((witness == label).sum())
        quotas[label] = count if rng.random() < 0.5 else (max(0, count - 1), count + 1)
    return {"groups": groups, "quotas": quotas}


def _costs(rng: Generator, n: int, k: int) -> dict[str, Any]:
    costs = rng.random(n)
    return {"costs": costs, "capacity": float(costs.sum() * 1.4 * rng.random() * k / n)}


def _whole_costs(rng: Generator, n: int, k: int) -> dict[str, Any]:
    """Return integer costs, small or large, and the cost of a random subset, or one unit less."""
    costs = rng.integers(0, int(10 ** rng.integers(1, 13)), n).astype(np.float64)
    witness = costs[rng.choice(n, k, replace=False)].sum()
    return {"costs": costs, "capacity": float(max(0.0, witness - rng.integers(0, 2)))}


def _decimal_costs(rng: Generator, n: int, k: int) -> dict[str, Any]:
    """Return costs with two decimals, and the cost of a random subset as it would be written."""
    costs = (rng.integers(1, 100, n) / 100.0).round(2)
    return {
        "costs": costs,
        "capacity": round(float(costs[rng.choice(n, k, replace=False)].sum()), 2),
    }


def _sentinels(rng: Generator, n: int, k: int) -> dict[str, Any]:
    """Return costs of which some mean "never": far above all others."""
    costs = rng.random(n)
    costs[rng.choice(n, max(1, n // 4), replace=False)] = 10.0 ** rng.choice([1, 6, 9, 12, 18, 30])
    usual = np.sort(costs)[:k].sum()
    return {"costs": costs, "capacity": float(usual * (1.0 + rng.random()))}


def _unlimited(rng: Generator, n: int, k: int) -> dict[str, Any]:
    return {"costs": rng.random(n), "capacity": math.inf}


def _fewer(rng: Generator, n: int, k: int) -> dict[str, Any]:
    return {"cardinality": "at_most"}


_RULES: tuple[tuple[str, float, Callable[[Generator, int, int], dict[str, Any]]], ...] = (
    ("include", 0.15, _forced),
    ("exclude", 0.15, _barred),
    ("labels", 0.15, _labelled),
    ("quotas of one", 0.2, _quotas_of_one),
    ("costs", 0.1, _costs),
    ("whole costs", 0.1, _whole_costs),
    ("decimal costs", 0.1, _decimal_costs),
    ("sentinel costs", 0.1, _sentinels),
    ("infinite capacity", 0.08, _unlimited),
    ("at most", 0.3, _fewer),
)
