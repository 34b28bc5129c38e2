"""What CP-SAT is told on every solve, and how it runs programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subsetopt.budget import Deadline
from subsetopt.errors import OptionError, did_you_mean
from subsetopt.solvers.base import SolveContext
from subsetopt.solvers.mip.calls import run_interruptible
from subsetopt.solvers.mip.frame import Row
from subsetopt.solvers.mip.program import Answer, Form, Program
from subsetopt.status import StopReason

__all__ = [
    "BUILDING",
    "LARGEST_SUM",
    "LEAVING",
    "MARGIN",
    "PRESOLVE",
    "STARTUP",
    "CPSatPrograms",
    "add_row",
    "configure",
    "meaning",
    "set_native",
]

_SEED_BITS = 0x7FFFFFFF

# "LIMIT" stands for FEASIBLE and UNKNOWN: CP-SAT does not say which limit ended it.
_STATUS = {
    "OPTIMAL": StopReason.COMPLETED,
    "INFEASIBLE": StopReason.COMPLETED,
    "MODEL_INVALID": StopReason.OTHER,
}
LARGEST_SUM = 2.0**60
STARTUP = 3e-3
# CP-SAT looks at the clock between propagations and then winds down.
MARGIN = 5e-3
# Seconds per coefficient: to build a model, and from CP-SAT's own limit to the answer.
BUILDING, LEAVING = 1.8e-6, 5e-7
# Seconds per variable of a dense row that presolve takes before it looks at the clock.
PRESOLVE = 6e-5
# Presolve of OR-Tools 9.15 loses the optimum of 1 in 150 knapsacks with coefficients above this
# (seen by enumeration; none in 600 without it).
_PRESOLVED = 2.0**30
# Rows added between two looks at the clock.
_LOOK = 512


def configure(
    parameters: Any, context: SolveContext, threads: int, gap: float, rows: Sequence[Row]
) -> None:
    """Set what every model needs; limits of work are the caller's."""
    parameters.num_workers = threads
    parameters.random_seed = context.entropy & _SEED_BITS
    parameters.relative_gap_limit = 0.0
    parameters.absolute_gap_limit = gap
    # With symmetries of tied losses, one worker of OR-Tools 9.15 searches forever (n = 9).
    parameters.symmetry_level = 0
    if any(row.coefficients is not None for row in rows):
        parameters.cp_model_presolve = False
    # Ctrl-C is taken by Python and handed on, so that it can be told from other ends.
    parameters.catch_sigint_signal = False


def set_native(parameters: Any, context: SolveContext, margin: float = MARGIN) -> None:
    """Set the caller's own parameters, and the time limit, less a margin, where they do not.

    Raises
    ------
    OptionError
        If CP-SAT does not know a name, or refuses a value.
    """
    known = [name for name in dir(parameters) if not name.startswith("_")]
    for name, value in context.backend_params.items():
        if name not in known:
            raise OptionError(
                f"CP-SAT has no parameter {name!r} (backend_params).{did_you_mean(name, known)}"
            )
        try:
            setattr(parameters, name, value)
        except (TypeError, ValueError, AttributeError) as error:
            raise OptionError(
                f"CP-SAT does not take backend_params[{name!r}] = {value!r}: {error}"
            ) from None
    if context.deadline.limited and "max_time_in_seconds" not in context.backend_params:
        parameters.max_time_in_seconds = max(0.0, context.deadline.remaining() - margin)


def add_row(cp_model: Any, native: Any, z: list[Any], row: Row) -> None:
    """Add a constraint on the binaries, its coefficients as whole numbers."""
    part = [z[i] for i in row.positions]
    if row.coefficients is None:
        total = cp_model.LinearExpr.sum(part)
        native.add_linear_constraint(total, int(row.low), int(row.high))
        return
    finest = 4e9 * row.positions.size
    factor = min(finest, LARGEST_SUM / (float(np.abs(row.coefficients).sum()) or 1.0))
    if math.isinf(row.low):
        # Costs are rounded down: no affordable subset is lost, and what is let in by mistake costs
        # less than the capacity's own widening for rounding.
        costs = np.floor(row.coefficients * factor).astype(np.int64)
        native.add(
            cp_model.LinearExpr.weighted_sum(part, costs.tolist()) <= math.floor(row.high * factor)
        )
        return
    # A band is widened by what rounding may move a sum; that, too, is less than its own widening.
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
        late = context.deadline.remaining() < 2.0 * MARGIN
        return StopReason.TIME if late else StopReason.ITERATION
    return _STATUS.get(word, StopReason.OTHER)


