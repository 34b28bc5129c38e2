"""What a selector hands to the training loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from subsetopt import Problem, Solution, TopScores, solve
from subsetopt_torch.model.losses import weight_dtype
from subsetopt_torch.selection.transfer import ordinary_tensors

__all__ = ["Origin", "Picked", "first_of"]


class Origin(NamedTuple):
    """Which selection a pick comes from.

    Attributes
    ----------
    step
        The number of the selection, counted from 0.
    ids
        The ids of the picked samples, shape (k,); None where the selector got none.
    is_scored
        Whether the losses of the candidates were known.
    """

    step: int
    ids: NDArray[Any] | None
    is_scored: bool


class Picked:
    """The samples to train on: ``(loss_fn(model(x[indices]), y[indices]) * weights).sum()``.

    Attributes
    ----------
    indices
        Chosen positions in the batch, shape (k,), int64, sorted, on the losses' device.
    weights
        Training weight of each, shape (k,), in the losses' dtype and at least float32.
    n
        Number of candidates: the size of the batch.
    excluded
        Number of samples left out because their loss was not finite (``nonfinite="exclude"``).
    fallback
        None, or why the samples are a uniform draw and not the answer of the solver.
    origin
        Which selection it was; None where no selector made it.
    """

    __slots__ = ("_solution", "excluded", "fallback", "indices", "n", "origin", "weights")

    def __init__(
        self,
        indices: Tensor,
        weights: Tensor,
        n: int,
        solution: Solution | Callable[[], Solution],
        excluded: int = 0,
        fallback: str | None = None,
        origin: Origin | None = None,
    ) -> None:
        self.indices = indices
        self.weights = weights
        self.n = n
        self.excluded = excluded
        self.fallback = fallback
        self.origin = origin
        self._solution = solution

    @property
    def mask(self) -> Tensor:
        """The choice as a bool mask, shape (n,), on the losses' device."""
        mask = torch.zeros(self.n, dtype=torch.bool, device=self.indices.device)
        mask[self.indices] = True
        return mask

    @property
    def solution(self) -> Solution:
        """The solver's answer; after a fallback, the answer that held no subset.

        Where the policy presamples, the indices count among the candidates that were scored, and
        where it weighs, the weights are still the solver's own.
        """
        if not isinstance(self._solution, Solution):
            self._solution = self._solution()
        return self._solution

    def capped(self, limit: float) -> Picked:
        """Return the pick with every weight above a limit cut down to it."""
        weights = self.weights.clamp(max=limit)
        values = (self.indices, weights, self.n, self._solution, self.excluded, self.fallback)
        return Picked(*values, self.origin)

    def __len__(self) -> int:
        return self.indices.shape[0]

    def __reduce__(self) -> tuple[object, ...]:
        """Return what a copy or another process makes the pick from, with its solution."""
        values = (self.indices, self.weights, self.n, self.solution, self.excluded, self.fallback)
        return Picked, (*values, self.origin)

    def __repr__(self) -> str:
        notes = f", excluded={self.excluded}" if self.excluded else ""
        notes += f", fallback={self.fallback!r}" if self.fallback else ""
        return f"Picked({len(self)} of {self.n}{notes})"


def first_of(
    k: int, n: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Picked:
    """Return the pick of the first k of n candidates, with equal weights, without any solver."""
    with ordinary_tensors():
        indices = torch.arange(k, device=device)
        weights = torch.full((k,), 1.0 / k if k else 0.0, device=device, dtype=weight_dtype(dtype))
    return Picked(indices, weights, n, lambda: solve(Problem(TopScores(np.zeros(n)), k)))
