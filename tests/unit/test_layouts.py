"""Arrays of every layout: the same answer, and no kernel compiled for them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

import subsetopt as so
from subsetopt import kernels

_LOSSES = np.random.default_rng(0).exponential(size=24)
_SMALL = _LOSSES.reshape(12, 2)
_LARGE = np.random.default_rng(1).normal(size=(300, 64))
_ALIKE = _SMALL @ _SMALL.T
_GROUPS = np.arange(24) % 3


def _read_only(array: np.ndarray) -> np.ndarray:
    made = array.copy()
    made.flags.writeable = False
    return made


def _strided(array: np.ndarray) -> np.ndarray:
    made = np.empty((2 * len(array), *array.shape[1:]), array.dtype)
    made[::2] = array
    return made[::2]


def _unaligned(array: np.ndarray) -> np.ndarray:
    memory = bytearray(array.nbytes + 1)
    made = np.frombuffer(memory, array.dtype, array.size, 1).reshape(array.shape)
    made[...] = array
    return made


def _swapped(array: np.ndarray) -> np.ndarray:
    return array.astype(array.dtype.newbyteorder())


_LAYOUTS = (_read_only, _strided, _unaligned, _swapped, np.asfortranarray)


def _problems(lay: Callable[[np.ndarray], np.ndarray]) -> Iterator[so.Problem]:
    losses, inclusion = lay(_LOSSES), lay(np.full(24, 5 / 24))
    rules = {"groups": lay(_GROUPS), "quotas": {0: 2}, "costs": losses, "capacity": 9}
    yield so.Problem(so.MeanMatching(losses), 5)
    yield so.Problem(so.MeanMatching(losses, base_weights=losses), 5)
    yield so.Problem(so.MeanMatching(losses), 5, **rules)
    yield so.Problem(so.SamplingDesign(inclusion, losses), 5)
    yield so.Problem(so.SamplingDesign(inclusion, lay(np.stack([_LOSSES, _LOSSES**2], 1))), 5)
    yield so.Problem(so.ScoredMatching(lay(np.sqrt(_LOSSES)), losses, 0.0), 5)
    for vectors in (_SMALL, _LARGE):
        yield so.Problem(so.VectorMatching(lay(vectors)), 3)
        yield so.Problem(so.VectorMatching(lay(vectors), lay(vectors[0])), 3)
        yield so.Problem(so.VectorMatching(lay(vectors), weights="nonnegative"), 3)
        yield so.Problem(so.FacilityLocation(lay(vectors)), 3)
        yield so.Problem(so.KCenter(lay(vectors)), 3)
    yield so.Problem(so.FacilityLocation(similarity=lay(_ALIKE)), 3)


def _answers(lay: Callable[[np.ndarray], np.ndarray]) -> list[list[int]]:
    """Return what every solver of our own chooses."""
    found = []
    for problem in _problems(lay):
        for spec in so.list_solvers():
            if set(spec.requires) == {"numba"} and spec.obstacle(problem) is None:
                answer = so.solve(problem, spec.name, max_iterations=200, seed=0)
                found.append(answer.indices.tolist())
    rows = lay(np.stack([_LOSSES, _LOSSES + 1.0]))
    for parallel in (False, True):
        found += [a.indices.tolist() for a in so.select_many(rows, 5, seed=0, parallel=parallel)]
    return found


def _compiled() -> dict[str, int]:
    """Return for how many kinds of input every kernel is compiled."""
    modules = [
        importlib.import_module(f"{kernels.__name__}.{module.name}")
        for module in pkgutil.iter_modules(kernels.__path__)
    ]
    return {
        f"{module.__name__}.{name}": len(value.signatures)
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, Dispatcher)
    }


@pytest.mark.parametrize("lay", _LAYOUTS, ids=lambda lay: lay.__name__.strip("_"))
def test_a_layout_changes_no_answer_and_compiles_nothing(lay) -> None:
    so.warmup()
    expected = _answers(np.copy)
    before = _compiled()
    assert _answers(lay) == expected
    assert _compiled() == before


def test_inputs_that_fit_are_not_copied() -> None:
    assert so.VectorMatching(_LARGE).vectors is _LARGE
    assert so.FacilityLocation(similarity=_ALIKE).similarity is _ALIKE
    assert np.shares_memory(so.MeanMatching(_LOSSES).values, _LOSSES)
