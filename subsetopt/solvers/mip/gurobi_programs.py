"""Gurobi's environment, license and errors, and how it runs programs."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import gurobipy as gp
import numpy as np
from gurobipy import GRB
from numpy.typing import NDArray

from subsetopt.budget import Deadline
from subsetopt.errors import OptionError, SolverError, SolverLicenseError, did_you_mean
from subsetopt.solvers.base import SolveContext
from subsetopt.solvers.mip.calls import run_interruptible
from subsetopt.solvers.mip.program import Answer, Form, Program, stacked
from subsetopt.status import StopReason

__all__ = [
    "LICENSED",
    "SCALE",
    "STARTUP",
    "GurobiPrograms",
    "environment",
    "license_errors",
    "meaning",
    "set_native",
    "too_large",
    "unlimited",
]

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
SCALE = 1e3
STARTUP = 2e-3

# Variables and rows that the license which comes with pip takes.
LICENSED = 2_000

_lock = threading.RLock()
_env: gp.Env | None = None
_env_pid = -1
_of_parents: list[gp.Env | None] = []
_unlimited: bool | None = None


@contextlib.contextmanager
def environment(wait: float | None) -> Iterator[gp.Env | None]:
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


def unlimited(env: gp.Env) -> bool:
    """Whether the license takes more than the 2,000 variables of the one that comes with pip."""
    global _unlimited
    if _unlimited is None:
        with gp.Model(env=env) as native:
            native.addMVar(LICENSED + 1)
            try:
                native.optimize()
                _unlimited = True
            except gp.GurobiError as error:
                if error.errno != GRB.Error.SIZE_LIMIT_EXCEEDED:
                    raise
                _unlimited = False
    return _unlimited


def too_large(
    candidates: int, variables: int, others: str = "solver='cpsat' or 'auto'"
) -> SolverLicenseError:
    """Return the error of a license that does not cover a model."""
    return SolverLicenseError(
        f"the size-limited Gurobi license does not cover this problem: {candidates:,} candidates "
        f"make {variables:,} variables, the license that comes with pip takes 2,000 (mean matching "
        "of 1,999 candidates, facility location of 44), and 200 when the objective is quadratic. "
        f"Use {others}, or a full license."
    )


@contextlib.contextmanager
def license_errors(candidates: int, variables: int) -> Iterator[None]:
    """Turn Gurobi's errors into ours."""
    try:
        yield
    except gp.GurobiError as error:
        if error.errno == GRB.Error.SIZE_LIMIT_EXCEEDED:
            raise too_large(candidates, variables) from None
        if error.errno == GRB.Error.NO_LICENSE:
            raise SolverLicenseError(f"Gurobi's license is not valid: {error.message}.") from None
        raise SolverError(f"Gurobi failed (error {error.errno}): {error.message}.") from None


def set_native(native: gp.Model, params: Mapping[str, Any]) -> None:
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


def meaning(native: gp.Model, deadline: Deadline, *, interrupted: bool) -> tuple[str, StopReason]:
    """Return the native status as a word, and as a reason."""
    word, reason = _STATUS.get(native.Status, (str(native.Status), StopReason.OTHER))
    if native.Status == GRB.INTERRUPTED and not interrupted and deadline.expired():
        reason = StopReason.TIME
    return word, reason


