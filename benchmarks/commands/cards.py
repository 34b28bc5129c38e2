"""The plots of the method cards: every policy on digits, beside full batches and uniform choice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.harness import card_pictures, output
from benchmarks.harness.command import command
from benchmarks.harness.options import RUNS, Out, Save
from benchmarks.harness.output import Result, bar
from subsetopt.errors import OptionError, did_you_mean
from subsetopt.policies import list_policies, make_policy

METHOD_CARDS = Path(__file__).parents[2] / "docs" / "methods"
BASELINES = ("full batch", "uniform")
_RATE, _BATCH, _LR = 0.1, 128, 0.1
_HALVES_SEED = 0
# These policies choose over the data set before loading; the command `sampling` trains them.
_ELSEWHERE = ("online-batch", "prioritized")
# These settings are trained besides the defaults, because the cards speak of them.
_VARIANTS: dict[str, dict[str, Any]] = {
    "adaselection": {"beta": 0.5},
    "importance": {"tau_threshold": 1.8},
    "gradient-matching": {"weights": "nonnegative"},
}


@dataclass(frozen=True, slots=True)
class Line:
    """What is trained: a method with options, under the name it has in plots and tables."""

    label: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)


@command
def cards(
    policies: Annotated[
        str | None, typer.Option(help="Comma-separated; default all that have a plot here.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training set.")] = 60,
    seeds: Annotated[int, typer.Option(help="Runs of each method.")] = 3,
    out: Out = RUNS,
    save: Save = False,
) -> Result:
    """Train every policy on digits, and draw the plot of its method card."""
    chosen = _policies(policies)
    settings = {"data": "digits, whole batches", "rate": _RATE, "batch": _BATCH, "lr": _LR,
                "epochs": epochs, "seeds": seeds}  # fmt: skip
    saved = _saved(settings) if save and policies is not None else None
    result = Result("cards", "Every policy beside full batches and uniform choice", settings)
    lines = {policy: lines_of(policy) for policy in chosen}
    runs = train(lines, epochs, seeds)
    _tables(result, runs)
    if saved is not None:
        _take_up(result, saved)
        result.notes.append(
            f"Made anew: {', '.join(chosen)}, the baselines too. The other rows are those of "
            f"{saved['machine']['date']}."
        )
    result.notes += _NOTES
    for folder in (out, METHOD_CARDS) if save else (out,):
        folder.mkdir(parents=True, exist_ok=True)
        for policy in chosen:
            _draw(policy, lines[policy], runs, folder)
    return result


_NOTES = [
    "Samples: mean per run. A sample that is backpropagated costs about three forward passes, one "
    "that is scored a forward pass; for `gradient-norm` a forward and a backward pass. Every "
    "method makes the same number of steps. Last 10 epochs: mean over these and the seeds; single "
    "epochs scatter.",
]


def policies_with_plots() -> list[str]:
    """Return the policies that this command draws a plot for."""
    return [spec.name for spec in list_policies() if spec.name not in _ELSEWHERE]


def lines_of(policy: str) -> list[Line]:
    """Return what the plot of a policy shows besides the baselines."""
    if policy in BASELINES:
        return []
    options = {"irreducible": irreducible()} if policy == "rho-loss" else {}
    lines = [Line(policy, policy, options)]
    for name, value in _VARIANTS.get(policy, {}).items():
        lines.append(Line(f"{policy}, {name}={value}", policy, {name: value}))
    return lines


def digits() -> Any:
    """Return the digits, as many of them for training as make whole batches.

    Of a last batch of 29 samples 3 would be trained on, at the full learning rate, just before
    accuracy is measured: ``uniform`` lost 3 points by that step on average.
    """
    from subsetopt_torch.experiment.data import load_data

    data = load_data("digits")
    whole = len(data.train_x) // _BATCH * _BATCH
    return replace(data, train_x=data.train_x[:whole], train_y=data.train_y[:whole])


def irreducible() -> Any:
    """Return the loss of every training sample under a small model that never saw it.

    There are two such models, each trained on one half, so that nothing is taken from the training
    set and all policies have the same.
    """
    import torch
    from torch import nn

    import subsetopt_torch as st

    data = digits()
    order = torch.randperm(len(data.train_x), generator=torch.Generator().manual_seed(_HALVES_SEED))
    halves = order.tensor_split(2)
    losses = np.full(len(order), np.nan)
    for seed, (rows, held_out) in enumerate((halves, halves[::-1])):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            small = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, data.classes))
        losses[rows] = st.irreducible_losses(
            small, *((data.train_x[part], data.train_y[part]) for part in (held_out, rows)),
            epochs=30, lr=0.05, batch_size=64, seed=seed,
        )  # fmt: skip
    return losses


def train(lines: Mapping[str, Sequence[Line]], epochs: int, seeds: int) -> dict[str, list[Any]]:
    """Return the runs of the baselines and of every line, by label; as ``subsetopt train`` does."""
    from subsetopt_torch.experiment.comparison import Settings, run_one, torch_threads

    data = digits()
    wanted = [Line(name, name) for name in BASELINES]
    wanted += [line for group in lines.values() for line in group]
    runs: dict[str, list[Any]] = {}
    with torch_threads(1), bar() as progress:
        task = progress.add_task("", total=len(wanted) * seeds)
        for line in wanted:
            policies = () if line.method in BASELINES else (line.method,)
            settings = Settings(policies, _RATE, seeds, epochs, _BATCH, _LR,
                                policy_options={line.method: line.options})  # fmt: skip
            for seed in range(seeds):
                progress.update(task, description=f"{line.label}, seed {seed + 1} of {seeds}")
                runs.setdefault(line.label, []).append(run_one(settings, data, line.method, seed))
                progress.advance(task)
    return runs


def switches(run: Any) -> list[tuple[int, bool]]:
    """Return the steps at which ``importance`` came on (True) or went off in a run."""
    steps, on = run.policy_curves["on"]
    pairs = zip(steps, on, [0.0, *on[:-1]], strict=True)
    return [(step, bool(now)) for step, now, before in pairs if now != before]


def _policies(text: str | None) -> list[str]:
    known = policies_with_plots()
    chosen = known if text is None else list(dict.fromkeys(text.split(",")))
    for name in chosen:
        if name not in known:
            raise OptionError(
                f"cards has no plot for {name!r}.{did_you_mean(name, known)} "
                f"It has: {', '.join(known)}."
            )
    return chosen


def _tables(result: Result, runs: Mapping[str, Sequence[Any]]) -> None:
    rows = []
    for label, found in runs.items():
        curves = 100.0 * np.array([[point.accuracy for point in run.curve[1:]] for run in found])
        last = curves[:, -1]
        counts = [np.mean([getattr(run, name) for run in found])
                  for name in ("backpropagated", "scored")]  # fmt: skip
        rows.append([label, f"{last.mean():.1f}", f"{last.min():.1f} to {last.max():.1f}",
                     f"{curves[:, -10:].mean():.1f}",
                     *(f"{count:,.0f}" for count in counts)])  # fmt: skip
    columns = ("method", "accuracy, %", "range", "last 10 epochs", "backpropagated", "scored")
    result.table("Test accuracy after the last epoch, mean and range over the seeds", columns, rows)
    rows = [
        [label, seed, ", ".join(f"{'on' if on else 'off'} {step}" for step, on in switches(run))]
        for label, found in runs.items() if label.partition(",")[0] == "importance"
        for seed, run in enumerate(found)
    ]  # fmt: skip
    title = "Steps, from 0, at which importance came on or went off"
    result.table(title, ("method", "seed", "steps"), rows)


def _saved(settings: Mapping[str, Any]) -> Any:
    """Return the kept result that rows of single policies are to be put into."""
    path = output.RESULTS / "cards.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    if found is None or found["settings"] != settings:
        raise OptionError(
            f"{path} holds no result with these settings, so that single policies cannot be put "
            "into it; leave out --policies."
        )
    return found


def _take_up(result: Result, saved: Mapping[str, Any]) -> None:
    """Put new rows in the place of those of a saved result."""
    for table, old in zip(result.tables, saved["tables"], strict=True):
        made = {row[0] for row in table["rows"]}
        rows = [row for row in old["rows"] if row[0] not in made] + table["rows"]
        order = {name: at for at, name in enumerate((*BASELINES, *policies_with_plots()))}
        table["rows"] = sorted(rows, key=lambda row: order[row[0].partition(",")[0]])


def _draw(
    policy: str, lines: Sequence[Line], runs: Mapping[str, Sequence[Any]], folder: Path
) -> None:
    shown = {label: runs[label] for label in (*BASELINES, *(line.label for line in lines))}
    card_pictures.accuracy(shown, folder / f"{policy}.png")
    if policy == "importance":
        firsts = [(runs[line.label][0].policy_curves, _threshold(line)) for line in lines]
        card_pictures.tau(firsts, folder / "importance-tau.png")
    if policy == "adaselection":
        curves = {f"beta={_beta(line)}": runs[line.label][0].policy_curves for line in lines}
        card_pictures.weights(curves, folder / "adaselection-weights.png")


def _threshold(line: Line) -> float:
    policy: Any = make_policy(line.method, **line.options)
    return float(policy.threshold(_BATCH, round(_RATE * _BATCH)))


def _beta(line: Line) -> float:
    policy: Any = make_policy(line.method, **line.options)
    return float(policy.beta)
