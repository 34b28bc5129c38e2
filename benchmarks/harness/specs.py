"""What is measured: solvers at their own fair settings, which register themselves.

Every row of the library's registry that can match a mean becomes a spec, so that a solver
registered by anyone takes part. Nothing is tuned here: the library's own defaults are the fair
settings (``maths``: losses scaled to mean 1e3 and tolerances of 1e-9 for Gurobi, integers for
CP-SAT, the feasibility form for SCIP and HiGHS), and every solver is asked for the same tolerance
through the problem. Solvers start cold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import comb
from typing import Any

import numpy as np

import subsetopt as so
from benchmarks.harness.named import Table
from subsetopt.errors import did_you_mean
from subsetopt.registry import SolverSpec, availability

__all__ = ["BACKENDS", "SPECS", "Spec", "register", "spec_names"]

BACKENDS = ("gurobi", "cpsat", "scip", "highs")
# Exhaustive search takes part up to this number of subsets.
_MOST_SUBSETS = 20_000_000


def _never(problem: so.Problem) -> tuple[bool, str]:
    return False, ""


@dataclass(frozen=True, slots=True)
class Spec:
    """A solver with its settings.

    ``anytime`` solvers and backends are also sampled over a ladder of limits; ``skip`` tells, with
    the reason, which problems are not given to a solver.
    """

    name: str
    solver: str
    options: dict[str, Any] = field(default_factory=dict)
    anytime: bool = False
    timed: bool = False
    skip: Callable[[so.Problem], tuple[bool, str]] = _never

    @property
    def backend(self) -> bool:
        return self.solver in BACKENDS

    def obstacle(self, problem: so.Problem) -> str | None:
        """Return why this spec does not take a problem, or None when it does."""
        if self.solver != "auto":
            row = next(r for r in so.list_solvers() if r.name == self.solver)
            if (reason := row.obstacle(problem)) is not None:
                return f"cannot take {reason}"
            if not (state := availability(self.solver)).usable:
                return state.reason
        skipped, reason = self.skip(problem)
        return reason if skipped else None

    def solve(self, problem: so.Problem, limit: float | None, seed: int) -> so.Solution:
        options = self.options or None
        return so.solve(problem, self.solver, time_limit=limit, seed=seed, options=options)

    def warm_up(self) -> None:
        """Load and compile everything, untimed."""
        losses = np.random.default_rng(0).exponential(size=16)
        groups = np.arange(16) % 2
        bound = {"groups": groups, "quotas": {0: 2}, "costs": losses, "capacity": 9.0}
        every: tuple[dict[str, Any], ...] = ({}, bound)
        for rules in every:
            problem = so.Problem(so.MeanMatching(losses), 4, **rules)
            if self.obstacle(problem) is None:
                self.solve(problem, 0.5, 0)


SPECS: Table[Spec] = Table("spec")
register = SPECS.register


def spec_names(wanted: str | None) -> list[str]:
    """Return the specs of a comma-separated list, all of them for None."""
    if wanted is None:
        return list(SPECS)
    names = wanted.split(",")
    for name in names:
        if name not in SPECS:
            raise so.OptionError(
                f"no solver named {name!r}.{did_you_mean(name, SPECS)} Known: {', '.join(SPECS)}."
            )
    return names


def _too_many_subsets(problem: so.Problem) -> tuple[bool, str]:
    if problem.n > 64 or comb(problem.n, problem.k) > _MOST_SUBSETS:
        return True, f"more than {_MOST_SUBSETS:,} subsets"
    return False, ""


def _too_large_for_a_model(problem: so.Problem) -> tuple[bool, str]:
    if problem.n > 100_000:
        return True, "building the model of a million binaries takes longer than the limit"
    return False, ""


def _of_row(row: SolverSpec) -> Spec:
    skip = _never
    if row.name == "exhaustive":
        skip = _too_many_subsets
    elif row.name in BACKENDS:
        skip = _too_large_for_a_model
    anytime = row.guarantee != "heuristic" and row.name != "exhaustive"
    return Spec(row.name, row.name, {}, anytime, "time_limit" in row.features, skip)


register(Spec("auto", "auto", anytime=True, timed=True))
for _row in so.list_solvers():
    if "MeanMatching" in _row.objectives:
        register(_of_row(_row))
