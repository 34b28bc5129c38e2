"""What the tests of selectors share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.cuda,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
        ],
    ),
]
POLICIES = ["uniform", "big-loss", "small-loss", "proportional-loss", "obtf"]


def losses(n: int = 128, seed: int = 5, **keywords: Any) -> torch.Tensor:
    values = np.random.default_rng(seed).exponential(size=n)
    return torch.as_tensor(values, dtype=keywords.pop("dtype", torch.float32), **keywords)


def with_bad(n: int = 64) -> torch.Tensor:
    vector = losses(n)
    vector[3], vector[10], vector[20] = float("nan"), float("inf"), -float("inf")
    return vector
