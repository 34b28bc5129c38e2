"""Gurobi: exact on small instances, honest about its license, limits and interrupts."""

from __future__ import annotations

import os
import sys
import threading

import numpy as np
import pytest

import subsetopt as so

pytest.importorskip("gurobipy")
from subsetopt.solvers.mip import gurobi_
from subsetopt.solvers.mip.gurobi_ import Gurobi

needs_license = pytest.mark.skipif(
    Gurobi.license_problem() is not None, reason=str(Gurobi.license_problem())
)
pytestmark = needs_license


def test_reaches_float32_precision_on_the_batch_of_the_paper() -> None:
    losses = np.random.default_rng(0).exponential(size=128).astype(np.float32)
    solution = so.select(losses, k=13, solver=Gurobi(work_limit=100.0), seed=0)
    assert solution.status is so.Status.OPTIMAL
    assert solution.relative_gap <= np.finfo(np.float32).eps
    assert so.verify(so.Problem(so.MeanMatching(losses), k=13), solution)


def test_the_size_limited_license_says_which_limit_and_what_to_do() -> None:
    problem = so.Problem(so.TopScores(np.arange(2500.0)), k=3)
    try:
        solution = so.solve(problem, "gurobi", time_limit=20)
    except so.SolverLicenseError as error:
        message = str(error)
        assert "2,500 candidates make 2,500 variables" in message
        assert "takes 2,000" in message
        assert "solver='cpsat'" in message
    else:
        assert solution.status is so.Status.OPTIMAL  # A full license.


def test_a_missing_license_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import gurobipy as gp

    def refuse(**_: object) -> None:
        raise gp.GurobiError(10009, "License expired 2020-01-01")

    monkeypatch.setattr(gurobi_, "_env", None)
    monkeypatch.setattr(gurobi_.gp, "Env", refuse)
    assert "License expired 2020-01-01" in str(Gurobi.license_problem())
    with pytest.raises(so.SolverLicenseError, match="solver='cpsat'"):
        so.select([1.0, 2.0, 3.5], k=1, solver="gurobi")


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    gurobi_._env = None
    so.select([1.0, 2.0, 3.5, 7.0], k=2, solver="gurobi")
    assert capfd.readouterr() == ("", "")


def test_one_environment_serves_all_threads() -> None:
    losses = np.random.default_rng(1).exponential(size=(6, 20)).astype(np.float32)
    found: dict[int, so.Solution] = {}

    def work(i: int) -> None:
        found[i] = so.select(losses[i], k=4, solver="gurobi", time_limit=20, seed=0)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(6))
    assert all(solution.status is so.Status.OPTIMAL for solution in found.values())


def test_a_busy_environment_is_waited_for_no_longer_than_the_limit() -> None:
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with gurobi_.environment(None):
            held.set()
            release.wait(20.0)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(20.0)
    try:
        solution = so.select([1.0, 2.0, 3.5, 7.0], k=2, solver="gurobi", time_limit=0.05)
    finally:
        release.set()
        thread.join()
    assert solution.status is so.Status.NO_SOLUTION
    assert solution.stop_reason is so.StopReason.TIME


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="fork with threads warns")
def test_a_forked_child_makes_its_own_environment() -> None:
    so.select([1.0, 2.0, 3.5, 7.0], k=2, solver="gurobi")
    child = os.fork()
    if child == 0:
        solution = so.select([1.0, 2.0, 3.5, 7.0], k=2, solver="gurobi", time_limit=20)
        os._exit(0 if solution.status is so.Status.OPTIMAL else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_unknown_backend_params_are_named() -> None:
    with pytest.raises(so.OptionError, match=r"backend_params\['MipFocus2'\]"):
        so.select([1.0, 2.0, 3.5], k=1, solver="gurobi", backend_params={"MipFocus2": 1})
    with pytest.raises(so.OptionError, match=r"backend_params\['Threads'\] = 'two'"):
        so.select([1.0, 2.0, 3.5], k=1, solver="gurobi", backend_params={"Threads": "two"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": -1}, "threads must be an integer >= 0, got -1"),
        ({"mip_focus": 4}, "mip_focus must be 0, 1, 2 or 3, got 4"),
        ({"work_limit": 0.0}, "work_limit must be a positive finite number, got 0.0"),
    ],
)
def test_hyperparameters_are_checked(options: dict[str, float], message: str) -> None:
    with pytest.raises(so.OptionError, match=message):
        Gurobi(**options)  # type: ignore[arg-type]


def test_the_default_work_limit_ends_without_a_clock() -> None:
    losses = np.random.default_rng(2).exponential(size=128)
    solver = Gurobi(work_limit=0.2, threads=1)
    first = so.select(losses, k=13, solver=solver, seed=3)
    second = so.select(losses, k=13, solver=solver, seed=3)
    assert first.stop_reason in (so.StopReason.ITERATION, so.StopReason.COMPLETED)
    assert first.indices.tolist() == second.indices.tolist()


@pytest.mark.parametrize("kind", ["vectors", "centers", "facilities"])
def test_needs_no_scipy(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """SciPy is in no extra that installs gurobipy; products of its matrix variables import it."""
    points = np.random.default_rng(0).normal(size=(8, 2))
    objectives = {
        "vectors": so.VectorMatching(points, weights="nonnegative"),
        "centers": so.KCenter(points),
        "facilities": so.FacilityLocation(points),
    }
    for name in ("scipy", "scipy.sparse"):
        monkeypatch.setitem(sys.modules, name, None)
    problem = so.Problem(objectives[kind], k=2)
    answer = so.solve(problem, "gurobi", seed=0)
    assert answer.status is so.Status.OPTIMAL
    assert so.verify(problem, answer)
