"""Sampling designs: probabilities, sizes, expectations and balance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import designs

import subsetopt as so
from subsetopt.kernels import reference
from subsetopt.kernels.designs import cube as kernel
from subsetopt.kernels.random_ import next_bits
from subsetopt.solvers import designs as solvers
from subsetopt.solvers.base import SolveContext
from subsetopt.solvers.designs import Cube, Multinomial, Systematic

DRAWS = 20_000
STANDARD_ERRORS = 4.5
SCORES = hnp.arrays(
    np.float64,
    st.integers(0, 30),
    elements=st.one_of(
        st.just(0.0), st.floats(0.0, 10.0), st.floats(0.0, 1e-300), st.floats(0.0, 1e300)
    ),
)


@given(scores=SCORES, data=st.data())
def test_probabilities_sum_to_k_and_follow_the_scores(
    scores: np.ndarray, data: st.DataObject
) -> None:
    n = scores.size
    k = data.draw(st.integers(0, n))
    pi = so.inclusion_probabilities(scores, k)
    assert pi.shape == (n,)
    assert ((pi >= 0.0) & (pi <= 1.0)).all()
    assert pi.sum() == pytest.approx(k, abs=1e-12 * (n + 1))
    order = np.argsort(scores, kind="stable")
    assert (np.diff(pi[order]) >= -1e-15).all()
    if k < np.count_nonzero(scores):
        open_ = (pi < 1.0) & (np.minimum(pi, scores) > 1e-290)
        if open_.any():  # proportional where nothing is capped
            assert np.ptp(pi[open_] / scores[open_] * scores[open_].max()) <= 1e-9
        assert (pi[scores == 0.0] == 0.0).all()
    elif n > np.count_nonzero(scores):
        assert (pi[scores > 0.0] == 1.0).all()
        assert np.ptp(pi[scores == 0.0]) == 0.0
    assert so.Problem(so.SamplingDesign(pi), k).k == k


@given(
    scores=hnp.arrays(np.float64, st.integers(1, 30), elements=st.just(0.0) | st.floats(1e-6, 1e6)),
    data=st.data(),
)
def test_capping_at_once_is_capping_by_iterating(scores: np.ndarray, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, int(np.count_nonzero(scores))))
    capped = np.zeros(scores.size, dtype=bool)
    pi = np.zeros(scores.size)
    for _ in range(scores.size + 1):
        rest = scores[~capped].sum()
        pi = np.where(capped, 1.0, scores / rest * (k - capped.sum()) if rest else 0.0)
        if not (pi > 1.0).any():
            break
        capped |= pi >= 1.0
    assert np.allclose(so.inclusion_probabilities(scores, k), pi, rtol=1e-9, atol=1e-12)


@given(problem=designs(), seed=st.integers(0, 99))
def test_every_design_gives_a_verified_draw(problem: so.Problem, seed: int) -> None:
    for name in so.available_solvers(problem):
        answer = so.solve(problem, name, seed=seed)
        assert answer.has_solution
        assert so.verify(problem, answer)
        assert answer.indices.size == problem.k


def _instance(n: int, k: int, p: int, seed: int) -> tuple[np.ndarray, np.ndarray, so.Problem]:
    """Return losses, inclusion probabilities that go with them, and a problem balanced on both."""
    rng = np.random.default_rng(seed)
    losses = rng.exponential(size=n)
    scores = losses * np.exp(0.3 * rng.normal(size=n))
    pi = so.inclusion_probabilities(0.8 * scores / scores.mean() + 0.2, k)
    balance = np.column_stack([losses] + [rng.normal(size=n) for _ in range(p - 1)])
    return losses, pi, so.Problem(so.SamplingDesign(pi, balance), k)


def _chances(counts: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return how many standard errors each inclusion frequency is off."""
    return np.abs(counts / DRAWS - expected) / np.sqrt(expected * (1 - expected) / DRAWS)


