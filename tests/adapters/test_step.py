"""SelectiveStep against hand-written loops."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from step_parts import CROSS_ENTROPY, Counting, assert_same, batch, make, network, saved, unchanged

import subsetopt as so
from subsetopt.policies import Feedback, Signals, StatelessPolicy

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import subsetopt_torch as st  # noqa: E402


@pytest.mark.parametrize("size", [{"rate": 1.0}, {"k": 32}, {"k": 100}])
@pytest.mark.parametrize("policy", ["obtf", "uniform"])
def test_everything_chosen_is_the_plain_loop_to_the_last_bit(
    size: dict[str, Any], policy: str
) -> None:
    plain, ours = network(), network()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    step = make(ours, policy, selector=size)
    torch.manual_seed(1)
    for t in range(5):
        x, y = batch(seed=t)
        optimizer.zero_grad()
        loss = CROSS_ENTROPY(plain(x), y).mean()
        loss.backward()
        optimizer.step()
    stream = torch.get_rng_state()
    torch.manual_seed(1)
    for t in range(5):
        result = step(*batch(seed=t))
    assert_same(ours, plain)
    assert torch.equal(torch.get_rng_state(), stream)
    assert torch.equal(result.loss, loss) and torch.equal(result.batch_loss, loss)
    assert result.timings.scoring == 0.0 and result.losses is None
    assert result.picked.indices.tolist() == list(range(32))
    assert result.picked.solution.has_solution


@pytest.mark.parametrize("scoring_mode", ["eval", "train"])
@pytest.mark.parametrize("policy", ["obtf", "uniform", "big-loss"])
def test_a_step_is_the_training_forward_of_what_was_picked(policy: str, scoring_mode: str) -> None:
    # Were the scoring pass to touch BatchNorm, the random stream or a mode, these would part.
    plain, ours = network(), network()
    if policy == "obtf":
        plain[1].eval(), ours[1].eval()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    step = make(ours, policy, scoring_mode=scoring_mode)
    torch.manual_seed(1)
    picks = [step(*batch(seed=t)).picked for t in range(5)]
    torch.manual_seed(1)
    for t, picked in enumerate(picks):
        x, y = batch(seed=t)
        optimizer.zero_grad()
        losses = CROSS_ENTROPY(plain(x[picked.indices]), y[picked.indices])
        (losses * picked.weights).sum().backward()
        optimizer.step()
    assert_same(ours, plain)
    assert {len(picked) for picked in picks} == {8}


def test_losses_reported() -> None:
    model = network()
    before = copy.deepcopy(model).eval()
    x, y = batch()
    result = make(model)(x, y)
    scored = CROSS_ENTROPY(before(x), y)
    torch.testing.assert_close(result.losses, scored.detach())
    torch.testing.assert_close(result.batch_loss, scored.mean().detach())
    assert not result.loss.requires_grad and result.loss.shape == ()
    timings = result.timings
    parts = (timings.scoring, timings.selection, timings.training, timings.update)
    assert min(parts) > 0.0 and timings.total == sum(parts)
    assert "losses" not in repr(result).replace("batch_loss", "")


@pytest.mark.parametrize(
    ("policy", "forwards"),
    [("obtf", [(32, False), (8, True)]), ("uniform", [(8, True)])],
)
def test_who_pays_a_scoring_pass(policy: str, forwards: list[tuple[int, bool]]) -> None:
    model = Counting(6, 4)
    model.seen = []  # type: ignore[misc]
    result = make(model, policy)(*batch())
    assert model.seen == forwards
    assert (result.losses is None) == (policy == "uniform") == bool(result.batch_loss.isnan())
    assert (result.timings.scoring == 0.0) == (policy == "uniform")


def test_batch_norm_from_the_scored_batch() -> None:
    for scoring_mode in ("eval", "train"):
        ours, twin = network(), network()
        x, y = batch()
        twin.train()(x)
        make(ours, scoring_mode=scoring_mode, update_bn="scored")(x, y)
        torch.testing.assert_close(ours[1].running_mean, twin[1].running_mean)
        torch.testing.assert_close(ours[1].running_var, twin[1].running_var)
        assert ours[1].num_batches_tracked == 1
        assert ours.training and ours[1].training


def test_modes_stay_mixed() -> None:
    model = network()
    model[1].eval()
    model[3].eval()
    modes = [m.training for m in model.modules()]
    statistics = model[1].running_mean.clone()
    make(model, update_bn="scored")(*batch())
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(model[1].running_mean, statistics)


# Losses that are refused


@pytest.mark.parametrize("rate", [0.25, 1.0])
@pytest.mark.parametrize(
    ("loss_fn", "message"),
    [
        (nn.CrossEntropyLoss(), "one number for the whole batch.*reduction='none'"),
        (lambda o, y: CROSS_ENTROPY(o, y)[:, None], r"shape \(\d+, 1\) for \d+ samples, expected"),
        (lambda o, y: CROSS_ENTROPY(o, y)[1:], r"shape \(\d+,\) for \d+ samples, expected"),
        (lambda o, y: 3.0, "must return a tensor of per-sample losses, got float"),
    ],
)
def test_a_loss_that_is_not_per_sample(loss_fn: Any, message: str, rate: float) -> None:
    step = make(loss_fn=loss_fn, selector={"rate": rate})
    before = saved(step.model)
    with pytest.raises(so.ProblemError, match=message):
        step(*batch())
    assert all(torch.equal(v, before[n]) for n, v in step.model.named_parameters())


def poisoned() -> tuple[torch.Tensor, torch.Tensor]:
    x, y = batch()
    x[4], x[9] = float("nan"), float("nan")
    return x, y


@pytest.mark.parametrize("rate", [0.25, 1.0])
def test_nonfinite_losses_raise_before_anything_is_updated(rate: float) -> None:
    model = nn.Linear(6, 4)
    before = saved(model)
    step = make(model, selector={"rate": rate})
    with pytest.raises(so.ProblemError, match=r"positions 4 \(nan\), 9 \(nan\) of the batch"):
        step(*poisoned())
    assert unchanged(model, before)


@pytest.mark.parametrize("policy", ["obtf", "uniform"])
@pytest.mark.parametrize("rate", [0.25, 1.0])
def test_nonfinite_losses_are_left_out(policy: str, rate: float) -> None:
    ours, twin = network(), network()
    for model in (ours, twin):
        model[3].p = 0.0
    step = make(ours, policy, selector={"rate": rate, "nonfinite": "exclude"})
    x, y = poisoned()
    for _ in range(4):
        result = step(x, y)
        assert not {4, 9} & set(result.picked.indices.tolist())
        assert len(result.picked) >= 6
        torch.testing.assert_close(result.picked.weights.sum(), torch.tensor(1.0))
        assert result.loss.isfinite()
    assert all(bool(value.isfinite().all()) for value in ours.state_dict().values())
    if rate == 1.0:
        assert result.picked.excluded == 2 and step.selector.excluded == 8
        assert result.batch_loss.isfinite()
        optimizer = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9)
        good = x.isfinite().all(1)
        for _ in range(4):
            optimizer.zero_grad()
            CROSS_ENTROPY(twin(x[good]), y[good]).mean().backward()
            optimizer.step()
        for name, value in twin.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], value)


def test_a_batch_of_which_nothing_is_finite() -> None:
    for policy, rate in (("obtf", 0.25), ("uniform", 0.25), ("obtf", 1.0)):
        model = network()
        before = saved(model)
        step = make(model, policy, selector={"rate": rate, "nonfinite": "exclude"})
        result = step(torch.full((32, 6), float("nan")), batch()[1])
        assert not result.updated and len(result.picked) == 0
        assert unchanged(model, before)


# Sizes of batches


@pytest.mark.parametrize("policy", ["obtf", "uniform"])
@pytest.mark.parametrize("size", [{"rate": 0.25}, {"rate": 1.0}, {"k": 3}, {"k": 0}])
def test_an_empty_batch(policy: str, size: dict[str, Any]) -> None:
    model = network()
    before = saved(model)
    step = make(model, policy, selector=size)
    result = step(*batch(0))
    assert not result.updated and len(result.picked) == 0 and result.picked.n == 0
    assert result.loss.isnan() and result.batch_loss.isnan()
    assert result.picked.solution.has_solution and result.picked.mask.shape == (0,)
    assert unchanged(model, before) and step.selector.step == 0


def test_rate_zero_trains_on_nothing() -> None:
    model = network()
    before = saved(model)
    result = make(model, selector={"rate": 0.0})(*batch())
    assert not result.updated and result.picked.n == 32 and unchanged(model, before)


def test_the_last_batch_shrinks() -> None:
    step = make()
    assert len(step(*batch(32)).picked) == 8
    assert len(step(*batch(12)).picked) == 3


def test_the_last_batch_is_dropped() -> None:
    step = make(last_batch="drop")
    assert step(*batch(32)).updated
    before = saved(step.model)
    result = step(*batch(12))
    assert not result.updated and unchanged(step.model, before) and step.selector.step == 1
    named = make(last_batch="drop", batch_size=32)
    assert not named(*batch(12)).updated and named(*batch(32)).updated


@pytest.mark.parametrize("policy", ["obtf", "uniform"])
@pytest.mark.parametrize("rate", [0.25, 1.0])
@pytest.mark.parametrize("rest", [20, 5, 1])
def test_the_last_batch_is_padded(policy: str, rate: float, rest: int) -> None:
    ours, plain = Counting(6, 4), nn.Linear(6, 4)
    ours.seen = []  # type: ignore[misc]
    plain.load_state_dict(ours.state_dict())
    size = {"rate": rate}
    step = make(ours, policy, selector=size, last_batch="pad", batch_size=32)
    x, y = batch(rest)
    result = step(x, y)
    full = 8 if rate == 0.25 else 32
    assert ours.seen[-1] == (full, True)
    assert {n for n, grad in ours.seen if not grad} <= {32}
    picked = result.picked
    assert len(picked) == so.size_from_rate(rest, rate) and picked.n == rest
    losses = CROSS_ENTROPY(plain(x[picked.indices]), y[picked.indices])
    loss = (losses * picked.weights).sum()
    torch.testing.assert_close(result.loss, loss.detach())
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    loss.backward()
    optimizer.step()
    torch.testing.assert_close(ours.weight, plain.weight)


def test_constraints_per_batch() -> None:
    x, y = batch()
    step = make(selector={"rate": 0.25, "constraints": {"quotas": {0: 2, 1: 2, 2: 2, 3: 2}}})
    labels = torch.arange(32) % 4
    picked = step(x, y, constraints={"groups": labels}).picked
    assert torch.bincount(labels[picked.indices]).tolist() == [2, 2, 2, 2]
    everything = make(selector={"k": 32})
    with pytest.warns(st.SelectionWarning, match="only 31 candidates"):
        assert len(everything(x, y, constraints={"exclude": [3]}).picked) == 31


@dataclass
class Listening(StatelessPolicy):
    requires: ClassVar[frozenset[str]] = frozenset({"losses", "logits", "targets", "ids"})

    def __post_init__(self) -> None:
        self.feedback: list[Feedback] = []

    def propose(self, signals: Signals, k: int, rng: np.random.Generator) -> so.Problem:
        assert signals["logits"].shape == (len(signals["ids"]), 4)
        assert signals["targets"].shape == signals["losses"].shape
        return so.Problem(so.TopScores(np.asarray(-signals["ids"])), k)

    def observe(self, feedback: Feedback) -> None:
        self.feedback.append(feedback)


def test_policies_get_signals_and_feedback() -> None:
    policy = Listening()
    x, y = batch()
    ids = torch.arange(100, 132)
    step = make(policy=policy)
    result = step(x, y, ids=ids)
    assert result.picked.indices.tolist() == list(range(8))
    (feedback,) = policy.feedback
    assert feedback.step == 0 and feedback.scored
    assert feedback.ids.tolist() == list(range(100, 108))
    assert feedback.logits.shape == (8, 4) and not feedback.logits.requires_grad
    assert torch.equal(feedback.targets, y[:8])
    assert torch.equal(feedback.indices, result.picked.indices)
    torch.testing.assert_close((feedback.losses * feedback.weights).sum(), result.loss)
    with pytest.raises(so.ProblemError, match="needs the signal 'ids'"):
        step(x, y)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"scoring_mode": "evil"}, "Did you mean 'eval'"),
        ({"update_bn": "score"}, "Did you mean 'scored'"),
        ({"last_batch": "shrnk"}, "Did you mean 'shrink'"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_options(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(so.OptionError, match=message):
        make(**keywords)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("policy", ["obtf", "uniform"])
def test_on_a_device(policy: str) -> None:
    step = make(network().cuda(), policy, synchronize=True)
    x, y = (part.cuda() for part in batch())
    for _ in range(3):
        result = step(x, y)
    assert result.loss.device.type == result.picked.indices.device.type == "cuda"
    assert step.selector.fallbacks == 0


def test_it_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 6, generator=generator)
    y = (x[:, 0] > 0).long()
    step = make(nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4)))
    first = float(step(x, y).batch_loss)
    for _ in range(60):
        result = step(x, y)
    assert float(result.batch_loss) < 0.3 * first
