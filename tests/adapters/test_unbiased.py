"""Weighted draws have the batch's gradient as their mean: 20,000 draws on a real network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import pytest

import subsetopt as so
from subsetopt.policies import (
    SelectionState,
    cross_entropy_gradients,
    make_policy,
    row_norms,
)

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from subsetopt_torch.experiment.data import load_data  # noqa: E402

N, K = 128, 13
DRAWS = 20_000
# 1,210 coordinates: a false alarm has a chance below 1%, and the seeds are fixed.
STANDARD_ERRORS = 4.5

Draw = tuple[np.ndarray, np.ndarray]


@cache
def network() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Train a small network a little; return the gradients (n, d) of a batch, and its signals."""
    data = load_data("digits")
    torch.manual_seed(0)
    layers = torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10)
    model = torch.nn.Sequential(*layers).double()
    x, y = data.train_x.double(), data.train_y
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for step in range(150):
        rows = torch.arange(step * N, (step + 1) * N) % len(x)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    x, y = x[-N:], y[-N:]
    parameters = {name: value.detach() for name, value in model.named_parameters()}

    def loss(values: dict[str, torch.Tensor], one_x: torch.Tensor, one_y: torch.Tensor):  # type: ignore[no-untyped-def]
        logits = torch.func.functional_call(model, values, (one_x[None],))
        return torch.nn.functional.cross_entropy(logits, one_y[None])

    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, x, y)
    with torch.no_grad():
        logits = model(x)
        losses = torch.nn.functional.cross_entropy(logits, y, reduction="none")
    by_logits = cross_entropy_gradients(logits, y)
    signals = {"losses": losses, "logit_gradients": by_logits, "upper_bound": row_norms(by_logits)}
    matrix = torch.cat([part.reshape(N, -1) for part in gradients.values()], dim=1).numpy()
    return matrix, {name: value.numpy() for name, value in signals.items()}


def drawn(policy: so.policies.Policy, problem: so.Problem, seed: int) -> Draw:
    solution = so.solve(problem, seed=(seed, 1))
    weigh = getattr(policy, "weigh", lambda answer: answer.weights)
    return solution.indices, weigh(solution)


def importance() -> Iterator[Draw]:
    """Draw as a step does: presample, score what was presampled, draw from it."""
    signals = network()[1]
    policy = make_policy("importance")
    policy.tau = 1e9  # type: ignore[attr-defined]
    for seed in range(DRAWS):
        generator = np.random.default_rng((seed, 0))
        state = SelectionState(seed, N, K)
        assert policy.needs_scoring(state)
        rows = policy.presample(state, generator)  # type: ignore[attr-defined]
        problem = policy.propose({"upper_bound": signals["upper_bound"][rows]}, K, generator)
        indices, weights = drawn(policy, problem, seed)
        yield rows[indices], weights


def multinomial() -> Iterator[Draw]:
    bounds = network()[1]["upper_bound"]
    problem = so.Problem(so.SamplingDesign(bounds / bounds.sum(), replacement=True), K)
    for seed in range(DRAWS):
        solution = so.solve(problem, "multinomial", seed=seed)
        yield solution.indices, solution.weights


def balanced(**options: object) -> Iterator[Draw]:
    policy = make_policy("balanced", **options)
    problem = policy.propose(network()[1], K, np.random.default_rng(0))
    for seed in range(DRAWS):
        yield drawn(policy, problem, seed)


def standard_errors(draws: Iterator[Draw]) -> np.ndarray:
    """Return by how many standard errors each coordinate of the mean gradient is off, (d,)."""
    weights = np.zeros((DRAWS, N))
    for row, (indices, values) in zip(weights, draws, strict=True):
        np.add.at(row, indices, values)
    gradients = network()[0]
    mean = weights.mean(axis=0)
    spread = (weights - mean).T @ (weights - mean) / DRAWS
    # This is the variance of W @ gradients, computed without its 20,000 x 1,210 entries.
    variance = np.einsum("ij,ik,kj->j", gradients, spread, gradients, optimize=True)
    error = np.sqrt(np.maximum(variance, 0.0) / DRAWS)
    missed = np.abs(mean @ gradients - gradients.mean(axis=0))
    silent = np.abs(gradients).max(axis=0) < 1e-12  # a dead unit has no gradient at all
    assert (missed[silent] < 1e-12).all() and silent.mean() < 0.5
    return missed[~silent] / error[~silent]


CASES: dict[str, Callable[[], Iterator[Draw]]] = {
    "importance": importance,
    "multinomial": multinomial,
    "balanced": lambda: balanced(max_weight=None),
    "balanced, on logit gradients": lambda: balanced(max_weight=None, balance="logit_gradients"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_mean_gradient_is_the_batchs(case: str) -> None:
    assert standard_errors(CASES[case]()).max() < STANDARD_ERRORS


def test_the_bias_of_a_cap_would_be_seen() -> None:
    assert standard_errors(balanced(max_weight=3.0)).max() > 2 * STANDARD_ERRORS
