"""Claim 7: no instance gives an infeasible, wrongly certified or crashed answer."""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Annotated

import numpy as np
import typer

import subsetopt as so
from benchmarks.harness.check import Instance
from benchmarks.harness.command import command
from benchmarks.harness.fuzz_cases import brute_force, draw
from benchmarks.harness.fuzz_questions import Question, ask
from benchmarks.harness.output import Result, bar, console

KINDS = ("crashed", "infeasible", "wrongly certified", "empty-handed")
_CHUNK = 500
_EVERY_BRUTE, _EVERY_OTHERS, _EVERY_TIMED = 50, 20, 100
_MAIN = ("swap", "exact", "auto")
_OTHERS = (
    "greedy", "random", "topk", "half-and-half", "nearest-mean", "frank-wolfe",
)  # fmt: skip
_SHOWN = 20
_BACKENDS = ("gurobi", "cpsat", "scip", "highs")
# These solvers find a subset wherever there is one.
_SURE = (*_MAIN, "exhaustive", "lagrangian")
# A backend gets this many seconds; small questions take milliseconds.
_BACKEND_LIMIT = 20.0
# Sums of float64 numbers may be off by this share of the largest that was added.
_ROUNDING = 1e-11

Failure = tuple[int, str, str, str]


@command
def fuzz(
    count: Annotated[int, typer.Option(help="Instances.")] = 100_000,
    seed: Annotated[int, typer.Option(help="Instance i is made from (seed, i).")] = 0,
    start: Annotated[int, typer.Option(help="The first i.")] = 0,
    backends: Annotated[
        int, typer.Option(help="The first so many questions also go to the MIP backends.")
    ] = 0,
    workers: Annotated[int, typer.Option(help="Processes; 0: one per core.")] = 0,
    only: Annotated[int | None, typer.Option(help="Show one instance and every answer.")] = None,
) -> Result:
    """Claim 7: random small instances, every answer compared with exhaustive search.

    Number i stands for a batch of losses, whose answers are compared with ``exhaustive``, and for a
    question with any objective and hostile numbers or constraints, whose subsets are all looked at.
    """
    if only is not None:
        raise typer.Exit(_show_one(seed, only, only < start + backends))
    so.warmup()
    workers = workers or os.cpu_count() or 1
    begin = time.perf_counter()
    tally, failures = _run(seed, start, count, workers, start + backends)
    seconds = time.perf_counter() - begin
    settings = {"count": count, "seed": seed, "start": start, "backends": backends,
                "processes": workers}  # fmt: skip
    result = Result("fuzz", "Fuzzing against exhaustive search", settings)
    _present(result, tally, failures, seconds, workers, seed)
    result.refuted = len(failures)
    return result


def check_range(
    seed: int, start: int, stop: int, backends: int = 0
) -> tuple[Counter[str], list[Failure]]:
    """Check instances start to stop - 1, those below ``backends`` by MIP backends, too.

    It runs in a process of its own.
    """
    tally: Counter[str] = Counter()
    failures: list[Failure] = []
    for i in range(start, stop):
        found, features = check_one(seed, i)
        more, parts, answers = check_question(seed, i, backends=i < backends)
        found += more
        tally.update([*features, *parts])
        tally.update(answers)
        tally["instances"] += 1
        tally.update(kind for _, kind, _ in found)
        failures += [(i, *failure) for failure in found]
    return tally, failures[:_SHOWN]


def check_one(seed: int, i: int) -> tuple[list[tuple[str, str, str]], list[str]]:
    """Return the failures (solver, kind, what) of one instance, and what it consisted of."""
    instance, features = draw(seed, i)
    try:
        problem = instance.problem()
        oracle = so.solve(problem, "exhaustive", time_limit=60.0)
    except Exception:
        return [("exhaustive", "crashed", traceback.format_exc(limit=-2))], features
    optimum = np.inf
    if oracle.status is not so.Status.INFEASIBLE:
        optimum = instance.residual(oracle.indices)
    found = _judge_oracle(instance, oracle, optimum, honest=i % _EVERY_BRUTE == 0)
    names = _MAIN + (_OTHERS if i % _EVERY_OTHERS == 0 else ())
    work = (None, 300, 20_000)[i % 3]
    limit = 0.002 if i % _EVERY_TIMED == 0 else None
    for name in names:
        found += _check_solver(instance, problem, name, optimum, work, limit, i)
    return found, [*features, "infeasible instance" if np.isinf(optimum) else "feasible instance"]


