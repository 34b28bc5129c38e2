"""Deadlines, and what of them reaches a solver."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field

import numpy as np
import pytest

import subsetopt as so
from subsetopt.solvers.base import SolveContext


def test_a_deadline_less_some_seconds_ends_earlier_and_began_at_the_same_time() -> None:
    now = [100.0]
    deadline = so.Deadline(2.0, clock=lambda: now[0])
    earlier = deadline.less(0.5)
    now[0] = 101.4
    assert earlier.remaining() == pytest.approx(0.1)
    assert deadline.remaining() == pytest.approx(0.6)
    assert earlier.elapsed() == deadline.elapsed() == pytest.approx(1.4)
    now[0] = 101.6
    assert earlier.expired()
    assert not deadline.expired()
    assert deadline.less(3.0).seconds == 0.0


def test_nothing_is_kept_back_where_there_is_no_limit() -> None:
    deadline = so.Deadline(None)
    assert deadline.less(1.0) is deadline
    assert deadline.remaining() == math.inf


@pytest.mark.parametrize("seconds", [1e10, 1e300, 10**400, sys.maxsize])
def test_a_huge_limit_is_a_limit_of_32_years(seconds: float) -> None:
    deadline = so.Deadline(seconds, clock=lambda: 5.0)
    assert deadline.limited and deadline.seconds == deadline.remaining() == 1e9
    with pytest.raises(so.OptionError, match="at least 0 seconds"):
        so.Deadline(-seconds)


@dataclass(frozen=True)
class Witness:
    """Keeps the deadline it is given."""

    seen: list[so.Deadline] = field(default_factory=list)

    def solve(self, problem: so.Problem, context: SolveContext) -> so.RawResult:
        self.seen.append(context.deadline)
        return so.RawResult(np.arange(problem.k))


@pytest.mark.parametrize("limit", [50e-6, 1e-3, 1.0])
def test_a_solver_is_stopped_in_time_for_its_answer_to_be_checked(limit: float) -> None:
    witness = Witness()
    so.select(np.arange(1.0, 9.0), 3, solver=witness, time_limit=so.Deadline(limit))
    (deadline,) = witness.seen
    assert 0.5 * limit < deadline.seconds < limit
    assert limit - deadline.seconds < 1e-3
