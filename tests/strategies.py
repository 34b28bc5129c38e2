"""Hypothesis strategies: losses of every shape, constraints, problems an oracle can settle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import subsetopt as so

_FLOAT = st.floats(-100.0, 100.0, allow_nan=False, width=32)


def _outlier(values: np.ndarray) -> np.ndarray:
    if values.size:
        values = values.copy()
        values[0] = 1000.0 + values.size
    return values


def losses(min_size: int = 0, max_size: int = 10) -> st.SearchStrategy[np.ndarray]:
    """Draw loss vectors: generic, tied, integer, decimal, outlier, constant, huge, denormal."""
    shape = st.integers(min_size, max_size)
    generic = hnp.arrays(np.float32, shape, elements=_FLOAT)
    double = hnp.arrays(np.float64, shape, elements=st.floats(-10.0, 10.0, allow_nan=False))
    tied = hnp.arrays(np.float64, shape, elements=st.sampled_from([0.0, 0.5, 1.0, -1.5]))
    integer = hnp.arrays(np.int64, shape, elements=st.integers(0, 9))
    decimal = hnp.arrays(np.float64, shape, elements=st.integers(0, 300).map(lambda i: i / 100))
    equal = st.tuples(shape, _FLOAT).map(lambda p: np.full(p[0], p[1], dtype=np.float32))
    huge = generic.map(lambda a: a.astype(np.float64) * 1e290)
    denormal = generic.map(lambda a: a.astype(np.float64) * 1e-310)
    half = generic.map(lambda a: a.astype(np.float16))
    return st.one_of(
        generic, double, tied, integer, decimal, equal, huge, denormal, half,
        generic.map(_outlier), generic.map(np.abs),
    )  # fmt: skip


@st.composite
def constraints(draw: st.DrawFn, n: int) -> dict[str, object]:
    """Draw constraint keywords of Problem for n candidates; any of them may be missing."""
    keywords: dict[str, object] = {}
    if n == 0:
        return keywords
    role = draw(st.lists(st.sampled_from("___ie"), min_size=n, max_size=n))
    if draw(st.booleans()):
        keywords["include"] = np.array([r == "i" for r in role])
    if draw(st.booleans()):
        keywords["exclude"] = [i for i, r in enumerate(role) if r == "e"]
    if draw(st.booleans()):
        keywords["groups"] = draw(st.lists(st.sampled_from("abc"), min_size=n, max_size=n))
        low = draw(st.integers(0, 2))
        quotas = {"a": (low, low + draw(st.integers(0, 3)))}
        if draw(st.booleans()):
            quotas["b"] = draw(st.integers(0, 3))
        keywords["quotas"] = quotas
    if draw(st.booleans()):
        costs = draw(hnp.arrays(np.float64, n, elements=st.floats(0.0, 5.0)))
        keywords["costs"] = costs
        keywords["capacity"] = draw(st.floats(0.0, 1.0)) * float(costs.sum()) + 0.01
    if draw(st.booleans()):
        keywords["cardinality"] = "at_most"
    return keywords


@st.composite
def scored_matchings(draw: st.DrawFn, values: np.ndarray) -> so.ScoredMatching:
    """Draw scores and a band for losses; from hopeless to no restriction at all."""
    scores = draw(hnp.arrays(np.float64, values.size, elements=st.integers(-3, 30).map(float)))
    width = draw(st.sampled_from([0.0, 1e-3, 0.1, 0.5, 2.0, 100.0]))
    magnitude = float(np.abs(values.astype(np.float64)).mean()) if values.size else 0.0
    return so.ScoredMatching(scores, values, width * magnitude)


@st.composite
def vector_matchings(
    draw: st.DrawFn, values: np.ndarray, weights: str | None = None
) -> so.VectorMatching:
    """Draw vectors whose first coordinate are the values: generic, tied, zero, of one target."""
    n, d = values.size, draw(st.integers(1, 4))
    unit = float(np.abs(values.astype(np.float64)).max()) if n else 0.0
    rest = draw(hnp.arrays(np.float64, (n, d - 1), elements=st.sampled_from([0.0, 0.5, -1.0])))
    rest += draw(hnp.arrays(np.float64, (n, d - 1), elements=st.floats(-1.0, 1.0, width=16)))
    vectors = np.column_stack([values.astype(np.float64), unit * rest])
    if values.dtype == np.float32:
        vectors = vectors.astype(np.float32)
    target = None
    if n and draw(st.booleans()):
        target = vectors[draw(st.integers(0, n - 1))] * draw(st.sampled_from([1.0, 0.5, -2.0]))
    kind = weights or draw(st.sampled_from(["uniform", "nonnegative"]))
    return so.VectorMatching(vectors, target, weights=kind)


@st.composite
def facilities(draw: st.DrawFn, values: np.ndarray) -> so.FacilityLocation:
    """Draw similarities or features of as many samples as there are values."""
    n = values.size
    metric = draw(st.sampled_from(["similarity", "cosine", "euclidean", "rbf", "dot"]))
    if metric == "similarity":
        dtype = draw(st.sampled_from([np.float32, np.float64]))
        matrix = hnp.arrays(dtype, (n, n), elements=st.floats(-4.0, 4.0, width=32))
        return so.FacilityLocation(similarity=draw(matrix))
    return so.FacilityLocation(draw(features(n)), metric=metric)


@st.composite
def centers(draw: st.DrawFn, values: np.ndarray) -> so.KCenter:
    """Draw a k-center problem with as many samples as there are values."""
    return so.KCenter(draw(features(values.size)), draw(st.sampled_from(["euclidean", "cosine"])))


def features(n: int) -> st.SearchStrategy[np.ndarray]:
    """Draw n vectors of dimension 1 to 3: generic, on a small grid (ties), or with an outlier."""
    shape = st.tuples(st.just(n), st.integers(1, 3))
    generic = hnp.arrays(np.float64, shape, elements=st.floats(-10.0, 10.0, width=32))
    grid = hnp.arrays(np.int64, shape, elements=st.integers(-1, 2))
    outlier = generic.map(lambda a: np.where(np.arange(n)[:, None] == 0, 1e6 * (a + 1.0), a))
    return st.one_of(generic, grid, generic.map(lambda a: a.astype(np.float32)), outlier)


@st.composite
def weighted_scores(draw: st.DrawFn, values: np.ndarray) -> so.WeightedScores:
    """Draw methods, weights and a reward for losses; the methods by name or by importances."""
    names = ["big-loss", "small-loss", "adaboost", "coreset-1", "coreset-2"]
    names = draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True))
    unit = st.floats(0.0, 1.0, width=16)
    given = hnp.arrays(np.float64, values.size, elements=unit)
    methods = draw(st.one_of(st.just(names), st.fixed_dictionaries(dict.fromkeys(names, given))))
    weights = draw(st.one_of(st.none(), hnp.arrays(np.float64, len(names), elements=unit)))
    reward = draw(st.one_of(st.none(), st.sampled_from([0, 0.5, 3.0]), given))
    return so.WeightedScores(values, methods, weights, reward)


# How an objective is drawn for given values, by the name of its class.
OBJECTIVES = {
    "MeanMatching": lambda values: st.just(so.MeanMatching(values)),
    # A score put together from several methods is one more top-k.
    "TopScores": lambda values: st.one_of(st.just(so.TopScores(values)), weighted_scores(values)),
    "ScoredMatching": scored_matchings,
    "FacilityLocation": facilities,
    "KCenter": centers,
    "VectorMatching": vector_matchings,
    "VectorMatching[uniform]": lambda values: vector_matchings(values, "uniform"),
    "VectorMatching[nonnegative]": lambda values: vector_matchings(values, "nonnegative"),
}


@st.composite
def problems(
    draw: st.DrawFn,
    objective: type | None = None,
    min_size: int = 0,
    max_size: int = 9,
    constrained: bool | None = None,
    kinds: Sequence[str] = ("MeanMatching", "TopScores"),
) -> so.Problem:
    """Draw problems with and without constraints; k from 0 to n.

    ``kinds`` are names of objectives, as in a solver's row; those of ``OBJECTIVES`` are drawn.
    """
    values = draw(losses(min_size, max_size))
    n = values.size
    if objective is None:
        made = draw(
            OBJECTIVES[draw(st.sampled_from([k for k in kinds if k in OBJECTIVES]))](values)
        )
    else:
        made = objective(values)
    keywords: dict[str, object] = {}
    if constrained or (constrained is None and draw(st.booleans())):
        keywords = draw(constraints(n))
    return so.Problem(made, draw(st.integers(0, n)), **keywords)


@st.composite
def designs(draw: st.DrawFn, max_size: int = 30, replacement: bool | None = None) -> so.Problem:
    """Draw sampling designs: with and without replacement and balance, dependent columns too."""
    scores = draw(
        hnp.arrays(
            np.float64,
            st.integers(0, max_size),
            elements=st.one_of(st.sampled_from([0.0, 1.0, 1e-9]), st.floats(0.01, 100.0)),
        )
    )
    n = scores.size
    k = draw(st.integers(0, n))
    pi = so.inclusion_probabilities(scores, k)
    if replacement is None:
        replacement = draw(st.booleans())
    if replacement and k and draw(st.booleans()):
        pi = pi / k
    balance = None
    if draw(st.booleans()):
        balance = draw(hnp.arrays(np.float64, (n, draw(st.integers(0, 4))), elements=_FLOAT))
        kind = draw(st.sampled_from(["plain", "vector", "proportional", "tied"]))
        if kind == "vector" and balance.shape[1]:
            balance = balance[:, 0]
        elif kind == "proportional":
            balance = np.column_stack([2.0 * pi, balance])
        elif kind == "tied":
            balance = np.round(balance / 50.0)
    return so.Problem(so.SamplingDesign(pi, balance, replacement), k)
