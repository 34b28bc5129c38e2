"""Scoring a part of the batch: the candidates that a policy wants to look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

import subsetopt as so
from subsetopt.constraints.labels import labels_of_some
from subsetopt.policies import SelectionState, WithPresample, has, to_host
from subsetopt.policies.arrays import Array
from subsetopt_torch.arguments import Signal
from subsetopt_torch.model.batches import take
from subsetopt_torch.selection.constraints import Rules, included_rows
from subsetopt_torch.selection.named_policy import NamedPolicy

__all__ = ["Presample", "presampled"]


@dataclass(frozen=True, eq=False, slots=True)
class Presample:
    """The candidates of a batch that get the scoring pass.

    Attributes
    ----------
    positions
        Where the candidates stand in the batch, shape (m,), int64, ascending and distinct, on the
        host.
    n
        The size of the batch.
    """

    positions: NDArray[np.int64]
    n: int

    def __len__(self) -> int:
        return self.positions.size

    def on(self, device: torch.device | str) -> torch.Tensor:
        """Return the positions as a tensor on a device, shape (m,), int64."""
        return torch.from_numpy(self.positions).to(device)

    def rows(self, signals: Mapping[str, Signal]) -> dict[str, Any]:
        """Return signals of the whole batch, cut down to these candidates.

        A signal that does not have n rows is passed on as it is; the selector refuses it.
        """
        indices = torch.from_numpy(self.positions)
        return {name: take(value, indices, self.n) for name, value in signals.items()}

    def rules(self, rules: Rules) -> Rules:
        """Return constraints on the whole batch as constraints on these candidates.

        Groups and costs keep the rows of these candidates. Indices to include or exclude become
        positions among them, and indices of other samples are dropped. Quotas and capacity stay
        what they are.

        Raises
        ------
        ProblemError
            If a constraint does not fit a batch of n.
        """
        if not rules:
            return {}
        whole = so.Problem(so.TopScores(np.zeros(self.n)), 0, **rules)
        cut = {
            "include": self._within(whole.include),
            "exclude": self._within(whole.exclude),
            "groups": self._labels(whole),
            "quotas": whole.quotas,
            "costs": None if whole.costs is None else whole.costs[self.positions],
            "capacity": whole.capacity,
        }
        kept = {name: value for name, value in cut.items() if value is not None}
        return cast(Rules, kept)

    def _labels(self, whole: so.Problem) -> NDArray[Any] | None:
        """Return the labels of these candidates."""
        if whole.groups is None or whole.quotas is None:
            return None if whole.groups is None else whole.groups[self.positions]
        return labels_of_some(whole.groups, list(whole.quotas), self.positions)

    def _within(self, indices: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
        """Return the numbers among these candidates of those that ``indices`` names."""
        return None if indices is None else np.flatnonzero(np.isin(self.positions, indices))


def presampled(
    named: NamedPolicy,
    state: SelectionState,
    stream: Callable[[], np.random.Generator],
    rules: Rules,
) -> Presample | None:
    """Return the candidates that a policy wants scored; None when it wants all of them.

    Parameters
    ----------
    named
        The policy, whose optional method ``presample(state, rng)`` is asked.
    state
        The step, the size n of the batch, and the number k to choose.
    stream
        Makes the random stream of the policy's draw, which takes 15 us: only where it draws.
    rules
        The constraints on the whole batch; what they include is among the candidates.

    Raises
    ------
    ProblemError
        If the positions are not distinct integers in [0, n), in one dimension.
    """
    policy = named.policy
    drawn = policy.presample(state, stream()) if has(policy, WithPresample) else None
    if drawn is None:
        return None
    positions = _checked(to_host(drawn), named.name, state.n)
    return Presample(np.union1d(positions, included_rows(rules, state.n)), state.n)


def _checked(drawn: Array, name: str, n: int) -> NDArray[np.int64]:
    array = np.asarray(drawn)
    expected = f"presample of the policy {name!r} must return distinct positions in [0, {n})"
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise so.ProblemError(f"{expected}, got shape {array.shape} and dtype {array.dtype}.")
    positions = np.unique(array).astype(np.int64)
    if not positions.size:
        raise so.ProblemError(f"{expected}, got none; to look at all of them return None.")
    if not 0 <= positions[0] <= positions[-1] < n:
        wrong = positions[0] if positions[0] < 0 else positions[-1]
        raise so.ProblemError(f"{expected}, got {wrong}.")
    if positions.size != array.size:
        raise so.ProblemError(f"{expected}, got {array.size} with {positions.size} distinct ones.")
    return positions
