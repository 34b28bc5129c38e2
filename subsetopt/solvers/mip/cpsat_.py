"""CP-SAT through OR-Tools: every objective that has a linear form, exactly.

OR-Tools' modules are imported on the first solve that needs them (CP-SAT's takes half a second).
``highspy`` cannot live in one process with OR-Tools and is never imported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from subsetopt.budget import Deadline
from subsetopt.errors import OptionError, did_you_mean
from subsetopt.inputs import checked_integer, checked_positive
from subsetopt.problem import Problem
from subsetopt.solvers.base import RawResult, SolveContext
from subsetopt.solvers.mip.calls import import_within, run_interruptible, work_left
from subsetopt.solvers.mip.constraint_rows import Choice, Row
from subsetopt.solvers.mip.program import Answer, Form, Program
from subsetopt.solvers.mip.review import reviewed
from subsetopt.solvers.mip.search import require_size, search
from subsetopt.solvers.rows import PROGRAM_LIMITS
from subsetopt.status import StopReason

__all__ = ["CPSat"]

_CP_MODEL = "ortools.sat.python.cp_model"
_SEED_BITS = 0x7FFFFFFF
# FEASIBLE and UNKNOWN are not here: CP-SAT does not say which limit ended it.
_STATUS = {
    "OPTIMAL": StopReason.COMPLETED,
    "INFEASIBLE": StopReason.COMPLETED,
    "MODEL_INVALID": StopReason.OTHER,
}
# Largest magnitude of a sum of whole numbers.
_LARGEST_SUM = 2.0**60
# Seconds that starting a solve takes, and from CP-SAT's own limit to the answer: it looks at the
# clock between propagations and then winds down.
_STARTUP = 3e-3
_MARGIN = 5e-3
# Rows that are added between two looks at the clock.
_LOOK = 512


# Seconds per coefficient of a scalar program: to build it, and from CP-SAT's own limit to the
# answer. Other programs look at the clock while they are built.
_BUILDING, _LEAVING = 1.8e-6, 5e-7
# Seconds per variable of a scalar program that presolve takes before it looks at the clock.
_PRESOLVE = 6e-5
# Presolve of OR-Tools 9.15 loses the optimum of 1 in 150 knapsacks with coefficients above this
# (seen by enumeration; none in 600 without it). It does not harm scalar programs.
_PRESOLVED = 2.0**30


@dataclass(frozen=True, slots=True)
class CPSat:
    r"""Exact solution by CP-SAT on values scaled to integers.

    .. math:: \min t \quad\text{s.t.}\quad -t \le \hat d + \hat v \cdot z \le t,\;
              \textstyle\sum z = k,\; z \in \{0, 1\}^n

    with :math:`\hat v = \mathrm{round}(100\, v / \varepsilon)` for a tolerance
    :math:`\varepsilon` per chosen item, so that all sums stay below 2^62; rounding is taken off
    the bound. The forms of other objectives are stated as whole numbers, too.

    Parameters
    ----------
    threads
        Workers, at least 1. Only one worker reproduces under a work limit.
    work_limit
        Deterministic time (about seconds) when neither a time limit nor ``max_iterations`` is
        given.

    Raises
    ------
    UnsupportedProblemError
        If the problem is beyond the sizes of mixed-integer programs.
    OptionError
        If a hyperparameter is out of range, or ``backend_params`` names no field of CP-SAT's
        ``SatParameters``.

    Notes
    -----
    ``max_iterations`` limits conflicts. The first solve in a process imports CP-SAT, which takes
    about half a second; when the deadline comes first, the warm start is returned.

    References
    ----------
    Perron & Furnon, OR-Tools CP-SAT; Dong et al., One Backward from Ten Forward, eq. 5.
    """

    threads: int = 1
    work_limit: float = 5.0

    def __post_init__(self) -> None:
        checked_integer("threads", self.threads, 1)
        checked_positive("work_limit", self.work_limit)

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return the best subset found within the context's limits."""
        require_size(PROGRAM_LIMITS, problem, context)
        return reviewed(problem, context, search(problem, context, _Run(self, context)))


