"""Random problems of every objective, as plain values; what they ask is never the library's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import subsetopt as so
from benchmarks.harness.fuzz_numbers import NUMBERS
from benchmarks.harness.fuzz_rules import constraints

__all__ = ["BACKEND_KINDS", "KINDS", "Question", "ask"]

Generator = np.random.Generator
Array = NDArray[Any]
Data = dict[str, Any]

# Up to these sizes every subset is looked at; the exact fit of weights takes longest.
_LARGEST = {"mean": 12, "top": 11, "weighted": 10, "scored": 12, "design": 12, "fitted": 7}
_LARGEST_OTHER = 9
# Share of the problems with too many subsets to look at all, and their size.
_BEYOND = 0.01
_BEYOND_SIZES = (16, 65)
_MASKED = 0.01
# Share of the problems with at most one candidate, and of those of which all or none are chosen.
_TRIVIAL = 0.04


@dataclass(frozen=True)
class Question:
    """A problem as plain values.

    Attributes
    ----------
    kind
        The objective, a key of ``KINDS``.
    data
        The arguments of the objective.
    k
        How many to choose.
    keywords
        The constraints, as keywords of ``so.Problem``.
    features
        What the question consists of, for the tables.
    enumerable
        Whether there are few enough subsets to look at all of them.
    witness
        The subset around which the constraints were made; it may break some.
    """

    kind: str
    data: Data
    k: int
    keywords: dict[str, Any] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    enumerable: bool = True
    witness: NDArray[np.int64] | None = None

    @property
    def n(self) -> int:
        return len(next(iter(self.data.values())))

    @property
    def numbers(self) -> Array:
        """The array of the objective that tells its size and its precision."""
        array: Array = next(iter(self.data.values()))
        return array

    @property
    def at_most(self) -> bool:
        """Whether fewer than k are allowed."""
        return self.kind == "fitted" or self.keywords.get("cardinality") == "at_most"

    @property
    def masked(self) -> bool:
        """Whether entries are hidden, which the library has to refuse."""
        return isinstance(self.numbers, np.ma.MaskedArray)

    def problem(self) -> so.Problem:
        """Return the problem that solvers are given."""
        return so.Problem(_OBJECTIVES[self.kind](**self.data), self.k, **self.keywords)


def _fitted(vectors: Array, target: Array | None = None) -> so.VectorMatching:
    return so.VectorMatching(vectors, target, "nonnegative")


_OBJECTIVES: dict[str, Callable[..., Any]] = {
    "mean": so.MeanMatching,
    "vectors": so.VectorMatching,
    "fitted": _fitted,
    "top": so.TopScores,
    "weighted": so.WeightedScores,
    "scored": so.ScoredMatching,
    "facility": so.FacilityLocation,
    "center": so.KCenter,
    "design": so.SamplingDesign,
}


def ask(seed: int, i: int, *, backends: bool = False) -> Question:
    """Return question i of a seed; for mixed-integer backends, one that they take."""
    rng = np.random.default_rng((seed, i, 1 + backends))
    names, shares = _SHARES[backends]
    kind = names[int(np.searchsorted(shares, rng.random()))]
    enumerable = rng.random() >= _BEYOND
    most = _LARGEST.get(kind, _LARGEST_OTHER)
    n = int(rng.integers(*_BEYOND_SIZES)) if not enumerable else _size(rng, most)
    k = _chosen(rng, n)
    numbers = _NAMES[rng.integers(len(_NAMES))]
    witness = np.sort(rng.choice(n, k, replace=False))
    data = KINDS[kind](rng, numbers, n, k, witness)
    if kind == "design":
        return _design_question(rng, data, numbers, n, k, enumerable)
    keywords, rules = constraints(rng, n, k, witness)
    features = [kind, numbers, *rules, *_notes(data, n, k)]
    if n and rng.random() < _MASKED:
        data = _hidden(rng, data, n)
        features.append("masked")
    if not enumerable:
        features.append("more subsets than are looked at")
    return Question(kind, data, k, keywords, tuple(features), enumerable, witness)


def _size(rng: Generator, most: int) -> int:
    """Return a number of candidates, at least 2 for most problems."""
    if rng.random() < _TRIVIAL:
        return int(rng.integers(0, 2))
    return int(rng.integers(2, most + 1))


def _chosen(rng: Generator, n: int) -> int:
    """Return how many to choose, all or none of them for some problems."""
    if n < 2 or rng.random() < _TRIVIAL:
        return int(rng.choice([0, n]))
    return int(rng.integers(1, n))


def _notes(data: Data, n: int, k: int) -> list[str]:
    """Return what else there is to say of a question."""
    notes = [name for name in ("target", "base_weights") if data.get(name) is not None]
    notes += [f"metric {data['metric']}"] if "metric" in data else []
    return notes + [f"n = {n}"] * (n <= 1) + ["k = 0"] * (k == 0) + ["k = n"] * (k == n)


def _hidden(rng: Generator, data: Data, n: int) -> Data:
    """Return the data with a masked array in place of the first, of which an entry is hidden."""
    name = next(iter(data))
    hidden = np.zeros(np.shape(data[name]), dtype=np.bool_)
    hidden[rng.integers(n)] = True
    return {**data, name: np.ma.MaskedArray(data[name], hidden)}


def _target(rng: Generator, values: Array, k: int, witness: NDArray[np.int64]) -> Any:
    """Return a target that a subset meets, at the edge of what can be reached, or beyond it."""
    exact = values.astype(np.float64)
    ordered = np.sort(exact, axis=0)
    with np.errstate(over="ignore"):
        choices = (
            exact[witness].sum(axis=0) / max(1, k),
            exact.mean(axis=0) * (1.0 + 0.1 * rng.normal()),
            ordered[len(exact) - k :].sum(axis=0) / max(1, k),
            ordered[:k].sum(axis=0) / max(1, k),
            np.nextafter(ordered[:k].sum(axis=0) / max(1, k), np.inf),
            exact.max(axis=0) * 3.0 + 1.0,
            exact.min(axis=0) * 3.0 - 1.0,
            np.zeros(exact.shape[1:]),
            np.full(exact.shape[1:], 10.0 ** rng.uniform(-300.0, 300.0)),
        )
    target = choices[rng.integers(len(choices))]
    target = np.where(np.isfinite(target), target, 1.0)
    return target if target.ndim else float(target)


def _mean(rng: Generator, numbers: str, n: int, k: int, witness: NDArray[np.int64]) -> Data:
    data: Data = {"losses": NUMBERS[numbers](rng, (n,))}
    if n and rng.random() < 0.25:
        data["target"] = _target(rng, data["losses"], k, witness)
    if n and rng.random() < 0.15:
        weights = rng.random(n) + (rng.random() < 0.5)
        if rng.random() < 0.3:
            weights[rng.random(n) < 0.4] = 0.0
        if rng.random() < 0.3:
            weights = rng.integers(0, 4, n).astype(np.float32)
        weights[rng.integers(n)] = 1.0
        data["base_weights"] = weights
    return data


def _vectors(rng: Generator, numbers: str, n: int, k: int, witness: NDArray[np.int64]) -> Data:
    vectors = NUMBERS[numbers](rng, (n, int(rng.integers(1, 4))))
    if n > 2 and rng.random() < 0.1:
        vectors[rng.integers(n)] = vectors[rng.integers(n)]
    data: Data = {"vectors": vectors}
    if n and rng.random() < 0.25:
        data["target"] = _target(rng, vectors, k, witness)
    return data


def _top(rng: Generator, numbers: str, n: int, k: int, witness: NDArray[np.int64]) -> Data:
    return {"scores": NUMBERS[numbers](rng, (n,))}


def _weighted(rng: Generator, numbers: str, n: int, k: int, witness: NDArray[np.int64]) -> Data:
    data: Data = {"losses": rng.exponential(size=n).round(int(rng.integers(0, 6)))}
    names = [["big-loss"], ["small-loss"], ["big-loss", "small-loss"]][rng.integers(3)]
    data["methods"] = names
    if rng.random() < 0.5:
        given = {"one": rng.random(n), "two": rng.normal(size=n).round(1)}
        data["methods"], names = given, list(given)
    if rng.random() < 0.5:
        data["weights"] = rng.random(len(names)).round(2)
    choice = rng.integers(3)
    if choice:
        data["reward"] = rng.random(n) if choice == 1 else float(rng.random())
    return data


def _scored(rng: Generator, numbers: str, n: int, k: int, witness: NDArray[np.int64]) -> Data:
    """Return scores, losses and a band: a share of their size, or ended by a subset's mean loss."""
    losses = NUMBERS[numbers](rng, (n,))
    others = numbers if rng.random() < 0.3 else "normal"
    scores = NUMBERS[others](rng, (n,))
    exact = losses.astype(np.float64)
    spread = float(np.abs(exact).mean()) if n else 1.0
    band = spread * float(rng.choice([0.0, 1e-6, 0.01, 0.1, 0.5, 2.0]))
    if n and rng.random() < 0.3:
        off = abs(float(exact.mean()) - float(exact[witness].sum()) / max(1, k))
        band = off * float(rng.choice([1.0, 1.0 + 1e-6, 1.0 - 1e-4]))
    return {"scores": scores, "losses": losses, "tolerance": band if np.isfinite(band) else 1.0}