def check_question(
    seed: int, i: int, *, backends: bool = False
) -> tuple[list[tuple[str, str, str]], list[str], Counter[str]]:
    """Return the failures (solver, kind, what) of one question, its features, and the answers."""
    question = ask(seed, i)
    features = [f"question: {name}" for name in question.features]
    answers: Counter[str] = Counter()
    try:
        problem = question.problem()
    except so.ProblemError as error:
        refusal = "contradict" if "both name" in str(error) else "too large"
        return [], [f"question refused: {refusal}"], answers
    except Exception:
        return [("Problem", "crashed", traceback.format_exc(limit=-2))], features, answers
    rng = np.random.default_rng((seed, i, 2))
    start = question.warm_start(rng) if rng.random() < 0.2 else None
    failures = []
    for name in ("auto", *so.available_solvers(problem)):
        if name in _BACKENDS and not backends:
            continue
        limit = _BACKEND_LIMIT if name in _BACKENDS else None
        warm = start if name == "auto" or "warm_start" in _FEATURES[name] else None
        try:
            solution = so.solve(problem, name, limit, seed=i, warm_start=warm)
        except Exception:
            kind, what = "crashed", traceback.format_exc(limit=-2)
        else:
            kind, what = claims(question, solution, demanding=name in _SURE)
        answers["answers of MIP backends" if name in _BACKENDS else "answers"] += 1
        if kind:
            failures.append((name, kind, what))
    return failures, features, answers


_FEATURES = {spec.name: spec.features for spec in so.list_solvers()}


def claims(question: Question, solution: so.Solution, *, demanding: bool) -> tuple[str, str]:
    """Return the kind of failure and what is wrong with an answer, or two empty strings."""
    best = question.best
    possible = not np.isnan(best)
    if solution.status is so.Status.ERROR:
        return "infeasible", str(solution.extras.get("error"))
    if solution.status is so.Status.INFEASIBLE:
        return ("wrongly certified", f"INFEASIBLE, optimum {best!r}") if possible else ("", "")
    if not solution.has_solution:
        missing = demanding and possible
        what = f"{solution.status.name}, optimum {best!r}"
        return ("empty-handed", what) if missing else ("", "")
    if not question.feasible(solution.indices):
        return "infeasible", f"indices {solution.indices.tolist()}"
    value, sign = question.value(solution.indices), -1.0 if question.maximized else 1.0
    best = value if not possible or sign * (value - best) < 0.0 else best
    rounding = _ROUNDING * question.magnitude
    if abs(solution.objective - value) > rounding:
        return "wrongly certified", f"objective {solution.objective!r}, recomputed {value!r}"
    if sign * (solution.bound - best) > rounding:
        return "wrongly certified", f"bound {solution.bound!r} beyond the optimum {best!r}"
    slack = question.tolerance + rounding
    if solution.status is so.Status.OPTIMAL and sign * (value - best) > slack:
        return "wrongly certified", f"OPTIMAL at {value!r}, optimum {best!r}"
    return "", ""


def _judge_oracle(
    instance: Instance, oracle: so.Solution, optimum: float, *, honest: bool
) -> list[tuple[str, str, str]]:
    """Check the oracle itself: its subset always, its optimum now and then by other code."""
    if np.isfinite(optimum) and not instance.feasible(oracle.indices):
        return [("exhaustive", "infeasible", str(oracle.indices))]
    if honest and instance.values.size <= 9:
        truth = brute_force(instance)
        # Exhaustive search may stop at the first subset within tolerance.
        slack = instance.tolerance + instance.rounding
        if np.isinf(truth) != np.isinf(optimum) or optimum > truth + slack:
            return [("exhaustive", "wrongly certified", f"{optimum!r}, brute force {truth!r}")]
    return []


def _check_solver(
    instance: Instance, problem: so.Problem, name: str, optimum: float,
    work: int | None, limit: float | None, seed: int,
) -> list[tuple[str, str, str]]:  # fmt: skip
    try:
        if name in _OTHERS:
            if name not in so.available_solvers(problem):
                return []
            solution = so.solve(problem, name, seed=seed)
        else:
            iterations = None if limit is not None else work
            solution = so.solve(problem, name, limit, iterations, seed)
    except Exception:
        return [(name, "crashed", traceback.format_exc(limit=-2))]
    kind, what = verdict(instance, solution, optimum, demanding=name in _MAIN)
    return [(name, kind, what)] if kind else []


def verdict(
    instance: Instance, solution: so.Solution, optimum: float, *, demanding: bool
) -> tuple[str, str]:
    """Return the kind of failure and what is wrong, or two empty strings."""
    if solution.status is so.Status.ERROR:
        return "infeasible", str(solution.extras.get("error"))
    if solution.status is so.Status.INFEASIBLE:
        wrong = np.isfinite(optimum)
        return ("wrongly certified", f"INFEASIBLE, optimum {optimum!r}") if wrong else ("", "")
    if not solution.has_solution:
        missing = demanding and np.isfinite(optimum)
        return (
            ("empty-handed", f"{solution.status.name}, optimum {optimum!r}")
            if missing
            else ("", "")
        )
    if not instance.feasible(solution.indices):
        return "infeasible", f"indices {solution.indices.tolist()}"
    return _claims(instance, solution, optimum)


