"""The process that serves: it predicts, and records losses when outcomes are known."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.harness.streaming.clicks import Clicks, Hour
from benchmarks.harness.streaming.model import click_model, log_losses
from subsetopt.ledger import Ledger

__all__ = ["Served", "ServingProcess"]


class Served(NamedTuple):
    """What the serving process tells of an hour."""

    loss: float  #: the summed log loss of the predictions of this hour
    least: float  #: that of the model which the clicks were drawn from
    recorded: int  #: impressions that were recorded, those of an earlier hour


class _Waiting(NamedTuple):
    """Predictions whose outcomes are not known yet."""

    number: int
    hour: Hour
    outputs: torch.Tensor


class _Serving:
    """Serves one stream, and records into one ledger."""

    def __init__(self, stream: Clicks, delay: int, url: str) -> None:
        self.stream = stream
        self.weights = stream.weights()
        self.delay = delay
        self.model = click_model(stream.width)
        self.ledger = Ledger.open(url, capacity=stream.hours * stream.impressions)
        self.waiting: deque[_Waiting] = deque()

    def serve(self, number: int, parameters: NDArray[np.float32]) -> Served:
        """Predict the impressions of an hour; record those whose outcomes are known by now."""
        torch.nn.utils.vector_to_parameters(torch.from_numpy(parameters), self.model.parameters())
        hour = self.stream.hour(number, self.weights[number])
        with torch.no_grad():
            outputs = self.model(torch.from_numpy(hour.features))
        self.waiting.append(_Waiting(number, hour, outputs))
        recorded = 0
        if self.waiting[0].number == number - self.delay:
            recorded = self._record(*self.waiting.popleft())
        # The loss of this hour is for the report alone: here nobody knows the outcomes yet.
        loss = float(log_losses(outputs, torch.from_numpy(hour.clicks)).double().sum())
        return Served(loss, hour.least_loss(), recorded)

    def _record(self, number: int, hour: Hour, outputs: torch.Tensor) -> int:
        clicks = torch.from_numpy(hour.clicks)
        losses = log_losses(outputs, clicks)
        # The derivative of the log loss with respect to the logit, which is the upper bound here.
        bounds = (torch.sigmoid(outputs[:, 0]) - clicks).abs()
        return self.ledger.record(hour.ids, losses.numpy(), bounds.numpy(), step=number)


def _answer(connection: Connection) -> None:
    """Serve until told to stop; the entry point of the process."""
    torch.set_num_threads(1)
    serving: _Serving | None = None
    while (request := connection.recv()) is not None:
        if serving is None:
            serving = _Serving(*request)
            connection.send(os.getpid())
        elif request:
            connection.send(serving.serve(*request))
        else:
            serving.ledger.close()
            serving = None
            connection.send(None)


class ServingProcess:
    """A process of its own that serves one stream after the other."""

    def __enter__(self) -> ServingProcess:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_answer, args=(there,), daemon=True)
        self._process.start()
        there.close()
        return self

    def __exit__(self, *error: object) -> None:
        if self._process.is_alive():
            self._here.send(None)
        self._process.join()
        self._here.close()

    @contextmanager
    def of(self, stream: Clicks, delay: int, url: str) -> Iterator[int]:
        """Serve a stream whose outcomes are known ``delay`` hours after the prediction.

        Gives the id of the process, which has the ledger open until the context ends.
        """
        yield self._ask((stream, delay, url))
        self._ask(())

    def serve(self, number: int, model: torch.nn.Module) -> Served:
        """Have the impressions of an hour served by the model as it is now."""
        parameters = torch.nn.utils.parameters_to_vector(model.parameters())
        served: Served = self._ask((number, parameters.detach().numpy()))
        return served

    def _ask(self, request: Any) -> Any:
        try:
            self._here.send(request)
            return self._here.recv()
        except (EOFError, OSError):
            self._process.join()
            raise RuntimeError(
                f"the serving process ended with exit code {self._process.exitcode}: if it failed, "
                "its traceback is on stderr."
            ) from None
