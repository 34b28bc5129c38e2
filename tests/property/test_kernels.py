"""The kernels against their slow twins."""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from subsetopt.kernels import reference
from subsetopt.kernels.limits import Groups, Limits
from subsetopt.kernels.matching.branch import run_length
from subsetopt.kernels.matching.draws import stratified_start, uniform_start
from subsetopt.kernels.matching.interval import branching_distance, interval_distance
from subsetopt.kernels.matching.lattice import lattice_distance
from subsetopt.kernels.matching.nearest import nearest_completion
from subsetopt.kernels.matching.quotas import SPAN, quota_distance, quota_span
from subsetopt.kernels.matching.radix_sort import ascending
from subsetopt.kernels.matching.swap import best_single_swap
from subsetopt.kernels.matching.windows import Scratch, sort
from subsetopt.kernels.random_ import next_below

FLOATS = st.floats(-50.0, 50.0, width=32)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
VALUES = hnp.arrays(np.float64, st.integers(1, 12), elements=FLOATS).map(np.sort)


def by_lattice(values: np.ndarray, size: int, target: float) -> float:
    """Return the bound of the lattice."""
    scratch = Scratch.of(values.size)
    return float(lattice_distance(values, values.view(np.int64), size, target, 0.0, scratch))


def by_branching(values: np.ndarray, size: int, target: float) -> float:
    """Return the bound of the intervals."""
    return float(branching_distance(values, size, target, Scratch.of(values.size)))


@given(values=VALUES, data=st.data())
def test_best_single_swap_is_the_best_of_all_pairs(values: np.ndarray, data: st.DataObject) -> None:
    mark = data.draw(hnp.arrays(np.uint8, values.size, elements=st.integers(0, 1)))
    residual = data.draw(st.floats(-100.0, 100.0))
    i, j, _ = best_single_swap(values, mark, residual, 0.0)
    a, b = reference.best_single_swap(values, mark, residual)
    assert (i < 0) == (a < 0)
    if i >= 0:
        assert mark[i] == 1 and mark[j] == 0
        ours = abs(residual - (values[j] - values[i]))
        best = abs(residual - (values[b] - values[a]))
        assert ours == pytest.approx(best, abs=1e-12)


@given(numbers=hnp.arrays(np.float64, st.integers(0, 200), elements=FINITE), data=st.data())
def test_a_window_is_sorted_and_the_rest_left_as_it_is(numbers, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, numbers.size))
    ours = numbers.copy()
    sort(ours, count, Scratch.of(0).windows)
    assert np.array_equal(ours[:count], np.sort(numbers[:count]))
    assert np.array_equal(ours[count:], numbers[count:])


@pytest.mark.parametrize("period", [1, 2, 3, 1000, 200_000])
def test_many_numbers_are_sorted_in_whatever_order_they_come(period: int) -> None:
    numbers = (np.arange(200_000) % period).astype(np.float64)
    for ours in (numbers.copy(), numbers[::-1].copy(), np.random.default_rng(0).permuted(numbers)):
        sort(ours, ours.size, Scratch.of(0).windows)
        assert np.array_equal(ours, np.sort(numbers))


@given(values=VALUES, data=st.data())
def test_nearest_completion_is_the_naive_loop(values: np.ndarray, data: st.DataObject) -> None:
    size = data.draw(st.integers(0, values.size))
    target = data.draw(st.floats(-100.0, 100.0))
    ours = np.empty(size, dtype=np.int64)
    nearest_completion(values, target, ours)
    naive = reference.nearest_completion(values, size, target)
    assert np.unique(ours).size == size
    # Equal values may be taken in another order; the values taken are the same.
    assert np.allclose(values[ours], values[naive], atol=1e-9)


@given(
    ints=hnp.arrays(np.int64, st.integers(1, 8), elements=st.integers(-40, 40)),
    shift=st.integers(-3, 3),
    data=st.data(),
)
def test_lattice_distance_is_exact_on_binary_fractions(
    ints: np.ndarray, shift: int, data: st.DataObject
) -> None:
    values = np.sort(ints * 2.0**shift)
    size = data.draw(st.integers(1, values.size))
    target = data.draw(st.floats(-200.0, 200.0, width=32))
    ours = by_lattice(values, size, target)
    exact = float(reference.lattice_distance(values, size, target))
    if np.any(values):
        assert ours <= exact + 1e-12
        assert ours == pytest.approx(exact, abs=1e-9 * (1.0 + abs(target)))
    assert ours <= reference.least_distance(values, size, target) + 1e-12


