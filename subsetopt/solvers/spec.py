"""One row of the registry: what a solver is called, takes, can do and needs."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Literal

from subsetopt.errors import OptionError
from subsetopt.problem import Problem

__all__ = ["CONSTRAINTS", "FEATURES", "Guarantee", "SolverSpec"]

Guarantee = Literal["exact", "anytime", "heuristic"]
CONSTRAINTS = frozenset({"include", "exclude", "quotas", "capacity", "at_most"})
FEATURES = CONSTRAINTS | {"warm_start", "bound", "time_limit", "seed"}


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

    def obstacle(self, problem: Problem) -> str | None:
        """Return why this solver cannot take a problem, or None when it can."""
        kind = type(problem.objective)
        if kind.__name__ not in self.objectives:
            kinds = problem.objective.kinds
            if not any(name in self.objectives for name in kinds):
                return f"the objective {kinds[0]}"
        if problem.features <= self.features:
            return None
        return f"the constraint {min(problem.features - self.features)}"
