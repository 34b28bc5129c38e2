"""One row of the registry: what a solver is called, takes, can do and needs."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from subsetopt.errors import OptionError
from subsetopt.problem import Problem

__all__ = ["CONSTRAINTS", "FEATURES", "Guarantee", "Licensed", "Limit", "SolverSpec", "oversize"]

Guarantee = Literal["exact", "anytime", "heuristic"]
CONSTRAINTS = frozenset({"include", "exclude", "quotas", "capacity", "at_most"})
FEATURES = CONSTRAINTS | {"warm_start", "bound", "time_limit", "seed"}


@dataclass(frozen=True, slots=True)
class Limit:
    """The largest problems with some objectives that a solver takes.

    Attributes
    ----------
    objectives
        Names of the objective classes.
    measure
        What is counted: ``"samples"`` (n), ``"numbers"`` (n times d), or ``"candidates"`` (those
        that constraints leave to choose from).
    most
        The largest count that is taken.
    message
        What the user reads of a larger problem, without the full stop; a format string with the
        fields ``most``, ``count``, ``n`` and ``d``.
    timed
        Whether the limit holds only where there is a time limit.
    """

    objectives: tuple[str, ...]
    measure: Literal["samples", "numbers", "candidates"]
    most: int
    message: str
    timed: bool = False

    def obstacle(self, problem: Problem) -> str | None:
        """Return the message where a problem is too large, or None."""
        objective = problem.objective
        if type(objective).__name__ not in self.objectives:
            return None
        n, d = objective.n, int(getattr(objective, "d", 1))
        count = n * d if self.measure == "numbers" else n
        if self.measure == "candidates" and n > self.most:
            count = problem.constraints.remaining.affordable().size
        if count <= self.most:
            return None
        return self.message.format(most=self.most, count=count, n=n, d=d)


@runtime_checkable
class Licensed(Protocol):
    """A solver class whose backend needs a license."""

    @staticmethod
    def license_problem(problem: Problem | None = None) -> str | None:
        """Return why the license here does not cover a problem, or None when it does.

        Without a problem, return why there is no valid license, or None when there is one.
        """


@dataclass(frozen=True, slots=True)
class SolverSpec:
    """One row of the registry.

    Attributes
    ----------
    name
        What users pass as ``solver=``.
    target
        ``"package.module:Class"``, imported on first use; or the class itself.
    objectives
        Names of the objective classes it takes; ``"VectorMatching[uniform]"`` is one kind of a
        class only (see ``Objective.kinds``).
    features
        What it can do: constraints ``include exclude quotas capacity at_most``, and ``warm_start
        bound time_limit seed``.
    requires
        Importable module names it needs.
    extra
        The extra of the distribution that installs them: ``pip install 'subsetopt[extra]'``.
    guarantee
        ``"exact"`` (proves optimality, given time), ``"anytime"`` (improves with time and proves
        where a bound allows), ``"heuristic"``.
    reference
        Paper or manual.
    summary
        One line for tables.
    limits
        The sizes up to which it takes a problem; empty takes any size.
    """

    name: str
    target: str | type
    objectives: tuple[str, ...]
    features: Set[str] = frozenset()
    requires: tuple[str, ...] = ()
    extra: str | None = None
    guarantee: Guarantee = "heuristic"
    reference: str = ""
    summary: str = ""
    limits: tuple[Limit, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", frozenset(self.features))
        unknown = self.features - FEATURES
        if unknown:
            raise OptionError(
                f"solver {self.name!r} declares unknown features {sorted(unknown)}; "
                f"known are {sorted(FEATURES)}."
            )

    @property
    def exact(self) -> bool:
        """Whether it proves optimality, given time."""
        return self.guarantee == "exact"

    @property
    def install_hint(self) -> str:
        """The pip line that installs what it needs."""
        return f"pip install 'subsetopt[{self.extra}]'" if self.extra else "pip install subsetopt"

    def obstacle(self, problem: Problem, *, timed: bool = False) -> str | None:
        """Return why this solver cannot take a problem, or None when it can.

        Parameters
        ----------
        problem
            The problem.
        timed
            Whether it would be solved under a time limit.
        """
        kind = type(problem.objective)
        if kind.__name__ not in self.objectives:
            kinds = problem.objective.kinds
            if not any(name in self.objectives for name in kinds):
                return f"the objective {kinds[0]}"
        if not problem.features <= self.features:
            return f"the constraint {min(problem.features - self.features)}"
        too_large = oversize(self.limits, problem, timed=timed)
        return None if too_large is None else f"a problem of this size: {too_large}"


def oversize(limits: Iterable[Limit], problem: Problem, *, timed: bool) -> str | None:
    """Return the message of the first limit that a problem exceeds, or None."""
    for limit in limits:
        if (timed or not limit.timed) and (message := limit.obstacle(problem)) is not None:
            return message
    return None
