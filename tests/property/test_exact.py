"""The exact solver: its kernels against brute force, and its bound at any moment it is stopped."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import losses, problems

import subsetopt as so
from subsetopt.instances import FAMILIES
from subsetopt.instances import losses as family_losses
from subsetopt.kernels.matching.meet_in_the_middle import list_sums
from subsetopt.kernels.matching.reachable import reachable_table, walk_back
from subsetopt.solvers import swap
from subsetopt.solvers.matching.exact import unrank
from subsetopt.solvers.matching.lattice import LatticeForm


@given(values=hnp.arrays(np.float64, st.integers(0, 9), elements=st.floats(-9, 9)), data=st.data())
def test_sums_are_listed_in_the_order_of_unrank(values: np.ndarray, data: st.DataObject) -> None:
    size = data.draw(st.integers(0, values.size))
    every = list(combinations(range(values.size), size))
    sums = list_sums(values, size, len(every))
    assert np.allclose(sums, [values[list(c)].sum() for c in every])
    index = data.draw(st.integers(0, len(every) - 1))
    assert tuple(unrank(index, values.size, size)) == every[index]


@given(items=hnp.arrays(np.int64, st.integers(1, 9), elements=st.integers(0, 90)), data=st.data())
def test_reachable_sums_are_those_of_all_subsets(items: np.ndarray, data: st.DataObject) -> None:
    items = np.sort(items)
    size = data.draw(st.integers(1, items.size))
    words = int(items[-size:].sum()) // 64 + 1
    table = np.zeros((items.size + 1, size + 1, words), dtype=np.uint64)
    reachable_table(items, size, words, table)
    bits = np.unpackbits(table[-1, size].view(np.uint8), bitorder="little")
    every = {int(items[list(c)].sum()) for c in combinations(range(items.size), size)}
    assert set(np.flatnonzero(bits).tolist()) == every
    total = data.draw(st.sampled_from(sorted(every)))
    chosen = walk_back(items, size, total, table)
    assert np.unique(chosen).size == size
    assert items[chosen].sum() == total


@given(values=losses(1, 9))
def test_the_lattice_form_reproduces_the_values(values: np.ndarray) -> None:
    ordered = np.sort(values.astype(np.float64))
    form = LatticeForm.of(ordered)
    if form is not None:
        assert form.units[0] == 0 and (np.diff(form.units) >= 0).all()
        rebuilt = form.base + form.step * form.units + form.errors
        assert np.allclose(rebuilt, ordered, rtol=1e-15, atol=1e-15 * np.abs(ordered).max())


@given(problem=problems(so.MeanMatching, constrained=True), limit=st.integers(0, 3000))
@settings(max_examples=300)
def test_the_bound_holds_under_constraints(problem: so.Problem, limit: int) -> None:
    oracle = so.solve(problem, "exhaustive")
    answer = so.solve(problem, "exact", max_iterations=limit, seed=0)
    if oracle.has_solution:
        assert answer.bound <= oracle.objective + problem.objective.tolerance


def test_open_nodes_leave_a_bound_under_quotas() -> None:
    """Losses with a heavy tail: the bound is above 0 before the proof is complete."""
    rng = np.random.default_rng(0)
    groups = np.arange(16) % 2
    risen = 0
    for seed in range(20):
        values = np.sort(rng.exponential(size=16) ** 3)
        problem = so.Problem(
            so.MeanMatching(values), 4, groups=groups, quotas={0: (1, 2), 1: (2, 3)}
        )
        whole = so.solve(problem, "exact", max_iterations=10**7)
        assert whole.status is so.Status.OPTIMAL
        for share in (0.5, 0.9):
            work = int(share * whole.iterations)
            stopped = so.solve(problem, "exact", max_iterations=work, seed=seed)
            assert stopped.bound <= whole.objective + problem.objective.tolerance
            risen += stopped.status is so.Status.FEASIBLE and stopped.bound > 0.0
    assert risen > 0


@given(problem=problems(so.MeanMatching), limit=st.integers(0, 400))
@settings(max_examples=200)
def test_the_bound_holds_at_any_moment_it_is_stopped(problem: so.Problem, limit: int) -> None:
    oracle = so.solve(problem, "exhaustive")
    answer = so.solve(problem, "exact", max_iterations=limit, seed=0)
    if oracle.has_solution:
        tolerance = problem.objective.tolerance
        assert answer.has_solution
        assert answer.bound <= oracle.objective + tolerance
        assert answer.objective >= oracle.objective - 1e-12 * abs(oracle.objective)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("seed", range(4))
def test_exact_equals_exhaustive_on_every_family(family: str, seed: int) -> None:
    n = 12 + seed * 2
    for k in (1, 3, n // 2, n - 2):
        problem = so.Problem(so.MeanMatching(family_losses(family, n, k, seed)), k)
        answer, oracle = so.solve(problem, "exact"), so.solve(problem, "exhaustive")
        assert answer.status is so.Status.OPTIMAL
        assert answer.objective <= oracle.objective + problem.objective.tolerance


@pytest.mark.parametrize(("n", "k"), [(24, 8), (30, 15), (36, 30)])
def test_meeting_in_the_middle_agrees_with_branch_and_bound(n: int, k: int) -> None:
    # float64 losses: at these sizes the optimum lies far above the tolerance.
    problem = so.Problem(so.MeanMatching(np.random.default_rng(n).random(n)), k)
    met = so.solve(problem, "exact", max_iterations=200_000_000)
    assert met.status is so.Status.OPTIMAL
    if comb(n, k) < 1_000_000:
        branched = so.solve(problem, "exact", options={"meet_limit": 0}, max_iterations=10**9)
        assert branched.objective == pytest.approx(met.objective, abs=problem.objective.tolerance)


@pytest.mark.parametrize("family", ["far-outlier", "edge-outlier"])
def test_outliers_are_proved(family: str) -> None:
    for seed in range(20):
        solution = so.select(family_losses(family, 128, 13, seed), k=13, solver="exact")
        assert solution.status is so.Status.OPTIMAL


def test_bad_options_are_refused() -> None:
    with pytest.raises(so.OptionError, match="meet_limit must be an integer >= 0, got -1"):
        so.select([1.0, 2.0], k=1, solver="exact", options={"meet_limit": -1})


def test_a_lattice_too_fine_for_a_table_is_left_alone() -> None:
    # Multiples of a tiny quantum whose sums exceed 64 bits.
    values = np.sort(np.random.default_rng(0).integers(1, 2**52, size=6000).astype(float))
    answer = so.select(values, k=4096, solver="exact", max_iterations=1000)
    assert answer.has_solution


@pytest.mark.parametrize("unit", [0.0, 1e-200])
def test_a_target_far_beyond_all_losses_is_proved_out_of_reach(unit: float) -> None:
    losses = unit * np.arange(1.0, 13.0)
    answer = so.solve(so.Problem(so.MeanMatching(losses, target=1.0), 5), "exact", seed=0)
    assert answer.status is so.Status.OPTIMAL
    assert answer.objective == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(3))
def test_three_of_many_are_proved_under_quotas_and_a_capacity(seed: int) -> None:
    rng = np.random.default_rng(seed)
    losses, costs, groups = rng.exponential(size=200), rng.random(200), np.arange(200) % 4
    problem = so.Problem(
        so.MeanMatching(losses),
        3,
        groups=groups,
        quotas={0: (1, 2), 1: (0, 1)},
        costs=costs,
        capacity=1.0,
    )
    answer = so.solve(problem, "exact", seed=seed)
    oracle = so.solve(problem, "exhaustive", max_iterations=2_000_000)
    assert answer.status is oracle.status is so.Status.OPTIMAL
    assert answer.objective <= oracle.objective + problem.objective.tolerance


@given(problem=problems(so.MeanMatching), seed=st.integers(0, 2**32))
@settings(max_examples=200)
def test_a_search_before_sorting_certifies_nothing_wrongly(problem: so.Problem, seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(swap, "UNSORTED_ABOVE", 1)
        answer = so.solve(problem, "swap", options={"start": "random"}, seed=seed)
    oracle = so.solve(problem, "exhaustive")
    assert answer.has_solution == oracle.has_solution
    if oracle.has_solution:
        tolerance = problem.objective.tolerance
        assert answer.objective >= oracle.objective - tolerance
        assert answer.bound <= oracle.objective + tolerance
        if answer.status is so.Status.OPTIMAL:
            assert answer.objective <= oracle.objective + tolerance
