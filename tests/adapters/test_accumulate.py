"""SelectiveStep(accumulate=True): picked samples gather until a batch is full."""

from __future__ import annotations

import copy
import io
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as draws
from step_parts import CROSS_ENTROPY, assert_same, batch, make, network, saved, unchanged

import subsetopt as so
from subsetopt.policies import Feedback, Signals, StatelessPolicy

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import subsetopt_torch as st  # noqa: E402


@dataclass
class Noting(StatelessPolicy):
    """Takes the largest losses, with weights of its own, and notes what was trained on."""

    weights: Any = None
    requires: ClassVar[frozenset[str]] = frozenset({"losses"})
    feedback: list[Feedback] = field(default_factory=list)

    def propose(self, signals: Signals, k: int, rng: np.random.Generator) -> so.Problem:
        return so.Problem(so.TopScores(np.asarray(signals["losses"])), k)

    def weigh(self, solution: so.Solution) -> Any:
        return solution.weights if self.weights is None else self.weights(solution)

    def observe(self, feedback: Feedback) -> None:
        self.feedback.append(feedback)


@dataclass
class Keeping(Noting):
    """Takes as many as its list says, in turn; 0 and all are possible."""

    counts: tuple[int, ...] = (5, 0, 3)
    turn: int = 0

    def propose(self, signals: Signals, k: int, rng: np.random.Generator) -> so.Problem:
        count = self.counts[self.turn % len(self.counts)]
        self.turn += 1
        return so.Problem(so.TopScores(np.asarray(signals["losses"])), count)


def trained_ids(policy: Noting) -> list[int]:
    return [i for feedback in policy.feedback for i in feedback.ids.tolist()]


def test_thirteen_of_128_make_an_update_every_tenth_batch() -> None:
    step = make(policy="uniform", selector={"rate": 0.1}, accumulate=True)
    before = saved(step.model)
    for _ in range(9):
        result = step(*batch(128))
        assert not result.updated and result.loss.isnan() and result.trained == 0
        assert len(result.picked) == 13
    assert unchanged(step.model, before) and step.gathered == 117
    result = step(*batch(128))
    assert result.updated and result.trained == 128 and step.gathered == 2
    assert len(result.picked) == 13 and result.loss.isfinite()
    for _ in range(9):
        result = step(*batch(128))
    assert not result.updated and step.gathered == 119
    assert step(*batch(128)).updated and step.gathered == 4


def test_the_honest_curve_goes_on_while_samples_gather() -> None:
    step = make(accumulate=True)
    before = copy.deepcopy(step.model).eval()
    x, y = batch()
    result = step(x, y)
    losses = CROSS_ENTROPY(before(x), y).detach()
    assert not result.updated
    torch.testing.assert_close(result.losses, losses)
    torch.testing.assert_close(result.batch_loss, losses.mean())
    timings = result.timings
    assert timings.scoring > 0.0 and timings.selection > 0.0
    assert timings.training == timings.update == 0.0


@pytest.mark.parametrize("policy", ["obtf", "uniform", "big-loss"])
def test_updates_are_those_of_a_loop_over_what_was_picked(policy: str) -> None:
    plain, ours = network(), network()
    if policy == "obtf":
        plain[1].eval(), ours[1].eval()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    step = make(ours, policy, selector={"k": 7}, accumulate=True)
    torch.manual_seed(1)
    results = [step(*batch(seed=t)) for t in range(15)]
    torch.manual_seed(1)
    gathered_x, gathered_y = torch.empty(0, 6), torch.empty(0, dtype=torch.long)
    updates = 0
    for t, result in enumerate(results):
        x, y = batch(seed=t)
        rows = result.picked.indices
        gathered_x = torch.cat([gathered_x, x[rows]])
        gathered_y = torch.cat([gathered_y, y[rows]])
        assert result.updated == (len(gathered_x) >= 32)
        if result.updated:
            optimizer.zero_grad()
            loss = CROSS_ENTROPY(plain(gathered_x[:32]), gathered_y[:32]).mean()
            loss.backward()
            optimizer.step()
            torch.testing.assert_close(result.loss, loss.detach())
            gathered_x, gathered_y = gathered_x[32:], gathered_y[32:]
            updates += 1
    assert updates == 3 and step.gathered == len(gathered_x) == 15 * 7 - 3 * 32
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)


@given(
    sizes=draws.lists(draws.integers(1, 30), min_size=1, max_size=12),
    k=draws.integers(1, 12),
    full=draws.integers(1, 25),
)
def test_every_picked_sample_is_trained_on_once_and_in_order(
    sizes: list[int], k: int, full: int
) -> None:
    policy = Noting()
    model = nn.Linear(6, 4)
    step = make(model, policy, selector={"k": k, "seed": 0}, accumulate=True, batch_size=full)
    picked: list[int] = []
    trained = 0
    for t, n in enumerate(sizes):
        ids = torch.arange(100 * t, 100 * t + n)
        result = step(*batch(n, seed=t), ids=ids)
        picked += ids[result.picked.indices].tolist()
        trained += result.trained
        assert result.updated == (result.trained > 0)
        assert trained == len(trained_ids(policy))
        assert trained + step.gathered == len(picked) and step.gathered < full
    assert trained_ids(policy) == picked[:trained]
    if k < full:  # otherwise all of a full batch is taken, and nothing has to wait
        assert {len(feedback.ids) for feedback in policy.feedback} <= {full}
    assert all(torch.equal(feedback.indices, feedback.ids % 100) for feedback in policy.feedback)
    rest = step.flush()
    assert rest.trained == len(picked) - trained and step.gathered == 0
    assert trained_ids(policy) == picked


