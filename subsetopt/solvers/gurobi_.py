"""Gurobi: mean matching and top scores as a mixed-integer linear program."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gurobipy as gp
import numpy as np
from gurobipy import GRB

from subsetopt.budget import Deadline
from subsetopt.errors import OptionError, SolverError, SolverLicenseError, did_you_mean
from subsetopt.milp import (
    GAP,
    LEAK,
    LinearModel,
    accepted,
    checked_integer,
    checked_positive,
    formulate,
    out_of_time,
    run_interruptible,
)
from subsetopt.problem import Problem
from subsetopt.solver import RawResult, SolveContext
from subsetopt.status import StopReason

__all__ = ["Gurobi"]

_STATUS = {
    GRB.OPTIMAL: ("OPTIMAL", StopReason.COMPLETED),
    GRB.INFEASIBLE: ("INFEASIBLE", StopReason.COMPLETED),
    GRB.ITERATION_LIMIT: ("ITERATION_LIMIT", StopReason.ITERATION),
    GRB.NODE_LIMIT: ("NODE_LIMIT", StopReason.NODE),
    GRB.TIME_LIMIT: ("TIME_LIMIT", StopReason.TIME),
    GRB.SOLUTION_LIMIT: ("SOLUTION_LIMIT", StopReason.OTHER),
    GRB.INTERRUPTED: ("INTERRUPTED", StopReason.INTERRUPTED),
    GRB.NUMERIC: ("NUMERIC", StopReason.NUMERICAL),
    GRB.SUBOPTIMAL: ("SUBOPTIMAL", StopReason.NUMERICAL),
    GRB.USER_OBJ_LIMIT: ("USER_OBJ_LIMIT", StopReason.TARGET),
    GRB.WORK_LIMIT: ("WORK_LIMIT", StopReason.ITERATION),
    GRB.MEM_LIMIT: ("MEM_LIMIT", StopReason.MEMORY),
}

# Losses of mean 1e3 with tolerances of 1e-9: a residual of 1e-7 of the mean is then far above
# what feasibility and integrality tolerances can hide (scaling alone makes IntFeasTol leak).
_SCALE = 1e3
_TOLERANCE = 1e-9
# Share of the tolerance at which to stop; the rest is for rounding.
_STOP_AT = 0.95
_STARTUP = 2e-3

_lock = threading.RLock()
_env: gp.Env | None = None
_env_pid = -1
_of_parents: list[gp.Env | None] = []


@dataclass(frozen=True, slots=True)
class Gurobi:
    r"""Exact solution by Gurobi's branch and cut.

    .. math:: \min t \quad\text{s.t.}\quad -t \le k \bar l - l \cdot z \le t,\;
              \textstyle\sum z = k,\; z \in \{0, 1\}^n

    A magnitude whose sign is the same for every subset, and top scores, are linear and need no t.

    Parameters
    ----------
    threads
        Threads, at least 0; 0 leaves the number to Gurobi (all cores).
    work_limit
        Deterministic work (about seconds on one core) when neither a time limit nor
        ``max_iterations`` is given.
    mip_focus
        Gurobi's MIPFocus: 0 balanced, 1 feasibility, 2 proof, 3 bound.

    Raises
    ------
    OptionError
        If a hyperparameter is out of range, or ``backend_params`` names no Gurobi parameter.
    SolverLicenseError
        If there is no valid license, or it does not cover the size (pip's: 1,999 variables).

    Notes
    -----
    ``max_iterations`` is the node limit. The losses are scaled to mean 1e3, FeasibilityTol and
    IntFeasTol are 1e-9, and the search stops at the problem's tolerance (BestObjStop). One
    environment per process is shared by all solves, which take turns. Deterministic for a given
    seed and number of threads under a work limit.

    References
    ----------
    Gurobi Optimizer reference manual; Dong et al., One Backward from Ten Forward, eq. 5.
    """

    threads: int = 0
    work_limit: float = 10.0
    mip_focus: int = 0

    def __post_init__(self) -> None:
        checked_integer("threads", self.threads, 0)
        checked_integer("mip_focus", self.mip_focus, 0)
        if self.mip_focus > 3:
            raise OptionError(f"mip_focus must be 0, 1, 2 or 3, got {self.mip_focus}.")
        checked_positive("work_limit", self.work_limit)

    @staticmethod
    def license_problem() -> str | None:
        """Return why no Gurobi environment can be made here, or None when one can."""
        try:
            with _environment(None):
                return None
        except SolverLicenseError as error:
            return str(error)

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return the best subset found within the context's limits."""
        model = formulate(problem)
        if isinstance(model, RawResult):
            return model
        deadline = context.deadline
        wait = deadline.remaining() if deadline.limited else None
        with _environment(wait) as env:
            if env is None or deadline.remaining() < _STARTUP:
                return out_of_time(deadline)
            with _license_errors(model), gp.Model(env=env) as native:
                variables, magnitude = _build(native, model)
                _hint(variables, magnitude, model, context)
                self._configure(native, model, context)
                setup = deadline.elapsed()
                outcome = run_interruptible(native.optimize, native.terminate, deadline)
                return _read(
                    native, variables, problem, model, deadline, setup, outcome.interrupted
                )

    def _configure(self, native: gp.Model, model: LinearModel, context: SolveContext) -> None:
        precision = model.precision * _SCALE
        settings: dict[str, Any] = {
            "Threads": self.threads,
            "MIPFocus": self.mip_focus,
            "Seed": context.entropy % GRB.MAXINT,
            "FeasibilityTol": _TOLERANCE,
            "IntFeasTol": _TOLERANCE,
            "OptimalityTol": _TOLERANCE,
            "MIPGap": 0.0,
            "MIPGapAbs": GAP * precision,
        }
        if model.absolute:
            settings["BestObjStop"] = _STOP_AT * precision
        if context.max_iterations is not None:
            settings["NodeLimit"] = context.max_iterations
        elif not context.deadline.limited:
            settings["WorkLimit"] = self.work_limit
        for name, value in settings.items():
            native.setParam(name, value)
        _set_native(native, context.backend_params)
        if context.deadline.limited and "TimeLimit" not in context.backend_params:
            native.setParam("TimeLimit", context.deadline.remaining())


def _build(native: gp.Model, model: LinearModel) -> tuple[gp.MVar, gp.Var | None]:
    """Add the model's variables, rows and objective, scaled."""
    z = native.addMVar(model.size, vtype=GRB.BINARY)
    for row in model.rows:
        part = z[row.positions.tolist()]
        total = part.sum() if row.coefficients is None else row.coefficients @ part
        if row.low == row.high:
            native.addConstr(total == row.high)
            continue
        if np.isfinite(row.low) and (row.coefficients is not None or row.low > 0.0):
            native.addConstr(total >= row.low)
        if np.isfinite(row.high):
            native.addConstr(total <= row.high)
    values = model.values * _SCALE
    if not model.absolute:
        native.setObjective(values @ z, GRB.MINIMIZE)
        return z, None
    t = native.addVar(lb=0.0, obj=1.0)
    offset = model.offset * _SCALE
    native.addConstr(values @ z - t <= -offset)
    native.addConstr(values @ z + t >= -offset)
    return z, t


def _hint(z: gp.MVar, t: gp.Var | None, model: LinearModel, context: SolveContext) -> None:
    chosen = model.choice(context.warm_start)
    if chosen is None:
        return
    z.setAttr("Start", chosen.astype(np.float64))
    if t is not None:
        t.setAttr("Start", model.value(chosen) * _SCALE)


def _set_native(native: gp.Model, params: Mapping[str, Any]) -> None:
    """Set Gurobi parameters verbatim; an unknown name or value is refused."""
    for name, value in params.items():
        try:
            native.setParam(name, value)
        except (gp.GurobiError, TypeError, ValueError, AttributeError) as error:
            known = [p for p in dir(GRB.Param) if not p.startswith("_")]
            near = "" if name in known else did_you_mean(name, known)
            raise OptionError(
                f"Gurobi does not take backend_params[{name!r}] = {value!r}: {error}.{near}"
            ) from None


def _read(
    native: gp.Model,
    z: gp.MVar,
    problem: Problem,
    model: LinearModel,
    deadline: Deadline,
    setup: float,
    interrupted: bool,
) -> RawResult:
    word, reason = _STATUS.get(native.Status, (str(native.Status), StopReason.OTHER))
    if native.Status == GRB.INTERRUPTED and not interrupted and deadline.expired():
        reason = StopReason.TIME
    indices = accepted(problem, model, np.asarray(z.X) > 0.5) if native.SolCount > 0 else None
    bound = None
    if native.SolCount > 0 or native.Status != GRB.INFEASIBLE:
        # ObjBound of the linear form lacks the constant.
        constant = 0.0 if model.absolute else model.offset
        bound = model.bound(native.ObjBound / _SCALE + constant, LEAK * model.precision)
    return RawResult(
        indices,
        bound=bound,
        stop_reason=reason,
        iterations=int(native.NodeCount),
        setup_time=setup,
        infeasible=native.Status == GRB.INFEASIBLE,
        extras={"native_status": word, "work": native.Work},
    )


@contextlib.contextmanager
def _environment(wait: float | None) -> Iterator[gp.Env | None]:
    """Hold this process's environment; None when others hold it for longer than ``wait``."""
    if not _lock.acquire(timeout=-1 if wait is None else min(wait, threading.TIMEOUT_MAX)):
        yield None
        return
    try:
        yield _shared_environment()
    finally:
        _lock.release()


def _shared_environment() -> gp.Env:
    global _env, _env_pid
    if _env is None or _env_pid != os.getpid():
        # An environment inherited over a fork must be neither used nor closed by the child.
        _of_parents.append(_env)
        _env = None
        try:
            # The banner of the license is printed at the start unless told otherwise before it.
            _env = gp.Env(params={"OutputFlag": 0, "LogToConsole": 0})
        except gp.GurobiError as error:
            raise SolverLicenseError(
                f"Gurobi cannot start here (error {error.errno}: {error.message}). Check the "
                "license file (GRB_LICENSE_FILE), or use solver='cpsat' or 'auto'."
            ) from None
        _env_pid = os.getpid()
    return _env


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


@contextlib.contextmanager
def _license_errors(model: LinearModel) -> Iterator[None]:
    """Turn Gurobi's errors into ours."""
    try:
        yield
    except gp.GurobiError as error:
        if error.errno == GRB.Error.SIZE_LIMIT_EXCEEDED:
            raise SolverLicenseError(
                f"the size-limited Gurobi license does not cover this problem: {model.size:,} "
                f"candidates make {model.size + model.absolute:,} variables, the license that "
                "comes with pip takes 2,000 (mean matching of 1,999 candidates), and 200 when the "
                "objective is quadratic. Use solver='cpsat' or 'auto', or a full license."
            ) from None
        if error.errno == GRB.Error.NO_LICENSE:
            raise SolverLicenseError(f"Gurobi's license is not valid: {error.message}.") from None
        raise SolverError(f"Gurobi failed (error {error.errno}): {error.message}.") from None
