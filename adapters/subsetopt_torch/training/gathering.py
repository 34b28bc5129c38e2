"""Samples that wait until there are enough of them for an update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from subsetopt import OptionError, ProblemError
from subsetopt.policies.parts.sample_ids import id_array
from subsetopt_torch.model.batches import (
    Rows,
    check_alike,
    concatenate,
    map_entries,
    per_sample,
    take_rows,
)
from subsetopt_torch.selection.picked import first_of
from subsetopt_torch.training.selected import Batch, SelectedBatch

__all__ = ["Gathered", "Gathering", "checked_gathered", "combined"]


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
    rows: list[Rows]
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
        batch = Batch(inputs, targets, ids, m, device, self.rows[:2])
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
        rows: list[Rows] = [*batch.rows, per_sample(batch.ids, batch.n)]
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
        return [{name: _stored(getattr(part, name)) for name in names} for part in self._queue]

    def load(self, queue: Sequence[Gathered]) -> None:
        """Take up samples that ``checked_gathered`` returned."""
        self._queue = list(queue)


def checked_gathered(state: object) -> list[Gathered]:
    """Return the samples of a state, after a look at every part of it.

    Positions of None stand for samples that are numbered in order.

    Raises
    ------
    OptionError
        If a part is missing or malformed.
    """
    if not isinstance(state, (list, tuple)):
        raise _malformed("must be a list")
    queue: list[Gathered] = []
    for part in state:
        if not isinstance(part, Mapping):
            raise _malformed("must be dicts")
        if missing := set(Gathered.__slots__) - set(part):
            raise OptionError(f"the gathered samples of the state lack {sorted(missing)}.")
        entries = {name: _restored(part[name]) for name in Gathered.__slots__}
        if entries["positions"] is None and isinstance(entries["weights"], Tensor):
            entries["positions"] = torch.arange(entries["weights"].numel())
        queue.append(_checked(Gathered(**entries)))
        if queue[-1].rows != queue[0].rows:
            raise _malformed("are built unlike each other")
    return queue


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


# The one entry of the dict that stands for a NumPy array in a state, which torch.load would not
# read without trusting the file: an array of numbers, and one of strings or bytes.
_ARRAY = "numpy array"
_TEXTS = "numpy array of texts"


def _stored(part: Any) -> Any:
    """Return a batch with tensors in place of NumPy arrays of numbers, and lists for texts."""
    if isinstance(part, np.ndarray):
        if part.dtype.kind in "biuf":
            return {_ARRAY: torch.from_numpy(np.ascontiguousarray(part))}
        texts = part.tolist()
        if part.ndim == 1 and all(isinstance(text, (str, bytes)) for text in texts):
            return {_TEXTS: texts}
    return map_entries(_stored, part)


def _restored(part: Any) -> Any:
    """Return a batch with NumPy arrays where ``_stored`` put something in their place."""
    if isinstance(part, Mapping) and len(part) == 1:
        numbers, texts = part.get(_ARRAY), part.get(_TEXTS)
        if isinstance(numbers, Tensor):
            return numbers.numpy()
        if isinstance(texts, list):
            return id_array(texts)
    return map_entries(_restored, part)


def _checked(part: Gathered) -> Gathered:
    """Return samples whose parts fit together.

    Raises
    ------
    OptionError
        If they do not.
    """
    for name in ("positions", "weights"):
        tensor = getattr(part, name)
        if not isinstance(tensor, Tensor) or tensor.ndim != 1:
            raise _malformed(f"must have {name} in a tensor of shape (m,)")
    m = len(part)
    if part.positions.dtype != torch.int64 or (m and int(part.positions.min()) < 0):
        raise _malformed("must have positions that are int64, at least 0")
    if not part.weights.is_floating_point() or not bool(part.weights.isfinite().all()):
        raise _malformed("must have weights that are finite")
    if not m or part.weights.shape[0] != m or not isinstance(part.scored, bool):
        raise _malformed("must have one weight per position, and say whether they were scored")
    samples = part.samples
    if not isinstance(samples, list) or len(samples) != 3 or not _fits(samples, part.rows, m):
        raise _malformed(f"must have inputs, targets and ids of the {m} samples")
    return part


def _fits(part: object, rows: object, m: int) -> bool:
    """Return whether a batch is built as its rows say, with m of them."""
    if isinstance(rows, Mapping):
        return (
            isinstance(part, Mapping)
            and part.keys() == rows.keys()
            and all(_fits(part[key], rows[key], m) for key in rows)
        )
    if isinstance(rows, list):
        return (
            isinstance(part, (list, tuple))
            and len(part) == len(rows)
            and all(_fits(entry, row, m) for entry, row in zip(part, rows, strict=True))
        )
    if not isinstance(rows, bool):
        return False
    if isinstance(part, (Tensor, np.ndarray)):
        return not rows or bool(part.ndim and part.shape[0] == m)
    return not rows or (isinstance(part, (list, tuple)) and len(part) == m)


def _malformed(what: str) -> OptionError:
    return OptionError(f"the gathered samples of the state {what}: it is malformed.")
