"""AdaSelection in a training step: candidates of several signals, weights that separate, state."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from step_parts import assert_same, batch, make

import subsetopt as so
from subsetopt.policies.adaselection import AdaSelection

torch = pytest.importorskip("torch")

import subsetopt_torch as st  # noqa: E402


def train(step: st.SelectiveStep, first: int, last: int) -> list[Any]:
    """Return what was picked."""
    picks = []
    for t in range(first, last):
        torch.manual_seed(t)
        picks.append(step(*batch(seed=t)).picked)
    return picks


def test_the_weights_separate_in_a_run() -> None:
    step = make(policy="adaselection")
    train(step, 0, 12)
    policy = step.selector.policy
    assert [t for t, _ in policy.history] == list(range(1, 13))
    weights = list(policy.weights.values())
    assert max(weights) > 1.01 * min(weights) > 0.0
    assert abs(sum(weights) - 1.0) < 1e-12


def test_what_is_picked_is_the_top_k_of_the_weighted_scores() -> None:
    step = make(policy="adaselection")
    for picked in train(step, 0, 3):
        solution = picked.solution
        assert (solution.status, solution.solver) == (so.Status.OPTIMAL, "topk")
        assert len(picked) == 8


@pytest.mark.parametrize("candidates", [["big-loss", "uniform"], ["uncertainty", "uniform"]])
def test_a_resumed_run_has_the_same_picks_and_history(candidates: list[str]) -> None:
    def begin() -> st.SelectiveStep:
        return make(policy=AdaSelection(candidates))

    straight, begun, resumed = begin(), begin(), begin()
    expected = train(straight, 0, 9)
    train(begun, 0, 4)
    resumed.model.load_state_dict(copy.deepcopy(begun.model.state_dict()))
    resumed.optimizer.load_state_dict(copy.deepcopy(begun.optimizer.state_dict()))
    resumed.load_state_dict(copy.deepcopy(begun.state_dict()))
    for mine, theirs in zip(train(resumed, 4, 9), expected[4:], strict=True):
        assert torch.equal(mine.indices, theirs.indices)
    assert resumed.selector.policy.history == straight.selector.policy.history
    assert resumed.state_dict() == straight.state_dict()
    assert_same(resumed.model, straight.model)


def test_options_by_name() -> None:
    options = {"candidates": ["small-loss", "coreset-2"], "beta": -0.25, "curriculum": None}
    selector = st.BatchSelector("adaselection", k=2, seed=0, policy_options=options)
    selector(torch.tensor([3.0, 1.0, 2.0]))
    assert selector.policy.names == ("small-loss", "coreset-2")
    with pytest.raises(so.OptionError, match="policy 'obtf' gives no scores"):
        st.BatchSelector("adaselection", k=2, policy_options={"candidates": ["obtf"]})
