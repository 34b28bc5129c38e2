"""SCIP and HiGHS through OR-Tools' MathOpt: every objective that has a linear form, exactly.

OR-Tools' modules are imported on the first solve that needs them. ``highspy`` cannot live in one
process with OR-Tools and is never imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from subsetopt.errors import OptionError
from subsetopt.inputs import checked_integer
from subsetopt.problem import Problem
from subsetopt.solvers.base import RawResult, SolveContext
from subsetopt.solvers.mip.calls import import_within, out_of_time
from subsetopt.solvers.mip.mathopt_programs import MathOptPrograms
from subsetopt.solvers.mip.mathopt_search import MathOpt
from subsetopt.solvers.mip.search import needs_programs, require_size, search

__all__ = ["Highs", "Scip"]

_MATHOPT = "ortools.math_opt.python.mathopt"

# Cutting planes of dense rows of large numbers lead SCIP's LP solver into cycles (1 program in 14,
# n = 12; none without them, and in half of the time).
_SCIP_DENSE = {"separating/maxroundsroot": 0, "separating/maxrounds": 0}


def _scip_params(parameters: Any, params: Mapping[str, Any], band: bool) -> None:
    from ortools.math_opt.solvers.gscip import gscip_pb2

    native = gscip_pb2.GScipParameters()
    if not band:
        # Proofs to 1e-9 of the mean need more than the 1e-6 of the default. With less than the
        # default 1e-7 for the dual, its LP solver prints warnings.
        native.real_params["numerics/feastol"] = 1e-9
    # MathOpt's own interrupter makes SCIP print errors to stderr on every solve.
    native.bool_params["misc/catchctrlc"] = True
    for name, value in params.items():
        if isinstance(value, bool):
            native.bool_params[name] = value
        elif isinstance(value, int):
            native.int_params[name] = value
        elif isinstance(value, float):
            native.real_params[name] = value
        else:
            native.string_params[name] = value
    parameters.gscip = native


# At its default 1e-6 HiGHS refuses answers of its own that are off by as much, with an error.
_HIGHS_DENSE = {"mip_feasibility_tolerance": 1e-7}
# Of 6,471 programs it so failed on 39, and on none of these at every one of the further tolerances.
_HIGHS_AGAIN = tuple({"mip_feasibility_tolerance": tolerance} for tolerance in (1e-9, 1e-10, 1e-8))
# Of 1,500 candidates HiGHS overran limits by up to 0.09 s, of 4,096 by 1.1 s, of 16,384 by 26 s.
_HIGHS_TIMED = 1100
# Its presolve took up to 0.3 s with 1,024 candidates before it looked at the clock.
_HIGHS_PRESOLVE = 2.5e-4


def _highs_params(parameters: Any, params: Mapping[str, Any], band: bool) -> None:
    from ortools.math_opt.solvers import highs_pb2

    native = highs_pb2.HighsOptionsProto()
    for name, value in params.items():
        if isinstance(value, bool):
            native.bool_options[name] = value
        elif isinstance(value, int):
            native.int_options[name] = value
        elif isinstance(value, float):
            native.double_options[name] = value
        else:
            native.string_options[name] = value
    parameters.highs = native


@dataclass(frozen=True, slots=True)
class Scip:
    r"""Exact solution by SCIP's branch and bound.

    First feasibility of :math:`|k \bar l - l \cdot z| \le 0.9\, k\, \varepsilon` for the tolerance
    :math:`\varepsilon`, which the minimizing form seldom reaches; where there is no such subset,
    the minimizing form. Vectors are matched by absolute values and tangents; facility location has
    a variable for each pair, k-center a program for each radius that is tried.

    Parameters
    ----------
    node_limit
        Nodes when neither a time limit nor ``max_iterations`` is given.
    band_share
        Share of time and nodes for the feasibility form, in (0, 1).

    Raises
    ------
    UnsupportedProblemError
        If vectors, facilities or centers are too many for any mixed-integer program.
    OptionError
        If a hyperparameter is out of range, or SCIP refuses a name in ``backend_params`` (SCIP's
        own, such as ``"separating/maxrounds"``, typed by the value; or MathOpt's).

    Notes
    -----
    ``max_iterations`` is the node limit. One thread, deterministic under a node limit.

    References
    ----------
    Bolusani et al., The SCIP Optimization Suite 9.0; Dong et al., One Backward from Ten Forward,
    eq. 5.
    """

    node_limit: int = 100_000
    band_share: float = 0.85

    def __post_init__(self) -> None:
        _check_mathopt(self.node_limit, self.band_share)

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return the best subset found within the context's limits."""
        backend = MathOpt("GSCIP", _scip_params, self.node_limit, self.band_share, _SCIP_DENSE)
        return _solve_mathopt(backend, problem, context)


@dataclass(frozen=True, slots=True)
class Highs:
    r"""Exact solution by HiGHS' branch and cut, through OR-Tools.

    The forms of :class:`Scip`; for mean matching with half of the time for the first: HiGHS finds a
    subset within tolerance less often.

    Parameters
    ----------
    node_limit
        Nodes when neither a time limit nor ``max_iterations`` is given.
    band_share
        Share of time and nodes for the feasibility form, in (0, 1).

    Raises
    ------
    UnsupportedProblemError
        If vectors, facilities or centers are too many for any mixed-integer program, or losses or
        scores under a time limit more than HiGHS can keep it for (1,100).
    OptionError
        If a hyperparameter is out of range, or HiGHS refuses a name in ``backend_params`` (HiGHS'
        own options, typed by the value; or MathOpt's).

    Notes
    -----
    ``max_iterations`` is the node limit. HiGHS cannot be interrupted from here: after Ctrl-C it
    runs on to its limit. MathOpt refuses a number of threads for it. That of OR-Tools 9.15 prints a
    line when it mends a solution.

    References
    ----------
    Huangfu & Hall, Math. Prog. Comp. 2018; Dong et al., One Backward from Ten Forward, eq. 5.
    """

    node_limit: int = 10_000
    band_share: float = 0.5

    def __post_init__(self) -> None:
        _check_mathopt(self.node_limit, self.band_share)

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return the best subset found within the context's limits."""
        backend = MathOpt(
            "HIGHS", _highs_params, self.node_limit, self.band_share, _HIGHS_DENSE, _HIGHS_AGAIN,
            _HIGHS_TIMED, _HIGHS_PRESOLVE,
        )  # fmt: skip
        return _solve_mathopt(backend, problem, context)


def _solve_mathopt(backend: MathOpt, problem: Problem, context: SolveContext) -> RawResult:
    """Solve a problem as a linear model, or by programs."""
    if not needs_programs(problem):
        return backend.solve(problem, context)
    require_size(problem)
    mathopt = import_within(_MATHOPT, context.deadline)
    if mathopt is None:
        return out_of_time(context.deadline)
    return search(problem, context, MathOptPrograms(mathopt, backend, context))


def _check_mathopt(node_limit: int, band_share: float) -> None:
    checked_integer("node_limit", node_limit, 1)
    if not 0.0 < band_share < 1.0:
        raise OptionError(f"band_share must be within (0, 1), got {band_share!r}.")
