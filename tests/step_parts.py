"""What the tests of training steps share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import subsetopt_torch as st  # noqa: E402

CROSS_ENTROPY = nn.CrossEntropyLoss(reduction="none")


def network(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 4)
        )


def batch(n: int = 32, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 6, generator=generator), torch.randint(0, 4, (n,), generator=generator)


def make(
    model: nn.Module | None = None,
    policy: Any = "obtf",
    *,
    selector: dict[str, Any] | None = None,
    loss_fn: Callable[[Any, Any], Any] = CROSS_ENTROPY,
    **keywords: Any,
) -> st.SelectiveStep:
    model = network() if model is None else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    chosen = {"seed": 0, **(selector or {"rate": 0.25})}
    return st.SelectiveStep(
        model, loss_fn, optimizer, st.BatchSelector(policy, **chosen), **keywords
    )


def assert_same(a: nn.Module, b: nn.Module) -> None:
    ours, theirs = a.state_dict(), b.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def unchanged(model: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def saved(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


class Counting(nn.Linear):
    seen: ClassVar[list[tuple[int, bool]]]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append((len(x), torch.is_grad_enabled()))
        return super().forward(x)
