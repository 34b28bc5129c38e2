"""Commands that need torch, found by ``subsetopt`` through its entry-point group.

Torch is imported when a command runs, not when the command line lists what there is.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from subsetopt import SubsetOptError

if TYPE_CHECKING:
    from rich.console import Console

    from subsetopt_torch.experiment.comparison import Experiment, Run

__all__ = ["train"]

# typer reads these annotations at run time, which keeps them in a form that Python 3.10 knows.
_Policies = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--policy", help="Policy to compare; repeat for several. [default: obtf]"),
]
_PolicyOptions = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--policy-option",
        help="Option of a policy, policy:name=value; with one policy name=value. Repeat for more.",
    ),
]
_Folder = Optional[Path]  # noqa: UP045


def train(
    data: Annotated[str, typer.Option(help="Data set: digits or mnist.")] = "digits",
    policy: _Policies = None,
    policy_option: _PolicyOptions = None,
    rate: Annotated[float, typer.Option(help="Fraction of each batch to train on.")] = 0.1,
    seeds: Annotated[int, typer.Option(help="Number of seeds.")] = 3,
    first_seed: Annotated[int, typer.Option(help="The first seed.")] = 0,
    epochs: Annotated[int, typer.Option(help="Passes over the training set.")] = 30,
    batch_size: Annotated[int, typer.Option(help="Samples per batch.")] = 128,
    lr: Annotated[float, typer.Option(help="Learning rate of SGD.")] = 0.1,
    solver: Annotated[str, typer.Option(help="Solver of the policies.")] = "auto",
    time_limit: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Seconds per selection. [default: a work limit, which reproduces]"),
    ] = None,
    data_dir: Annotated[
        _Folder, typer.Option(help="Folder of the data sets. [default: $SUBSETOPT_DATA]")
    ] = None,
    out: Annotated[
        _Folder, typer.Option(help="Folder for results. [default: runs/train-<data>]")
    ] = None,
    threads: Annotated[
        int, typer.Option(help="Threads of torch; for batches this small one is the best.")
    ] = 1,
) -> None:
    """Train a small network with selected samples, against full batches and uniform choice.

    The OBTF paper's network (two hidden layers of 256, ReLU, SGD), every method with the same
    start, the same batches and the same number of steps. Prints a table; writes results.json (after
    every run), accuracy.png, and a picture of what a policy learned on the way where it keeps that.
    """
    _require({"torch": "torch", "matplotlib": "bench"})
    from rich.console import Console

    from subsetopt_torch.experiment.comparison import (
        Experiment,
        Settings,
        check_threads,
        torch_threads,
    )
    from subsetopt_torch.experiment.data import check_data_name, load_data
    from subsetopt_torch.experiment.pictures import write_accuracy, write_policy_curves
    from subsetopt_torch.experiment.policy_options import parse_policy_options
    from subsetopt_torch.experiment.report import check_writable, table, write_json

    check_data_name(data)
    check_threads(threads)
    policies = tuple(policy or ("obtf",))
    options = parse_policy_options(policy_option or (), tuple(dict.fromkeys(policies)))
    settings = Settings(
        policies, rate, seeds, epochs, batch_size, lr, solver, time_limit, options, first_seed
    )
    folder = out or Path("runs") / f"train-{data}"
    experiment = Experiment(settings, load_data(data, data_dir))
    check_writable(folder)
    console = Console()
    results = folder / "results.json"
    with torch_threads(threads):
        try:
            _with_progress(experiment, console, lambda: write_json(experiment, results))
        except KeyboardInterrupt:
            if experiment.runs:
                print(
                    f"subsetopt: {results} has the runs that ended: {len(experiment.runs)} of "
                    f"{settings.seeds * len(settings.methods)}",
                    file=sys.stderr,
                )
            raise
    pictures = [folder / "accuracy.png", *write_policy_curves(experiment, folder)]
    write_accuracy(experiment, pictures[0])
    console.print(table(experiment))
    console.print(f"Written: {', '.join(map(str, [results, *pictures]))}", soft_wrap=True)


def _with_progress(experiment: Experiment, console: Console, on_end: Callable[[], object]) -> None:
    """Run an experiment under a live progress bar, which tells of compiling, too."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from subsetopt.kernels.progress import watched

    settings = experiment.settings
    total = experiment.steps_per_run * settings.seeds * len(settings.methods)
    columns = (
        TextColumn("{task.description:<30}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} steps"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=total)

        def on_run(method: str, seed: int) -> Callable[[Run], None]:
            progress.update(task, description=f"{method}, seed {seed}")
            return lambda run: progress.advance(task)

        def on_kernel(kernels: int) -> None:
            progress.update(task, description=f"compiling kernels, {kernels} done")

        with watched(on_kernel) if console.is_terminal else nullcontext():
            experiment.execute(on_run, on_end)


def _require(extras: Mapping[str, str]) -> None:
    """Raise if a module is missing, with the one command that installs all that are.

    ``extras`` has the extra that installs each module; the last one installs the others, too.
    """
    missing = [module for module in extras if importlib.util.find_spec(module) is None]
    if missing:
        raise SubsetOptError(
            f"the command 'train' needs {' and '.join(missing)}, which "
            f"{'are' if len(missing) > 1 else 'is'} not installed: "
            f"pip install 'subsetopt[{extras[missing[-1]]}]'"
        )
