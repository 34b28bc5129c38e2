"""Facility location and k-center: objectives against plain NumPy, solvers against brute force."""

from __future__ import annotations

import math
import tracemalloc
from itertools import combinations

import numpy as np
import pytest
from processes import in_forked_child

import subsetopt as so
from subsetopt.constraints.partial_subset import Partial
from subsetopt.kernels.coverage import gains as kernel
from subsetopt.objectives import coverage
from subsetopt.solvers.coverage import clients, gains
from subsetopt.solvers.coverage.growth import completed_by

RNG = np.random.default_rng(1)
POINTS = RNG.normal(size=(40, 3))
GREEDY = 1.0 - 1.0 / math.e


def distances(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - points[None, :], axis=2)


def plain(metric: str) -> np.ndarray:
    if metric == "dot":
        return POINTS @ POINTS.T
    if metric == "euclidean":
        mean = POINTS.mean(axis=0)
        return 2.0 * np.linalg.norm(POINTS - mean, axis=1).max() - distances(POINTS)
    if metric == "rbf":
        return np.exp(-(distances(POINTS) ** 2) / (3 * POINTS.var(axis=0).mean()))
    unit = POINTS / np.linalg.norm(POINTS, axis=1, keepdims=True)
    return 1.0 + unit @ unit.T


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "rbf", "dot"])
def test_features_and_their_similarities_are_the_same_objective(metric: str) -> None:
    matrix = plain(metric)
    for chosen in ([0], [3, 7, 21], list(range(40))):
        expected = np.maximum(matrix[:, chosen].max(axis=1), 0.0).sum()
        indices, weights = np.array(chosen), np.ones(len(chosen))
        by_features = so.FacilityLocation(POINTS, metric=metric)
        by_matrix = so.FacilityLocation(similarity=matrix)
        assert by_features.evaluate(indices, weights) == pytest.approx(expected, rel=1e-6)
        assert by_matrix.evaluate(indices, weights) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("solver", ["greedy", "lazy-greedy", "stochastic-greedy"])
@pytest.mark.parametrize("metric", ["cosine", "euclidean", "rbf", "dot"])
def test_solvers_agree_on_features_and_similarities(solver: str, metric: str) -> None:
    first = so.solve(so.Problem(so.FacilityLocation(POINTS, metric=metric), 6), solver, seed=0)
    matrix = so.FacilityLocation(similarity=plain(metric))
    second = so.solve(so.Problem(matrix, 6), solver, seed=0)
    assert first.objective == pytest.approx(second.objective, rel=1e-5)


