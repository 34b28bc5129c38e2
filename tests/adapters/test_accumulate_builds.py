"""Gathering samples of batches of any build, shape and precision."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from step_parts import CROSS_ENTROPY, Counting, batch, make, network

import subsetopt as so

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402


class Pair(NamedTuple):
    features: torch.Tensor
    note: list[str]


class OfPair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 4)
        self.notes: list[list[str]] = []

    def forward(self, pair: Pair, scale: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        assert len(pair.note) == len(pair.features) and mask.shape == (8, 6)
        self.notes.append(pair.note)
        return self.linear(pair.features * mask[0]) * scale


def pairs(t: int) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    x, y = batch(seed=t)
    pair = Pair(x, [f"{t}.{i}" for i in range(32)])
    # The mask has as many rows as there are samples picked, and is shared all the same.
    return {"pair": pair, "scale": torch.tensor(2.0), "mask": torch.ones(8, 6)}, {"label": y}


def test_nested_batches() -> None:
    def loss_fn(outputs: torch.Tensor, targets: dict[str, torch.Tensor]) -> torch.Tensor:
        return CROSS_ENTROPY(outputs, targets["label"])

    model = OfPair()
    step = make(model, "big-loss", loss_fn=loss_fn, accumulate=True)
    notes = []
    for t in range(4):
        result = step(*pairs(t), ids=np.arange(32))
        notes += [f"{t}.{i}" for i in result.picked.indices.tolist()]
    assert result.updated and model.notes[-1] == notes and len(notes) == 32


def test_what_samples_share_must_be_the_same() -> None:
    def loss_fn(outputs: torch.Tensor, targets: Any) -> torch.Tensor:
        return outputs.square().sum(1)

    class Scaled(nn.Linear):
        def forward(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
            return super().forward(x * scale)

    step = make(Scaled(6, 4), "big-loss", loss_fn=loss_fn, selector={"k": 16}, accumulate=True)
    step((batch()[0], torch.tensor(1.0)), None)
    with pytest.raises(so.ProblemError, match=r"share .* differs between the batches"):
        step((batch()[0], torch.tensor(2.0)), None)


def test_batches_must_be_of_one_build() -> None:
    step = make(nn.Linear(6, 4), accumulate=True)
    step(*batch(), ids=torch.arange(32))
    with pytest.raises(so.ProblemError, match=r"built unlike .* no ids.*or call flush\(\)"):
        step(*batch())
    step.flush()
    assert not step(*batch()).updated and step.gathered == 8


def test_samples_must_be_of_one_shape() -> None:
    def loss_fn(outputs: torch.Tensor, targets: Any) -> torch.Tensor:
        return outputs.square().flatten(1).sum(1)

    step = make(nn.Linear(6, 4), "big-loss", loss_fn=loss_fn, selector={"k": 16}, accumulate=True)
    step(torch.ones(32, 2, 6), None)
    with pytest.raises(so.ProblemError, match=r"shapes \(2, 6\) and \(3, 6\) cannot be gathered"):
        step(torch.ones(32, 3, 6), None)


def test_a_dropped_batch_gives_nothing() -> None:
    step = make(nn.Linear(6, 4), accumulate=True, last_batch="drop")
    step(*batch())
    assert len(step(*batch(12)).picked) == 0 and step.gathered == 8


def test_padding_fills_what_is_flushed() -> None:
    model = Counting(6, 4)
    model.seen = []  # type: ignore[misc]
    step = make(model, selector={"k": 12}, accumulate=True, last_batch="pad", batch_size=32)
    plain = nn.Linear(6, 4)
    plain.load_state_dict(model.state_dict())
    x, y = batch(20)
    rows = step(x, y).picked.indices
    assert step.flush().trained == 12
    assert model.seen == [(32, False), (32, True)]
    loss = CROSS_ENTROPY(plain(x[rows]), y[rows]).mean()
    loss.backward()
    torch.optim.SGD(plain.parameters(), lr=0.1).step()
    torch.testing.assert_close(model.weight, plain.weight)


@pytest.mark.parametrize("policy", ["big-loss", "uniform"])
def test_batch_norm_from_the_scored_batches(policy: str) -> None:
    model = network()
    step = make(model, policy, selector={"k": 16}, accumulate=True, update_bn="scored")
    step(*batch(seed=0))
    step(*batch(seed=1))
    # Two scoring passes, or the one training forward where there is none.
    assert int(model[1].num_batches_tracked) == (2 if policy == "big-loss" else 1)


def test_mixed_precision() -> None:
    def region() -> Any:
        return torch.autocast("cpu", dtype=torch.bfloat16)

    ours, plain = network(), network()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    step = make(ours, selector={"k": 16}, accumulate=True, autocast=region, scaler=scaler)
    other = make(plain, selector={"k": 16}, accumulate=True, autocast=region)
    for one in (step, other):
        torch.manual_seed(0)
        results = [one(*batch(seed=t)) for t in range(4)]
        assert [result.updated for result in results] == [False, True, False, True]
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-2, atol=1e-3)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_device() -> None:
    step = make(network().cuda(), selector={"k": 16}, accumulate=True, synchronize=True)
    results = [
        step(*(part.cuda() for part in batch(seed=t)), ids=torch.arange(32)) for t in range(3)
    ]
    assert [result.updated for result in results] == [False, True, False]
    assert step.flush().trained == 16