def _claims(instance: Instance, solution: so.Solution, optimum: float) -> tuple[str, str]:
    reached = instance.residual(solution.indices)
    # The oracle's optimum is one only within tolerance; a bound may exceed it by rounding alone.
    best = min(optimum, reached)
    slack = instance.rounding + 1e-6 * instance.tolerance
    if solution.bound > best + slack:
        return "wrongly certified", f"bound {solution.bound!r} above optimum {best!r}"
    if solution.status is so.Status.OPTIMAL and reached > best + instance.tolerance + slack:
        return "wrongly certified", f"OPTIMAL at {reached!r}, optimum {best!r}"
    if abs(solution.objective - reached) > slack:
        return "wrongly certified", f"objective {solution.objective!r}, recomputed {reached!r}"
    return "", ""


def _run(
    seed: int, start: int, count: int, workers: int, backends: int
) -> tuple[Counter[str], list[Failure]]:
    tally: Counter[str] = Counter()
    failures: list[Failure] = []
    chunks = ((a, min(a + _CHUNK, start + count)) for a in range(start, start + count, _CHUNK))
    with bar() as progress:
        task = progress.add_task("Fuzzing", total=count)
        for (a, b), part, broken in _results(seed, chunks, workers, backends):
            progress.update(task, advance=b - a, description=f"Fuzzing ({len(failures)} failed)")
            tally.update(part)
            failures += broken
    return tally, sorted(failures)


def _results(
    seed: int, chunks: Iterator[tuple[int, int]], workers: int, backends: int
) -> Iterator[tuple[tuple[int, int], Counter[str], list[Failure]]]:
    """Yield the outcome of every chunk; a process that dies is a crash, told with its chunk."""
    spawn = multiprocessing.get_context("spawn")
    while pending := list(islice(chunks, 50 * workers)):
        with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
            futures: dict[Future[tuple[Counter[str], list[Failure]]], tuple[int, int]] = {
                pool.submit(check_range, seed, a, b, backends): (a, b) for a, b in pending
            }
            for future in as_completed(futures):
                a, b = futures[future]
                try:
                    yield (a, b), *future.result()
                except BrokenProcessPool:
                    what = f"a process died; one of instances {a} to {b - 1}, or one of its pool"
                    yield (a, b), Counter({"crashed": 1}), [(a, "?", "crashed", what)]


def _present(
    result: Result, tally: Counter[str], failures: list[Failure], seconds: float, workers: int,
    seed: int,
) -> None:  # fmt: skip
    rate = tally["instances"] / seconds
    parts = {k: v for k, v in sorted(tally.items()) if k not in KINDS and k != "instances"}
    result.table("Instances", ("with", "count"), list(parts.items()))
    result.table(
        "Speed",
        ("instances", "seconds", "per second", "per second and process"),
        [[tally["instances"], seconds, rate, rate / workers]],
    )
    for kind in KINDS:
        result.check(f"{kind} answers", tally[kind], 0, "", least=False)
    for i, solver, kind, what in failures[:_SHOWN]:
        again = f"python -m benchmarks fuzz --seed {seed} --only {i}"
        result.notes.append(f"Instance {i}, {solver}, {kind}: {what.strip()}\n  {again}")


def _show_one(seed: int, i: int, backends: bool) -> int:
    """Print one instance as code, and its failures; return the exit code."""
    instance, features = draw(seed, i)
    console.print(f"Instance {i} of seed {seed}: {', '.join(features)}", highlight=False)
    losses = f"np.array({instance.losses.tolist()!r}, dtype=np.{instance.losses.dtype})"
    print(f"losses = {losses}\nk = {instance.k}\nkeywords = {instance.keywords!r}")
    problem = instance.problem()
    for name in ("exhaustive", *_MAIN):
        print(name, so.solve(problem, name, seed=i))
    question = ask(seed, i)
    console.print(f"Question {i}: {', '.join(question.features)}", highlight=False)
    print(f"data = {question.data!r}\nk = {question.k}\nkeywords = {question.keywords!r}")
    print(f"optimum {question.best!r}")
    found = check_one(seed, i)[0] + check_question(seed, i, backends=backends)[0]
    for solver, kind, what in found:
        print(f"{solver}: {kind}: {what}")
    print("no failure" if not found else f"{len(found)} failures")
    return int(bool(found))
