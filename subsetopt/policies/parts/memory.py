"""The memory of policies that choose by what they know of a sample: its latest loss, by id."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from subsetopt.errors import ProblemError
from subsetopt.inputs import checked_count
from subsetopt.policies.arrays import Array, to_host
from subsetopt.policies.base import Feedback, Signals, StatelessPolicy, signal
from subsetopt.policies.parts.saved_state import SavedState

__all__ = ["LossMemory", "RememberingPolicy", "checked_ids"]

# Ids lie below this number. The memory is an array indexed by id, so that a larger id, which is
# surely a mistake, would take 16 GiB and more.
_MOST_IDS = 1 << 31
# The largest magnitude of a loss that is remembered, since losses are ranked in single precision.
_LARGEST = float(np.finfo(np.float32).max)


class LossMemory:
    """The latest loss of every sample, by id.

    It is an array that grows to the largest id seen, and takes 8 bytes per sample.

    Attributes
    ----------
    size
        One more than the largest id seen.

    Examples
    --------
    >>> memory = LossMemory()
    >>> memory.record(np.array([3, 0]), np.array([0.5, 2.0]))
    >>> memory.of(np.array([0, 1, 3, 900])), memory.size
    (array([2. , nan, 0.5, nan]), 4)
    """

    __slots__ = ("_losses", "size")

    def __init__(self) -> None:
        self._losses = np.empty(0)
        self.size = 0

    def of(self, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the latest loss of each id, float64; NaN for samples never seen."""
        losses = np.full(ids.size, np.nan)
        inside = ids < self.size
        losses[inside] = self._losses[ids[inside]]
        return losses

    def first(self, n: int) -> NDArray[np.float64]:
        """Return the latest losses of the ids 0 to n-1, a new array; NaN for samples never seen."""
        losses = np.full(n, np.nan)
        known = min(n, self.size)
        losses[:known] = self._losses[:known]
        return losses

    def record(self, ids: NDArray[np.int64], losses: NDArray[np.float64]) -> None:
        """Take up losses; where an id occurs twice, its last loss counts."""
        if not ids.size:
            return
        size = max(self.size, int(ids.max()) + 1)
        if size > self._losses.size:
            self._losses = np.append(self.first(self.size), np.full(size, np.nan))
        self._losses[ids] = losses
        self.size = size

    def to_list(self) -> list[float]:
        """Return the losses as plain numbers, which ``torch.load`` reads without trusting them."""
        return self._losses[: self.size].tolist()  # type: ignore[no-any-return]

    def load(self, losses: NDArray[np.float64]) -> None:
        """Take up what ``to_list`` returned, as an array."""
        self._losses, self.size = losses, losses.size


