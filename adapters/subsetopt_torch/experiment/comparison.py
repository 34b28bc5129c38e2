"""The experiment behind ``subsetopt train``: policies against full batches and uniform choice.

Every method starts from the same weights, sees the same batches in the same order and makes the
same number of updates; what differs is which samples of a batch are trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from subsetopt import OptionError
from subsetopt.policies import WithCurves, has, make_policy
from subsetopt_torch.experiment.data import DataSet
from subsetopt_torch.model.scoring_pass import scoring_pass, temporarily
from subsetopt_torch.selection.selector import BatchSelector
from subsetopt_torch.training.result import StepResult
from subsetopt_torch.training.step import SelectiveStep
from subsetopt_torch.training.timings import Timings

__all__ = [
    "Experiment",
    "Point",
    "Run",
    "Settings",
    "check_threads",
    "make_model",
    "run_one",
    "torch_threads",
]

# Units of each hidden layer.
_HIDDEN = 256
# Steps between two residuals of a method without a scoring pass; each costs a forward.
_PROBE_EVERY = 20


@dataclass(frozen=True, slots=True)
class Settings:
    """What to compare, and how long to train.

    Attributes
    ----------
    policies
        Names of the policies compared with full batches and uniform choice.
    rate
        Fraction of each batch to train on, in (0, 1].
    seeds
        Number of seeds: ``first_seed``, ``first_seed + 1`` and so on.
    epochs, batch_size, lr
        Passes over the training set, samples per batch, learning rate of plain SGD.
    solver, time_limit
        The solver of the policies, and its limit in seconds per selection (None for the default
        work limit); the baselines keep the defaults.
    policy_options
        Options of the policies: ``{policy: {name: value}}``.
    first_seed
        The first seed. Results on seeds that nothing was tuned on are worth more.
    """

    policies: tuple[str, ...] = ("obtf",)
    rate: float = 0.1
    seeds: int = 3
    epochs: int = 30
    batch_size: int = 128
    lr: float = 0.1
    solver: str = "auto"
    time_limit: float | None = None
    policy_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    first_seed: int = 0

    def __post_init__(self) -> None:
        """Look at every value before any work begins."""
        for name in ("seeds", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.first_seed < 0:
            raise OptionError(f"first_seed must be at least 0, got {self.first_seed}.")
        if not 0.0 < self.rate <= 1.0:
            raise OptionError(f"rate must be in (0, 1], got {self.rate!r}.")
        if not 0.0 < self.lr < float("inf"):
            raise OptionError(f"lr must be a positive number, got {self.lr!r}.")
        for policy in self.policies:
            make_policy(policy, **self.policy_options.get(policy, {}))
            self.selector(policy, 0)

    @property
    def methods(self) -> tuple[str, ...]:
        """The baselines, then the policies, each once."""
        return tuple(dict.fromkeys(("full batch", "uniform", *self.policies)))

    def selector(self, method: str, seed: int) -> BatchSelector:
        """Return the selector of a method."""
        if method == "full batch":
            return BatchSelector("uniform", rate=1.0, seed=seed)
        if method == "uniform":
            return BatchSelector("uniform", rate=self.rate, seed=seed)
        return BatchSelector(
            method,
            rate=self.rate,
            solver=self.solver,
            time_limit=self.time_limit,
            policy_options=self.policy_options.get(method),
            seed=seed,
        )


@dataclass(frozen=True, slots=True)
class Point:
    """The state of a run after an epoch: test accuracy in [0, 1] against work done so far."""

    epoch: int
    step: int
    backpropagated: int
    accuracy: float
    batch_loss: float


@dataclass(slots=True)
class Run:
    """One method with one seed.

    Attributes
    ----------
    curve
        A point per epoch, and one before training.
    steps, backpropagated, scored
        Updates made, samples that had a backward pass, samples that had a scoring pass.
    seconds
        Host seconds per part of the step, evaluation not counted.
    residuals
        ``|batch mean - weighted subset mean| / mean|l|`` per step; a sample of the steps for a
        method that makes no scoring pass.
    fallbacks
        Selections that ended in a uniform draw.
    policy_curves
        The curves that the policy remembers of its steps, label to (steps, values); empty where it
        remembers none.
    """

    method: str
    seed: int
    curve: list[Point] = field(default_factory=list)
    steps: int = 0
    backpropagated: int = 0
    scored: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    residuals: list[float] = field(default_factory=list)
    fallbacks: int = 0
    policy_curves: dict[str, tuple[list[int], list[float]]] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """Test accuracy at the end, in [0, 1]."""
        return self.curve[-1].accuracy

    def count(self, result: StepResult, residual: float | None) -> None:
        """Add what a step did, and its residual where that is known."""
        self.steps += int(result.updated)
        self.backpropagated += result.trained
        self.scored += 0 if result.losses is None else len(result.losses)
        for part in self.seconds:
            self.seconds[part] += getattr(result.timings, part)
        if residual is not None:
            self.residuals.append(residual)

    def end_epoch(self, epoch: int, accuracy: float, batch_losses: list[float]) -> None:
        """Add a point to the curve; batch losses that no step knew are nan."""
        known = [loss for loss in batch_losses if not np.isnan(loss)]
        batch_loss = float(np.mean(known)) if known else float("nan")
        self.curve.append(Point(epoch, self.steps, self.backpropagated, accuracy, batch_loss))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain numbers, for JSON."""
        plain = asdict(self)
        values = np.array(plain.pop("residuals"))
        plain["residual"] = {
            "steps": int(values.size),
            "median": float(np.median(values)) if values.size else None,
            "worst": float(values.max()) if values.size else None,
        }
        return plain


