"""Training a small model briefly, and scoring every sample with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from subsetopt import OptionError, ProblemError
from subsetopt.inputs import checked_integer, is_number
from subsetopt_torch.model.batches import call_model
from subsetopt_torch.model.losses import LossFunction, check_per_sample
from subsetopt_torch.model.parameters import device_of
from subsetopt_torch.model.scoring_pass import scoring_pass
from subsetopt_torch.proxies.samples import Samples

__all__ = ["Fit", "OnEpoch", "place", "seeded_streams"]

# Called after every epoch with its number, counted from 1, and its mean training loss; returning
# True stops the training.
OnEpoch: TypeAlias = Callable[[int, float], bool | None]

_MOMENTUM = 0.9


@dataclass(frozen=True, slots=True)
class Fit:
    """How a small model is trained, and how it scores.

    Training minimizes the mean loss. Where the last batch is a single sample, which BatchNorm
    refuses, it joins the batch before.

    Raises
    ------
    OptionError
        If a value is out of range, or lr and optimizer are both given, or neither.
    """

    loss_fn: LossFunction  #: ``loss_fn(outputs, targets)``, one loss per sample
    epochs: int  #: passes over the data, at least 0
    batch_size: int  #: samples per batch, at least 1
    lr: float | None  #: learning rate of SGD with momentum 0.9; None where there is an optimizer
    optimizer: torch.optim.Optimizer | None  #: an optimizer of the parameters; None for SGD
    seed: int  #: decides the order of samples and what random layers draw, at least 0

    def __post_init__(self) -> None:
        """Look at every value before any work begins."""
        for name, least in (("epochs", 0), ("batch_size", 1), ("seed", 0)):
            checked = checked_integer(name, getattr(self, name), least)
            object.__setattr__(self, name, checked)  # frozen; NumPy's integers become plain ones
        if self.epochs and (self.lr is None) == (self.optimizer is None):
            raise OptionError(
                "pass lr (the learning rate of SGD) or optimizer, one of them; got "
                f"lr={self.lr!r}, optimizer={type(self.optimizer).__name__}."
            )
        is_positive = is_number(self.lr) and 0.0 < self.lr < math.inf
        if self.lr is not None and not is_positive:
            raise OptionError(f"lr must be a positive number, got {self.lr!r}.")

    def train(self, model: nn.Module, samples: Samples, after_epoch: OnEpoch) -> list[float]:
        """Train a model, in the modes its modules are in, and return the mean loss of every epoch.

        Raises
        ------
        ProblemError
            If a loss is not finite.
        """
        history: list[float] = []
        if not self.epochs:
            return history
        optimizer = self._optimizer(model)
        generator = torch.Generator().manual_seed(self.seed)
        for epoch in range(1, self.epochs + 1):
            order = torch.randperm(len(samples), generator=generator)
            history.append(self._epoch(model, samples, optimizer, order, epoch))
            if after_epoch(epoch, history[-1]):
                break
        return history

    def score(self, model: nn.Module, samples: Samples) -> Iterator[tuple[Tensor, Any]]:
        """Return losses (detached) and outputs of every batch in order, from a scoring pass.

        The model is left as it was, see :func:`scoring_pass`.
        """
        rows = list(torch.split(torch.arange(len(samples)), self.batch_size))
        for indices, (x, y) in zip(rows, samples.batches(rows), strict=True):
            with scoring_pass(model, devices=(samples.device,)):
                outputs = call_model(model, x)
                losses = check_per_sample(self.loss_fn(outputs, y), len(indices))
            yield losses.detach(), outputs

    def _optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        if self.optimizer is not None:
            return self.optimizer
        assert self.lr is not None
        return torch.optim.SGD(model.parameters(), lr=self.lr, momentum=_MOMENTUM)

    def _epoch(
        self,
        model: nn.Module,
        samples: Samples,
        optimizer: torch.optim.Optimizer,
        order: Tensor,
        epoch: int,
    ) -> float:
        rows = _without_a_lone_sample(list(torch.split(order, self.batch_size)))
        batches = samples.batches(rows, self.seed + epoch)
        total = torch.zeros((), dtype=torch.float64, device=_accurate(samples.device))
        for indices, (x, y) in zip(rows, batches, strict=True):
            losses = check_per_sample(self.loss_fn(call_model(model, x), y), len(indices))
            optimizer.zero_grad()
            losses.mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += losses.detach().to(total).sum()
        mean = float(total) / len(samples)
        if not math.isfinite(mean):
            raise ProblemError(
                f"the training loss is {mean} in epoch {epoch}: the small model diverged. Lower "
                "the learning rate, or mend the data."
            )
        return mean


def place(model: nn.Module, device: torch.device | str | None) -> torch.device:
    """Move a model to a device and return that device; for None, the device that it is on."""
    if device is None:
        return device_of(model)
    model.to(device)
    return torch.device(device)


@contextmanager
def seeded_streams(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the random streams of the CPU and of a device, and put them back afterwards."""
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        # torch.manual_seed would reseed every device, and these are not put back.
        torch.default_generator.manual_seed(seed)
        if device.type in ("cuda", "xpu"):
            kind: Any = getattr(torch, device.type)  # the module torch.cuda or torch.xpu
            index = kind.current_device() if device.index is None else device.index
            stack.enter_context(torch.random.fork_rng([index], device_type=device.type))
            stack.enter_context(kind.device(index))
            kind.manual_seed(seed)
        yield


def _without_a_lone_sample(rows: list[Tensor]) -> list[Tensor]:
    """Return row numbers of batches, with a last batch of one sample joined to the one before."""
    if len(rows) > 1 and len(rows[-1]) == 1:
        return [*rows[:-2], torch.cat(rows[-2:])]
    return rows


def _accurate(device: torch.device) -> torch.device:
    """Return where float64 sums can be kept: on the device, or on the CPU if it has no float64."""
    return torch.device("cpu") if device.type == "mps" else device
