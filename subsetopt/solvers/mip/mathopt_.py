"""SCIP and HiGHS through OR-Tools' MathOpt: every objective that has a linear form, exactly.

OR-Tools' modules are imported on the first solve that needs them. ``highspy`` cannot live in one
process with OR-Tools and is never imported.
"""

from __future__ import annotations

import datetime
import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np

from subsetopt.errors import OptionError, SolverError
from subsetopt.inputs import checked_fraction, checked_integer
from subsetopt.problem import Problem
from subsetopt.quiet import without_native_lines
from subsetopt.solvers.base import RawResult, SolveContext
from subsetopt.solvers.mip.calls import import_within, run_interruptible
from subsetopt.solvers.mip.constraint_rows import Choice, Frame
from subsetopt.solvers.mip.linear_form import LinearForm
from subsetopt.solvers.mip.program import Answer, Form, Limits, Program
from subsetopt.solvers.mip.review import reviewed
from subsetopt.solvers.mip.search import form_of, require_size, search
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
# The tuning goes by the kind of a form, and by "band" where a magnitude has to be within a band.
# The precision in the scaled programs, and the largest factor by which a program is scaled. At
# 1.5e-6, mean|l| = 1 for k = 13, the search of a band takes half of the time that it takes at
# 1.5e-5 (SCIP, measured), and the feasibility tolerance of 1e-6 still leaves most subsets within
# ours.
_UNITS = {"band": 1.5e-6, "scalar": 1.5e-4, "dense": 1.5e-4, "sparse": 1.5e-4}
_LARGEST_SCALE = 1e5
# Seconds that starting a solve takes, and from the backend's own limit to the answer.
_STARTUP = 3e-3
_MARGIN = 3e-3
# Seconds per coefficient: to build a program and to hand it over, and from the backend's own limit
# to the answer.
_BUILDING = {"band": 9.5e-6, "scalar": 9.5e-6, "dense": 3e-5, "sparse": 8e-6}
_LEAVING = {"band": 5e-6, "scalar": 5e-6, "dense": 4e-6, "sparse": 4e-6}
# What every further attempt, after a failure of the backend, adds to the seed.
_AGAIN = 7919
# MathOpt's own interrupter makes SCIP print errors to stderr on every solve.
_QUIET: dict[str, Any] = {"misc/catchctrlc": True}
# Proofs to 1e-9 of the mean need more than the 1e-6 of SCIP's default. With less than the default
# 1e-7 for the dual, its LP solver prints warnings.
_PRECISE = {**_QUIET, "numerics/feastol": 1e-9}
# Cutting planes of dense rows of large numbers lead SCIP's LP solver into cycles (1 program in 14,
# n = 12; none without them, and in half of the time).
_UNCUT = {**_PRECISE, "separating/maxroundsroot": 0, "separating/maxrounds": 0}
_SCIP = {"band": _QUIET, "scalar": _PRECISE, "dense": _UNCUT, "sparse": _PRECISE}
# At its default 1e-6 HiGHS refuses answers of its own that are off by as much, with an error.
_HIGHS = {"dense": {"mip_feasibility_tolerance": 1e-7}}


@dataclass(frozen=True, slots=True)
class _MathOpt:
    """What SCIP and HiGHS share.

    Attributes
    ----------
    solver_type
        MathOpt's name of the solver; in lower case, of the field for the solver's own parameters.
    tables
        The tables of these for values that are bool, int, float, or of another type.
    limits
        The sizes up to which it takes a problem.
    tuning
        Own parameters by the kind of program; other kinds have none.
    again
        Own parameters of the further attempts at a program that it failed on.
    presolve
        Seconds per candidate that it takes, for one dense row, before it looks at the clock.
    """

    node_limit: int = 100_000
    band_share: float = 0.85

    solver_type: ClassVar[str]
    tables: ClassVar[tuple[str, str, str, str]]
    limits: ClassVar[tuple[Limit, ...]] = PROGRAM_LIMITS
    tuning: ClassVar[Mapping[str, Mapping[str, Any]]]
    again: ClassVar[Sequence[Mapping[str, Any]]] = ({},)
    presolve: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        checked_integer("node_limit", self.node_limit, 1)
        checked_fraction("band_share", self.band_share)

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return the best subset found within the context's limits."""
        require_size(self.limits, problem, context)
        run, limits = _Run(self, context), Limits(self.node_limit)
        return reviewed(problem, context, search(problem, context, run, limits, _form))


def _form(problem: Problem, frame: Frame, context: SolveContext) -> Form | None:
    """Return the form of a problem, with bands before a magnitude is minimized."""
    form = form_of(problem, frame, context)
    if isinstance(form, LinearForm) and form.absolute:
        form.bands = _BANDS
    return form


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
    tables = ("bool_params", "int_params", "real_params", "string_params")
    tuning = _SCIP


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
    tables = ("bool_options", "int_options", "double_options", "string_options")
    limits = HIGHS_LIMITS
    tuning = _HIGHS
    # It so failed on 39 of 6,471 programs, and on none of these at every one of these tolerances.
    again = tuple({"mip_feasibility_tolerance": tolerance} for tolerance in (1e-9, 1e-10, 1e-8))
    # Its presolve took up to 0.3 s with 1,024 candidates before it looked at the clock.
    presolve = 2.5e-4


