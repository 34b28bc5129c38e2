"""Limits that mean "none", NumPy scalars where Python's are meant, and more draws than samples."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

import subsetopt as so
from subsetopt import registry
from subsetopt.testing import _MAKERS, _lists

LOSSES = np.random.default_rng(0).exponential(size=8)
CASES = [
    (row.name, key) for row in so.list_solvers() for key in _MAKERS if _lists(row, key)
]  # fmt: skip


def _problem(name: str, key: str) -> so.Problem:
    state = registry.availability(name)
    if not state.usable:
        pytest.skip(f"{name}: {state.reason}")
    for seed in range(10):  # of the kinds of an objective, one that the solver takes
        problem = so.Problem(_MAKERS[key](np.random.default_rng(seed), 8, 3), 3)
        if registry.spec_of(name).obstacle(problem) is None:
            return problem
    pytest.skip(f"{name} takes another kind of {key}")


@pytest.mark.parametrize(("name", "key"), CASES)
def test_a_huge_limit_of_work_is_none(name: str, key: str) -> None:
    problem = _problem(name, key)
    exact = registry.spec_of(name).exact
    for most in (10**10, sys.maxsize, 2**64, 10**30):
        # A heuristic may search for ever: a clock that ticks with every look ends it.
        ticks = iter(range(10**6))
        limit = None if exact else so.Deadline(5, clock=ticks.__next__)
        answer = so.solve(problem, name, limit, seed=0, max_iterations=most)
        assert answer.has_solution and so.verify(problem, answer)


@pytest.mark.parametrize(
    ("name", "key"), [case for case in CASES if registry.spec_of(case[0]).exact]
)
def test_a_huge_limit_of_time_is_none(name: str, key: str) -> None:
    problem = _problem(name, key)
    for most in (1e9, 1e10, 1e20, 1e300, sys.maxsize):
        answer = so.solve(problem, name, seed=0, time_limit=most)
        assert answer.has_solution and so.verify(problem, answer)


@pytest.mark.parametrize(
    ("solver", "options", "native"),
    [
        ("swap", {"choices": np.int64(2), "start": np.str_("random")}, {}),
        ("auto", {"choices": np.uint8(2)}, {}),
        ("exact", {"branch_limit": np.int32(5)}, {}),
        ("cpsat", {"work_limit": np.float32(1), "threads": np.int64(1)}, {}),
        ("scip", {"band_share": np.float64(0.5)}, {"separating/maxrounds": np.int64(1)}),
        ("scip", {}, {"misc/usevartable": np.bool_(True)}),
        ("highs", {"node_limit": np.int16(50)}, {"mip_rel_gap": np.float32(0)}),
        ("gurobi", {}, {"Threads": np.int64(1)}),
    ],
)
def test_scalars_of_numpy_are_options(
    solver: str, options: dict[str, Any], native: dict[str, Any]
) -> None:
    if solver != "auto" and not registry.availability(solver).usable:
        pytest.skip(registry.availability(solver).reason)
    before = dict(options), dict(native)
    answer = so.select(
        LOSSES, 3, solver=solver, options=options, backend_params=native or None, seed=0
    )
    assert answer.has_solution
    assert (options, native) == before


@pytest.mark.parametrize("k", [8, 9, 100])
def test_more_draws_than_samples_with_replacement(k: int) -> None:
    probabilities = np.arange(1.0, 9.0) / 36.0
    for inclusion in (probabilities, probabilities * k):
        problem = so.Problem(so.SamplingDesign(inclusion, LOSSES, replacement=True), k)
        answer = so.solve(problem, seed=0)
        assert answer.solver == "multinomial" and answer.indices.size == k
        assert so.verify(problem, answer)
        assert np.allclose(answer.weights, 1.0 / (8 * probabilities[answer.indices] * k))
    mean = np.mean(
        [
            (answer.weights * LOSSES[answer.indices]).sum()
            for answer in so.solve_many([problem] * 2000, seed=0)
        ]
    )
    assert abs(mean - LOSSES.mean()) < 0.1 * LOSSES.std()


def test_more_than_n_without_replacement_is_still_refused() -> None:
    with pytest.raises(so.ProblemError, match="k = 9 is not possible"):
        so.Problem(so.SamplingDesign(np.full(8, 1.0)), 9)
    with pytest.raises(so.ProblemError, match="k = 1 is not possible with n = 0"):
        so.Problem(so.SamplingDesign([], replacement=True), 1)


def test_more_certain_candidates_than_draws_are_infeasible() -> None:
    certain = so.Problem(so.SamplingDesign(np.ones(1_000_001)), 1_000_000)
    answer = so.solve(certain, seed=0)
    assert answer.status is so.Status.INFEASIBLE
    assert "1000001 candidates have inclusion probability 1" in answer.extras["why"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64", "int64"])
def test_losses_may_be_tensors_of_pytorch(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    plain = torch.arange(1, 33).to(getattr(torch, dtype))
    answer = so.select(plain, 5, seed=0)
    assert answer.status is so.Status.OPTIMAL
    if plain.is_floating_point():
        traced = plain.clone().requires_grad_()
        assert so.select(traced, 5, seed=0).indices.tolist() == answer.indices.tolist()
        assert traced.requires_grad and traced.grad is None
    rows = torch.stack([plain, plain.flip(0)])
    assert len(so.select_many(rows, 5, seed=0)) == 2
    vectors = so.VectorMatching(torch.stack([plain, plain], 1))
    assert so.solve(so.Problem(vectors, 4), seed=0).has_solution
    mask = torch.zeros(32, dtype=torch.bool)
    mask[3] = True
    kept = so.select(plain, 5, include=mask, groups=torch.arange(32) % 2, quotas={0: 2}, seed=0)
    assert 3 in kept.indices
