"""Programs of vectors, facilities and centers: what they say of a subset, and what is made of it.

The slow, obvious twin of a backend looks at every choice and takes the point that the form itself
completes it to.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import problems

import subsetopt as so
from subsetopt import registry
from subsetopt.solvers.mip.constraint_rows import Frame, frame_of
from subsetopt.solvers.mip.coverage_form import CentersForm, FacilityForm
from subsetopt.solvers.mip.program import Answer, Form, Limits, Program
from subsetopt.solvers.mip.search import search
from subsetopt.solvers.mip.vector_form import AbsoluteForm, SquareForm

KINDS = ("VectorMatching[uniform]", "FacilityLocation", "KCenter")
BACKENDS = [("gurobi", "VectorMatching[nonnegative]")] + [
    (name, kind) for name in ("gurobi", "cpsat", "scip", "highs") for kind in KINDS
]


def framed(problem: so.Problem) -> Frame:
    made = frame_of(problem)
    assume(isinstance(made, Frame))
    return made


def choices(made: Frame) -> list[NDArray[np.bool_]]:
    """Return every choice that keeps the rows of a frame."""
    every = (np.array(bits) for bits in itertools.product([False, True], repeat=made.size))
    return [chosen for chosen in every if keeps(made, chosen)]


def keeps(made: Frame, chosen: NDArray[np.bool_]) -> bool:
    return all(
        row.low[0] <= row.coefficients @ chosen[row.columns] <= row.high[0]
        for row in made.constraints
    )


def broken_by(program: Program, point: NDArray[np.float64]) -> float:
    """Return by how much a point breaks the worst row or end, relative to the sum's terms."""
    matrix = program.rows
    size = matrix.low.size
    terms = matrix.coefficients * point[matrix.columns]
    totals = np.bincount(matrix.rows, terms, size)
    units = 1.0 + np.bincount(matrix.rows, np.abs(terms), size)
    rows = float((np.maximum(matrix.low - totals, totals - matrix.high) / units).max(initial=0.0))
    y = point[program.size + program.squares :]
    high = program.upper[program.squares :]
    return max(rows, float(np.maximum(-y, y - high).max(initial=0.0)))


def largest_sum(program: Program) -> float:
    """Return the largest magnitude that a row can have."""
    ends = np.concatenate([np.ones(program.size), program.upper])
    rows = program.rows
    return float(np.bincount(rows.rows, np.abs(rows.coefficients) * ends[rows.columns]).max())


@dataclass
class Enumeration:
    """A backend that looks at every choice, until it has run often enough."""

    whole: bool = False
    runs: float = math.inf

    def __call__(
        self, form: Form, start: NDArray[np.bool_] | None, left: Limits, number: int
    ) -> Answer:
        if number >= self.runs:
            return Answer([], -math.inf, "TIME", so.StopReason.TIME, 0)
        scale = form.whole_scale if self.whole else 1.0
        points = []
        for chosen in choices(form.frame):
            program = form.program(scale, chosen, whole=self.whole)
            assert program.start is not None
            if isinstance(form, CentersForm) and broken_by(program, program.start) > 0.0:
                continue
            points.append((float(program.costs @ program.start), chosen))
        if not points:
            return Answer([], -math.inf, "INFEASIBLE", so.StopReason.COMPLETED, 1)
        value, chosen = min(points, key=lambda pair: pair[0])
        bound = program.bound(value)
        return Answer([chosen], bound, "OPTIMAL", so.StopReason.COMPLETED, 1)


@given(
    problem=problems(kinds=["VectorMatching[uniform]"], min_size=2, max_size=7),
    whole=st.booleans(),
    data=st.data(),
)
@settings(max_examples=150)
def test_absolute_values_bound_the_norm_and_tangents_meet_it(
    problem: so.Problem, whole: bool, data: st.DataObject
) -> None:
    problem = problem.centered  # As solvers are given it.
    form = AbsoluteForm.of(problem, framed(problem))
    assume(form.factor > 0.0)  # The smallest denormal number divided by k is none.
    subsets = choices(form.frame)
    assume(subsets)
    met = data.draw(st.lists(st.sampled_from(range(len(subsets))), max_size=3))
    if met:
        form.refine(Answer([subsets[i] for i in met], -math.inf, "", so.StopReason.OTHER), None)
    scale = form.whole_scale if whole else 1.0
    # The distance of a target that is farther is bounded from below only.
    far = np.abs(problem.objective.target).max(initial=0.0) > 1e12 * problem.objective.scale
    for i, chosen in enumerate(subsets):
        program = form.program(scale, chosen, whole=whole)
        assert program.start is not None
        assert broken_by(program, program.start) <= 1e-12
        if whole:
            for part in (program.start, program.rows.coefficients, program.rows.high):
                assert np.array_equal(part, np.rint(part))
            assert largest_sum(program) < 2.0**62
        indices = form.frame.subset(chosen)
        weights = problem.objective.weights_for(indices, problem.k)
        true = problem.objective.evaluate(indices, weights) / form.factor
        value = program.bound(float(program.costs @ program.start))
        rounding = 1e-12 * form.reach
        assert value <= true + rounding
        if far:
            continue
        lost = (2.0 * program.slack if whole else 0.0) + 0.3 * form.precision + rounding
        if i in met or form.offset.size == 1:
            assert value >= true - lost
        else:
            # No norm is larger than sqrt(d) times the sum of absolute values over it.
            share = 0.999 / math.sqrt(form.offset.size)
            assert value >= share * true - lost


