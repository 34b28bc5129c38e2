"""importance, balanced and gradient-matching in a training loop: digits, a small network."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest

import subsetopt as so

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")
from torch import nn  # noqa: E402

from subsetopt_torch import BatchSelector, SelectiveStep  # noqa: E402
from subsetopt_torch.experiment.data import load_data  # noqa: E402

BATCH = 128


def new_step(policy: str, lr: float = 0.3, rate: float = 0.1, **options: Any) -> SelectiveStep:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    selector = BatchSelector(policy, rate=rate, seed=3, policy_options=options)
    return SelectiveStep(model, nn.CrossEntropyLoss(reduction="none"), optimizer, selector)


def train(step: SelectiveStep, numbers: range) -> list[Any]:
    """Take the batches of these numbers; return what was picked of each, and the results."""
    data = load_data("digits")
    results = []
    for number in numbers:
        order = torch.randperm(
            len(data.train_x), generator=torch.Generator().manual_seed(number // 11)
        )
        rows = order[(number % 11) * BATCH : (number % 11 + 1) * BATCH]
        results.append(step(data.train_x[rows], data.train_y[rows]))
    return results


def accuracy(step: SelectiveStep) -> float:
    data = load_data("digits")
    with torch.no_grad():
        return float((step.model(data.test_x).argmax(1) == data.test_y).double().mean())


def test_importance_comes_on_and_then_scores_its_presample_only() -> None:
    step = new_step("importance", momentum=0.8, tau_threshold=1.4)
    policy: Any = step.selector.policy
    results = train(step, range(160))
    ons = [row.on for row in policy.history]
    assert len(ons) == 160 and not ons[0] and any(ons)
    (came_on, first), *_ = policy.switches
    assert first and came_on == ons.index(True)
    for result, on in zip(results, ons, strict=True):
        assert (result.losses is not None) is on
        assert len(result.picked) == 13
        if result.losses is None:
            assert torch.allclose(result.picked.weights, torch.tensor(1 / 13))
        else:
            assert result.losses.shape == (39,)
            assert result.picked.solution.solver == "multinomial"
    assert accuracy(step) > 0.9


def test_an_importance_that_cannot_come_on_is_an_error_of_the_first_step() -> None:
    step = new_step("importance", presample=None)
    with pytest.raises(so.OptionError, match=r"could never switch on with b = 13"):
        train(step, range(1))


@pytest.mark.parametrize(
    ("policy", "options"),
    [
        ("balanced", {}),
        ("balanced", {"balance": "logit_gradients", "max_weight": None}),
        ("balanced", {"score": "gradient_norm"}),
        ("balanced", {"score": "loss", "balance": None}),
        ("gradient-matching", {}),
        ("gradient-matching", {"weights": "nonnegative"}),
        ("gradient-matching", {"signal": "last_layer_gradients", "weights": "nonnegative"}),
        ("importance", {"score": "loss"}),
        ("importance", {"score": "gradient_norm", "tau_threshold": 1.2}),
    ],
)
def test_training_works_with_every_signal(policy: str, options: dict[str, Any]) -> None:
    step = new_step(policy, **options)
    train(step, range(80))
    assert step.selector.fallbacks == 0
    assert accuracy(step) > 0.6  # at first it is 0.1


def test_matching_logit_gradients_matches_the_gradient_of_the_last_bias() -> None:
    step = new_step("gradient-matching", weights="nonnegative", lr=0.0)
    data = load_data("digits")
    x, y = data.train_x[:BATCH], data.train_y[:BATCH]
    step.loss_fn(step.model(x), y).mean().backward()
    bias = step.model[2].bias
    whole = bias.grad.clone()
    step(x, y)
    assert torch.allclose(bias.grad, whole, atol=1e-6)


def test_weights_are_capped_in_training() -> None:
    step = new_step("balanced", mix=0.0, max_weight=2.0)
    policy: Any = step.selector.policy
    for result in train(step, range(60)):
        assert float(result.picked.weights.max()) <= 2.0 / 13 * (1 + 1e-6)
    assert policy.clipped.samples > 0 and policy.clipped.selections == 60


@pytest.mark.parametrize("nonfinite", ["raise", "exclude"])
@pytest.mark.parametrize(
    ("policy", "options"),
    [
        ("balanced", {}),
        ("balanced", {"mix": 1.0, "balance": None}),
        ("importance", {}),
        ("gradient-matching", {}),
    ],
)
@pytest.mark.parametrize("rate", [0.1, 0.98])
def test_a_sample_that_is_not_finite(
    policy: str, options: dict[str, Any], rate: float, nonfinite: str
) -> None:
    step = new_step(policy, rate=rate, **options)
    step.selector.nonfinite = nonfinite
    if policy == "importance":
        step.selector.policy.tau = 1e9  # type: ignore[attr-defined]
        step.selector.policy.presample = lambda state, rng: None  # type: ignore[attr-defined]
    data = load_data("digits")
    x = data.train_x[:BATCH].clone()
    x[[5, 70, 71]] = float("nan")
    if nonfinite == "raise":
        with pytest.raises(so.ProblemError, match="not finite at positions 5 "):
            step(x, data.train_y[:BATCH])
        return
    for _ in range(3):
        result = step(x, data.train_y[:BATCH])
        assert not {5, 70, 71} & set(result.picked.indices.tolist())
        assert len(result.picked) == (13 if rate == 0.1 else 125)
        assert bool(result.loss.isfinite())


@pytest.mark.parametrize("policy", ["importance", "balanced", "gradient-matching"])
def test_a_resumed_training_run_is_bit_identical(policy: str) -> None:
    def of(results: list[Any]) -> list[tuple[list[int], list[float]]]:
        return [(r.picked.indices.tolist(), r.picked.weights.tolist()) for r in results]

    options = {"importance": {"momentum": 0.8, "tau_threshold": 1.1}}.get(policy, {})
    whole = new_step(policy, **options)
    expected = of(train(whole, range(100)))
    first = new_step(policy, **options)
    begun = of(train(first, range(70)))
    file = io.BytesIO()
    torch.save((first.model.state_dict(), first.optimizer.state_dict(), first.state_dict()), file)
    file.seek(0)
    model, optimizer, state = torch.load(file, weights_only=True)
    second = new_step(policy, **options)
    second.model.load_state_dict(model)
    second.optimizer.load_state_dict(optimizer)
    second.load_state_dict(copy.deepcopy(state))
    assert begun + of(train(second, range(70, 100))) == expected
    if policy == "importance":
        came_on = whole.selector.policy.switches[0][0]  # type: ignore[attr-defined]
        assert came_on < 70
