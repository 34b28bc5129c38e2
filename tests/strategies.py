"""Hypothesis strategies: losses of every shape, constraints, problems an oracle can settle."""

from __future__ import annotations

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
def problems(
    draw: st.DrawFn,
    objective: type | None = None,
    min_size: int = 0,
    max_size: int = 9,
    constrained: bool | None = None,
) -> so.Problem:
    """Draw problems with and without constraints; k from 0 to n."""
    values = draw(losses(min_size, max_size))
    n = values.size
    kind = objective or draw(st.sampled_from([so.MeanMatching, so.TopScores]))
    keywords: dict[str, object] = {}
    if constrained or (constrained is None and draw(st.booleans())):
        keywords = draw(constraints(n))
    return so.Problem(kind(values), draw(st.integers(0, n)), **keywords)
