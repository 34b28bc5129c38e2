"""Many problems in one call: the same answers as one by one, in parallel where that is safe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from subsetopt.auto import opening_work
from subsetopt.budget import Deadline
from subsetopt.front import select, size_of, solve
from subsetopt.inputs import as_carray
from subsetopt.objectives import MeanMatching
from subsetopt.problem import Problem
from subsetopt.seeding import Seed, entropies_from
from subsetopt.solution import Solution
from subsetopt.status import Status, StopReason

__all__ = ["Solutions", "select_many", "solve_many"]

# Rows that are sorted together. Longer ones are sorted on their own, another way
# (`ascending` in the pool), and equal values must come in the order they would have alone.
_SHORT = 1024


class Solutions(Sequence[Solution]):
    """The answers of many solves, in order; each is made when it is first looked at.

    Examples
    --------
    >>> answers = select_many([[1.0, 2.0, 3.0], [5.0, 5.0]], 1, seed=0)
    >>> len(answers), answers[1].objective
    (2, 0.0)
    """

    def __init__(
        self, made: list[Solution | None], make: Callable[[int], Solution] | None = None
    ) -> None:
        self._made = made
        self._make = make

    def __len__(self) -> int:
        return len(self._made)

    @overload
    def __getitem__(self, index: int) -> Solution: ...

    @overload
    def __getitem__(self, index: slice) -> list[Solution]: ...

    def __getitem__(self, index: int | slice) -> Solution | list[Solution]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        made = self._made[index]
        if made is None:
            assert self._make is not None
            made = self._made[index] = self._make(range(len(self))[index])
        return made

    def __iter__(self) -> Iterator[Solution]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"Solutions(n={len(self)})"


def solve_many(
    problems: Iterable[Problem], *, seed: Seed = None, parallel: bool = True, **keywords: Any
) -> Solutions:
    """Solve several problems; ``solve_many(P, seed=s)[i]`` equals ``solve(P[i], seed=(s, i))``.

    Parameters
    ----------
    problems
        The problems.
    seed
        None for fresh entropy, a nonnegative int, or a sequence of them.
    parallel
        Whether unconstrained mean matching may run on all cores. A forked child never does.
    keywords
        As for :func:`subsetopt.solve`; a ``time_limit`` holds for each problem, and makes the
        solves run one after the other.

    Returns
    -------
    Solutions
        A sequence of solutions.
    """
    every = list(problems)
    solver = _lane_solver(keywords)
    lane = [i for i, p in enumerate(every) if solver and _takes_the_lane(p)]
    made: list[Solution | None] = [
        None if solver and _takes_the_lane(p) else solve(p, seed=_nth(seed, i), **keywords)
        for i, p in enumerate(every)
    ]
    if not solver or not lane:
        return Solutions(made)
    places = {i: place for place, i in enumerate(lane)}
    entropies = entropies_from(seed, len(every))[lane]
    seeds = [_nth(seed, i) for i in lane]
    pools = _Lane.of_problems([every[i] for i in lane], solver, entropies, seeds.__getitem__)
    answers = pools.run(solver, parallel)
    return Solutions(made, lambda i: answers[places[i]])


def select_many(
    losses: ArrayLike | Iterable[ArrayLike],
    k: int | None = None,
    *,
    rate: float | None = None,
    seed: Seed = None,
    parallel: bool = True,
    **keywords: Any,
) -> Solutions:
    """Select from several loss vectors; ``select_many(L, k, seed=s)[i]`` is ``select(L[i], k)``.

    Parameters
    ----------
    losses
        An array of shape (batch, n), or a ragged list of vectors.
    k, rate
        Number, or fraction, of samples to choose from each vector.
    seed
        None for fresh entropy, a nonnegative int, or a sequence of them; vector i is solved with
        ``(seed, i)``.
    parallel
        Whether the vectors may be solved on all cores. A forked child never does.
    keywords
        As for :func:`subsetopt.select`. With any but ``solver="auto"`` or ``"swap"``, the vectors
        are solved one after the other.

    Returns
    -------
    Solutions
        A sequence of solutions.
    """
    solver = _lane_solver(keywords)
    if not solver:
        return Solutions(
            [
                select(row, k, rate=rate, seed=_nth(seed, i), **keywords)
                for i, row in enumerate(losses)  # type: ignore[arg-type]
            ]
        )
    if isinstance(losses, np.ndarray) and losses.ndim == 2 and 0 < losses.shape[1] < _SHORT:
        size = size_of(losses.shape[1], k, rate)
        for row in losses[:1]:
            Problem(MeanMatching(row), size)  # raises what is wrong with size or dtype
        if losses.shape[0] and 0 < size < losses.shape[1]:
            lane = _Lane.of_matrix(losses, size, seed)
            return lane.run(solver, parallel)
    objectives = [MeanMatching(row) for row in losses]  # type: ignore[union-attr]
    problems = [Problem(o, size_of(o.n, k, rate)) for o in objectives]
    return solve_many(problems, seed=seed, parallel=parallel, **keywords)


def _lane_solver(keywords: dict[str, Any]) -> str | None:
    """Return the solver when the keywords leave the plain, parallel way open."""
    solver = keywords.get("solver", "auto")
    plain = set(keywords) <= {"solver"} and isinstance(solver, str)
    return solver if plain and solver in ("auto", "swap") else None


def _nth(seed: Seed, i: int) -> Seed:
    """Return the seed of problem i; without a fixed seed, one is as good as another."""
    if seed is None or isinstance(seed, np.random.Generator):
        return seed
    return (*seed, i) if isinstance(seed, Sequence) else (seed, i)


def _unsorted(lengths: NDArray[np.int64], solver: str) -> NDArray[np.bool_]:
    """Return which problems a plain solve begins on their losses as they come."""
    from subsetopt.solvers.swap import UNSORTED_ABOVE

    return (lengths > UNSORTED_ABOVE) & (solver == "auto")


def _takes_the_lane(problem: Problem) -> bool:
    """Whether a problem is plain mean matching with a choice to make."""
    return (
        type(problem.objective) is MeanMatching
        and not problem.constrained
        and problem.cardinality == "exact"
        and 0 < problem.k < problem.n
    )


@dataclass(frozen=True, eq=False)
class _Lane:
    """Plain mean-matching problems side by side, as the parallel kernel takes them."""

    values: NDArray[np.float64]
    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    means: NDArray[np.float64]
    scales: NDArray[np.float64]
    tolerances: NDArray[np.float64]
    entropies: NDArray[np.uint64]
    seed: Callable[[int], Seed]
    problem: Callable[[int], Problem]

    @classmethod
    def of_problems(
        cls,
        problems: list[Problem],
        solver: str,
        entropies: NDArray[np.uint64],
        seed: Callable[[int], Seed],
    ) -> _Lane:
        from subsetopt.solvers.matching.pool import (
            ascending,  # brings numba, which importing this must not
        )

        objectives = [cast(MeanMatching, p.objective) for p in problems]
        lengths = np.array([p.n for p in problems])
        unsorted = _unsorted(lengths, solver)
        return cls(
            np.concatenate([o.values for o in objectives]),
            np.concatenate(
                [
                    np.arange(o.n) if as_given else ascending(o)[1]
                    for o, as_given in zip(objectives, unsorted.tolist(), strict=True)
                ]
            ),
            np.concatenate([[0], np.cumsum(lengths)]),
            np.array([p.k for p in problems]),
            np.array([o.target for o in objectives]),
            np.array([o.scale for o in objectives]),
            np.array([o.tolerance for o in objectives]),
            entropies,
            seed,
            problems.__getitem__,
        )

    @classmethod
    def of_matrix(cls, losses: NDArray[Any], size: int, seed: Seed) -> _Lane:
        batch, n = losses.shape
        values = as_carray(np.asarray(losses, dtype=np.float64))
        with np.errstate(over="ignore", invalid="ignore"):
            scales = np.add.reduce(np.abs(values), axis=1) / n
        for row in np.flatnonzero(~np.isfinite(scales))[:1]:
            MeanMatching(losses[row])  # raises what is wrong with it
        unit = MeanMatching(losses[0])
        # The same arithmetic as MeanMatching's own, row by row.
        tolerances = np.maximum(unit.relative_tolerance * scales, unit.least_tolerance)
        return cls(
            values.ravel(),
            np.argsort(values, axis=1).ravel(),
            np.arange(batch + 1) * n,
            np.full(batch, size),
            np.add.reduce(values, axis=1) / n,
            scales,
            tolerances,
            entropies_from(seed, batch),
            lambda i: _nth(seed, i),
            lambda i: Problem(MeanMatching(losses[i]), size),
        )

    def run(self, solver: str, parallel: bool) -> Solutions:
        """Search all pools; those that do not reach their goal are solved again on their own."""
        from subsetopt.kernels.matching.many import search_many
        from subsetopt.kernels.matching.swap import STRATIFIED, UNIFORM
        from subsetopt.solvers.swap import CHUNK, GOAL_SHARE, default_work, unsorted_work

        clock = Deadline()
        count = self.sizes.size
        places = np.concatenate([[0], np.cumsum(self.sizes)])
        best = np.empty(int(places[-1]), dtype=np.int64)
        reached = np.zeros(count, dtype=np.bool_)
        bounds, spent = np.zeros(count), np.zeros(count, dtype=np.int64)
        lengths = np.diff(self.starts)
        unsorted = _unsorted(lengths, solver)
        limits = opening_work(lengths) if solver == "auto" else default_work(lengths)
        # What is not found before sorting is solved on its own.
        limits = np.where(unsorted, np.minimum(limits, unsorted_work(lengths, self.sizes)), limits)
        search_many(
            self.values, self.order, self.starts, self.sizes, places,
            self.sizes * self.means, self.sizes * self.tolerances, self.entropies, limits, best,
            reached, bounds, spent, CHUNK, GOAL_SHARE,
            np.full(count, UNIFORM if solver == "auto" else STRATIFIED), unsorted,
            parallel=parallel,
        )  # fmt: skip
        bounds /= self.sizes
        first = np.repeat(self.starts[:-1], self.sizes)
        chosen = _sorted_within(self.order[best + first], self.sizes)
        matched = self.values[chosen + first]
        reached &= _distinct(chosen, places, lengths)
        made: list[Solution | None] = [None] * count
        for i in np.flatnonzero(~reached).tolist():
            made[i] = solve(self.problem(i), solver, seed=self.seed(i))
        elapsed = clock.elapsed() / max(count, 1)

        def make(i: int) -> Solution:
            part = slice(places[i], places[i + 1])
            answer = self._judge(
                i, chosen[part], matched[part], float(bounds[i]), int(spent[i]), elapsed
            )
            if answer is None:
                return solve(self.problem(i), solver, seed=self.seed(i))
            return answer

        return Solutions(made, make)

    def _judge(
        self,
        i: int,
        chosen: NDArray[np.int64],
        matched: NDArray[np.float64],
        bound: float,
        spent: int,
        seconds: float,
    ) -> Solution | None:
        """Return an answer with everything recomputed as the front door does; None if unproved."""
        weights = np.full(chosen.size, 1.0 / chosen.size)
        objective = abs(float(self.means[i]) - float(weights @ matched))
        bound = min(bound, objective)
        if objective - bound > self.tolerances[i]:
            return None
        return Solution(
            chosen.copy(),
            weights,
            int(self.starts[i + 1] - self.starts[i]),
            objective,
            bound,
            Status.OPTIMAL,
            StopReason.TARGET,
            "swap",
            solve_time=seconds,
            iterations=spent,
            scale=float(self.scales[i]),
        )


def _sorted_within(chosen: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the chosen indices in ascending order within each problem."""
    if sizes.size and (sizes == sizes[0]).all():
        return np.sort(chosen.reshape(sizes.size, -1), axis=1).ravel()
    problems = np.repeat(np.arange(sizes.size), sizes)
    return chosen[np.lexsort((chosen, problems))]


def _distinct(
    chosen: NDArray[np.int64], places: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return for each problem whether its sorted indices are distinct and in range."""
    rising = np.ones(chosen.size, dtype=np.bool_)
    rising[1:] = chosen[1:] > chosen[:-1]
    rising[places[:-1]] = chosen[places[:-1]] >= 0
    last = chosen[places[1:] - 1] < lengths
    return np.logical_and.reduceat(rising, places[:-1]) & last
