"""Feedback in a loop of one's own: what a policy hears, and the warning when it hears nothing."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
from selector_parts import DEVICES
from step_parts import CROSS_ENTROPY, batch, network

import subsetopt as so
from subsetopt.policies import Feedback, StatelessPolicy, list_policies, listens, make_policy

torch = pytest.importorskip("torch")

import subsetopt_torch as st  # noqa: E402

LEARNING = ("importance", "online-batch", "prioritized")


class Hearing(StatelessPolicy):
    """Takes the first k, and keeps what it hears."""

    learns_from = frozenset({"upper_bound"})

    def __init__(self, learns_from: frozenset[str] = frozenset({"upper_bound"})) -> None:
        self.learns_from = learns_from
        self.heard: list[Feedback] = []

    def propose(self, signals: Any, k: int, rng: Any) -> so.Problem:
        scores = -np.arange(len(signals["positions"]), dtype=float)
        return so.Problem(so.TopScores(scores), k)

    def observe(self, feedback: Feedback) -> None:
        self.heard.append(feedback)


def loop(selector: st.BatchSelector, model: Any, steps: int, observe: bool = True) -> None:
    """Train in a loop of one's own, as the guide has it."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for t in range(steps):
        x, y = batch(seed=t)
        with torch.no_grad():
            outputs = model(x)
        ids = torch.arange(32) + 32 * (t % 3)
        losses = CROSS_ENTROPY(outputs, y)
        picked = selector(losses, logits=outputs, targets=y, ids=ids)
        logits, labels = model(x[picked.indices]), y[picked.indices]
        per_sample = CROSS_ENTROPY(logits, labels)
        optimizer.zero_grad()
        (per_sample * picked.weights).sum().backward()
        optimizer.step()
        if observe:
            selector.observe(picked, losses=per_sample, logits=logits, targets=labels)


def test_the_documented_loop_lets_importance_switch_on() -> None:
    policy = make_policy("importance", tau_threshold=1.0, momentum=0.0)
    selector = st.BatchSelector(policy, rate=0.25, seed=0)
    loop(selector, network().eval(), 30)
    assert policy.tau > 1.0 and len(policy.history) == 30
    assert policy.switches and policy.switches[0][1]


@pytest.mark.parametrize("name", ["online-batch", "prioritized"])
def test_the_documented_loop_fills_memories(name: str) -> None:
    selector = st.BatchSelector(name, rate=0.25, seed=0)
    loop(selector, network().eval(), 6)
    known = selector.policy.memory.of(np.arange(96))
    assert selector.policy.memory.size > 64 and np.isfinite(known).sum() > 20


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_heard_belongs_to_what_was_picked(device: str) -> None:
    policy = Hearing()
    selector = st.BatchSelector(policy, k=3, seed=0)
    selector(torch.zeros(2, device=device))
    logits = torch.randn(3, 4, device=device, requires_grad=True)
    targets = torch.tensor([0, 1, 3], device=device)
    losses = CROSS_ENTROPY(logits, targets)
    picked = selector(torch.rand(5, device=device), ids=torch.tensor([9, 8, 7, 6, 5]))
    selector.observe(picked, losses=losses, logits=logits, targets=targets)
    (feedback,) = policy.heard
    assert feedback.step == 1 and feedback.scored
    assert torch.equal(feedback.indices, picked.indices) and feedback.ids.tolist() == [9, 8, 7]
    assert torch.equal(feedback.losses, losses.detach()) and not feedback.losses.requires_grad
    assert torch.equal(feedback.targets, targets) and torch.equal(feedback.logits, logits.detach())
    (gradients,) = torch.autograd.grad(losses.sum(), logits)
    torch.testing.assert_close(feedback.signals["upper_bound"], gradients.norm(dim=1))


def test_losses_follow_from_logits_and_targets() -> None:
    policy = Hearing(frozenset())
    selector = st.BatchSelector(policy, k=3, seed=0)
    logits, targets = torch.randn(3, 4), torch.tensor([0, 1, 3])
    selector.observe(selector(torch.rand(5)), logits=logits, targets=targets)
    torch.testing.assert_close(policy.heard[0].losses, CROSS_ENTROPY(logits, targets))


def test_a_pick_without_losses_and_one_of_nothing() -> None:
    policy = Hearing(frozenset())
    selector = st.BatchSelector(policy, k=3, seed=0)
    selector.observe(selector.without_losses(5, ids=torch.arange(5)), losses=torch.ones(3))
    assert not policy.heard[0].scored and policy.heard[0].ids.tolist() == [0, 1, 2]
    selector.observe(selector(torch.empty(0)), losses=torch.empty(0))
    assert len(policy.heard) == 1


