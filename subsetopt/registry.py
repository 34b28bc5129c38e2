"""The registry: which solvers there are, which can be used here, and making one."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from subsetopt.errors import (
    OptionError,
    SolverNotFoundError,
    SolverUnavailableError,
    UnsupportedProblemError,
    did_you_mean,
)
from subsetopt.inputs import check_options
from subsetopt.plugins import Plugins
from subsetopt.problem import Problem
from subsetopt.solvers.base import Solver
from subsetopt.solvers.rows import BUILTIN
from subsetopt.solvers.spec import FEATURES, Licensed, SolverSpec

__all__ = [
    "Availability",
    "SolverSpec",
    "availability",
    "available_solvers",
    "create",
    "list_solvers",
    "register_solver",
    "require_support",
    "spec_of",
]


@dataclass(frozen=True, slots=True)
class Availability:
    """How far a solver can be used here: installed, importable, licensed."""

    installed: bool
    importable: bool
    licensed: bool
    reason: str = ""

    @property
    def usable(self) -> bool:
        """Whether all three hold."""
        return self.installed and self.importable and self.licensed


_rows: dict[str, SolverSpec] = {spec.name: spec for spec in BUILTIN}
_defaults: dict[str, Solver] = {}
_licenses: dict[str, str | None] = {}


def list_solvers() -> list[SolverSpec]:
    """Return the rows of the registry, in order of registration.

    Those that other packages offer in the entry-point group ``subsetopt.solvers`` are among them;
    an entry that cannot be used is a warning.
    """
    plugins.load()
    return list(_rows.values())


def register_solver(spec: SolverSpec) -> None:
    """Add a row; the solver then appears in every table, test matrix and benchmark.

    Raises
    ------
    OptionError
        If the name is taken (``"auto"`` is), or the row is malformed.
    """
    plugins.check(spec, "auto")
    _rows[spec.name] = spec


#: The solvers that users and other packages add.
plugins = Plugins("solver", "subsetopt.solvers", SolverSpec, _rows, register_solver)


def unregister_solver(name: str) -> None:
    """Remove a row that user code added; for tests."""
    plugins.remove(name)
    _defaults.pop(name, None)


def spec_of(name: str) -> SolverSpec:
    """Return the row of a solver.

    Raises
    ------
    SolverNotFoundError
        If no solver has that name; the message names the nearest and those that are usable.
    """
    try:
        if name not in _rows:
            plugins.load()
        return _rows[name]
    except (KeyError, TypeError):
        raise SolverNotFoundError(
            f"no solver named {name!r}.{did_you_mean(name, [*_rows, 'auto'])} "
            f"Registered: auto, {', '.join(_rows)}."
        ) from None


def availability(name: str) -> Availability:
    """Return how far a solver can be used here, and why not further."""
    spec = spec_of(name)
    missing = [module for module in spec.requires if importlib.util.find_spec(module) is None]
    if missing:
        return Availability(
            False, False, False, f"{', '.join(missing)} not installed: {spec.install_hint}"
        )
    try:
        solver_class = _load(spec)
        for module in spec.requires:
            importlib.import_module(module)
    except ImportError as error:
        return Availability(True, False, False, f"import failed: {error}")
    if name not in _licenses:
        licensed = isinstance(solver_class, Licensed)
        _licenses[name] = solver_class.license_problem() if licensed else None
    if (problem := _licenses[name]) is not None:
        return Availability(True, True, False, problem)
    return Availability(True, True, True)


def available_solvers(problem: Problem | None = None, *, feature: str | None = None) -> list[str]:
    """Return the names of the solvers usable here and now.

    Parameters
    ----------
    problem
        Only those that can take this problem, whose sizes and licenses cover it.
    feature
        Only those with this feature; with ``"time_limit"`` only those that keep a limit on this
        problem.

    Raises
    ------
    OptionError
        If there is no such feature.
    """
    if feature is not None and not (isinstance(feature, str) and feature in FEATURES):
        raise OptionError(
            f"unknown feature {feature!r}.{did_you_mean(feature, FEATURES)} "
            f"Known: {', '.join(sorted(FEATURES))}."
        )
    timed = feature == "time_limit"
    plugins.load()
    return [
        spec.name
        for spec in _rows.values()
        if (problem is None or spec.obstacle(problem, timed=timed) is None)
        and (feature is None or feature in spec.features)
        and availability(spec.name).usable
        and (problem is None or _licensed(spec, problem))
    ]


def _licensed(spec: SolverSpec, problem: Problem) -> bool:
    """Whether the license of a usable solver, if it needs one, covers a problem."""
    solver_class = _load(spec)
    return not isinstance(solver_class, Licensed) or solver_class.license_problem(problem) is None


def require_support(spec: SolverSpec, problem: Problem, *, timed: bool = False) -> None:
    """Raise unless a solver can take a problem.

    Parameters
    ----------
    spec
        The solver's row.
    problem
        The problem.
    timed
        Whether it is to be solved under a time limit.

    Raises
    ------
    UnsupportedProblemError
        With the solvers that can.
    """
    obstacle = spec.obstacle(problem, timed=timed)
    if obstacle is not None:
        able = [row.name for row in _rows.values() if row.obstacle(problem, timed=timed) is None]
        raise UnsupportedProblemError(
            f"solver {spec.name!r} cannot take {obstacle}. "
            + (f"Solvers that can: {', '.join(able)}." if able else "No registered solver can.")
        )


def create(name: str, options: Mapping[str, Any] | None = None) -> Solver:
    """Return a solver with options, or with its defaults where there are none.

    Raises
    ------
    OptionError
        If the solver has no such option or refuses its value.
    SolverNotFoundError
        If no solver has that name.
    SolverUnavailableError
        If a package it needs is missing or broken; the message has the pip line.
    """
    if not options and name in _defaults:
        return _defaults[name]
    spec = spec_of(name)
    solver_class = _import_solver(spec)
    if not options:
        solver: Solver = solver_class()
        _defaults[name] = solver
        return solver
    return configure(solver_class, name, options)


def configure(solver_class: Any, name: str, options: Mapping[str, Any]) -> Solver:
    """Return a solver of a class with options.

    Raises
    ------
    OptionError
        If it has no such option or refuses its value.
    """
    valid = [f.name for f in dataclasses.fields(solver_class) if f.init]
    check_options(f"solver {name!r}", options, valid)
    solver: Solver = solver_class(**options)
    return solver


def _import_solver(spec: SolverSpec) -> Any:
    """Return the solver's class, or raise how to get the packages that it lacks."""
    for module in spec.requires:
        if importlib.util.find_spec(module) is None:
            raise SolverUnavailableError(
                f"solver {spec.name!r} needs {module}, which is not installed: {spec.install_hint}"
            )
    try:
        return _load(spec)
    except ImportError as error:
        raise SolverUnavailableError(
            f"solver {spec.name!r} could not be imported ({error}). "
            f"Reinstall what it needs: {spec.install_hint}"
        ) from error


def _load(spec: SolverSpec) -> Any:
    """Return the class behind a row."""
    if isinstance(spec.target, type):
        return spec.target
    module, _, attribute = spec.target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except AttributeError as error:
        raise SolverUnavailableError(
            f"the target {spec.target!r} of solver {spec.name!r} does not exist."
        ) from error