@given(
    cents=hnp.arrays(np.int64, st.integers(2, 9), elements=st.integers(-500, 500)),
    dtype=st.sampled_from([np.float32, np.float64]),
    data=st.data(),
)
@settings(max_examples=200)
def test_lattice_distance_never_exceeds_the_optimum_on_decimals(cents, dtype, data) -> None:
    values = np.sort((cents / 100).astype(dtype).astype(np.float64))
    size = data.draw(st.integers(1, values.size))
    target = size * values.mean() + data.draw(st.floats(-0.02, 0.02))
    ours = by_lattice(values, size, target)
    assert ours <= reference.least_distance(values, size, target) + 1e-15


@given(m=st.integers(1, 40), seed=st.integers(0, 2**63), data=st.data())
def test_a_uniform_start_is_a_subset(m: int, seed: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(0, m))
    sel, out = np.empty(size, np.int64), np.empty(m - size, np.int64)
    mark = np.full(m, 7, dtype=np.uint8)
    uniform_start(size, m, np.array([seed], dtype=np.uint64), sel, out, mark)
    assert sorted([*sel, *out]) == list(range(m))
    assert mark[sel].all() and not mark[out].any()


def test_a_uniform_start_chooses_every_position_equally_often() -> None:
    state = np.array([7], dtype=np.uint64)
    sel, out, mark = np.empty(3, np.int64), np.empty(7, np.int64), np.empty(10, np.uint8)
    counts = np.zeros(10)
    for _ in range(20_000):
        uniform_start(3, 10, state, sel, out, mark)
        counts[sel] += 1
    assert (np.abs(counts - 6000) < 4.5 * np.sqrt(20_000 * 0.3 * 0.7)).all()


@given(values=VALUES, data=st.data())
@settings(max_examples=300)
def test_the_branching_interval_is_a_bound_and_exact_when_it_proves(values, data) -> None:
    if data.draw(st.booleans()):
        values = np.sort(np.append(values, 1000.0))
    size = data.draw(st.integers(1, values.size))
    target = size * values.mean() + data.draw(st.floats(-5.0, 5.0))
    least = reference.least_distance(values, size, target)
    plain = interval_distance(values, size, target)
    branched = by_branching(values, size, target)
    assert plain <= least + 1e-9
    assert branched <= least + 1e-9
    assert branched == 0.0 or branched == pytest.approx(least, abs=1e-6)


def test_an_outlier_is_proved_by_a_few_nodes() -> None:
    values = np.sort(np.append(np.random.default_rng(0).exponential(size=127), 1e6))
    # The outlier cannot be made up for, and without it the largest others fall short.
    expected = 13 * values.mean() - values[114:127].sum()
    assert by_branching(values, 13, 13 * values.mean()) == pytest.approx(expected, rel=1e-9)
    assert interval_distance(values, 13, 13 * values.mean()) == 0.0


class _Grouped(NamedTuple):
    """Values in groups: what the kernels of quotas take, and what their twins do."""

    values: np.ndarray
    codes: np.ndarray
    low: np.ndarray
    high: np.ndarray
    size: int

    @property
    def limits(self) -> Limits:
        return Limits(self.codes, self.low, self.high, np.empty(0), np.inf)

    @property
    def groups(self) -> Groups:
        members = np.argsort(self.codes, kind="stable")
        begin = np.searchsorted(self.codes[members], np.arange(self.low.size + 1))
        return Groups(members, begin, np.concatenate([[0.0], np.cumsum(self.values[members])]))


