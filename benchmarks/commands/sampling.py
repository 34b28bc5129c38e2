"""Choosing over the data set before anything is loaded: what it costs, and what it does."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.harness.command import command
from benchmarks.harness.options import RUNS, DataDir, Out, Save, integers, numbers
from benchmarks.harness.output import RESULTS, Result, bar, ms

POLICIES = ("uniform", "online-batch", "prioritized")
_LR = 0.1
_POINTS = 12
_METHOD_CARDS = Path(__file__).parents[2] / "docs" / "methods"
# The accuracy (seeds, points) of each (noise, policy).
Curves = dict[tuple[float, str], Any]


@command
def sampling(
    sizes: Annotated[str, typer.Option(help="Samples of the timed data sets.")] = "60000,1000000",
    batch: Annotated[int, typer.Option(help="Samples per batch when timed.")] = 128,
    batches: Annotated[int, typer.Option(help="Batches timed of each kind.")] = 200,
    data: Annotated[str, typer.Option(help="What to train on: digits or mnist.")] = "digits",
    k: Annotated[int, typer.Option(help="Samples per batch when training.")] = 13,
    steps: Annotated[int, typer.Option(help="Updates of each run.")] = 2200,
    noise: Annotated[str, typer.Option(help="Shares of random training labels.")] = "0,0.2",
    seeds: Annotated[int, typer.Option(help="Runs of each kind.")] = 5,
    data_dir: DataDir = None,
    out: Out = RUNS,
    save: Save = False,
) -> Result:
    """Cost per batch of the batch sampler, and training with it on clean and on noisy labels."""
    settings = {"batch": batch, "batches": batches, "data": data, "k": k, "steps": steps,
                "lr": _LR, "seeds": seeds}  # fmt: skip
    result = Result("sampling", "Choosing over the data set before loading", settings)
    costs = {(n, p): cost(n, p, batch, batches) for n in integers(sizes) for p in POLICIES}
    rows = [[f"{n:,}", name, *map(ms, parts), ms(sum(parts))] for (n, name), parts in costs.items()]
    result.table("Median time per batch", ("samples", "policy", "choose", "observe", "sum"), rows)
    for (n, name), parts in costs.items():
        if n == 60_000:
            what = f"{name}: choose and observe, {n:,} samples"
            result.check(what, 1e3 * sum(parts), 1.0, "ms", least=False)
    curves = train(data, data_dir, numbers(noise), k, steps, seeds)
    _accuracy_table(result, curves)
    for folder in (out, RESULTS, _METHOD_CARDS) if save else (out,):
        folder.mkdir(parents=True, exist_ok=True)
        picture(curves, data, k, _marks(steps), folder / f"sampling-{data}.png")
    return result


def cost(n: int, policy: str, batch: int, batches: int) -> tuple[float, float]:
    """Return the median seconds to choose a batch, and to learn from its losses."""
    import subsetopt_torch as st

    rng = np.random.default_rng(0)
    sampler = st.SubsetBatchSampler(n, policy, batch, seed=0)
    if policy != "uniform":
        sampler.refresh(rng.exponential(size=n))
    chosen, learned = [], []
    start = time.perf_counter()
    for number, ids in enumerate(sampler):
        middle = time.perf_counter()
        sampler.observe(ids, rng.exponential(size=len(ids)))
        end = time.perf_counter()
        if number:  # the first batch sorts the data set and is not timed
            chosen.append(middle - start)
            learned.append(end - middle)
        if number == batches:
            break
        start = time.perf_counter()
    return float(np.median(chosen)), float(np.median(learned))


def train(
    data: str, data_dir: Path | None, noise: Sequence[float], k: int, steps: int, seeds: int
) -> Curves:
    """Return test accuracy at the marks of every run."""
    from subsetopt_torch.experiment.comparison import torch_threads
    from subsetopt_torch.experiment.data import load_data

    found = load_data(data, data_dir)
    curves: Curves = {}
    with torch_threads(1), bar() as progress:
        task = progress.add_task("", total=len(noise) * len(POLICIES) * seeds)
        for share in noise:
            for policy in POLICIES:
                runs = []
                for seed in range(seeds):
                    progress.update(task, description=f"{policy}, noise {share:g}")
                    runs.append(_run(found, share, policy, k, steps, seed))
                    progress.advance(task)
                curves[share, policy] = np.array(runs)
    return curves


def _run(data: Any, noise: float, policy: str, k: int, steps: int, seed: int) -> list[float]:
    import torch
    from torch import nn

    import subsetopt_torch as st
    from subsetopt_torch.experiment.comparison import make_model

    x, y = data.train_x, _noisy(data.train_y, data.classes, noise, seed)
    model = make_model(x.shape[1], data.classes, seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=_LR)
    options = {} if policy == "uniform" else {"steps": steps}
    sampler = st.SubsetBatchSampler(len(x), policy, k, seed=seed, policy_options=options)
    accuracy: list[float] = []
    marks = set(_marks(steps))
    done = 0
    while done < steps:
        for ids in sampler:
            rows = torch.tensor(ids)
            losses = nn.functional.cross_entropy(model(x[rows]), y[rows], reduction="none")
            optimizer.zero_grad()
            (losses * sampler.weights(rows)).sum().backward()
            optimizer.step()
            sampler.observe(rows, losses)
            done += 1
            if done in marks:
                with torch.no_grad():
                    right = model(data.test_x).argmax(1) == data.test_y
                accuracy.append(float(right.double().mean()))
            if done == steps:
                break
    return accuracy


def _marks(steps: int) -> list[int]:
    """Return the steps after which accuracy is measured."""
    return [max(1, round(steps * (i + 1) / _POINTS)) for i in range(_POINTS)]


def _noisy(labels: Any, classes: int, share: float, seed: int) -> Any:
    """Return labels, some of them drawn anew at random."""
    import torch

    rng = np.random.default_rng([seed, 7])
    wrong = torch.from_numpy(rng.random(len(labels)) < share)
    return torch.where(wrong, torch.from_numpy(rng.integers(0, classes, len(labels))), labels)


def _accuracy_table(result: Result, curves: Curves) -> None:
    rows = []
    for (share, policy), runs in curves.items():
        middle, last = 100 * runs[:, _POINTS // 4 - 1], 100 * runs[:, -1]
        rows.append([f"{share:.0%}", policy, f"{middle.mean():.1f}", f"{last.mean():.1f}",
                     f"{last.max() - last.min():.1f}"])  # fmt: skip
    columns = ("random labels", "policy", "at a quarter", "at the end", "spread at the end")
    result.table("Test accuracy in percent, mean over seeds", columns, rows)


def picture(curves: Curves, data: str, k: int, marks: Sequence[int], path: Path) -> None:
    """Draw accuracy against steps: mean, and the range over the seeds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shares = list(dict.fromkeys(share for share, _ in curves))
    figure = Figure(figsize=(4.6 * len(shares), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(shares), squeeze=False)[0]
    for panel, share in zip(panels, shares, strict=True):
        for color, policy in zip(("#4d4d4d", "#0072b2", "#d55e00"), POLICIES, strict=True):
            runs = 100 * curves[share, policy]
            panel.plot(marks, runs.mean(0), color=color, marker="o", markersize=3, label=policy)
            panel.fill_between(marks, runs.min(0), runs.max(0), color=color, alpha=0.15)
        panel.set(xlabel=f"steps of {k} samples", title=f"{data}, {share:.0%} random labels")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("test accuracy, %")
    panels[0].legend(loc="lower right")
    figure.savefig(path, dpi=100, metadata={"Software": None})
