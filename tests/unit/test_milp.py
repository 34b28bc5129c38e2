"""The neutral linear model: what it says of a subset is what the problem says."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import subsetopt as so
from subsetopt.budget import Deadline
from subsetopt.inputs import checked_integer, checked_positive
from subsetopt.solvers.base import RawResult
from subsetopt.solvers.mip.calls import import_within, run_interruptible
from subsetopt.solvers.mip.constraint_rows import Frame, Rows, feasible, frame_of, value_of
from subsetopt.solvers.mip.linear_form import LinearForm


def form_of(problem: so.Problem) -> LinearForm:
    made = frame_of(problem)
    assert isinstance(made, Frame)
    return LinearForm.of(problem, made)


def keeps(row: Rows, chosen: NDArray[np.bool_]) -> bool:
    total = row.coefficients @ chosen[row.columns]
    return bool(row.low[0] <= total <= row.high[0])


def constrained(objective: so.MeanMatching | so.TopScores, cardinality: str) -> so.Problem:
    n = objective.n
    return so.Problem(
        objective,
        3,
        cardinality,  # type: ignore[arg-type]
        include=[1],
        exclude=[2],
        groups=np.arange(n) % 3,
        quotas={0: (0, 1), 1: (1, 2)},
        costs=np.arange(n) * 0.1,
        capacity=0.9,
    )


@pytest.mark.parametrize("cardinality", ["exact", "at_most"])
@pytest.mark.parametrize("target", [None, 50.0, -50.0])
def test_rows_and_value_agree_with_the_problem(cardinality: str, target: float | None) -> None:
    losses = np.random.default_rng(0).exponential(size=8)
    problem = constrained(so.MeanMatching(losses, target), cardinality)
    form = form_of(problem)
    for bits in itertools.product([False, True], repeat=form.frame.size):
        chosen = np.array(bits)
        indices = form.frame.subset(chosen)
        holds = all(keeps(row, chosen) for row in form.frame.constraints)
        assert holds == (not problem.constraints.violations(indices))
        if holds:
            true = value_of(problem, indices)
            program = form.program(1e3, chosen)
            assert program.start is not None
            bound = program.bound(float(program.costs @ program.start)) + program.slack
            assert form.factor * bound == pytest.approx(true, abs=1e-12)
            assert feasible(problem, form.frame.subset(chosen))
        else:
            assert not feasible(problem, form.frame.subset(chosen))


def test_a_target_out_of_reach_needs_no_absolute_value() -> None:
    losses = [1.0, 2.0, 3.0, 4.0]
    assert form_of(so.Problem(so.MeanMatching(losses), k=2)).absolute
    assert not form_of(so.Problem(so.MeanMatching(losses, target=9.0), k=2)).absolute
    assert not form_of(so.Problem(so.MeanMatching(losses, target=-9.0), k=2)).absolute


@pytest.mark.parametrize("scale", [1e300, 1e-300, 5e-324, 0.0])
def test_units_survive_extreme_losses(scale: float) -> None:
    form = form_of(so.Problem(so.MeanMatching(np.arange(6) * scale), k=2))
    assert np.isfinite(form.values).all()
    assert np.abs(form.values).max(initial=0.0) <= 6.0
    assert 0.0 < form.precision < 100.0


def test_nothing_to_choose_is_answered_at_once() -> None:
    raw = frame_of(so.Problem(so.TopScores([1.0, 2.0, 3.0]), k=2, include=[0, 1]))
    assert isinstance(raw, RawResult)
    assert raw.indices is not None
    assert raw.indices.tolist() == [0, 1]
    assert raw.bound == 3.0


def test_a_clash_is_infeasible_and_says_why() -> None:
    raw = frame_of(so.Problem(so.TopScores([1.0, 2.0]), k=1, costs=[2.0, 3.0], capacity=1.0))
    assert isinstance(raw, RawResult)
    assert raw.infeasible
    assert "capacity" in raw.extras["why"]


def test_choice_inverts_subset() -> None:
    made = frame_of(so.Problem(so.TopScores(np.arange(6.0)), k=3, include=[4], exclude=[0]))
    assert isinstance(made, Frame)
    chosen = made.choice(np.array([1, 4, 5]))
    assert chosen is not None
    assert made.subset(chosen).tolist() == [1, 4, 5]
    assert made.choice(None) is None


@pytest.mark.parametrize("value", [-1, 1.5, True, "1", None])
def test_integers_are_checked(value: object) -> None:
    with pytest.raises(so.OptionError, match=r"threads must be an integer >= 0"):
        checked_integer("threads", value, 0)


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan"), True])
def test_positive_numbers_are_checked(value: float) -> None:
    with pytest.raises(so.OptionError, match="work_limit must be a positive finite number"):
        checked_positive("work_limit", value)


def test_an_import_is_left_to_the_background_when_time_is_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "subsetopt_slow_import_for_test"
    (tmp_path / f"{name}.py").write_text("import time\ntime.sleep(0.3)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert import_within(name, Deadline(0.01)) is None
    assert import_within(name, Deadline(5.0)) is sys.modules[name]


def test_a_failed_import_is_raised() -> None:
    with pytest.raises(ModuleNotFoundError):
        import_within("subsetopt_no_such_module", Deadline(5.0))


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Python's own handler, also where a shell started the tests with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_stops_the_backend_and_is_told() -> None:
    stop = threading.Event()

    def work() -> str:
        assert stop.wait(20.0)
        return "incumbent"

    threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    assert run_interruptible(work, stop.set, Deadline(None)) == ("incumbent", True)


def test_the_deadline_stops_a_backend_that_overruns() -> None:
    stop = threading.Event()
    # The event is set before the call has ended by itself.
    assert run_interruptible(lambda: stop.wait(60.0), stop.set, Deadline(0.05)) == (True, False)


def test_an_error_of_the_backend_is_raised() -> None:
    def work() -> None:
        raise so.SolverError("broken")

    with pytest.raises(so.SolverError, match="broken"):
        run_interruptible(work, lambda: None, Deadline(None))


@pytest.mark.parametrize("name", ["scip", "highs", "gurobi", "cpsat"])
@pytest.mark.parametrize("distance", [0.5, 1e6, 1e300])
def test_a_target_beyond_all_losses_is_no_error(name: str, distance: float) -> None:
    losses = np.array([1.0, 1.0 + 1e-13, 1.0])
    problem = so.Problem(so.MeanMatching(losses, target=distance), 2)
    if name not in so.available_solvers(problem):
        pytest.skip(f"{name} is not usable here")
    answer = so.solve(problem, name, time_limit=20, seed=0)
    assert so.verify(problem, answer) and answer.has_solution
    if distance < 1e300:
        assert answer.status is so.Status.OPTIMAL
