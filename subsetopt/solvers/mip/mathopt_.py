"""SCIP and HiGHS through OR-Tools' MathOpt: every objective that has a linear form, exactly.

OR-Tools' modules are imported on the first solve that needs them. ``highspy`` cannot live in one
process with OR-Tools and is never imported.
"""

from __future__ import annotations

import datetime
import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from subsetopt.errors import OptionError, SolverError
from subsetopt.inputs import checked_fraction, checked_integer
from subsetopt.problem import Problem
from subsetopt.quiet import without_native_lines
from subsetopt.solvers.base import RawResult, SolveContext
from subsetopt.solvers.mip.calls import Outcome, import_within, run_interruptible
from subsetopt.solvers.mip.constraint_rows import LEAK, Choice
from subsetopt.solvers.mip.linear_form import LinearForm
from subsetopt.solvers.mip.program import Answer, Form, Kind, Program, stacked
from subsetopt.solvers.mip.review import reviewed
from subsetopt.solvers.mip.search import require_size, search
from subsetopt.solvers.rows import HIGHS_LIMITS, PROGRAM_LIMITS
from subsetopt.solvers.spec import Limit
from subsetopt.status import StopReason

__all__ = ["Highs", "Scip"]

_MATHOPT = "ortools.math_opt.python.mathopt"
_SEED_BITS = 0x7FFFFFFF
# The largest limit of nodes: HiGHS counts them in 32 bits.
_MOST_NODES = 2**31 - 1
_STATUS = {
    "OPTIMAL": StopReason.COMPLETED,
    "INFEASIBLE": StopReason.COMPLETED,
    "TIME": StopReason.TIME,
    "NODE": StopReason.NODE,
    "ITERATION": StopReason.ITERATION,
    "MEMORY": StopReason.MEMORY,
    "INTERRUPTED": StopReason.INTERRUPTED,
    "IMPRECISE": StopReason.NUMERICAL,
    "NUMERICAL_ERROR": StopReason.NUMERICAL,
    "SLOW_PROGRESS": StopReason.NUMERICAL,
}
# Bands asked for in turn, as shares of the tolerance: where the backend's own tolerances let a
# subset through that is not within ours, the next is narrower.
_BANDS = (0.9, 0.5, 0.25)
# The precision in the scaled programs, and the largest factor by which a program is scaled. At
# 1.5e-6, mean|l| = 1 for k = 13, the search of a band takes half of the time that it takes at
# 1.5e-5 (SCIP, measured), and the feasibility tolerance of 1e-6 still leaves most subsets within
# ours.
_UNITS: dict[Kind, float] = {"band": 1.5e-6, "scalar": 1.5e-4, "dense": 1.5e-4, "sparse": 1.5e-4}
_LARGEST_SCALE = 1e5
# Seconds that starting a solve takes, and from the backend's own limit to the answer.
_STARTUP = 3e-3
_MARGIN = 3e-3
# Seconds per coefficient: to build a program and to hand it over, and from the backend's own limit
# to the answer.
_BUILDING: dict[Kind, float] = {"band": 9.5e-6, "scalar": 9.5e-6, "dense": 3e-5, "sparse": 8e-6}
_LEAVING: dict[Kind, float] = {"band": 5e-6, "scalar": 5e-6, "dense": 4e-6, "sparse": 4e-6}
# What every further attempt, after a failure of the backend, adds to the seed.
_AGAIN = 7919


@dataclass(frozen=True, slots=True)
class _MathOpt(ABC):
    r"""What SCIP and HiGHS share.

    Attributes
    ----------
    solver_type
        MathOpt's name of the solver.
    limits
        The sizes up to which it takes a problem.
    for_dense
        Native parameters for programs with dense rows of large numbers.
    again
        Native parameters of the further attempts at a program that it failed on.
    presolve
        Seconds per candidate that it takes, for one dense row, before it looks at the clock.
    """

    node_limit: int = 100_000
    band_share: float = 0.85

    solver_type: ClassVar[str]
    limits: ClassVar[tuple[Limit, ...]] = PROGRAM_LIMITS
    for_dense: ClassVar[Mapping[str, Any]]
    again: ClassVar[Sequence[Mapping[str, Any]]] = ({},)
    presolve: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        checked_integer("node_limit", self.node_limit, 1)
        checked_fraction("band_share", self.band_share)

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return the best subset found within the context's limits."""
        require_size(self.limits, problem, context)
        return reviewed(problem, context, search(problem, context, _Run(self, context)))

    @abstractmethod
    def set_native(self, parameters: Any, params: Mapping[str, Any], kind: Kind) -> None:
        """Set the solver's own parameters for a kind of program."""


