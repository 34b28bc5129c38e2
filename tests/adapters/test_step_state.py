"""SelectiveStep: saving and resuming."""

from __future__ import annotations

import copy

import pytest
from step_parts import assert_same, batch, make, network

import subsetopt as so

torch = pytest.importorskip("torch")

import subsetopt_torch as st  # noqa: E402


@pytest.mark.parametrize("policy", ["obtf", "uniform", "proportional-loss"])
def test_a_resumed_run_is_the_run(policy: str) -> None:
    def trained(step: st.SelectiveStep, first: int, last: int) -> None:
        for t in range(first, last):
            torch.manual_seed(t)
            step(*batch(seed=t))

    straight = make(policy=policy)
    trained(straight, 0, 8)
    begun = make(policy=policy)
    trained(begun, 0, 4)
    checkpoint = copy.deepcopy(
        {
            "model": begun.model.state_dict(),
            "optimizer": begun.optimizer.state_dict(),
            "step": begun.state_dict(),
        }
    )
    resumed = make(network(seed=9), policy, selector={"rate": 0.25, "seed": 77})
    resumed.model.load_state_dict(checkpoint["model"])
    resumed.optimizer.load_state_dict(checkpoint["optimizer"])
    resumed.load_state_dict(checkpoint["step"])
    trained(resumed, 4, 8)
    assert_same(resumed.model, straight.model)
    assert resumed.state_dict() == straight.state_dict()


def test_a_state_that_does_not_fit() -> None:
    with pytest.raises(so.OptionError, match=r"lacks \['gathered', 'largest_batch', 'selector'\]"):
        make().load_state_dict({})