def test_weights_are_each_batchs_share_of_its_own() -> None:
    policy = Noting(lambda solution: 1.0 + solution.indices)
    step = make(nn.Linear(6, 4), policy, accumulate=True, batch_size=20)
    first = step(*batch(32, seed=0)).picked  # 8 of 32
    second = step(*batch(20, seed=1)).picked  # 5 of 20
    third = step(*batch(32, seed=2)).picked
    (feedback,) = policy.feedback
    positions = torch.cat([first.indices, second.indices, third.indices[:7]])
    sizes = torch.tensor([8.0] * 8 + [5.0] * 5 + [8.0] * 7)
    torch.testing.assert_close(feedback.weights, (1.0 + positions) * sizes / 20)
    assert torch.equal(feedback.indices, positions) and feedback.scored and feedback.step == 2
    step.flush()
    torch.testing.assert_close(policy.feedback[1].weights, (1.0 + third.indices[7:]) * 8.0)


@pytest.mark.parametrize("policy", ["obtf", "uniform"])
def test_everything_chosen_is_the_plain_loop_to_the_last_bit(policy: str) -> None:
    plain, ours = network(), network()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    step = make(ours, policy, selector={"rate": 1.0}, accumulate=True)
    sizes = [32, 32, 20, 32, 7]
    torch.manual_seed(1)
    for t, n in enumerate(sizes):
        x, y = batch(n, seed=t)
        optimizer.zero_grad()
        CROSS_ENTROPY(plain(x), y).mean().backward()
        optimizer.step()
    torch.manual_seed(1)
    for t, n in enumerate(sizes):
        result = step(*batch(n, seed=t))
        assert result.updated and result.trained == n and step.gathered == 0
        assert result.losses is None and torch.equal(result.batch_loss, result.loss)
    assert_same(ours, plain)


def test_a_small_batch_that_is_taken_whole_waits_like_any_other() -> None:
    step = make(nn.Linear(6, 4), "obtf", selector={"k": 10}, accumulate=True)
    step(*batch(32))
    step(*batch(32))
    result = step(*batch(9))
    assert len(result.picked) == 9 and not result.updated and step.gathered == 29
    assert result.batch_loss.isnan()  # nothing made a forward over it
    assert step(*batch(32)).trained == 32


def test_more_than_a_batch_at_once_makes_several_updates() -> None:
    policy = Noting()
    step = make(nn.Linear(6, 4), policy, selector={"k": 27}, accumulate=True, batch_size=8)
    result = step(*batch(32))
    assert result.trained == 24 and step.gathered == 3
    losses = [(feedback.losses * feedback.weights).sum() for feedback in policy.feedback]
    assert len(losses) == 3
    torch.testing.assert_close(result.loss, torch.stack(losses).mean())


def test_flush() -> None:
    step = make(nn.Linear(6, 4), accumulate=True)
    before = saved(step.model)
    empty = step.flush()
    assert not empty.updated and empty.loss.isnan() and len(empty.picked) == 0
    assert unchanged(step.model, before)
    picked = step(*batch()).picked
    rest = step.flush()
    assert rest.updated and rest.trained == len(picked) == 8 and rest.batch_loss.isnan()
    assert step.gathered == 0 and not step.flush().updated
    plain = nn.Linear(6, 4)
    plain.load_state_dict(before)
    x, y = batch()
    loss = CROSS_ENTROPY(plain(x[picked.indices]), y[picked.indices]).mean()
    torch.testing.assert_close(rest.loss, loss.detach())
    assert not make().flush().updated


def test_gathered_samples_are_copies() -> None:
    policy = Noting()
    step = make(nn.Linear(6, 4), policy, selector={"k": 20}, accumulate=True)
    x, y = batch()
    first = step(x, y).picked.indices
    wanted = x[first].clone(), y[first].clone()
    losses = CROSS_ENTROPY(step.model(wanted[0]), wanted[1])
    x.fill_(float("nan"))
    y.zero_()
    step(*batch(seed=1))
    torch.testing.assert_close(policy.feedback[0].losses[:20], losses.detach())


# A number that varies


