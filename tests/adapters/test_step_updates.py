"""SelectiveStep: what an update changes, and what is kept where it cannot be made."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import pytest
from step_parts import CROSS_ENTROPY, assert_same, batch, make, network, saved, unchanged

import subsetopt as so

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import subsetopt_torch as st  # noqa: E402


class Overflowing(nn.Module):
    """Gives NaN for samples whose first feature is large, in training mode only."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.norm, self.linear, self.limit = nn.BatchNorm1d(6), nn.Linear(6, 4), limit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs = self.linear(self.norm(x))
        return (
            outputs * torch.where(x[:, :1] > self.limit, torch.nan, 1.0)
            if self.training
            else (outputs)
        )


def test_an_update_that_the_scaler_skips_is_none() -> None:
    model = nn.Linear(6, 4)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    step = make(model, scaler=scaler)
    x, y = batch()
    told = []
    for _ in range(40):
        before = saved(model)
        told.append(step(x * 50, y).updated)
        assert told[-1] is not unchanged(model, before)
    assert not told[0] and told[-1]


def test_a_scaler_that_is_switched_off_skips_nothing() -> None:
    assert make(scaler=torch.amp.GradScaler("cpu", enabled=False))(*batch()).updated


def test_an_update_that_a_wrapper_of_the_optimizer_puts_off_is_none() -> None:
    class Every2(torch.optim.Optimizer):
        """As the wrappers of training frameworks: no call of Optimizer.__init__."""

        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.optimizer, self.calls = optimizer, 0

        def zero_grad(self, set_to_none: bool = True) -> None:
            self.optimizer.zero_grad(set_to_none)

        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            self.calls += 1
            if self.calls % 2 == 0:
                self.optimizer.step(closure)

    step = make()
    step.optimizer = Every2(step.optimizer)
    told = []
    for _ in range(4):
        before = saved(step.model[0])
        told.append(step(*batch()).updated)
        assert told[-1] is not unchanged(step.model[0], before)
    assert told == [False, True, False, True]


def test_a_gathered_update_that_is_skipped_says_so() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    step = make(nn.Linear(6, 4), accumulate=True, selector={"k": 16}, scaler=scaler)
    x, y = batch()
    assert not step(x * 50, y).updated
    result = step(x * 50, y)
    assert not result.updated and result.trained == 32 and step.gathered == 0


@pytest.mark.parametrize("accumulate", [False, True])
def test_a_training_forward_that_overflows_raises_before_parameters_change(
    accumulate: bool,
) -> None:
    model = Overflowing(0.5)
    step = make(model, accumulate=accumulate, selector={"k": 16}, batch_size=16)
    before = saved(model.linear)
    with pytest.raises(so.ProblemError, match=r"positions .* in the training forward"):
        step(*batch())
    assert unchanged(model.linear, before)
    assert model.linear.weight.grad is None
    assert step.gathered == 0


@pytest.mark.parametrize("policy", ["obtf", "uniform"])
def test_a_training_forward_that_overflows_leaves_those_samples_out(policy: str) -> None:
    x, y = batch()
    model = Overflowing(0.5)
    twin = copy.deepcopy(model)
    step = make(model, policy, selector={"k": 16, "nonfinite": "exclude"})
    result = step(x, y)
    rows = result.picked.indices
    assert result.updated and result.trained == len(rows) == 16 - result.picked.excluded
    assert step.selector.excluded == result.picked.excluded > 0
    assert bool((x[rows, 0] <= 0.5).all())
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9)
    losses = CROSS_ENTROPY(twin(x[rows]), y[rows])
    (losses * result.picked.weights).sum().backward()
    optimizer.step()
    assert_same(model, twin)


def test_where_every_loss_overflows_nothing_changes() -> None:
    model = Overflowing(-torch.inf)
    before = saved(model)
    step = make(model, selector={"rate": 0.25, "nonfinite": "exclude"})
    result = step(*batch())
    assert not result.updated and result.loss.isnan() and result.trained == 0
    assert unchanged(model, before)