class _Run:
    """Runs programs of whole numbers, one model each."""

    def __init__(self, solver: CPSat, context: SolveContext) -> None:
        self.solver, self.context, self.work = solver, context, 0.0

    def __call__(self, form: Form, start: Choice | None, used: int, number: int) -> Answer:
        """Run the program of a form, rounded to whole numbers."""
        deadline = self.context.deadline
        cp_model = import_within(_CP_MODEL, deadline)
        if cp_model is None:
            return Answer.none()
        limits = work_left(self.context, used, number, self.solver.work_limit - self.work)
        if limits is None:
            return Answer.none("UNKNOWN", StopReason.ITERATION)
        program = form.program(form.whole_scale, start, whole=True)
        entries = program.entries if form.kind == "scalar" else 0
        margin = _MARGIN + _LEAVING * entries
        if deadline.remaining() < _STARTUP + margin + _BUILDING * entries:
            return Answer.none()
        model, solver = _build(cp_model, program, deadline), cp_model.CpSolver()
        if model is None or deadline.remaining() < _STARTUP + margin:
            return Answer.none()
        parameters = solver.parameters
        if limits.iterations is not None:
            parameters.max_number_of_conflicts = limits.iterations
        if limits.work is not None:
            parameters.max_deterministic_time = limits.work
        parameters.random_seed = (self.context.entropy + number) & _SEED_BITS
        self._configure(parameters, form, program)
        self._set_native(parameters, margin)
        (native, variables), began = model, deadline.elapsed()
        outcome = run_interruptible(lambda: solver.solve(native), solver.stop_search, deadline)
        self.work += solver.deterministic_time
        word = solver.status_name(outcome.result)
        choices, bound = [], -math.inf if program.costs.any() else program.bound(0.0)
        if word in ("OPTIMAL", "FEASIBLE"):
            choices = [np.array([solver.boolean_value(z) for z in variables[: program.size]])]
        if word in ("OPTIMAL", "FEASIBLE", "UNKNOWN") and program.costs.any():
            bound = program.bound(solver.best_objective_bound)
        reason = meaning(word, self.context, outcome.interrupted)
        return Answer(choices, bound, word, reason, int(solver.num_conflicts), began)

    def _configure(self, parameters: Any, form: Form, program: Program) -> None:
        """Set what a program needs."""
        parameters.num_workers = self.solver.threads
        parameters.relative_gap_limit = 0.0
        parameters.absolute_gap_limit = math.floor(program.gap)
        # With symmetries of tied losses, one worker of OR-Tools 9.15 searches forever (n = 9).
        parameters.symmetry_level = 0
        # That step of presolve adds coefficients of Booleans in 32 bits (OR-Tools 9.15): 74 of
        # 2,616 small problems with quotas of one got a wrong optimum, none without it.
        parameters.presolve_inclusion_work_limit = 0
        # Ctrl-C is taken by Python and handed on, so that it can be told from other ends.
        parameters.catch_sigint_signal = False
        if form.kind == "scalar":
            presolved = self.context.deadline.remaining() >= _PRESOLVE * program.size
        else:
            presolved = np.abs(program.links.coefficients).max(initial=0.0) <= _PRESOLVED
            # Facility location of 40 samples: a proof in 0.3 s, where level 1 has none in 10 s.
            parameters.linearization_level = 2
        if not presolved or any(row.coefficients is not None for row in program.rows):
            parameters.cp_model_presolve = False

    def _set_native(self, parameters: Any, margin: float) -> None:
        """Set the caller's own parameters, and the time limit, less a margin, where they do not.

        Raises
        ------
        OptionError
            If CP-SAT does not know a name, or refuses a value.
        """
        known = [name for name in dir(parameters) if not name.startswith("_")]
        own, deadline = self.context.backend_params, self.context.deadline
        for name, value in own.items():
            if name not in known:
                near = did_you_mean(name, known)
                raise OptionError(f"CP-SAT has no parameter {name!r} (backend_params).{near}")
            try:
                setattr(parameters, name, value)
            except (TypeError, ValueError, AttributeError) as error:
                raise OptionError(
                    f"CP-SAT does not take backend_params[{name!r}] = {value!r}: {error}"
                ) from None
        if deadline.limited and "max_time_in_seconds" not in own:
            parameters.max_time_in_seconds = max(0.0, deadline.remaining() - margin)