@st.composite
def grouped(draw: st.DrawFn, values: st.SearchStrategy[np.ndarray] = VALUES) -> _Grouped:
    """Values whose quotas leave at least one subset."""
    found = draw(values)
    if draw(st.booleans()):
        found = np.sort(np.append(found, 1000.0))
    size, groups = draw(st.integers(1, found.size)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    codes = rng.integers(0, groups, size=found.size)
    witness = np.bincount(codes[rng.choice(found.size, size, replace=False)], minlength=groups)
    low = np.maximum(witness - rng.integers(0, 2, size=groups), 0)
    return _Grouped(found, codes, low, witness + rng.integers(0, 2, size=groups), size)


@given(case=grouped(), data=st.data())
@settings(max_examples=300)
def test_the_quota_interval_is_a_bound_and_exact_when_it_proves(case, data) -> None:
    values, codes, low, high, size = case
    target = size * values.mean() + data.draw(st.floats(-5.0, 5.0))
    least = np.inf
    for chosen in combinations(range(values.size), size):
        count = np.bincount(codes[list(chosen)], minlength=low.size)
        if (low <= count).all() and (count <= high).all():
            least = min(least, abs(values[list(chosen)].sum() - target))
    found = quota_distance(values, case.limits, case.groups, size, target)
    assert found <= least + 1e-9
    assert found == 0.0 or found == pytest.approx(least, abs=1e-6)


# Long enough that positions are searched for, and short enough that they are passed over.
LONGER = hnp.arrays(np.float64, st.integers(1, 200), elements=FLOATS).map(np.sort)


@given(case=grouped(LONGER), data=st.data())
@settings(max_examples=300)
def test_the_span_of_a_window_is_that_of_a_greedy_pass(case, data) -> None:
    values, codes, low, high, _ = case
    a = data.draw(st.integers(0, values.size))
    b = data.draw(st.integers(a, values.size))
    size = data.draw(st.integers(0, values.size))
    count = np.array([data.draw(st.integers(0, int(top))) for top in high], dtype=np.int64)
    spans = np.empty(low.size, dtype=SPAN)
    *ends, possible = quota_span(a, b, size, case.limits, case.groups, count, spans)
    missing = np.maximum(low - count, 0)
    naive = reference.quota_span(values[a:b], codes[a:b], missing, high - count, size)
    assert possible == (naive is not None)
    if naive is not None:
        assert ends == pytest.approx(naive, abs=1e-6)


def test_lattice_distance_proves_half_a_cent() -> None:
    values = np.sort(np.round(np.random.default_rng(0).exponential(size=128), 2))
    bound = by_lattice(values, 13, 10.005)
    assert bound == pytest.approx(0.005, abs=1e-9)


@given(m=st.integers(1, 40), seed=st.integers(0, 2**63), data=st.data())
def test_a_stratified_start_has_one_position_in_every_stratum(
    m: int, seed: int, data: st.DataObject
) -> None:
    size = data.draw(st.integers(1, m))
    sel, out = np.empty(size, np.int64), np.empty(m - size, np.int64)
    mark = np.full(m, 7, dtype=np.uint8)
    stratified_start(size, m, np.array([seed], dtype=np.uint64), sel, out, mark)
    edges = [s * m // size for s in range(size + 1)]
    assert all(edges[s] <= sel[s] < edges[s + 1] for s in range(size))
    assert sorted([*sel, *out]) == list(range(m))
    assert mark[sel].all() and not mark[out].any()


@given(values=hnp.arrays(np.float32, st.integers(0, 60), elements=FINITE))
def test_radix_sorting_is_a_stable_sort(values: np.ndarray) -> None:
    ordered, order = ascending(values)
    assert ordered.dtype == np.float64 and order.dtype == np.int64
    assert np.array_equal(ordered, np.sort(values))
    assert np.array_equal(values[order], ordered)
    # -0.0 comes before 0.0, otherwise equal values stay in order.
    same = (ordered[1:] == ordered[:-1]) & (np.diff(np.signbit(ordered).astype(int)) == 0)
    assert (np.diff(order)[same] > 0).all()


def test_random_integers_are_uniform() -> None:
    state = np.array([12345], dtype=np.uint64)
    draws = np.array([next_below(state, 7) for _ in range(20_000)])
    counts = np.bincount(draws, minlength=7)
    expected = 20_000 / 7
    assert (np.abs(counts - expected) < 4.5 * np.sqrt(expected)).all()


@given(values=hnp.arrays(np.int64, st.integers(1, 60), elements=st.integers(0, 3)), data=st.data())
def test_runs_of_equal_values_end_where_a_loop_ends_them(values, data) -> None:
    ordered = np.sort(values).astype(float)
    a = data.draw(st.integers(0, ordered.size - 1))
    b = data.draw(st.integers(a + 1, ordered.size))
    window = ordered[a:b]
    assert run_length(ordered, a, 1, b - a) == int((window == window[0]).sum())
    assert run_length(ordered, b - 1, -1, b - a) == int((window == window[-1]).sum())
