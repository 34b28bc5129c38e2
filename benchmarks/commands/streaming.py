"""Training on a stream that another process serves, with the losses that it has recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.harness.command import command
from benchmarks.harness.options import numbers
from benchmarks.harness.output import Result, bar
from subsetopt import OptionError

__all__ = ["streaming"]

_UNIFORM, _CLAIMED = "uniform", "balanced, recorded"


@command
def streaming(
    hours: Annotated[int, typer.Option(help="Length of the stream, and updates.")] = 600,
    impressions: Annotated[int, typer.Option(help="Impressions per hour.")] = 256,
    k: Annotated[int, typer.Option(help="Impressions per hour that are trained on.")] = 26,
    delay: Annotated[int, typer.Option(help="Hours until an outcome is known.")] = 24,
    seeds: Annotated[int, typer.Option(help="Streams per method.")] = 5,
    first_seed: Annotated[int, typer.Option(help="The seed of the first stream.")] = 0,
    rates: Annotated[
        str | None, typer.Option(help="Learning rates; default: each method's own.")
    ] = None,
    methods: Annotated[
        str | None, typer.Option(help="Semicolon-separated; default all, and always uniform.")
    ] = None,
) -> Result:
    """Train on everything, on a tenth, and on a tenth chosen by what serving has recorded."""
    from benchmarks.harness.streaming.methods import METHODS

    known = {method.name: method for method in METHODS}
    wanted = list(known) if methods is None else [name.strip() for name in methods.split(";")]
    for name in wanted:
        if name not in known:
            raise OptionError(f"no method named {name!r}. Known: {'; '.join(known)}.")
    chosen = [known[name] for name in dict.fromkeys([_UNIFORM, *wanted])]
    settings = {"hours": hours, "impressions": impressions, "k": k, "delay": delay,
                "seeds": f"{first_seed} to {first_seed + seeds - 1}"}  # fmt: skip
    result = Result("streaming", "A stream that another process serves", settings)
    plan = [(method, lr) for method in chosen for lr in (numbers(rates) if rates else [method.lr])]
    runs = _runs(plan, range(first_seed, first_seed + seeds), hours, impressions, delay, k)
    _table(result, plan, runs, hours)
    _claim(result, plan, runs)
    return result


def _runs(
    plan: Sequence[tuple[Any, float]], seeds: range, hours: int, impressions: int, delay: int,
    k: int,
) -> list[list[Any]]:  # fmt: skip
    """Return the runs of every method and learning rate, one per seed."""
    from benchmarks.harness.streaming.clicks import Clicks
    from benchmarks.harness.streaming.serving import ServingProcess
    from benchmarks.harness.streaming.training import train
    from subsetopt_torch.experiment.comparison import torch_threads

    streams = [Clicks(seed, hours, impressions) for seed in seeds]
    runs: list[list[Any]] = []
    with torch_threads(1), ServingProcess() as serving, bar() as progress:
        task = progress.add_task("", total=len(plan) * len(streams))
        for method, lr in plan:
            runs.append([])
            for stream in streams:
                progress.update(task, description=method.name)
                runs[-1].append(train(method, stream, serving, delay=delay, k=k, lr=lr))
                progress.advance(task)
    return runs


def _table(
    result: Result, plan: Sequence[tuple[Any, float]], runs: Sequence[Sequence[Any]], hours: int
) -> None:
    uniform = _uniform(plan, runs)
    rows = []
    for (method, lr), of_seeds in zip(plan, runs, strict=True):
        excess = 1e3 * _excess(of_seeds)
        units = np.mean([run.scored + 3 * run.trained for run in of_seeds]) / hours
        better = int((excess < 1e3 * uniform).sum())
        rows.append([
            method.name, lr, f"{np.mean([run.trained for run in of_seeds]) / hours:.1f}",
            f"{units:.0f}", f"{np.mean([run.log_loss() for run in of_seeds]):.4f}",
            f"{excess.mean():.2f}", f"{excess.min():.2f} to {excess.max():.2f}",
            f"{excess.mean() / (1e3 * uniform).mean():.2f}", f"{better} of {len(of_seeds)}",
        ])  # fmt: skip
    columns = ("method", "learning rate", "trained per hour", "units per hour", "log loss",
               "excess, 1e-3", "over seeds", "of uniform's", "below uniform's")  # fmt: skip
    result.table("Predictions of the later half of the stream, before training", columns, rows)
    result.notes.append(
        "The log loss is that of the predictions that were served. The excess is what it is above "
        "that of the model which the clicks were drawn from, on the same impressions. A unit is "
        "the forward pass of one impression in training; a backward pass counts as two. Serving "
        "is not counted, since it is there anyway."
    )


def _claim(result: Result, plan: Sequence[tuple[Any, float]], runs: Sequence[Any]) -> None:
    """Compare the recorded policy with the uniform tenth, seed by seed."""
    for (method, lr), of_seeds in zip(plan, runs, strict=True):
        if method.name == _CLAIMED and lr == method.lr:
            ratio = float((_excess(of_seeds) / _uniform(plan, runs)).max())
            what = f"{_CLAIMED}: excess over that of {_UNIFORM}, worst of {len(of_seeds)} seeds"
            result.check(what, ratio, 1.0, "", least=False)


def _excess(of_seeds: Sequence[Any]) -> np.ndarray:
    return np.array([run.excess() for run in of_seeds])


def _uniform(plan: Sequence[tuple[Any, float]], runs: Sequence[Any]) -> np.ndarray:
    """Return the excess of uniform at its best learning rate, of every seed."""
    found = [
        _excess(of_seeds)
        for (method, _), of_seeds in zip(plan, runs, strict=True)
        if method.name == _UNIFORM
    ]
    return min(found, key=lambda excess: float(excess.mean()))
