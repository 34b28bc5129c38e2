"""BatchSelector: constraints of the user and of the policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings, strategies
from selector_parts import POLICIES, losses, with_bad

import subsetopt as so
from subsetopt.policies import Signals, StatelessPolicy

torch = pytest.importorskip("torch")

import subsetopt_torch as st  # noqa: E402


def test_constraints_hold_per_batch_and_for_all_batches() -> None:
    groups = torch.arange(128) % 4
    selector = st.BatchSelector("obtf", k=12, seed=0, constraints={"quotas": {0: 3, 1: (5, 6)}})
    picked = selector(losses(), constraints={"groups": groups, "include": torch.tensor([5])})
    counts = np.bincount(groups[picked.indices].numpy(), minlength=4)
    assert counts[0] == 3 and counts[1] in (5, 6) and 5 in picked.indices
    with pytest.raises(so.ProblemError, match="quotas need groups"):
        selector(losses())


@pytest.mark.parametrize("policy", POLICIES)
def test_excluded_samples_and_bad_ones_together(policy: str) -> None:
    selector = st.BatchSelector(policy, k=61, seed=0, nonfinite="exclude")
    mask = np.zeros(64, dtype=bool)
    picked = selector(with_bad(), constraints={"exclude": mask})
    assert len(picked) == 61
    with pytest.warns(st.SelectionWarning, match="No subset satisfies"):
        picked = selector(with_bad(), constraints={"exclude": [0, 1]})
    assert picked.fallback is not None
    assert len(picked) == 59 and not {0, 1, 3, 10, 20} & set(picked.indices.tolist())


@dataclass
class OwnGroups(StatelessPolicy):
    requires: ClassVar[frozenset[str]] = frozenset({"losses"})

    def propose(self, signals: Signals, k: int, rng: np.random.Generator) -> so.Problem:
        groups = np.arange(len(signals["losses"])) % 2
        quotas = {0: k // 2}
        return so.Problem(so.MeanMatching(signals["losses"]), k, groups=groups, quotas=quotas)


def test_constraints_of_the_policy_are_kept() -> None:
    selector = st.BatchSelector(OwnGroups(), k=10, seed=0)
    picked = selector(losses(), constraints={"include": [1]})
    assert (picked.indices % 2 == 0).sum() == 5 and 1 in picked.indices
    with pytest.raises(so.ProblemError, match="policy sets groups itself"):
        selector(losses(), constraints={"groups": np.zeros(128), "quotas": {0: 10}})


@dataclass(frozen=True)
class Breaks:
    """Finds nothing."""

    def solve(self, problem: so.Problem, context: so.SolveContext) -> so.RawResult:
        raise so.SolverError("it broke")


def _fallback(n: int = 40, k: int = 8, **constraints: Any) -> list[int]:
    selector = st.BatchSelector("obtf", k=k, seed=0, solver=Breaks())
    with pytest.warns(st.SelectionWarning):
        picked = selector(losses(n), constraints=constraints)
    assert picked.fallback is not None
    torch.testing.assert_close(float(picked.weights.sum()), 1.0)
    return picked.indices.tolist()


@given(seed=strategies.integers(0, 10**6))
@settings(max_examples=30)
def test_a_fallback_keeps_every_constraint(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups, costs = rng.integers(0, 3, 40), rng.integers(1, 100, 40)
    capacity = int(np.sort(costs)[:10].sum())
    quotas = {0: (1, 4), 1: (0, 3)}
    rules = {"groups": groups, "quotas": quotas, "exclude": [0, 1], "include": [5]}
    picked = _fallback(**rules)
    stated = so.Problem(so.TopScores(np.zeros(40)), 8, **rules)
    assert not stated.constraints.violations(np.array(picked))
    picked = _fallback(costs=costs, capacity=capacity)
    assert costs[picked].sum() <= capacity and len(picked) == 8


def test_a_fallback_is_smaller_where_k_samples_do_not_fit() -> None:
    costs = np.arange(1, 41)
    picked = _fallback(costs=costs, capacity=20)  # the 8 cheapest cost 36
    assert 0 < len(picked) < 8 and costs[picked].sum() <= 20
    # What must be chosen costs too much: it is given up, the capacity is not.
    picked = _fallback(costs=costs, capacity=20, include=[39])
    assert 39 not in picked and costs[picked].sum() <= 20


DRAWING = ("importance", "balanced", "prioritized", "online-batch")
REFUSED: list[dict[str, Any]] = [
    {"quotas": {0: (1, 3)}}, {"include": [0]}, {"exclude": [1]}, {"capacity": 3.0},
]  # fmt: skip


@pytest.mark.parametrize("constraints", REFUSED, ids=lambda c: next(iter(c)))
@pytest.mark.parametrize("name", DRAWING)
def test_a_policy_of_random_draws_refuses_constraints_at_once(
    name: str, constraints: dict[str, Any]
) -> None:
    (word,) = constraints
    message = rf"policy '{name}' makes a random draw, which takes no {word}\. Leave {word} out"
    with pytest.raises(so.UnsupportedProblemError, match=message):
        st.BatchSelector(name, k=8, seed=0, constraints=constraints)
    selector = st.BatchSelector(name, k=8, seed=0)
    with pytest.raises(so.UnsupportedProblemError, match=message):
        selector.without_losses(32, constraints=constraints)
    assert selector.step == 0


def test_draws_without_replacement_and_empty_constraints_are_taken() -> None:
    nothing = {"include": [], "exclude": np.empty(0, dtype=int), "quotas": {}, "capacity": np.inf}
    for name in DRAWING:
        st.BatchSelector(name, k=8, constraints=nothing)
    options = {"replacement": False}
    quotas = {"quotas": {0: (1, 3)}, "groups": np.zeros(32, dtype=int)}
    st.BatchSelector("online-batch", k=8, constraints=quotas, policy_options=options)
    st.BatchSelector("uniform", k=8, constraints=quotas)
