"""Gurobi: every objective that a mixed-integer program can state, linear or quadratic."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import gurobipy as gp
import numpy as np
from gurobipy import GRB

from subsetopt.budget import Deadline
from subsetopt.errors import (
    OptionError,
    SolverError,
    SolverLicenseError,
    UnsupportedProblemError,
)
from subsetopt.inputs import checked_choice, checked_integer, checked_positive
from subsetopt.objectives import VectorMatching
from subsetopt.problem import Problem
from subsetopt.solvers.base import RawResult, SolveContext
from subsetopt.solvers.mip.calls import run_interruptible, set_parameters
from subsetopt.solvers.mip.constraint_rows import Choice, Frame
from subsetopt.solvers.mip.program import Answer, Form, Limits, Program
from subsetopt.solvers.mip.review import reviewed
from subsetopt.solvers.mip.search import form_of, out_of_time, require_size, search
from subsetopt.solvers.mip.vector_form import SquareForm
from subsetopt.solvers.rows import PROGRAM_LIMITS
from subsetopt.status import StopReason

__all__ = ["Gurobi", "VectorNorm"]

VectorNorm = Literal["auto", "quadratic", "absolute"]

_STATUS = {
    GRB.OPTIMAL: ("OPTIMAL", StopReason.COMPLETED),
    GRB.INFEASIBLE: ("INFEASIBLE", StopReason.COMPLETED),
    # Nothing that is minimized here is unbounded.
    GRB.INF_OR_UNBD: ("INFEASIBLE", StopReason.COMPLETED),
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
# The share of the gap that rows may be missed by, and the most. With 1e-9 where single precision
# asks for no more than 1e-4, Gurobi 13 cut the optimum off (59 of 100 seeds, n = 10, k = 4).
_FEASIBLE, _LOOSEST = 2e-3, 1e-6
# Seconds that starting a solve takes, and that building a model takes at least per coefficient.
_STARTUP = 2e-3
_BUILDING = 5e-7

# Variables, and rows, that the license which comes with pip takes; variables that it takes where
# the objective is quadratic.
_LICENSED = 2_000
_LICENSED_SQUARES = 200

# The environment of this process, and who may use it now.
_env: gp.Env | None = None
_lock = threading.RLock()
# Environments that came over a fork: a child must neither use nor close them.
_of_parents: list[gp.Env | None] = []
_unlimited: bool | None = None


@dataclass(frozen=True, slots=True)
class Gurobi:
    r"""Exact solution by Gurobi's branch and cut.

    .. math:: \min t \quad\text{s.t.}\quad -t \le k \bar l - l \cdot z \le t,\;
              \textstyle\sum z = k,\; z \in \{0, 1\}^n

    A magnitude whose sign is the same for every subset, and top scores, are linear and need no t.
    The forms of other objectives are those of their modules; vectors have two.

    Parameters
    ----------
    threads
        Threads, at least 0; 0 leaves the number to Gurobi (all cores).
    work_limit
        Deterministic work (about seconds on one core) when neither a time limit nor
        ``max_iterations`` is given.
    mip_focus
        Gurobi's MIPFocus: 0 balanced, 1 feasibility, 2 proof, 3 bound.
    form
        How vectors are matched. ``"quadratic"``: by the square of the norm, with n + d variables;
        ``"absolute"``: by absolute values and tangents, as the other backends do; ``"auto"``: the
        first where the license takes it. Nonnegative weights need the first, with 2n + d variables.

    Raises
    ------
    OptionError
        If a hyperparameter is out of range, or ``backend_params`` names no Gurobi parameter.
    SolverLicenseError
        If there is no valid license, or it does not cover the size.
    UnsupportedProblemError
        If the problem is beyond the sizes of mixed-integer programs, or nonnegative weights are
        asked for by absolute values.

    Notes
    -----
    ``max_iterations`` is the node limit. One environment per process is shared by all solves,
    which take turns. Deterministic for a given seed and number of threads under a work limit.

    References
    ----------
    Gurobi Optimizer reference manual; Dong et al., One Backward from Ten Forward, eq. 5.
    """

    threads: int = 0
    work_limit: float = 10.0
    mip_focus: int = 0
    form: VectorNorm = "auto"

    def __post_init__(self) -> None:
        checked_integer("threads", self.threads, 0)
        checked_integer("mip_focus", self.mip_focus, 0)
        if self.mip_focus > 3:
            raise OptionError(f"mip_focus must be 0, 1, 2 or 3, got {self.mip_focus}.")
        checked_positive("work_limit", self.work_limit)
        checked_choice("form", self.form, ("auto", "quadratic", "absolute"))

    @staticmethod
    def license_problem(problem: Problem | None = None) -> str | None:
        """Return why the license here does not do, or None when it does.

        Parameters
        ----------
        problem
            What it is to cover; None asks only whether an environment can be made.
        """
        # A search without time states the problem, looks at the license and runs nothing.
        context = SolveContext(Deadline(0.0))
        try:
            with environment(None) as env:
                if env is not None and problem is not None:
                    run = _Run(env, Gurobi(), context)
                    search(problem, context, run, form_of=run.form)
        except SolverLicenseError as error:
            return str(error)
        return None

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return the best subset found within the context's limits."""
        require_size(PROGRAM_LIMITS, problem, context)
        deadline, limits = context.deadline, Limits(work=self.work_limit)
        with environment(deadline.remaining() if deadline.limited else None) as env:
            if env is None or deadline.remaining() < _STARTUP:
                return out_of_time(deadline)
            run = _Run(env, self, context)
            raw = search(problem, context, run, limits, run.form)
        return reviewed(problem, context, raw)


