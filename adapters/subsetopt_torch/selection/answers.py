"""From a solver's answer to indices and weights, also when there is no answer."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

import subsetopt as so
from subsetopt.policies import WithWeigh, has, to_host
from subsetopt_torch.selection.named_policy import NamedPolicy

__all__ = ["no_answer", "training_weights", "uniform_draw"]


def training_weights(named: NamedPolicy, solution: so.Solution) -> NDArray[np.float64]:
    """Return the weights to train with: the policy's, if it has a say in them.

    Parameters
    ----------
    named
        The policy, whose optional method ``weigh(solution)`` is asked. Without that method, and
        where nothing was chosen, the weights are the solution's.
    solution
        An answer that holds a subset.

    Returns
    -------
    NDArray[np.float64]
        One weight per chosen candidate, aligned with ``solution.indices``.

    Raises
    ------
    ProblemError
        If there is not one finite weight per chosen candidate.
    """
    policy, name = named.policy, named.name
    if not has(policy, WithWeigh) or not solution.indices.size:
        return solution.weights
    weights = np.array(to_host(policy.weigh(solution)), dtype=np.float64)
    shape = solution.indices.shape
    if weights.shape != shape:
        raise so.ProblemError(
            f"weigh of the policy {name!r} returned weights of shape {weights.shape} for "
            f"{shape[0]} chosen candidates; return one each, shape {shape}."
        )
    if not np.isfinite(weights).all():
        at = int(np.flatnonzero(~np.isfinite(weights))[0])
        raise so.ProblemError(
            f"weigh of the policy {name!r} returned {weights[at]} for the candidate "
            f"{solution.indices[at]}; weights must be finite."
        )
    return weights


def uniform_draw(
    problem: so.Problem, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return a random subset and equal weights: uniform, and such that the constraints are kept.

    Where no subset of k keeps them all, fewer are drawn; where that does not help either, the
    candidates that must be chosen and the lower ends of quotas are given up, nothing else.
    """
    if problem.include is not None or problem.quotas is not None or problem.costs is not None:
        draws = _kept_draws(problem, rng)
        indices = next((draw for draw in draws if draw is not None), np.empty(0, dtype=np.int64))
        return indices, np.full(indices.size, 1.0 / max(indices.size, 1))
    allowed = np.arange(problem.n)
    if problem.exclude is not None:
        allowed = np.delete(allowed, problem.exclude)
    size = min(problem.k, allowed.size)
    indices = np.sort(rng.choice(allowed, size, replace=False))
    return indices, np.full(size, 1.0 / size if size else 0.0)


def _kept_draws(
    problem: so.Problem, rng: np.random.Generator
) -> Iterator[NDArray[np.int64] | None]:
    """Yield draws that keep ever fewer of the constraints, None where there is no such subset."""
    upper = {label: (0, high) for label, (_, high) in (problem.quotas or {}).items()}
    for cardinality, include, quotas in (
        (problem.cardinality, problem.include, problem.quotas),
        ("at_most", problem.include, problem.quotas),
        ("at_most", None, upper or None),
    ):
        rules = so.Problem(
            so.TopScores(np.zeros(problem.n)),
            problem.k,
            cardinality,
            include,
            problem.exclude,
            problem.groups,
            quotas,
            problem.costs,
            problem.capacity,
        )
        drawn = so.solve(rules, "random", seed=rng)
        yield drawn.indices if drawn.has_solution else None


def no_answer(problem: so.Problem, error: so.SubsetOptError, deadline: so.Deadline) -> so.Solution:
    """Return the solution that stands for the answer of a solver that raised ``error``."""
    minimize = problem.objective.sense == "minimize"
    return so.Solution(
        np.empty(0, dtype=np.int64),
        np.empty(0),
        problem.n,
        math.nan,
        -math.inf if minimize else math.inf,
        so.Status.ERROR,
        so.StopReason.OTHER,
        "none",
        solve_time=deadline.elapsed(),
        scale=problem.objective.scale,
        extras={"error": f"{type(error).__name__}: {error}"},
    )