def _build(cp_model: Any, program: Program, deadline: Deadline) -> tuple[Any, list[Any]] | None:
    """Return the native model and its variables; None when time runs out."""
    native, links = cp_model.CpModel(), program.links
    ends = [1] * program.size + program.upper.astype(np.int64).tolist()
    variables = [
        native.new_bool_var("") if end == 1 else native.new_int_var(0, end, "") for end in ends
    ]
    for row in program.rows:
        _add_row(cp_model, native, variables, row)
    starts, columns = links.starts.tolist(), links.columns.tolist()
    entries = links.coefficients.astype(np.int64).tolist()
    for number, (low, high) in enumerate(zip(links.low.tolist(), links.high.tolist(), strict=True)):
        if number % _LOOK == 0 and deadline.expired():
            return None
        part = slice(starts[number], starts[number + 1])
        several = [variables[c] for c in columns[part]]
        if not program.upper.size and low == 1.0 and math.isinf(high) and set(entries[part]) == {1}:
            native.add_bool_or(several)  # It is a cover.
            continue
        total = cp_model.LinearExpr.weighted_sum(several, entries[part])
        native.add_linear_constraint(
            total,
            cp_model.INT_MIN if math.isinf(low) else int(low),
            cp_model.INT_MAX if math.isinf(high) else int(high),
        )
    if program.costs.any():
        costs = program.costs.astype(np.int64).tolist()
        native.minimize(cp_model.LinearExpr.weighted_sum(variables, costs))
    if program.start is not None:
        for variable, value in zip(variables, program.start.tolist(), strict=True):
            native.add_hint(variable, int(value))
    return native, variables


def _add_row(cp_model: Any, native: Any, z: list[Any], row: Row) -> None:
    """Add a constraint on the binaries, its coefficients as whole numbers."""
    part = [z[i] for i in row.positions]
    if row.coefficients is None:
        total = cp_model.LinearExpr.sum(part)
        native.add_linear_constraint(total, int(row.low), int(row.high))
        return
    if math.isinf(row.low):  # Costs, or a row that a single choice breaks: whole numbers.
        costs = row.coefficients.astype(np.int64).tolist()
        total = cp_model.LinearExpr.weighted_sum(part, costs)
        native.add_linear_constraint(total, cp_model.INT_MIN, math.floor(row.high))
        return
    finest = 4e9 * row.positions.size
    factor = min(finest, _LARGEST_SUM / (float(np.abs(row.coefficients).sum()) or 1.0))
    # A band is widened by what rounding may move a sum, which is less than its own widening.
    values = np.rint(row.coefficients * factor)
    moved = 0.5 * row.positions.size
    reach = float(np.abs(values).sum())
    low = math.floor(min(max(row.low * factor - moved, -reach - 2.0), reach + 1.0))
    high = math.ceil(min(max(row.high * factor + moved, -reach - 1.0), reach + 2.0))
    total = cp_model.LinearExpr.weighted_sum(part, values.astype(np.int64).tolist())
    native.add_linear_constraint(total, low, high)


def meaning(word: str, context: SolveContext, interrupted: bool) -> StopReason:
    """Return what the native status means."""
    if word in ("FEASIBLE", "UNKNOWN"):
        if interrupted:
            return StopReason.INTERRUPTED
        if context.max_iterations is None:
            return StopReason.TIME if context.deadline.limited else StopReason.ITERATION
        # CP-SAT ends a little before the limit it is given.
        late = context.deadline.remaining() < 2.0 * _MARGIN
        return StopReason.TIME if late else StopReason.ITERATION
    return _STATUS.get(word, StopReason.OTHER)
