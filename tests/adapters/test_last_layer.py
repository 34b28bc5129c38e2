"""Last-layer gradients and features against backward passes of single samples."""

from __future__ import annotations

from typing import Any

import pytest
from signal_parts import LOSSES, Taking
from step_parts import CROSS_ENTROPY, batch, make, network

import subsetopt as so

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from subsetopt_torch.signals.last_layer import LastLayer  # noqa: E402

SIGNALS = ("last_layer_gradients", "features")


def by_loop(model: nn.Module, layer: nn.Linear, loss_fn: Any, x: Any, y: Any) -> torch.Tensor:
    """Return the gradient of each sample's loss with respect to a layer, one backward each."""
    parameters = [p for p in (layer.weight, layer.bias) if p is not None]
    model.eval()
    rows = []
    for i in range(len(x)):
        loss = loss_fn(model(x[i : i + 1]), y[i : i + 1]).sum()
        parts = torch.autograd.grad(loss, parameters)
        rows.append(torch.cat([part.flatten() for part in parts]))
    model.train()
    return torch.stack(rows)


def seen_by(model: nn.Module, x: Any, y: Any, loss_fn: Any = CROSS_ENTROPY, **keywords: Any) -> Any:
    """Return what a policy sees in two steps that change nothing."""
    policy = Taking(*SIGNALS)
    step = make(model, policy, loss_fn=loss_fn, **keywords)
    step.optimizer.param_groups[0]["lr"] = 0.0
    step(x, y)
    step(x, y)
    first, second = policy.seen
    for name in SIGNALS:
        torch.testing.assert_close(first[name], second[name])
    assert not any(module._forward_hooks for module in model.modules())
    return first


def assert_exact(
    model: nn.Module,
    layer: nn.Linear,
    x: Any,
    y: Any,
    loss_fn: Any = CROSS_ENTROPY,
    **keywords: Any,
) -> Any:
    expected = by_loop(model, layer, loss_fn, x, y)
    inputs = []
    handle = layer.register_forward_hook(lambda module, args, output: inputs.append(args[0]))
    model.eval()(x)
    model.train()
    handle.remove()
    seen = seen_by(model, x, y, loss_fn, **keywords)
    ours = seen["last_layer_gradients"]
    torch.testing.assert_close(ours, expected, check_dtype=False)
    assert seen["features"].shape == (len(x), layer.in_features)
    return seen, inputs[0].detach()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_row_is_the_gradient_of_one_sample(loss: str, dtype: str) -> None:
    wanted = getattr(torch, dtype)
    model = network().to(wanted)
    model[1].momentum = 0.0  # the statistics stay
    x, y = batch()
    loss_fn = LOSSES[loss]
    if loss == "weighted":
        loss_fn = nn.CrossEntropyLoss(
            loss_fn.weight.to(wanted), reduction="none", label_smoothing=0.1
        )
    seen, features = assert_exact(model, model[4], x.to(wanted), y, loss_fn)
    assert torch.equal(seen["features"], features)
    assert seen["last_layer_gradients"].dtype == wanted


def test_a_layer_without_a_bias() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4, bias=False))
    assert_exact(model, model[2], *batch())


class Shaped(nn.Module):
    """Does something to what the last layer returns."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self.body, self.head, self.change = nn.Linear(6, 5), nn.Linear(5, 4), change

    def forward(self, x: torch.Tensor) -> Any:
        return self.change(self.head(self.body(x).tanh()))


@pytest.mark.parametrize(
    "change",
    [lambda z: z.double(), lambda z: z.clone(), lambda z: z.view(len(z), 4), lambda z: z[:]],
)
def test_a_copy_or_a_view_of_the_output(change: Any) -> None:
    model = Shaped(change)
    assert_exact(model, model.head, *batch())


@pytest.mark.parametrize("change", [lambda z: z[:, 0], lambda z: z.squeeze(1)])
def test_one_output_without_its_dimension(change: Any) -> None:
    model = Shaped(change)
    model.head = nn.Linear(5, 1)
    x, y = batch()
    assert_exact(model, model.head, x, y.float() / 4, nn.BCEWithLogitsLoss(reduction="none"))


@pytest.mark.parametrize("layout", ["tokens first", "classes first", "copied", "flattened"])
def test_sequences_sum_over_their_positions(layout: str) -> None:
    change, per_token = {
        "tokens first": (lambda z: z, lambda o: o.transpose(1, 2)),
        "classes first": (lambda z: z.transpose(1, 2), lambda o: o),
        "copied": (lambda z: z.transpose(1, 2).contiguous(), lambda o: o),
        "flattened": (lambda z: z.flatten(0, 1).view(z.shape), lambda o: o.transpose(1, 2)),
    }[layout]

    def loss_fn(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return CROSS_ENTROPY(per_token(outputs), targets).mean(1)

    model = Shaped(change)
    x, y = torch.randn(8, 3, 6), torch.randint(0, 4, (8, 3))
    seen, features = assert_exact(model, model.head, x, y, loss_fn)
    torch.testing.assert_close(seen["features"], features.mean(1))


class Heads(nn.Module):
    """The layer of the logits is neither the last one made nor the last one called."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.body, self.other = nn.Linear(5, 4), nn.Linear(6, 5), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> Any:
        hidden = self.body(x)
        logits = self.head(input=hidden)
        return logits, self.other(logits.detach())