@dataclass(frozen=True, slots=True)
class Scip(_MathOpt):
    r"""Exact solution by SCIP's branch and bound.

    First feasibility of :math:`|k \bar l - l \cdot z| \le 0.9\, k\, \varepsilon` for the tolerance
    :math:`\varepsilon`, which the minimizing form seldom reaches; where there is no such subset,
    the minimizing form. Vectors are matched by absolute values and tangents; facility location has
    a variable for each pair, k-center a program for each radius that is tried.

    Parameters
    ----------
    node_limit
        Nodes when neither a time limit nor ``max_iterations``, which is the same, is given.
    band_share
        Share of time and nodes for the feasibility form, in (0, 1).

    Raises
    ------
    UnsupportedProblemError
        If the problem is beyond the backend's sizes.
    OptionError
        If a hyperparameter is out of range, or the backend refuses a name in ``backend_params``
        (its own options, typed by the value; or MathOpt's).

    Notes
    -----
    One thread, deterministic under a node limit.

    References
    ----------
    Bolusani et al., The SCIP Optimization Suite 9.0; Dong et al., One Backward from Ten Forward,
    eq. 5.
    """

    solver_type = "GSCIP"
    # Cutting planes of dense rows of large numbers lead SCIP's LP solver into cycles (1 program in
    # 14, n = 12; none without them, and in half of the time).
    for_dense = MappingProxyType({"separating/maxroundsroot": 0, "separating/maxrounds": 0})

    def set_native(self, parameters: Any, params: Mapping[str, Any], kind: Kind) -> None:
        """Set SCIP's own parameters for a kind of program."""
        from ortools.math_opt.solvers.gscip import gscip_pb2

        native = gscip_pb2.GScipParameters()
        if kind != "band":
            # Proofs to 1e-9 of the mean need more than the 1e-6 of the default. With less than the
            # default 1e-7 for the dual, its LP solver prints warnings.
            native.real_params["numerics/feastol"] = 1e-9
        # MathOpt's own interrupter makes SCIP print errors to stderr on every solve.
        native.bool_params["misc/catchctrlc"] = True
        _set_by_type(native, params, "bool_params", "int_params", "real_params", "string_params")
        parameters.gscip = native


@dataclass(frozen=True, slots=True)
class Highs(_MathOpt):
    """Exact solution by HiGHS' branch and cut, through OR-Tools.

    The forms of :class:`Scip`; for mean matching with half of the time for the first, because HiGHS
    finds a subset within tolerance less often. It cannot be interrupted from here: after Ctrl-C it
    runs on to its limit. MathOpt refuses a number of threads for it.

    Parameters
    ----------
    node_limit, band_share
        As for :class:`Scip`.

    References
    ----------
    Huangfu & Hall, Math. Prog. Comp. 2018; Dong et al., One Backward from Ten Forward, eq. 5.
    """

    node_limit: int = 10_000
    band_share: float = 0.5

    solver_type = "HIGHS"
    limits = HIGHS_LIMITS
    # At its default 1e-6 HiGHS refuses answers of its own that are off by as much, with an error.
    for_dense = MappingProxyType({"mip_feasibility_tolerance": 1e-7})
    # It so failed on 39 of 6,471 programs, and on none of these at every one of these tolerances.
    again = tuple({"mip_feasibility_tolerance": tolerance} for tolerance in (1e-9, 1e-10, 1e-8))
    # Its presolve took up to 0.3 s with 1,024 candidates before it looked at the clock.
    presolve = 2.5e-4

    def set_native(self, parameters: Any, params: Mapping[str, Any], kind: Kind) -> None:
        """Set HiGHS' own parameters; they are equal for all kinds of programs."""
        from ortools.math_opt.solvers import highs_pb2

        native = highs_pb2.HighsOptionsProto()
        _set_by_type(
            native, params, "bool_options", "int_options", "double_options", "string_options"
        )
        parameters.highs = native


def _set_by_type(native: Any, params: Mapping[str, Any], *tables: str) -> None:
    """Put each parameter into the native table for its type: bool, int, float, or another."""
    for name, value in params.items():
        types = (bool, int, float)
        position = next((i for i, kind in enumerate(types) if isinstance(value, kind)), len(types))
        getattr(native, tables[position])[name] = value


