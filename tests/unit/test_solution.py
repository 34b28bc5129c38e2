"""A solution in print, as a dict, and back."""

from __future__ import annotations

import json
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from strategies import problems

import subsetopt as so


def assert_same(one: so.Solution, other: so.Solution) -> None:
    for name in ("indices", "weights"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
        assert getattr(one, name).dtype == getattr(other, name).dtype
    for name in ("n", "status", "stop_reason", "solver", "iterations", "scale"):
        assert getattr(one, name) == getattr(other, name)
    for name in ("objective", "bound", "setup_time", "solve_time"):
        first, second = getattr(one, name), getattr(other, name)
        assert first == second or (math.isnan(first) and math.isnan(second))


@given(problem=problems())
def test_a_way_through_json_and_a_pickle_change_nothing(problem: so.Problem) -> None:
    for limit in (None, 0):
        answer = so.solve(problem, time_limit=limit, seed=0)
        text = json.dumps(answer.to_dict(), allow_nan=False)
        back = so.Solution.from_dict(json.loads(text))
        assert_same(answer, back)
        assert back.to_dict() == answer.to_dict()
        assert bool(so.verify(problem, back)) == answer.has_solution
        assert_same(answer, pickle.loads(pickle.dumps(answer)))
        assert str(answer) and "\n" not in repr(answer)


def test_extras_become_what_json_holds() -> None:
    answer = so.select([1.0, 2.0, 4.0], 2, seed=0)
    answer.extras.update(
        gap=np.float64(0.5), path=np.arange(3), best=math.inf, kind=so.Status.OPTIMAL,
        fallbacks=[("gurobi", "no license")], nested={"a": (1, None)},
    )  # fmt: skip
    record = json.loads(json.dumps(answer.to_dict(), allow_nan=False))
    assert record["extras"]["path"] == [0, 1, 2] and record["extras"]["best"] == "inf"
    assert record["extras"]["nested"] == {"a": [1, None]} and record["extras"]["gap"] == 0.5
    assert so.Solution.from_dict(record).extras["fallbacks"] == [("gurobi", "no license")]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"status": "BEST"}, "'BEST'"),
        ({"indices": ["a"]}, "no solution"),
        ({"indices": None}, "no solution"),
        ({"weights": [1.0]}, "1 weights for 2 indices"),
        ({"objective": "low"}, "could not convert"),
        ({"extras": 3}, "no solution"),
        ({"colour": 1}, "a solution has the fields"),
    ],
)
def test_a_malformed_record_is_refused(change: dict[str, Any], words: str) -> None:
    record = so.select([1.0, 2.0, 4.0], 2, seed=0).to_dict()
    with pytest.raises(so.ProblemError, match=words):
        so.Solution.from_dict({**record, **change})
    del record["bound"]
    with pytest.raises(so.ProblemError, match="a solution has the fields"):
        so.Solution.from_dict(record)
    with pytest.raises(so.ProblemError, match="got \\[\\]"):
        so.Solution.from_dict([])  # type: ignore[arg-type]


def test_print_says_what_matters_in_few_lines() -> None:
    answer = so.select(np.random.default_rng(0).exponential(size=500), 100, seed=0)
    text = str(answer)
    assert text.splitlines()[0] == f"status     {answer.status.name}: {answer.status.value}"
    assert "100 of 500" in text and "0.01 each" in text and " ... " in text
    assert len(text.splitlines()) <= 12
    clash = so.select([1.0, 2.0], 2, groups=[0, 0], quotas={0: 1})
    assert "the quotas allow at most 1" in str(clash) and "indices" not in str(clash)

    assert repr(clash).startswith("Solution(INFEASIBLE, 0 of 2")