@contextlib.contextmanager
def environment(wait: float | None) -> Iterator[gp.Env | None]:
    """Hold this process's environment; None when others hold it for longer than ``wait``."""
    global _env
    if not _lock.acquire(timeout=-1 if wait is None else min(wait, threading.TIMEOUT_MAX)):
        yield None
        return
    try:
        _env = _started() if _env is None else _env
        yield _env
    finally:
        _lock.release()


def _started() -> gp.Env:
    try:
        # The banner of the license is printed at the start unless told otherwise before it.
        return gp.Env(params={"OutputFlag": 0, "LogToConsole": 0})
    except gp.GurobiError as error:
        raise SolverLicenseError(
            f"Gurobi cannot start here (error {error.errno}: {error.message}). Check the license "
            "file (GRB_LICENSE_FILE), or use solver='cpsat' or 'auto'."
        ) from None


def _begin_anew() -> None:
    """Leave the environment to the parent, in a child of a fork."""
    global _env, _lock
    _of_parents.append(_env)
    _env, _lock = None, threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


def unlimited(env: gp.Env) -> bool:
    """Whether the license takes more than the 2,000 variables of the one that comes with pip."""
    global _unlimited
    if _unlimited is None:
        with gp.Model(env=env) as native:
            native.addMVar(_LICENSED + 1)
            try:
                native.optimize()
                _unlimited = True
            except gp.GurobiError as error:
                if error.errno != GRB.Error.SIZE_LIMIT_EXCEEDED:
                    raise
                _unlimited = False
    return _unlimited


def _too_large(program: Program) -> SolverLicenseError:
    """Return the error of a license that does not cover a program."""
    others = "form='absolute'" if program.squares else "solver='cpsat' or 'auto'"
    others = others if program.switches is None else "solver='omp' or 'auto'"
    return SolverLicenseError(
        f"the size-limited Gurobi license does not cover this problem: {program.size:,} candidates "
        f"make {program.costs.size:,} variables, the license that comes with pip takes 2,000 (mean "
        "matching of 1,999 candidates, facility location of 44), and 200 when the objective is "
        f"quadratic. Use {others}, or a full license."
    )


def _covered(env: gp.Env, program: Program) -> bool:
    """Whether the license takes a program; told before a large model is built in vain."""
    low, high = program.rows.low, program.rows.high
    constraints = np.isfinite(low).sum() + (np.isfinite(high) & (low != high)).sum()
    most = _LICENSED_SQUARES if program.squares else _LICENSED
    return (program.costs.size <= most and constraints <= _LICENSED) or unlimited(env)


