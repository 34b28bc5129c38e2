"""The table of solvers: one row each, from which everything else that lists solvers derives."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any, Literal

from subsetopt.errors import (
    OptionError,
    SolverNotFoundError,
    SolverUnavailableError,
    UnsupportedProblemError,
    did_you_mean,
)
from subsetopt.problem import Problem
from subsetopt.solver import Solver

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


_ALL = CONSTRAINTS | {"warm_start", "bound", "time_limit", "seed"}
_MIP = ("MeanMatching", "TopScores")
_LINEAR = (*_MIP, "ScoredMatching")
_UNIFORM = ("MeanMatching", "VectorMatching[uniform]")
_FW = CONSTRAINTS - {"capacity"} | {"time_limit", "seed", "bound"}
_LINEAR_FW = "Lacoste-Julien & Jaggi, NeurIPS 2015"
_OBTF = "Dong et al., One Backward from Ten Forward, eq. 5"
_ADASELECTION = "Zhang et al., AdaSelection, section 3.1"

_BUILTIN = (
    SolverSpec(
        "swap",
        "subsetopt.solvers.swap:Swap",
        _UNIFORM,
        _ALL,
        requires=("numba",),
        guarantee="anytime",
        reference=_OBTF,
        summary="local search by swaps, with lattice and interval bounds",
    ),
    SolverSpec(
        "exact",
        "subsetopt.solvers.exact:Exact",
        ("MeanMatching",),
        _ALL,
        requires=("numba",),
        guarantee="exact",
        reference="Horowitz & Sahni, J. ACM 1974; " + _OBTF,
        summary="branch and bound, bitset dynamic program, meet in the middle",
    ),
    SolverSpec(
        "exhaustive",
        "subsetopt.solvers.exhaustive:Exhaustive",
        (*_LINEAR, "VectorMatching", "FacilityLocation", "KCenter"),
        _ALL - {"seed"},
        guarantee="exact",
        summary="every subset in turn; the oracle for tiny n",
        requires=("numba",),
    ),
    SolverSpec(
        "gurobi",
        "subsetopt.solvers.gurobi_:Gurobi",
        _LINEAR,
        _ALL,
        requires=("gurobipy",),
        extra="gurobi",
        guarantee="exact",
        reference="Gurobi Optimizer reference manual",
        summary="mixed-integer program; the free license takes 1,999 variables",
    ),
    SolverSpec(
        "cpsat",
        "subsetopt.solvers.ortools_:CPSat",
        _LINEAR,
        _ALL,
        requires=("ortools",),
        extra="ortools",
        guarantee="exact",
        reference="Perron & Furnon, OR-Tools CP-SAT",
        summary="constraint programming on losses scaled to integers",
    ),
    SolverSpec(
        "scip",
        "subsetopt.solvers.ortools_:Scip",
        _LINEAR,
        _ALL,
        requires=("ortools",),
        extra="ortools",
        guarantee="exact",
        reference="Bolusani et al., The SCIP Optimization Suite 9.0",
        summary="mixed-integer program through OR-Tools",
    ),
    SolverSpec(
        "highs",
        "subsetopt.solvers.ortools_:Highs",
        _LINEAR,
        _ALL,
        requires=("ortools",),
        extra="ortools",
        guarantee="exact",
        reference="Huangfu & Hall, Math. Prog. Comp. 2018",
        summary="mixed-integer program through OR-Tools",
    ),
    SolverSpec(
        "frank-wolfe",
        "subsetopt.solvers.frank_wolfe:FrankWolfe",
        ("MeanMatching", "VectorMatching"),
        _FW,
        requires=("numba",),
        reference="Jaggi, ICML 2013; Campbell & Broderick, JMLR 2019; " + _OBTF,
        summary="Frank-Wolfe on the relaxation, rounding, swap polish or refit",
    ),
    SolverSpec(
        "away-frank-wolfe",
        "subsetopt.solvers.frank_wolfe:AwayFrankWolfe",
        ("MeanMatching", "VectorMatching"),
        _FW,
        requires=("numba",),
        reference=_LINEAR_FW,
        summary="Frank-Wolfe with away steps: the gap falls at a geometric rate",
    ),
    SolverSpec(
        "pairwise-frank-wolfe",
        "subsetopt.solvers.frank_wolfe:PairwiseFrankWolfe",
        ("MeanMatching", "VectorMatching"),
        _FW,
        requires=("numba",),
        reference=_LINEAR_FW,
        summary="Frank-Wolfe with pairwise steps: geometric, and sparse",
    ),
    SolverSpec(
        "herding",
        "subsetopt.solvers.herding:Herding",
        ("VectorMatching[uniform]",),
        {"include", "exclude", "time_limit"},
        reference="Welling, ICML 2009; Chen, Welling & Smola, UAI 2010",
        summary="one sample at a time, along what is still owed to the mean",
    ),
    SolverSpec(
        "omp",
        "subsetopt.solvers.omp:OrthogonalMatchingPursuit",
        ("VectorMatching[nonnegative]",),
        CONSTRAINTS - {"capacity"} | {"time_limit", "bound"},
        requires=("numba",),
        guarantee="anytime",
        reference="Killamsetty et al., ICML 2021; Lawson & Hanson 1974",
        summary="the vector nearest in angle, nonnegative refit; proves the case k >= rank",
    ),
    SolverSpec(
        "giga",
        "subsetopt.solvers.giga:GeodesicAscent",
        ("VectorMatching[nonnegative]",),
        CONSTRAINTS - {"capacity"} | {"time_limit"},
        requires=("numba",),
        reference="Campbell & Broderick, ICML 2018",
        summary="greedy geodesic ascent on the sphere",
    ),
    SolverSpec(
        "lagrangian",
        "subsetopt.solvers.lagrangian:Lagrangian",
        ("ScoredMatching",),
        _ALL,
        requires=("numba",),
        guarantee="anytime",
        reference="Fisher, Management Science 1981",
        summary="dual bound, cheapest exchanges around its optimum, swap repair",
    ),
    SolverSpec(
        "greedy",
        "subsetopt.solvers.greedy:Greedy",
        (*_MIP, "FacilityLocation"),
        CONSTRAINTS | {"time_limit", "bound"},
        summary="one sample at a time, the best completion of the sum so far",
        requires=("numba",),
    ),
    SolverSpec(
        "lazy-greedy",
        "subsetopt.solvers.coverage:LazyGreedy",
        ("FacilityLocation",),
        CONSTRAINTS | {"time_limit", "bound"},
        requires=("numba",),
        reference="Minoux, Optimization Techniques 1978",
        summary="the greedy's choice, with far fewer gains computed; 1 - 1/e of the optimum",
    ),
    SolverSpec(
        "stochastic-greedy",
        "subsetopt.solvers.coverage:StochasticGreedy",
        ("FacilityLocation",),
        CONSTRAINTS | {"time_limit", "seed", "bound"},
        requires=("numba",),
        reference="Mirzasoleiman et al., Lazier than lazy greedy, AAAI 2015",
        summary="the best of a random sample at every step; 1 - 1/e - epsilon in expectation",
    ),
    SolverSpec(
        "farthest-first",
        "subsetopt.solvers.coverage:FarthestFirst",
        ("KCenter",),
        CONSTRAINTS | {"time_limit", "seed", "bound"},
        requires=("numba",),
        reference="Gonzalez, Theor. Comput. Sci. 1985",
        summary="always the farthest sample; at most twice the optimal radius",
    ),
    SolverSpec(
        "topk",
        "subsetopt.solvers.topk:TopK",
        _MIP,
        {"include", "exclude", "quotas", "at_most", "bound"},
        guarantee="heuristic",
        summary="the largest values; exact for TopScores, the big-loss heuristic for matching",
    ),
    SolverSpec(
        "random",
        "subsetopt.solvers.random_:Random",
        (*_MIP, "VectorMatching"),
        CONSTRAINTS | {"seed"},
        summary="a random feasible subset; the baseline of every comparison",
    ),
    SolverSpec(
        "half-and-half",
        "subsetopt.solvers.coresets:HalfAndHalf",
        ("MeanMatching",),
        {"include", "exclude", "at_most"},
        reference=_ADASELECTION,
        summary="half the largest, half the smallest losses (coreset approximation 1)",
    ),
    SolverSpec(
        "nearest-mean",
        "subsetopt.solvers.coresets:NearestMean",
        ("MeanMatching",),
        {"include", "exclude", "quotas", "at_most"},
        reference=_ADASELECTION,
        summary="the losses nearest the mean (coreset approximation 2)",
    ),
    SolverSpec(
        "multinomial",
        "subsetopt.solvers.designs:Multinomial",
        ("SamplingDesign[with_replacement]",),
        {"seed"},
        requires=("numba",),
        reference="Hansen & Hurwitz, Ann. Math. Stat. 1943",
        summary="independent draws with replacement (importance sampling)",
    ),
    SolverSpec(
        "systematic",
        "subsetopt.solvers.designs:Systematic",
        ("SamplingDesign[without_replacement]",),
        {"seed"},
        requires=("numba",),
        reference="Madow, Ann. Math. Stat. 1949",
        summary="equidistant points on the probabilities laid end to end",
    ),
    SolverSpec(
        "cube",
        "subsetopt.solvers.designs:Cube",
        ("SamplingDesign[without_replacement]",),
        {"seed", "time_limit"},
        requires=("numba",),
        reference="Deville & Tille, Biometrika 2004; Chauvet & Tille, Comput. Stat. 2006",
        summary="balanced sampling: prescribed probabilities, totals of the balance met",
    ),
)

_rows: dict[str, SolverSpec] = {spec.name: spec for spec in _BUILTIN}
_defaults: dict[str, Solver] = {}
_licenses: dict[str, str | None] = {}


def list_solvers() -> list[SolverSpec]:
    """Return the rows of the registry, in order of registration."""
    return list(_rows.values())


def register_solver(spec: SolverSpec) -> None:
    """Add a row; the solver then appears in every table, test matrix and benchmark.

    Raises
    ------
    OptionError
        If the name is taken (``"auto"`` is), or the row is malformed.
    """
    if not isinstance(spec, SolverSpec):
        raise OptionError(f"register_solver takes a SolverSpec, got {type(spec).__name__}.")
    if spec.name in _rows or spec.name == "auto":
        raise OptionError(
            f"a solver named {spec.name!r} is registered already; choose another name."
        )
    _rows[spec.name] = spec


def unregister_solver(name: str) -> None:
    """Remove a row that user code added; for tests."""
    if name in {spec.name for spec in _BUILTIN}:
        raise OptionError(f"{name!r} is built in and cannot be removed.")
    _rows.pop(name, None)
    _defaults.pop(name, None)


def spec_of(name: str) -> SolverSpec:
    """Return the row of a solver.

    Raises
    ------
    SolverNotFoundError
        If no solver has that name; the message names the nearest and those that are usable.
    """
    try:
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
        probe: Callable[[], str | None] = getattr(solver_class, "license_problem", lambda: None)
        _licenses[name] = probe()
    if (problem := _licenses[name]) is not None:
        return Availability(True, True, False, problem)
    return Availability(True, True, True)


def available_solvers(problem: Problem | None = None, *, feature: str | None = None) -> list[str]:
    """Return the names of the solvers usable here and now.

    Parameters
    ----------
    problem
        Only those that can take this problem.
    feature
        Only those with this feature.

    Raises
    ------
    OptionError
        If there is no such feature.
    """
    if feature is not None and feature not in FEATURES:
        raise OptionError(
            f"unknown feature {feature!r}.{did_you_mean(feature, FEATURES)} "
            f"Known: {', '.join(sorted(FEATURES))}."
        )
    return [
        spec.name
        for spec in _rows.values()
        if (problem is None or spec.obstacle(problem) is None)
        and (feature is None or feature in spec.features)
        and availability(spec.name).usable
    ]


def require_support(spec: SolverSpec, problem: Problem) -> None:
    """Raise unless a solver can take a problem.

    Raises
    ------
    UnsupportedProblemError
        With the solvers that can.
    """
    obstacle = spec.obstacle(problem)
    if obstacle is not None:
        able = [row.name for row in _rows.values() if row.obstacle(problem) is None]
        raise UnsupportedProblemError(
            f"solver {spec.name!r} cannot take {obstacle}. "
            + (f"Solvers that can: {', '.join(able)}." if able else "No registered solver can.")
        )


def create(name: str, options: Mapping[str, Any] | None = None) -> Solver:
    """Return a solver made with options.

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
    for option in options:
        if option not in valid:
            raise OptionError(
                f"solver {name!r} has no option {option!r}.{did_you_mean(option, valid)} "
                + (f"Its options: {', '.join(valid)}." if valid else "It has none.")
            )
    made: Solver = solver_class(**options)
    return made


def _import_solver(spec: SolverSpec) -> Any:
    """Return the solver's class after making sure that its packages can be imported."""
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
    if isinstance(spec.target, type):
        return spec.target
    module, _, attribute = spec.target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except AttributeError as error:
        raise SolverUnavailableError(
            f"the target {spec.target!r} of solver {spec.name!r} does not exist."
        ) from error
