"""What the benchmark's numbers rest on: means, verdicts, storage, the independent check."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import subsetopt as so
from benchmarks.harness.check import Instance
from benchmarks.harness.families import FAMILIES, Case, cases, family_names, register
from benchmarks.harness.fuzz_cases import brute_force, draw
from benchmarks.harness.judge import facts_of, judge
from benchmarks.harness.runner import LADDER, run
from benchmarks.harness.specs import SPECS, Spec
from benchmarks.harness.stats import quantiles, shifted_geometric_mean
from benchmarks.harness.store import Row, Store, read_rows
from benchmarks.harness.tables import milestones, summary, whole
from subsetopt import registry
from subsetopt.solvers.base import RawResult, SolveContext


def a_row(**changes: object) -> Row:
    row = Row(
        "exponential", 16, 2, 0.1, False, 0, "swap", 1.0, status="FEASIBLE", feasible=True,
        residual=0.5, objective=0.5, bound=0.0, scale=1.0, tolerance=1e-7, build=0.0, setup=0.0,
        total=0.001,
    )  # fmt: skip
    return replace(row, **changes)  # type: ignore[arg-type]


class TestShiftedGeometricMean:
    def test_hand_value(self) -> None:
        # sqrt((10 + 10) * (90 + 10)) - 10 = sqrt(2000) - 10 microseconds
        found = shifted_geometric_mean([10e-6, 90e-6], shift=10e-6)
        assert found == pytest.approx((math.sqrt(2000.0) - 10.0) * 1e-6)

    def test_equal_values_are_their_own_mean(self) -> None:
        assert shifted_geometric_mean([0.3, 0.3]) == pytest.approx(0.3)

    def test_nothing(self) -> None:
        assert math.isnan(shifted_geometric_mean([]))

    def test_quantiles_are_observed(self) -> None:
        assert quantiles([1.0, 2.0, 100.0], (0.5, 0.999)) == [2.0, 100.0]


class TestJudge:
    def test_a_better_subset_refutes_optimal(self) -> None:
        liar, honest = a_row(status="OPTIMAL"), a_row(solver="exact", residual=0.1, objective=0.1)
        found = judge(liar, facts_of([liar, honest])[liar.instance])
        assert not found.correct and not found.success and "optimality" in found.why

    def test_proved_above_tolerance_is_a_success(self) -> None:
        row = a_row(status="OPTIMAL", bound=0.5)
        assert judge(row, facts_of([row])[row.instance]).success

    def test_unproved_above_tolerance_is_honest_but_no_success(self) -> None:
        found = judge(a_row(), facts_of([a_row()])[a_row().instance])
        assert found.correct and not found.success

    @pytest.mark.parametrize(
        ("changes", "why"),
        [
            ({"feasible": False}, "infeasible"),
            ({"objective": 0.4}, "objective"),
            ({"bound": 0.3, "status": "FEASIBLE"}, "bound"),
            ({"status": "INFEASIBLE", "feasible": False}, "infeasibility"),
        ],
    )
    def test_other_lies(self, changes: dict[str, object], why: str) -> None:
        best = a_row(solver="exact", residual=0.2, objective=0.2)
        row = a_row(**changes)
        found = judge(row, facts_of([row, best])[row.instance])
        assert not found.correct and why in found.why

    def test_a_crash_claims_nothing(self) -> None:
        row = a_row(status="", feasible=False, error="ValueError: x", total=float("nan"))
        found = judge(row, facts_of([row])[row.instance])
        assert found.correct and not found.success
        assert summary([row])[1][0][-2] == 1

    def test_lying_solver_from_end_to_end(self) -> None:
        registry.register_solver(
            registry.SolverSpec("liar", _Liar, ("MeanMatching",), summary="claims a proof")
        )
        try:
            case = Case("exponential", 64, 0.1)
            rows = [run(Spec("liar", "liar"), case, case.instance(), 60.0)]
            rows += [run(SPECS["auto"], case, case.instance(), 60.0)]
        finally:
            registry.unregister_solver("liar")
        # The front door refuses a bound that the solver's own subset refutes.
        assert rows[0].status == "ERROR" and not rows[0].feasible
        refused, proved = (judge(row, facts_of(rows)[row.instance]) for row in rows)
        assert refused.correct and not refused.success
        assert proved.correct and proved.success


class _Liar:
    def solve(self, problem: so.Problem, context: SolveContext) -> RawResult:
        return RawResult(np.arange(problem.k), bound=1e9)


class TestStore:
    def test_resumes_and_survives_a_torn_line(self, tmp_path: Path) -> None:
        path = tmp_path / "rows.csv"
        with Store(path) as store:
            store.add(a_row())
            store.add(a_row(seed=1, error="two\nlines, and a comma"))
        with path.open("a") as file:
            file.write("exponential,16,2,0.1,Fal")
        with Store(path) as store:
            assert a_row().key in store and a_row(seed=2).key not in store
            store.add(a_row(seed=2))
        assert [row.seed for row in read_rows(path)] == [0, 1, 2]
        assert read_rows(path)[1] == a_row(seed=1, error="two lines, and a comma")

    def test_rows_are_on_disk_when_the_run_breaks(self, tmp_path: Path) -> None:
        path = tmp_path / "rows.csv"
        with pytest.raises(KeyboardInterrupt), Store(path) as store:
            store.add(a_row())
            raise KeyboardInterrupt
        assert read_rows(path) == [a_row()]

    def test_ladder_rows_are_told_from_whole_ones(self) -> None:
        short = a_row(
            limit=20e-6, feasible=False, status="NO_SOLUTION", total=30e-6, sampled=True
        )  # fmt: skip
        rows = [a_row(residual=0.0, objective=0.0), short, replace(short, limit=0.1, feasible=True)]
        rows += [replace(short, limit=10.0, feasible=True, total=4.0)]
        assert [row.limit for row in whole(rows)] == [1.0]
        solver, first, within, total, _ = milestones(rows)[1][0]
        assert (solver, first, within, total) == ("swap", "30.0 us", "1,000.0 us", "1,000.0 us")


class TestCheck:
    def test_constraints(self) -> None:
        rules = {"groups": np.array([0, 0, 1, 1]), "quotas": {0: 1}, "costs": np.ones(4),
                 "capacity": 2.0, "include": np.array([0])}  # fmt: skip
        instance = Instance(np.arange(4.0), 2, rules)
        assert instance.feasible(np.array([0, 2]))
        for wrong in ([0, 1], [1, 2], [0], [0, 0], [0, 9]):
            assert not instance.feasible(np.array(wrong))
        assert not replace(instance, keywords=rules | {"capacity": 1.5}).feasible(np.array([0, 2]))

    @pytest.mark.parametrize("i", range(30))
    def test_agrees_with_the_library_on_numbers(self, i: int) -> None:
        instance, _ = draw(5, i)
        objective = instance.problem().objective
        scale = max(instance.scale, 1e-300)
        assert objective.tolerance == pytest.approx(instance.tolerance, rel=1e-9, abs=1e-307)
        assert abs(objective.target - instance.target) <= 1e-12 * scale * instance.k + (
            1e-12 * abs(instance.target)
        )

    def test_constrained_cases_can_be_satisfied(self) -> None:
        for seed in range(5):
            case = Case("exponential", 16, 0.25, True, seed)
            assert brute_force(case.instance()) < math.inf


class TestRegistration:
    def test_no_family_twice(self) -> None:
        with pytest.raises(ValueError, match="registered already"):
            register(FAMILIES["uniform"])

    def test_recorded_stands_for_all_its_epochs(self) -> None:
        assert family_names("recorded") == [f"recorded-epoch-{e}" for e in (0, 1, 8, 30)]
        with pytest.raises(so.OptionError, match="no family named 'gaussan'"):
            family_names("gaussan")

    def test_sizes_that_round_to_the_same_k_come_once(self) -> None:
        found = list(cases(["uniform"], [16], [0.01, 0.05, 0.1], [False], 1))
        assert [case.k for case in found] == [1, 2]

    def test_every_row_of_the_registry_takes_part(self) -> None:
        rows = {row.name for row in so.list_solvers() if "MeanMatching" in row.objectives}
        assert rows | {"auto"} == set(SPECS)

    def test_skips_have_reasons(self) -> None:
        row = run(SPECS["exhaustive"], (case := Case("uniform", 128, 0.1)), case.instance(), 1.0)
        assert "subsets" in row.skipped

    def test_ladder_runs_from_20_microseconds_to_10_seconds(self) -> None:
        assert (LADDER[0], LADDER[-1]) == (2e-5, 10.0)
