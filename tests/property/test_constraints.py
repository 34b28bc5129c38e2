"""Feasibility is decided exactly before any solver starts: against brute force."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import problems

import subsetopt as so
from subsetopt.constraints.ranks import smallest, stable_order
from subsetopt.constraints.subsets import random_subset
from subsetopt.instances import FAMILIES, losses, planted
from subsetopt.solvers.matching.pool import Pool
from subsetopt.solvers.matching.pool import _order as pool_order

# Few values, so that ties are the rule.
tied = st.lists(st.sampled_from([-1.0, -0.0, 0.0, 0.5, 2.0]), max_size=30).map(np.array)


def _feasible(problem: so.Problem, chosen: tuple[int, ...]) -> bool:
    """Check the raw fields of the problem, one by one."""
    indices = list(chosen)
    if problem.include is not None and not set(problem.include.tolist()) <= set(chosen):
        return False
    if problem.exclude is not None and set(problem.exclude.tolist()) & set(chosen):
        return False
    for label, (low, high) in (problem.quotas or {}).items():
        if not low <= sum(problem.groups[i] == label for i in indices) <= high:
            return False
    if problem.costs is not None:
        total = sum((Fraction(repr(float(problem.costs[i]))) for i in indices), Fraction(0))
        return total <= Fraction(repr(problem.capacity)) * (1 + Fraction(1, 10**12))
    return True


def _all_feasible(problem: so.Problem) -> list[tuple[int, ...]]:
    sizes = range(problem.k + 1) if problem.cardinality == "at_most" else [problem.k]
    return [c for s in sizes for c in combinations(range(problem.n), s) if _feasible(problem, c)]


@given(problem=problems(so.MeanMatching, max_size=7, constrained=True))
@settings(max_examples=300)
def test_infeasibility_is_told_exactly(problem: so.Problem) -> None:
    why = problem.constraints.infeasibility()
    assert (why is None) == bool(_all_feasible(problem)), why


@given(problem=problems(so.TopScores, max_size=7, constrained=True), data=st.data())
@settings(max_examples=200)
def test_the_greedy_is_exact_over_sizes_and_quotas(
    problem: so.Problem, data: st.DataObject
) -> None:
    free = so.Problem(
        problem.objective, problem.k, problem.cardinality, problem.include, problem.exclude,
        problem.groups, problem.quotas,
    )  # fmt: skip
    keys = np.array(
        data.draw(st.lists(st.integers(-9, 9), min_size=free.n, max_size=free.n)), float
    )
    chosen = free.constraints.greedy_by(keys)
    every = _all_feasible(free)
    assert isinstance(chosen, str) == (not every)
    if every:
        assert tuple(chosen.tolist()) in every
        assert keys[chosen].sum() == min(keys[list(c)].sum() for c in every)


@given(
    seed=st.integers(0, 2**32),
    k=st.integers(0, 60),
    levels=st.sampled_from([1, 5, 10**9]),
    cardinality=st.sampled_from(["exact", "at_most"]),
    data=st.data(),
)
def test_of_many_candidates_the_greedy_takes_what_a_plain_pass_over_all_takes(
    seed: int, k: int, levels: int, cardinality: str, data: st.DataObject
) -> None:
    rng, n = np.random.default_rng(seed), 6000
    groups, keys = rng.integers(0, 3, n), rng.integers(-(levels // 2), levels, n).astype(float)
    low = data.draw(st.tuples(st.integers(0, k // 2), st.integers(0, k - k // 2)))
    high = [least + data.draw(st.integers(0, k)) for least in low]
    quotas = {g: (low[g], high[g]) for g in range(2)}
    problem = so.Problem(so.TopScores(keys), k, cardinality, groups=groups, quotas=quotas)
    counts, chosen, spare = np.zeros(3, dtype=int), [], k - sum(low)
    for i in np.argsort(keys, kind="stable"):
        g = groups[i]
        if counts[g] >= (*low, 0)[g]:
            if counts[g] >= (*high, n)[g] or not spare or (cardinality != "exact" and keys[i] >= 0):
                continue
            spare -= 1
        counts[g] += 1
        chosen.append(int(i))
    assert problem.constraints.best_by(keys).tolist() == sorted(chosen)


@given(problem=problems(so.MeanMatching, max_size=7, constrained=True))
@settings(max_examples=200)
def test_what_remains_after_forced_items_allows_the_same_subsets(problem: so.Problem) -> None:
    every = set(_all_feasible(problem))
    assume(every)
    remaining = problem.constraints.remaining
    items = remaining.items
    codes, low, high, costs, capacity = remaining.limits(items)
    sizes = range(remaining.size + 1) if remaining.at_most else [remaining.size]
    allowed = set()
    for size in sizes:
        for positions in combinations(range(items.size), size):
            at = list(positions)
            counts = np.bincount(codes[at], minlength=low.size) if codes.size else low
            fits = (low <= counts).all() and (counts <= high).all()
            if fits and (not costs.size or costs[at].sum() <= capacity):
                allowed.add(tuple(sorted([*remaining.forced.tolist(), *items[at].tolist()])))
    assert allowed == every


@given(problem=problems(so.MeanMatching, max_size=7, constrained=True), data=st.data())
def test_positions_of_a_pool_stand_for_subsets(problem: so.Problem, data: st.DataObject) -> None:
    every = _all_feasible(problem)
    assume(every)
    pool, chosen = Pool.of(problem), data.draw(st.sampled_from(every))
    positions = pool.positions(np.array(chosen, dtype=np.int64), problem.n)
    assert positions.size == pool.size == np.unique(positions).size
    assert tuple(np.sort(pool.indices(positions)).tolist()) == chosen


@given(problem=problems(so.MeanMatching, max_size=8, constrained=True), seed=st.integers(0, 99))
def test_random_subsets_are_feasible(problem: so.Problem, seed: int) -> None:
    if problem.constraints.infeasibility() is None:
        chosen = random_subset(problem.constraints, np.random.default_rng(seed))
        assert _feasible(problem, tuple(chosen.tolist()))
        assert chosen.size == problem.k or problem.cardinality == "at_most"


@given(n=st.integers(2, 60), seed=st.integers(0, 50), data=st.data())
def test_planted_instances_have_optimum_zero(n: int, seed: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n - 1))
    values, subset = planted(n, k, seed)
    assert subset.size == k
    assert values.mean() - values[subset].mean() == 0.0


@given(family=st.sampled_from(sorted(FAMILIES)), n=st.integers(2, 40), seed=st.integers(0, 9))
def test_families_are_seeded_and_finite(family: str, n: int, seed: int) -> None:
    values = losses(family, n, max(1, n // 10), seed)
    assert values.shape == (n,) and np.isfinite(values).all()
    assert np.array_equal(values, losses(family, n, max(1, n // 10), seed))


@given(keys=tied.map(lambda a: a.astype(float)), count=st.integers(-1, 31))
def test_the_smallest_keys_are_those_of_a_stable_sort(keys: np.ndarray, count: int) -> None:
    order = np.argsort(keys, kind="stable")
    assert np.array_equal(stable_order(keys), order)
    assert np.array_equal(np.sort(smallest(keys, count)), np.sort(order[: max(0, count)]))


@given(data=st.data(), n=st.integers(0, 30), keys=st.integers(0, 2))
def test_pools_are_sorted_by_every_key(data: st.DataObject, n: int, keys: int) -> None:
    def column() -> np.ndarray:
        return np.array(
            data.draw(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=n, max_size=n)), float
        )

    values, further = column(), [column() for _ in range(keys)]
    assert np.array_equal(pool_order(values, further), np.lexsort((*further, values)))


def test_a_late_start_is_the_cheapest_subset() -> None:
    problem = so.Problem(
        so.MeanMatching(np.arange(1.0, 7.0)), 3, costs=np.arange(6.0), capacity=4.0
    )
    late, rng = so.Deadline(0.0), np.random.default_rng(0)
    starts = {tuple(random_subset(problem.constraints, rng, late).tolist()) for _ in range(50)}
    assert (0, 1, 2) in starts
    for start in starts:
        assert sum(start) <= 4.0
