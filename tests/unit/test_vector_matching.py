"""VectorMatching: what it accepts, and what its solvers promise on hand-made problems."""

from __future__ import annotations

import math

import numpy as np
import pytest

import subsetopt as so

VECTORS = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0], [-1.0, 3.0]])


def instance(n: int, d: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) * rng.exponential(size=(n, 1))


def test_objective_target_scale_and_tolerance() -> None:
    objective = so.VectorMatching(VECTORS)
    assert np.array_equal(objective.target, VECTORS.mean(axis=0))
    assert objective.scale == pytest.approx(np.linalg.norm(VECTORS, axis=1).mean())
    assert objective.tolerance == pytest.approx(1e-9 * objective.scale)
    single = so.VectorMatching(VECTORS.astype(np.float32))
    assert single.tolerance == pytest.approx(np.finfo(np.float32).eps * objective.scale)
    value = objective.evaluate(np.array([0, 2]), np.array([0.5, 0.5]))
    assert value == pytest.approx(np.linalg.norm(VECTORS.mean(axis=0) - [1.5, 1.0]))
    assert repr(objective) == "VectorMatching(n=4, d=2, weights='uniform')"


def test_a_float64_matrix_is_not_copied() -> None:
    assert so.VectorMatching(VECTORS).vectors is VECTORS or np.shares_memory(
        so.VectorMatching(VECTORS).vectors, VECTORS
    )


@pytest.mark.parametrize(
    ("vectors", "keywords", "message"),
    [
        ([1.0, 2.0], {}, r"shape \(n, d\), one row per sample, got shape \(2,\); for one number"),
        (np.zeros((2, 2, 2)), {}, r"got shape \(2, 2, 2\)"),
        (np.zeros((3, 0)), {}, "at least one coordinate"),
        ([[1.0], [1.0, 2.0]], {}, "vectors must all have one length"),
        ([[1.0, math.nan]], {}, "vectors must be finite; not finite at positions 1"),
        ([["a", "b"]], {}, "vectors must be real numbers"),
        (VECTORS, {"target": [1.0]}, "target has 1 entries for vectors of length 2"),
        (VECTORS, {"target": [1.0, math.inf]}, "target must be finite"),
        (VECTORS, {"weights": "positive"}, "weights must be 'uniform' or 'nonnegative'"),
        (np.full((2, 2), 1.7e308), {"target": [0.0, 0.0]}, "overflow"),
    ],
)
def test_malformed_input_is_refused(vectors: object, keywords: dict, message: str) -> None:
    with pytest.raises(so.ProblemError, match=message):
        so.VectorMatching(vectors, **keywords)


def test_nonnegative_weights_are_at_most_k() -> None:
    problem = so.Problem(so.VectorMatching(VECTORS, weights="nonnegative"), k=2)
    assert problem.cardinality == "at_most"
    objective = problem.objective
    weights = objective.weights_for(np.array([0, 1]), 2)
    assert np.allclose(weights, VECTORS.mean(axis=0))
    assert "negative" in objective.weight_problem(np.array([0]), np.array([-0.1]), 2)
    assert objective.weight_problem(np.array([0]), np.array([math.inf]), 2)
    assert objective.weight_problem(np.array([0]), np.array([3.0]), 2) is None


@pytest.mark.parametrize("weights", ["uniform", "nonnegative"])
def test_empty_choices(weights: str) -> None:
    problem = so.Problem(so.VectorMatching(VECTORS, weights=weights), k=0)
    answer = so.solve(problem)
    assert answer.status is so.Status.OPTIMAL
    assert answer.objective == pytest.approx(np.linalg.norm(VECTORS.mean(axis=0)))
    nothing = so.solve(so.Problem(so.VectorMatching(np.zeros((0, 3)), weights=weights), k=0))
    assert nothing.status is so.Status.OPTIMAL and nothing.objective == 0.0


def test_a_solver_of_the_other_weights_names_those_that_can() -> None:
    problem = so.Problem(so.VectorMatching(VECTORS), k=2)
    with pytest.raises(so.UnsupportedProblemError, match=r"'omp' cannot take .*\[uniform\].*swap"):
        so.solve(problem, "omp")
    weighted = so.Problem(so.VectorMatching(VECTORS, weights="nonnegative"), k=2)
    with pytest.raises(so.UnsupportedProblemError, match=r"\[nonnegative\].*omp, giga"):
        so.solve(weighted, "swap")


