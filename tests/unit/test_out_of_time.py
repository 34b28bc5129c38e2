"""Whatever work a time limit ends, there is a subset where the constraints alone allow one."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import subsetopt as so
from subsetopt.objectives.coverage import FacilityLocation, KCenter
from subsetopt.solvers.base import RawResult, SolveContext

N, K = 12_000, 40
RNG = np.random.default_rng(8)
POINTS = RNG.normal(size=(N, 3))
COSTS = RNG.integers(1, 9, size=N)
RULES: dict[str, Any] = {
    "groups": np.arange(N) % 3,
    "quotas": {0: (5, 20), 1: (3, 9)},
    "costs": COSTS,
    "capacity": 3 * K,
}
OBJECTIVES: dict[str, Callable[[], Any]] = {
    "cosine": lambda: so.FacilityLocation(POINTS),
    "euclidean": lambda: so.FacilityLocation(POINTS, metric="euclidean"),
    "k-center": lambda: so.KCenter(POINTS),
    "uniform": lambda: so.VectorMatching(POINTS),
    "nonnegative": lambda: so.VectorMatching(POINTS, weights="nonnegative"),
    "scores": lambda: so.TopScores(POINTS[:, 0]),
    "matching": lambda: so.MeanMatching(POINTS[:, 0]),
}
MADE = {name: make() for name, make in OBJECTIVES.items()}
BACKENDS = ("gurobi", "cpsat", "scip", "highs")


def native(problem: so.Problem) -> list[str]:
    """Return the solvers that take a problem and are no backends, and auto."""
    rows = [row.name for row in so.list_solvers() if row.obstacle(problem) is None]
    return [name for name in rows if name not in BACKENDS] + ["auto"]


@pytest.mark.parametrize("readings", [2, 5, 9, 17, 40])
@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("name", MADE)
def test_a_limit_reached_anywhere_leaves_a_feasible_subset(
    name: str, constrained: bool, readings: int
) -> None:
    rules = RULES if constrained else {}
    for solver in native(so.Problem(MADE[name], K, **rules)):
        problem = so.Problem(MADE[name], K, **rules)
        ticks = itertools.count()
        deadline = so.Deadline(readings, clock=lambda ticks=ticks: next(ticks))
        answer = so.solve(problem, solver, deadline, seed=0)
        assert so.verify(problem, answer), (solver, answer)


@pytest.mark.parametrize("readings", [1, 3, 6, 10, 20, 60])
@pytest.mark.parametrize("rules", [{}, RULES])
def test_scored_matching_finds_a_subset_within_the_band_first(
    rules: dict[str, Any], readings: int
) -> None:
    scores, losses = RNG.exponential(size=(2, N))
    ticks = itertools.count()
    problem = so.Problem(so.ScoredMatching(scores, losses, 0.01), 400, **_larger(rules))
    deadline = so.Deadline(readings, clock=lambda: next(ticks))
    answer = so.solve(problem, "lagrangian", deadline, seed=0)
    assert so.verify(problem, answer)
    assert answer.objective <= answer.bound


def _larger(rules: dict[str, Any]) -> dict[str, Any]:
    if not rules:
        return {}
    return {**rules, "quotas": {0: (50, 200), 1: (30, 300)}, "capacity": 4 * 400}


def test_an_enumeration_that_found_nothing_returns_a_subset_of_least_cost() -> None:
    labels = np.repeat([0, 1], 30)
    problem = so.Problem(so.KCenter(POINTS[:60]), 8, groups=labels, quotas={1: 8})
    ticks = itertools.count()
    deadline = so.Deadline(9, clock=lambda: next(ticks))
    answer = so.solve(problem, "exhaustive", deadline)
    assert answer.stop_reason is so.StopReason.TIME
    assert so.verify(problem, answer) and (answer.indices >= 30).all()


@dataclass(frozen=True)
class Witness:
    """Notes how much time it is given."""

    seen: list[float]

    def solve(self, problem: so.Problem, context: SolveContext) -> RawResult:
        self.seen.append(context.deadline.seconds)
        return RawResult(np.arange(problem.k), stop_reason=so.StopReason.TIME)


class Slow(KCenter):
    """An objective whose evaluation takes two seconds."""

    __slots__ = ()

    def evaluation_time(self, size: int, clock: Callable[[], float]) -> float:
        return 2.0


@pytest.mark.parametrize(("start", "kept"), [(None, 2.0), ([0, 1, 2], 4.0)])
def test_the_time_of_judging_is_kept_back(start: list[int] | None, kept: float) -> None:
    seen: list[float] = []
    problem = so.Problem(Slow(POINTS[:30]), 3)
    deadline = so.Deadline(10.0, clock=lambda: 0.0)
    so.solve(problem, Witness(seen), deadline, warm_start=start)
    assert seen == [pytest.approx(10.0 - kept, abs=0.01)]


@pytest.mark.parametrize("make", [FacilityLocation, KCenter])
def test_an_answer_that_nothing_follows_is_evaluated_once(
    make: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    evaluate = make.evaluate

    def counted(self: Any, indices: np.ndarray, weights: np.ndarray) -> float:
        looked.append(indices.size)
        return evaluate(self, indices, weights)

    monkeypatch.setattr(make, "evaluate", counted)
    answer = so.solve(so.Problem(make(POINTS[:400]), 12), seed=0)
    assert answer.has_solution
    assert looked == [12]
