"""The time from a fresh install to a first answer, most of which is compiling."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import Annotated

import typer

from benchmarks.harness.command import command
from benchmarks.harness.output import Result, bar

__all__ = ["firstuse"]

_USES = "select,obtf,balanced,gradient-matching"

# Prints the seconds on the clock and of the processor that a first use takes, and how many kernels
# it compiled. Imports are not counted: they are the same with and without compiled kernels.
_CHILD = """
import json, sys, time
import numpy as np, subsetopt as so
from subsetopt.kernels.progress import WATCH
policy = sys.argv[1]
if policy == "select":
    losses = np.random.default_rng(0).exponential(size=128)
    use = lambda: so.select(losses, k=13, seed=0)
else:
    import torch
    from subsetopt_torch import BatchSelector, SelectiveStep
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    loss_fn = torch.nn.CrossEntropyLoss(reduction="none")
    selector = BatchSelector(policy, rate=0.1, seed=0)
    step = SelectiveStep(model, loss_fn, torch.optim.SGD(model.parameters(), lr=0.1), selector)
    x, y = torch.rand(128, 64), torch.randint(0, 10, (128,))
    use = lambda: step(x, y, ids=torch.arange(128))
clock, processor = time.perf_counter(), time.process_time()
use()
print(json.dumps([time.perf_counter() - clock, time.process_time() - processor, WATCH.kernels]))
"""


@command
def firstuse(
    uses: Annotated[
        str, typer.Option(help="'select', and policies for a first step, comma-separated.")
    ] = _USES,
    repeats: Annotated[int, typer.Option(help="Fresh installs of each; the least counts.")] = 1,
) -> Result:
    """Time a first answer and first steps, with an empty folder of kernels and with a full one."""
    settings = {"uses": uses, "repeats": repeats}
    result = Result("firstuse", "From a fresh install to a first answer", settings)
    names = [name.strip() for name in uses.split(",")]
    rows = []
    with bar() as progress:
        task = progress.add_task("", total=len(names))
        for use in names:
            progress.update(task, description=use)
            runs = [_fresh(use) for _ in range(repeats)]
            cold, warm = (min(run[kind] for run in runs) for kind in (0, 1))
            what = "so.select, n = 128" if use == "select" else f"first step of {use}"
            rows.append([what, int(cold[2]), f"{cold[0]:.1f}", f"{cold[1]:.1f}", f"{warm[0]:.2f}"])
            progress.advance(task)
    columns = ("first use", "kernels compiled", "s", "processor, s", "s, kernels on disk")
    result.table("Seconds from the call to its return", columns, rows)
    result.notes.append(
        "Every row is a process of its own with an empty folder for compiled kernels, and a second "
        "process that finds them there. Imports are not counted."
    )
    return result


def _fresh(use: str) -> tuple[list[float], list[float]]:
    """Return what a first use prints without compiled kernels, and with them."""
    with tempfile.TemporaryDirectory() as folder:
        first, second = (_child(use, folder) for _ in range(2))
    return first, second


def _child(use: str, folder: str) -> list[float]:
    """Return what a first use prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, use],
        env={**os.environ, "NUMBA_CACHE_DIR": folder, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    measured: list[float] = json.loads(done.stdout)
    return measured
