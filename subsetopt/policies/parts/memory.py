"""The memory of policies that choose by what they know of a sample: its latest loss, by id."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from subsetopt.errors import ProblemError
from subsetopt.inputs import checked_count, is_integer
from subsetopt.policies.arrays import Array, to_host
from subsetopt.policies.base import Feedback, Signals, StatelessPolicy, signal
from subsetopt.policies.parts.sample_ids import checked_ids
from subsetopt.policies.parts.saved_state import SavedState

__all__ = ["LossMemory", "RememberingPolicy", "positions_below"]

# Ids below this number have a place of their own in an array, which takes at most 32 MiB for them.
_NEAR = 1 << 22
# Larger ids get such places, too, where there is at least one id to this number of places, so that
# an array takes at most 128 bytes per id.
_SPREAD = 16
# The number of ids without a place from which on it is looked for such ids among them.
_MANY = 1 << 14
# Ids that are integers lie below this number, and not below its negative.
_END = 1 << 63
# The largest magnitude of a loss that is remembered, since losses are ranked in single precision.
_LARGEST = float(np.finfo(np.float32).max)


class LossMemory:
    """The latest loss of every sample, by id.

    Small integers, and larger ones that lie densely (positions in a large data set), have a place
    each in an array: 8 bytes per sample. Any other id (hashes, strings, bytes) is looked up in a
    dict, which takes some 150 bytes per id seen. Which of the two it is changes no loss.

    Attributes
    ----------
    size
        The length of the array: for small ids, one more than the largest id seen.

    Examples
    --------
    >>> memory = LossMemory()
    >>> memory.record(np.array([3, 0, 2**40]), np.array([0.5, 2.0, 4.0]))
    >>> memory.of(np.array([0, 1, 3, 2**40])), memory.size
    (array([2. , nan, 0.5, 4. ]), 4)
    """

    __slots__ = ("_losses", "_others", "_widen_at", "size")

    def __init__(self) -> None:
        self._losses = np.empty(0)
        self._others: dict[int | str | bytes, float] = {}
        self._widen_at = _MANY
        self.size = 0

    def of(self, ids: NDArray[Any]) -> NDArray[np.float64]:
        """Return the latest loss of each id, float64; NaN for samples never seen."""
        if ids.dtype.kind == "O":
            return self._looked_up(ids)
        losses = np.full(ids.size, np.nan)
        inside = _below(ids, self.size)
        losses[inside] = self._losses[ids[inside]]
        if self._others and not inside.all():
            losses[~inside] = self._looked_up(ids[~inside])
        return losses

    def first(self, n: int) -> NDArray[np.float64]:
        """Return the latest losses of the ids 0 to n-1, a new array; NaN for samples never seen.

        Ids below n are positions in a data set then, and have places in the array from now on.
        """
        if n > max(self.size, _NEAR):
            self._widen(n)
        losses = np.full(n, np.nan)
        known = min(n, self.size)
        losses[:known] = self._losses[:known]
        return losses

    def record(self, ids: NDArray[Any], losses: NDArray[np.float64]) -> None:
        """Take up losses; where an id occurs twice, its last loss counts."""
        if ids.dtype.kind != "O":
            end = _end(ids)
            if end <= max(self.size, _NEAR):
                self._put(ids, losses, end)
                return
            near = self._have_places(ids)
            if ids.size - np.count_nonzero(near) >= _MANY:
                self._widen_for(ids[~near])
                near = self._have_places(ids)
            self._put(ids[near], losses[near], _end(ids[near]))
            ids, losses = ids[~near], losses[~near]
        self._others.update(zip(ids.tolist(), losses.tolist(), strict=True))
        if len(self._others) >= self._widen_at:
            self._widen_for(np.array([i for i in self._others if isinstance(i, int)], np.int64))
            self._widen_at = max(_MANY, 2 * len(self._others))

    def state(self) -> dict[str, list[Any]]:
        """Return the losses as plain values, which ``torch.load`` reads without trusting them.

        ``losses`` is the array; ``other_losses`` belong to ``other_ids``, integers and strings, and
        then to ``byte_ids``, which are bytes decoded by Latin-1.
        """
        texts = [i for i in self._others if not isinstance(i, bytes)]
        raw = [i for i in self._others if isinstance(i, bytes)]
        return {
            "losses": self._losses[: self.size].tolist(),
            "other_ids": texts,
            "byte_ids": [i.decode("latin-1") for i in raw],
            "other_losses": [self._others[i] for i in [*texts, *raw]],
        }

    @classmethod
    def of_state(cls, saved: SavedState) -> LossMemory:
        """Return the memory that ``state`` was taken of.

        Raises
        ------
        OptionError
            If an entry is malformed.
        """
        memory = cls()
        memory._losses = saved.vector("losses", low=-_LARGEST, high=_LARGEST, nan=True)
        memory.size = memory._losses.size
        others = [*_saved_ids(saved), *_saved_bytes(saved)]
        losses = saved.vector("other_losses", len(others), low=-_LARGEST, high=_LARGEST)
        memory._others = dict(zip(others, losses.tolist(), strict=True))
        if len(memory._others) < len(others):
            raise saved.error("other_ids", "ids that are distinct", saved["other_ids"])
        memory._widen_at = max(_MANY, 2 * len(others))
        return memory

    def _looked_up(self, ids: NDArray[Any]) -> NDArray[np.float64]:
        losses = (self._others.get(i, math.nan) for i in ids.tolist())
        return np.fromiter(losses, np.float64, ids.size)

    def _have_places(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which integers have places in the array, or get them when they are recorded."""
        return _below(ids, max(self.size, _NEAR))

    def _put(self, ids: NDArray[np.int64], losses: NDArray[np.float64], end: int) -> None:
        """Record losses of ids below ``end`` in the array."""
        self._extend(end)
        self._losses[ids] = losses

    def _extend(self, size: int) -> None:
        """Have the array be no shorter than this."""
        if size > self._losses.size:
            self._losses = np.append(self._losses[: self.size], np.full(size, np.nan))
        self.size = max(self.size, size)

    def _widen_for(self, ids: NDArray[np.int64]) -> None:
        """Give these ids places in the array, as far as they lie densely enough."""
        ids = np.unique(ids[ids >= 0])
        ends = max(self.size, _NEAR) + _SPREAD * np.arange(1, ids.size + 1)
        dense = np.flatnonzero(ids < ends)
        if dense.size:
            self._widen(int(ends[dense[-1]]))

    def _widen(self, size: int) -> None:
        """Extend the array to this size, and move ids from the dict to it."""
        moved = [i for i in self._others if isinstance(i, int) and 0 <= i < size]
        self._extend(size)
        self._losses[moved] = [self._others.pop(i) for i in moved]


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
        return {**self.memory.state(), "step": self.step, **self._own_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the state was taken.

        Raises
        ------
        OptionError
            If the state was saved by another policy, or is malformed; nothing is then loaded.
        """
        saved = SavedState(self.name, state, self.state_dict())
        memory, step = LossMemory.of_state(saved), saved.integer("step")
        self._load_own_state(saved, step)
        self.memory, self.step = memory, step

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
    def _changed(self, ids: NDArray[Any], losses: NDArray[np.float64]) -> None:
        """Follow the memory, which has taken up these losses of these ids."""

    @property
    def _progress(self) -> float:
        """The part of ``steps`` that is over, from 0 to 1; 0 without such a number."""
        return 0.0 if self.steps is None else min(1.0, self.step / self.steps)

    def _candidates(self, signals: Signals) -> NDArray[Any]:
        return checked_ids(signal(signals, "ids", self.name))

    def _learn(self, ids: Array, losses: Array) -> None:
        known_ids = checked_ids(ids)
        known_losses = _checked_losses(losses, known_ids)
        self.memory.record(known_ids, known_losses)
        self._changed(known_ids, known_losses)


def positions_below(n: int, ids: NDArray[Any]) -> NDArray[np.int64]:
    """Return those of some ids that are positions in a data set of n samples."""
    return np.empty(0, dtype=np.int64) if ids.dtype.kind == "O" else ids[_below(ids, n)]


def _end(ids: NDArray[np.int64]) -> int:
    """Return one more than the largest id; beyond all of them if one is negative."""
    return int(ids.view(np.uint64).max()) + 1 if ids.size else 0


def _below(ids: NDArray[np.int64], n: int) -> NDArray[np.bool_]:
    """Return which ids lie from 0 to n-1."""
    # Negative numbers are the largest ones without a sign, which saves a comparison.
    return ids.view(np.uint64) < np.uint64(n)


def _saved_ids(saved: SavedState) -> list[int | str]:
    ids = saved.sequence("other_ids")
    for i in ids:
        if not isinstance(i, str) and not (is_integer(i) and -_END <= i < _END and i != -1):
            raise saved.error("every entry of other_ids", "a 64-bit integer or a string", i)
    return [i if isinstance(i, str) else int(i) for i in ids]


def _saved_bytes(saved: SavedState) -> list[bytes]:
    try:
        return [text.encode("latin-1") for text in saved.texts("byte_ids")]
    except UnicodeEncodeError:
        raise saved.error("byte_ids", "bytes decoded by Latin-1", saved["byte_ids"]) from None


def _checked_losses(losses: Array, ids: NDArray[Any]) -> NDArray[np.float64]:
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