@pytest.mark.parametrize(
    "solver", [Cube(), Cube(order="random"), Systematic(), Systematic(order="given")], ids=repr
)
def test_frequencies_and_expectations_are_the_prescribed_ones(solver: Cube | Systematic) -> None:
    n, k = 64, 13
    losses = np.random.default_rng(3).exponential(size=n)
    pi = so.inclusion_probabilities(losses**2 + 0.052, k)
    assert 0.005 < pi.min() < 0.006 and (pi == 1.0).any()
    problem = so.Problem(so.SamplingDesign(pi, np.column_stack([losses, np.cos(np.arange(n))])), k)
    counts, means = np.zeros(n), np.empty(DRAWS)
    for i in range(DRAWS):
        raw = solver.solve(problem, SolveContext(entropy=i))
        assert raw.indices is not None and raw.weights is not None
        assert raw.indices.size == k
        counts[raw.indices] += 1
        means[i] = raw.weights @ losses[raw.indices]
    open_ = pi < 1.0
    assert (counts[~open_] == DRAWS).all()
    assert _chances(counts[open_], pi[open_]).max() < STANDARD_ERRORS
    error = means.std() / np.sqrt(DRAWS)
    assert abs(means.mean() - losses.mean()) < STANDARD_ERRORS * error


def test_draws_with_replacement_have_the_prescribed_expectations() -> None:
    n, k = 40, 9
    losses, pi, _ = _instance(n, k, 1, 5)
    problem = so.Problem(so.SamplingDesign(pi / k, replacement=True), k)
    counts, means = np.zeros(n), np.empty(DRAWS)
    for i in range(DRAWS):
        raw = Multinomial().solve(problem, SolveContext(entropy=i))
        assert raw.indices is not None and raw.weights is not None
        np.add.at(counts, raw.indices, 1)
        means[i] = raw.weights @ losses[raw.indices]
    share = pi / k
    errors = np.sqrt(share * (1 - share) / (DRAWS * k))
    assert (np.abs(counts / (DRAWS * k) - share) < STANDARD_ERRORS * errors).all()
    error = means.std() / np.sqrt(DRAWS)
    assert abs(means.mean() - losses.mean()) < STANDARD_ERRORS * error


@pytest.mark.parametrize("limit", [0, 7, 25])
def test_a_flight_cut_short_keeps_the_probabilities(limit: int) -> None:
    _, pi, problem = _instance(40, 9, 2, 8)
    counts = np.zeros(40)
    for i in range(DRAWS):
        raw = Cube().solve(problem, SolveContext(entropy=i, max_iterations=limit))
        assert raw.indices is not None and raw.stop_reason is so.StopReason.ITERATION
        counts[raw.indices] += 1
    open_ = pi < 1.0
    assert _chances(counts[open_], pi[open_]).max() < STANDARD_ERRORS


@given(problem=designs(), seed=st.integers(0, 99), limit=st.sampled_from([None, 0, 3, 10]))
def test_a_draw_at_once_is_that_of_a_flight_in_chunks(
    problem: so.Problem, seed: int, limit: int | None
) -> None:
    if problem.objective.replacement:
        return
    context = SolveContext(entropy=seed, max_iterations=limit)
    for solver in (Cube(), Cube(order="random")):
        with pytest.MonkeyPatch.context() as patch:
            once = solver.solve(problem, context)
            patch.setattr(solvers, "_chunk", lambda rows: 1)
            chunks = solver.solve(problem, context)
        assert np.array_equal(once.indices, chunks.indices)
        assert np.array_equal(once.weights, chunks.weights)
        assert (once.stop_reason, once.iterations) == (chunks.stop_reason, chunks.iterations)


def _columns(balance: np.ndarray, pi: np.ndarray) -> np.ndarray:
    n, p = balance.shape
    columns, distances, rows = np.ones((n, 1 + p)), np.zeros(n), 1
    for j in range(p):
        rows += kernel.add_column(balance, j, np.arange(n), pi, columns, rows, distances)
    assert np.allclose(distances, np.square(columns[:, 1:rows]).sum(axis=1))
    return columns[:, :rows].copy()