def test_a_pick_that_was_copied_or_sent_is_the_same() -> None:
    policy = Hearing(frozenset())
    selector = st.BatchSelector(policy, k=3, seed=0)
    picked = selector(torch.rand(5), ids=np.arange(5))
    for other in (copy.deepcopy(picked), pickle.loads(pickle.dumps(picked))):
        selector.observe(other, losses=torch.ones(3))
    assert [f.ids.tolist() for f in policy.heard] == [[0, 1, 2]] * 2


def test_losses_that_are_not_finite() -> None:
    losses = torch.tensor([1.0, torch.nan, 3.0])
    selector = st.BatchSelector(Hearing(frozenset()), k=3, seed=0)
    message = r"not finite at positions 1 \(nan\) of the training forward"
    with pytest.raises(so.ProblemError, match=message):
        selector.observe(selector(torch.rand(5)), losses=losses)
    policy = Hearing(frozenset())
    selector = st.BatchSelector(policy, k=3, seed=0, nonfinite="exclude")
    selector.observe(selector(torch.rand(5), ids=torch.arange(5)), losses=losses)
    (feedback,) = policy.heard
    assert feedback.losses.tolist() == [1.0, 3.0] and feedback.ids.tolist() == [0, 2]
    assert feedback.indices.tolist() == [0, 2] and selector.excluded == 1
    selector.observe(selector(torch.rand(5)), losses=torch.full((3,), torch.inf))
    assert len(policy.heard) == 1 and selector.excluded == 4


@pytest.mark.parametrize(
    ("learns", "keywords", "message"),
    [
        (
            {"upper_bound"},
            {"losses": torch.ones(3)},
            "learns from upper_bound of the training",
        ),
        ({"upper_bound"}, {"logits": torch.ones(3, 4)}, "pass targets= to observe"),
        (set(), {}, "learns from the losses of the training forward: pass logits= and targets= to"),
        (set(), {"losses": torch.ones(5)}, "the losses of the 3 picked samples, .* got 5"),
        (set(), {"losses": torch.tensor(1.0)}, "a reduced loss has no samples left"),
        (set(), {"losses": torch.ones(3), "logits": torch.ones(5, 4)}, "observe takes logits of"),
        (set(), {"losses": torch.ones(3), "targets": torch.ones(5)}, "observe takes targets of"),
    ],
)
def test_what_is_refused(learns: set[str], keywords: dict[str, Any], message: str) -> None:
    selector = st.BatchSelector(Hearing(frozenset(learns)), k=3, seed=0)
    picked = selector(torch.rand(5))
    with pytest.raises(so.ProblemError, match=message):
        selector.observe(picked, **keywords)
    assert not selector.policy.heard


@pytest.mark.parametrize("name", LEARNING)
def test_a_policy_that_hears_nothing_says_so_once(name: str) -> None:
    selector = st.BatchSelector(name, rate=0.25, seed=0)
    said = rf"policy '{name}' learns from the training forward, and has heard nothing in 20 sel"
    with pytest.warns(UserWarning, match=said) as warned:
        loop(selector, network().eval(), 45, observe=False)
    assert len(warned) == 1
    assert "call selector.observe(picked, losses=..., logits=..., targets=...)" in str(warned[0])


@pytest.mark.parametrize("name", ["obtf", "uniform", "balanced", "adaselection"])
def test_a_policy_that_has_nothing_to_hear_says_nothing(name: str) -> None:
    loop(st.BatchSelector(name, rate=0.25, seed=0), network().eval(), 25, observe=False)


def test_nothing_is_said_while_a_step_gathers() -> None:
    model = network()
    selector = st.BatchSelector("importance", k=1, seed=0, policy_options={"tau_threshold": 0.5})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    step = st.SelectiveStep(
        model, CROSS_ENTROPY, optimizer, selector, accumulate=True, batch_size=32
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for t in range(25):
            step(*batch(seed=t))
    assert not selector.policy.history


def test_which_policies_listen() -> None:
    names = [spec.name for spec in list_policies() if isinstance(spec.target, str)]
    made = {name: make_policy(name) for name in names if name != "rho-loss"}
    assert {name for name, policy in made.items() if listens(policy)} == set(LEARNING)