def _facility(rng: Generator, numbers: str, n: int, k: int, witness: NDArray[np.int64]) -> Data:
    if rng.random() < 0.5:
        similarity = NUMBERS[numbers](rng, (n, n))
        if rng.random() < 0.5:
            similarity = np.abs(similarity.astype(np.float64))
            similarity = similarity / 2.0 + similarity.T / 2.0
        return {"similarity": similarity}
    metric = str(rng.choice(["cosine", "euclidean", "rbf", "dot"]))
    return {"features": NUMBERS[numbers](rng, (n, int(rng.integers(1, 4)))), "metric": metric}


def _center(rng: Generator, numbers: str, n: int, k: int, witness: NDArray[np.int64]) -> Data:
    metric = "cosine" if rng.random() < 0.3 else "euclidean"
    return {"features": NUMBERS[numbers](rng, (n, int(rng.integers(1, 4)))), "metric": metric}


def _design(rng: Generator, numbers: str, n: int, k: int, witness: NDArray[np.int64]) -> Data:
    """Return probabilities that sum to k; the question's k is their sum."""
    scores = np.abs(NUMBERS[_MILD[rng.integers(len(_MILD))]](rng, (n,)).astype(np.float64))
    replacement = bool(n) and rng.random() < 0.3
    if replacement:
        inclusion = scores / scores.sum() if scores.sum() > 0.0 else np.full(n, 1.0 / n)
    elif rng.random() < 0.3:
        inclusion = np.zeros(n)
        for _ in range(2):  # Multiples of a half that sum to k, with zeros and ones.
            inclusion[rng.choice(n, k, replace=False)] += 0.5
    else:
        inclusion = so.inclusion_probabilities(scores, k)
    data: Data = {"inclusion": inclusion, "replacement": replacement}
    if n and rng.random() < 0.6:
        data["balance"] = NUMBERS[numbers](rng, (n, int(rng.integers(1, 3))))
    return data