class _Run:
    """Runs programs, one model each, and that of a magnitude as bands first."""

    def __init__(self, solver: _MathOpt, context: SolveContext) -> None:
        self.solver, self.context, self.nodes = solver, context, context.max_iterations
        if self.nodes is None and not context.deadline.limited:
            self.nodes = solver.node_limit

    def __call__(self, form: Form, start: Choice | None, used: int, number: int) -> Answer:
        """Run the program of a form."""
        nodes = None if self.nodes is None else self.nodes - used
        if number and nodes is not None and nodes <= 0:
            return Answer.none("NODE", StopReason.NODE)
        if isinstance(form, LinearForm) and form.absolute:
            return self._by_bands(form, start, nodes)
        return self._run(form, start, nodes, number)

    def _by_bands(self, form: LinearForm, start: Choice | None, nodes: int | None) -> Answer:
        """Look for a subset within tolerance first; minimize when there is none."""
        choices: list[Choice] = []
        floor, used = -math.inf, 0
        for attempt, share in enumerate(_BANDS):
            part = None if nodes is None else int(self.solver.band_share * (nodes - used))
            band = self._run(replace(form, share=share), None, part, attempt)
            used, choices = used + band.iterations, [*band.choices, *choices]
            if band.reason is StopReason.INTERRUPTED:
                return replace(band, choices=choices, iterations=used)
            if not band.choices:
                floor = (share - LEAK) * form.precision if band.infeasible else floor
                break
            if min(map(form.value, band.choices)) <= form.precision:
                return replace(band, choices=choices, reason=StopReason.TARGET, iterations=used)
        hints = choices if start is None else [start, *choices]
        hint = min(hints, key=form.value, default=None)
        last = self._run(form, hint, None if nodes is None else nodes - used, 0)
        return Answer(
            [*last.choices, *choices],
            max(last.bound, floor),
            band.word if last.word == "not called" else last.word,
            last.reason,
            used + last.iterations,
            band.began,
        )

    def _run(self, form: Form, start: Choice | None, nodes: int | None, seed: int) -> Answer:
        """Run the program of a form, again and otherwise where the backend fails on it."""
        deadline = self.context.deadline
        mathopt = import_within(_MATHOPT, deadline)
        if mathopt is None:
            return Answer.none()
        scale = min(max(_UNITS[form.kind] / form.precision, 1.0), _LARGEST_SCALE)
        program = form.program(scale, start)
        needed = _STARTUP + _MARGIN + _BUILDING[form.kind] * program.entries
        if form.kind in ("scalar", "band"):
            needed += self.solver.presolve * program.size
        if deadline.remaining() < needed:
            return Answer.none()
        native, variables, hint = _build(mathopt, program)
        began = deadline.elapsed()
        for attempt, other in enumerate(({}, *self.solver.again)):
            room = deadline.remaining() - _MARGIN - _LEAVING[form.kind] * program.entries
            if room <= 0.0:
                return Answer.none()
            parameters = mathopt.SolveParameters(
                random_seed=(self.context.entropy + seed + _AGAIN * attempt) & _SEED_BITS,
                node_limit=None if nodes is None else min(max(1, nodes), _MOST_NODES),
            )
            self._configure(parameters, form, program, other, room)
            model_parameters = mathopt.ModelSolveParameters() if attempt else hint
            asked = list(self.context.backend_params)
            kind = self.solver.solver_type
            work = partial(call, mathopt, native, kind, parameters, model_parameters, asked)
            try:
                outcome = run_interruptible(work, lambda: None, deadline)
                return _read(outcome, variables, program, began)
            except SolverError as error:
                # HiGHS at times fails on the numbers of one path, and not of another.
                failure = error
        if seed == 0:
            raise failure
        # The subsets found before are worth more than the error.
        return Answer.none("ERROR", StopReason.NUMERICAL)

    def _configure(
        self, parameters: Any, form: Form, program: Program, other: Mapping[str, Any], room: float
    ) -> None:
        """Set gaps, the time limit, and native parameters; ``other`` are those of this attempt."""
        band = form.kind == "band"
        if not band:
            parameters.relative_gap_tolerance = 0.0
            parameters.absolute_gap_tolerance = program.gap
        if math.isfinite(room):
            room = room * self.solver.band_share if band else room
            parameters.time_limit = datetime.timedelta(seconds=room)
        own = self.solver.for_dense if form.kind == "dense" else {}
        params = {**own, **other, **self.context.backend_params}
        # MathOpt's own fields are set there; all other names are the backend's.
        fields = set(type(parameters).__dataclass_fields__)
        native = {name: value for name, value in params.items() if name not in fields}
        self.solver.set_native(parameters, native, form.kind)
        for name in params.keys() & fields:
            setattr(parameters, name, params[name])


