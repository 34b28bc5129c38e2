"""Moments of training against per-sample gradients, one backward pass each."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from benchmarks.harness.moments import Moment, observe
from benchmarks.rivals.gradient_methods import METHODS
from subsetopt_torch.experiment.comparison import make_model


def moment(n: int = 24) -> tuple[Moment, np.ndarray]:
    """Return a moment of a fresh network, and its per-sample gradients as rows."""
    model = make_model(6, 4, seed=0)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 6, generator=generator)
    y = torch.randint(4, (n,), generator=generator)
    signals, gram = observe(model, x, y)
    rows = []
    for i in range(n):
        loss = nn.functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        parts = torch.autograd.grad(loss, list(model.parameters()))
        rows.append(torch.cat([part.flatten() for part in parts]).double().numpy())
    return Moment("toy", 0, 0.0, {**signals, "ids": np.arange(n)}, gram), np.array(rows)


def test_the_gram_matrix_is_that_of_the_gradients() -> None:
    found, rows = moment()
    np.testing.assert_allclose(found.gram, rows @ rows.T, rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(
        found.signals["gradient_norms"], np.linalg.norm(rows, axis=1), rtol=1e-4
    )


def test_distances_are_those_of_the_gradients_and_repeats_count() -> None:
    found, rows = moment()
    indices, weights = np.array([1, 5, 5, 9]), np.array([0.2, 0.1, 0.4, 0.3])
    mean = rows.mean(axis=0)
    slow = np.linalg.norm(weights @ rows[indices] - mean) / np.linalg.norm(mean)
    assert abs(found.distance(indices, weights) - slow) < 1e-4 * slow


def test_every_method_picks() -> None:
    found, _ = moment()
    for method in METHODS.values():
        indices, weights = method.pick(found, 6, 0)
        assert 0 < indices.size <= 6, method.name
        assert np.isfinite(weights).all(), method.name
        assert np.unique(indices).size == indices.size or method.weighted, method.name
