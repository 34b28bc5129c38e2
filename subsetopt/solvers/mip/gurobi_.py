"""Gurobi: every objective that a mixed-integer program can state, linear or quadratic."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import gurobipy as gp
import numpy as np
from gurobipy import GRB

from subsetopt.budget import Deadline
from subsetopt.errors import OptionError, SolverLicenseError, UnsupportedProblemError
from subsetopt.inputs import checked_integer, checked_positive
from subsetopt.objectives import VectorMatching
from subsetopt.problem import Problem
from subsetopt.solvers.base import RawResult, SolveContext
from subsetopt.solvers.mip.calls import out_of_time, run_interruptible
from subsetopt.solvers.mip.frame import GAP, LEAK, accepted, frame
from subsetopt.solvers.mip.gurobi_programs import (
    LICENSED,
    SCALE,
    STARTUP,
    GurobiPrograms,
    environment,
    license_errors,
    meaning,
    set_native,
    too_large,
    unlimited,
)
from subsetopt.solvers.mip.linear_model import LinearModel, formulate
from subsetopt.solvers.mip.search import improve, needs_programs, require_size, search
from subsetopt.solvers.mip.vector_form import SquareForm
from subsetopt.status import StopReason

__all__ = ["Gurobi", "VectorNorm"]

VectorNorm = Literal["auto", "quadratic", "absolute"]

# Share of the tolerance at which to stop; the rest is for rounding.
_STOP_AT = 0.95
_TOLERANCE = 1e-9
# What building the model takes at least, per candidate.
_SECONDS_PER_CANDIDATE = 1.5e-6
# Variables that the license which comes with pip takes in a quadratic model.
_LICENSED_SQUARES = 200


@dataclass(frozen=True, slots=True)
class Gurobi:
    r"""Exact solution by Gurobi's branch and cut.

    .. math:: \min t \quad\text{s.t.}\quad -t \le k \bar l - l \cdot z \le t,\;
              \textstyle\sum z = k,\; z \in \{0, 1\}^n

    A magnitude whose sign is the same for every subset, and top scores, are linear and need no t.
    Vectors are matched in their Euclidean norm, by one of two forms. Facility location has a
    variable for each pair, k-center a program for each radius that is tried.

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
        If there is no valid license, or it does not cover the size (pip's: 1,999 variables, 200
        where the objective is quadratic).
    UnsupportedProblemError
        If vectors, facilities or centers are too many for any mixed-integer program, or
        nonnegative weights are asked for by absolute values.

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
    form: VectorNorm = "auto"

    def __post_init__(self) -> None:
        checked_integer("threads", self.threads, 0)
        checked_integer("mip_focus", self.mip_focus, 0)
        if self.mip_focus > 3:
            raise OptionError(f"mip_focus must be 0, 1, 2 or 3, got {self.mip_focus}.")
        checked_positive("work_limit", self.work_limit)
        if self.form not in ("auto", "quadratic", "absolute"):
            raise OptionError(f"form must be 'auto', 'quadratic' or 'absolute', got {self.form!r}.")

    @staticmethod
    def license_problem() -> str | None:
        """Return why no Gurobi environment can be made here, or None when one can."""
        try:
            with environment(None):
                return None
        except SolverLicenseError as error:
            return str(error)

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return the best subset found within the context's limits."""
        if needs_programs(problem):
            return self._solve_programs(problem, context)
        model = formulate(problem)
        if isinstance(model, RawResult):
            return model
        deadline = context.deadline
        wait = deadline.remaining() if deadline.limited else None
        with environment(wait) as env:
            needed = STARTUP + _SECONDS_PER_CANDIDATE * model.size
            if env is None or deadline.remaining() < needed:
                return out_of_time(deadline)
            size = model.size + model.absolute
            if size > LICENSED and not unlimited(env):
                raise too_large(model.size, size)  # before a large model is built in vain
            with (
                license_errors(model.size, size),
                gp.Model(env=env) as native,
            ):
                variables, magnitude = _build(native, model)
                _hint(variables, magnitude, model, context)
                self._configure(native, model, context)
                setup = deadline.elapsed()
                outcome = run_interruptible(native.optimize, native.terminate, deadline)
                return _read(
                    native, variables, problem, model, deadline, setup, outcome.interrupted
                )

    def _solve_programs(self, problem: Problem, context: SolveContext) -> RawResult:
        """Solve a problem of vectors, facilities or centers."""
        require_size(problem)
        deadline = context.deadline
        with environment(deadline.remaining() if deadline.limited else None) as env:
            if env is None or deadline.remaining() < STARTUP:
                return out_of_time(deadline)
            run = GurobiPrograms(env, context, self._settings(), self.work_limit)
            form = self._square(problem, env)
            if form is None:
                return search(problem, context, run)
            if isinstance(form, RawResult):
                return form
            raw = improve(problem, context, form, run)
            if raw.stop_reason is not StopReason.NUMERICAL or form.weighted:
                return raw
            # The root of a tiny square is not to be trusted: absolute values can prove it.
            start = raw.indices if raw.indices is not None else context.warm_start
            more = search(problem, replace(context, warm_start=start), run)
            bounds = [bound for bound in (raw.bound, more.bound) if bound is not None]
            return replace(
                more, bound=max(bounds, default=None), iterations=raw.iterations + more.iterations
            )

    def _square(self, problem: Problem, env: gp.Env) -> SquareForm | RawResult | None:
        """Return the quadratic form where it is wanted, or the answer; None for the linear one."""
        objective = problem.objective
        if not isinstance(objective, VectorMatching):
            return None
        weighted = objective.weights == "nonnegative"
        if self.form == "absolute":
            if weighted:
                raise UnsupportedProblemError(
                    "absolute values cannot bound nonnegative weights; use form='quadratic'."
                )
            return None
        made = frame(problem)
        if isinstance(made, RawResult):
            return made
        form = SquareForm.of(problem, made)
        if form.variables <= _LICENSED_SQUARES or unlimited(env):
            return form
        if weighted:
            raise too_large(made.size, form.variables, "solver='omp' or 'auto'")
        if self.form == "quadratic":
            raise too_large(made.size, form.variables, "form='absolute'")
        return None

    def _settings(self) -> dict[str, Any]:
        return {
            "Threads": self.threads,
            "MIPFocus": self.mip_focus,
            "FeasibilityTol": _TOLERANCE,
            "IntFeasTol": _TOLERANCE,
            "OptimalityTol": _TOLERANCE,
            "MIPGap": 0.0,
        }

    def _configure(self, native: gp.Model, model: LinearModel, context: SolveContext) -> None:
        precision = model.precision * SCALE
        settings: dict[str, Any] = {
            **self._settings(),
            "Seed": context.entropy % GRB.MAXINT,
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
        set_native(native, context.backend_params)
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
    values = model.values * SCALE
    if not model.absolute:
        native.setObjective(values @ z, GRB.MINIMIZE)
        return z, None
    t = native.addVar(lb=0.0, obj=1.0)
    offset = model.offset * SCALE
    native.addConstr(values @ z - t <= -offset)
    native.addConstr(values @ z + t >= -offset)
    return z, t


def _hint(z: gp.MVar, t: gp.Var | None, model: LinearModel, context: SolveContext) -> None:
    chosen = model.choice(context.warm_start)
    if chosen is None:
        return
    z.setAttr("Start", chosen.astype(np.float64))
    if t is not None:
        t.setAttr("Start", model.value(chosen) * SCALE)


def _read(
    native: gp.Model,
    z: gp.MVar,
    problem: Problem,
    model: LinearModel,
    deadline: Deadline,
    setup: float,
    interrupted: bool,
) -> RawResult:
    word, reason = meaning(native, deadline, interrupted=interrupted)
    indices = accepted(problem, model, np.asarray(z.X) > 0.5) if native.SolCount > 0 else None
    bound = None
    if native.SolCount > 0 or native.Status != GRB.INFEASIBLE:
        # ObjBound of the linear form lacks the constant.
        constant = 0.0 if model.absolute else model.offset
        bound = model.bound(native.ObjBound / SCALE + constant, LEAK * model.precision)
    return RawResult(
        indices,
        bound=bound,
        stop_reason=reason,
        iterations=int(native.NodeCount),
        setup_time=setup,
        infeasible=native.Status == GRB.INFEASIBLE,
        extras={"native_status": word, "work": native.Work},
    )
