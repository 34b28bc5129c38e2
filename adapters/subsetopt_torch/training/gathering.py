"""Samples that wait until there are enough of them for an update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from subsetopt import OptionError, ProblemError
from subsetopt_torch.model.batches import Rows, check_alike, concatenate, per_sample, take_rows
from subsetopt_torch.selection.picked import first_of
from subsetopt_torch.training.selected import Batch, SelectedBatch

__all__ = ["Gathered", "Gathering", "combined"]


@dataclass(slots=True)
class Gathered:
    """Samples picked from one batch, or from several.

    Attributes
    ----------
    samples
        ``[inputs, targets, ids]``, m samples along dimension 0.
    rows
        Which of their parts have one row per sample, as ``per_sample`` says.
    positions
        Where the samples stood in the batches they came from, shape (m,), int64.
    weights
        The weight of each sample times the number of samples picked with it, shape (m,): 1 for
        each of k samples of weight 1/k. Divided by the size of an update it is the weight there.
    scored
        Whether all samples were scored before they were picked.
    """

    samples: list[Any]
    rows: Rows
    positions: Tensor
    weights: Tensor
    scored: bool

    def __len__(self) -> int:
        return self.positions.shape[0]

    def part(self, first: int, last: int) -> Gathered:
        """Return the samples from ``first`` up to, not including, ``last``."""
        indices = torch.arange(first, last, device=self.positions.device)
        samples = take_rows(self.samples, indices, self.rows)
        positions, weights = self.positions[first:last], self.weights[first:last]
        return Gathered(samples, self.rows, positions, weights, self.scored)

    def selected(self, device: torch.device) -> SelectedBatch:
        """Return all these samples as a batch for one update, with the weights of that update."""
        m = len(self)
        picked = first_of(m, m, self.weights.device, self.weights.dtype)
        picked.weights = self.weights / m
        inputs, targets, ids = self.samples
        batch = Batch(inputs, targets, ids, m, device)
        return SelectedBatch.gathered(batch, picked, self.positions, is_scored=self.scored)


class Gathering:
    """A queue of picked samples: first in, first out.

    Notes
    -----
    An update on b samples that come from several batches weighs sample i of batch t by
    ``w_i * k_t / b``, with w_i its weight in the batch and k_t the number picked there: the mean
    of the batches' own estimates, each counted with its share of the samples. Equal weights 1/k
    become 1/b, and weights that estimate the batch mean without bias go on doing so.
    """

    def __init__(self) -> None:
        self._queue: list[Gathered] = []

    def __len__(self) -> int:
        return sum(map(len, self._queue))

    def add(self, selected: SelectedBatch) -> None:
        """Keep copies of the picked samples of a batch.

        Raises
        ------
        ProblemError
            If the batch is built unlike those that samples were gathered from, or its samples have
            another shape. Nothing is kept of it then, and the others go on waiting.
        """
        batch, picked = selected.batch, selected.picked
        samples = [batch.inputs, batch.targets, batch.ids]
        rows = per_sample(samples, batch.n)
        if self._queue and self._queue[-1].rows != rows:
            raise ProblemError(
                "this batch is built unlike those that samples were gathered from (other parts, or "
                "no ids): pass batches of one build, or call flush() in between."
            )
        taken = take_rows(samples, picked.indices, rows)
        if self._queue:
            check_alike(self._queue[-1].samples, taken, rows)
        weights = picked.weights * len(picked)
        self._queue.append(Gathered(taken, rows, picked.indices, weights, selected.is_scored))

    def first(self, size: int) -> Gathered:
        """Return the oldest ``size`` samples, which go on waiting; there must be as many."""
        parts: list[Gathered] = []
        for part in self._queue:
            taken = min(size, len(part))
            parts.append(part if taken == len(part) else part.part(0, taken))
            size -= taken
            if not size:
                break
        return _joined(parts)

    def drop(self, size: int) -> None:
        """Drop the oldest ``size`` samples, once they have been trained on."""
        while size:
            head = self._queue.pop(0)
            if len(head) > size:
                self._queue.insert(0, head.part(size, len(head)))
            size -= min(size, len(head))

    def state(self) -> list[dict[str, Any]]:
        """Return the samples that wait, as plain containers and tensors."""
        names = Gathered.__slots__
        return [{name: getattr(part, name) for name in names} for part in self._queue]

    def load(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Take up a state that ``state`` returned.

        Raises
        ------
        OptionError
            If a part of it is missing.
        """
        names = set(Gathered.__slots__)
        for part in state:
            if missing := names - set(part):
                raise OptionError(f"the gathered samples of the state lack {sorted(missing)}.")
        self._queue = [Gathered(**part) for part in state]


def combined(updates: Sequence[tuple[Tensor | None, int, bool]]) -> tuple[Tensor | None, int, bool]:
    """Return the mean loss of several updates, the samples they took, and whether any was made.

    The loss is None without any.
    """
    losses = [loss for loss, _, _ in updates if loss is not None]
    loss = torch.stack(losses).mean() if losses else None
    return loss, sum(size for _, size, _ in updates), any(made for _, _, made in updates)


def _joined(parts: list[Gathered]) -> Gathered:
    if len(parts) == 1:
        return parts[0]
    rows, device = parts[0].rows, parts[-1].positions.device
    return Gathered(
        concatenate([part.samples for part in parts], rows),
        rows,
        torch.cat([part.positions.to(device) for part in parts]),
        torch.cat([part.weights.to(device) for part in parts]),
        all(part.scored for part in parts),
    )
