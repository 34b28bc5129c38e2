"""CP-SAT through OR-Tools: every objective that has a linear form, exactly.

OR-Tools' modules are imported on the first solve that needs them (CP-SAT's takes half a second).
``highspy`` cannot live in one process with OR-Tools and is never imported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subsetopt.inputs import checked_integer, checked_positive
from subsetopt.problem import Problem
from subsetopt.solvers.base import RawResult, SolveContext
from subsetopt.solvers.mip.calls import import_within, out_of_time, run_interruptible
from subsetopt.solvers.mip.cpsat_programs import (
    BUILDING,
    LARGEST_SUM,
    LEAVING,
    MARGIN,
    PRESOLVE,
    STARTUP,
    CPSatPrograms,
    add_row,
    configure,
    meaning,
    set_native,
)
from subsetopt.solvers.mip.frame import accepted
from subsetopt.solvers.mip.linear_model import LinearModel, formulate
from subsetopt.solvers.mip.search import needs_programs, require_size, search

__all__ = ["CPSat"]

_CP_MODEL = "ortools.sat.python.cp_model"
# One integer step per hundredth of the tolerance: finer is slower, coarser has fewer solutions.
_STEPS = 100.0


@dataclass(frozen=True, slots=True)
class CPSat:
    r"""Exact solution by CP-SAT on values scaled to integers.

    .. math:: \min t \quad\text{s.t.}\quad -t \le \hat d + \hat v \cdot z \le t,\;
              \textstyle\sum z = k,\; z \in \{0, 1\}^n

    with :math:`\hat v = \mathrm{round}(100\, v / \varepsilon)` for a tolerance
    :math:`\varepsilon` per chosen item, so that all sums stay below 2^62; rounding is taken off
    the bound. Vectors, facilities and centers are stated as whole numbers, too: vectors by absolute
    values and tangents, facility location with a variable for each pair, k-center with a program
    for each radius that is tried.

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
        If vectors, facilities or centers are too many for any mixed-integer program.
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
        if needs_programs(problem):
            return self._solve_programs(problem, context)
        model = formulate(problem)
        if isinstance(model, RawResult):
            return model
        deadline = context.deadline
        cp_model = import_within(_CP_MODEL, deadline)
        if cp_model is None:
            return out_of_time(deadline)
        margin = MARGIN + LEAVING * model.entries
        if deadline.remaining() < STARTUP + margin + BUILDING * model.entries:
            return out_of_time(deadline)
        scaled = _Integers.of(model)
        native, variables = scaled.build(cp_model, context)
        solver = cp_model.CpSolver()
        configure(solver.parameters, context, self.threads, scaled.gap, model.rows)
        if context.max_iterations is not None:
            solver.parameters.max_number_of_conflicts = context.max_iterations
        elif not deadline.limited:
            solver.parameters.max_deterministic_time = self.work_limit
        if deadline.remaining() < PRESOLVE * model.size:
            solver.parameters.cp_model_presolve = False
        set_native(solver.parameters, context, margin)
        setup = deadline.elapsed()
        if deadline.remaining() < STARTUP + margin:
            return out_of_time(deadline)
        outcome = run_interruptible(lambda: solver.solve(native), solver.stop_search, deadline)
        word = solver.status_name(outcome.result)
        reason = meaning(word, context, outcome.interrupted)
        chosen = None
        if word in ("OPTIMAL", "FEASIBLE"):
            chosen = np.array([solver.boolean_value(z) for z in variables], dtype=np.bool_)
        bound = None
        if word in ("OPTIMAL", "FEASIBLE", "UNKNOWN"):
            bound = scaled.bound(solver.best_objective_bound)
        return RawResult(
            accepted(problem, model, chosen),
            bound=bound,
            stop_reason=reason,
            iterations=int(solver.num_conflicts),
            setup_time=setup,
            infeasible=word == "INFEASIBLE",
            extras={"native_status": word},
        )

    def _solve_programs(self, problem: Problem, context: SolveContext) -> RawResult:
        """Solve a problem of vectors, facilities or centers."""
        require_size(problem)
        cp_model = import_within(_CP_MODEL, context.deadline)
        if cp_model is None:
            return out_of_time(context.deadline)
        return search(
            problem, context, CPSatPrograms(cp_model, context, self.threads, self.work_limit)
        )


@dataclass(frozen=True, eq=False, slots=True)
class _Integers:
    """A linear model with its objective rounded to multiples of ``step``."""

    model: LinearModel
    values: NDArray[np.int64]
    offset: int
    step: float

    @classmethod
    def of(cls, model: LinearModel) -> _Integers:
        offset = model.offset if model.absolute else 0.0
        span = abs(offset) + float(np.abs(model.values).sum())
        chosen = max(1.0, model.rows[0].high)
        step = max(model.precision / (_STEPS * chosen), span / LARGEST_SUM)
        values = np.rint(model.values / step).astype(np.int64)
        return cls(model, values, round(offset / step), step)

    @property
    def error(self) -> float:
        """Half a step for each chosen item and the offset."""
        return 0.5 * self.step * (self.model.rows[0].high + 1.0)

    @property
    def gap(self) -> float:
        """Absolute gap, in steps, at which objective and bound agree within tolerance."""
        return max(0.0, math.floor(0.95 * (self.model.precision - 2.0 * self.error) / self.step))

    def bound(self, native: float) -> float | None:
        constant = 0.0 if self.model.absolute else self.model.offset
        return self.model.bound(native * self.step + constant, self.error)

    def build(self, cp_model: Any, context: SolveContext) -> tuple[Any, list[Any]]:
        native = cp_model.CpModel()
        z = [native.new_bool_var("") for _ in range(self.model.size)]
        for row in self.model.rows:
            add_row(cp_model, native, z, row)
        total = cp_model.LinearExpr.weighted_sum(z, self.values.tolist())
        chosen = self.model.choice(context.warm_start)
        for variable, value in zip(z, [] if chosen is None else chosen.tolist(), strict=False):
            native.add_hint(variable, value)
        if not self.model.absolute:
            native.minimize(total)
            return native, z
        most = abs(self.offset) + int(np.abs(self.values).sum())
        t = native.new_int_var(0, most, "")
        native.add(total + self.offset <= t)
        native.add(total + self.offset >= -t)
        native.minimize(t)
        if chosen is not None:
            native.add_hint(t, abs(self.offset + int(self.values[chosen].sum())))
        return native, z
