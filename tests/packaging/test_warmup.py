"""After ``warmup`` no call compiles a kernel, or loads one from the cache."""

from __future__ import annotations

import importlib
import multiprocessing
import pkgutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

import subsetopt as so

# With this many candidates solvers go the ways that are for large problems: they sort by radix from
# 1024 losses on, read vectors in 8 bits from 2**14 numbers on, and look at the clock while the cube
# flies from 976 candidates on.
MANY = 6000


class SteppingClock:
    """A clock that goes on by ten microseconds a reading."""

    def __init__(self) -> None:
        self.readings = 0

    def __call__(self) -> float:
        self.readings += 1
        return 1e-5 * self.readings


def kernels() -> dict[str, Any]:
    """Return every kernel by its name."""
    package = importlib.import_module("subsetopt.kernels")
    return {
        f"{entry.name}.{name}": value
        for entry in pkgutil.walk_packages(package.__path__, "subsetopt.kernels.")
        for name, value in vars(importlib.import_module(entry.name)).items()
        if getattr(value, "__module__", None) == entry.name and hasattr(value, "py_func")
    }


def objectives(n: int, k: int) -> Iterator[so.Objective]:
    """Yield an objective of every kind with n candidates."""
    rng = np.random.default_rng(n)
    losses, points = rng.exponential(size=n), rng.normal(size=(n, 3))
    yield so.MeanMatching(losses)
    yield so.MeanMatching(losses.astype(np.float32), 0.25)
    yield so.MeanMatching(losses.astype(np.float16))
    yield so.MeanMatching(rng.integers(0, 9, n))
    yield so.MeanMatching(losses, base_weights=rng.random(n))
    yield so.TopScores(losses)
    yield so.WeightedScores(losses)
    yield so.ScoredMatching(rng.random(n), losses, 0.05)
    yield so.ScoredMatching(rng.random(n), losses, 1e-13)
    for vectors in (points, points.astype(np.float32), np.asfortranarray(points), points[:, :1]):
        yield so.VectorMatching(vectors)
        yield so.VectorMatching(vectors, weights="nonnegative")
    yield so.VectorMatching(points, target=points[0])
    yield so.VectorMatching(points, target=points[0], weights="nonnegative")
    inclusion = so.inclusion_probabilities(losses, k)
    yield so.SamplingDesign(inclusion)
    yield so.SamplingDesign(inclusion, points)
    yield so.SamplingDesign(inclusion, replacement=True)
    if n < MANY:
        yield so.KCenter(points)
        for vectors in (points, points.astype(np.float32)):
            yield so.FacilityLocation(vectors)
            yield so.FacilityLocation(vectors, metric="euclidean")
            yield so.FacilityLocation(similarity=np.abs(vectors @ vectors.T))


def rules(n: int) -> Iterator[dict[str, Any]]:
    """Yield constraints of every kind on n candidates."""
    groups, costs = np.arange(n) % 3, np.random.default_rng(n).random(n)
    quotas = {"groups": groups, "quotas": {0: 1, 1: (1, 2)}}
    capacity = {"costs": costs, "capacity": 2.5}
    yield {}
    yield {**quotas, **capacity, "include": [0], "cardinality": "at_most"}
    if n == MANY:
        return
    yield {"cardinality": "at_most"}
    yield {"include": [0], "exclude": [2, 3]}
    yield quotas
    yield capacity


def problems(n: int, k: int) -> Iterator[so.Problem]:
    """Yield a problem of every kind with n candidates."""
    for objective in objectives(n, k):
        for rule in rules(n):
            try:
                yield so.Problem(objective, k, **rule)
            except so.ProblemError:  # Some objectives take no constraints.
                continue


def calls(n: int, k: int) -> Iterator[tuple[so.Problem, str]]:
    """Yield a problem of every kind with every native solver that takes it."""
    for problem in problems(n, k):
        for spec in so.list_solvers():
            if set(spec.requires) <= {"numba"} and spec.obstacle(problem) is None:
                yield problem, spec.name


def compiled_after_warmup() -> list[str]:
    """Return which calls after ``warmup`` compile which kernels; runs in a process of its own."""
    so.warmup()
    every = kernels()
    assert len(every) > 50
    counts = {name: len(kernel.signatures) for name, kernel in every.items()}
    compiled = []
    for n, k, work in ((12, 4, 300), (MANY, 6, 5)):
        for problem, solver in calls(n, k):
            deadline = so.Deadline(2e-3, clock=SteppingClock())
            so.solve(problem, solver, max_iterations=work, seed=0)
            so.solve(problem, solver, time_limit=deadline, seed=0)
            for name, kernel in every.items():
                if len(kernel.signatures) > counts[name]:
                    counts[name] = len(kernel.signatures)
                    compiled.append(f"{problem} {solver}: {name} {kernel.signatures[-1]}")
    return compiled


def test_after_warmup_no_solver_compiles_a_kernel() -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        assert process.submit(compiled_after_warmup).result() == []
