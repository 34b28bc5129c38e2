"""SCIP and HiGHS through MathOpt: the search in two forms that the two share."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subsetopt.errors import OptionError, SolverError, UnsupportedProblemError
from subsetopt.problem import Problem
from subsetopt.solvers.base import RawResult, SolveContext
from subsetopt.solvers.mip.calls import import_within, out_of_time, run_interruptible
from subsetopt.solvers.mip.frame import GAP, LEAK, accepted
from subsetopt.solvers.mip.linear_model import LinearModel, formulate
from subsetopt.status import StopReason

__all__ = ["MARGIN", "STARTUP", "UNITS", "MathOpt", "call", "meaning"]

_MATHOPT = "ortools.math_opt.python.mathopt"
_SEED_BITS = 0x7FFFFFFF

_MATHOPT_STATUS = {
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
# Tolerance of the problem in the scaled models. At 1.5e-6, mean|l| = 1 for k = 13, the search
# takes half of the time that it takes at 1.5e-5 (SCIP, measured), and the feasibility tolerance
# of 1e-6 still leaves most subsets within ours.
_BAND_UNITS = 1.5e-6
UNITS = 1.5e-4
STARTUP = 3e-3
MARGIN = 3e-3
# Seconds per coefficient: to build a model, and from the backend's own limit to the answer.
_BUILDING, _LEAVING = 4.5e-6, 5e-6


@dataclass(frozen=True, eq=False, slots=True)
class _Run:
    """One call of a backend: what came of it, in the units of the linear model."""

    chosen: NDArray[np.bool_] | None
    bound: float
    word: str
    nodes: int
    reason: StopReason


@dataclass(frozen=True, slots=True)
class MathOpt:
    """What SCIP and HiGHS share: a feasibility form first, then the minimizing form.

    Attributes
    ----------
    solver_type
        MathOpt's name of it.
    native_params
        Sets the backend's own parameters; the last argument tells the feasibility form.
    node_limit, band_share
        Nodes without another limit, and the share of all limits for the first form.
    for_dense
        Native parameters for programs with dense rows of large numbers.
    again
        Native parameters of the further attempts at a program that the backend failed on.
    most_timed
        Most candidates under a time limit: with more, the backend looks at the clock too seldom.
    seconds_per_candidate
        How long it may be, per candidate, before the backend looks at the clock for the first time.
    """

    solver_type: str
    native_params: Callable[[Any, Mapping[str, Any], bool], Any]
    node_limit: int
    band_share: float
    for_dense: Mapping[str, Any] = field(default_factory=dict)
    again: Sequence[Mapping[str, Any]] = ({},)
    most_timed: float = math.inf
    seconds_per_candidate: float = 0.0

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return the best subset found within the context's limits."""
        model = formulate(problem)
        if isinstance(model, RawResult):
            return model
        self._require_clock(model.size, context)
        mathopt = import_within(_MATHOPT, context.deadline)
        if mathopt is None or context.deadline.remaining() < STARTUP:
            return out_of_time(context.deadline)
        setup = context.deadline.elapsed()
        best, reason = self._search(mathopt, model, context)
        return RawResult(
            accepted(problem, model, best.chosen),
            bound=model.bound(best.bound, LEAK * model.precision),
            stop_reason=reason,
            iterations=best.nodes,
            setup_time=setup,
            infeasible=best.word == "INFEASIBLE",
            extras={"native_status": best.word},
        )

    def _require_clock(self, size: int, context: SolveContext) -> None:
        """Raise if the backend would not keep the time limit."""
        if context.deadline.limited and size > self.most_timed:
            name = self.solver_type.removeprefix("G")
            raise UnsupportedProblemError(
                f"{name} keeps a time limit up to {self.most_timed:,} candidates to choose from, "
                f"got {size:,}; with more it may be seconds late. Use 'auto', 'cpsat' or 'gurobi', "
                "or leave time_limit out for its node limit (max_iterations)."
            )

    def _search(
        self, mathopt: Any, model: LinearModel, context: SolveContext
    ) -> tuple[_Run, StopReason]:
        """Look for a subset within tolerance first; minimize when there is none."""
        nodes = self.nodes(context)
        start, floor, used = model.choice(context.warm_start), -math.inf, 0
        for attempt, band in enumerate(_BANDS if model.absolute else ()):
            share = None if nodes is None else max(1, int(self.band_share * (nodes - used)))
            run = self._run(mathopt, model, context, band, share, None, attempt)
            used += run.nodes
            if run.reason is StopReason.INTERRUPTED:
                return replace(run, nodes=used), run.reason
            if run.chosen is None:
                floor = run.bound
                break
            if model.value(run.chosen) <= model.precision:
                return replace(run, bound=0.0, nodes=used), StopReason.TARGET
            start = _better_choice(model, start, run.chosen)
        rest = None if nodes is None else max(1, nodes - used)
        run = self._run(mathopt, model, context, None, rest, start, 0)
        run = replace(run, bound=max(run.bound, floor), nodes=run.nodes + used)
        return run, run.reason

    def nodes(self, context: SolveContext) -> int | None:
        """Return the limit of nodes; None where only the clock limits."""
        if context.max_iterations is not None:
            return context.max_iterations
        return None if context.deadline.limited else self.node_limit

    def _run(
        self,
        mathopt: Any,
        model: LinearModel,
        context: SolveContext,
        band: float | None,
        nodes: int | None,
        start: NDArray[np.bool_] | None,
        attempt: int,
    ) -> _Run:
        units = _BAND_UNITS if band else UNITS
        scale = min(max(units / model.precision, 1.0), 1e5)
        late = _Run(None, -math.inf, "TIME", 0, StopReason.TIME)
        needed = MARGIN + (_BUILDING + _LEAVING) * model.entries
        if context.deadline.remaining() < needed + self.seconds_per_candidate * model.size:
            return late
        native, z, hint = _mathopt_model(mathopt, model, scale, band, start)
        room = context.deadline.remaining() - MARGIN - _LEAVING * model.entries
        if room <= 0.0:
            return late
        parameters = mathopt.SolveParameters(
            random_seed=(context.entropy + attempt) & _SEED_BITS,
            node_limit=nodes,
            relative_gap_tolerance=None if band else 0.0,
            absolute_gap_tolerance=None if band else GAP * model.precision * scale,
        )
        if context.deadline.limited:
            room = room * self.band_share if band else room
            parameters.time_limit = datetime.timedelta(seconds=room)
        self.set_native(parameters, context.backend_params, band=band is not None)
        asked = list(context.backend_params)
        outcome = run_interruptible(
            lambda: call(mathopt, native, self.solver_type, parameters, hint, asked),
            lambda: None,
            context.deadline,
        )
        return _read(outcome.result, z, model, scale, band, outcome.interrupted)

    def set_native(self, parameters: Any, params: Mapping[str, Any], *, band: bool) -> None:
        """Set MathOpt's own fields, and hand all other names to the backend."""
        fields = set(type(parameters).__dataclass_fields__)
        native = {name: value for name, value in params.items() if name not in fields}
        self.native_params(parameters, native, band)
        for name in params.keys() & fields:
            setattr(parameters, name, params[name])


