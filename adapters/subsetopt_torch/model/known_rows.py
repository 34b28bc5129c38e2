"""Which parts of a batch have one row per sample: found in the first batch, and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from subsetopt import ProblemError
from subsetopt_torch.model.batches import Rows, map_rows, per_sample, tensors_of
from subsetopt_torch.model.outputs import find_logits

__all__ = ["KnownRows"]

# Tensors with more dimensions than these are images and the like, whose sizes are no hint.
_TABLE_DIMS = 3


class KnownRows:
    """Tells which parts of a step's batches have one row per sample.

    A part has rows if its length is that of the batch. That can be so by chance: weights of 10
    classes in a batch of 10. What the first batch showed therefore holds for all batches of the
    same build, and a first batch that can be read in two ways is refused.
    """

    def __init__(self) -> None:
        self._rows: list[Rows] | None = None
        self._first = 0
        self._doubtful: Tensor | None = None

    def of(self, inputs: object, targets: object, n: int) -> list[Rows]:
        """Return the rows of inputs and targets of a batch of n samples, some of which are taken.

        Raises
        ------
        ProblemError
            If no part of the inputs has rows, a part has lost or cannot have its rows, or the batch
            can be read in two ways.
        """
        parts = [inputs, targets]
        rows = [per_sample(part, n) for part in parts]
        if rows == self._rows:
            return rows
        if self._rows is not None and _same_build(rows, self._rows):
            for part, now, before in zip(parts, rows, self._rows, strict=True):
                if now != before:
                    map_rows(_refuse_lost(n), before, part)
            return self._rows
        _refuse_without_rows(inputs, rows[0], targets, n)
        self._doubtful = _doubtful(parts, n)
        sizes = {
            s for p in parts for t in tensors_of(p) if t.ndim <= _TABLE_DIMS for s in t.shape[1:]
        }
        if n in sizes:
            self._refuse_doubtful(n)
        self._rows, self._first = rows, n
        return rows

    def confirm(self, outputs: object, n: int) -> None:
        """Look at the first outputs, of n samples: there may be as many classes as samples.

        Raises
        ------
        ProblemError
            If a part may therefore be one that all samples share.
        """
        if self._doubtful is None:
            return
        logits = find_logits(outputs, n)
        if logits is not None and self._first in logits.shape[1:]:
            self._rows = None
            self._refuse_doubtful(self._first)
        self._doubtful = None

    def _refuse_doubtful(self, n: int) -> None:
        if self._doubtful is not None:
            shape, dtype = tuple(self._doubtful.shape), self._doubtful.dtype
            raise ProblemError(
                f"the first batch has {n} samples, which is also the size of another dimension, so "
                f"that it cannot be told whether its part of shape {shape} and dtype {dtype} has "
                "one row per sample or is shared by all. Begin with a batch of another size (what "
                "it shows holds for all later ones), or give what is shared to the loss or the "
                "model, not to the batch."
            )


def _same_build(rows: Rows, others: Rows) -> bool:
    """Whether rows are those of one build, whatever their leaves say."""
    if isinstance(rows, dict) and isinstance(others, dict):
        return rows.keys() == others.keys() and all(
            _same_build(rows[key], others[key]) for key in rows
        )
    if isinstance(rows, list) and isinstance(others, list):
        return len(rows) == len(others) and all(map(_same_build, rows, others))
    return isinstance(rows, bool) and isinstance(others, bool)


def _refuse_lost(n: int) -> Callable[[object], object]:
    """Return a check that a part still has n rows."""

    def check(leaf: object) -> object:
        if per_sample(leaf, n) is not True:
            shape = tuple(leaf.shape) if isinstance(leaf, Tensor) else type(leaf).__name__
            raise ProblemError(
                f"a part of the batch had one row per sample in the first batch, and is {shape} "
                f"for {n} samples now. Give one row per sample along dimension 0, and what all "
                "samples share to the loss or the model; if the first batch had by chance as many "
                "samples as that part has entries, begin with another size."
            )
        return leaf

    return check


def _refuse_without_rows(inputs: object, rows: Rows, targets: object, n: int) -> None:
    """Raise if no part of the inputs has one row per sample, though there are samples in it."""
    if any(_leaves(rows)):
        return
    shapes = [tuple(tensor.shape) for tensor in tensors_of(inputs) if tensor.ndim]
    if any(n in shape[1:2] for shape in shapes):
        raise ProblemError(
            f"the targets have {n} samples, and the inputs have shape {shapes[0]}: samples must be "
            "along dimension 0. For a model that takes sequences first, pass x.transpose(0, 1), "
            "and let the model turn it back (batch_first=True)."
        )
    kind = f"tensors of shapes {shapes}" if shapes else f"a {type(inputs).__name__}"
    raise ProblemError(
        f"the batch has {n} samples, and its inputs, {kind}, have no part with one row for each: "
        "samples cannot be taken from it. Pass tensors, or tuples, lists and dicts of them, with "
        "the samples along dimension 0, or a list of one entry per sample."
    )


def _leaves(rows: Rows) -> Iterator[bool]:
    if isinstance(rows, bool):
        yield rows
    else:
        for row in rows.values() if isinstance(rows, dict) else rows:
            yield from _leaves(row)


def _doubtful(parts: list[object], n: int) -> Tensor | None:
    """Return a tensor whose n rows may be no rows: one unlike the first tensor of its part."""
    for part in parts:
        tensors = [t for t in tensors_of(part) if t.ndim and t.shape[0] == n]
        for tensor in tensors[1:]:
            if (tensor.shape, tensor.dtype) != (tensors[0].shape, tensors[0].dtype):
                return tensor
    return None
