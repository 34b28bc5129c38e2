"""The benchmark of vector matching, and the published algorithms that it compares with."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import nnls
from typer.testing import CliRunner

import subsetopt as so
from benchmarks.__main__ import app
from benchmarks.commands.vectors import Instance, gaussian, geometric_mean, references
from benchmarks.rivals import published
from subsetopt.instances import vectors
from subsetopt.kernels import reference

SHAPES = [(30, 5, 3), (60, 40, 12), (200, 64, 30)]


def answer(rows: np.ndarray, k: int, solver: str) -> so.Solution:
    return so.solve(so.Problem(so.VectorMatching(rows, weights="nonnegative"), k), solver)


def test_the_command(tmp_path: Path) -> None:
    arguments = [
        "vectors", "--instances", "2", "--large", "0", "--weighted", "1", "--gurobi-seconds", "0",
        "--out", str(tmp_path),
    ]  # fmt: skip
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "vectors.json").read_text())
    checks = {check["what"]: check for check in found["checks"]}
    residuals = [check for what, check in checks.items() if ": residual over" in what]
    assert len(residuals) == 6 and all(check["passed"] for check in residuals)
    assert checks["omp, k = d = 16, n=1,024: OPTIMAL"]["passed"]
    uniform, weighted = found["tables"]
    assert [row[0] for row in uniform["rows"]][:2] == ["Gaussian", "logit gradients, step 20"]
    assert all(0.0 < row[5] < 1.0 for row in uniform["rows"])
    assert {row[0] for row in weighted["rows"]} >= {"omp", "giga", "GIGA, tuned, float32"}


def test_references_are_kept_and_torn_lines_are_not(tmp_path: Path) -> None:
    if "gurobi" not in so.available_solvers():
        pytest.skip("needs Gurobi")
    path, family = tmp_path / "vectors-gurobi.jsonl", gaussian(2, 12, 3, 4)
    first = references(path, family[:1], 5.0)
    whole = path.read_text()
    path.write_text(whole + '{"key": "torn')
    both = references(path, family, 5.0)
    assert both.items() >= first.items() and len(path.read_text().split("\n")) > len(
        whole.split("\n")
    )
    assert references(path, family, 5.0) == both
    best = so.solve(family[0].problem(), "exhaustive")
    (found,) = first.values()
    assert found.proved and found.error == pytest.approx(family[0].error(best.indices), rel=1e-9)


def test_instances_tell_their_data_apart() -> None:
    one, other = (Instance("Gaussian", vectors(20, 3, seed), 4, 0) for seed in (1, 2))
    assert one.key != other.key
    chosen = np.arange(4)
    found = one.problem().objective.evaluate(chosen, np.full(4, 0.25))
    assert one.error(chosen) == pytest.approx(found, rel=1e-12)
    single = Instance("Gaussian", vectors(20, 3, 1).astype(np.float32), 4, 0)
    assert single.error(chosen) == pytest.approx(found, rel=1e-5)


@pytest.mark.parametrize(("n", "d", "k"), SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_no_residual_is_larger_than_the_published(n: int, d: int, k: int, seed: int) -> None:
    rows = vectors(n, d, seed)
    for solver, weights in (
        ("omp", published.matching_pursuit(rows, k, normalized=True)),
        ("giga", published.giga(rows, k)),
        ("frank-wolfe", published.frank_wolfe(rows, k)),
    ):
        assert (weights >= 0.0).all() and np.count_nonzero(weights) <= k
        theirs = published.residual(rows, weights)
        assert theirs <= np.linalg.norm(rows.mean(axis=0))
        assert answer(rows, k, solver).objective <= theirs * (1.0 + 1e-9) + 1e-12


def test_the_least_angle_leaves_less_than_the_largest_product() -> None:
    """On the whole: on one instance the other rule may be lucky."""
    for n, d, k in SHAPES:
        ours, theirs = [], []
        for seed in range(10):
            rows = vectors(n, d, seed)
            ours.append(answer(rows, k, "omp").objective)
            theirs.append(published.residual(rows, published.matching_pursuit(rows, k)))
        assert geometric_mean(ours) < geometric_mean(theirs)


@pytest.mark.parametrize(("n", "d", "k"), SHAPES[1:])
@pytest.mark.parametrize("seed", range(3))
def test_the_forms_of_giga_are_one_algorithm(n: int, d: int, k: int, seed: int) -> None:
    rows = vectors(n, d, seed)
    weights = published.giga(rows, k)
    plain = reference.geodesic_ascent(rows, rows.mean(axis=0), k)
    for other in (published.tuned_giga(rows, k), plain):
        assert np.allclose(other, weights, rtol=1e-6, atol=1e-12)
    single = published.tuned_giga(rows.astype(np.float32), k)
    assert published.residual(rows, single) == pytest.approx(
        published.residual(rows, weights), rel=1e-3
    )


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_matching_pursuit_fits_best_what_it_chose(seed: int, normalized: bool) -> None:
    rows = vectors(8, 5, seed)
    weights = published.matching_pursuit(rows, 3, normalized)
    target, chosen = rows.mean(axis=0), np.flatnonzero(weights)
    own = published.residual(rows, weights)
    assert own == pytest.approx(reference.nonnegative_residual(rows[chosen], target), abs=1e-12)
    best = min(nnls(rows[list(s)].T, target)[1] for s in combinations(range(8), 3))
    assert best * (1.0 - 1e-9) <= own <= np.linalg.norm(target)
    # The first vector is the one that a brute force finds.
    first = published.matching_pursuit(rows, 1, normalized)
    products = rows @ target / (np.linalg.norm(rows, axis=1) if normalized else 1.0)
    assert np.flatnonzero(first) == [np.argmax(products)]


@pytest.mark.parametrize("seed", range(3))
def test_frank_wolfe_stays_in_the_polytope_and_converges(seed: int) -> None:
    rows = vectors(50, 6, seed)
    norms = np.linalg.norm(rows, axis=1)
    for steps in (1, 10, 100, 1000):
        weights = published.frank_wolfe(rows, steps)
        assert weights @ norms == pytest.approx(norms.mean())
        # Jaggi 2013: half the squared residual is at most 2 diameters squared over steps + 2.
        square = published.residual(rows, weights) ** 2
        assert square <= 4.0 * (2.0 * norms.mean()) ** 2 / (steps + 2)


@pytest.mark.parametrize("seed", range(3))
def test_single_swaps_end_where_no_swap_helps(seed: int) -> None:
    instance = gaussian(seed + 1, 40, 3, 6)[seed]
    chosen, _ = published.single_swaps(instance.vectors, 6, 0.0, seed)
    error = instance.error(chosen)
    assert np.unique(chosen).size == 6
    for i in range(6):
        for j in np.setdiff1d(np.arange(40), chosen):
            moved = np.append(np.delete(chosen, i), j)
            assert instance.error(moved) >= error * (1.0 - 1e-6)


def test_omp_by_products_is_the_published_algorithm_in_general_position() -> None:
    compared = 0
    for seed in range(40):
        rows = vectors(60, 20, seed)
        weights = published.matching_pursuit(rows, 6)
        if np.count_nonzero(weights) < 6:
            continue  # a weight fell to 0: ours makes room for another then
        problem = so.Problem(so.VectorMatching(rows, weights="nonnegative"), 6)
        answer = so.solve(problem, "omp", options={"pick": "product"})
        assert np.array_equal(answer.indices, np.flatnonzero(weights))
        assert np.allclose(answer.weights, weights[answer.indices])
        compared += 1
    assert compared > 20