class _Run:
    """Runs programs, one model each, ``bands`` of them for a magnitude within a band."""

    def __init__(self, solver: _MathOpt, context: SolveContext) -> None:
        self.solver, self.context, self.bands = solver, context, 0

    def __call__(self, form: Form, start: Choice | None, limits: Limits, number: int) -> Answer:
        """Run the program of a form; a band has a part of what is left of nodes and time."""
        nodes = limits.iterations
        if not isinstance(form, LinearForm) or not form.bands:
            return self._run(form, form.kind, start, nodes, number)
        part = None if nodes is None else int(self.solver.band_share * nodes)
        answer = self._run(form, "band", start, part, number)
        self.bands += 1
        # The search goes on where a band's part of the limits has ended, with a node at least.
        if answer.reason is not StopReason.INTERRUPTED:
            answer = replace(answer, reason=StopReason.COMPLETED)
        used = answer.iterations
        return replace(answer, iterations=used if part is None else min(used, part))

    def _run(
        self, form: Form, kind: str, start: Choice | None, nodes: int | None, number: int
    ) -> Answer:
        """Run the program of a form, again and otherwise where the backend fails on it."""
        deadline = self.context.deadline
        mathopt = import_within(_MATHOPT, deadline)
        if mathopt is None:
            return Answer.none()
        scale = min(max(_UNITS[kind] / form.precision, 1.0), _LARGEST_SCALE)
        program = form.program(scale, start)
        needed = _STARTUP + _MARGIN + _BUILDING[kind] * program.entries
        if form.kind == "scalar":
            needed += self.solver.presolve * program.size
        if deadline.remaining() < needed:
            return Answer.none()
        native, variables, hint = _build(mathopt, program)
        began = deadline.elapsed()
        seed = self.context.entropy + (number if kind == "band" else number - self.bands)
        for attempt, other in enumerate(({}, *self.solver.again)):
            room = deadline.remaining() - _MARGIN - _LEAVING[kind] * program.entries
            if room <= 0.0:
                return Answer.none()
            parameters = mathopt.SolveParameters(
                random_seed=(seed + _AGAIN * attempt) & _SEED_BITS,
                node_limit=None if nodes is None else min(max(1, nodes), _MOST_NODES),
            )
            self._configure(parameters, kind, program, other, room)
            model_parameters = mathopt.ModelSolveParameters() if attempt else hint
            asked = list(self.context.backend_params)
            solver_type = self.solver.solver_type
            work = partial(call, mathopt, native, solver_type, parameters, model_parameters, asked)
            try:
                result, interrupted = run_interruptible(work, lambda: None, deadline)
                return _read(result, variables, program, began, interrupted=interrupted)
            except SolverError as error:
                # HiGHS at times fails on the numbers of one path, and not of another.
                failure = error
        if number == 0:
            raise failure
        # The subsets found before are worth more than the error.
        return Answer.none("ERROR", StopReason.NUMERICAL)

    def _configure(
        self, parameters: Any, kind: str, program: Program, other: Mapping[str, Any], room: float
    ) -> None:
        """Set gaps, the time limit, and native parameters; ``other`` are those of this attempt."""
        if kind != "band":
            parameters.relative_gap_tolerance = 0.0
            parameters.absolute_gap_tolerance = program.gap
        if math.isfinite(room):
            room = room * self.solver.band_share if kind == "band" else room
            parameters.time_limit = datetime.timedelta(seconds=room)
        params = {**self.solver.tuning.get(kind, {}), **other, **self.context.backend_params}
        native = getattr(parameters, self.solver.solver_type.lower())
        # MathOpt's own fields are set there; all other names are the backend's.
        fields = type(parameters).__dataclass_fields__
        for name, value in params.items():
            if name in fields:
                setattr(parameters, name, value)
                continue
            types = enumerate((bool, int, float, object))
            table = next(i for i, kept in types if isinstance(value, kept))
            getattr(native, self.solver.tables[table])[name] = value


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
    rows = program.rows
    proto.linear_constraints.ids.extend(range(rows.low.size))
    proto.linear_constraints.lower_bounds.extend(rows.low.tolist())
    proto.linear_constraints.upper_bounds.extend(rows.high.tolist())
    # The columns of a row have to ascend, and zeros may not be there.
    order = np.lexsort((rows.columns, rows.rows))
    order = order[rows.coefficients[order] != 0.0]
    proto.linear_constraint_matrix.row_ids.extend(rows.rows[order].tolist())
    proto.linear_constraint_matrix.column_ids.extend(rows.columns[order].tolist())
    proto.linear_constraint_matrix.coefficients.extend(rows.coefficients[order].tolist())
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


def _read(
    result: Any, variables: list[Any], program: Program, began: float, *, interrupted: bool
) -> Answer:
    """Return what came of a solve."""
    word, reason = meaning(result, interrupted=interrupted)
    choices = []
    for solution in result.solutions:
        primal = solution.primal_solution
        if primal is not None and primal.feasibility_status.name == "FEASIBLE":
            values = [primal.variable_values[variable] for variable in variables[: program.size]]
            choices.append(np.array(values) > 0.5)
    bound = result.termination.objective_bounds.dual_bound
    bound = program.bound(bound) if math.isfinite(bound) and word != "INFEASIBLE" else -math.inf
    nodes = int(result.solve_stats.node_count)
    return Answer(choices, bound, word, reason, nodes, began=began)
