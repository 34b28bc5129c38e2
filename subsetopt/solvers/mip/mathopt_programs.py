"""How SCIP and HiGHS run programs, through MathOpt."""

from __future__ import annotations

import datetime
import importlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subsetopt.errors import SolverError
from subsetopt.solvers.base import SolveContext
from subsetopt.solvers.mip.calls import run_interruptible
from subsetopt.solvers.mip.mathopt_search import MARGIN, STARTUP, UNITS, MathOpt, call, meaning
from subsetopt.solvers.mip.program import Answer, Form, Program, stacked
from subsetopt.status import StopReason

__all__ = ["MathOptPrograms"]

_SEED_BITS = 0x7FFFFFFF
_LARGEST_SCALE = 1e5
# Seconds per entry that building a model takes, one with dense rows until the backend looks at the
# clock, and handing it over.
_BUILDING, _BUILDING_DENSE = 8e-6, 3e-5
_HANDING = 4e-6
# What every further attempt, after a failure of the backend, adds to the seed.
_AGAIN = 7919


class MathOptPrograms:
    """Runs programs, one model each.

    Attributes
    ----------
    mathopt
        OR-Tools' module.
    backend
        Which solver, its parameters and its default limit of nodes.
    """

    def __init__(self, mathopt: Any, backend: MathOpt, context: SolveContext) -> None:
        self.mathopt, self.backend, self.context = mathopt, backend, context
        # Made by the module's own generator of code: the fast way to a large model.
        self.proto = importlib.import_module("ortools.math_opt.model_pb2").ModelProto

    def __call__(
        self, form: Form, start: NDArray[np.bool_] | None, used: int, number: int
    ) -> Answer:
        """Run the program of a form."""
        nodes = self.backend.nodes(self.context)
        if nodes is not None and number and used >= nodes:
            return Answer([], -math.inf, "NODE", StopReason.NODE, 0)
        deadline = self.context.deadline
        scale = min(max(UNITS / form.precision, 1.0), _LARGEST_SCALE)
        program = form.program(scale, start)
        entries = program.links.columns.size
        building = _BUILDING_DENSE if program.dense else _BUILDING
        if deadline.remaining() < STARTUP + MARGIN + building * entries:
            return Answer.late()
        native, variables, hint = self._build(program)
        for attempt, other in enumerate(({}, *self.backend.again)):
            given = self.mathopt.ModelSolveParameters() if attempt else hint
            room = deadline.remaining() - MARGIN - _HANDING * entries
            if room <= 0.0:
                return Answer.late()
            left = None if nodes is None else max(1, nodes - used)
            parameters = self._parameters(program, number + _AGAIN * attempt, other, left, room)
            try:
                result, interrupted = self._call(native, parameters, given)
                return _read(result, variables, program, interrupted=interrupted)
            except SolverError as error:
                # HiGHS at times fails on the numbers of one path, and not of another.
                failure = error
        if number == 0:
            raise failure
        # What was found before is worth more than the error.
        return Answer([], -math.inf, "ERROR", StopReason.NUMERICAL, 0)

    def _parameters(
        self,
        program: Program,
        seed: int,
        other: Mapping[str, Any],
        nodes: int | None,
        room: float,
    ) -> Any:
        """Return MathOpt's parameters of a run; ``other`` are those of this attempt."""
        parameters = self.mathopt.SolveParameters(
            random_seed=(self.context.entropy + seed) & _SEED_BITS,
            node_limit=nodes,
            relative_gap_tolerance=0.0,
            absolute_gap_tolerance=program.gap,
        )
        if math.isfinite(room):
            parameters.time_limit = datetime.timedelta(seconds=room)
        own = self.backend.for_dense if program.dense else {}
        params = {**own, **other, **self.context.backend_params}
        self.backend.set_native(parameters, params, band=False)
        return parameters

    def _call(self, native: Any, parameters: Any, hint: Any) -> tuple[Any, bool]:
        """Return the native result, and whether the user interrupted it."""
        kind, asked = self.backend.solver_type, list(self.context.backend_params)
        outcome = run_interruptible(
            lambda: call(self.mathopt, native, kind, parameters, hint, asked),
            lambda: None,
            self.context.deadline,
        )
        return outcome.result, outcome.interrupted

    def _build(self, program: Program) -> tuple[Any, list[Any], Any]:
        """Return the native model, its variables and the parameters with the hint."""
        proto, m, total = self.proto(), program.size, program.costs.size
        proto.variables.ids.extend(range(total))
        proto.variables.lower_bounds.extend([0.0] * total)
        proto.variables.upper_bounds.extend([1.0] * m + program.upper.tolist())
        proto.variables.integers.extend([True] * m + [False] * (total - m))
        costly = np.flatnonzero(program.costs)
        proto.objective.linear_coefficients.ids.extend(costly.tolist())
        proto.objective.linear_coefficients.values.extend(program.costs[costly].tolist())
        matrix = stacked(program.rows, program.links)
        proto.linear_constraints.ids.extend(range(matrix.low.size))
        proto.linear_constraints.lower_bounds.extend(matrix.low.tolist())
        proto.linear_constraints.upper_bounds.extend(matrix.high.tolist())
        # The columns of a row have to ascend, and zeros may not be there.
        order = np.lexsort((matrix.columns, matrix.rows))
        order = order[matrix.coefficients[order] != 0.0]
        proto.linear_constraint_matrix.row_ids.extend(matrix.rows[order].tolist())
        proto.linear_constraint_matrix.column_ids.extend(matrix.columns[order].tolist())
        proto.linear_constraint_matrix.coefficients.extend(matrix.coefficients[order].tolist())
        native = self.mathopt.Model.from_model_proto(proto)
        variables = sorted(native.variables(), key=lambda variable: int(variable.id))
        hints = []
        if program.start is not None:
            values = dict(zip(variables, program.start.tolist(), strict=True))
            hints = [self.mathopt.SolutionHint(variable_values=values)]
        return native, variables, self.mathopt.ModelSolveParameters(solution_hints=hints)


def _read(result: Any, variables: list[Any], program: Program, *, interrupted: bool) -> Answer:
    word, reason = meaning(result, interrupted=interrupted)
    binaries = variables[: program.size]
    choices = []
    for solution in result.solutions:
        primal = solution.primal_solution
        if primal is not None and primal.feasibility_status.name == "FEASIBLE":
            values = [primal.variable_values[variable] for variable in binaries]
            choices.append(np.array(values) > 0.5)
    bound = result.termination.objective_bounds.dual_bound
    bound = program.bound(bound) if math.isfinite(bound) and word != "INFEASIBLE" else -math.inf
    return Answer(choices, bound, word, reason, int(result.solve_stats.node_count))
