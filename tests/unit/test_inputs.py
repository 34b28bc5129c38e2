"""Losses of every dtype and layout, and the checks of numbers, choices and option names."""

from __future__ import annotations

import re
from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

import subsetopt as so
from subsetopt import inputs

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
    solution = so.select(losses, k=13, seed=0)
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


@pytest.mark.parametrize("n", [128, 10_000])
@pytest.mark.parametrize("shift", [0.0, -0.5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_target_and_scale_are_the_means_of_losses_and_magnitudes(n, shift, dtype) -> None:
    losses = (np.random.default_rng(n).exponential(size=n) + shift).astype(dtype)
    objective = so.MeanMatching(losses)
    assert objective.target == losses.astype(np.float64).mean()
    assert objective.scale == np.abs(losses.astype(np.float64)).mean()


@pytest.mark.parametrize("n", [4, 10_000])
@pytest.mark.parametrize(
    ("pattern", "dtype", "message"),
    [
        ([1.0, np.nan], np.float32, "not finite at positions 1 "),
        ([np.inf, -np.inf], np.float32, "not finite at positions 0 "),
        ([1.0, np.nan], np.float64, "not finite at positions 1 "),
        ([-np.inf, np.inf], np.float64, "not finite at positions 0 "),
        ([1.5e308, -1.5e308], np.float64, "the sum of losses overflows"),
        ([1.5e308, 1.5e308], np.float64, "the sum of losses overflows"),
    ],
)
def test_neither_a_loss_nor_the_sum_of_magnitudes_may_be_infinite(
    n: int, pattern: list[float], dtype: type, message: str
) -> None:
    with pytest.raises(so.ProblemError, match=message):
        so.MeanMatching(np.resize(np.array(pattern, dtype=dtype), n))


def test_large_magnitudes_and_tiny_ones() -> None:
    base = np.random.default_rng(4).exponential(size=64)
    for scale in (1e280, 1e-280, 1e-310):
        solution = so.select(base * scale, k=16, seed=0)
        assert solution.has_solution
        assert solution.relative_gap < 1e-6


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (lambda value: inputs.checked_integer("a", value, 2), np.uint8(2)),
        (lambda value: inputs.checked_number("a", value, 0.0, 1.0), 1),
        (lambda value: inputs.checked_number("a", value, 0.0, 1.0), np.float32(0.5)),
        (lambda value: inputs.checked_positive("a", value), 5e-324),
        (lambda value: inputs.checked_fraction("a", value), np.float64(0.5)),
        (lambda value: inputs.checked_flag("a", value), np.True_),
        (lambda value: inputs.checked_choice("a", value, ("left", None)), None),
    ],
)
def test_what_is_accepted_comes_back_as_a_value_of_python(
    check: Callable[[object], object], value: object
) -> None:
    checked = check(value)
    assert checked == value
    assert not isinstance(checked, np.generic)


@pytest.mark.parametrize("value", [True, np.True_, "1", None, 1j, float("nan"), [1]])
@pytest.mark.parametrize(
    "check",
    [
        lambda value: inputs.checked_integer("a", value, 0),
        lambda value: inputs.checked_number("a", value, 0.0),
        lambda value: inputs.checked_positive("a", value),
        lambda value: inputs.checked_fraction("a", value),
    ],
)
def test_what_is_not_a_number_is_refused(check: Callable[[object], object], value: object) -> None:
    with pytest.raises(so.OptionError, match=r"^a must be .*, got " + re.escape(f"{value!r}.")):
        check(value)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (
            lambda: inputs.checked_integer("a", 0, 1, also=" or None", error=so.ProblemError),
            "a must be an integer >= 1 or None, got 0.",
        ),
        (
            lambda: inputs.checked_number("a", -1, 0.0, error=so.ProblemError),
            "a must be a number of at least 0, got -1.",
        ),
        (
            lambda: inputs.checked_number("a", 2.0, 0.5, 1.5, error=so.ProblemError),
            "a must be a number from 0.5 to 1.5, got 2.0.",
        ),
        (
            lambda: inputs.checked_positive("a", 0, error=so.ProblemError),
            "a must be a positive finite number, got 0.",
        ),
        (
            lambda: inputs.checked_fraction("a", 1.0, error=so.ProblemError),
            "a must be within (0, 1), got 1.0.",
        ),
        (
            lambda: inputs.checked_flag("a", 1, error=so.ProblemError),
            "a must be True or False, got 1.",
        ),
        (
            lambda: inputs.checked_choice("a", "lft", ("left", "right"), error=so.ProblemError),
            "a must be 'left' or 'right', got 'lft'. Did you mean 'left'?",
        ),
        (
            lambda: inputs.checked_choice("a", 7, ("left", "up", None), error=so.ProblemError),
            "a must be 'left', 'up' or None, got 7.",
        ),
        (
            lambda: inputs.checked_choice(
                "a", [7], ("left", "up"), listed=True, error=so.ProblemError
            ),
            "a must be one of 'left', 'up', got [7].",
        ),
    ],
)
def test_a_refusal_says_what_is_accepted_and_what_came(
    check: Callable[[], object], message: str
) -> None:
    with pytest.raises(so.ProblemError, match=f"^{re.escape(message)}$"):
        check()


def test_an_option_that_its_owner_lacks_is_named() -> None:
    inputs.check_options("solver 'a'", ["start"], ["start", "choices"])
    with pytest.raises(
        so.OptionError, match=r"solver 'a' has no option 'strat'\. Did you mean 'st"
    ):
        inputs.check_options("solver 'a'", ["start", "strat"], ["start", "choices"])
    with pytest.raises(so.OptionError, match=r"solver 'a' has no option 'start'\. It has none"):
        inputs.check_options("solver 'a'", ["start"], [])
