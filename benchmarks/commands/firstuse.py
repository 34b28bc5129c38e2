"""The time from a fresh install to a first answer, most of which is compiling."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from benchmarks.harness.command import command
from benchmarks.harness.output import Result, bar

__all__ = ["firstuse"]

_USES = "select,obtf,balanced,gradient-matching"

# Prints the seconds on the clock and of the processor that a first use takes. Imports are not
# counted: they are the same with and without compiled kernels.
_CHILD = """
import json, sys, time
import numpy as np, subsetopt as so
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
print(json.dumps([time.perf_counter() - clock, time.process_time() - processor]))
"""


@command
def firstuse(
    uses: Annotated[
        str, typer.Option(help="'select', and policies for a first step, comma-separated.")
    ] = _USES,
    repeats: Annotated[int, typer.Option(help="Fresh installs of each; the least counts.")] = 1,
    against: Annotated[
        Path | None, typer.Option(help="Another checkout to measure in turn, for the ratio.")
    ] = None,
) -> Result:
    """Time a first answer and first steps, with an empty folder of kernels and with a full one."""
    settings = {"uses": uses, "repeats": repeats, "against": against.name if against else None}
    result = Result("firstuse", "From a fresh install to a first answer", settings)
    trees = {"this": sys.path} | ({against.name: _paths(against)} if against else {})
    names = [name.strip() for name in uses.split(",")]
    rows, ratios = [], []
    with bar() as progress:
        task = progress.add_task("", total=len(names) * repeats)
        for use in names:
            progress.update(task, description=use)
            what = "so.select, n = 128" if use == "select" else f"first step of {use}"
            runs: dict[str, list[tuple[_Times, _Times]]] = {tree: [] for tree in trees}
            for _ in range(repeats):
                for tree, paths in trees.items():
                    runs[tree].append(_fresh(use, paths))
                progress.advance(task)
            best = {tree: _least(of_tree) for tree, of_tree in runs.items()}
            for tree, (cold, warm) in best.items():
                checkout = [tree] if against else []
                rows.append(
                    [what, *checkout, cold.kernels, f"{cold.clock:.1f}",
                     f"{cold.processor:.1f}", f"{warm.clock:.2f}"]
                )  # fmt: skip
            if against:
                ours, theirs = best["this"][0], best[against.name][0]
                ratios.append(
                    [what, f"{ours.clock / theirs.clock:.2f}",
                     f"{ours.processor / theirs.processor:.2f}"]
                )  # fmt: skip
    columns = ("kernels compiled", "s", "processor, s", "s, kernels on disk")
    checkouts = ("checkout",) if against else ()
    result.table("Seconds from the call to its return", ("first use", *checkouts, *columns), rows)
    if against:
        title = f"Time here, as a part of that in {against.name}"
        result.table(title, ("first use", "s", "processor, s"), ratios)
    result.notes.append(
        "Every row is a process of its own with an empty folder for compiled kernels, and a second "
        "process that finds them there. Imports are not counted. On a busy machine the time of the "
        "processor says more than that on the clock."
    )
    return result


class _Times(NamedTuple):
    """What a first use takes: seconds, and how many compiled kernels it leaves on disk."""

    clock: float
    processor: float
    kernels: int


def _least(runs: list[tuple[_Times, _Times]]) -> tuple[_Times, _Times]:
    """Return the least times of all runs, without compiled kernels and with them."""
    cold, warm = (
        _Times(*(min(times) for times in zip(*(run[kind] for run in runs), strict=True)))
        for kind in (0, 1)
    )
    return cold, warm


def _paths(checkout: Path) -> list[str]:
    """Return where a process finds the packages of a checkout, before those of this one."""
    if not (checkout / "subsetopt").is_dir():
        raise typer.BadParameter(f"{checkout} has no folder subsetopt.", param_hint="--against")
    return [str(checkout.resolve()), str((checkout / "adapters").resolve()), *sys.path]


def _fresh(use: str, paths: list[str]) -> tuple[_Times, _Times]:
    """Return what a first use takes without compiled kernels, and with them."""
    with tempfile.TemporaryDirectory() as folder:
        first, second = (_child(use, paths, folder) for _ in range(2))
    return first, second


def _child(use: str, paths: list[str], folder: str) -> _Times:
    """Return what a first use takes in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, use],
        env={**os.environ, "NUMBA_CACHE_DIR": folder, "PYTHONPATH": os.pathsep.join(paths)},
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return _Times(*json.loads(done.stdout), sum(1 for _ in Path(folder).rglob("*.nbc")))