@dataclass(frozen=True, slots=True)
class Experiment:
    """Settings, data and the runs that were made."""

    settings: Settings
    data: DataSet
    runs: list[Run] = field(default_factory=list)

    @property
    def steps_per_run(self) -> int:
        """Updates that every run makes."""
        batches = max(1, len(self.data.train_x) // self.settings.batch_size)
        return batches * self.settings.epochs

    def execute(
        self,
        on_run: Callable[[str, int], Callable[[Run], None]],
        on_end: Callable[[], object] = lambda: None,
    ) -> None:
        """Train every method with every seed.

        Parameters
        ----------
        on_run
            Called with method and seed before a run; returns what is called after every step.
        on_end
            Called after every run, which is then among the runs.
        """
        first = self.settings.first_seed
        for seed in range(first, first + self.settings.seeds):
            for method in self.settings.methods:
                report = on_run(method, seed)
                if seed == first:
                    self._warm_up(method)
                self.runs.append(run_one(self.settings, self.data, method, seed, report))
                on_end()

    def _warm_up(self, method: str) -> None:
        """Make one step of a method and forget it, so that no run pays for compiling kernels."""
        rows = torch.arange(min(self.settings.batch_size, len(self.data.train_x)))
        step = _make_step(self.settings, self.data, method, 0)
        step(self.data.train_x[rows], self.data.train_y[rows], ids=rows)

    def of(self, method: str) -> list[Run]:
        """Return the runs of a method."""
        return [run for run in self.runs if run.method == method]


def make_model(features: int, classes: int, seed: int) -> nn.Sequential:
    """Return the paper's network: two hidden layers of 256, ReLU; the same for a seed.

    The global random stream is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(features, _HIDDEN),
            nn.ReLU(),
            nn.Linear(_HIDDEN, _HIDDEN),
            nn.ReLU(),
            nn.Linear(_HIDDEN, classes),
        )


def run_one(
    settings: Settings,
    data: DataSet,
    method: str,
    seed: int,
    on_step: Callable[[Run], None] = lambda run: None,
) -> Run:
    """Train one method with one seed."""
    step = _make_step(settings, data, method, seed)
    model = step.model
    run = Run(method, seed, seconds=dict.fromkeys(Timings.__dataclass_fields__, 0.0))
    run.end_epoch(0, _accuracy(model, data), [])
    order = torch.Generator().manual_seed(seed)
    for epoch in range(1, settings.epochs + 1):
        batch_losses = []
        shuffled = torch.randperm(len(data.train_x), generator=order)
        for rows in _batches(shuffled, settings.batch_size):
            x, y = data.train_x[rows], data.train_y[rows]
            losses = _unscored_losses(step, x, y, run.steps)
            result = step(x, y, ids=rows)
            run.count(result, _residual(result, losses))
            batch_losses.append(float(result.batch_loss))
            on_step(run)
        run.fallbacks = step.selector.fallbacks
        run.end_epoch(epoch, _accuracy(model, data), batch_losses)
    policy = step.selector.policy
    run.policy_curves = policy.curves() if has(policy, WithCurves) else {}
    return run


def _batches(rows: Tensor, size: int) -> tuple[Tensor, ...]:
    """Return the full batches of shuffled rows, without a smaller one at the end.

    An update on the few samples chosen from a small batch would be as large as any other. The next
    epoch has another order, in which most of the samples left out here are in a full batch.
    """
    return torch.split(rows[: max(1, len(rows) // size) * size], size)


def _make_step(settings: Settings, data: DataSet, method: str, seed: int) -> SelectiveStep:
    model = make_model(data.train_x.shape[1], data.classes, seed)
    return SelectiveStep(
        model,
        nn.CrossEntropyLoss(reduction="none"),
        torch.optim.SGD(model.parameters(), lr=settings.lr),
        settings.selector(method, seed),
    )


def torch_threads(threads: int) -> AbstractContextManager[None]:
    """Let torch compute with a number of threads, and put the former number back.

    Threads that share a core with another process wait for each other: on a busy machine two
    threads took 26 ms for a step of 1 ms.
    """
    check_threads(threads)
    return temporarily(torch.get_num_threads, torch.set_num_threads, threads)


def check_threads(threads: int) -> None:
    """Raise unless there is at least one thread.

    Raises
    ------
    OptionError
        If there is none.
    """
    if threads < 1:
        raise OptionError(f"threads must be at least 1, got {threads}.")


def _unscored_losses(step: SelectiveStep, x: Tensor, y: Tensor, number: int) -> Tensor | None:
    """Return the losses of a batch before step ``number``, where the step will not score it.

    They are computed now and then only, and outside of the step's own timings.
    """
    n = len(x)
    scores = step.selector.needs_scoring(n) or step.selector.size(n) == n
    if scores or number % _PROBE_EVERY:
        return None
    with scoring_pass(step.model):
        return step.loss_fn(step.model(x), y)


def _residual(result: StepResult, unscored: Tensor | None) -> float | None:
    """Return how far a choice is from the batch mean, over mean|l|; None where it is not known."""
    losses = unscored if result.losses is None else result.losses
    if losses is None or not result.updated:
        return None
    values = losses.double()
    scale = float(values.abs().mean())
    rows = result.picked.indices
    if result.losses is not None and result.scored_indices is not None:
        rows = torch.searchsorted(result.scored_indices, rows)
    subset = (values[rows] * result.picked.weights.double()).sum()
    return abs(float(values.mean() - subset)) / scale if scale > 0.0 else None


def _accuracy(model: nn.Module, data: DataSet) -> float:
    with torch.no_grad():
        return float((model(data.test_x).argmax(1) == data.test_y).double().mean())