def test_auto_follows_the_weights() -> None:
    assert so.choose_solver(so.Problem(so.VectorMatching(VECTORS), k=2)).name == "swap"
    weighted = so.Problem(so.VectorMatching(VECTORS, weights="nonnegative"), k=2)
    assert so.choose_solver(weighted).name == "omp"


@pytest.mark.parametrize("d", [1, 2, 10, 200, 1000])
def test_swap_beats_the_best_of_many_random_subsets(d: int) -> None:
    problem = so.Problem(so.VectorMatching(instance(200, d)), k=20)
    answer = so.solve(problem, "swap", seed=0, max_iterations=20_000 * d)
    best = min(so.solve(problem, "random", seed=s).objective for s in range(50))
    assert answer.objective < best
    assert so.verify(problem, answer)


def test_swap_keeps_to_its_work_limit_and_reproduces() -> None:
    problem = so.Problem(so.VectorMatching(instance(300, 8)), k=30)
    first, again = (so.solve(problem, "swap", seed=5, max_iterations=500_000) for _ in range(2))
    assert np.array_equal(first.indices, again.indices)
    assert first.stop_reason is so.StopReason.ITERATION
    assert 500_000 <= first.iterations < 520_000
    longer = so.solve(problem, "swap", seed=5, max_iterations=5_000_000)
    assert longer.objective <= first.objective


def test_swap_stops_at_a_match() -> None:
    vectors = np.vstack([instance(30, 3), -instance(30, 3)])
    problem = so.Problem(so.VectorMatching(vectors.astype(np.float32)), k=2)
    answer = so.solve(problem, "swap", seed=0, max_iterations=50_000_000)
    assert answer.status is so.Status.OPTIMAL
    assert answer.stop_reason is so.StopReason.TARGET


@pytest.mark.parametrize("name", ["swap", "frank-wolfe"])
def test_a_target_out_of_reach_is_bounded(name: str) -> None:
    objective = so.VectorMatching(instance(40, 5), target=np.full(5, 100.0))
    answer = so.solve(so.Problem(objective, k=20), name, seed=0)
    assert 0.99 * answer.objective < answer.bound <= answer.objective


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e150])
@pytest.mark.parametrize("weights", ["uniform", "nonnegative"])
def test_answers_do_not_depend_on_the_unit(weights: str, scale: float) -> None:
    plain = so.Problem(so.VectorMatching(instance(40, 4), weights=weights), k=3)
    scaled = so.Problem(so.VectorMatching(instance(40, 4) * scale, weights=weights), k=3)
    for name in so.available_solvers(plain):
        if name != "exhaustive":
            one, other = (so.solve(p, name, seed=1) for p in (plain, scaled))
            assert other.objective / scale == pytest.approx(one.objective, rel=0.05), name


@pytest.mark.parametrize("d", [1, 5, 16])
def test_k_at_least_the_rank_is_proved(d: int) -> None:
    vectors = instance(256, d)
    vectors = np.hstack([vectors, vectors[:, :1] * 2.0])  # one coordinate depends on another
    problem = so.Problem(so.VectorMatching(vectors, weights="nonnegative"), k=d)
    for name in ("omp", "auto"):
        answer = so.solve(problem, name)
        assert answer.status is so.Status.OPTIMAL
        assert answer.objective <= 1e-13 * problem.objective.scale
        assert answer.indices.size <= d


def test_a_target_outside_the_cone_is_proved() -> None:
    vectors = np.abs(instance(50, 3))
    objective = so.VectorMatching(vectors, target=[-1.0, -1.0, -1.0], weights="nonnegative")
    answer = so.solve(so.Problem(objective, k=5), "omp")
    assert answer.status is so.Status.OPTIMAL
    assert answer.indices.size == 0
    assert answer.objective == pytest.approx(math.sqrt(3.0))


