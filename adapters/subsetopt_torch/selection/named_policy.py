"""A policy with its name, and what solves the problems that it states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np

import subsetopt as so
from subsetopt.policies import (
    Policy,
    SolverChoice,
    WithSolver,
    check_members,
    has,
    make_policy,
)
from subsetopt.registry import create
from subsetopt.seeding import Seed
from subsetopt.solvers.base import Solver

__all__ = ["HasNamedPolicy", "NamedPolicy", "SolverLike"]

# ``"auto"``, a registered name, a solver object, or a list of these to fall over along.
SolverLike: TypeAlias = str | Solver | Sequence[str | Solver]


@dataclass(frozen=True, slots=True)
class NamedPolicy:
    """A policy, and the name that messages and saved states have for it."""

    policy: Policy  #: the policy object
    name: str  #: its registered name, or the name of its class

    @property
    def draws_designs(self) -> bool:
        """Whether it makes random draws with given probabilities, which take no constraints."""
        return bool(getattr(self.policy, "draws_designs", False))

    @classmethod
    def of(cls, policy: str | Policy, options: Mapping[str, Any] | None) -> NamedPolicy:
        """Return the policy of a registered name, or a policy object with its class's name.

        Raises
        ------
        OptionError
            If it is neither, an option is unknown, options come with an object, or a member of
            the object has a misspelt name.
        """
        if isinstance(policy, str):
            return cls(make_policy(policy, **(options or {})), policy)
        if options:
            raise so.OptionError("policy_options belong into the policy object: pass them to it.")
        if not isinstance(policy, Policy):
            raise so.OptionError(
                f"policy must be a registered name or a policy object, got {type(policy).__name__}."
            )
        check_members(policy)
        return cls(policy, type(policy).__name__)

    def solve_with(
        self,
        solver: SolverLike,
        seed: Seed,
        *,
        max_iterations: int | None = None,
        options: Mapping[str, Any] | None = None,
        backend_params: Mapping[str, Any] | None = None,
    ) -> partial[so.Solution]:
        """Return ``subsetopt.solve`` with these arguments, all of them looked at.

        Parameters
        ----------
        solver
            What the user asked for. ``"auto"`` without options or native parameters stands for
            the policy's optional member ``solver``.
        seed
            A seed to try the arguments with.
        max_iterations, options, backend_params
            As for ``subsetopt.solve``; the mappings are copied.

        Raises
        ------
        OptionError, SolverNotFoundError
            If a name or an option is wrong.
        """
        solve = partial(
            so.solve,
            solver=solver if options or backend_params else self._solver(solver),
            max_iterations=max_iterations,
            options=dict(options) if options else None,
            backend_params=dict(backend_params) if backend_params else None,
        )
        # With no time at all nothing is solved, but every name and option is looked at.
        solve(so.Problem(so.TopScores(np.empty(0)), 0), time_limit=0, seed=seed)
        return solve

    def _solver(self, solver: SolverLike) -> SolverLike:
        """Return the solver to use where the user gave no options for it."""
        if not (isinstance(solver, str) and solver == "auto" and has(self.policy, WithSolver)):
            return solver
        choice: SolverChoice | SolverLike = self.policy.solver
        if isinstance(choice, SolverChoice):
            return create(choice.name, choice.options) if choice.options else choice.name
        return choice


class HasNamedPolicy:
    """What works with a policy, and shows which."""

    _named: NamedPolicy

    @property
    def policy(self) -> Policy:
        """The policy, with what it remembers."""
        return self._named.policy

    @property
    def policy_name(self) -> str:
        """The policy's registered name, or the name of its class."""
        return self._named.name
