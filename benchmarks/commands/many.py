"""Claim 6: many problems in one call."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer

import subsetopt as so
from benchmarks.harness.command import command
from benchmarks.harness.output import Result, ms, us

Way = Callable[[], Any]


@command
def many(
    batch: Annotated[int, typer.Option(help="Problems per call.")] = 1024,
    n: Annotated[int, typer.Option(help="Losses per problem.")] = 128,
    repeats: Annotated[int, typer.Option(help="Calls of each kind, in turn.")] = 15,
) -> Result:
    """Claim 6: select_many against the Python loop and against its own single thread."""
    so.warmup()
    settings = {"batch": batch, "n": n, "rate": 0.1, "repeats": repeats}
    result = Result("many", "Many problems in one call", settings)
    losses = np.random.default_rng(0).exponential(size=(batch, n)).astype(np.float32)
    k = max(1, int(0.1 * n + 0.5))
    times = _in_turn(_ways(losses, k), repeats)
    middle = {name: median(t) for name, t in times.items()}
    rows = [[name, ms(t), us(t / batch)] for name, t in middle.items()]
    result.table("Median times", ("what", "in all", "per problem"), rows)
    _check(result, middle)
    same = all(
        np.array_equal(a.indices, so.select(losses[i], k, seed=(0, i)).indices)
        for i, a in enumerate(so.select_many(losses, k, seed=0))
    )
    result.check("same answers as one by one", float(same), 1.0, "(yes)", least=True)
    return result


def _ways(losses: Any, k: int) -> dict[str, Way]:
    return {
        "loop of select": lambda: [so.select(row, k, seed=(0, i)) for i, row in enumerate(losses)],
        "select_many": lambda: so.select_many(losses, k, seed=0),
        "select_many, every answer looked at": lambda: list(so.select_many(losses, k, seed=0)),
        "select_many, one thread": lambda: so.select_many(losses, k, seed=0, parallel=False),
    }


def _in_turn(ways: dict[str, Way], repeats: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - start)
    return times


def _check(result: Result, middle: dict[str, float]) -> None:
    loop, call = middle["loop of select"], middle["select_many"]
    looked = middle["select_many, every answer looked at"]
    result.check("loop / select_many", loop / call, 4.0, "x", least=True)
    result.check("loop / select_many, every answer looked at", loop / looked, 4.0, "x", least=True)
    threads = middle["select_many, one thread"] / call
    result.check("one thread / all threads", threads, 1.6, "x", least=True)
    result.notes.append(
        "The answers of select_many are verified in the call; they are made when looked at."
    )