def test_a_warm_start_gets_its_best_weights() -> None:
    problem = so.Problem(so.VectorMatching(instance(20, 6), weights="nonnegative"), k=3)
    kept = so.solve(problem, "omp", time_limit=0, warm_start=[1, 2, 3])
    assert kept.has_solution and so.verify(problem, kept)
    warmed = so.solve(problem, "omp", warm_start=[1, 2, 3])
    assert warmed.objective <= kept.objective


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("giga", {"refit": 1}, "refit must be True or False, got 1"),
        ("omp", {"pick": "largest"}, "pick must be 'angle' or 'product', got 'largest'"),
        ("away-frank-wolfe", {"max_polish": -1}, "max_polish must be an integer >= 0, got -1"),
        ("pairwise-frank-wolfe", {"max_polish": True}, "max_polish must be an integer >= 0"),
    ],
)
def test_bad_options_are_refused(name: str, options: dict, message: str) -> None:
    problem = so.Problem(so.VectorMatching(VECTORS, weights="nonnegative"), k=2)
    with pytest.raises(so.OptionError, match=message):
        so.solve(problem, name, options=options)


@pytest.mark.parametrize("name", ["swap", "herding"])
def test_an_injected_clock_ends_uniform_solvers(name: str) -> None:
    ticks = iter(range(10**6))
    problem = so.Problem(so.VectorMatching(instance(200, 20)), k=50)
    answer = so.solve(problem, name, so.Deadline(9, clock=lambda: next(ticks)), seed=0)
    assert answer.stop_reason is so.StopReason.TIME
    assert so.verify(problem, answer)


@pytest.mark.parametrize("name", ["omp", "giga", "frank-wolfe"])
def test_an_injected_clock_ends_weighted_solvers(name: str) -> None:
    ticks = iter(range(10**6))
    problem = so.Problem(so.VectorMatching(instance(2000, 500), weights="nonnegative"), k=50)
    answer = so.solve(problem, name, so.Deadline(9, clock=lambda: next(ticks)), seed=0)
    assert answer.stop_reason is so.StopReason.TIME
    assert 0 < answer.indices.size < 50
    assert so.verify(problem, answer)


@pytest.mark.parametrize("name", ["swap", "frank-wolfe", "herding"])
def test_a_target_beyond_all_squares_is_survived(name: str) -> None:
    losses = 1e-170 * np.arange(1.0, 9.0)
    rules = {"costs": np.ones(8), "capacity": 4.0}
    objectives = [so.VectorMatching(losses[:, None], target=[1.0])]
    if name != "herding":
        objectives.append(so.MeanMatching(losses, target=1.0))
    for objective in objectives:
        answer = so.solve(so.Problem(objective, 3, **rules), name, seed=0)
        assert answer.has_solution and answer.objective == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["capacity", "quotas"])
