"""`online-batch` and `prioritized` against slow twins written from the papers' formulas."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import subsetopt as so
from subsetopt.policies import Feedback
from subsetopt.policies.online_batch import OnlineBatch, _distinct_ranks, _ranks
from subsetopt.policies.parts.loss_order import LossOrder, rank_keys
from subsetopt.policies.parts.memory import LossMemory
from subsetopt.policies.parts.saved_state import SavedState
from subsetopt.policies.parts.weighted_pool import WeightedPool
from subsetopt.policies.prioritized import Prioritized

LOSS = st.one_of(st.floats(-50.0, 50.0, width=32), st.sampled_from([0.0, -0.0, 1.0, 0.5]))
IDS = st.integers(0, 30)
EVENTS = st.lists(st.lists(st.tuples(IDS, LOSS), max_size=8), max_size=6)
CANDIDATES = st.lists(IDS, min_size=1, max_size=20, unique=True)
KINDS = ("numpy-float64", "numpy-float32", "torch-float64", "torch-float32")


def as_kind(values: Any, kind: str) -> Any:
    library, _, dtype = kind.partition("-")
    array = np.array(values, dtype=dtype)
    return array if library == "numpy" else pytest.importorskip("torch").from_numpy(array)


def as_ids(values: Any, kind: str) -> Any:
    array = np.array(values, dtype=np.int64)
    return array if kind.startswith("numpy") else pytest.importorskip("torch").from_numpy(array)


def tell(
    policy: OnlineBatch | Prioritized, events: list[list[tuple[int, float]]], kind: str
) -> None:
    for step, event in enumerate(events):
        ids, losses = as_ids([i for i, _ in event], kind), as_kind([v for _, v in event], kind)
        policy.observe(Feedback(step, ids, None, losses, ids=ids))


def remembered(events: list[list[tuple[int, float]]]) -> dict[int, float]:
    return {i: value for event in events for i, value in event}


def tolerance(kind: str) -> float:
    return 1e-9 if kind.endswith("64") else 1e-4


def online_batch_slots(losses: list[float], pressure: float) -> list[float]:
    """Return p of the paper by rank, counted from 1; the i-th is that of the i-th largest."""
    n = len(losses)
    raw = [math.exp(-math.log(pressure) / n) ** rank for rank in range(1, n + 1)]
    return [value / math.fsum(raw) for value in raw]


@pytest.mark.parametrize("kind", KINDS)
@given(events=EVENTS, candidates=CANDIDATES, pressure=st.floats(1.0, 1e4))
def test_online_batch_has_the_papers_probabilities(
    kind: str, events: list[list[tuple[int, float]]], candidates: list[int], pressure: float
) -> None:
    policy = OnlineBatch(pressure=pressure)
    tell(policy, events, kind)
    known = remembered(events)
    losses = [known.get(i, math.inf) for i in candidates]
    ours = policy.probabilities(as_ids(candidates, kind))
    by_rank = online_batch_slots(losses, pressure)
    slots = sorted(losses, reverse=True)
    for value in set(losses):
        # Equal losses share a run of ranks, in an order that the paper leaves open.
        mine = sorted(p for p, loss in zip(ours, losses, strict=True) if loss == value)
        theirs = sorted(p for p, loss in zip(by_rank, slots, strict=True) if loss == value)
        np.testing.assert_allclose(mine, theirs, rtol=tolerance(kind))


@pytest.mark.parametrize("kind", KINDS)
@given(
    events=EVENTS,
    candidates=CANDIDATES,
    alpha=st.floats(0.0, 1.0),
    beta=st.floats(0.0, 1.0),
    steps=st.one_of(st.none(), st.integers(1, 5)),
    before=st.integers(0, 6),
    normalize=st.booleans(),
    data=st.data(),
)
def test_prioritized_has_the_papers_probabilities_and_weights(
    kind: str,
    events: list[list[tuple[int, float]]],
    candidates: list[int],
    alpha: float,
    beta: float,
    steps: int | None,
    before: int,
    normalize: bool,
    data: st.DataObject,
) -> None:
    policy = Prioritized(alpha, beta, steps, epsilon=0.01, normalize=normalize)
    ids = as_ids(candidates, kind)
    rng = np.random.default_rng(0)
    for _ in range(before):
        policy.propose({"ids": ids}, 1, rng)
    tell(policy, events, kind)

    largest, priorities = 1.0, {}
    for event in events:
        for i, value in event:
            priorities[i] = abs(value) + 0.01
            largest = max(largest, priorities[i])
    raw = [priorities.get(i, largest) ** alpha for i in candidates]
    p = [value / math.fsum(raw) for value in raw]
    annealed = beta if steps is None else beta + (1.0 - beta) * min(1.0, before / steps)

    k = data.draw(st.integers(1, len(candidates)))
    problem = policy.propose({"ids": ids}, k, rng)
    objective = problem.objective
    assert isinstance(objective, so.SamplingDesign) and objective.replacement
    if kind.endswith("64"):
        # The losses are the twin's to the last bit; in single precision a tolerance of 1e-4 holds.
        assert policy.largest_priority == pytest.approx(largest, rel=1e-12)
    np.testing.assert_allclose(objective.inclusion, p, rtol=tolerance(kind))
    solution = so.solve(problem, seed=1).require()
    drawn = solution.indices.tolist()
    weights = [(len(candidates) * p[i]) ** -annealed for i in drawn]
    top = max(weights) if normalize else 1.0
    expected = [w / top / k for w in weights]
    np.testing.assert_allclose(policy.weigh(solution), expected, rtol=tolerance(kind))


@given(
    pressure=st.floats(1.0, 1e6),
    final=st.floats(1.0, 1e6),
    steps=st.integers(1, 20),
    done=st.integers(0, 30),
)
def test_pressure_decays_exponentially(
    pressure: float, final: float, steps: int, done: int
) -> None:
    policy = OnlineBatch(pressure, final, steps)
    for _ in range(done):
        policy.propose({"ids": np.arange(3)}, 1, np.random.default_rng(0))
    # The paper's recursion: every step multiplies by the same factor, until the end.
    expected = pressure
    for _ in range(min(done, steps)):
        expected *= math.exp(math.log(final / pressure) / steps)
    assert policy.current_pressure == pytest.approx(expected, rel=1e-9)


@given(
    n=st.integers(1, 40),
    changes=st.lists(st.lists(st.tuples(st.integers(0, 39), LOSS), max_size=6), max_size=6),
    salt=st.integers(0, 2**32 - 1),
)
def test_order_kept_is_the_order_sorted(
    n: int, changes: list[list[tuple[int, float]]], salt: int
) -> None:
    losses = np.full(n, np.nan)
    order = LossOrder(losses.copy(), salt)
    for change in changes:
        new = {i: value for i, value in change if i < n}
        ids = np.array(sorted(new), dtype=np.int64)
        losses[ids] = [new[i] for i in ids.tolist()]
        order.update(ids, losses[ids])
        ranked = order.ids(np.arange(n))
        assert sorted(ranked.tolist()) == list(range(n))
        seen = np.where(np.isnan(losses), np.inf, losses)[ranked]
        assert (seen[:-1] >= seen[1:]).all()
        assert np.array_equal(ranked, LossOrder(losses, salt).ids(np.arange(n)))


def test_few_changes_of_many_ids() -> None:
    rng = np.random.default_rng(3)
    losses = rng.exponential(size=5000)
    losses[::7] = 0.25  # long runs of equal losses
    order = LossOrder(losses.copy(), 11)
    for size in (1, 2, 40, 300):
        ids = rng.choice(5000, size, replace=False)
        losses[ids] = rng.choice([0.25, 0.0, 9.0, 0.5], size)
        order.update(ids, losses[ids])
        assert np.array_equal(
            order.ids(np.arange(5000)), LossOrder(losses, 11).ids(np.arange(5000))
        )


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=30), st.integers(0, 99))
def test_keys_sort_as_losses_do(values: list[float], salt: int) -> None:
    losses = np.array(values)
    keys = rank_keys(losses, np.arange(losses.size), salt)
    for i in range(losses.size):
        for j in range(i):
            assert keys[i] != keys[j]
            if losses[i] != losses[j]:
                assert (keys[i] < keys[j]) == (losses[i] > losses[j])


def test_equal_losses_come_in_an_order_that_the_salt_settles() -> None:
    orders = [LossOrder(np.zeros(50), salt).ids(np.arange(50)).tolist() for salt in (0, 1, 2**31)]
    assert orders[0] != orders[1] != orders[2]
    assert all(order != sorted(order) for order in orders)


@settings(max_examples=50)
@given(
    n=st.integers(1, 700),
    changes=st.lists(st.lists(st.integers(0, 699), max_size=5), max_size=5),
    k=st.integers(1, 9),
    seed=st.integers(0, 999),
)
def test_pool_draws_what_a_long_sum_draws(
    n: int, changes: list[list[int]], k: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.exponential(size=n)
    pool = WeightedPool(weights.copy())
    for change in changes:
        ids = np.array([i for i in change if i < n], dtype=np.int64)
        weights[ids] = rng.exponential(size=ids.size)
        pool.update(ids, weights[ids])
    fresh = WeightedPool(weights)
    assert np.array_equal(pool._sums, fresh._sums)  # to the last bit, or a resumed run differs
    ids, p = pool.draw(k, np.random.default_rng(seed + 1))
    np.testing.assert_allclose(p, weights[ids] / weights.sum(), rtol=1e-12)
    points = (np.arange(k) + np.random.default_rng(seed + 1).random(k)) / k
    ends = np.cumsum(weights) / weights.sum()
    for i, point in zip(ids, points, strict=True):
        start = ends[i] - p[list(ids).index(i)]
        assert start - 1e-12 <= point <= ends[i] + 1e-12


@given(
    n=st.integers(1, 60),
    pressure=st.one_of(st.just(1.0), st.floats(1.0, 1e8)),
    seed=st.integers(0, 999),
)
def test_ranks_invert_the_summed_probabilities(n: int, pressure: float, seed: int) -> None:
    ranks = _ranks(n, 200, pressure, np.random.default_rng(seed))
    uniform = np.random.default_rng(seed).random(200)
    ends = np.cumsum(online_batch_slots([0.0] * n, pressure))
    below = np.concatenate([[0.0], ends])
    assert (below[ranks] <= uniform + 1e-9).all()
    assert (uniform <= ends[ranks] + 1e-9).all()


@given(
    n=st.integers(1, 60),
    pressure=st.floats(1.0, 1e12),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_distinct_ranks_are_distinct(
    n: int, pressure: float, seed: int, data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, n))
    ranks = _distinct_ranks(n, k, pressure, np.random.default_rng(seed))
    assert np.unique(ranks).size == k and ranks.min() >= 0 and ranks.max() < n


@pytest.mark.parametrize(("n", "pressure"), [(8, 4.0), (4, 1e3)])
def test_distinct_ranks_are_successive_draws(n: int, pressure: float) -> None:
    """Both ways of drawing: the first case repeats draws, the second orders random keys."""
    rng, draws = np.random.default_rng(5), 20_000
    counts = np.zeros(n)
    for _ in range(draws):
        counts[_distinct_ranks(n, 2, pressure, rng)] += 1
    p = np.array(online_batch_slots([0.0] * n, pressure))
    second = np.array([sum(p[j] * p[i] / (1 - p[j]) for j in range(n) if j != i) for i in range(n)])
    chance = p + second
    spread = 4.5 * np.sqrt(draws * chance * (1 - chance)) + 1e-9
    assert (np.abs(counts - draws * chance) <= spread).all()


def through_the_solver(policy: Any, n: int) -> Callable[[int, np.random.Generator], Any]:
    """Return a draw by way of a problem, as within a batch."""

    def draw(k: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        solution = so.solve(policy.propose({"ids": np.arange(n)}, k, rng), seed=rng).require()
        return solution.indices, policy.weigh(solution)

    return draw


def over_the_data(policy: Any, n: int) -> Callable[[int, np.random.Generator], Any]:
    return lambda k, rng: policy.draw(n, k, rng)


@pytest.mark.parametrize("way", [through_the_solver, over_the_data])
@pytest.mark.parametrize(
    "make", [lambda: OnlineBatch(pressure=20.0), lambda: Prioritized(alpha=0.8)]
)
def test_frequencies_are_the_probabilities(way: Any, make: Any) -> None:
    n, k, draws = 12, 3, 7_000
    policy = make()
    policy.refresh(np.arange(n - 1), np.arange(n - 1) / 4.0)
    draw, rng = way(policy, n), np.random.default_rng(8)
    counts = np.zeros(n)
    for _ in range(draws):
        np.add.at(counts, draw(k, rng)[0], 1)
    p = policy.probabilities(np.arange(n))
    assert p[n - 2] > 2 * p[0] and p[n - 1] >= p[n - 2]  # hard and unseen ones are preferred
    spread = 4.5 * np.sqrt(draws * k * p * (1 - p))
    assert (np.abs(counts - draws * k * p) <= spread).all()


@pytest.mark.parametrize("way", [through_the_solver, over_the_data])
def test_prioritized_weights_take_the_bias_back(way: Any) -> None:
    n, k, draws = 20, 4, 20_000 // 4
    values = np.random.default_rng(1).normal(size=n)
    policy = Prioritized(alpha=1.0, beta=1.0, normalize=False)
    policy.refresh(np.arange(n), np.random.default_rng(2).exponential(size=n))
    draw, rng = way(policy, n), np.random.default_rng(3)
    estimates = np.empty(draws)
    for t in range(draws):
        ids, weights = draw(k, rng)
        estimates[t] = weights @ values[ids]
    error = estimates.std() / math.sqrt(draws)
    assert abs(estimates.mean() - values.mean()) < 4.5 * error
    biased = abs(policy.probabilities(np.arange(n)) @ values - values.mean())
    assert biased > 4.5 * error  # so that the test could fail


@given(st.lists(st.tuples(st.integers(0, 200), st.floats(-9.0, 9.0)), max_size=30))
def test_memory_is_a_dict(told: list[tuple[int, float]]) -> None:
    memory, twin = LossMemory(), {}
    for i, value in told:
        memory.record(np.array([i]), np.array([value]))
        twin[i] = value
    everything = np.arange(250)
    expected = np.array([twin.get(i, np.nan) for i in range(250)])
    np.testing.assert_array_equal(memory.of(everything), expected)
    np.testing.assert_array_equal(memory.first(250), expected)
    assert memory.size == max(twin, default=-1) + 1
    again = LossMemory.of_state(SavedState("the memory", memory.state(), memory.state()))
    np.testing.assert_array_equal(again.of(everything), expected)
    again.record(np.array([0]), np.array([1.0]))  # a loaded memory can be written to
