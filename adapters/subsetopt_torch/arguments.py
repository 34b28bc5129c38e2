"""Checks of arguments that several rooms share, and the rank of this process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

import subsetopt as so
from subsetopt.errors import did_you_mean
from subsetopt.policies import (
    Policy,
    SolverChoice,
    WithSolver,
    check_members,
    has,
    make_policy,
)
from subsetopt.registry import create

__all__ = ["as_policy", "check_choice", "check_size", "checked_seed", "process_rank", "solver_for"]


def checked_seed(seed: object) -> int:
    """Return a nonnegative int.

    Raises
    ------
    OptionError
        If it is anything else.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise so.OptionError(
            f"seed must be a nonnegative int or None, got {seed!r}: a selector derives the seed "
            "of every step and rank from it."
        )
    return int(seed)


def as_policy(policy: str | Policy, options: Mapping[str, Any] | None) -> Policy:
    """Return a policy object for a registered name or such an object.

    Raises
    ------
    OptionError
        If it is neither, an option is unknown, options come with an object, or a member of the
        object has a misspelt name.
    """
    if isinstance(policy, str):
        return make_policy(policy, **(options or {}))
    if options:
        raise so.OptionError("policy_options belong into the policy object: pass them to it.")
    if not isinstance(policy, Policy):
        raise so.OptionError(
            f"policy must be a registered name or a policy object, got {type(policy).__name__}."
        )
    check_members(policy)
    return policy


def solver_for(policy: Policy, solver: Any, *options: Mapping[str, Any] | None) -> Any:
    """Return what solves the problems of a policy, as ``subsetopt.solve`` takes it.

    Parameters
    ----------
    policy
        Its optional member ``solver`` is what ``"auto"`` stands for.
    solver
        What the user asked for.
    options
        Hyperparameters and native parameters that the user gave for the solver. With any of them
        ``"auto"`` is the solver of that name.
    """
    if any(options) or not (isinstance(solver, str) and solver == "auto"):
        return solver
    choice = policy.solver if has(policy, WithSolver) else solver
    if isinstance(choice, SolverChoice):
        return create(choice.name, choice.options) if choice.options else choice.name
    return choice


def check_choice(name: str, value: object, valid: tuple[str, ...]) -> None:
    """Raise unless an option has one of its values.

    Raises
    ------
    OptionError
        With the nearest valid value.
    """
    if value not in valid:
        raise so.OptionError(
            f"{name} must be one of {', '.join(map(repr, valid))}, got {value!r}."
            f"{did_you_mean(value, valid)}"
        )


def check_size(rate: float | None, k: int | None) -> None:
    """Raise unless exactly one of rate and k is given, and is possible.

    Raises
    ------
    ProblemError
        If not.
    """
    if (rate is None) == (k is None):
        raise so.ProblemError(
            f"pass rate (a fraction of each batch) or k (a count), one of them; got rate={rate!r}, "
            f"k={k!r}."
        )
    if rate is not None:
        so.size_from_rate(1, rate)
    elif isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 0:
        raise so.ProblemError(f"k must be an integer >= 0, got {k!r}; for a fraction use rate.")


def process_rank() -> int:
    """Return the number of this process among those of ``torch.distributed``, 0 without it."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    return 0