@given(problem=problems(kinds=["FacilityLocation"], min_size=2, max_size=7), whole=st.booleans())
@settings(max_examples=100)
def test_pairs_say_what_facility_location_says(problem: so.Problem, whole: bool) -> None:
    form = FacilityForm.of(problem, framed(problem))
    scale = form.whole_scale if whole else 1.0
    for chosen in choices(form.frame):
        program = form.program(scale, chosen, whole=whole)
        assert program.start is not None
        assert broken_by(program, program.start) <= 1e-12
        indices = form.frame.subset(chosen)
        true = problem.objective.evaluate(indices, np.ones(indices.size))
        value = -form.factor * program.bound(float(program.costs @ program.start))
        slack = form.factor * (form.precision + 1e-12)
        assert true - slack <= value <= true + slack


@given(problem=problems(kinds=["VectorMatching[uniform]"], min_size=2, max_size=7))
@settings(max_examples=100)
def test_squares_are_the_norm(problem: so.Problem) -> None:
    problem = problem.centered
    form = SquareForm.of(problem, framed(problem))
    for chosen in choices(form.frame):
        program = form.program(1e3, chosen)
        assert program.start is not None
        assert broken_by(program, program.start) <= 1e-12
        residual = program.start[program.size : program.size + program.squares]
        indices = form.frame.subset(chosen)
        weights = problem.objective.weights_for(indices, problem.k)
        true = problem.objective.evaluate(indices, weights)
        bound = form.factor * program.bound(float(residual @ residual))
        assert bound <= true * (1.0 + 1e-12)
        assert form.factor * np.linalg.norm(residual) / 1e3 == pytest.approx(true, rel=1e-9)


@given(data=st.data(), whole=st.booleans(), kind=st.sampled_from(KINDS))
@settings(max_examples=150)
def test_a_search_by_programs_ends_at_the_optimum(
    data: st.DataObject, whole: bool, kind: str
) -> None:
    problem = data.draw(problems(kinds=[kind], max_size=7))
    oracle = so.solve(problem, "exhaustive")
    raw = search(problem.centered, so.SolveContext(), Enumeration(whole))
    if oracle.status is so.Status.INFEASIBLE:
        assert raw.infeasible
        return
    answer = judged(problem, raw)
    assert answer.status is so.Status.OPTIMAL
    assert abs(answer.objective - oracle.objective) <= 2.0 * problem.objective.tolerance


@given(data=st.data(), runs=st.integers(0, 3), kind=st.sampled_from(KINDS))
@settings(max_examples=150)
def test_a_search_that_is_stopped_has_a_bound(data: st.DataObject, runs: int, kind: str) -> None:
    problem = data.draw(problems(kinds=[kind], max_size=7))
    oracle = so.solve(problem, "exhaustive")
    assume(oracle.has_solution)
    raw = search(problem.centered, so.SolveContext(), Enumeration(runs=runs))
    assert not raw.infeasible
    sign = 1.0 if problem.objective.sense == "minimize" else -1.0
    slack = problem.objective.tolerance + 1e-12 * abs(oracle.objective)
    if raw.bound is not None:
        assert sign * raw.bound <= sign * oracle.objective + slack
    if raw.indices is not None:
        answer = judged(problem, raw)
        assert so.verify(problem, answer)
        if answer.status is so.Status.OPTIMAL:
            assert abs(answer.objective - oracle.objective) <= slack


def judged(problem: so.Problem, raw: so.RawResult) -> so.Solution:
    """Return a raw result as the front door judges it."""

    class Fixed:
        def solve(self, problem: so.Problem, context: so.SolveContext) -> so.RawResult:
            return raw

    return so.solve(problem, Fixed())


@given(n=st.integers(3, 40), d=st.integers(1, 3), seed=st.integers(0, 10**6), data=st.data())
@settings(max_examples=100)
def test_radii_are_bisected(n: int, d: int, seed: int, data: st.DataObject) -> None:
    points = np.random.default_rng(seed).normal(size=(n, d))
    problem = so.Problem(so.KCenter(points), data.draw(st.integers(1, min(n - 1, 3))))
    asked = 0

    def refuse(form: Form, start: NDArray[np.bool_] | None, left: Limits, number: int) -> Answer:
        nonlocal asked
        asked += 1
        return Answer([], -math.inf, "INFEASIBLE", so.StopReason.COMPLETED, 1)

    # Where nothing better than the start exists, half of the radii go with every answer.
    raw = search(problem, so.SolveContext(), refuse)
    assert asked <= math.ceil(math.log2(n * n)) + 1
    assert raw.bound == pytest.approx(judged(problem, raw).objective, rel=1e-9)


@pytest.mark.parametrize(("name", "kind"), BACKENDS)
@given(data=st.data())
@settings(max_examples=25, suppress_health_check=list(HealthCheck))
def test_backends_prove_the_optimum(name: str, kind: str, data: st.DataObject) -> None:
    state = registry.availability(name)
    if not state.usable:
        pytest.skip(f"{name}: {state.reason}")
    problem = data.draw(problems(kinds=[kind], min_size=3, max_size=12))
    # Single digits of precision are left of denormal numbers.
    assume(getattr(problem.objective, "scale", None) is None or problem.objective.scale > 1e-290)
    oracle = so.solve(problem, "exhaustive")
    answer = so.solve(problem, name, time_limit=20, seed=0)
    if oracle.status is so.Status.INFEASIBLE:
        assert answer.status is so.Status.INFEASIBLE
        return
    tolerance = problem.objective.tolerance
    assert so.verify(problem, answer)
    assert answer.status is so.Status.OPTIMAL
    assert abs(answer.objective - oracle.objective) <= tolerance + 1e-9 * abs(oracle.objective)
