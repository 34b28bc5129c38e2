"""Losses of every dtype and layout."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import subsetopt as so

LOSSES = np.random.default_rng(3).exponential(size=128)


@pytest.mark.parametrize(
    "dtype",
    [np.float16, np.float32, np.float64, np.longdouble, ml_dtypes.bfloat16, np.int64, np.uint8],
)
def test_every_dtype_is_matched_in_its_own_precision(dtype: type) -> None:
    losses = (LOSSES * 40).astype(dtype)
    exact = losses.astype(np.float64)
    solution = so.select(losses, k=13, seed=0)
    residual = abs(exact.mean() - exact[solution.indices].mean())
    assert residual == pytest.approx(solution.objective, abs=1e-9)
    # On the coarse lattice of bfloat16 few sums lie near the target.
    assert residual - solution.bound <= 1e-5 * exact.mean()
    narrow = np.dtype(dtype).itemsize <= 4 and np.dtype(dtype).kind not in "iu"
    tolerance = so.MeanMatching(losses).tolerance / exact.mean()
    assert tolerance == pytest.approx(1.1920929e-07 if narrow else 1e-9)


def test_half_precision_lies_on_a_lattice() -> None:
    losses = np.random.default_rng(0).random(128).astype(np.float16)
    solution = so.select(losses, k=13, seed=0, time_limit=1.0)
    assert solution.relative_gap < 1e-6


@pytest.mark.parametrize("step", [2, -1, -3])
def test_strided_input_is_not_copied_wrongly(step: int) -> None:
    wide = np.random.default_rng(1).exponential(size=600)
    view = wide[::step]
    solution = so.select(view, k=20, seed=0)
    same = so.select(view.copy(), k=20, seed=0)
    assert np.array_equal(solution.indices, same.indices)
    assert so.verify(so.Problem(so.MeanMatching(view), 20), solution)


def test_a_column_of_a_matrix_and_a_list_are_vectors_too() -> None:
    matrix = np.random.default_rng(2).random((40, 3))
    column = so.select(matrix[:, 1], k=5, seed=0)
    listed = so.select(matrix[:, 1].tolist(), k=5, seed=0)
    assert np.array_equal(column.indices, listed.indices)


def test_large_magnitudes_and_tiny_ones() -> None:
    base = np.random.default_rng(4).exponential(size=64)
    for scale in (1e280, 1e-280, 1e-310):
        solution = so.select(base * scale, k=16, seed=0, time_limit=1.0)
        assert solution.has_solution
        assert solution.relative_gap < 1e-6
