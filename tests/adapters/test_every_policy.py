"""Every registered policy in a training step: it trains, and a resumed run goes on identically."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest
from policy_runs import IDS, OPTIONS

from subsetopt.policies import list_policies

torch = pytest.importorskip("torch")

import subsetopt_torch as st  # noqa: E402

NAMES = [row.name for row in list_policies()]
EAGER = {"importance": {"tau_threshold": 1.02, "momentum": 0.3}}
N, K, STEPS = 48, 12, 8


def run(name: str, accumulate: bool) -> tuple[Any, Any]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 5))
    options = {**OPTIONS.get(name, {}), **EAGER.get(name, {})}
    selector = st.BatchSelector(name, k=K, seed=1, policy_options=options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    loss_fn = torch.nn.CrossEntropyLoss(reduction="none")
    return model, st.SelectiveStep(model, loss_fn, optimizer, selector, accumulate=accumulate)


def train(step: Any, numbers: range) -> list[Any]:
    """Return what was picked in each step."""
    picks = []
    for number in numbers:
        rng = np.random.default_rng(number)
        x = torch.as_tensor(rng.normal(size=(N, 6)), dtype=torch.float32)
        y = torch.as_tensor(rng.integers(0, 5, N))
        picks.append(step(x, y, ids=torch.as_tensor(rng.permutation(IDS)[:N])).picked)
    return picks


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_trains_and_resumes(name: str, accumulate: bool) -> None:
    model, step = run(name, accumulate)
    start = copy.deepcopy(model.state_dict())
    train(step, range(STEPS))
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "step": step.state_dict()}, file)
    straight = train(step, range(STEPS, 2 * STEPS))
    assert any(not torch.equal(model.state_dict()[key], start[key]) for key in start)
    assert step.selector.fallbacks == 0
    again, resumed = run(name, accumulate)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again.load_state_dict(saved["model"])
    resumed.load_state_dict(saved["step"])
    for mine, theirs in zip(train(resumed, range(STEPS, 2 * STEPS)), straight, strict=True):
        assert torch.equal(mine.indices, theirs.indices)
        assert torch.equal(mine.weights, theirs.weights)
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_scored_for_an_empty_choice(name: str) -> None:
    options = OPTIONS.get(name, {})
    selector = st.BatchSelector(name, rate=0.25, seed=0, policy_options=options)
    assert selector.needs_scoring(0) is False
