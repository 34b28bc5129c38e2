"""Claim 1: how long one call takes, against NumPy's own sort of the same array."""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

import subsetopt as so
from benchmarks.harness.command import command
from benchmarks.harness.output import Result, us
from benchmarks.harness.stats import quantiles
from subsetopt import instances
from subsetopt.kernels.matching import swap as kernel

_RATE = 0.1
# How often a fresh interpreter imports the package.
_IMPORTS = 7
_AT = (0.25, 0.5, 0.9, 0.99)
_COLUMNS = ("what", "n", "calls", "25%", "median", "90%", "99%")


@command
def latency(
    instances_: Annotated[int, typer.Option("--instances", help="Of n = 128.")] = 2000,
    large: Annotated[int, typer.Option(help="Instances of n = 1,000,000; 0: none.")] = 15,
) -> Result:
    """Claim 1: the whole call and the kernel alone, in microseconds."""
    so.warmup()
    settings = {"rate": _RATE, "family": "exponential float32", "instances": instances_}
    result = Result("latency", "Latency of one call", settings | {"instances of 1e6": large})
    measure(result, 128, instances_)
    measure(result, 4096, max(3, instances_ // 10))
    if large:
        measure(result, 1_000_000, large)
    measure_import(result)
    return result


def measure_import(result: Result) -> None:
    """Add how long ``import subsetopt`` takes where NumPy is loaded already."""
    code = (
        "import time, numpy.random; start = time.perf_counter(); import subsetopt; "
        "print(time.perf_counter() - start)"
    )
    runs = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(_IMPORTS)
    ]
    result.table("import subsetopt, after NumPy", ("runs", "least s"), [[len(runs), min(runs)]])
    result.check("import subsetopt, after NumPy", min(runs), 0.15, "s", least=False)


def measure(result: Result, n: int, count: int) -> None:
    """Add the table and the checks of one size."""
    k = max(1, int(_RATE * n + 0.5))
    calls, sorts, kernels = _interleaved(n, k, count)
    rows = [("so.select", calls), ("np.argsort", sorts)]
    if n == 128:
        rows.insert(1, ("kernel alone", kernels))
    result.table(
        f"n = {n:,}, k = {k:,}",
        _COLUMNS,
        [[name, n, len(t), *map(us, quantiles(t, _AT))] for name, t in rows],
    )
    _check(result, n, *(quantiles(t, (0.5,))[0] for t in (calls, sorts, kernels)))


def _check(result: Result, n: int, call: float, sort: float, search: float) -> None:
    if n == 128:
        result.check("n=128: so.select, median", call * 1e6, 60.0, "us", least=False)
        result.check("n=128: the kernel alone, median", search * 1e6, 20.0, "us", least=False)
    elif n == 4096:
        over = (call - 100e-6) / sort
        result.check("n=4,096: (select - 100 us) / argsort", over, 4.0, "x", least=False)
    else:
        result.check(f"n={n:,}: select / argsort", call / sort, 1.5, "x", least=False)


def _interleaved(n: int, k: int, count: int) -> tuple[list[float], list[float], list[float]]:
    """Time call, sort and kernel in turn on fresh instances, so that noise hits all alike."""
    calls: list[float] = []
    sorts: list[float] = []
    kernels: list[float] = []
    gc.collect()
    gc.disable()
    try:
        for seed in range(count):
            losses = instances.losses("exponential", n, k, seed)
            calls.append(_seconds(so.select, losses, k, seed=seed))
            sorts.append(_seconds(np.argsort, losses))
            if n == 128:
                kernels.append(kernel_seconds(losses, k, seed))
    finally:
        gc.enable()
    return calls, sorts, kernels


def _seconds(call: Callable[..., Any], *arguments: Any, **keywords: Any) -> float:
    start = time.perf_counter()
    call(*arguments, **keywords)
    return time.perf_counter() - start


def kernel_seconds(losses: NDArray[Any], k: int, seed: int) -> float:
    """Return the time inside the search kernel during one solve by swap."""
    inside = 0.0
    search = kernel.search

    def timed(*arguments: Any) -> int:
        nonlocal inside
        start = time.perf_counter()
        outcome: int = search(*arguments)
        inside += time.perf_counter() - start
        return outcome

    kernel.search = timed  # type: ignore[assignment]
    try:
        so.select(losses, k, solver="swap", seed=seed)
    finally:
        kernel.search = search
    return inside
