"""Kernels that other kernels call: what they compute is right, and they are compiled once."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

import subsetopt as so
from subsetopt.kernels.compiling import njit, uncounted


@njit(cache=False)
def _root(x):
    if x < 0.0:
        raise ValueError("x is negative")
    return x**0.5


@njit(cache=False)
def _sum_of_roots(values, scale=1.0):
    total = _root(4.0) + _root(9)
    for i in range(values.size):
        total += scale * _root(values[i])
    return total


@uncounted
def _shifted(values, by, out):
    for i in range(values.size):
        out[i] = values[i] + by


@njit(cache=False)
def _shifted_twice(values):
    out = np.empty(values.size)
    _shifted(values, 1, out)
    _shifted(out, 2, out)
    return out


@njit(cache=False)
def _told(x):
    print("x is", x)
    return x


@njit(cache=False)
def _told_twice(x):
    return _told(x) + _told(x + 1)


def test_a_kernel_that_others_call_is_compiled_as_their_part_only() -> None:
    assert _sum_of_roots(np.array([16.0, 25.0])) == 14.0
    assert _sum_of_roots(np.array([16.0]), scale=2.0) == 13.0
    assert _root.signatures == []
    assert _root(0.25) == 0.5
    assert len(_root.signatures) == 1


def test_a_constant_is_an_argument_like_any_other() -> None:
    assert _shifted_twice(np.array([1.0, 2.0])).tolist() == [4.0, 5.0]
    assert [len(part) for part in _shifted._parts] == [3]


def test_an_error_in_a_part_reaches_the_caller() -> None:
    for _ in range(3):
        with pytest.raises(ValueError, match="x is negative"):
            _sum_of_roots(np.array([1.0, -1.0]))


def test_a_part_has_the_objects_of_python_that_it_uses(capfd: pytest.CaptureFixture[str]) -> None:
    assert _told_twice(3) == 7
    assert capfd.readouterr().out.split() == ["x", "is", "3", "x", "is", "4"]


@pytest.mark.parametrize("collecting", [True, False])
def test_the_collection_of_garbage_is_left_as_it_was(collecting: bool) -> None:
    def wrong(x: Any) -> Any:
        return x.nothing

    before = gc.isenabled()
    try:
        (gc.enable if collecting else gc.disable)()
        assert njit(cache=False)(lambda x: x + 1)(1) == 2
        assert gc.isenabled() == collecting
        with pytest.raises(numba.core.errors.TypingError, match="nothing"):
            njit(cache=False)(wrong)(1)
        assert gc.isenabled() == collecting
    finally:
        (gc.enable if before else gc.disable)()


def test_a_version_of_numba_that_was_not_tried_compiles_by_itself(tmp_path: Path) -> None:
    program = """
import numba
numba.version_info = (99, 0)
import numpy as np
import subsetopt as so
from subsetopt.kernels.compiling import Kernel
from subsetopt.kernels.matching import swap
assert not isinstance(swap.search, Kernel)
print(so.select(np.arange(64.0) ** 1.5, k=7, seed=0).indices.tolist())
"""
    command, environment = [sys.executable, "-c", program], {"NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | environment, check=False
    )
    assert done.returncode == 0, done.stderr
    expected = so.select(np.arange(64.0) ** 1.5, k=7, seed=0).indices.tolist()
    assert done.stdout.strip() == str(expected)