@pytest.mark.parametrize("accumulate", [True, False])
def test_a_policy_may_take_any_number(accumulate: bool) -> None:
    policy = Keeping(counts=(5, 0, 32, 1))
    model = nn.Linear(6, 4)
    step = make(model, policy, accumulate=accumulate)
    for t, count in enumerate((5, 0, 32, 1, 5, 0)):
        before = saved(model)
        result = step(*batch(seed=t), ids=torch.arange(32))
        assert len(result.picked) == count and result.batch_loss.isfinite()
        assert result.updated != unchanged(model, before)
        if not accumulate:
            assert result.updated == (count > 0) and result.trained == count
        torch.testing.assert_close(result.picked.weights.sum(), torch.tensor(1.0 if count else 0.0))
    if accumulate:
        assert [len(feedback.ids) for feedback in policy.feedback] == [32] and step.gathered == 11


def test_a_number_that_varies_beside_losses_that_are_not_finite() -> None:
    policy = Keeping(counts=(32,))
    x, y = batch()
    x[[4, 9]] = float("nan")
    step = make(nn.Linear(6, 4), policy, selector={"rate": 0.25, "nonfinite": "exclude"})
    result = step(x, y)
    assert len(result.picked) == result.trained == 30 and result.picked.excluded == 2


# Losses that are not finite in the training forward


def poisoned() -> tuple[torch.Tensor, torch.Tensor]:
    x, y = batch()
    x[4], x[9] = float("nan"), float("nan")
    return x, y


def test_gathered_samples_without_a_finite_loss_are_left_out() -> None:
    model = network()
    policy = {"k": 16, "nonfinite": "exclude"}
    step = make(model, "uniform", selector=policy, accumulate=True)
    bad = 0
    for _ in range(2):
        picked = step(*poisoned()).picked.indices
        bad += int(torch.isin(picked, torch.tensor([4, 9])).sum())
    assert bad > 0 and step.selector.excluded == bad and step.gathered == 0
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())


def test_or_they_raise() -> None:
    step = make(nn.Linear(6, 4), "uniform", selector={"k": 31}, accumulate=True)
    before = saved(step.model)
    step(*poisoned())
    with pytest.raises(so.ProblemError, match=r"not finite at positions .* of the gathered batch"):
        step(*batch())
    assert unchanged(step.model, before)
    assert step.gathered == 30 and step(*batch(seed=1)).trained == 32  # the bad ones are gone


def test_a_gathered_batch_of_which_nothing_is_finite() -> None:
    policy = {"k": 32, "nonfinite": "exclude", "constraints": {"include": [0]}}
    step = make(nn.Linear(6, 4), "uniform", selector=policy, accumulate=True, batch_size=16)
    before = saved(step.model)
    result = step(torch.full((32, 6), float("nan")), batch()[1])
    assert not result.updated and result.trained == 0 and step.gathered == 0
    assert step.selector.excluded == 32 and unchanged(step.model, before)


# State


@pytest.mark.parametrize("policy", ["obtf", "uniform", "proportional-loss"])
def test_a_run_resumed_while_samples_gather_is_the_run(policy: str) -> None:
    def trained(step: st.SelectiveStep, first: int, last: int) -> list[st.StepResult]:
        results = []
        for t in range(first, last):
            torch.manual_seed(t)
            results.append(step(*batch(seed=t), ids=torch.arange(32)))
        return results

    keywords = {"selector": {"k": 7, "seed": 3}, "accumulate": True}
    straight = make(policy=policy, **keywords)
    expected = trained(straight, 0, 17)
    begun = make(policy=policy, **keywords)
    trained(begun, 0, 8)
    assert begun.gathered == 56 - 32
    file = io.BytesIO()
    parts = (begun.model, begun.optimizer, begun)
    torch.save([part.state_dict() for part in parts], file)
    trained(begun, 8, 10)  # what was saved does not change any more
    file.seek(0)
    states = torch.load(file, weights_only=True)
    resumed = make(network(seed=9), policy, selector={"k": 7, "seed": 77}, accumulate=True)
    for part, state in zip((resumed.model, resumed.optimizer, resumed), states, strict=True):
        part.load_state_dict(state)
    assert resumed.gathered == 24
    results = trained(resumed, 8, 17)
    assert_same(resumed.model, straight.model)
    assert sum(result.updated for result in results) == 2
    for ours, theirs in zip(results, expected[8:], strict=True):
        assert torch.equal(ours.picked.indices, theirs.picked.indices)
        torch.testing.assert_close(ours.loss, theirs.loss, rtol=0, atol=0, equal_nan=True)
    losses = []
    for step in (resumed, straight):
        torch.manual_seed(0)
        losses.append(step.flush().loss)
    assert torch.equal(*losses)


def test_a_state_with_samples_needs_a_step_that_gathers() -> None:
    step = make(nn.Linear(6, 4), accumulate=True)
    step(*batch())
    state = step.state_dict()
    with pytest.raises(so.OptionError, match=r"holds gathered samples.*accumulate=True"):
        make(nn.Linear(6, 4)).load_state_dict(state)
    del state["gathered"][0]["weights"]
    with pytest.raises(so.OptionError, match=r"gathered samples of the state lack \['weights'\]"):
        make(nn.Linear(6, 4), accumulate=True).load_state_dict(state)
