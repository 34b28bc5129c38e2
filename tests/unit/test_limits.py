"""What a solver's row says of sizes is what the solver does: just at each limit, and just above."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import subsetopt as so
from subsetopt import auto, registry

BACKENDS = ("gurobi", "cpsat", "scip", "highs")
MIP = [name for name in BACKENDS if registry.availability(name).usable]


def matching(n: int) -> so.Problem:
    """A target out of reach: the sum needs no bound t, and every backend is done at once."""
    return so.Problem(so.MeanMatching(np.arange(n), target=-1.0), k=3)


def magnitudes(n: int) -> so.Problem:
    losses = np.arange(n, dtype=np.float64)
    return so.Problem(so.MeanMatching(losses, target=(n - 1) / 2), k=1)


def scores(n: int) -> so.Problem:
    return so.Problem(so.TopScores(np.arange(n)), k=3)


def scored(n: int) -> so.Problem:
    return so.Problem(so.ScoredMatching(np.arange(n), np.ones(n), tolerance=0.5), k=3)


def vectors(n: int) -> so.Problem:
    return so.Problem(so.VectorMatching(np.eye(n, 2500)), k=3)


def narrow_vectors(n: int) -> so.Problem:
    return so.Problem(so.VectorMatching(np.eye(n, 10)), k=3)


def weighted_vectors(n: int) -> so.Problem:
    return so.Problem(so.VectorMatching(np.eye(n, 10), weights="nonnegative"), k=3)


def facilities(n: int) -> so.Problem:
    return so.Problem(so.FacilityLocation(similarity=np.eye(n)), k=3)


def close_facilities(n: int) -> so.Problem:
    """Every pair is a variable: all samples are similar."""
    return so.Problem(so.FacilityLocation(similarity=np.ones((n, n))), k=3)


def centers(n: int) -> so.Problem:
    return so.Problem(so.KCenter(np.arange(n, dtype=np.float64)[:, None]), k=3)


def small_license() -> bool:
    if "gurobi" not in MIP:
        return False
    from subsetopt.solvers.mip import gurobi_

    with gurobi_.environment(None) as env:
        return env is not None and not gurobi_.unlimited(env)


# Solver, objective, the largest size that is taken, whether only a time limit sets it, and whether
# only the license that comes with pip does.
LIMITS = [
    *((name, vectors, 10, False, False) for name in BACKENDS[1:]),
    *((name, facilities, 100, False, False) for name in BACKENDS[1:]),
    *((name, centers, 300, False, False) for name in BACKENDS),
    *(("highs", make, 1100, True, False) for make in (matching, magnitudes, scores, scored)),
    ("gurobi", matching, 2000, False, True),
    ("gurobi", magnitudes, 1999, False, True),
    ("gurobi", scores, 2000, False, True),
    ("gurobi", scored, 2000, False, True),
    ("gurobi", narrow_vectors, 1979, False, True),
    ("gurobi", weighted_vectors, 95, False, True),
    ("gurobi", close_facilities, 44, False, True),
]


def refusal(problem: so.Problem, name: str, seconds: float | None) -> Exception | None:
    """Return what solving raises; the least of work is done where nothing is."""
    try:
        so.solve(problem, name, seconds, max_iterations=None if seconds else 1, seed=0)
    except (so.UnsupportedProblemError, so.SolverLicenseError) as error:
        return error
    return None


@pytest.mark.parametrize(("name", "make", "most", "timed", "licensed"), LIMITS)
def test_what_is_available_takes_the_problem(
    name: str, make: Callable[[int], so.Problem], most: int, timed: bool, licensed: bool
) -> None:
    if name not in MIP:
        pytest.skip(registry.availability(name).reason)
    seconds, feature = (0.3, "time_limit") if timed else (None, None)
    for n in (most, most + 1):
        problem = make(n)
        fits = n == most or (licensed and not small_license())
        assert (name in so.available_solvers(problem, feature=feature)) == fits
        assert (refusal(problem, name, seconds) is None) == fits
    large = make(most + 1)
    if timed:
        assert name in so.available_solvers(large)
        assert refusal(large, name, None) is None
    if not licensed:
        message = registry.spec_of(name).obstacle(large, timed=timed)
        assert message is not None and f"{25_000 if make is vectors else most:,}" in message
        able = so.available_solvers(large, feature=feature)
        assert able and all(registry.spec_of(other).obstacle(large) is None for other in able)
        with pytest.raises(so.UnsupportedProblemError) as caught:
            so.solve(large, name, seconds)
        listed = str(caught.value).partition("Solvers that can: ")[2].rstrip(".").split(", ")
        assert set(able) <= set(listed) and name not in listed


@pytest.mark.parametrize("name", MIP)
def test_a_solver_object_keeps_its_limits_too(name: str) -> None:
    with pytest.raises(so.UnsupportedProblemError, match="KCenter of at most 300 samples"):
        so.solve(centers(301), registry.create(name))


def test_excluded_candidates_do_not_count_towards_candidates() -> None:
    row = registry.spec_of("highs")
    losses = np.arange(1101.0)
    few = so.Problem(so.MeanMatching(losses), k=3, exclude=[0])
    costly = so.Problem(so.MeanMatching(losses), k=3, costs=losses, capacity=1099.5)
    assert row.obstacle(few, timed=True) is row.obstacle(costly, timed=True) is None
    assert row.obstacle(so.Problem(so.MeanMatching(losses), k=3), timed=True) is not None


def test_auto_takes_no_backend_that_would_be_late() -> None:
    assert auto._keeps_limit("exhaustive", matching(5))
    assert not auto._keeps_limit("highs", matching(1101))
