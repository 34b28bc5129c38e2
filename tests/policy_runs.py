"""Every signal that a policy may ask for, and a training run without a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

import subsetopt as so
from subsetopt.policies import (
    Feedback,
    Policy,
    SelectionState,
    SolverChoice,
    WithLearnsFrom,
    WithPresample,
    WithSolver,
    WithWeigh,
    has,
    make_policy,
)
from subsetopt.registry import create

IDS = 200  # ids of samples lie below

# What a policy cannot do without; everything else has a default.
OPTIONS: dict[str, dict[str, Any]] = {
    "rho-loss": {"irreducible": np.random.default_rng(3).exponential(size=IDS)}
}


def make(name: str, **options: Any) -> Policy:
    """Return a policy with default options, and those it cannot do without."""
    return make_policy(name, **{**OPTIONS.get(name, {}), **options})


def every_signal(n: int, seed: int = 0, classes: int = 5, width: int = 3) -> dict[str, np.ndarray]:
    """Return consistent signals of n samples under cross entropy."""
    rng = np.random.default_rng(seed)
    logits = 2.0 * rng.normal(size=(n, classes))
    targets = rng.integers(0, classes, n)
    features = rng.normal(size=(n, width))
    odds = np.exp(logits)
    gradients = odds / odds.sum(1, keepdims=True)
    losses = -np.log(gradients[np.arange(n), targets])
    gradients[np.arange(n), targets] -= 1.0
    outer = (gradients[:, :, None] * features[:, None, :]).reshape(n, -1)
    return {
        "losses": losses,
        "logits": logits,
        "targets": targets,
        "ids": rng.permutation(IDS)[:n],
        "positions": np.arange(n),
        "features": features,
        "logit_gradients": gradients,
        "last_layer_gradients": outer,
        "upper_bound": np.linalg.norm(gradients, axis=1),
        "gradient_norms": np.linalg.norm(np.column_stack([gradients, outer]), axis=1),
    }


def resolved(name: str, **options: Any) -> Any:
    """Return the solver that ``"auto"`` stands for with a policy."""
    policy = make(name, **options)
    assert has(policy, WithSolver)
    return create(policy.solver.name, policy.solver.options)


def rows(signals: Mapping[str, Any], indices: Any) -> dict[str, Any]:
    """Return the signals of some samples."""
    return {name: value[indices] for name, value in signals.items()}


def selection(
    policy: Policy, signals: Mapping[str, Any], k: int, seed: int, step: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Make a selection as a training loop does; return positions and training weights."""
    n = len(signals["positions"])
    rng = np.random.default_rng([seed, step])
    state = SelectionState(step, n, k)
    scored = k > 0 and bool(policy.requires) and policy.needs_scoring(state)
    positions = np.arange(n)
    if scored and has(policy, WithPresample):
        drawn = policy.presample(state, rng)
        positions = positions if drawn is None else drawn
    problem = policy.propose(rows(signals, positions), k, rng)
    choice = policy.solver if has(policy, WithSolver) else SolverChoice("auto")
    seeds = (seed, step)
    solution = so.solve(problem, choice.name, seed=seeds, options=choice.options).require()
    weights = policy.weigh(solution) if has(policy, WithWeigh) else solution.weights
    chosen = positions[solution.indices]
    learned = policy.learns_from if has(policy, WithLearnsFrom) else ()
    policy.observe(
        Feedback(
            step,
            chosen,
            weights,
            signals["losses"][chosen],
            signals["logits"][chosen],
            signals["targets"][chosen],
            signals["ids"][chosen],
            scored,
            rows({s: signals[s] for s in learned}, chosen),
        )
    )
    return chosen, weights


def training(
    policy: Policy, steps: range, n: int = 48, k: int = 12
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Make one selection per step, each from a batch of its own."""
    for step in steps:
        yield selection(policy, every_signal(n, seed=step), k, seed=11, step=step)
