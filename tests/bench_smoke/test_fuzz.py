"""The fuzzer: its own arithmetic, and the faults that it has to find when they are planted."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import nnls

import subsetopt as so
from benchmarks.commands.fuzz import Piece, read_pieces
from benchmarks.harness.fuzz_claims import Oracle
from benchmarks.harness.fuzz_exact import square_root, subset_sums, whole_numbers
from benchmarks.harness.fuzz_fits import Fits
from benchmarks.harness.fuzz_inclusion import exact_inclusion
from benchmarks.harness.fuzz_questions import KINDS, Question, ask
from benchmarks.harness.fuzz_trials import run_trial
from subsetopt.constraints.capacity import Capacity
from subsetopt.constraints.quotas import GroupQuotas
from subsetopt.registry import unregister_solver
from subsetopt.solvers.base import RawResult, SolveContext
from subsetopt.solvers.rows import BUILTIN

LOSSES = np.array([1.0, 2.0, 3.5, 7.0, 7.25])
CLASSES = tuple(sorted({name.split("[")[0] for row in BUILTIN for name in row.objectives}))


def test_every_objective_and_rule_is_drawn() -> None:
    drawn = {name for i in range(1500) for name in ask(0, i).features}
    assert set(KINDS) <= drawn
    assert {"float16", "bfloat16", "outlier of 1e8 to 1e10", "denormal", "extremes"} <= drawn
    assert {"quotas", "quotas of one", "labels", "sentinel costs", "infinite capacity"} <= drawn
    assert {"whole costs", "whole costs near 2**53", "decimal costs", "include", "exclude"} <= drawn
    assert {"at most", "target", "base_weights", "masked", "k = 0", "k = n", "n = 1"} <= drawn
    assert {"with replacement", "balance", "metric rbf", "more subsets than are looked at"} <= drawn
    asked = {ask(0, i, backends=True).kind for i in range(300)}
    assert asked == set(KINDS) - {"design"}


def test_whole_numbers_and_their_sums() -> None:
    whole, unit = whole_numbers(np.array([0.5, -1.25, 3.0]))
    assert (whole, unit) == ([2, -5, 12], Fraction(1, 4))
    assert subset_sums([1, 10, 100]) == [0, 1, 10, 11, 100, 101, 110, 111]
    assert square_root(Fraction(2)) == pytest.approx(2.0**0.5, rel=1e-15)
    assert square_root(Fraction(10) ** -600) == pytest.approx(1e-300, rel=1e-15)


def test_the_optimum_is_that_of_a_plain_loop() -> None:
    rules = {"costs": np.array([3, 1, 2, 2, 9]), "capacity": 5}
    residuals = [
        abs(LOSSES.mean() - LOSSES[list(pair)].mean())
        for pair in combinations(range(5), 2)
        if sum(rules["costs"][i] for i in pair) <= 5
    ]
    best = Oracle(Question("mean", {"losses": LOSSES}, 2, rules)).best
    assert best == pytest.approx(min(residuals), abs=1e-14)


def test_costs_are_added_as_they_are_written() -> None:
    costs = np.full(5, 10**12)
    data = {"scores": LOSSES}
    assert Oracle(Question("top", data, 2, {"costs": costs, "capacity": 2 * 10**12 - 1})).impossible
    rules = {"costs": np.full(5, 0.1), "capacity": 0.3}
    assert Oracle(Question("top", data, 3, rules)).best == 17.75


def test_the_best_weights_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        n, d = int(rng.integers(1, 6)), int(rng.integers(1, 4))
        vectors, aim = rng.integers(-5, 6, (n, d)), rng.integers(-9, 10, d)
        fits = Fits(vectors.T.tolist(), aim.tolist())
        for subset in range(1, 1 << n):
            chosen = [j for j in range(n) if subset >> j & 1]
            _, distance = nnls(vectors[chosen].T.astype(float), aim.astype(float))
            found = square_root(fits.least(np.array([subset])))
            assert found == pytest.approx(distance, abs=1e-9)


def test_exact_inclusion_probabilities() -> None:
    assert exact_inclusion(np.array([6.0, 1.0, 1.0, 2.0]), 2) == [
        1, Fraction(1, 4), Fraction(1, 4), Fraction(1, 2)
    ]  # fmt: skip
    assert exact_inclusion(np.array([0.0, 0.0, 3.0]), 2) == [Fraction(1, 2), Fraction(1, 2), 1]


def test_true_claims_pass_and_false_ones_do_not() -> None:
    question = Question("top", {"scores": LOSSES}, 2)
    oracle = Oracle(question)
    answer = so.solve(question.problem(), "topk")
    assert oracle.judge(answer, demanding=True, complete=True) == ("", "")
    false: list[tuple[dict[str, object], str]] = [
        ({"indices": np.array([0, 1]), "objective": 3.0}, "wrongly certified"),
        ({"bound": 14.0}, "wrongly certified"),
        ({"objective": 14.3}, "wrongly certified"),
        ({"status": so.Status.INFEASIBLE}, "wrongly certified"),
        ({"status": so.Status.ERROR}, "infeasible"),
        ({"indices": np.array([2, 3, 4])}, "infeasible"),
        ({"weights": np.array([1.0, 1.0])}, "infeasible"),
        ({"status": so.Status.NO_SOLUTION}, "empty-handed"),
        ({"status": so.Status.FEASIBLE}, "empty-handed"),
    ]
    for changes, kind in false:
        changed = dataclasses.replace(answer, **changes)
        assert oracle.judge(changed, demanding=True, complete=True)[0] == kind, changes
    impossible = Oracle(Question("top", {"scores": LOSSES}, 2, {"include": np.array([0, 1, 2])}))
    assert impossible.judge(answer)[0] == "wrongly certified"


def test_an_answer_worse_than_its_warm_start_is_found() -> None:
    question = Question("top", {"scores": LOSSES}, 2)
    best = so.solve(question.problem(), "topk")
    worse = dataclasses.replace(best, indices=np.array([0, 1]), objective=3.0)
    assert Oracle(question).worse_than(worse, np.array([3, 4]))[0] == "inconsistent"


def test_a_healthy_library_has_no_failures() -> None:
    for i in range(60):
        assert run_trial(1, i).failures == []


@dataclasses.dataclass(frozen=True)
class Boaster:
    """Calls the first subset that it comes upon optimal."""

    def solve(self, problem: so.Problem, context: SolveContext) -> RawResult:
        answer = so.solve(problem, "random" if self.draws(problem) else "exhaustive", seed=0)
        if not answer.has_solution:
            return RawResult(None)
        return RawResult(answer.indices, answer.weights, bound=answer.objective)

    @staticmethod
    def draws(problem: so.Problem) -> bool:
        return "random" in so.available_solvers(problem)


@dataclasses.dataclass(frozen=True)
class Denier:
    """Calls a problem infeasible where nothing simple refutes it."""

    def solve(self, problem: so.Problem, context: SolveContext) -> RawResult:
        return RawResult(None, infeasible=isinstance(problem.objective, so.ScoredMatching))


@dataclasses.dataclass(frozen=True)
class Exaggerator:
    """Puts its bound between the optimum and a bad subset, so that this one does not refute it."""

    def solve(self, problem: so.Problem, context: SolveContext) -> RawResult:
        best = so.solve(problem, "exhaustive", seed=0)
        if not best.has_solution or not Boaster.draws(problem):
            return RawResult(None)
        bad = so.solve(problem, "random", seed=1)
        return RawResult(bad.indices, bad.weights, bound=0.5 * (best.objective + bad.objective))


@dataclasses.dataclass(frozen=True)
class Waverer:
    """Has another answer every time."""

    def solve(self, problem: so.Problem, context: SolveContext) -> RawResult:
        if not Boaster.draws(problem):
            return RawResult(None)
        answer = so.solve(problem, "random")
        return RawResult(answer.indices, answer.weights)


@pytest.fixture
def registered() -> Iterator[Callable[[type], str]]:
    """Register a solver for every objective, with every feature, until the test ends."""
    names: list[str] = []

    def register(solver: type) -> str:
        name = solver.__name__.lower()
        spec = so.SolverSpec(name, solver, CLASSES, features=so.list_solvers()[0].features)
        so.register_solver(spec)
        names.append(name)
        return name

    yield register
    for name in names:
        unregister_solver(name)


@pytest.mark.parametrize(
    ("liar", "kind"),
    [
        (Boaster, "wrongly certified"),
        (Denier, "wrongly certified"),
        (Exaggerator, "wrongly certified"),
        (Waverer, "inconsistent"),
    ],
)
def test_liars_are_found(liar: type, kind: str, registered: Callable[[type], str]) -> None:
    name = registered(liar)
    trials = (run_trial(2, i, solvers=[name]) for i in range(200))
    assert any((who, what) == (name, kind) for trial in trials for who, what, _ in trial.failures)


@pytest.mark.parametrize(
    ("owner", "name", "broken"),
    [
        (Capacity, "affords", lambda self, indices: True),
        (GroupQuotas, "violations", lambda self, indices: []),
        (so.MeanMatching, "_precision", lambda self: 0.1 * self.scale),
        (so.ScoredMatching, "violations", lambda self, indices, k: []),
        (so.KCenter, "evaluate", lambda self, indices, weights: 0.0),
    ],
)
def test_a_broken_check_of_the_library_is_found(
    owner: type, name: str, broken: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, broken)
    assert any(run_trial(3, i).failures for i in range(400))


def test_a_last_piece_that_was_cut_short_is_left_out(tmp_path: Path) -> None:
    piece = Piece(0, 0, 5, False, {"problems": 5}, [(3, "swap", "crashed", "x")], 1.0)
    line = json.dumps(dataclasses.asdict(piece))
    (tmp_path / "fuzz.jsonl").write_text(line + "\n" + line[:20], encoding="utf-8")
    assert read_pieces(tmp_path / "fuzz.jsonl") == [piece]
