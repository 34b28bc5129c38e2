"""Signals of the scoring forward, and of the training forward, against plain autograd."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as hst
from selector_parts import DEVICES
from signal_parts import LOSSES, WEIGHT, Taking, autograd
from step_parts import CROSS_ENTROPY, assert_same, batch, make, network, saved

import subsetopt as so
from subsetopt.policies import cross_entropy_gradients

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

import subsetopt_torch as st  # noqa: E402
from subsetopt_torch.signals.known_losses import closed_form, is_known  # noqa: E402

# Known losses


def numbers(n: int, generator: Any) -> Any:
    return torch.randint(0, 4, (n,), generator=generator)


def probabilities(n: int, generator: Any) -> Any:
    return torch.rand(n, 4, generator=generator).softmax(1)


def reals(n: int, generator: Any) -> Any:
    return torch.rand(n, generator=generator)


KNOWN = {
    "cross entropy": (nn.CrossEntropyLoss(reduction="none"), numbers),
    "cross entropy, all options": (
        nn.CrossEntropyLoss(WEIGHT, reduction="none", label_smoothing=0.1, ignore_index=2),
        numbers,
    ),
    "cross entropy of probabilities": (
        nn.CrossEntropyLoss(WEIGHT, reduction="none", label_smoothing=0.1),
        probabilities,
    ),
    "partial cross entropy": (
        partial(functional.cross_entropy, reduction="none", weight=WEIGHT, label_smoothing=0.2),
        numbers,
    ),
    "binary": (nn.BCEWithLogitsLoss(reduction="none"), reals),
    "binary, all options": (
        nn.BCEWithLogitsLoss(
            weight=torch.tensor(3.0), reduction="none", pos_weight=torch.tensor(2.0)
        ),
        reals,
    ),
    "partial binary": (
        partial(
            functional.binary_cross_entropy_with_logits,
            reduction="none",
            pos_weight=torch.tensor([0.5]),
        ),
        reals,
    ),
    "squared error": (nn.MSELoss(reduction="none"), reals),
    "partial squared error": (partial(functional.mse_loss, reduction="none"), reals),
}


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_known_losses_have_closed_forms(name: str, dtype: str) -> None:
    loss_fn, draw = KNOWN[name]
    generator = torch.Generator().manual_seed(0)
    targets = draw(40, generator)
    shape = (40,) if draw is reals else (40, 4)
    logits = (2 * torch.randn(shape, generator=generator)).to(getattr(torch, dtype))
    gradients = closed_form(loss_fn, logits, targets)
    assert gradients is not None
    assert gradients.dtype == (torch.float64 if dtype == "float64" else torch.float32)
    # The loss is asked in the precision that the closed form computes in.
    wide = logits.to(gradients.dtype)
    plain = targets.to(wide.dtype) if targets.is_floating_point() else targets
    expected = autograd(in_precision(loss_fn, wide.dtype), wide, plain)
    exact = 1e-9 if dtype == "float64" else 1e-4
    torch.testing.assert_close(gradients, expected, rtol=exact, atol=exact * 1e-2)


def in_precision(loss_fn: Any, dtype: Any) -> Any:
    if isinstance(loss_fn, partial):
        return partial(
            loss_fn.func,
            **{k: v.to(dtype) if torch.is_tensor(v) else v for k, v in loss_fn.keywords.items()},
        )
    return copy.deepcopy(loss_fn).to(dtype)


class Doubled(nn.CrossEntropyLoss):
    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(input, target)


def hooked() -> nn.Module:
    loss_fn = nn.CrossEntropyLoss(reduction="none")
    loss_fn.register_forward_hook(lambda module, args, output: 2 * output)
    return loss_fn


@pytest.mark.parametrize(
    "loss_fn",
    [
        Doubled(reduction="none"),
        hooked(),
        nn.CrossEntropyLoss(),
        nn.HuberLoss(reduction="none"),
        functional.cross_entropy,
        partial(functional.cross_entropy, weight=WEIGHT),
        partial(functional.cross_entropy, reduce=False),
        partial(functional.cross_entropy, torch.zeros(3, 4), reduction="none"),
        partial(functional.huber_loss, reduction="none"),
        lambda outputs, targets: CROSS_ENTROPY(outputs, targets),
    ],
)
def test_other_losses_are_not_taken_for_known_ones(loss_fn: Any) -> None:
    assert not is_known(loss_fn)
    assert closed_form(loss_fn, torch.zeros(3, 4), torch.zeros(3, dtype=torch.long)) is None


def test_known_losses_of_other_shapes_have_no_closed_form() -> None:
    labels = torch.zeros(3, 2, dtype=torch.long)
    assert closed_form(CROSS_ENTROPY, torch.zeros(3, 4, 2), labels) is None
    assert closed_form(CROSS_ENTROPY, {"logits": torch.zeros(3, 4)}, labels[:, 0]) is None
    assert closed_form(nn.MSELoss(reduction="none"), torch.zeros(3, 4), torch.zeros(3, 4)) is None
    weight = torch.ones(3, 3)
    binary = nn.BCEWithLogitsLoss(weight=weight, reduction="none")
    assert closed_form(binary, torch.zeros(3), torch.zeros(3)) is None


# In a step


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("rest", [32, 20])
def test_gradients_of_the_scoring_forward(name: str, rest: int) -> None:
    loss_fn = LOSSES[name]
    policy = Taking("losses", "logit_gradients", "upper_bound", "targets")
    step = make(policy=policy, loss_fn=loss_fn, last_batch="pad", batch_size=32)
    x, y = batch(rest)
    step.model.eval()
    logits = step.model(x)
    expected = autograd(loss_fn, logits, y)
    losses = loss_fn(logits, y).detach()
    step.model.train()
    result = step(x, y)
    (seen,) = policy.seen
    torch.testing.assert_close(seen["logit_gradients"], expected)
    torch.testing.assert_close(seen["upper_bound"], expected.norm(dim=1))
    torch.testing.assert_close(seen["losses"], losses)
    torch.testing.assert_close(result.losses, losses)
    assert not any(torch.as_tensor(value).requires_grad for value in seen.values())


def test_the_upper_bound_alone_comes_as_a_vector_on_the_host() -> None:
    policy = Taking("upper_bound")
    x, y = batch()
    make(policy=policy)(x, y)
    (seen,) = policy.seen
    assert set(seen) == {"upper_bound", "positions"} and isinstance(seen["upper_bound"], np.ndarray)


@pytest.mark.parametrize("loss", ["closed form", "any other"])
def test_only_what_is_required_is_computed(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*args: Any, **keywords: Any) -> None:
        raise AssertionError("nothing of this is required")

    for name in ("_with_gradients", "OutputLayer", "_of_gradients", "norms_of_rows"):
        monkeypatch.setattr(f"subsetopt_torch.signals.scoring_forward.{name}", forbidden)
    policy = Taking("losses", "logits")
    make(policy=policy, loss_fn=LOSSES[loss])(*batch())
    assert len(policy.seen) == 1 and policy.feedback[0].signals == {}


def test_what_is_given_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Taking("upper_bound")
    monkeypatch.setattr("subsetopt_torch.signals.scoring_forward._with_gradients", None)
    bounds = torch.arange(32.0)
    make(policy=policy)(*batch(), upper_bound=bounds)
    assert policy.seen[0]["upper_bound"].tolist() == bounds.tolist()


@pytest.mark.parametrize("loss", ["closed form", "any other"])
def test_signals_do_not_change_the_training(loss: str) -> None:
    everything = ("upper_bound", "logit_gradients", "features", "last_layer_gradients")
    plain, ours = network(), network()
    for model, names, learns in (
        (plain, ("losses",), ()),
        (ours, ("losses", *everything, "gradient_norms"), ("upper_bound", "logit_gradients")),
    ):
        torch.manual_seed(3)
        step = make(model, Taking(*names, learns_from=learns), loss_fn=LOSSES[loss])
        for t in range(3):
            step(*batch(seed=t))
    assert_same(ours, plain)
    assert not any(p._forward_hooks for p in ours.modules())


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_forward_through_the_network_has_no_gradients(mode: str) -> None:
    seen: list[bool] = []
    model = nn.Sequential(nn.Linear(6, 4))
    model.register_forward_hook(lambda *a: seen.append(torch.is_grad_enabled()))
    policy = Taking("upper_bound")
    make(model, policy, loss_fn=LOSSES["any other"], scoring_mode=mode)(*batch())
    assert seen == [False, True] and torch.is_grad_enabled()


def test_sequences_have_one_norm_over_all_tokens() -> None:
    def mean_over_tokens(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return CROSS_ENTROPY(outputs.transpose(1, 2), targets).mean(1)

    x, y = torch.randn(8, 5, 6), torch.randint(0, 4, (8, 5))
    model = nn.Linear(6, 4)
    expected = autograd(mean_over_tokens, model(x), y)
    policy = Taking("upper_bound", "logit_gradients")
    make(model, policy, loss_fn=mean_over_tokens)(x, y)
    (seen,) = policy.seen
    torch.testing.assert_close(seen["logit_gradients"], expected.flatten(1))
    torch.testing.assert_close(seen["upper_bound"], expected.flatten(1).norm(dim=1))


# What a policy learns from


@pytest.mark.parametrize("loss", ["closed form", "any other"])
@pytest.mark.parametrize("last_batch", ["shrink", "pad"])
@pytest.mark.parametrize("accumulate", [False, True])
def test_what_the_training_forward_tells(loss: str, last_batch: str, accumulate: bool) -> None:
    policy = Taking("losses", learns_from=("upper_bound", "logit_gradients"))
    model = nn.Linear(6, 4)
    step = make(
        model,
        policy,
        loss_fn=LOSSES[loss],
        last_batch=last_batch,
        batch_size=32,
        accumulate=accumulate,
    )
    x, y = batch(20)
    for _ in range(8):
        before = nn.Linear(6, 4)
        before.load_state_dict(saved(model))
        step(x, y)
        if policy.feedback:
            break
    feedback = policy.feedback[0]
    k = len(feedback.indices)
    assert k == (32 if accumulate else 5)
    logits = before(x[feedback.indices])
    torch.testing.assert_close(feedback.logits, logits.detach())
    expected = autograd(LOSSES[loss], logits, y[feedback.indices])
    torch.testing.assert_close(feedback.signals["logit_gradients"], expected)
    torch.testing.assert_close(feedback.signals["upper_bound"], expected.norm(dim=1))
    assert not any(value.requires_grad for value in feedback.signals.values())


def test_learning_leaves_the_random_stream() -> None:
    def noisy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return CROSS_ENTROPY(outputs, targets) * (1 + torch.rand(len(outputs)))

    streams = []
    for learns in ((), ("upper_bound",)):
        torch.manual_seed(0)
        make(policy=Taking("losses", learns_from=learns), loss_fn=noisy)(*batch())
        streams.append(torch.get_rng_state())
    assert torch.equal(*streams)


def test_learning_from_what_the_logits_do_not_tell() -> None:
    with pytest.raises(
        so.OptionError,
        match="logit_gradients and upper_bound of the training forward; learns_from of Taking names"
        " gradient_norms",
    ):
        make(policy=Taking("losses", learns_from=("gradient_norms", "upper_bound")))


# Rows whose loss is not finite


@pytest.mark.parametrize("loss", ["closed form", "any other"])
def test_rows_that_are_left_out_are_zero(loss: str) -> None:
    policy = Taking("upper_bound", "logit_gradients", "features", "gradient_norms")
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4))
    selector = {"rate": 0.25, "nonfinite": "exclude"}
    step = make(model, policy, selector=selector, loss_fn=LOSSES[loss])
    x, y = batch()
    x[4] = float("nan")
    step(x, y)
    (seen,) = policy.seen
    for name in policy.wanted:
        assert bool(seen[name].isfinite().all()) and bool((seen[name][4] == 0).all())
        assert bool((seen[name][5] != 0).any())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tiny_gradients_have_a_norm(dtype: str) -> None:
    policy = Taking("upper_bound", "logit_gradients")
    model = nn.Linear(6, 4).to(getattr(torch, dtype))
    make(model, policy, loss_fn=lambda o, y: CROSS_ENTROPY(o, y) * 1e-25)(
        batch()[0].to(model.weight.dtype), batch()[1]
    )
    (seen,) = policy.seen
    expected = seen["logit_gradients"].double().norm(dim=1)
    assert bool((expected > 1e-27).all())
    torch.testing.assert_close(seen["upper_bound"].double(), expected, rtol=1e-6, atol=0.0)


# A selector by itself


@pytest.mark.parametrize("device", DEVICES)
@given(seed=hst.integers(0, 99))
def test_a_selector_derives_from_logits_and_targets(device: str, seed: int) -> None:
    x, y = batch(12, seed)
    logits, y = x[:, :4].to(device), y.to(device)
    losses = CROSS_ENTROPY(logits, y)
    policy = Taking("losses", "upper_bound", "logit_gradients")
    st.BatchSelector(policy, k=3)(losses, logits=logits, targets=y)
    expected = cross_entropy_gradients(logits, y)
    (seen,) = policy.seen
    torch.testing.assert_close(seen["logit_gradients"], expected)
    torch.testing.assert_close(seen["upper_bound"], expected.norm(dim=1))
    given_bound = torch.arange(12.0)
    st.BatchSelector(policy, k=3)(losses, logits=logits, targets=y, upper_bound=given_bound)
    assert policy.seen[1]["upper_bound"].tolist() == given_bound.tolist()


def test_a_selector_without_targets_says_what_it_needs() -> None:
    selector = st.BatchSelector(Taking("upper_bound"), k=3)
    with pytest.raises(so.ProblemError, match="'upper_bound': pass upper_bound= to the selector"):
        selector(torch.ones(5), logits=torch.ones(5, 2))


# On a device, and in mixed precision


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("half", [False, True])
def test_devices_and_autocast(device: str, loss: str, half: bool) -> None:
    model = network().to(device)
    x, y = (part.to(device) for part in batch())
    everything = ("upper_bound", "logit_gradients", "features", "last_layer_gradients")
    policy = Taking(
        "losses", *everything, "gradient_norms", learns_from=("upper_bound", "logit_gradients")
    )

    def region() -> Any:
        return torch.autocast(device, dtype=torch.bfloat16, enabled=half)

    loss_fn = LOSSES[loss]
    if loss == "weighted":
        loss_fn = nn.CrossEntropyLoss(WEIGHT, reduction="none", label_smoothing=0.1).to(device)
    model.eval()
    with region():
        logits = model(x)
    model.train()
    expected = autograd(loss_fn, logits.float(), y)
    scaler = torch.amp.GradScaler(device, init_scale=64.0)
    make(model, policy, loss_fn=loss_fn, autocast=region, scaler=scaler)(x, y)
    (seen,), (feedback,) = policy.seen, policy.feedback
    bound = seen["upper_bound"]
    assert bound.dtype == torch.float32 and bound.device.type == device
    slack = {"rtol": 0.02, "atol": 0.01} if half else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(seen["logit_gradients"], expected, **slack)
    torch.testing.assert_close(bound, seen["logit_gradients"].norm(dim=1))
    outer = torch.einsum("nc,nh->nch", seen["logit_gradients"], seen["features"].float())
    torch.testing.assert_close(seen["last_layer_gradients"][:, :64], outer.flatten(1))
    assert seen["last_layer_gradients"].dtype == torch.float32
    assert bool((seen["gradient_norms"] >= 0.9 * seen["last_layer_gradients"].norm(dim=1)).all())
    assert feedback.signals["upper_bound"].shape == (8,)
