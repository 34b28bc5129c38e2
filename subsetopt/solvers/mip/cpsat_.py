"""CP-SAT through OR-Tools: every objective that has a linear form, exactly.

OR-Tools' modules are imported on the first solve that needs them (CP-SAT's takes half a second).
``highspy`` cannot live in one process with OR-Tools and is never imported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from subsetopt.budget import Deadline
from subsetopt.inputs import checked_integer, checked_positive
from subsetopt.problem import Problem
from subsetopt.solvers.base import RawResult, SolveContext
from subsetopt.solvers.mip.calls import import_within, run_interruptible, set_parameters
from subsetopt.solvers.mip.constraint_rows import Choice
from subsetopt.solvers.mip.program import Answer, Form, Limits, Program
from subsetopt.solvers.mip.review import reviewed
from subsetopt.solvers.mip.search import require_size, search
from subsetopt.solvers.rows import PROGRAM_LIMITS
from subsetopt.status import StopReason

__all__ = ["CPSat"]

_CP_MODEL = "ortools.sat.python.cp_model"
_SEED_BITS = 0x7FFFFFFF
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
        raw = search(problem, context, _Run(self, context), Limits(work=self.work_limit))
        return reviewed(problem, context, raw)


@dataclass(frozen=True, slots=True)
class _Run:
    """Runs programs of whole numbers, one model each."""

    solver: CPSat
    context: SolveContext

    def __call__(self, form: Form, start: Choice | None, limits: Limits, number: int) -> Answer:
        """Run the program of a form, rounded to whole numbers."""
        deadline = self.context.deadline
        cp_model = import_within(_CP_MODEL, deadline)
        if cp_model is None:
            return Answer.none()
        program = form.program(form.whole_scale, start, whole=True)
        entries = program.entries if form.kind == "scalar" else 0
        margin = _MARGIN + _LEAVING * entries
        if deadline.remaining() < _STARTUP + margin + _BUILDING * entries:
            return Answer.none()
        model, solver = _build(cp_model, program, deadline), cp_model.CpSolver()
        if model is None or deadline.remaining() < _STARTUP + margin:
            return Answer.none()
        parameters = solver.parameters
        parameters.random_seed = (self.context.entropy + number) & _SEED_BITS
        self._configure(parameters, form, program, limits, margin)
        (native, variables), began = model, deadline.elapsed()
        status, interrupted = run_interruptible(
            lambda: solver.solve(native), solver.stop_search, deadline
        )
        word, costly = solver.status_name(status), bool(program.costs.any())
        choices, bound = [], -math.inf if costly else program.bound(0.0)
        if word in ("OPTIMAL", "FEASIBLE"):
            choices = [np.array([solver.boolean_value(z) for z in variables[: program.size]])]
        if word in ("OPTIMAL", "FEASIBLE", "UNKNOWN") and costly:
            bound = program.bound(solver.best_objective_bound)
        reason = meaning(word, self.context, interrupted)
        conflicts, work = int(solver.num_conflicts), solver.deterministic_time
        return Answer(choices, bound, word, reason, conflicts, work, began)

    def _configure(
        self, parameters: Any, form: Form, program: Program, limits: Limits, margin: float
    ) -> None:
        """Set all parameters, the caller's own last; the time limit is less by a margin."""
        if limits.iterations is not None:
            parameters.max_number_of_conflicts = limits.iterations
        if limits.work is not None:
            parameters.max_deterministic_time = limits.work
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
            presolved = np.abs(program.rows.coefficients).max() <= _PRESOLVED
            # Facility location of 40 samples: a proof in 0.3 s, where level 1 has none in 10 s.
            parameters.linearization_level = 2
        if not presolved or not form.frame.counting:
            parameters.cp_model_presolve = False
        if self.context.deadline.limited:
            room = self.context.deadline.remaining() - margin
            parameters.max_time_in_seconds = max(0.0, room)
        put = partial(setattr, parameters)
        set_parameters("CP-SAT", put, self.context.backend_params, dir(parameters))


def _build(cp_model: Any, program: Program, deadline: Deadline) -> tuple[Any, list[Any]] | None:
    """Return the native model and its variables; None when time runs out."""
    native, rows = cp_model.CpModel(), program.rows
    ends = [1] * program.size + program.upper.astype(np.int64).tolist()
    variables = [
        native.new_bool_var("") if end == 1 else native.new_int_var(0, end, "") for end in ends
    ]
    starts, columns = rows.starts.tolist(), rows.columns.tolist()
    entries = rows.coefficients.astype(np.int64).tolist()
    for number, (low, high) in enumerate(zip(rows.low.tolist(), rows.high.tolist(), strict=True)):
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


def meaning(word: str, context: SolveContext, interrupted: bool) -> StopReason:
    """Return what the native status means; CP-SAT does not say which limit ended it."""
    if word not in ("FEASIBLE", "UNKNOWN"):
        completed = word in ("OPTIMAL", "INFEASIBLE")
        return StopReason.COMPLETED if completed else StopReason.OTHER
    if interrupted:
        return StopReason.INTERRUPTED
    # CP-SAT ends a little before the time limit that it is given.
    late = context.max_iterations is None or context.deadline.remaining() < 2.0 * _MARGIN
    return StopReason.TIME if late and context.deadline.limited else StopReason.ITERATION
