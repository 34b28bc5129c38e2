"""The nearest chosen point of every point: pieces, dismissals and estimates of time."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import subsetopt as so
from subsetopt.objectives import nearest


def farthest(points: np.ndarray, chosen: np.ndarray) -> float:
    """Return the largest squared distance to the nearest chosen point, by its definition."""
    differences = points[:, None, :] - chosen[None, :, :]
    return float(np.square(differences).sum(axis=2).min(axis=1).max())


@pytest.mark.parametrize("kind", ["normal", "tied", "clusters", "far", "sorted"])
@pytest.mark.parametrize("size", [1, 15, 16, 17, 90])
def test_the_farthest_point_is_that_of_the_definition(
    kind: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest, "_ROWS", 50)
    monkeypatch.setattr(nearest, "PIECE", 64)
    rng = np.random.default_rng(size)
    points = rng.normal(size=(333, 5))
    if kind == "tied":
        points = np.round(points)
    elif kind == "clusters":
        points = rng.normal(size=(4, 5))[rng.integers(0, 4, size=333)] + 1e-9 * points
    elif kind == "far":
        points += 1e6
    elif kind == "sorted":
        points = points[np.argsort(np.square(points).sum(axis=1))]
    chosen = points[rng.choice(333, size, replace=False)]
    square = nearest.farthest_square(points, chosen)
    assert square == pytest.approx(farthest(points, chosen), rel=1e-12, abs=1e-28)


def test_without_a_chosen_point_all_are_infinitely_far() -> None:
    points = np.ones((7, 2))
    assert nearest.farthest_square(points, points[:0]) == np.inf
    assert nearest.farthest_square(points[:0], points) == 0.0
    assert (nearest.largest_products(points, points[:0]) == -np.inf).all()


@pytest.mark.parametrize("piece", [1, 7, 100, 1 << 18])
def test_products_in_pieces_are_those_of_the_whole(
    piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest, "PIECE", piece)
    rng = np.random.default_rng(1)
    rows, chosen, offsets = rng.normal(size=(23, 4)), rng.normal(size=(9, 4)), rng.normal(size=9)
    whole = rows @ chosen.T
    assert nearest.largest_products(rows, chosen) == pytest.approx(whole.max(axis=1))
    shifted = nearest.largest_products(rows, chosen, offsets)
    assert shifted == pytest.approx((whole + offsets).max(axis=1))


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "rbf", "dot"])
def test_a_sum_in_parts_is_the_objective(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "_PART", 100)
    monkeypatch.setattr(nearest, "PIECE", 50)
    points = np.random.default_rng(2).normal(size=(120, 3))
    objective = so.FacilityLocation(points, metric=metric)
    chosen = np.array([3, 50, 51, 119])
    similarity = np.concatenate(
        [objective.similarities(np.array([j]), slice(0, 120)) for j in chosen]
    )
    expected = np.maximum(similarity.max(axis=0), 0.0).sum()
    assert objective.evaluate(chosen, np.ones(4)) == pytest.approx(expected, rel=1e-12)


def test_the_time_of_an_evaluation_is_that_of_a_part_times_the_parts() -> None:
    ticks = itertools.count()
    parts: list[slice] = []

    def evaluate(part: slice) -> float:
        parts.append(part)
        return 0.0

    seconds = nearest.seconds_for_all(evaluate, 1_000, 1 << 13, lambda: 2.0 * next(ticks))
    assert parts == [slice(0, 128)] * 2
    assert seconds == pytest.approx(1.25 * 2.0 * 1_000 / 128)
    assert nearest.seconds_for_all(evaluate, 10, 10, lambda: 1.0) == 0.0


@pytest.mark.parametrize("make", [so.FacilityLocation, so.KCenter])
def test_a_large_coverage_problem_keeps_time_back_for_its_evaluation(make: type) -> None:
    points = np.random.default_rng(3).normal(size=(4_000, 30))
    ticks = itertools.count()
    assert make(points).evaluation_time(100, lambda: next(ticks)) > 1.0
    assert make(points[:50]).evaluation_time(5, lambda: next(ticks)) == 0.0