def test_gathered_samples_wait_until_they_are_trained_on() -> None:
    fails = [False]

    def loss_fn(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if fails[0] and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("there is no memory left")
        return CROSS_ENTROPY(outputs, targets)

    model = network()
    step = make(model, loss_fn=loss_fn, accumulate=True)
    for _ in range(3):
        step(*batch())
    before, fails[0] = saved(model), True
    with pytest.raises(torch.OutOfMemoryError):
        step(*batch())
    assert step.gathered == 32
    with pytest.raises(torch.OutOfMemoryError):
        step.flush()
    assert step.gathered == 32 and unchanged(model[0], saved(model[0]))
    assert torch.equal(before["0.weight"], model[0].weight)
    fails[0] = False
    assert step.flush().trained == 32 and step.gathered == 0


def test_a_batch_of_another_shape_leaves_the_waiting_samples() -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool1d(6), nn.Linear(6, 4))
    step = make(model, accumulate=True)
    x, y = batch()
    step(x, y)
    with pytest.raises(so.ProblemError, match=r"shapes \(6,\) and \(9,\) cannot be gathered"):
        step(torch.randn(32, 9), y)
    assert step.gathered == 8
    assert step.flush().trained == 8
    assert not step(torch.randn(32, 9), y).updated and step.gathered == 8


@pytest.mark.parametrize("last_batch", ["shrink", "pad"])
def test_batch_norm_gets_two_samples_and_says_so_once(last_batch: Any) -> None:
    step = make(selector={"rate": 0.1}, last_batch=last_batch)
    step(*batch(64))
    with pytest.warns(UserWarning, match="1 of 12 samples is to be picked") as caught:
        assert len(step(*batch(12)).picked) == 2
    assert caught[0].filename == __file__
    assert len(step(*batch(12)).picked) == 2
    step.model.eval()
    assert len(step(*batch(12)).picked) == 1


def test_layers_that_take_one_sample_get_one() -> None:
    images = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 4))
    step = make(images, selector={"k": 1})
    assert len(step(torch.randn(8, 1, 6, 6), torch.zeros(8, dtype=torch.long)).picked) == 1


@pytest.mark.parametrize("policy", ["selective-backprop", "obtf"])
def test_a_single_sample_uses_running_statistics(policy: str) -> None:
    x, y = batch(8)
    step = make(policy=policy, selector={"rate": 0.25})
    step(x, y)
    norm = step.model[1]
    before, modes = saved(norm), [m.training for m in step.model.modules()]
    with pytest.warns(UserWarning, match="needs more of them"):
        result = step(x[:1], y[:1])
        assert result.updated and len(result.picked) == 1
    assert torch.equal(norm.running_mean, before["running_mean"])
    assert norm.num_batches_tracked == before["num_batches_tracked"]
    assert [m.training for m in step.model.modules()] == modes


def test_an_error_of_the_model_stays_what_it_is() -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) == 1:
                raise ValueError("one is too few")
            return self.norm(x)

    step = make(Failing(), selector={"rate": 1.0})
    with pytest.raises(ValueError, match="one is too few"):
        step(torch.randn(1, 6), torch.zeros(1, dtype=torch.long))


def test_optimizers_that_need_a_closure_are_refused() -> None:
    model = network()
    with pytest.raises(so.OptionError, match="LBFGS evaluates the loss several times"):
        st.SelectiveStep(
            model, CROSS_ENTROPY, torch.optim.LBFGS(model.parameters()), st.BatchSelector(k=2)
        )


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_step_without_gradients_says_so(context: Any) -> None:
    step = make()
    with context(), pytest.raises(so.ProblemError, match="they are switched off here"):
        step(*batch())


@pytest.mark.parametrize("policy", ["obtf", "uniform"])
def test_selection_in_inference_mode_is_trained_on(policy: str) -> None:
    model, (x, y) = nn.Linear(6, 4), batch()
    selector = st.BatchSelector(policy, rate=0.25, seed=0)
    with torch.inference_mode():
        picked = selector(CROSS_ENTROPY(model(x), y))
        everything = selector.everything(32)
    for chosen in (picked, everything):
        rows = chosen.indices
        (CROSS_ENTROPY(model(x[rows]), y[rows]) * chosen.weights).sum().backward()
    assert model.weight.grad is not None


@pytest.mark.parametrize(("rate", "n"), [(0.25, 32), (1.0, 32), (0.25, 0), (0.0, 32)])
def test_results_can_be_sent_to_another_process(rate: float, n: int) -> None:
    result = make(selector={"rate": rate})(*batch(n))
    for again in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
        assert torch.equal(again.picked.indices, result.picked.indices)
        assert torch.equal(again.picked.weights, result.picked.weights)
        assert again.picked.n == n and again.updated == result.updated
        assert again.picked.solution.status is result.picked.solution.status
        torch.testing.assert_close(again.loss, result.loss, equal_nan=True)


def test_nothing_is_said_where_nothing_is_odd() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert make()(*batch()).updated
