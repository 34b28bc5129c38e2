"""Many problems in one call: the same answers as one by one, in parallel where that is safe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from subsetopt.auto import opening_work
from subsetopt.budget import Deadline
from subsetopt.errors import ProblemError
from subsetopt.front import select, size_of, solve
from subsetopt.inputs import as_array
from subsetopt.judge import judge, judge_rows
from subsetopt.objectives import MeanMatching
from subsetopt.objectives.mean_matching import MeanMatchingRows
from subsetopt.problem import Problem
from subsetopt.seeding import Seed, entropies_from
from subsetopt.solution import Solution, Solutions
from subsetopt.solvers.base import RawResult
from subsetopt.status import StopReason

if TYPE_CHECKING:
    from subsetopt.solvers.swap import Start

__all__ = ["select_many", "solve_many"]

# How the solvers start that can search many problems together.
_STARTS: dict[str, Start] = {"auto": "random", "swap": "stratified"}


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
        solves run one after the other. With ``on_interrupt="return"`` the problems after the
        interrupted one are not solved: their status is NO_SOLUTION.

    Returns
    -------
    Solutions
        A sequence of solutions.
    """
    every = list(problems)
    for i, problem in enumerate(every):
        if not isinstance(problem, Problem):
            raise ProblemError(
                f"solve_many takes Problems, got {type(problem).__name__} at position {i}; for "
                "loss vectors use select_many."
            )
    solver = _joint_solver(keywords)
    together = [i for i, problem in enumerate(every) if solver and _is_plain(problem)]
    answers: list[Solution | None] = [None] * len(every)
    interrupted = False
    for i in sorted(set(range(len(every))) - set(together)):
        if interrupted:
            answers[i] = _unsolved(every[i])
            continue
        answer = answers[i] = solve(every[i], seed=_nth(seed, i), **keywords)
        interrupted = answer.stop_reason is StopReason.INTERRUPTED
    if not solver or not together:
        return Solutions(answers)
    objectives: list[Any] = [every[i].objective for i in together]
    joint = _solve_together(
        MeanMatchingRows.of_objectives(objectives),
        np.array([every[i].k for i in together]),
        solver,
        entropies_from(seed, len(every))[together],
        [_nth(seed, i) for i in together].__getitem__,
        parallel,
    )
    rows = {i: row for row, i in enumerate(together)}
    return Solutions(answers, lambda i: joint[rows[i]])


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
    losses = _rows(losses)
    solver = _joint_solver(keywords)
    if not solver:
        answers: list[Solution | None] = []
        interrupted = False
        for i, row in enumerate(losses):
            if interrupted:
                objective = MeanMatching(row)
                answer = _unsolved(Problem(objective, size_of(objective.n, k, rate)))
            else:
                answer = select(row, k, rate=rate, seed=_nth(seed, i), **keywords)
                interrupted = answer.stop_reason is StopReason.INTERRUPTED
            answers.append(answer)
        return Solutions(answers)
    if isinstance(losses, np.ndarray) and losses.ndim == 2 and losses.size:
        rows, n = losses.shape
        size = Problem(MeanMatching(losses[0]), size_of(n, k, rate)).k
        if 0 < size < n:
            return _solve_together(
                MeanMatchingRows.of_matrix(losses),
                np.full(rows, size),
                solver,
                entropies_from(seed, rows),
                lambda i: _nth(seed, i),
                parallel,
            )
    # Copies, since answers are made after the caller may have changed the losses.
    objectives = [MeanMatching(as_array(row, "losses").copy()) for row in losses]
    problems = [Problem(o, size_of(o.n, k, rate)) for o in objectives]
    return solve_many(problems, seed=seed, parallel=parallel, **keywords)


def _joint_solver(keywords: dict[str, Any]) -> str | None:
    """Return the solver if it can search many problems together and no other keyword is given."""
    solver = keywords.get("solver", "auto")
    on_interrupt = keywords.get("on_interrupt", "raise")
    plain = isinstance(on_interrupt, str) and on_interrupt == "raise"
    alone = plain and set(keywords) <= {"solver", "on_interrupt"} and isinstance(solver, str)
    return solver if alone and solver in _STARTS else None


def _rows(losses: ArrayLike | Iterable[ArrayLike]) -> NDArray[Any] | list[ArrayLike]:
    """Return loss vectors as an array or a list of them."""
    if isinstance(losses, np.ndarray) and losses.ndim:
        return losses
    try:
        return list(losses)  # type: ignore[arg-type]
    except TypeError:
        raise ProblemError(
            "losses must be an array of shape (batch, n) or a list of vectors, got "
            f"{type(losses).__name__}."
        ) from None


def _unsolved(problem: Problem) -> Solution:
    """Return the answer to a problem that an interrupt left."""
    raw = RawResult(None, stop_reason=StopReason.INTERRUPTED)
    return judge(problem, raw, "none", Deadline(), None)


def _nth(seed: Seed, i: int) -> Seed:
    """Return the seed of problem i; None and a Generator serve every problem."""
    if seed is None or isinstance(seed, np.random.Generator):
        return seed
    return (*seed, i) if isinstance(seed, Sequence) else (seed, i)


def _is_plain(problem: Problem) -> bool:
    """Whether a problem is mean matching without constraints or base weights, with a choice."""
    return (
        type(problem.objective) is MeanMatching
        and problem.objective.base_weights is None
        and not problem.constrained
        and problem.cardinality == "exact"
        and 0 < problem.k < problem.n
    )


def _solve_together(
    objectives: MeanMatchingRows,
    sizes: NDArray[np.int64],
    solver: str,
    entropies: NDArray[np.uint64],
    seed: Callable[[int], Seed],
    parallel: bool,
) -> Solutions:
    """Search all rows at once; solve one by one those that do not come to a proof."""
    # Imported here, since it loads Numba, which importing the package must not.
    from subsetopt.solvers.matching.many import MatchingTable

    clock = Deadline()
    work = opening_work(objectives.lengths) if solver == "auto" else None
    table = MatchingTable(objectives, sizes, _STARTS[solver])
    raw = table.search(entropies, work, parallel=parallel)

    def alone(i: int) -> Solution:
        return solve(Problem(objectives[i], int(sizes[i])), solver, seed=seed(i))

    return judge_rows(raw, objectives, alone, clock)