def _state(columns: np.ndarray, pi: np.ndarray) -> tuple[np.ndarray, ...]:
    n, rows = columns.shape
    ints = np.zeros(kernel.N_INTS, dtype=np.int64)
    ints[kernel.I_QUEUED] = n
    inverse, basis = np.empty((rows, rows)), np.empty(rows, dtype=np.int64)
    kernel.restart(rows, inverse, basis, ints)
    return inverse, basis, np.empty(rows), np.empty(rows), np.empty(rows), ints


def _uniform(rng: np.ndarray) -> float:
    return (int(next_bits(rng)) >> 11) * 2.0**-53


@given(
    n=st.integers(1, 25),
    p=st.integers(0, 4),
    kind=st.sampled_from(["normal", "integer", "constant", "copied", "heavy"]),
    seed=st.integers(0, 1000),
)
def test_every_move_keeps_every_total_and_is_that_of_the_twin(
    n: int, p: int, kind: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p))
    if kind == "integer":
        x = np.round(2 * x)
    elif kind == "constant":
        x[:] = 3.0
    elif kind == "copied" and p > 1:
        x[:, -1] = x[:, 0] - 2.0
    elif kind == "heavy":
        x = np.exp(3 * x)
    pi = rng.uniform(0.01, 0.99, size=n)
    columns = _columns(x, pi)
    queue = rng.permutation(n)
    state = np.array([seed], dtype=np.uint64)
    twin = [pi, *reference.flight(columns, pi, queue, lambda: _uniform(state))]
    ours, arrays = pi.copy(), _state(columns, pi)
    rows, mine = columns.shape[1], queue.copy()
    rng_state = np.array([seed], dtype=np.uint64)
    moves = [pi]
    while arrays[-1][kernel.I_QUEUED]:
        kernel.fly(columns, ours, rows, (mine, *arrays), rng_state, 1)
        if not np.array_equal(ours, moves[-1]):
            moves.append(ours.copy())
    totals = pi @ columns
    slack = 1e-9 * (pi @ np.abs(columns))
    for move in (*moves, *twin):
        assert (np.abs(move @ columns - totals) <= slack).all()
        assert ((move >= 0.0) & (move <= 1.0)).all()
    assert len(moves) == len(twin)
    assert np.abs(moves[-1] - twin[-1]).max() < 1e-6
    assert np.count_nonzero((ours > 0.0) & (ours < 1.0)) <= rows


@pytest.mark.parametrize(("n", "k", "limit"), [(128, 13, 0.03), (1024, 102, 0.005)])
def test_balance_holds_as_far_as_the_landing_allows(n: int, k: int, limit: float) -> None:
    deviations, uniform = [], []
    for seed in range(40):
        losses, _, problem = _instance(n, k, 2, seed)
        for draw in range(5):
            answer = so.solve(problem, "cube", seed=(seed, draw))
            mean = answer.weights @ losses[answer.indices]
            deviations.append(abs(mean / losses.mean() - 1.0))
            chosen = np.random.default_rng(seed + 1000 * draw).choice(n, k, replace=False)
            uniform.append(abs(losses[chosen].mean() / losses.mean() - 1.0))
    assert np.median(deviations) < limit
    assert np.median(uniform) > 4 * np.median(deviations)


def test_what_can_be_balanced_exactly_is() -> None:
    # Group indicators with whole totals: a stratified sample.
    groups = np.arange(60) % 3
    pi = np.full(60, 0.2)
    problem = so.Problem(so.SamplingDesign(pi, np.eye(3)[groups]), 12)
    for seed in range(50):
        answer = so.solve(problem, "cube", seed=seed)
        assert np.bincount(groups[answer.indices]).tolist() == [4, 4, 4]
        assert answer.objective < 1e-12