class CPSatPrograms:
    """Runs programs of whole numbers, one model each.

    Attributes
    ----------
    cp_model
        OR-Tools' module.
    work_limit
        Deterministic time of all runs together where neither the clock nor conflicts are limited.
    """

    def __init__(
        self, cp_model: Any, context: SolveContext, threads: int, work_limit: float
    ) -> None:
        self.cp_model, self.context = cp_model, context
        self.threads, self.work_limit = threads, work_limit

    def __call__(
        self, form: Form, start: NDArray[np.bool_] | None, used: int, number: int
    ) -> Answer:
        """Run the program of a form, rounded to whole numbers."""
        deadline = self.context.deadline
        program = form.program(form.whole_scale, start, whole=True)
        made = _build(self.cp_model, program, deadline)
        if made is None or deadline.remaining() < STARTUP + MARGIN:
            return Answer.late()
        native, variables = made
        solver = self.cp_model.CpSolver()
        if not self._limit(solver.parameters, program, used, number):
            return Answer([], -math.inf, "UNKNOWN", StopReason.ITERATION, 0)
        outcome = run_interruptible(lambda: solver.solve(native), solver.stop_search, deadline)
        word = solver.status_name(outcome.result)
        self.work_limit -= solver.deterministic_time
        choices, bound = [], -math.inf if program.costs.any() else program.bound(0.0)
        if word in ("OPTIMAL", "FEASIBLE"):
            binaries = [solver.boolean_value(z) for z in variables[: program.size]]
            choices = [np.array(binaries, dtype=np.bool_)]
        if word in ("OPTIMAL", "FEASIBLE", "UNKNOWN") and program.costs.any():
            bound = program.bound(solver.best_objective_bound)
        reason = meaning(word, self.context, outcome.interrupted)
        return Answer(choices, bound, word, reason, int(solver.num_conflicts))

    def _limit(self, parameters: Any, program: Program, used: int, number: int) -> bool:
        """Set parameters and limits; return whether any work is left."""
        context = self.context
        configure(parameters, context, self.threads, math.floor(program.gap), program.rows)
        parameters.random_seed = (context.entropy + number) & _SEED_BITS
        # Facility location of 40 samples: a proof in 0.3 s, where level 1 has none in 10 s.
        parameters.linearization_level = 2
        if np.abs(program.links.coefficients).max(initial=0.0) > _PRESOLVED:
            parameters.cp_model_presolve = False
        if context.max_iterations is not None:
            parameters.max_number_of_conflicts = max(0, context.max_iterations - used)
            if number and used >= context.max_iterations:
                return False
        elif not context.deadline.limited:
            if self.work_limit <= 0.0:
                return False
            parameters.max_deterministic_time = self.work_limit
        set_native(parameters, context)
        return True


def _build(cp_model: Any, program: Program, deadline: Deadline) -> tuple[Any, list[Any]] | None:
    """Return the native model and its variables; None when time runs out."""
    native = cp_model.CpModel()
    ends = [1] * program.size + program.upper.astype(np.int64).tolist()
    variables = [
        native.new_bool_var("") if end == 1 else native.new_int_var(0, end, "") for end in ends
    ]
    for row in program.rows:
        add_row(cp_model, native, variables, row)
    links = program.links
    starts, columns = links.starts.tolist(), links.columns.tolist()
    entries = links.coefficients.astype(np.int64).tolist()
    for number, (low, high) in enumerate(zip(links.low.tolist(), links.high.tolist(), strict=True)):
        if number % _LOOK == 0 and deadline.expired():
            return None
        part = slice(starts[number], starts[number + 1])
        several = [variables[c] for c in columns[part]]
        if low == 1.0 and math.isinf(high) and set(entries[part]) == {1}:
            native.add_bool_or(several)  # a cover
            continue
        total = cp_model.LinearExpr.weighted_sum(several, entries[part])
        if low == high:
            native.add(total == int(high))
        elif math.isinf(low):
            native.add(total <= int(high))
        else:
            native.add(total >= int(low))
    if program.costs.any():
        costs = program.costs.astype(np.int64).tolist()
        native.minimize(cp_model.LinearExpr.weighted_sum(variables, costs))
    if program.start is not None:
        for variable, value in zip(variables, program.start.tolist(), strict=True):
            native.add_hint(variable, int(value))
    return native, variables