@dataclass(frozen=True, slots=True)
class _Run:
    """States problems for a license, and runs programs, one model each."""

    env: gp.Env
    solver: Gurobi
    context: SolveContext

    def form(self, problem: Problem, frame: Frame, context: SolveContext) -> Form | None:
        """Return the form of a problem; for vectors that which is wanted or the license takes."""
        objective, wanted = problem.objective, self.solver.form
        if not isinstance(objective, VectorMatching):
            return form_of(problem, frame, context)
        weighted = objective.weights == "nonnegative"
        if weighted and wanted == "absolute":
            raise UnsupportedProblemError(
                "absolute values cannot bound nonnegative weights; use form='quadratic'."
            )
        square = SquareForm.of(problem, frame)
        if weighted or wanted == "quadratic":
            return square
        covered = wanted == "auto" and _covered(self.env, square.program(_SCALE, None))
        return square if covered else form_of(problem, frame, context)

    def __call__(self, form: Form, start: Choice | None, limits: Limits, number: int) -> Answer:
        """Run the program of a form; raise where the license does not cover the first one."""
        deadline, program = self.context.deadline, form.program(_SCALE, start)
        if not _covered(self.env, program):
            if number == 0:
                raise _too_large(program)
            # The subsets found before are worth more than the error.
            return Answer.none("SIZE_LIMIT_EXCEEDED", StopReason.OTHER)
        if deadline.remaining() < _STARTUP + _BUILDING * program.entries:
            return Answer.none()
        try:
            with gp.Model(env=self.env) as native:
                x = _build(native, program)
                self._configure(native, program, limits, number)
                began = deadline.elapsed()
                _, interrupted = run_interruptible(native.optimize, native.terminate, deadline)
                late = not interrupted and deadline.expired()
                return _read(native, x, program, began, late=late)
        except gp.GurobiError as error:
            if error.errno == GRB.Error.SIZE_LIMIT_EXCEEDED:
                raise _too_large(program) from None
            if error.errno == GRB.Error.NO_LICENSE:
                why = f"Gurobi's license is not valid: {error.message}."
                raise SolverLicenseError(why) from None
            raise SolverError(f"Gurobi failed (error {error.errno}): {error.message}.") from None

    def _configure(self, native: gp.Model, program: Program, limits: Limits, number: int) -> None:
        """Set all parameters, the caller's own last."""
        context = self.context
        settings = {
            "Threads": self.solver.threads,
            "MIPFocus": self.solver.mip_focus,
            "FeasibilityTol": min(max(_TOLERANCE, _FEASIBLE * program.gap), _LOOSEST),
            "IntFeasTol": _TOLERANCE,
            "OptimalityTol": _TOLERANCE,
            "MIPGap": 0.0,
            "MIPGapAbs": program.gap,
            "Seed": (context.entropy + number) % GRB.MAXINT,
            "NodeLimit": limits.iterations,
            "WorkLimit": limits.work,
            "BestObjStop": program.goal if math.isfinite(program.goal) else None,
        }
        if context.deadline.limited:
            settings["TimeLimit"] = context.deadline.remaining()
        for name, value in settings.items():
            if value is not None:
                native.setParam(name, value)
        set_parameters("Gurobi", native.setParam, context.backend_params, dir(GRB.Param))


def _build(native: gp.Model, program: Program) -> gp.MVar:
    """Add a program to an empty model; return its variables."""
    m, total = program.size, program.costs.size
    lower = np.zeros(total)
    lower[m : m + program.squares] = -GRB.INFINITY
    upper = np.concatenate([np.ones(m), program.upper])
    kinds = np.repeat([GRB.BINARY, GRB.CONTINUOUS], [m, total - m])
    x: gp.MVar = native.addMVar(total, lb=lower, ub=upper, vtype=kinds)
    variables = x.tolist()
    rows = program.rows
    starts, columns, entries = rows.starts, rows.columns.tolist(), rows.coefficients.tolist()
    for row, (low, high) in enumerate(zip(rows.low, rows.high, strict=True)):
        part = slice(starts[row], starts[row + 1])
        sums = gp.LinExpr(entries[part], [variables[c] for c in columns[part]])
        if low == high:
            native.addLConstr(sums, GRB.EQUAL, high)
            continue
        if np.isfinite(low):
            native.addLConstr(sums, GRB.GREATER_EQUAL, low)
        if np.isfinite(high):
            native.addLConstr(sums, GRB.LESS_EQUAL, high)
    for z, y in [] if program.switches is None else program.switches:
        native.addGenConstrIndicator(variables[z], False, variables[m + y], GRB.EQUAL, 0.0)
    # Term by term: products with an MVar import SciPy, which gurobipy does not install.
    if program.squares:
        free = variables[m : m + program.squares]
        squares = gp.QuadExpr()
        squares.addTerms([1.0] * len(free), free, free)
        native.setObjective(squares, GRB.MINIMIZE)
    else:
        native.setObjective(gp.LinExpr(program.costs.tolist(), variables), GRB.MINIMIZE)
    if program.start is not None:
        x.setAttr("Start", program.start)
    return x


def _read(native: gp.Model, x: gp.MVar, program: Program, began: float, *, late: bool) -> Answer:
    """Return what came of a solve, which was stopped where it was ``late``."""
    word, reason = _STATUS.get(native.Status, (str(native.Status), StopReason.OTHER))
    if native.Status == GRB.INTERRUPTED and late:
        reason = StopReason.TIME
    choices = []
    for solution in range(native.SolCount):
        native.setParam("SolutionNumber", solution)
        choices.append(np.asarray(x.Xn)[: program.size] > 0.5)
    bound = -math.inf
    if word != "INFEASIBLE" and abs(native.ObjBound) < GRB.INFINITY:
        bound = program.bound(native.ObjBound)
    return Answer(choices, bound, word, reason, int(native.NodeCount), native.Work, began)
