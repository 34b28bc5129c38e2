"""SelectiveStep and BatchSelector: signals that the caller passes."""

from __future__ import annotations

from typing import Any

import pytest
from signal_parts import Taking
from step_parts import batch, make, network

import subsetopt as so

torch = pytest.importorskip("torch")

import subsetopt_torch as st  # noqa: E402


@pytest.mark.parametrize(
    ("name", "nearest"), [("loses", "losses"), ("logit", "logits"), ("upper_bounds", "upper_bound")]
)
@pytest.mark.parametrize("rate", [0.25, 1.0])
def test_misspelt_signals_are_refused(name: str, nearest: str, rate: float) -> None:
    x, y = batch()
    values: Any = {name: torch.ones(32)}
    with pytest.raises(so.OptionError, match=f"named '{name}'. Did you mean '{nearest}'"):
        make(selector={"rate": rate})(x, y, **values)
    selector = st.BatchSelector("uniform", rate=0.25, seed=0)
    with pytest.raises(so.OptionError, match=f"Did you mean '{nearest}'"):
        selector(torch.rand(32), **values)
    with pytest.raises(so.OptionError, match=f"Did you mean '{nearest}'"):
        selector.without_losses(32, **values)
    assert selector.step == 0


def test_nonsense_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(so.OptionError, match=r"named 'zzz'. Signals are .*ids.*targets"):
        make()(*batch(), zzz=1)


def test_signals_that_a_policy_requires_may_have_any_name() -> None:
    step = make(policy=Taking("rewards"))
    step(*batch(), rewards=torch.arange(32.0))
    assert step.selector.policy.seen[0]["rewards"].tolist() == list(range(32))
    with pytest.raises(so.OptionError, match="Did you mean 'rewards'"):
        step(*batch(), reward=torch.arange(32.0))


def test_losses_that_are_given_are_not_computed() -> None:
    calls = []
    model = network()
    model.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    step = make(model, "big-loss", selector={"k": 4})
    losses = torch.arange(32.0).flip(0)
    result = step(*batch(), losses=losses)
    assert calls == [True] and result.picked.indices.tolist() == [0, 1, 2, 3]
    assert result.batch_loss == losses.mean() and torch.equal(result.losses, losses)
    assert result.updated


def test_losses_that_are_given_are_looked_at() -> None:
    losses = torch.ones(32)
    losses[5] = torch.nan
    with pytest.raises(so.ProblemError, match=r"positions 5 \(nan\)"):
        make(policy="big-loss")(*batch(), losses=losses)


def test_losses_that_are_given_go_along_with_what_is_computed() -> None:
    policy = Taking("losses", "features")
    step = make(policy=policy)
    x, y = batch()
    result = step(x, y, losses=torch.arange(32.0))
    assert policy.seen[0]["losses"].tolist() == list(range(32))
    assert policy.seen[0]["features"].shape == (32, 16)
    torch.testing.assert_close(result.batch_loss, result.losses.mean())
    assert result.losses.max() < 31.0


@pytest.mark.parametrize("name", ["upper_bound", "gradient_norms", "logits", "features"])
def test_a_signal_that_is_given_needs_no_scoring_pass(name: str) -> None:
    policy, calls = Taking(name), []
    model = network()
    model.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    given: Any = {name: torch.rand(32, 4) if name in ("logits", "features") else torch.rand(32)}
    result = make(model, policy)(*batch(), **given)
    assert calls == [True] and result.losses is None and result.batch_loss.isnan()
    assert torch.equal(torch.as_tensor(policy.seen[0][name]), given[name])


def test_a_presample_holds_for_what_is_given() -> None:
    class Half(Taking):
        def presample(self, state: Any, rng: Any) -> Any:
            return range(16, 32)

    for given in ("losses", "upper_bound"):
        policy = Half(given)
        result = make(policy=policy)(*batch(), **{given: torch.arange(32.0)})
        assert policy.seen[0][given].tolist() == list(range(16, 32))
        assert int(result.picked.indices.min()) >= 16
