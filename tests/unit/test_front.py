"""The front door: what solve and select return, whatever the solver says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from tolerances import FLOAT32_RESIDUAL

import subsetopt as so
from subsetopt import registry


@pytest.fixture
def exponential() -> np.ndarray:
    return np.random.default_rng(7).exponential(size=128).astype(np.float32)


def test_select_reaches_the_precision_of_the_data_for_nearly_every_seed() -> None:
    good = 0
    for seed in range(100):
        losses = np.random.default_rng(seed).exponential(size=128).astype(np.float32)
        solution = so.select(losses, k=13, seed=seed)
        exact = losses.astype(np.float64)
        residual = abs(exact.mean() - exact[solution.indices].mean()) / np.abs(exact).mean()
        good += solution.status is so.Status.OPTIMAL and residual <= FLOAT32_RESIDUAL
    assert good >= 99


def test_the_fields_of_a_solution(exponential: np.ndarray) -> None:
    solution = so.select(exponential, k=13, seed=1)
    assert solution.indices.dtype == np.int64
    assert (np.diff(solution.indices) > 0).all()
    assert solution.mask.shape == (128,) and solution.mask.sum() == 13
    assert np.allclose(solution.weights, 1 / 13)
    assert solution.gap == abs(solution.objective - solution.bound)
    assert solution.relative_gap == solution.gap / np.abs(exponential.astype(float)).mean()
    assert solution.stop_reason is so.StopReason.TARGET
    assert solution.solver == "swap"
    assert 0 < solution.solve_time
    assert solution.iterations > 0
    assert solution.require() is solution


def test_same_seed_same_answer_and_other_seed_another(exponential: np.ndarray) -> None:
    first = so.select(exponential, k=13, seed=3)
    assert np.array_equal(first.indices, so.select(exponential, k=13, seed=3).indices)
    others = [so.select(exponential, k=13, seed=s).indices.tolist() for s in range(5)]
    assert len({tuple(o) for o in others}) == 5


@pytest.mark.parametrize(
    ("n", "rate", "k"),
    [(128, 0.1, 13), (3, 0.1, 1), (5, 0.5, 3), (7, 0.0, 0), (0, 0.5, 0), (4, 1.0, 4)],
)
def test_k_from_a_rate(n: int, rate: float, k: int) -> None:
    assert so.size_from_rate(n, rate) == k
    assert so.select(np.arange(n, dtype=float), rate=rate).indices.size == k


def test_degenerate_sizes() -> None:
    nothing = so.select([2.0, 4.0], k=0)
    assert nothing.objective == 3.0 and nothing.status is so.Status.OPTIMAL
    empty = so.select([], k=0)
    assert empty.objective == 0.0 and empty.status is so.Status.OPTIMAL
    everything = so.select([2.0, 4.0], k=2)
    assert everything.objective == 0.0 and everything.indices.tolist() == [0, 1]


def test_at_most_divides_by_k_whatever_is_chosen() -> None:
    solution = so.select([4.0, 100.0, 100.0], k=2, target=2.0, cardinality="at_most")
    assert solution.indices.tolist() == [0]
    assert solution.objective == 0.0
    assert solution.weights.tolist() == [0.5]


def test_base_weights_make_the_means_weighted() -> None:
    losses, weights = np.array([1.0, 2.0, 3.0, 10.0]), np.array([1.0, 1.0, 2.0, 0.0])
    solution = so.select(losses, k=2, base_weights=weights, seed=0)
    scaled = weights / weights.mean()
    assert np.allclose(solution.weights, scaled[solution.indices] / 2)
    weighted_mean = (losses * weights).sum() / weights.sum()
    expected = abs(weighted_mean - (losses * scaled)[solution.indices].sum() / 2)
    assert solution.objective == pytest.approx(expected, abs=1e-12)


def test_a_target_outside_the_reachable_means_is_proved() -> None:
    solution = so.select(np.arange(50.0), k=5, target=1000.0, solver="swap", seed=0)
    assert solution.indices.tolist() == [45, 46, 47, 48, 49]
    assert solution.status is so.Status.OPTIMAL
    assert solution.bound == pytest.approx(1000.0 - 47.0)


@pytest.mark.parametrize("name", ["swap", "auto", "exact", "exhaustive"])
def test_a_target_whose_sum_overflows_is_as_far_as_any(name: str) -> None:
    problem = so.Problem(so.MeanMatching(np.arange(8.0), target=1e308), 3)
    solution = so.solve(problem, name, seed=0)
    assert solution.status in (so.Status.FEASIBLE, so.Status.OPTIMAL)
    assert solution.indices.size == 3
    assert solution.objective == 1e308
    rows = so.select_many([np.arange(8.0)], 3, target=1e308, seed=0)
    assert rows[0].indices.size == 3


def test_ties_integers_and_decimals_end_with_a_proof() -> None:
    for family in ("integer", "two-decimal", "all-equal"):
        for seed in range(10):
            from subsetopt.instances import losses

            solution = so.select(losses(family, 128, 13, seed), k=13, seed=seed, solver="swap")
            assert solution.status is so.Status.OPTIMAL, (family, seed)


def test_a_list_of_solvers_falls_over_and_tells() -> None:
    problem = so.Problem(so.MeanMatching([1.0, 2.0, 3.0, 4.0]), 2, costs=[1.0] * 4, capacity=3.0)
    solution = so.solve(problem, ["topk", "swap"], seed=0)
    assert solution.solver == "swap"
    assert solution.extras["fallbacks"][0][0] == "topk"
    with pytest.raises(so.UnsupportedProblemError):
        so.solve(problem, ["topk", "half-and-half"])


def test_a_solver_object_can_be_passed() -> None:
    from subsetopt.solvers.swap import Swap

    solution = so.select([1.0, 2.0, 3.0], k=1, solver=Swap(start="window"), seed=0)
    assert solution.indices.tolist() == [1]


def test_warm_starts_of_every_kind() -> None:
    losses = np.random.default_rng(0).random(30)
    problem = so.Problem(so.MeanMatching(losses), 5)
    good = so.solve(problem, "swap", seed=0)
    for start in (good, good.indices, good.mask, good.indices[::-1].tolist()):
        solution = so.solve(problem, "random", warm_start=start, seed=1)
        assert np.array_equal(solution.indices, good.indices)
        assert solution.solver == "warm-start"
    named = so.solve(problem, "random", warm_start="swap", seed=0)
    assert np.array_equal(named.indices, good.indices)


def test_choose_solver_gives_its_reason() -> None:
    matching = so.Problem(so.MeanMatching([1.0, 2.0]), 1)
    assert so.choose_solver(matching).name == "swap"
    assert "microseconds" in so.choose_solver(matching).reason
    assert so.choose_solver(so.Problem(so.TopScores([1.0, 2.0]), 1)).name == "topk"
    knapsack = so.Problem(so.TopScores([1.0, 2.0]), 1, costs=[1.0, 2.0], capacity=1.0)
    assert so.choose_solver(knapsack).name == "exhaustive"


@dataclass(frozen=True)
class Liar:
    """Claims a bound and returns what it is told."""

    indices: tuple[int, ...] = (0, 0)

    def solve(self, problem: so.Problem, context: so.SolveContext) -> so.RawResult:
        return so.RawResult(np.array(self.indices), bound=1e9)


@pytest.fixture
def liar():
    so.register_solver(so.SolverSpec("liar", Liar, ("MeanMatching",)))
    yield
    registry.unregister_solver("liar")


@pytest.mark.usefixtures("liar")
def test_an_infeasible_answer_of_a_solver_is_an_error_status() -> None:
    solution = so.select([1.0, 2.0, 3.0], k=2, solver="liar")
    assert solution.status is so.Status.ERROR
    assert "repeat" in solution.extras["error"]
    with pytest.raises(so.NoSolutionError, match="infeasible subset"):
        solution.require()
    rescued = so.select([1.0, 2.0, 3.0], k=2, solver=["liar", "swap"], seed=0)
    assert rescued.solver == "swap"
    assert rescued.extras["fallbacks"][0][0] == "liar"


@pytest.mark.usefixtures("liar")
def test_registered_solvers_appear_everywhere_and_names_are_taken_once() -> None:
    assert "liar" in [row.name for row in so.list_solvers()]
    assert "liar" in so.available_solvers()
    with pytest.raises(so.OptionError, match="registered already"):
        so.register_solver(so.SolverSpec("liar", Liar, ("MeanMatching",)))
    with pytest.raises(so.OptionError, match="unknown features"):
        so.SolverSpec("x", Liar, (), features={"wings"})


def test_a_missing_package_tells_the_pip_line() -> None:
    so.register_solver(
        so.SolverSpec(
            "ghost", "nowhere:Ghost", ("MeanMatching",), requires=("nowhere",), extra="bench"
        )
    )
    try:
        with pytest.raises(
            so.SolverUnavailableError, match=r"needs nowhere.*pip install 'subsetopt\[bench\]'"
        ):
            so.select([1.0, 2.0, 3.0], k=1, solver="ghost")
        assert "ghost" not in so.available_solvers()
        state = registry.availability("ghost")
        assert not state.installed and "pip install" in state.reason
        solution = so.select([1.0, 2.0, 3.0], k=1, solver=["ghost", "swap"])
        assert solution.solver == "swap"
    finally:
        registry.unregister_solver("ghost")


def test_verify_finds_every_kind_of_lie() -> None:
    import dataclasses

    problem = so.Problem(so.MeanMatching([1.0, 2.0, 3.0, 6.0]), k=2)
    honest = so.solve(problem, seed=0)
    assert so.verify(problem, honest)
    for change in (
        {"indices": np.array([0, 9])},
        {"indices": np.array([0])},
        {"weights": np.array([0.5])},
        {"weights": np.array([0.4, 0.6])},
        {"weights": np.array([np.nan, 0.5])},
        {"objective": honest.objective + 1.0},
        {"bound": honest.objective + 1.0},
        {"status": so.Status.NO_SOLUTION},
    ):
        certificate = so.verify(problem, dataclasses.replace(honest, **change))
        assert not certificate, change
        assert certificate.violations