def test_swaps_keep_to_constraints_that_bar_most_of_them(kind: str) -> None:
    for seed in range(60):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(3, 10))
        k, vectors = int(rng.integers(1, n)), rng.normal(size=(n, 3))
        constraints: dict
        if kind == "capacity":
            costs = rng.random(n)
            constraints = {"costs": costs, "capacity": 1.2 * float(np.sort(costs)[:k].sum())}
        else:
            groups = rng.integers(0, 3, n)
            constraints = {"groups": groups, "quotas": {0: (0, max(1, k // 2))}}
        problem = so.Problem(so.VectorMatching(vectors), k, **constraints)
        solution = so.solve(problem, "swap", seed=seed)
        assert solution.status is not so.Status.ERROR, solution.extras
        if solution.has_solution:
            assert not problem.constraints.violations(solution.indices)


@pytest.mark.parametrize("cardinality", ["exact", "at_most"])
@pytest.mark.parametrize("name", ["swap", "herding"])
@pytest.mark.parametrize("size", [2.0**-996, 2.0**-530, 2.0**500, 2.0**1000])
def test_targets_and_vectors_of_any_magnitude(name: str, cardinality: str, size: float) -> None:
    rng = np.random.default_rng(4)
    vectors = rng.normal(size=(8, 3))
    answers = [
        so.solve(so.Problem(so.VectorMatching(v), 3, cardinality=cardinality), name, seed=1)
        for v in (vectors, vectors * size)
    ]
    assert answers[0].indices.tolist() == answers[1].indices.tolist()
    # With a target far beyond them, the vectors that lie furthest along it are the best.
    far = so.Problem(so.VectorMatching(vectors, target=size * np.array([1.0, 0.0, 0.0])), 3)
    solution = so.solve(far, name, seed=1)
    assert solution.indices.size == 3
    if size > 1.0:
        assert solution.objective == pytest.approx(size)


@pytest.mark.parametrize("solver", ["auto", "omp", "exhaustive"])
def test_short_vectors_reach_a_target_far_longer(solver: str) -> None:
    """Squares of the vectors vanish beside those of the target, their weights are large."""
    vectors = [[1e-300, 3.5e-323, 0.0], [1e-300, 1e-300, 1e-300], [-1.5e-323, 1e-323, 2e-323]]
    problem = so.Problem(so.VectorMatching(vectors, [2e-34] * 3, "nonnegative"), 1)
    answer = so.solve(problem, solver)
    assert answer.indices.tolist() == [1] and answer.weights == pytest.approx([2e266])
    assert answer.bound <= 1e-45 and so.verify(problem, answer)


@pytest.mark.parametrize("size", [1.5e146, 1.0])
@pytest.mark.parametrize("solver", ["auto", "omp", "giga", "exhaustive"])
def test_a_vector_far_shorter_than_others_has_a_norm(solver: str, size: float) -> None:
    vectors = np.array([[-size, 0.0], [-5e-171, 0.0], [3e-170, 4e-170], [0.0, 0.0]])
    objective = so.VectorMatching(vectors, [-1e20, 0.0], "nonnegative")
    assert objective.norms == pytest.approx([size, 5e-171, 5e-170, 0.0], rel=1e-14, abs=0.0)
    answer = so.solve(so.Problem(objective, 1, exclude=[0]), solver)
    assert answer.indices.tolist() == [1] and answer.weights == pytest.approx([2e190])


@pytest.mark.parametrize("solver", ["auto", "omp", "exhaustive"])
def test_a_short_vector_beside_a_long_one_gets_a_weight(solver: str) -> None:
    vectors = np.array([[1.0, 0.0], [0.0, 5e-171], [0.0, 0.0]])
    problem = so.Problem(so.VectorMatching(vectors, [3.0, 10.0], "nonnegative"), 2)
    answer = so.solve(problem, solver)
    assert answer.indices.tolist() == [0, 1] and answer.weights == pytest.approx([3.0, 2e171])


@pytest.mark.parametrize("solver", ["auto", "omp", "giga", "exhaustive", "frank-wolfe"])
def test_weights_that_do_not_fit_into_float64_are_the_largest(solver: str) -> None:
    vectors = np.array([[34.0, 2.0, 13.0], [22.0, 24.0, -35.0], [0.0, 0.0, 1.0]]) * 5e-324
    for target in ([1.0, 1.0, 1.0], [1e250, 0.0, 0.0]):
        problem = so.Problem(so.VectorMatching(vectors, target, "nonnegative"), 2)
        answer = so.solve(problem, solver)
        assert answer.has_solution and np.isfinite(answer.weights).all()
        assert answer.bound <= answer.objective


def test_squares_that_overflow_in_sum_are_no_warning() -> None:
    vectors = np.full((4, 2), 6e153)
    assert so.VectorMatching(vectors).scale == pytest.approx(6e153 * 2**0.5)


@pytest.mark.parametrize(
    "name",
    [s.name for s in so.list_solvers() if "VectorMatching[uniform]" in s.objectives and s.exact]
    + ["swap", "frank-wolfe"],
)
def test_vectors_that_are_all_equal_leave_nothing_to_prove(name: str) -> None:
    """Every k of them have one and the same value, which no solver's rounding makes doubtful."""
    if name not in so.available_solvers():
        pytest.skip(f"{name} is not available")
    for value, target in ((1.0, 0.5), (0.1, 0.7), (1e-200, 3e-200)):
        problem = so.Problem(so.VectorMatching(np.full((3, 2), value), target=[target] * 2), 2)
        solution = so.solve(problem, name, time_limit=20, seed=0)
        assert solution.status is so.Status.OPTIMAL
        assert so.verify(problem, solution)
        assert solution.bound == solution.objective


@pytest.mark.parametrize("distance", [0.5, 1e6, 1e300])
def test_what_rounding_hides_is_no_difference(distance: float) -> None:
    problem = so.Problem(so.VectorMatching(np.ones((4, 2)), [distance, distance]), 2)
    answer = so.solve(problem, "swap", seed=0)
    assert answer.status is so.Status.OPTIMAL
    assert problem.objective.tolerance <= 1e-13 * max(distance, 1.0)
