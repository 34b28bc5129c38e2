"""Which samples deserve a backward pass: solvers for data selection.

Choosing samples is an optimization problem. State it (:class:`Problem`), solve it with the right
algorithm inside the time you give it (:func:`solve`, :func:`select`), and read how good the answer
is (:class:`Solution`). ``subsetopt_torch`` hands the choice to a training loop.
"""

from typing import TYPE_CHECKING, Any

from subsetopt.auto import Choice, choose_solver
from subsetopt.budget import Deadline
from subsetopt.certificate import Certificate, verify
from subsetopt.errors import (
    InfeasibleError,
    LedgerError,
    NoSolutionError,
    OptionError,
    ProblemError,
    SolverError,
    SolverLicenseError,
    SolverNotFoundError,
    SolverUnavailableError,
    SubsetOptError,
    UnsupportedProblemError,
)
from subsetopt.front import select, solve
from subsetopt.many import select_many, solve_many
from subsetopt.objectives import (
    FacilityLocation,
    KCenter,
    MeanMatching,
    SamplingDesign,
    ScoredMatching,
    TopScores,
    VectorMatching,
    WeightedScores,
)
from subsetopt.objectives.inclusion import inclusion_probabilities
from subsetopt.policies import (
    Policy,
    PolicySpec,
    list_policies,
    make_policy,
    register_policy,
)
from subsetopt.problem import Problem, size_from_rate
from subsetopt.registry import SolverSpec, available_solvers, list_solvers, register_solver
from subsetopt.solution import Solution, Solutions
from subsetopt.solvers.base import RawResult, SolveContext
from subsetopt.status import Status, StopReason
from subsetopt.warm import warmup

if TYPE_CHECKING:
    from subsetopt import ledger as ledger

__version__ = "0.1.0"

__all__ = [
    "Certificate",
    "Choice",
    "Deadline",
    "FacilityLocation",
    "InfeasibleError",
    "KCenter",
    "LedgerError",
    "MeanMatching",
    "NoSolutionError",
    "OptionError",
    "Policy",
    "PolicySpec",
    "Problem",
    "ProblemError",
    "RawResult",
    "SamplingDesign",
    "ScoredMatching",
    "Solution",
    "Solutions",
    "SolveContext",
    "SolverError",
    "SolverLicenseError",
    "SolverNotFoundError",
    "SolverSpec",
    "SolverUnavailableError",
    "Status",
    "StopReason",
    "SubsetOptError",
    "TopScores",
    "UnsupportedProblemError",
    "VectorMatching",
    "WeightedScores",
    "available_solvers",
    "choose_solver",
    "inclusion_probabilities",
    "list_policies",
    "list_solvers",
    "make_policy",
    "register_policy",
    "register_solver",
    "select",
    "select_many",
    "size_from_rate",
    "solve",
    "solve_many",
    "verify",
    "warmup",
]


def __getattr__(name: str) -> Any:
    """Return the package of ledgers, which is imported when it is first asked for."""
    if name == "ledger":
        import importlib

        return importlib.import_module("subsetopt.ledger")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
