"""Many problems in one call: the same answers as one by one, in every way of calling."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from processes import in_forked_child

import subsetopt as so
from subsetopt.certificate import check_rows
from subsetopt.instances import FAMILIES, losses
from subsetopt.seeding import entropies_from, entropy_from


def _assert_same(together: so.Solutions, alone: list[so.Solution]) -> None:
    assert len(together) == len(alone)
    for a, b in zip(together, alone, strict=True):
        assert np.array_equal(a.indices, b.indices)
        assert a.objective == b.objective
        assert a.bound == pytest.approx(b.bound, abs=1e-12)
        assert (a.status, a.stop_reason, a.solver) == (b.status, b.stop_reason, b.solver)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("solver", ["auto", "swap"])
def test_a_matrix_equals_one_by_one(family: str, solver: str) -> None:
    matrix = np.stack([losses(family, 64, 6, s) for s in range(12)])
    together = so.select_many(matrix, 6, seed=9, solver=solver)
    _assert_same(
        together, [so.select(row, 6, seed=(9, i), solver=solver) for i, row in enumerate(matrix)]
    )


def test_parallel_and_serial_agree() -> None:
    matrix = np.stack([losses("exponential", 128, 13, s) for s in range(40)])
    _assert_same(
        so.select_many(matrix, 13, seed=1), list(so.select_many(matrix, 13, seed=1, parallel=False))
    )


def test_long_rows_with_ties_agree_too() -> None:
    for family, n in (("integer", 2000), ("exponential", 9000)):
        matrix = np.stack([losses(family, n, 50, s) for s in range(3)])
        together = so.select_many(matrix, 50, seed=5)
        _assert_same(together, [so.select(row, 50, seed=(5, i)) for i, row in enumerate(matrix)])


def test_rows_of_losses_near_each_other_equal_one_by_one() -> None:
    """A solver is given such losses less a base, on both ways."""
    matrix = 1e8 + np.random.default_rng(0).random((12, 20))
    matrix[::3] -= 1e8
    for solver in ("auto", "swap"):
        together = so.select_many(matrix, 7, seed=3, solver=solver)
        alone = [so.select(row, 7, seed=(3, i), solver=solver) for i, row in enumerate(matrix)]
        _assert_same(together, alone)
    problems = [so.Problem(so.MeanMatching(row), 7) for row in matrix]
    _assert_same(
        so.solve_many(problems, seed=3),
        [so.solve(problem, seed=(3, i)) for i, problem in enumerate(problems)],
    )
    assert so.select_many(np.array([[202, 195]]), 1, seed=1)[0].bound == (
        so.select([202, 195], 1, seed=(1, 0)).bound
    )


def test_nothing_gives_nothing() -> None:
    assert len(so.select_many(np.empty((0, 5)), 2)) == 0
    assert len(so.solve_many([])) == 0


def test_a_ragged_list_and_a_rate() -> None:
    rows = [losses("exponential", n, 5, n) for n in (20, 50, 9, 128, 1)] + [np.empty(0)]
    together = so.select_many(rows, rate=0.2, seed=(3, 4))
    _assert_same(together, [so.select(row, rate=0.2, seed=(3, 4, i)) for i, row in enumerate(rows)])


def test_problems_of_every_kind() -> None:
    values = losses("exponential", 40, 5, 0)
    problems = [
        so.Problem(so.MeanMatching(values), 5),
        so.Problem(so.TopScores(values), 5),
        so.Problem(so.MeanMatching(values), 5, include=[3]),
        so.Problem(so.MeanMatching(values), 0),
        so.Problem(so.MeanMatching(values), 5, "at_most"),
        so.Problem(so.MeanMatching(values), 5, exclude=range(39)),
    ]
    together = so.solve_many(problems, seed=7)
    alone = [so.solve(p, seed=(7, i)) for i, p in enumerate(problems)]
    assert [s.status for s in together] == [s.status for s in alone]
    _assert_same(together[:5], alone[:5])  # an infeasible one has no objective to compare


def test_base_weights_stay_in_the_weights() -> None:
    values = losses("exponential", 40, 5, 0)
    weights = np.random.default_rng(0).random(40)
    problems = [so.Problem(so.MeanMatching(values, base_weights=weights), 5)] * 2
    together = so.solve_many(problems, seed=7)
    _assert_same(together, [so.solve(p, seed=(7, i)) for i, p in enumerate(problems)])
    assert all(so.verify(p, s) for p, s in zip(problems, together, strict=True))


@pytest.mark.parametrize("ragged", [False, True])
def test_losses_may_change_before_the_answers_are_looked_at(ragged: bool) -> None:
    matrix = np.random.default_rng(0).exponential(size=(4, 30))
    alone = [so.select(row, 5, seed=(0, i)) for i, row in enumerate(matrix)]
    together = so.select_many(list(matrix) if ragged else matrix, 5, seed=0)
    matrix[:] = 0.0
    _assert_same(together, alone)


@pytest.mark.parametrize(
    ("indices", "valid"),
    [
        ([0, 2, 1], [True, True]),
        ([2, 0, 1], [False, True]),
        ([1, 1, 1], [False, True]),
        ([0, 3, 1], [False, True]),
        ([-1, 2, 2], [False, False]),
    ],
)
def test_rows_of_a_table_are_checked(indices: list[int], valid: list[bool]) -> None:
    checked = check_rows(np.array(indices), np.array([0, 2, 3]), np.array([3, 2]))
    assert checked.tolist() == valid


def test_keywords_go_the_slow_way_and_mean_the_same() -> None:
    matrix = np.stack([losses("exponential", 30, 5, s) for s in range(3)])
    together = so.select_many(matrix, 5, seed=2, cardinality="at_most", max_iterations=2000)
    alone = [
        so.select(r, 5, seed=(2, i), cardinality="at_most", max_iterations=2000)
        for i, r in enumerate(matrix)
    ]
    _assert_same(together, alone)


def test_bad_input_is_told_as_for_one() -> None:
    with pytest.raises(so.ProblemError, match=r"not finite at positions 1 \(nan\)"):
        so.select_many(np.array([[1.0, 2.0], [3.0, np.nan]]), 1)
    with pytest.raises(so.ProblemError, match="k = 3 is not possible"):
        so.select_many(np.ones((2, 2)), 3)
    with pytest.raises(so.SolverNotFoundError):
        so.select_many(np.ones((2, 2)), 1, solver="swop")


def test_the_seeds_of_many_are_the_pairs() -> None:
    for head in (0, 5, (1, 2), 2**70):
        parts = head if isinstance(head, tuple) else (head,)
        many = entropies_from(head, 4)
        assert [int(e) for e in many] == [entropy_from((*parts, i)) for i in range(4)]


def test_answers_can_be_sliced_and_are_made_once() -> None:
    answers = so.select_many(np.stack([losses("uniform", 32, 3, s) for s in range(5)]), 3, seed=0)
    assert len(answers[1:3]) == 2
    assert answers[0] is answers[0]
    assert answers[-1].n == 32


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_uses_the_serial_kernels() -> None:
    matrix = np.stack([losses("exponential", 64, 6, s) for s in range(8)])
    expected = [s.indices.tolist() for s in so.select_many(matrix, 6, seed=0)]
    assert (
        in_forked_child(
            lambda: [s.indices.tolist() for s in so.select_many(matrix, 6, seed=0)] == expected
        )
        == "True"
    )


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.int64, np.uint16, np.uint64])
@pytest.mark.parametrize("pair", [False, True])
def test_integers_of_numpy_are_seeds(kind: type, pair: bool) -> None:
    matrix = np.random.default_rng(0).exponential(size=(3, 40))
    plain, seed = ((3, 5), (kind(3), kind(5))) if pair else (3, kind(3))
    assert (entropies_from(seed, 4) == entropies_from(plain, 4)).all()
    expected = [answer.indices.tolist() for answer in so.select_many(matrix, 5, seed=plain)]
    got = [answer.indices.tolist() for answer in so.select_many(matrix, 5, seed=seed)]
    problems = [so.Problem(so.MeanMatching(row), 5) for row in matrix]
    solved = [answer.indices.tolist() for answer in so.solve_many(problems, seed=seed)]
    assert got == expected == solved


@pytest.mark.parametrize("form", ["matrix", "ragged", "problems"])
def test_answers_survive_pickling(form: str) -> None:
    rows = np.random.default_rng(0).exponential(size=(3, 40))
    if form == "problems":
        answers = so.solve_many([so.Problem(so.MeanMatching(row), 5) for row in rows], seed=0)
    else:
        answers = so.select_many(rows if form == "matrix" else list(rows), 5, seed=0)
    copies = pickle.loads(pickle.dumps(answers))
    assert len(copies) == 3
    for copy, answer in zip(copies, answers, strict=True):
        assert copy.indices.tolist() == answer.indices.tolist()
        assert copy.status is answer.status and copy.objective == answer.objective


def test_solve_many_takes_problems() -> None:
    with pytest.raises(so.ProblemError, match="got list at position 1"):
        so.solve_many([so.Problem(so.TopScores([1.0]), 1), [1.0, 2.0]])  # type: ignore[list-item]


class InterruptedOnce:
    """Is interrupted at the second of its solves."""

    def __init__(self) -> None:
        self.calls = 0

    def solve(self, problem: so.Problem, context: so.SolveContext) -> so.RawResult:
        self.calls += 1
        stop = so.StopReason.INTERRUPTED if self.calls == 2 else so.StopReason.COMPLETED
        return so.RawResult(np.arange(problem.k), stop_reason=stop)


@pytest.mark.parametrize("problems", [False, True])
def test_an_interrupt_ends_many(problems: bool) -> None:
    rows = np.random.default_rng(0).exponential(size=(4, 9))

    def run(**keywords: Any) -> so.Solutions:
        if problems:
            every = [so.Problem(so.MeanMatching(row), 3) for row in rows]
            return so.solve_many(every, solver=InterruptedOnce(), **keywords)
        return so.select_many(rows, 3, solver=InterruptedOnce(), **keywords)

    with pytest.raises(KeyboardInterrupt):
        run()
    answers = run(on_interrupt="return")
    assert [answer.has_solution for answer in answers] == [True, True, False, False]
    assert answers[3].status is so.Status.NO_SOLUTION
    assert answers[3].stop_reason is so.StopReason.INTERRUPTED
