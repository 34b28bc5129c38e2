"""Exact gradient norms against a loop of single-sample backward passes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from selector_parts import DEVICES
from signal_parts import LOSSES, Taking
from step_parts import CROSS_ENTROPY, batch, make, network

import subsetopt as so

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import subsetopt_torch as st  # noqa: E402
from subsetopt_torch.signals import layer_calls, layer_gradients  # noqa: E402


def by_loop(model: nn.Module, loss_fn: Any, x: Any, y: Any) -> torch.Tensor:
    model = copy.deepcopy(model).eval()
    norms = []
    for i in range(len(x)):
        model.zero_grad()
        loss_fn(model(x[i : i + 1]), y[i : i + 1]).sum().backward()
        parts = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        norms.append(torch.cat(parts).norm())
    return torch.stack(norms)


def convolutional() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Unflatten(1, (1, 6)),
        nn.Conv1d(1, 4, 3),
        nn.GroupNorm(2, 4),
        nn.ReLU(),
        nn.Conv1d(4, 4, 2),
        nn.BatchNorm1d(4),
        nn.Flatten(),
        nn.LayerNorm(12),
        nn.Linear(12, 4),
    )


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Linear(6, 4))
    model[2].weight = model[0].weight
    return model


def frozen() -> nn.Module:
    model = network()
    model[0].requires_grad_(False)
    return model


MODELS = {"dense": network, "convolutional": convolutional, "tied": tied, "partly frozen": frozen}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("loss", ["closed form", "any other"])
@pytest.mark.parametrize("chunk", [None, 1, 5, 100])
def test_norms_are_those_of_single_backward_passes(
    name: str, loss: str, chunk: int | None, device: str
) -> None:
    model = MODELS[name]().to(device).double().train()
    x, y = (part.to(device) for part in batch(12))
    x = x.double()
    for t in range(3):
        model(batch(12, t)[0].double().to(device))  # running statistics
    before = {key: value.clone() for key, value in model.state_dict().items()}
    stream = torch.get_rng_state()
    norms = st.gradient_norms(model, LOSSES[loss], x, y, chunk=chunk)
    torch.testing.assert_close(norms, by_loop(model, LOSSES[loss], x, y), rtol=1e-9, atol=1e-12)
    assert norms.shape == (12,) and norms.dtype == torch.float64 and not norms.requires_grad
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.training and all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), stream)


def test_float32_and_half_types() -> None:
    x, y = batch()
    model = network()
    torch.testing.assert_close(
        st.gradient_norms(model, CROSS_ENTROPY, x, y), by_loop(model, CROSS_ENTROPY, x, y)
    )
    half = nn.Linear(6, 4).bfloat16()
    norms = st.gradient_norms(half, CROSS_ENTROPY, x.bfloat16(), y)
    assert norms.dtype == torch.float32
    expected = by_loop(copy.deepcopy(half).float(), CROSS_ENTROPY, x.bfloat16().float(), y)
    torch.testing.assert_close(norms, expected, rtol=0.03, atol=0.0)


def test_within_autocast_norms_are_exact_all_the_same() -> None:
    model = network()
    x, y = batch()
    rounded = x.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        norms = st.gradient_norms(model, CROSS_ENTROPY, rounded, y)
    torch.testing.assert_close(norms, by_loop(model, CROSS_ENTROPY, rounded.float(), y))


class Keywords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 4)

    def forward(self, features: Any, extra: Any, factor: Any = 1.0) -> Any:
        scale, (shift,) = extra
        return {"logits": self.linear(features) * scale[:, None] * factor + shift}, None


def test_batches_of_any_build() -> None:
    x, y = batch()
    model, factor = Keywords(), torch.tensor(0.5)
    inputs = {"features": x, "extra": (x[:, 0], [x[:, :4]]), "factor": factor}
    targets = (y, {"weight": x[:, 1].abs()})

    def loss_fn(outputs: Any, targets: Any) -> torch.Tensor:
        return CROSS_ENTROPY(outputs[0]["logits"], targets[0]) * targets[1]["weight"]

    norms = st.gradient_norms(model, loss_fn, inputs, targets)
    expected = []
    for i in range(32):
        row = slice(i, i + 1)
        outputs = model(x[row], (x[row, 0], [x[row, :4]]), factor)
        loss = loss_fn(outputs, (y[row], {"weight": x[row, 1].abs()}))
        parts = torch.autograd.grad(loss.sum(), list(model.parameters()))
        expected.append(torch.cat([part.flatten() for part in parts]).norm())
    torch.testing.assert_close(norms, torch.stack(expected))


@pytest.mark.parametrize("limit", [1, 1000, 2**23])
def test_gradients_held_at_a_time_follow_from_their_memory(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    rule = layer_gradients._RULES[nn.Conv1d]

    def recorded(layer: Any, x: Any, g: Any, n: int, wanted: Any) -> Any:
        sizes.append(n)
        return rule(layer, x, g, n, wanted)

    monkeypatch.setitem(layer_gradients._RULES, nn.Conv1d, recorded)
    monkeypatch.setitem(layer_calls._CHUNK_BYTES, "cpu", limit)
    model = nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 4, 3), nn.Flatten())
    expected = by_loop(model, CROSS_ENTROPY, *batch())
    sizes.clear()
    torch.testing.assert_close(st.gradient_norms(model, CROSS_ENTROPY, *batch()), expected)
    at_a_time = min(32, max(1, limit // (16 * 4)))  # 12 weights, 4 biases
    assert max(sizes) == at_a_time and sum(sizes) == 32 + 3  # three are checked


def test_an_empty_batch() -> None:
    norms = st.gradient_norms(network(), CROSS_ENTROPY, *batch(0))
    assert norms.shape == (0,) and norms.dtype == torch.float32


def test_a_compiled_model_is_taken_for_what_it_was_made_of() -> None:
    model = network()
    compiled = torch.compile(model, backend="eager")
    x, y = batch()
    norms = st.gradient_norms(compiled, CROSS_ENTROPY, x, y)
    torch.testing.assert_close(norms, by_loop(model, CROSS_ENTROPY, x, y))


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_dropout_in_either_mode(mode: str) -> None:
    model = nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.5), nn.Linear(16, 4))
    x, y = batch()
    x, y = x[:1].expand(32, -1), y[:1].expand(32)
    norms = st.gradient_norms(model, CROSS_ENTROPY, x, y, mode=mode)
    assert (len(norms.unique()) > 1) == (mode == "train")


def test_batch_norm_in_training_mode_is_refused() -> None:
    model = network()
    with pytest.raises(so.ProblemError, match=r"layer '1' \(BatchNorm1d\) is in training mode"):
        st.gradient_norms(model, CROSS_ENTROPY, *batch(), mode="train")
    step = make(model, Taking("gradient_norms"), scoring_mode="train")
    with pytest.raises(so.ProblemError, match="in a SelectiveStep scoring_mode='eval'"):
        step(*batch())
    model[1].eval()
    model[3].eval()
    x, y = batch()
    norms = st.gradient_norms(model, CROSS_ENTROPY, x, y, mode="train")
    torch.testing.assert_close(norms, by_loop(model, CROSS_ENTROPY, x, y))


def test_batch_norm_without_statistics_is_refused_in_every_mode() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4, track_running_stats=False))
    with pytest.raises(so.ProblemError, match="keeps no running statistics and mixes the samples"):
        st.gradient_norms(model, CROSS_ENTROPY, *batch())


@pytest.mark.parametrize("rest", [32, 20])
@pytest.mark.parametrize("update_bn", ["picked", "scored"])
def test_in_a_step(rest: int, update_bn: Any) -> None:
    policy = Taking("gradient_norms")
    model = network()
    step = make(model, policy, last_batch="pad", batch_size=32, update_bn=update_bn)
    if update_bn == "scored":
        step.optimizer.param_groups[0]["lr"] = 0.0
        step(*batch())
        policy.seen.clear()
    x, y = batch(rest)
    after = copy.deepcopy(model)
    if update_bn == "scored":
        rows = torch.arange(32) % rest
        after(x[rows])  # gradients are asked for after the statistics were updated
    expected = by_loop(after, CROSS_ENTROPY, x, y)
    step(x, y)
    torch.testing.assert_close(torch.as_tensor(policy.seen[0]["gradient_norms"]), expected)


def test_a_batch_with_entries_that_are_no_tensors() -> None:
    class Worded(nn.Sequential):
        def forward(self, x: Any, words: Any) -> Any:
            lengths = torch.tensor([float(len(word)) for word in words])
            return super().forward(x) * lengths[:, None]

    model, (x, y) = Worded(nn.Linear(6, 4)), batch()
    words = ["a" * (1 + i % 3) for i in range(32)]
    norms = st.gradient_norms(model, CROSS_ENTROPY, (x, words), y)
    rows = [
        st.gradient_norms(model, CROSS_ENTROPY, (x[i : i + 1], words[i : i + 1]), y[i : i + 1])
        for i in range(32)
    ]
    torch.testing.assert_close(norms, torch.cat(rows))


@pytest.mark.parametrize(
    ("model", "loss_fn", "inputs", "chunk", "error", "message"),
    [
        (network(), CROSS_ENTROPY, None, 0, so.OptionError, "chunk must be at least 1 or None"),
        (network(), nn.CrossEntropyLoss(), None, None, so.ProblemError, "one number for the whole"),
        (
            network().requires_grad_(False),
            CROSS_ENTROPY,
            None,
            None,
            so.ProblemError,
            "no parameter of the model is trained",
        ),
    ],
)
def test_what_is_refused(
    model: Any, loss_fn: Any, inputs: Any, chunk: Any, error: type[Exception], message: str
) -> None:
    x, y = batch()
    with pytest.raises(error, match=message):
        st.gradient_norms(model, loss_fn, x if inputs is None else inputs, y, chunk=chunk)


def weighted(outputs: Any, both: Any) -> Any:
    return nn.functional.cross_entropy(outputs, both[0], both[1], reduction="none")


def test_what_all_samples_share_is_told_from_rows_by_the_first_batch() -> None:
    """Weights of 4 classes are no rows of a batch of 4, and a first batch of 4 is refused."""
    model, weights = nn.Linear(6, 4), torch.tensor([1.0, 2.0, 3.0, 4.0])
    x, y = batch()
    with pytest.raises(so.ProblemError, match=r"cannot be told whether its part of shape \(4,\)"):
        st.gradient_norms(model, weighted, x[:4], (y[:4], weights))
    norms = st.gradient_norms(model, weighted, x, (y, weights))
    some = st.gradient_norms(model, weighted, x[:4], (y[:4], weights))
    torch.testing.assert_close(some, norms[:4])
    with pytest.raises(so.ProblemError, match="have no part with one row for each"):
        st.gradient_norms(nn.Linear(6, 4), CROSS_ENTROPY, torch.ones(5, 6), y)


def test_a_step_tells_the_norms_which_parts_have_rows() -> None:
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    step = make(nn.Linear(6, 4), "gradient-norm", loss_fn=weighted, selector={"k": 2})
    for n in (32, 4):
        x, y = batch(n, seed=n)
        twin = nn.Linear(6, 4)
        twin.load_state_dict(step.model.state_dict())
        rows = [weighted(twin(x[i : i + 1]), (y[i : i + 1], weights)) for i in range(n)]
        norms = [
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, twin.parameters())]).norm()
            for loss in rows
        ]
        largest = torch.stack(norms).argsort(descending=True)[:2]
        result = step(x, (y, weights))
        assert set(result.picked.indices.tolist()) == set(largest.tolist())