def _mathopt_model(
    mathopt: Any,
    model: LinearModel,
    scale: float,
    band: float | None,
    start: NDArray[np.bool_] | None,
) -> tuple[Any, list[Any], Any]:
    """Return the native model, its binaries and the parameters with the hint."""
    native = mathopt.Model()
    z = [native.add_binary_variable() for _ in range(model.size)]
    for row in model.rows:
        total = _linear(mathopt, z, row.positions, row.coefficients)
        native.add_linear_constraint(expr=total, lb=float(row.low), ub=float(row.high))
    total = _linear(mathopt, z, np.arange(model.size), model.values * scale)
    hint = {} if start is None else dict(zip(z, start.astype(float).tolist(), strict=True))
    offset = model.offset * scale if model.absolute else 0.0
    if band:
        width = band * model.precision * scale
        native.add_linear_constraint(expr=total, lb=-width - offset, ub=width - offset)
    elif model.absolute:
        t = native.add_variable(lb=0.0)
        native.add_linear_constraint(expr=total - t, ub=-offset)
        native.add_linear_constraint(expr=total + t, lb=-offset)
        native.minimize(t)
        if start is not None:
            hint[t] = model.value(start) * scale
    else:
        native.minimize(total)
    hints = [mathopt.SolutionHint(variable_values=hint)] if hint else []
    return native, z, mathopt.ModelSolveParameters(solution_hints=hints)


def _linear(
    mathopt: Any,
    z: list[Any],
    positions: NDArray[np.int64],
    coefficients: NDArray[np.float64] | None,
) -> Any:
    if coefficients is None:
        return mathopt.LinearSum([z[i] for i in positions])
    return mathopt.LinearSum(
        [c * z[i] for c, i in zip(coefficients.tolist(), positions.tolist(), strict=True)]
    )


def call(
    mathopt: Any, native: Any, solver_type: str, parameters: Any, hint: Any, asked: list[str]
) -> Any:
    """Solve, and tell a refused parameter from a failure."""
    try:
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
    return word, _MATHOPT_STATUS.get(word, StopReason.OTHER)


def _read(
    result: Any,
    z: list[Any],
    model: LinearModel,
    scale: float,
    band: float | None,
    interrupted: bool,
) -> _Run:
    word, reason = meaning(result, interrupted=interrupted)
    chosen = None
    if result.has_primal_feasible_solution():
        chosen = np.array(result.variable_values(z)) > 0.5
    if band:
        bound = band * model.precision if word == "INFEASIBLE" else -math.inf
    else:
        constant = 0.0 if model.absolute else model.offset
        bound = result.termination.objective_bounds.dual_bound / scale + constant
    nodes = int(result.solve_stats.node_count)
    return _Run(chosen, bound, word, nodes, reason)


def _better_choice(
    model: LinearModel, first: NDArray[np.bool_] | None, second: NDArray[np.bool_] | None
) -> NDArray[np.bool_] | None:
    known = [choice for choice in (first, second) if choice is not None]
    return min(known, key=model.value, default=None)
