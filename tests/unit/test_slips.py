"""Ordinary slips in every argument end in an error of our own, or in an answer."""

from __future__ import annotations

import datetime
import decimal
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import subsetopt as so

LOSSES = [3.0, 1.0, 2.0, 4.0, 0.5]
GROUPS = list("aabbb")

ODD: list[Any] = [
    None, True, "x", b"x", "", 10**400, -(10**400), 2**63, -1, math.nan, math.inf, -math.inf, 1j,
    [], [[1], [1, 2]], [[]], {"a": 1}, {}, {1, 2}, object(), LOSSES.copy, ("a", 3), [("a", 3)],
    [None] * 5, [10**400] * 5, [5e-324] * 5, [1e308] * 5, ["a", 1, None, 2.0, b"b"], [True] * 5,
    np.array("x"), np.datetime64("2020-01-01"), np.arange(5).astype("datetime64[D]"), np.float16(2),
    np.ones((5, 5)), np.ones((5, 0)), np.array([1, None, 2, 3, 4], dtype=object), np.array(3),
    np.zeros(5, dtype=[("a", "f8")]), datetime.date(2020, 1, 1), decimal.Decimal("0.1"), range(5),
    np.arange(5, dtype=np.uint64), np.ma.masked_array(LOSSES, [0, 0, 1, 0, 0]), iter(LOSSES), ...,
    {"a": (0, 10**30)}, {"a": (0, 2**63)}, {"a": [1]}, {"a": None}, {None: 1}, {math.nan: (0, 3)},
]  # fmt: skip


def select(name: str) -> Callable[[Any], Any]:
    def call(value: Any) -> Any:
        more: dict[str, Any] = {}
        if name in ("groups", "quotas"):
            more = {"groups": GROUPS, "quotas": {"a": 1}}
        elif name in ("costs", "capacity"):
            more = {"costs": [1, 2, 3, 4, 5], "capacity": 6}
        elif name == "options":
            more = {"solver": "swap"}
        more.setdefault("seed", 0)
        if name != "rate":
            more["k"] = 2
        return so.select(LOSSES, **{**more, name: value})

    return call


ARGUMENTS = (
    "k", "rate", "target", "base_weights", "cardinality", "include", "exclude", "groups", "quotas",
    "costs", "capacity", "solver", "time_limit", "max_iterations", "seed", "warm_start", "options",
    "backend_params", "on_interrupt",
)  # fmt: skip
PI = [0.4] * 5
CALLS: dict[str, Callable[[Any], Any]] = {
    **{f"select {name}": select(name) for name in ARGUMENTS},
    "losses": lambda value: so.select(value, k=1, seed=0),
    "select_many": lambda value: list(so.select_many(value, 1, seed=0)),
    "select_many seed": lambda value: list(so.select_many([LOSSES] * 2, 1, seed=value)),
    "solve_many": lambda value: list(so.solve_many([value])),
    "solve": so.solve,
    "objective": lambda value: so.Problem(value, 1),
    "TopScores": lambda value: so.solve(so.Problem(so.TopScores(value), 1)),
    "WeightedScores methods": lambda value: so.WeightedScores(LOSSES, value),
    "WeightedScores weights": lambda value: so.WeightedScores(LOSSES, weights=value),
    "WeightedScores reward": lambda value: so.WeightedScores(LOSSES, reward=value),
    "ScoredMatching losses": lambda value: so.ScoredMatching(LOSSES, value, 0.1),
    "ScoredMatching tolerance": lambda value: so.ScoredMatching(LOSSES, LOSSES, value),
    "VectorMatching": so.VectorMatching,
    "VectorMatching target": lambda value: so.VectorMatching([[1.0], [2.0]], value),
    "VectorMatching weights": lambda value: so.VectorMatching([[1.0], [2.0]], weights=value),
    "FacilityLocation": so.FacilityLocation,
    "FacilityLocation similarity": lambda value: so.FacilityLocation(similarity=value),
    "FacilityLocation metric": lambda value: so.FacilityLocation([[1.0]], metric=value),
    "KCenter": so.KCenter,
    "KCenter metric": lambda value: so.KCenter([[1.0]], metric=value),
    "SamplingDesign": so.SamplingDesign,
    "SamplingDesign balance": lambda value: so.SamplingDesign(PI, value),
    "SamplingDesign replacement": lambda value: so.SamplingDesign(PI, replacement=value),
    "inclusion_probabilities": lambda value: so.inclusion_probabilities(value, 1),
    "inclusion_probabilities k": lambda value: so.inclusion_probabilities(LOSSES, value),
    "available_solvers": lambda value: so.available_solvers(feature=value),
    "make_policy": lambda value: so.make_policy(value),
    "policy option": lambda value: so.make_policy("obtf", cardinality=value),
    "register_solver": so.register_solver,
    "register_policy": so.register_policy,
    "size_from_rate": lambda value: so.size_from_rate(5, value),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_slip_ends_in_an_error_of_our_own_or_in_an_answer(name: str) -> None:
    raw = []
    for value in ODD:
        shown = f"{value!r:.60}"
        try:
            CALLS[name](value)
        except so.SubsetOptError as error:
            assert str(error)
        except Exception as error:
            raw.append(f"{shown}: {type(error).__name__}: {error!s:.100}")
    assert not raw, "\n".join(raw)