class RememberingPolicy(StatelessPolicy):
    """The part that policies with a memory of losses by id share.

    They read ids only, so that they need no scoring pass and can choose before anything is loaded.
    A subclass declares ``name`` and writes ``propose``, ``_drawn``, ``_own_state``,
    ``_load_own_state`` and ``_changed``.

    Parameters
    ----------
    steps
        The number of selections over which something changes, at least 1, or None.

    Raises
    ------
    OptionError
        If ``steps`` is neither.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"ids"})
    name: ClassVar[str]

    def __init__(self, steps: int | None) -> None:
        self.steps = checked_count("steps", steps)
        self.memory = LossMemory()
        self.step = 0

    def draw(
        self, n: int, k: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Draw k of the ids 0 to n-1 without stating a problem over all of them.

        Parameters
        ----------
        n, k
            The number of samples, and how many of them to draw; 1 <= k <= n.
        rng
            The only source of randomness.

        Returns
        -------
        tuple
            The ids (k,) and their training weights (k,).
        """
        ids, weights = self._drawn(n, k, rng)
        self.step += 1
        return ids, weights

    def observe(self, feedback: Feedback) -> None:
        """Remember the losses of the samples that were trained on.

        Raises
        ------
        ProblemError
            If there are no ids, or they or the losses are malformed.
        """
        if feedback.ids is None:
            raise ProblemError(
                f"policy {self.name!r} remembers samples by id, and the feedback has no ids: pass "
                "ids= with every batch."
            )
        self._learn(feedback.ids, feedback.losses)

    def refresh(self, ids: Array, losses: Array) -> None:
        """Remember losses that were computed outside training, all of them or some.

        Parameters
        ----------
        ids
            Sample ids, shape (m,).
        losses
            Their losses, shape (m,).

        Raises
        ------
        ProblemError
            If they are malformed.
        """
        self._learn(ids, losses)

    def state_dict(self) -> dict[str, Any]:
        """Return the remembered losses and the number of selections made, as plain values."""
        return {"losses": self.memory.to_list(), "step": self.step, **self._own_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the state was taken.

        Raises
        ------
        OptionError
            If the state was saved by another policy, or is malformed; nothing is then loaded.
        """
        saved = SavedState(self.name, state, self.state_dict())
        losses = saved.vector("losses", low=-_LARGEST, high=_LARGEST, nan=True)
        step = saved.integer("step")
        self._load_own_state(saved, step)
        self.memory.load(losses)
        self.step = step

    @abstractmethod
    def _drawn(
        self, n: int, k: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return what ``draw`` does; ``step`` is still that of this selection."""

    @abstractmethod
    def _own_state(self) -> dict[str, Any]:
        """Return what the subclass adds to the state."""

    @abstractmethod
    def _load_own_state(self, saved: SavedState, step: int) -> None:
        """Check all of what the subclass added to the state, and then take it up.

        ``step`` is the number of selections of the state.
        """

    @abstractmethod
    def _changed(self, ids: NDArray[np.int64], losses: NDArray[np.float64]) -> None:
        """Follow the memory, which has taken up these losses of these ids."""

    @property
    def _progress(self) -> float:
        """The part of ``steps`` that is over, from 0 to 1; 0 without such a number."""
        return 0.0 if self.steps is None else min(1.0, self.step / self.steps)

    def _candidates(self, signals: Signals) -> NDArray[np.int64]:
        return checked_ids(signal(signals, "ids", self.name))

    def _learn(self, ids: Array, losses: Array) -> None:
        known_ids = checked_ids(ids)
        known_losses = _checked_losses(losses, known_ids)
        self.memory.record(known_ids, known_losses)
        self._changed(known_ids, known_losses)


def checked_ids(ids: Array) -> NDArray[np.int64]:
    """Return sample ids as int64 on the host.

    Raises
    ------
    ProblemError
        If they are not a vector of integers from 0 to below 2**31.
    """
    array = to_host(ids)
    if array.ndim != 1:
        raise ProblemError(f"ids must have shape (n,), got {array.shape}; pass one per sample.")
    if array.dtype.kind not in "iu" and array.size:
        raise ProblemError(
            f"ids must be integers that number the samples from 0, got dtype {array.dtype}; pass "
            "positions in the data set."
        )
    if array.size and not (array.min() >= 0 and array.max() < _MOST_IDS):
        worst = array.min() if array.min() < 0 else array.max()
        raise ProblemError(
            f"ids must lie between 0 and 2**31 - 1, got {worst}: losses are remembered in an array "
            "indexed by id. Number the samples from 0."
        )
    return array.astype(np.int64, copy=False)


def _checked_losses(losses: Array, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    array = to_host(losses)
    if array.shape != ids.shape:
        raise ProblemError(
            f"losses must be one per id, shape {ids.shape}, got shape {array.shape}."
        )
    values: NDArray[np.float64] = array.astype(np.float64, copy=False)
    # This refuses NaN, too, for which no comparison holds.
    bad = ~(np.abs(values) <= _LARGEST)
    if bad.any():
        at = int(bad.argmax())
        raise ProblemError(
            f"losses must be finite in single precision, got {values[at]} for id {ids[at]}; leave "
            "out the samples that are not."
        )
    return values
