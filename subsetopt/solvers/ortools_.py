"""CP-SAT, SCIP and HiGHS through OR-Tools: mean matching and top scores, exactly.

OR-Tools' modules are imported on the first solve that needs them (CP-SAT's takes half a second).
``highspy`` cannot live in one process with OR-Tools and is never imported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subsetopt.budget import Deadline
from subsetopt.errors import OptionError, did_you_mean
from subsetopt.milp import (
    LinearModel,
    Row,
    accepted,
    checked_integer,
    checked_positive,
    formulate,
    import_within,
    out_of_time,
    run_interruptible,
)
from subsetopt.milp_mathopt import MathOpt
from subsetopt.problem import Problem
from subsetopt.solver import RawResult, SolveContext
from subsetopt.status import StopReason

__all__ = ["CPSat", "Highs", "Scip"]

_CP_MODEL = "ortools.sat.python.cp_model"
_SEED_BITS = 0x7FFFFFFF

# "LIMIT" stands for FEASIBLE and UNKNOWN: CP-SAT does not say which limit ended it.
_CPSAT_STATUS = {
    "OPTIMAL": StopReason.COMPLETED,
    "INFEASIBLE": StopReason.COMPLETED,
    "MODEL_INVALID": StopReason.OTHER,
}
# One integer step per hundredth of the tolerance: finer is slower, coarser has fewer solutions.
_STEPS = 100.0
_LARGEST_SUM = 2.0**60
_CPSAT_STARTUP = 3e-3
# CP-SAT looks at the clock between propagations and then winds down.
_CPSAT_MARGIN = 5e-3


@dataclass(frozen=True, slots=True)
class CPSat:
    r"""Exact solution by CP-SAT on values scaled to integers.

    .. math:: \min t \quad\text{s.t.}\quad -t \le \hat d + \hat v \cdot z \le t,\;
              \textstyle\sum z = k,\; z \in \{0, 1\}^n

    with :math:`\hat v = \mathrm{round}(100\, v / \varepsilon)` for a tolerance
    :math:`\varepsilon` per chosen item, so that all sums stay below 2^62; rounding is taken off
    the bound.

    Parameters
    ----------
    threads
        Workers, at least 1. Only one worker reproduces under a work limit.
    work_limit
        Deterministic time (about seconds) when neither a time limit nor ``max_iterations`` is
        given.

    Raises
    ------
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
        model = formulate(problem)
        if isinstance(model, RawResult):
            return model
        deadline = context.deadline
        cp_model = import_within(_CP_MODEL, deadline)
        if cp_model is None:
            return out_of_time(deadline)
        scaled = _Integers.of(model)
        native, variables = scaled.build(cp_model, context)
        solver = cp_model.CpSolver()
        self._configure(solver, scaled, context)
        setup = deadline.elapsed()
        room = deadline.remaining() - _CPSAT_MARGIN
        if room < _CPSAT_STARTUP:
            return out_of_time(deadline)
        if deadline.limited and "max_time_in_seconds" not in context.backend_params:
            solver.parameters.max_time_in_seconds = room
        outcome = run_interruptible(lambda: solver.solve(native), solver.stop_search, deadline)
        word = solver.status_name(outcome.result)
        reason = _cpsat_reason(word, deadline, outcome.interrupted)
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

    def _configure(self, solver: Any, scaled: _Integers, context: SolveContext) -> None:
        parameters = solver.parameters
        parameters.num_workers = self.threads
        parameters.random_seed = context.entropy & _SEED_BITS
        parameters.relative_gap_limit = 0.0
        parameters.absolute_gap_limit = scaled.gap
        # With symmetries of tied losses, one worker of OR-Tools 9.15 searches forever (n = 9).
        parameters.symmetry_level = 0
        if any(row.coefficients is not None for row in scaled.model.rows):
            # Presolve of OR-Tools 9.15 loses the optimum of 1 in 150 knapsacks with coefficients
            # above 2^30 (seen by enumeration; none in 600 without it).
            parameters.cp_model_presolve = False
        # Ctrl-C is taken by Python and handed on, so that it can be told from other ends.
        parameters.catch_sigint_signal = False
        if context.max_iterations is not None:
            parameters.max_number_of_conflicts = context.max_iterations
        elif not context.deadline.limited:
            parameters.max_deterministic_time = self.work_limit
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
        step = max(model.precision / (_STEPS * chosen), span / _LARGEST_SUM)
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
            _cpsat_row(cp_model, native, z, row)
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


def _cpsat_row(cp_model: Any, native: Any, z: list[Any], row: Row) -> None:
    part = [z[i] for i in row.positions]
    if row.coefficients is None:
        total = cp_model.LinearExpr.sum(part)
        native.add_linear_constraint(total, int(row.low), int(row.high))
        return
    finest = 4e9 * row.positions.size
    factor = min(finest, _LARGEST_SUM / (float(np.abs(row.coefficients).sum()) or 1.0))
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


def _cpsat_reason(word: str, deadline: Deadline, interrupted: bool) -> StopReason:
    if word in ("FEASIBLE", "UNKNOWN"):
        if interrupted:
            return StopReason.INTERRUPTED
        # CP-SAT ends a little before the limit it is given.
        early = deadline.remaining() < 2.0 * _CPSAT_MARGIN
        return StopReason.TIME if early else StopReason.ITERATION
    return _CPSAT_STATUS.get(word, StopReason.OTHER)


def _scip_params(parameters: Any, params: Mapping[str, Any], band: bool) -> None:
    from ortools.math_opt.solvers.gscip import gscip_pb2

    native = gscip_pb2.GScipParameters()
    if not band:
        # Proofs to 1e-9 of the mean need more than the 1e-6 of the default.
        native.real_params["numerics/feastol"] = 1e-9
        native.real_params["numerics/dualfeastol"] = 1e-9
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
    the minimizing form.

    Parameters
    ----------
    node_limit
        Nodes when neither a time limit nor ``max_iterations`` is given.
    band_share
        Share of time and nodes for the feasibility form, in (0, 1).

    Raises
    ------
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
        backend = MathOpt("GSCIP", _scip_params, self.node_limit, self.band_share)
        return backend.solve(problem, context)


@dataclass(frozen=True, slots=True)
class Highs:
    r"""Exact solution by HiGHS' branch and cut, through OR-Tools.

    The two forms of :class:`Scip`, with half of the time for the first: HiGHS finds a subset
    within tolerance less often.

    Parameters
    ----------
    node_limit
        Nodes when neither a time limit nor ``max_iterations`` is given.
    band_share
        Share of time and nodes for the feasibility form, in (0, 1).

    Raises
    ------
    OptionError
        If a hyperparameter is out of range, or HiGHS refuses a name in ``backend_params`` (HiGHS'
        own options, typed by the value; or MathOpt's).

    Notes
    -----
    ``max_iterations`` is the node limit. HiGHS cannot be interrupted from here: after Ctrl-C it
    runs on to its limit. MathOpt refuses a number of threads for it.

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
        backend = MathOpt("HIGHS", _highs_params, self.node_limit, self.band_share)
        return backend.solve(problem, context)


def _check_mathopt(node_limit: int, band_share: float) -> None:
    checked_integer("node_limit", node_limit, 1)
    if not 0.0 < band_share < 1.0:
        raise OptionError(f"band_share must be within (0, 1), got {band_share!r}.")
