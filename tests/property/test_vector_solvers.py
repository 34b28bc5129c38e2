"""Solvers of vector matching against slow, obvious twins of what was published."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import problems

import subsetopt as so
from subsetopt.kernels import reference
from subsetopt.kernels.vectors.nnls import CONVERGED, MOVED
from subsetopt.nnls import ActiveSet, nonnegative_weights
from subsetopt.solvers.base import SolveContext
from subsetopt.solvers.swap import Swap
from subsetopt.solvers.vectors.polytope import CappedSimplex, WeightedCone, minimize
from subsetopt.solvers.vectors.swap_search import descend, projection_bound

SEEDS = st.integers(0, 2**32)


def instance(n: int, d: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) * rng.exponential(size=(n, 1))


@given(seed=SEEDS, n=st.integers(1, 7), d=st.integers(1, 5), tied=st.booleans())
def test_nonnegative_least_squares_is_the_best_of_all_supports(
    seed: int, n: int, d: int, tied: bool
) -> None:
    rng = np.random.default_rng(seed)
    points, target = rng.normal(size=(n, d)), rng.normal(size=d)
    if tied:
        points, target = np.round(points), np.round(target)
    weights = nonnegative_weights(points, target)
    assert (weights >= 0.0).all()
    ours = np.linalg.norm(target - weights @ points)
    assert ours == pytest.approx(reference.nonnegative_residual(points, target), abs=1e-9)


@given(seed=SEEDS, n=st.integers(2, 30), d=st.integers(1, 8))
def test_the_dual_bound_is_the_residual_at_the_end(seed: int, n: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    fit = ActiveSet(rng.normal(size=(n, d)), rng.normal(size=d), n)
    before, outcome = math.inf, MOVED
    while outcome == MOVED:
        size = math.sqrt(float(fit.residual @ fit.residual))
        assert size <= before * (1.0 + 1e-12)
        assert fit.chosen.size <= d
        before, (outcome, _) = size, fit.step()
    assert outcome == CONVERGED
    bound = fit.dual_bound()
    assert bound == (0.0 if before < 1e-12 else pytest.approx(before, rel=1e-7))


@st.composite
def weighted(draw: st.DrawFn) -> tuple[np.ndarray, so.VectorMatching, int]:
    """Draw vectors, the objective that matches them by nonnegative weights, and a size."""
    n, d = draw(st.integers(5, 60)), draw(st.integers(2, 30))
    vectors = instance(n, d, draw(SEEDS))
    objective = so.VectorMatching(vectors, weights="nonnegative")
    return vectors, objective, draw(st.integers(1, n))


def on_weighted(test: Callable[..., None]) -> Callable[..., None]:
    """Give a test what ``weighted`` draws, 60 times."""
    return settings(max_examples=60)(given(drawn=weighted())(test))


@on_weighted
def test_giga_is_the_published_algorithm(drawn: tuple[np.ndarray, so.VectorMatching, int]) -> None:
    vectors, objective, k = drawn
    answer = so.solve(so.Problem(objective, k), "giga")
    weights = reference.geodesic_ascent(vectors, objective.target, k)
    published = np.linalg.norm(objective.target - weights @ vectors)
    # Ties within single precision are broken otherwise; the weights are those of k steps.
    assert answer.objective <= published * 1.05 + 1e-4 * objective.scale
    refitted = so.solve(so.Problem(objective, k), "giga", options={"refit": True})
    assert refitted.objective <= answer.objective + 1e-12 * objective.scale


def test_giga_equals_the_published_algorithm_in_general_position() -> None:
    for seed in range(5):
        vectors = instance(300, 64, seed)
        objective = so.VectorMatching(vectors, weights="nonnegative")
        answer = so.solve(so.Problem(objective, 40), "giga")
        weights = reference.geodesic_ascent(vectors, objective.target, 40)
        assert np.array_equal(answer.indices, np.flatnonzero(weights))
        assert np.allclose(answer.weights, weights[answer.indices], rtol=1e-9)


@on_weighted
def test_omp_is_no_worse_than_published(drawn: tuple[np.ndarray, so.VectorMatching, int]) -> None:
    vectors, objective, k = drawn
    answer = so.solve(so.Problem(objective, k), "omp")
    published = reference.matching_pursuit(vectors, objective.target, k)
    assert answer.objective <= published * (1.0 + 1e-9) + 1e-12 * objective.scale
    if k >= vectors.shape[1]:
        assert answer.status is so.Status.OPTIMAL


@given(seed=SEEDS, n=st.integers(1, 40), d=st.integers(1, 6), data=st.data())
def test_herding_is_the_naive_loop(seed: int, n: int, d: int, data: st.DataObject) -> None:
    vectors = instance(n, d, seed)
    k = data.draw(st.integers(0, n))
    answer = so.solve(so.Problem(so.VectorMatching(vectors), k), "herding")
    assert set(answer.indices) == set(reference.herd(vectors, k))


@given(problem=problems(kinds=["VectorMatching[uniform]"], min_size=1), seed=SEEDS)
@settings(max_examples=150)
def test_a_descent_ends_where_no_swap_helps(problem: so.Problem, seed: int) -> None:
    if problem.constraints.infeasibility() is not None or problem.k == 0:
        return
    start = so.solve(problem, "random", seed=seed).indices
    chosen, _, stop = descend(problem, start, SolveContext(), None)
    objective, k = problem.objective, problem.k
    value = objective.evaluate(chosen, np.full(chosen.size, 1.0 / k))
    assert value <= objective.evaluate(start, np.full(start.size, 1.0 / k)) * (1.0 + 1e-9)
    assert problem.constraints.violations(np.sort(chosen)) == []
    if stop is not so.StopReason.STAGNATION:
        return
    for i in np.setdiff1d(chosen, problem.constraints.forced):
        for j in np.setdiff1d(problem.constraints.free, chosen):
            moved = np.sort(np.append(np.setdiff1d(chosen, i), j))
            if not problem.constraints.violations(moved):
                other = objective.evaluate(moved, np.full(moved.size, 1.0 / k))
                # Single precision decides which swap is looked at.
                assert other >= value * (1.0 - 1e-4) - 1e-6 * objective.scale


@given(problem=problems(kinds=["VectorMatching[uniform]"], min_size=1), seed=SEEDS)
def test_no_subset_is_below_the_projection_bound(problem: so.Problem, seed: int) -> None:
    oracle = so.solve(problem, "exhaustive")
    if oracle.has_solution and problem.k:
        start = so.solve(problem, "random", seed=seed).indices
        for chosen in (start, oracle.indices):
            bound = projection_bound(problem, problem.objective, chosen)
            assert bound <= oracle.objective * (1.0 + 1e-9) + problem.objective.tolerance


def _polytopes(n: int, d: int, k: int, seed: int) -> list[CappedSimplex | WeightedCone]:
    vectors = instance(n, d, seed)
    uniform = so.Problem(so.VectorMatching(vectors), k)
    weighted = so.Problem(so.VectorMatching(vectors, weights="nonnegative"), n)
    return [
        CappedSimplex(
            uniform, vectors, vectors.mean(axis=0), np.random.default_rng(seed), so.Deadline()
        ),
        WeightedCone(weighted, vectors, vectors.mean(axis=0), so.Deadline(None)),
    ]


@given(
    seed=SEEDS,
    n=st.integers(2, 30),
    d=st.integers(1, 6),
    limit=st.integers(1, 60),
    variant=st.sampled_from(["plain", "away", "pairwise"]),
    data=st.data(),
)
def test_the_gap_bounds_the_distance_to_the_relaxed_optimum(
    seed: int, n: int, d: int, limit: int, variant: str, data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, n - 1))
    for polytope in _polytopes(n, d, k, seed):
        end = minimize(polytope, variant, so.Deadline(), limit, 0.0)
        assert end.gap >= 0.0 and end.steps <= limit
        # w = 1/n lies in both polytopes, so the relaxed optimum is 0.
        assert end.gap >= end.value * (1.0 - 1e-9) - 1e-15
        assert (end.weights >= -1e-12).all()


@pytest.mark.parametrize("seed", range(3))
def test_plain_frank_wolfe_is_at_least_sublinear(seed: int) -> None:
    for polytope in _polytopes(60, 5, 12, seed):
        start = polytope.first()
        assert start is not None
        points = [polytope.oracle(u).point for u in np.random.default_rng(0).normal(size=(200, 5))]
        diameter = max(float((p - q) @ (p - q)) for p, q in combinations(points, 2))
        for steps in (10, 40, 160):
            end = minimize(polytope, "plain", so.Deadline(), steps, 0.0)
            assert end.value <= 4.0 * diameter / (steps + 2)


@pytest.mark.parametrize("variant", ["away", "pairwise"])
@pytest.mark.parametrize("seed", range(3))
def test_away_and_pairwise_converge_linearly(variant: str, seed: int) -> None:
    """On a simplex of independent vectors f is strongly convex, its optimum on a face."""
    rng = np.random.default_rng(seed)
    vectors = np.eye(20) + 0.1 * rng.normal(size=(20, 20))
    target = vectors[:6].mean(axis=0) - 0.2 * vectors[6:12].mean(axis=0)
    problem = so.Problem(so.VectorMatching(vectors, target), 1)

    def gap(kind: str, steps: int) -> float:
        polytope = CappedSimplex(
            problem, vectors, target, np.random.default_rng(seed), so.Deadline()
        )
        return minimize(polytope, kind, so.Deadline(), steps, 0.0).gap

    gaps = [gap(variant, steps) for steps in (20, 60, 100, 140)]
    # Forty steps take a hundredth each, down to rounding; the plain form is sublinear.
    assert all(later < max(0.01 * earlier, 1e-13) for earlier, later in pairwise(gaps))
    assert gap("plain", 140) > 1e-3


@pytest.mark.parametrize("name", ["frank-wolfe", "away-frank-wolfe", "pairwise-frank-wolfe"])
def test_scalar_and_vector_forms_agree(name: str) -> None:
    losses = np.random.default_rng(0).exponential(size=60)
    scalar = so.solve(so.Problem(so.MeanMatching(losses), 7), name, seed=3)
    vector = so.solve(so.Problem(so.VectorMatching(losses[:, None]), 7), name, seed=3)
    assert scalar.extras["fw_gap"] == pytest.approx(vector.extras["fw_gap"], abs=1e-15)


@pytest.mark.parametrize("name", ["frank-wolfe", "away-frank-wolfe", "pairwise-frank-wolfe"])
@pytest.mark.parametrize("unit", [1e-200, 1e200])
@pytest.mark.parametrize("target", [None, 1.0, 3e200])
def test_no_square_overflows_or_vanishes(name: str, unit: float, target: float | None) -> None:
    objective = so.MeanMatching(unit * np.arange(1.0, 13.0), target=target)
    answer = so.solve(so.Problem(objective, 5), name, seed=0)
    assert answer.has_solution
    assert answer.bound <= answer.objective
    far = target is not None and not unit <= target <= 12.0 * unit
    assert not far or answer.status is so.Status.OPTIMAL


@given(seed=SEEDS, n=st.integers(8, 40), d=st.integers(1, 6), looks=st.integers(1, 50))
@settings(max_examples=60)
def test_looks_are_a_limit_of_work(seed: int, n: int, d: int, looks: int) -> None:
    problem = so.Problem(so.VectorMatching(instance(n, d, seed)), n // 3)
    short = so.solve(problem, Swap(looks=looks), seed=seed)
    same = so.solve(problem, Swap(), seed=seed, max_iterations=looks * n * d)
    assert np.array_equal(short.indices, same.indices) and short.iterations == same.iterations
    fewer = so.solve(problem, Swap(looks=looks), seed=seed, max_iterations=n * d)
    least = so.solve(problem, Swap(), seed=seed, max_iterations=n * d)
    assert np.array_equal(fewer.indices, least.indices)
    if short.stop_reason is so.StopReason.ITERATION:
        timed = so.solve(problem, Swap(looks=looks), seed=seed, time_limit=3600.0)
        assert np.array_equal(timed.indices, short.indices)
