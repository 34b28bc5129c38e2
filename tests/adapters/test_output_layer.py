"""Bounds are with respect to what the last layers make before their activations."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
from signal_parts import Taking, autograd
from step_parts import CROSS_ENTROPY, batch, make

import subsetopt as so

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

import subsetopt_torch as st  # noqa: E402

NLL = partial(F.nll_loss, reduction="none")
BCE = partial(F.binary_cross_entropy, reduction="none")


def squared(outputs: Any, targets: Any) -> Any:
    return (outputs - F.one_hot(targets, 4)).square().sum(1)


def flat(outputs: Any) -> Any:
    return outputs[:, 0]


class Ending(nn.Module):
    """A linear layer, with an activation on top that is no module."""

    def __init__(self, end: Callable[[Any], Any], classes: int = 4) -> None:
        super().__init__()
        self.linear, self.end = nn.Linear(6, classes), end

    def forward(self, x: torch.Tensor) -> Any:
        return self.end(self.linear(x))


# What the model ends with, the loss, whether the target is one of two classes.
ENDS: dict[str, tuple[Callable[[Any], Any], Callable[[Any, Any], Any], int]] = {
    "log-softmax, NLLLoss": (nn.LogSoftmax(1), nn.NLLLoss(reduction="none"), 4),
    "log-softmax, nll_loss": (partial(F.log_softmax, dim=1), NLL, 4),
    "log-softmax, any loss": (partial(F.log_softmax, dim=1), lambda o, y: NLL(o, y), 4),
    "log-softmax, classes weighted": (
        nn.LogSoftmax(1),
        nn.NLLLoss(torch.tensor([0.5, 2.0, 1.0, 3.0]), reduction="none"),
        4,
    ),
    "softmax, logarithm": (nn.Softmax(1), lambda o, y: NLL(o.log(), y), 4),
    "softmax, squared error": (nn.Softmax(1), squared, 4),
    "sigmoid, BCELoss": (
        lambda z: flat(z.sigmoid()),
        nn.BCELoss(reduction="none"),
        1,
    ),
    "sigmoid, binary_cross_entropy": (lambda z: flat(z).sigmoid(), BCE, 1),
    "sigmoid, any loss": (
        lambda z: z.sigmoid(),
        lambda o, y: BCE(o.squeeze(1), y),
        1,
    ),
    "sigmoid, squared error": (lambda z: flat(z).sigmoid(), nn.MSELoss(reduction="none"), 1),
    "sigmoid of several labels": (
        lambda z: z.sigmoid(),
        lambda o, y: BCE(o, F.one_hot(y, 4).float()).mean(1),
        4,
    ),
    "tanh": (torch.tanh, squared, 4),
    "rectified": (torch.relu, squared, 4),
    "log-sigmoid": (F.logsigmoid, lambda o, y: -o.sum(1), 4),
    "nothing": (lambda z: z, squared, 4),
}


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("scoring_mode", ["eval", "train"])
def test_the_bound_is_with_respect_to_the_last_layer(name: str, scoring_mode: Any) -> None:
    end, loss_fn, classes = ENDS[name]
    x, y = batch()
    if classes == 1:
        y = (y % 2).float()
    model = Ending(end, classes)
    layer = copy.deepcopy(model.linear)
    policy = Taking("upper_bound", "logit_gradients", learns_from=("upper_bound",))
    step = make(model, policy, loss_fn=loss_fn, scoring_mode=scoring_mode)
    step(x, y)
    expected = autograd(lambda z, t: loss_fn(end(z), t), layer(x), y)
    (seen,) = policy.seen
    torch.testing.assert_close(seen["logit_gradients"].reshape(expected.shape), expected)
    torch.testing.assert_close(seen["upper_bound"], expected.flatten(1).norm(dim=1))
    (feedback,) = policy.feedback
    bounds = expected[feedback.indices].flatten(1).norm(dim=1)
    torch.testing.assert_close(feedback.signals["upper_bound"], bounds)


def test_what_is_learned_first_is_before_the_activation_too() -> None:
    x, y = batch()
    model = Ending(torch.sigmoid, 1)
    policy = Taking("losses", learns_from=("upper_bound",))
    layer = copy.deepcopy(model.linear)
    binary = (y % 2).float()
    make(model, policy, loss_fn=lambda o, t: BCE(o[:, 0], t))(x, binary)
    rows = policy.feedback[0].indices
    expected = (layer(x)[rows, 0].sigmoid() - binary[rows]).abs().detach()
    torch.testing.assert_close(policy.feedback[0].signals["upper_bound"], expected)


@pytest.mark.parametrize("policy", ["upper-bound", "importance"])
def test_two_ways_to_write_a_network_are_one(policy: str) -> None:
    x, y = batch(64)
    picks = []
    for end, loss_fn in (
        (nn.Identity(), CROSS_ENTROPY),
        (nn.LogSoftmax(1), nn.NLLLoss(reduction="none")),
        (nn.LogSoftmax(1), lambda o, t: NLL(o, t)),
    ):
        torch.manual_seed(0)
        step = make(Ending(end), policy, selector={"k": 8}, loss_fn=loss_fn)
        picks.append([step(x, y).picked.indices.tolist() for _ in range(20)])
    assert picks[0] == picks[1] == picks[2]


class Heads(NamedTuple):
    shape: Any
    color: Any


HEADS: dict[str, Callable[[Any, Any], Any]] = {
    "dict": lambda a, b: {"shape": a, "color": b},
    "tuple": lambda a, b: (a, b),
    "named tuple": Heads,
}


def both(outputs: Any, targets: Any) -> Any:
    a, b = outputs.values() if isinstance(outputs, dict) else outputs
    return CROSS_ENTROPY(a, targets) + 50 * CROSS_ENTROPY(b, targets)


@pytest.mark.parametrize("build", HEADS)
def test_all_heads_that_the_loss_depends_on_count(build: str) -> None:
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 4), nn.Linear(6, 5)

        def forward(self, x: torch.Tensor) -> Any:
            return HEADS[build](self.a(x), self.b(x))

    model, (x, y) = TwoHeads(), batch()
    expected = torch.cat(
        [
            autograd(CROSS_ENTROPY, model.a(x), y),
            autograd(lambda o, t: 50 * CROSS_ENTROPY(o, t), model.b(x), y),
        ],
        1,
    )
    policy = Taking("upper_bound", "logit_gradients")
    make(model, policy, loss_fn=both)(x, y)
    torch.testing.assert_close(policy.seen[0]["logit_gradients"], expected)
    torch.testing.assert_close(policy.seen[0]["upper_bound"], expected.norm(dim=1))
    with pytest.raises(so.ProblemError, match="depends on several outputs of the model"):
        make(model, Taking("last_layer_gradients"), loss_fn=both)(x, y)


def test_outputs_that_the_loss_does_not_look_at_do_not_count() -> None:
    class WithHidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(6, 5), nn.Linear(5, 4)

        def forward(self, x: torch.Tensor) -> Any:
            hidden = self.body(x)
            return hidden, self.head(hidden)

    model, (x, y) = WithHidden(), batch()
    expected = autograd(CROSS_ENTROPY, model(x)[1], y)
    policy = Taking("logit_gradients")
    make(model, policy, loss_fn=lambda o, t: CROSS_ENTROPY(o[1], t))(x, y)
    torch.testing.assert_close(policy.seen[0]["logit_gradients"], expected)


def contrastive(outputs: Any, targets: Any) -> Any:
    return F.cross_entropy(outputs @ outputs.T, torch.arange(len(outputs)), reduction="none")


def relative(outputs: Any, targets: Any) -> Any:
    losses = CROSS_ENTROPY(outputs, targets)
    return losses / losses.mean()


@pytest.mark.parametrize("loss_fn", [contrastive, relative])
def test_losses_that_mix_samples_are_refused_where_gradients_are_wanted(loss_fn: Any) -> None:
    for policy in (Taking("upper_bound"), Taking("losses", learns_from=("upper_bound",))):
        with pytest.raises(so.ProblemError, match="depends on the other samples"):
            make(policy=policy, loss_fn=loss_fn)(*batch())
    assert make(policy="big-loss", loss_fn=loss_fn)(*batch()).updated


def test_random_losses_are_not_taken_for_mixed_ones() -> None:
    def noisy(outputs: Any, targets: Any) -> Any:
        return CROSS_ENTROPY(outputs, targets) * (1 + torch.rand(len(outputs)))

    assert make(policy=Taking("upper_bound"), loss_fn=noisy)(*batch()).updated


def test_bounds_that_tell_nothing_are_said_to_do_so_once() -> None:
    model = nn.Sequential(nn.Linear(6, 1), nn.Flatten(0))
    x, _ = batch()
    step = make(model, "upper-bound", loss_fn=nn.L1Loss(reduction="none"))
    with pytest.warns(UserWarning, match="same norm for all 32 samples"):
        step(x, torch.full((32,), 9.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(x, torch.full((32,), 9.0))


def test_a_head_of_zeros_is_no_reason_for_a_warning() -> None:
    model = nn.Linear(6, 4)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    for loss_fn in (CROSS_ENTROPY, lambda o, y: CROSS_ENTROPY(o, y)):
        assert make(model, "upper-bound", loss_fn=loss_fn)(*batch()).updated


def test_a_selector_refuses_to_take_several_labels_for_probabilities() -> None:
    selector = st.BatchSelector("upper-bound", k=4, seed=0)
    logits, losses = torch.randn(8, 4), torch.rand(8)
    mixed = torch.softmax(torch.randn(8, 4), 1)
    assert len(selector(losses, logits=logits, targets=mixed)) == 4
    assert len(selector(losses, logits=logits.half(), targets=mixed.half())) == 4
    several = (torch.rand(8, 4, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    with pytest.raises(so.ProblemError, match="several labels per sample"):
        selector(losses, logits=logits, targets=several)
    assert len(selector(losses, upper_bound=losses, targets=several)) == 4


def test_several_labels_in_a_step_have_the_gradient_of_its_loss() -> None:
    def loss_fn(outputs: Any, targets: Any) -> Any:
        return F.binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean(1)

    x, _ = batch()
    several = (torch.rand(32, 4, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    model = nn.Linear(6, 4)
    expected = (model(x).sigmoid() - several).detach() / 4
    policy = Taking("logit_gradients")
    make(model, policy, loss_fn=loss_fn)(x, several)
    torch.testing.assert_close(policy.seen[0]["logit_gradients"], expected)


def test_the_forward_through_the_whole_batch_has_no_gradients() -> None:
    seen: list[tuple[int, bool]] = []
    model = Ending(torch.sigmoid, 4)
    model.register_forward_hook(lambda m, a, o: seen.append((len(a[0]), torch.is_grad_enabled())))
    step = make(model, Taking("upper_bound"), loss_fn=squared, selector={"k": 8})
    step(*batch())
    step(*batch())
    assert seen == [(32, False), (2, True), (8, True), (32, False), (8, True)]


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_activations_are_found_in_half_precision(half: Any) -> None:
    x, y = batch()
    model = Ending(lambda z: z.to(half).log_softmax(1))
    expected = autograd(CROSS_ENTROPY, model.linear(x), y)
    policy = Taking("logit_gradients")
    make(model, policy, loss_fn=lambda o, t: NLL(o.float(), t))(x, y)
    torch.testing.assert_close(policy.seen[0]["logit_gradients"], expected, atol=0.02, rtol=0.02)
