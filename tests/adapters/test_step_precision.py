"""SelectiveStep: autocast, dtypes, gradient scaling."""

from __future__ import annotations

from typing import Any

import pytest
from step_parts import CROSS_ENTROPY, assert_same, batch, make, network

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402


@pytest.mark.parametrize("inside", [True, False])
def test_autocast(inside: bool) -> None:
    def region() -> Any:
        return torch.autocast("cpu", dtype=torch.bfloat16)

    ours, plain = nn.Linear(6, 4), nn.Linear(6, 4)
    plain.load_state_dict(ours.state_dict())
    x, y = batch()
    if inside:
        step = make(ours, autocast=region)
        result = step(x, y)
    else:
        step = make(ours)
        with region():
            result = step(x, y)
    rows = result.picked.indices
    with region():
        losses = CROSS_ENTROPY(plain(x[rows]), y[rows])
    (losses * result.picked.weights).sum().backward()
    torch.optim.SGD(plain.parameters(), lr=0.1).step()
    assert_same(ours, plain)


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
@pytest.mark.parametrize("policy", ["obtf", "uniform"])
def test_models_of_other_dtypes(dtype: str, policy: str) -> None:
    wanted = getattr(torch, dtype)
    model = nn.Linear(6, 4).to(wanted)
    x, y = batch()
    result = make(model, policy)(x.to(wanted), y)
    expected = torch.float64 if dtype == "float64" else torch.float32
    assert result.updated and result.picked.weights.dtype == expected


def test_gradient_scaler() -> None:
    ours, plain = network(), network()
    step = make(ours, scaler=torch.amp.GradScaler("cpu", init_scale=1024.0))
    other = make(plain)
    for t in range(3):
        torch.manual_seed(t)
        step(*batch(seed=t))
        torch.manual_seed(t)
        other(*batch(seed=t))
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
