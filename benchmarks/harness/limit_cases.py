"""One problem of every objective at any size, for the benchmark of time limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import subsetopt as so
from benchmarks.harness.named import Table
from benchmarks.harness.specs import BACKENDS
from subsetopt.objectives import Objective

__all__ = ["CASES", "LimitCase", "hard_losses", "natives"]

# Length of the feature vectors.
_FEATURES = 64
# Centers of coverage problems at most: their objective takes n k d multiplications.
_CENTERS = 100
# Samples of a similarity matrix at most: it has n * n numbers.
_PAIRS = 5_000
# Group labels of constrained problems.
_GROUPS = 8
# Balancing variables of the cube.
_BALANCE = 4

# An objective, which the user makes before the call, and the keywords of its Problem.
Parts = tuple[Objective, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class LimitCase:
    """A named problem of any size."""

    name: str  #: what the table calls it
    make: Callable[[int, int], Parts]  #: returns the objective and the constraints for n and k
    rate: float = 0.1  #: k as a share of n
    most: int | None = None  #: the largest k; None for no such limit
    largest: int | None = None  #: the largest n; None for no such limit
    free: bool = True  #: whether the objective lets in every subset that keeps the constraints

    def size(self, n: int) -> int:
        """Return k for n candidates."""
        k = max(1, round(self.rate * n))
        return k if self.most is None else min(k, self.most)


CASES: Table[LimitCase] = Table("limit case")


def natives(problem: so.Problem) -> Iterator[str]:
    """Yield every registered solver that takes a problem and is no backend, and ``auto``."""
    for row in so.list_solvers():
        if row.name not in BACKENDS and row.obstacle(problem) is None:
            yield row.name
    yield "auto"


def hard_losses(n: int, k: int, seed: int = 0) -> tuple[NDArray[np.float64], float]:
    """Return losses and a target mean that no subset of size k hits, which no bound tells.

    All losses but two are multiples of 4, those two are 1 more, and the sum to hit is 3 more: no
    subset hits it, but the lattice of all losses has spacing 1 and does not tell, and there are
    too many subsets to look at them all.
    """
    rng = np.random.default_rng(seed)
    losses = 4.0 * rng.integers(1, 1 << 20, size=n)
    losses[:2] += 1.0
    target = losses.mean() * k // 4 * 4 + 3.0
    return losses, target / k


def _rng(n: int) -> np.random.Generator:
    return np.random.default_rng((n, 7))


def _quotas(n: int, k: int) -> dict[str, Any]:
    """Return quotas around the counts of a hidden random subset."""
    rng = np.random.default_rng((n, 11))
    groups = rng.integers(0, _GROUPS, size=n)
    counts = np.bincount(groups[rng.choice(n, k, replace=False)], minlength=_GROUPS)
    quotas = {g: (max(0, int(c) - 1), int(c) + 1) for g, c in enumerate(counts)}
    return {"groups": groups, "quotas": quotas}


def _capacity(n: int, k: int) -> dict[str, Any]:
    """Return costs, and a capacity that three in four random subsets exceed."""
    costs = np.random.default_rng((n, 13)).exponential(size=n).round(3)
    return {"costs": costs, "capacity": 0.9 * k * float(costs.mean())}


def _constraints(n: int, k: int) -> dict[str, Any]:
    return {**_quotas(n, k), **_capacity(n, k)}


def _free(n: int, k: int) -> dict[str, Any]:
    return {}


def _matching(rules: Callable[[int, int], dict[str, Any]], n: int, k: int) -> Parts:
    losses, target = hard_losses(n, k)
    return so.MeanMatching(losses, target), rules(n, k)


def _scores(rules: Callable[[int, int], dict[str, Any]], n: int, k: int) -> Parts:
    return so.TopScores(_rng(n).exponential(size=n)), rules(n, k)


def _weighted(n: int, k: int) -> Parts:
    return so.WeightedScores(_rng(n).exponential(size=n)), {}


def _scored(rules: Callable[[int, int], dict[str, Any]], n: int, k: int) -> Parts:
    rng = _rng(n)
    return so.ScoredMatching(rng.exponential(size=n), rng.exponential(size=n), 1e-3), rules(n, k)


def _vectors(weights: Any, rules: Callable[[int, int], dict[str, Any]], n: int, k: int) -> Parts:
    return so.VectorMatching(_features(n), weights=weights), rules(n, k)


def _features(n: int) -> NDArray[np.float64]:
    return _rng(n).normal(size=(n, _FEATURES))


def _facility(metric: Any, rules: Callable[[int, int], dict[str, Any]], n: int, k: int) -> Parts:
    return so.FacilityLocation(_features(n), metric=metric), rules(n, k)


def _similar(n: int, k: int) -> Parts:
    features = _features(n).astype(np.float32)
    return so.FacilityLocation(similarity=features @ features.T), {}


def _centers(rules: Callable[[int, int], dict[str, Any]], n: int, k: int) -> Parts:
    return so.KCenter(_features(n)), rules(n, k)


def _design(balance: int, replacement: bool, n: int, k: int) -> Parts:
    rng = _rng(n)
    inclusion = so.inclusion_probabilities(rng.exponential(size=n), k)
    variables = rng.exponential(size=(n, balance)) if balance else None
    return so.SamplingDesign(inclusion, variables, replacement), {}


for _case in (
    LimitCase("mean matching", partial(_matching, _free)),
    LimitCase("mean matching, quotas", partial(_matching, _quotas)),
    LimitCase("mean matching, quotas and capacity", partial(_matching, _constraints)),
    LimitCase("vectors, uniform", partial(_vectors, "uniform", _free), most=1_000),
    LimitCase("vectors, uniform, constrained", partial(_vectors, "uniform", _constraints),
              most=1_000),
    LimitCase("vectors, nonnegative", partial(_vectors, "nonnegative", _free), most=1_000),
    LimitCase("top scores", partial(_scores, _free)),
    LimitCase("top scores, quotas and capacity", partial(_scores, _constraints)),
    LimitCase("weighted scores", _weighted),
    LimitCase("scored matching", partial(_scored, _free), free=False),
    LimitCase("scored matching, constrained", partial(_scored, _constraints), free=False),
    LimitCase("facility location, cosine", partial(_facility, "cosine", _free), most=_CENTERS),
    LimitCase("facility location, euclidean", partial(_facility, "euclidean", _free),
              most=_CENTERS),
    LimitCase("facility location, constrained", partial(_facility, "cosine", _constraints),
              most=_CENTERS),
    LimitCase("facility location, similarity", _similar, most=_CENTERS, largest=_PAIRS),
    LimitCase("k-center", partial(_centers, _free), most=_CENTERS),
    LimitCase("k-center, constrained", partial(_centers, _constraints), most=_CENTERS),
    LimitCase("design", partial(_design, 0, False)),
    LimitCase("design, balanced", partial(_design, _BALANCE, False)),
    LimitCase("design, with replacement", partial(_design, 0, True)),
):  # fmt: skip
    CASES.register(_case)