def _build(mathopt: Any, program: Program) -> tuple[Any, list[Any], Any]:
    """Return the native model, its variables and the parameters with the hint."""
    # Made by the module's own generator of code: the fast way to a large model.
    proto = importlib.import_module("ortools.math_opt.model_pb2").ModelProto()
    m, total = program.size, program.costs.size
    proto.variables.ids.extend(range(total))
    proto.variables.lower_bounds.extend([0.0] * total)
    proto.variables.upper_bounds.extend([1.0] * m + program.upper.tolist())
    proto.variables.integers.extend([True] * m + [False] * (total - m))
    costly = np.flatnonzero(program.costs)
    proto.objective.linear_coefficients.ids.extend(costly.tolist())
    proto.objective.linear_coefficients.values.extend(program.costs[costly].tolist())
    matrix = stacked(program.rows, program.links)
    proto.linear_constraints.ids.extend(range(matrix.low.size))
    proto.linear_constraints.lower_bounds.extend(matrix.low.tolist())
    proto.linear_constraints.upper_bounds.extend(matrix.high.tolist())
    # The columns of a row have to ascend, and zeros may not be there.
    order = np.lexsort((matrix.columns, matrix.rows))
    order = order[matrix.coefficients[order] != 0.0]
    proto.linear_constraint_matrix.row_ids.extend(matrix.rows[order].tolist())
    proto.linear_constraint_matrix.column_ids.extend(matrix.columns[order].tolist())
    proto.linear_constraint_matrix.coefficients.extend(matrix.coefficients[order].tolist())
    native = mathopt.Model.from_model_proto(proto)
    variables = sorted(native.variables(), key=lambda variable: int(variable.id))
    hints = []
    if program.start is not None:
        values = dict(zip(variables, program.start.tolist(), strict=True))
        hints = [mathopt.SolutionHint(variable_values=values)]
    return native, variables, mathopt.ModelSolveParameters(solution_hints=hints)


def call(
    mathopt: Any, native: Any, solver_type: str, parameters: Any, hint: Any, asked: list[str]
) -> Any:
    """Solve, and tell a refused parameter from a failure."""
    try:
        with without_native_lines(b"Highs"):
            return mathopt.solve(
                native, mathopt.SolverType[solver_type], params=parameters, model_params=hint
            )
    except Exception as error:
        # OR-Tools 9.15 raises AttributeError while it translates its own error.
        cause = error.__context__ if isinstance(error, AttributeError) else None
        message = f"{solver_type.removeprefix('G')}: {cause or error}"
        if asked and not isinstance(error, MemoryError):
            names = ", ".join(map(repr, asked))
            raise OptionError(f"backend_params ({names}) refused by {message}") from None
        raise SolverError(message) from None


def meaning(result: Any, *, interrupted: bool) -> tuple[str, StopReason]:
    """Return the native status, or the limit that was reached, as a word and as a reason."""
    word = result.termination.reason.name
    if word in ("FEASIBLE", "NO_SOLUTION_FOUND"):
        limit = result.termination.limit
        word = word if limit is None else limit.name
    if interrupted:
        return word, StopReason.INTERRUPTED
    return word, _STATUS.get(word, StopReason.OTHER)


def _read(outcome: Outcome, variables: list[Any], program: Program, began: float) -> Answer:
    """Return what came of a solve."""
    result = outcome.result
    word, reason = meaning(result, interrupted=outcome.interrupted)
    binaries = variables[: program.size]
    choices = []
    for solution in result.solutions:
        primal = solution.primal_solution
        if primal is not None and primal.feasibility_status.name == "FEASIBLE":
            values = [primal.variable_values[variable] for variable in binaries]
            choices.append(np.array(values) > 0.5)
    bound = result.termination.objective_bounds.dual_bound
    bound = program.bound(bound) if math.isfinite(bound) and word != "INFEASIBLE" else -math.inf
    return Answer(choices, bound, word, reason, int(result.solve_stats.node_count), began)