def test_the_layer_that_makes_the_logits_is_found() -> None:
    model = Heads()
    x, y = batch()
    by_outputs = lambda o, t: CROSS_ENTROPY(o[0], t)  # noqa: E731
    expected = by_loop(model, model.head, by_outputs, x, y)
    seen = seen_by(model, x, y, by_outputs)
    torch.testing.assert_close(seen["last_layer_gradients"], expected)
    torch.testing.assert_close(seen["features"], model.body(x).detach())


def test_zero_layers_are_told_apart_by_their_memory() -> None:
    model = Heads()
    nn.init.zeros_(model.head.weight), nn.init.zeros_(model.head.bias)
    nn.init.zeros_(model.other.weight), nn.init.zeros_(model.other.bias)
    seen = seen_by(model, *batch(), lambda o, t: CROSS_ENTROPY(o[0], t))
    assert seen["features"].shape == (32, 5)


@pytest.mark.parametrize("named", ["body", "module"])
def test_features_of_a_layer_that_is_named(named: str) -> None:
    model = Heads()
    policy = Taking("features")
    layer = "body" if named == "body" else model.body
    step = make(model, policy, loss_fn=lambda o, t: CROSS_ENTROPY(o[0], t), last_layer=layer)
    x, y = batch()
    step(x, y)
    assert torch.equal(policy.seen[0]["features"], x)


def test_features_do_not_need_logits_that_a_layer_makes() -> None:
    model = Shaped(lambda z: z.log_softmax(1))
    policy = Taking("features")
    x, y = batch()
    features = model.body(x).tanh().detach()
    make(model, policy, loss_fn=nn.NLLLoss(reduction="none"))(x, y)
    torch.testing.assert_close(policy.seen[0]["features"], features)


def test_only_the_layer_that_was_found_is_watched() -> None:
    model = network()
    last = LastLayer(model)
    for expected in (2, 1):
        with torch.no_grad(), last.recording() as calls:
            logits = model(batch()[0])
        assert len(calls) == expected
        last.features(calls, logits, 32)
    model[4] = nn.Linear(16, 4)  # the model is rebuilt: it is looked for again
    with torch.no_grad(), last.recording() as calls:
        logits = model(batch()[0])
    assert len(calls) == 2
    last.gradients(calls, logits, torch.ones_like(logits))
    assert calls[-1].layer is model[4]


class Breaking(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ValueError("broken")


def test_hooks_are_gone_when_the_forward_raises() -> None:
    model = nn.Sequential(nn.Linear(6, 4), Breaking())
    with pytest.raises(ValueError, match="broken"):
        make(model, Taking(*SIGNALS))(*batch())
    assert not model[0]._forward_hooks


def test_hooks_are_gone_when_the_loss_raises() -> None:
    model = network()
    with pytest.raises(so.ProblemError, match="one number for the whole batch"):
        make(model, Taking(*SIGNALS), loss_fn=nn.CrossEntropyLoss())(*batch())
    assert not any(module._forward_hooks for module in model.modules())


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.layer(x))


def in_place(z: torch.Tensor) -> torch.Tensor:
    return z.mul_(2.0)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Shaped(lambda z: z.log_softmax(1)), "need logits that are the output of an nn.Linear"),
        (Shaped(in_place), "need logits that are the output of an nn.Linear"),
        (Twice(), "called more than once in a forward"),
        (nn.Sequential(nn.Unflatten(1, (6, 1)), nn.Conv1d(6, 4, 1), nn.Flatten()), "no call of"),
    ],
)
def test_last_layer_gradients_that_cannot_be_had(model: nn.Module, message: str) -> None:
    with pytest.raises(so.ProblemError, match=message):
        make(model, Taking("last_layer_gradients"))(*batch())


def test_a_named_layer_that_does_not_make_the_logits() -> None:
    step = make(network(), Taking("last_layer_gradients"), last_layer="0")
    with pytest.raises(so.ProblemError, match="of last_layer, where it is given"):
        step(*batch())


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x[:3]).mean(0) + torch.zeros(len(x), 4)


def test_features_of_other_rows() -> None:
    with pytest.raises(so.ProblemError, match=r"called with shape \(3, 6\) for 32 samples"):
        make(Pooled(), Taking("features"))(*batch())


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("haed", "got 'haed'. Did you mean 'head'? There are: 'body', 'head'."),
        (nn.Linear(2, 2), "got a Linear. There are: 'body', 'head'."),
        (nn.ReLU(), "got a ReLU. There are"),
    ],
)
def test_a_layer_that_is_not_there(layer: Any, message: str) -> None:
    with pytest.raises(so.OptionError) as caught:
        make(Shaped(lambda z: z), last_layer=layer)
    assert message in str(caught.value)