@pytest.mark.parametrize("solver", ["auto", "greedy", "lazy-greedy", "stochastic-greedy"])
@pytest.mark.parametrize(
    ("metric", "unit"),
    [
        ("dot", 2.0**64),
        ("dot", 2.0**500),
        ("dot", 2.0**-400),
        ("euclidean", 2.0**130),
        ("euclidean", 2.0**900),
        ("euclidean", 2.0**-900),
        ("rbf", 2.0**1000),
        ("rbf", 2.0**-1000),
        ("cosine", 2.0**1000),
        ("cosine", 2.0**-1000),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_unit_of_the_features_changes_no_answer(solver: str, metric: str, unit: float) -> None:
    worth = {"dot": unit * unit, "euclidean": unit}.get(metric, 1.0)
    plain_, scaled = (
        so.solve(so.Problem(so.FacilityLocation(points, metric=metric), 5), solver, seed=0)
        for points in (POINTS, unit * POINTS)
    )
    assert scaled.indices.tolist() == plain_.indices.tolist()
    assert scaled.objective == pytest.approx(worth * plain_.objective, rel=1e-12)
    assert scaled.bound == pytest.approx(worth * plain_.bound, rel=1e-12)


@pytest.mark.parametrize("unit", [2.0**400, 2.0**-900])
def test_a_unit_of_the_features_changes_no_center(unit: float) -> None:
    near, scaled = (
        so.solve(so.Problem(so.KCenter(points), 5), "farthest-first", seed=0)
        for points in (POINTS, unit * POINTS)
    )
    assert scaled.indices.tolist() == near.indices.tolist()
    assert scaled.objective == pytest.approx(unit * near.objective, rel=1e-12)
    assert scaled.bound == pytest.approx(unit * near.bound, rel=1e-12)
    assert scaled.objective > 0.0


@pytest.mark.parametrize("metric", ["euclidean", "rbf"])
def test_features_near_each_other_are_measured_from_their_mean(metric: str) -> None:
    """The mean of numbers near 2**53 is rounded by more than some of their differences."""
    features = np.array([[9.0, 8.0], [0.0, 1.0], [5.0, 3.0], [4.0, 4.0], [7.0, 0.0]])
    near = so.FacilityLocation(features, metric=metric)
    far = so.FacilityLocation(features + 2.0**52, metric=metric)
    for chosen in ([0], [1, 4], [2, 3]):
        indices = np.array(chosen)
        weights = np.ones(len(chosen))
        assert far.evaluate(indices, weights) == pytest.approx(near.evaluate(indices, weights))
    center = so.KCenter(features + 2.0**52)
    assert center.tolerance == pytest.approx(so.KCenter(features).tolerance)


@pytest.mark.parametrize("metric", ["euclidean", "rbf"])
def test_equal_samples_are_as_similar_as_can_be_at_every_magnitude(metric: str) -> None:
    for value in (1e-320, 1.0, 1e308):
        problem = so.Problem(so.FacilityLocation(np.full((4, 2), value), metric=metric), 1)
        answer = so.solve(problem, "lazy-greedy")
        assert answer.objective == pytest.approx(4.0 if metric == "rbf" else 0.0)


@pytest.mark.parametrize(
    ("dtype", "unit"), [(np.float32, 2.0**124), (np.float64, 2.0**990), (np.float64, 2.0**-990)]
)
@pytest.mark.parametrize("solver", ["auto", "greedy", "lazy-greedy", "stochastic-greedy"])
@pytest.mark.filterwarnings("error")
def test_a_unit_of_the_similarities_changes_no_answer(
    solver: str, dtype: type, unit: float
) -> None:
    matrix = np.random.default_rng(3).random((600, 600)).astype(dtype)
    near, scaled = (
        so.solve(so.Problem(so.FacilityLocation(similarity=values), 5), solver, seed=0)
        for values in (matrix, (unit * matrix).astype(dtype))
    )
    assert scaled.indices.tolist() == near.indices.tolist()
    assert scaled.objective == pytest.approx(unit * near.objective, rel=1e-6)
    assert near.objective <= near.bound
    assert scaled.objective <= scaled.bound <= unit * near.bound * (1.0 + 1e-6)


def test_an_asymmetric_similarity_is_read_by_rows_of_clients() -> None:
    matrix = np.zeros((4, 4))
    matrix[:, 2] = 1.0  # candidate 2 stands for every sample
    for solver in ("greedy", "lazy-greedy", "stochastic-greedy"):
        answer = so.solve(so.Problem(so.FacilityLocation(similarity=matrix), 1), solver, seed=0)
        assert answer.objective == 4.0 or solver == "stochastic-greedy"
    assert so.solve(so.Problem(so.FacilityLocation(similarity=matrix), 1)).indices.tolist() == [2]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lazy_greedy_of_an_asymmetric_similarity_is_greedy(order: str, dtype: type) -> None:
    matrix = np.asarray(np.random.default_rng(4).normal(size=(70, 70)), dtype, order=order)
    problem = so.Problem(so.FacilityLocation(similarity=matrix), 20, include=[3], exclude=[5])
    lazy, full = so.solve(problem, "lazy-greedy"), so.solve(problem, "greedy")
    assert lazy.indices.tolist() == full.indices.tolist()
    assert lazy.bound == pytest.approx(full.bound, rel=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [0, 1, 60, 61])
def test_a_given_similarity_tells_what_each_sample_alone_is_worth(
    n: int, dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Five rows at a time, and parts of fifteen.
    monkeypatch.setattr(coverage, "_CACHED", 5 * max(n, 1))
    monkeypatch.setattr(coverage, "_TOGETHER", 3)
    matrix = np.random.default_rng(n).normal(size=(n, n)).astype(dtype)
    objective = so.FacilityLocation(similarity=matrix)
    worth = [objective.evaluate(np.array([j]), np.ones(1)) for j in range(n)]
    assert objective.alone == pytest.approx(np.array(worth), rel=1e-5)
    assert objective.reach == pytest.approx(matrix.max(axis=1, initial=0.0).sum(dtype=np.float64))
    for value in (np.nan, np.inf, -np.inf) if n else ():
        matrix[n - 1, n // 2] = value
        with pytest.raises(so.ProblemError, match=rf"not finite in rows \[{n - 1}\]"):
            so.FacilityLocation(similarity=matrix)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_settled_gains_are_those_computed_one_by_one(dtype: type) -> None:
    matrix = np.random.default_rng(5).normal(size=(301, 301)).astype(dtype)
    state = gains.Gains(so.FacilityLocation(similarity=matrix), 3)
    upper = np.where(np.arange(301) < 300, np.inf, 0.0)
    for item in (7, 200, 11):
        assert state.settle(upper, so.Deadline(None)) == (True, pytest.approx(301, abs=301))
        assert upper[:300] == pytest.approx(state.gains(np.arange(300)), rel=1e-5, abs=1e-5)
        assert upper[300] == 0.0
        state.take(item)


def test_out_of_time_gains_are_bounded_from_above() -> None:
    matrix = np.random.default_rng(6).random((300, 300))
    state = gains.Gains(so.FacilityLocation(similarity=matrix), 2)
    upper = np.full(300, np.inf)
    state.settle(upper, so.Deadline(None))
    state.take(0)
    ticks = iter(range(10))
    done, _ = state.settle(upper, so.Deadline(2, clock=lambda: next(ticks)))
    assert not done
    assert (upper >= state.gains(np.arange(300)) - 1e-9).all()
    assert state.settle(upper, so.Deadline(None))[0]
    assert upper == pytest.approx(state.gains(np.arange(300)))


def test_lazy_greedy_looks_at_fewer_gains() -> None:
    points = np.random.default_rng(0).normal(size=(500, 4))
    problem = so.Problem(so.FacilityLocation(points, metric="euclidean"), 20)
    lazy, full = so.solve(problem, "lazy-greedy"), so.solve(problem, "greedy")
    assert lazy.objective == pytest.approx(full.objective, rel=1e-6)
    assert lazy.iterations < 0.5 * full.iterations


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean", "rbf"])
def test_gains_in_pieces_are_those_of_kept_similarities(
    metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = np.random.default_rng(3).normal(size=(600, 9))
    problem = so.Problem(so.FacilityLocation(points, metric=metric), 30)
    kept = so.solve(problem, "lazy-greedy")
    monkeypatch.setattr(gains, "_KEPT", 0)
    monkeypatch.setattr(clients, "_CLIENTS", 7)
    monkeypatch.setattr(clients, "_CANDIDATES", 5)
    pieces = so.solve(problem, "lazy-greedy")
    assert pieces.objective == pytest.approx(kept.objective, rel=1e-6)
    assert kept.objective <= pieces.bound
    sampled = so.solve(problem, "stochastic-greedy", seed=0)
    assert sampled.bound >= sampled.objective


def test_large_problems_never_hold_all_similarities() -> None:
    n = 12_000  # all of them would take 576 MB in float32
    points = np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)
    so.solve(so.Problem(so.FacilityLocation(POINTS), 2), "stochastic-greedy", seed=0)
    tracemalloc.start()
    try:
        objective = so.FacilityLocation(points)
        answer = so.solve(so.Problem(objective, 5), "stochastic-greedy", time_limit=0.3, seed=0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert answer.indices.size == 5
    assert peak < 100e6


def test_the_optimum_of_facility_location_is_within_the_guarantee() -> None:
    for seed in range(10):
        points = np.random.default_rng(seed).normal(size=(12, 2))
        problem = so.Problem(so.FacilityLocation(points), 3)
        best = so.solve(problem, "exhaustive")
        lazy = so.solve(problem, "lazy-greedy")
        assert best.status is so.Status.OPTIMAL
        assert lazy.objective >= GREEDY * best.objective
        assert lazy.bound >= best.objective - 1e-9


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("start", ["random", "central"])
def test_farthest_first_is_within_a_factor_of_two(seed: int, start: str) -> None:
    points = np.random.default_rng(seed).normal(size=(14, 2))
    problem = so.Problem(so.KCenter(points), 4)
    matrix = distances(points)
    best = min(matrix[:, list(c)].min(axis=1).max() for c in combinations(range(14), 4))
    answer = so.solve(problem, "farthest-first", seed=seed, options={"start": start})
    assert best - 1e-9 <= answer.objective <= 2.0 * best + 1e-9
    assert answer.bound <= best + 1e-9
    assert answer.objective <= 2.0 * answer.bound + 1e-9
    assert so.solve(problem, "exhaustive").objective == pytest.approx(best)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_farthest_first_takes_the_farthest(metric: str) -> None:
    points = np.random.default_rng(8).normal(size=(400, 3))
    objective = so.KCenter(points, metric)
    for seed in range(5):
        answer = so.solve(so.Problem(objective, 30), "farthest-first", seed=seed)
        pick = int(so.solve(so.Problem(objective, 1), "farthest-first", seed=seed).indices[0])
        nearest, picks = np.full(400, np.inf), []
        for _ in range(30):
            picks.append(pick)
            squares = np.square(objective.points - objective.points[pick]).sum(axis=1)
            nearest = np.minimum(nearest, squares)
            pick = int(np.argmax(nearest))
        radius = objective.distance(float(nearest.max()))
        assert answer.objective == pytest.approx(radius, rel=1e-12)


def test_k_center_evaluates_to_the_largest_distance() -> None:
    rng = np.random.default_rng(9)
    for scale in (1e-140, 1.0, 1e100):
        points = scale * (1e6 * (rng.random((700, 1)) < 0.01) + rng.normal(size=(700, 5)))
        chosen = rng.choice(700, 9, replace=False)
        radius = distances(points / scale)[:, chosen].min(axis=1).max()
        value = so.KCenter(points).evaluate(chosen, np.ones(9))
        assert value == pytest.approx(scale * radius, rel=1e-6)


def test_k_center_survives_an_outlier() -> None:
    points = np.array([[0.0], [1.0], [2.0], [1e9]])
    assert so.KCenter(points).evaluate(np.array([1, 3]), np.ones(2)) == pytest.approx(1.0, abs=1e-6)


def test_zero_vectors_are_at_one_from_the_rest_by_cosine() -> None:
    objective = so.KCenter([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [0.0, 0.0]], metric="cosine")
    assert objective.evaluate(np.array([1]), np.ones(1)) == pytest.approx(1.0)
    assert objective.evaluate(np.array([0, 1]), np.ones(2)) == pytest.approx(0.0, abs=1e-12)


def test_no_center_is_infeasible() -> None:
    assert so.solve(so.Problem(so.KCenter(POINTS), 0)).status is so.Status.INFEASIBLE
    tight = so.Problem(so.KCenter(POINTS), 3, "at_most", costs=np.ones(40), capacity=0.5)
    for solver in ("farthest-first", "exhaustive"):
        assert so.solve(tight, solver, seed=0).status is so.Status.INFEASIBLE


def test_no_samples_are_covered_by_nothing() -> None:
    for objective in (so.FacilityLocation(np.zeros((0, 2))), so.KCenter(np.zeros((0, 2)))):
        answer = so.solve(so.Problem(objective, 0))
        assert answer.status is so.Status.OPTIMAL and answer.objective == 0.0


def test_quotas_hold() -> None:
    labels = np.arange(40) % 4
    quotas = {0: 3, 1: (1, 2)}
    for objective, solver in (
        (so.FacilityLocation(POINTS), "lazy-greedy"),
        (so.FacilityLocation(POINTS), "stochastic-greedy"),
        (so.FacilityLocation(POINTS), "greedy"),
        (so.KCenter(POINTS), "farthest-first"),
    ):
        problem = so.Problem(objective, 8, groups=labels, quotas=quotas, include=[5], exclude=[0])
        answer = so.solve(problem, solver, seed=0)
        assert so.verify(problem, answer)


@pytest.mark.parametrize("solver", ["greedy", "lazy-greedy", "stochastic-greedy"])
def test_out_of_time_there_is_still_a_subset(solver: str) -> None:
    problem = so.Problem(so.FacilityLocation(POINTS), 6)
    ticks = iter(range(10**6))
    answer = so.solve(problem, solver, so.Deadline(3, clock=lambda: next(ticks)), seed=0)
    assert answer.stop_reason is so.StopReason.TIME
    assert so.verify(problem, answer)


LIMITED = {
    "size": {},
    "at most": {"cardinality": "at_most"},
    "include": {"include": [5, 6, 7, 8]},
    "quotas": {"groups": np.arange(40) % 4, "quotas": {0: (1, 2), 1: (3, 9), 2: (0, 4)}},
    "capacity": {"costs": 1.0 + np.arange(40) % 5, "capacity": 14.0},
    "both": {
        "groups": np.arange(40) % 4,
        "quotas": {0: (1, 2), 1: (3, 9)},
        "costs": 1.0 + np.arange(40) % 5,
        "capacity": 14.0,
    },
}


@pytest.mark.parametrize("limits", LIMITED)
@pytest.mark.parametrize("ticks", [2, 3, 4, 5, 7, 9, 14])
@pytest.mark.parametrize("solver", ["greedy", "lazy-greedy", "stochastic-greedy", "farthest-first"])
def test_after_the_deadline_no_further_step_is_made(
    solver: str, ticks: int, limits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings: list[int] = []
    steps_after: list[int] = []

    def clock() -> float:
        readings.append(len(readings))
        return readings[-1]

    step = Partial.allowed

    def counted(state: Partial) -> np.ndarray:
        if len(readings) > ticks + 1:
            steps_after.append(len(readings))
        return step(state)

    monkeypatch.setattr(Partial, "allowed", counted)
    objective = (so.KCenter if solver == "farthest-first" else so.FacilityLocation)(POINTS)
    problem = so.Problem(objective, 10, **LIMITED[limits])
    answer = so.solve(problem, solver, so.Deadline(ticks, clock=clock), seed=0)
    assert so.verify(problem, answer)
    assert answer.indices is not None and answer.indices.size == 10
    assert not steps_after


def test_out_of_time_the_best_known_candidates_complete_a_subset() -> None:
    rules = so.Problem(so.KCenter(POINTS), 6, groups=np.arange(40) % 2, quotas={1: (2, 2)})
    state = Partial(rules.constraints)
    state.take(3)
    values = np.where(np.arange(40) < 20, np.arange(40.0), np.inf)
    chosen = completed_by(state, values, so.Deadline(0))
    assert chosen is not None
    assert chosen.tolist() == [3, 12, 14, 16, 18, 19]


@pytest.mark.parametrize("expired_after", [0, 1, 3])
def test_the_search_for_the_farthest_looks_at_the_clock(expired_after: int) -> None:
    points = np.random.default_rng(2).normal(size=(60_000, 40))
    centers, allowed = np.arange(500), np.arange(500, 60_000)
    squares, seen = np.full(60_000, np.inf), np.zeros(60_000, dtype=np.int64)
    looks: list[bool] = []

    def expired() -> bool:
        looks.append(len(looks) >= expired_after)
        return looks[-1]

    assert kernel.farthest(points, centers, allowed, squares, seen, expired) is None
    assert np.isfinite(squares).sum() <= expired_after * 200 + 200
    exact = kernel.farthest(points, centers, allowed, squares, seen, lambda: False)
    fresh, unseen = np.full(60_000, np.inf), np.zeros(60_000, dtype=np.int64)
    assert exact == kernel.farthest(points, centers, allowed, fresh, unseen)


@pytest.mark.parametrize(
    ("metric", "n", "expected"), [("cosine", 40, 128), ("cosine", 20_000, 52), ("rbf", 20_000, 13)]
)
def test_under_a_time_limit_the_clock_is_looked_at_more_often_for_many_samples(
    metric: str, n: int, expected: int
) -> None:
    points = np.random.default_rng(0).normal(size=(n, 2))
    state = gains.Gains(so.FacilityLocation(points, metric=metric), 3)
    assert state.together(so.Deadline(1.0)) == expected
    assert state.together(so.Deadline(None)) == 1024


def test_auto_takes_the_greedy_kinds() -> None:
    assert so.choose_solver(so.Problem(so.FacilityLocation(POINTS), 3)).name == "lazy-greedy"
    assert so.choose_solver(so.Problem(so.KCenter(POINTS), 3)).name == "farthest-first"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: so.FacilityLocation(), "exactly one of them"),
        (lambda: so.FacilityLocation(POINTS, POINTS), "exactly one of them"),
        (lambda: so.FacilityLocation(POINTS, metric="cosin"), "Did you mean 'cosine'"),
        (lambda: so.FacilityLocation(similarity=POINTS), "similarity must be square"),
        (lambda: so.FacilityLocation([1.0, 2.0]), "features must be two-dimensional"),
        (lambda: so.FacilityLocation([["a"]]), "features must be real numbers"),
        (lambda: so.FacilityLocation([[0.0], [np.nan]]), r"not finite in rows \[1\]"),
        (lambda: so.FacilityLocation([[1e200], [2e200]], metric="dot"), "overflows float64"),
        (lambda: so.FacilityLocation([[1e-200]], metric="dot"), "vanishes in float64"),
        (lambda: so.KCenter(POINTS, metric="rbf"), "unknown metric 'rbf'"),
        (lambda: so.KCenter([[1e200]]), "overflow float64"),
    ],
)
def test_malformed_input_is_refused(make: object, message: str) -> None:
    with pytest.raises(so.ProblemError, match=message):
        make()


def test_malformed_options_are_refused() -> None:
    facility, center = so.Problem(so.FacilityLocation(POINTS), 3), so.Problem(so.KCenter(POINTS), 3)
    with pytest.raises(so.OptionError, match="epsilon must be within"):
        so.solve(facility, "stochastic-greedy", options={"epsilon": 1.0})
    with pytest.raises(so.OptionError, match="start must be 'random' or 'central'"):
        so.solve(center, "farthest-first", options={"start": "middle"})


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_uses_the_serial_kernels() -> None:
    points = np.random.default_rng(0).normal(size=(70_000, 64)).astype(np.float32)
    problem = so.Problem(so.KCenter(points), 2)
    expected = so.solve(problem, "farthest-first", seed=0).indices.tolist()
    assert (
        in_forked_child(
            lambda: so.solve(problem, "farthest-first", seed=0).indices.tolist() == expected
        )
        == "True"
    )
