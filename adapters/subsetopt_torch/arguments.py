"""Arguments that several rooms share: their types and checks, and the rank of this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

import subsetopt as so
from subsetopt.inputs import is_integer
from subsetopt.policies import (
    Policy,
    SolverChoice,
    WithSolver,
    check_members,
    has,
    make_policy,
)
from subsetopt.problem import Quotas
from subsetopt.registry import create

__all__ = [
    "Autocast",
    "Constraints",
    "Ids",
    "Signal",
    "as_policy",
    "check_size",
    "checked_seed",
    "process_rank",
    "solver_for",
]

# Makes the context that a forward runs in, for example one of ``torch.autocast``.
Autocast: TypeAlias = Callable[[], AbstractContextManager[object]]

# Sample ids, shape (n,).
Ids: TypeAlias = Tensor | NDArray[np.integer[Any]] | Sequence[int]

# What is known of the samples of a batch, one row per sample; None where it is not known.
Signal: TypeAlias = Tensor | ArrayLike | None

# Constraints by the names that ``subsetopt.Problem`` has for them.
Constraints: TypeAlias = Mapping[str, Tensor | ArrayLike | Quotas | None]


def checked_seed(seed: object) -> int:
    """Return a nonnegative int.

    Raises
    ------
    OptionError
        If it is anything else.
    """
    if not is_integer(seed) or seed < 0:
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
    elif not is_integer(k) or k < 0:
        raise so.ProblemError(f"k must be an integer >= 0, got {k!r}; for a fraction use rate.")


def process_rank() -> int:
    """Return the number of this process among those of ``torch.distributed``, 0 without it."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    return 0
