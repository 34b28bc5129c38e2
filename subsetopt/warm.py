"""Compiling ahead of time, so that the first solve of a run is as fast as the rest."""

from __future__ import annotations

import numpy as np

from subsetopt.front import solve
from subsetopt.many import select_many
from subsetopt.objectives import (
    FacilityLocation,
    KCenter,
    MeanMatching,
    SamplingDesign,
    ScoredMatching,
    VectorMatching,
)
from subsetopt.problem import Problem
from subsetopt.registry import list_solvers

__all__ = ["warmup"]


def warmup() -> None:
    """Compile every kernel, or load it from the cache on disk.

    The first call on a machine takes about a minute; later calls, also of other processes, take a
    fraction of a second. Without it, the first solve of each kind compiles its own kernels.
    The cache lies in ``NUMBA_CACHE_DIR`` where that is set, else beside the installed package. If
    the package cannot be written to, new kernels go under the user's cache directory, else into a
    temporary folder of the user; if nothing can be written, every process compiles its own.

    Examples
    --------
    >>> warmup()
    """
    from subsetopt.kernels.coverage import gains, rises
    from subsetopt.kernels.matching import radix_sort
    from subsetopt.kernels.vectors import quantized

    for module in (gains, rises, radix_sort, quantized):
        module.compile_all()
    # A small problem that reaches every phase: the tolerance of float64 is far below its gaps.
    losses = np.random.default_rng(0).exponential(size=24)
    groups = np.arange(24) % 3
    plain = Problem(MeanMatching(losses), 5)
    bound = Problem(MeanMatching(losses), 5, groups=groups, quotas={0: 2}, costs=losses, capacity=9)
    design = Problem(SamplingDesign(np.full(24, 5 / 24), losses), 5)
    # With this many candidates the cube flies in several parts.
    many = Problem(SamplingDesign(np.full(1000, 0.005), np.arange(1000.0)), 5)
    vectors = losses.reshape(12, 2)
    uniform = Problem(VectorMatching(vectors), 3)
    weighted = Problem(VectorMatching(vectors, weights="nonnegative"), 1)
    # No subset lies in a band of width 0: the enumeration does not end in 200,000 nodes, and
    # the repair begins.
    scored = Problem(ScoredMatching(np.sqrt(losses), losses, 0.0), 5)
    covered = Problem(FacilityLocation(vectors), 3)
    similar = Problem(FacilityLocation(similarity=vectors @ vectors.T), 3)
    more = (scored, covered, similar, Problem(KCenter(vectors), 3))
    for spec in list_solvers():
        for problem in (plain, bound, design, many, uniform, weighted, *more):
            if set(spec.requires) == {"numba"} and spec.obstacle(problem) is None:
                work = 200_000 if spec.name == "lagrangian" else 2000
                solve(problem, spec.name, max_iterations=work, seed=0)
    for parallel in (False, True):
        list(select_many(np.stack([losses, losses + 1.0]), 5, seed=0, parallel=parallel))
