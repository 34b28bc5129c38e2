"""What a selector hands to the training loop."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from subsetopt import Solution

__all__ = ["Picked"]


class Picked:
    """The samples to train on: ``(loss_fn(model(x[indices]), y[indices]) * weights).sum()``.

    Attributes
    ----------
    indices
        Chosen positions in the batch, shape (k,), int64, sorted, on the losses' device.
    weights
        Training weight of each, shape (k,), in the losses' dtype and at least float32.
    n
        Number of candidates.
    excluded
        Samples left out because their loss was not finite (``nonfinite="exclude"``).
    fallback
        None, or why the samples are a uniform draw and not the answer of the solver.
    """

    __slots__ = ("_solution", "excluded", "fallback", "indices", "n", "weights")

    def __init__(
        self,
        indices: Tensor,
        weights: Tensor,
        n: int,
        solution: Solution | Callable[[], Solution],
        excluded: int = 0,
        fallback: str | None = None,
    ) -> None:
        self.indices = indices
        self.weights = weights
        self.n = n
        self.excluded = excluded
        self.fallback = fallback
        self._solution = solution

    @property
    def mask(self) -> Tensor:
        """The choice as a bool mask, shape (n,), on the losses' device."""
        mask = torch.zeros(self.n, dtype=torch.bool, device=self.indices.device)
        mask[self.indices] = True
        return mask

    @property
    def solution(self) -> Solution:
        """The solver's answer. After a fallback it is the one that held no subset."""
        if not isinstance(self._solution, Solution):
            self._solution = self._solution()
        return self._solution

    def __len__(self) -> int:
        return self.indices.shape[0]

    def __repr__(self) -> str:
        notes = f", excluded={self.excluded}" if self.excluded else ""
        notes += f", fallback={self.fallback!r}" if self.fallback else ""
        return f"Picked({len(self)} of {self.n}{notes})"