class GurobiPrograms:
    """Runs programs, one model each.

    Attributes
    ----------
    settings
        Gurobi parameters of every run.
    work_limit
        Work of all runs together where neither the clock nor a node limit applies.
    """

    def __init__(
        self, env: gp.Env, context: SolveContext, settings: Mapping[str, Any], work_limit: float
    ) -> None:
        self.env, self.context = env, context
        self.settings, self.work_limit = settings, work_limit

    def __call__(
        self, form: Form, start: NDArray[np.bool_] | None, used: int, number: int
    ) -> Answer:
        """Run the program of a form."""
        deadline = self.context.deadline
        if deadline.remaining() < STARTUP:
            return Answer.late()
        limits = self._limits(used, number)
        if limits is None:
            return Answer([], -math.inf, "NODE_LIMIT", StopReason.NODE, 0)
        program = form.program(SCALE, start)
        errors = license_errors(program.size, program.costs.size)
        with errors, gp.Model(env=self.env) as native:
            x = _build(native, program)
            self._configure(native, program, limits, number)
            outcome = run_interruptible(native.optimize, native.terminate, deadline)
            answer = _read(native, x, program, deadline, interrupted=outcome.interrupted)
            self.work_limit -= native.Work
            return answer

    def _limits(self, used: int, number: int) -> dict[str, Any] | None:
        """Return what limits a run besides the clock; None when nothing is left."""
        context = self.context
        if context.max_iterations is not None:
            left = context.max_iterations - used
            return {"NodeLimit": max(left, 0)} if left > 0 or number == 0 else None
        if context.deadline.limited:
            return {}
        return {"WorkLimit": self.work_limit} if self.work_limit > 0.0 else None

    def _configure(
        self, native: gp.Model, program: Program, limits: Mapping[str, Any], number: int
    ) -> None:
        settings = {
            **self.settings,
            **limits,
            "Seed": (self.context.entropy + number) % GRB.MAXINT,
            "MIPGapAbs": program.gap,
        }
        if math.isfinite(program.goal):
            settings["BestObjStop"] = program.goal
        for name, value in settings.items():
            native.setParam(name, value)
        set_native(native, self.context.backend_params)
        if self.context.deadline.limited and "TimeLimit" not in self.context.backend_params:
            native.setParam("TimeLimit", self.context.deadline.remaining())


def _build(native: gp.Model, program: Program) -> gp.MVar:
    """Add a program to an empty model; return its variables."""
    m, total = program.size, program.costs.size
    low = np.zeros(total)
    low[m : m + program.squares] = -GRB.INFINITY
    high = np.concatenate([np.ones(m), program.upper])
    kinds = np.repeat([GRB.BINARY, GRB.CONTINUOUS], [m, total - m])
    x: gp.MVar = native.addMVar(total, lb=low, ub=high, vtype=kinds)
    variables = x.tolist()
    matrix = stacked(program.rows, program.links)
    starts, columns, entries = matrix.starts, matrix.columns.tolist(), matrix.coefficients.tolist()
    for row, (least, most) in enumerate(zip(matrix.low, matrix.high, strict=True)):
        part = slice(starts[row], starts[row + 1])
        sums = gp.LinExpr(entries[part], [variables[c] for c in columns[part]])
        if least == most:
            native.addLConstr(sums, GRB.EQUAL, most)
            continue
        if np.isfinite(least):
            native.addLConstr(sums, GRB.GREATER_EQUAL, least)
        if np.isfinite(most):
            native.addLConstr(sums, GRB.LESS_EQUAL, most)
    for z, y in [] if program.switches is None else program.switches:
        native.addGenConstrIndicator(variables[z], False, variables[m + y], GRB.EQUAL, 0.0)
    if program.squares:
        free = x[m : m + program.squares]
        native.setObjective(free @ free, GRB.MINIMIZE)
    else:
        native.setObjective(program.costs @ x, GRB.MINIMIZE)
    if program.start is not None:
        x.setAttr("Start", program.start)
    return x


def _read(
    native: gp.Model, x: gp.MVar, program: Program, deadline: Deadline, *, interrupted: bool
) -> Answer:
    word, reason = meaning(native, deadline, interrupted=interrupted)
    if native.Status == GRB.INF_OR_UNBD:
        # Nothing that is minimized here is unbounded.
        word, reason = "INFEASIBLE", StopReason.COMPLETED
    choices = []
    for solution in range(native.SolCount):
        native.setParam("SolutionNumber", solution)
        choices.append(np.asarray(x.Xn)[: program.size] > 0.5)
    bound = -math.inf
    if word != "INFEASIBLE" and abs(native.ObjBound) < GRB.INFINITY:
        bound = program.bound(native.ObjBound)
    return Answer(choices, bound, word, reason, int(native.NodeCount))
