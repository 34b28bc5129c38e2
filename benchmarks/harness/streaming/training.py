"""The trainer: it reads the stream when outcomes are known, and updates on a part of each hour."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

import subsetopt_torch as st
from benchmarks.harness.streaming.clicks import Clicks
from benchmarks.harness.streaming.methods import Method
from benchmarks.harness.streaming.model import click_model, log_losses
from benchmarks.harness.streaming.serving import ServingProcess
from subsetopt.ledger import Ledger

__all__ = ["KnownOutcomes", "Run", "train"]


class KnownOutcomes(IterableDataset[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]):
    """The hours of a stream in order, as batches of ids, features and clicks."""

    def __init__(self, stream: Clicks) -> None:
        self.stream = stream

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        for number, weights in enumerate(self.stream.weights()):
            hour = self.stream.hour(number, weights)
            yield (
                torch.from_numpy(hour.ids),
                torch.from_numpy(hour.features),
                torch.from_numpy(hour.clicks),
            )


@dataclass
class Run:
    """What came of a run."""

    losses: np.ndarray  #: the mean log loss of every hour, predicted before training on it
    least: np.ndarray  #: that of the model which the clicks were drawn from
    trained: int = 0  #: samples that had a backward pass
    scored: int = 0  #: samples that had a forward pass in addition, to be chosen from
    recorded: int = 0  #: impressions that the serving process recorded
    looked_up: int = 0  #: impressions whose record was used
    served_by: int = 0  #: the id of the serving process

    def count(self, result: st.StepResult) -> None:
        """Add what a step did."""
        self.trained += result.trained
        self.scored += 0 if result.losses is None else len(result.losses)
        self.looked_up += 0 if result.recorded is None else result.recorded.used

    def excess(self) -> float:
        """Return the mean loss above the true model's, over the later half of the stream."""
        half = self.losses.size // 2
        return float((self.losses - self.least)[half:].mean())

    def log_loss(self) -> float:
        """Return the mean loss over the later half of the stream."""
        return float(self.losses[self.losses.size // 2 :].mean())


def train(
    method: Method, stream: Clicks, serving: ServingProcess, *, delay: int, k: int, lr: float
) -> Run:
    """Serve and train through a whole stream, in step with the serving process.

    In hour h the model of hour h - 1 serves, the outcomes of hour h - delay become known and are
    recorded, and the trainer makes one update on them.
    """
    run = Run(np.zeros(stream.hours), np.zeros(stream.hours))
    n = stream.impressions
    with tempfile.TemporaryDirectory() as folder:
        url = f"dense:{folder}/clicks.ledger"
        with serving.of(stream, delay, url) as served_by, Ledger.open(url) as ledger:
            run.served_by = served_by
            model = click_model(stream.width)
            now = 0
            recorded = None
            if method.recorded is not None:
                recorded = st.RecordedScores(ledger, clock=lambda: now, **method.recorded)
            step = _step(
                method, model, n if method.policy is None else k, lr, stream.seed, recorded
            )
            batches = iter(DataLoader(KnownOutcomes(stream), batch_size=None))
            for now in range(stream.hours):
                served = serving.serve(now, model)
                run.losses[now], run.least[now] = served.loss / n, served.least / n
                run.recorded += served.recorded
                if now >= delay:
                    ids, features, clicks = next(batches)
                    run.count(step(features, clicks, ids=ids))
    return run


def _step(
    method: Method,
    model: torch.nn.Module,
    k: int,
    lr: float,
    seed: int,
    recorded: st.RecordedScores | None,
) -> st.SelectiveStep:
    options = {"policy_options": dict(method.options)} if method.options else {}
    selector = st.BatchSelector(method.policy or "uniform", k=k, seed=seed, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    return st.SelectiveStep(model, log_losses, optimizer, selector, recorded=recorded)