def _design_question(
    rng: Generator, data: Data, numbers: str, n: int, k: int, enumerable: bool
) -> Question:
    """Return a question of draws, which has no constraints."""
    if data["replacement"] and rng.random() < 0.3:
        k = 2 * n + 1
    features = ["design", *_notes(data, n, k)]
    features += ["with replacement"] * data["replacement"]
    features += ["balance", numbers] if "balance" in data else []
    return Question("design", data, k, {}, tuple(features), enumerable, None)


# Numbers whose quotients by their sum are ordinary.
_MILD = ("exponential", "uint8", "ties", "half zero", "wide", "float16", "equal", "denormal")
_NAMES = tuple(NUMBERS)
KINDS: dict[str, Callable[[Generator, str, int, int, NDArray[np.int64]], Data]] = {
    "mean": _mean,
    "vectors": _vectors,
    "fitted": _vectors,
    "top": _top,
    "weighted": _weighted,
    "scored": _scored,
    "facility": _facility,
    "center": _center,
    "design": _design,
}
"""By objective; "fitted" is vector matching with nonnegative weights."""
_SHARE = {"mean": 6, "vectors": 3, "fitted": 2, "top": 2, "weighted": 1, "scored": 4, "facility": 3,
          "center": 2, "design": 2}  # fmt: skip
BACKEND_KINDS = ("mean", "vectors", "fitted", "top", "weighted", "scored", "facility", "center")
"""The objectives that at least one mixed-integer backend takes."""


def _cumulative(names: tuple[str, ...]) -> tuple[tuple[str, ...], Array]:
    shares = np.cumsum([_SHARE[name] for name in names], dtype=np.float64)
    return names, shares / shares[-1]


_SHARES = {False: _cumulative(tuple(KINDS)), True: _cumulative(BACKEND_KINDS)}
