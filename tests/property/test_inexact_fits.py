"""A fit of nonnegative weights that rounding has spoiled proves nothing."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import subsetopt as so


def exact_residual(vectors: np.ndarray, target: np.ndarray, weights: np.ndarray) -> float:
    left = [Fraction(float(x)) for x in target]
    for weight, vector in zip(weights, vectors, strict=True):
        factor = Fraction(float(weight))
        left = [a - factor * Fraction(float(b)) for a, b in zip(left, vector, strict=True)]
    return math.sqrt(sum(a * a for a in left))


@given(
    seed=st.integers(0, 2**32), angle=st.integers(-10, -5), solver=st.sampled_from(["auto", "omp"])
)
@settings(max_examples=150)
def test_no_bound_lies_above_a_residual_that_weights_attain(
    seed: int, angle: int, solver: str
) -> None:
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(3, 8)), int(rng.integers(2, 9))
    vectors = np.outer(rng.normal(size=n), rng.normal(size=d))
    vectors += 10.0**angle * rng.normal(size=(n, d))
    weights = rng.random(n) * 10.0 ** rng.uniform(0, -angle)
    target = weights @ vectors + 10.0 ** rng.integers(-9, 1) * rng.normal(size=d)
    attained = exact_residual(vectors, target, weights)
    problem = so.Problem(so.VectorMatching(vectors, target=target, weights="nonnegative"), n)
    for name in (solver, "exhaustive"):
        answer = so.solve(problem, name, seed=0)
        assert answer.bound <= attained * (1 + 1e-9) + problem.objective.tolerance, name


@pytest.mark.parametrize("solver", ["auto", "omp", "exhaustive"])
@pytest.mark.parametrize("kind", ["general", "whole numbers", "positive", "opposite"])
def test_an_exact_fit_is_proved_as_before(solver: str, kind: str) -> None:
    rng = np.random.default_rng(4)
    vectors = rng.normal(size=(8, 4))
    if kind == "whole numbers":
        vectors = rng.integers(-2, 3, size=(8, 4)).astype(float)
    if kind == "positive":
        vectors = np.abs(vectors)
    if kind == "opposite":
        vectors = np.concatenate([vectors[:4, :], -vectors[:2, :], vectors[:2, :]])
    target = rng.normal(size=4)
    problem = so.Problem(so.VectorMatching(vectors, target=target, weights="nonnegative"), 8)
    answer = so.solve(problem, solver, seed=0)
    assert answer.status is so.Status.OPTIMAL
    assert so.verify(problem, answer)
