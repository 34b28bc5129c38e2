"""Saved states: every entry is checked before anything is loaded."""

from __future__ import annotations

import contextlib
import copy
import math
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from subsetopt.errors import OptionError
from subsetopt.inputs import is_integer, is_number
from subsetopt.policies.base import Policy

__all__ = ["SavedState", "load_policies"]

Kind: TypeAlias = Literal["integer", "number", "flag"]

# Counters of steps and samples fit into 63 bits.
_MOST = 2**63 - 1


class SavedState:
    """The entries of a saved state, each checked when it is read.

    Parameters
    ----------
    owner
        Whose state it is, in the words of the messages: ``"importance"``, ``"the selector"``.
    state
        What is to be loaded.
    names
        The entries that it must have.
    exactly
        Whether it may have no others (the default).

    Raises
    ------
    OptionError
        If it is no dict, or lacks an entry or has another.
    """

    def __init__(
        self, owner: str, state: object, names: Iterable[str], *, exactly: bool = True
    ) -> None:
        self.owner = owner
        if not isinstance(state, Mapping):
            raise OptionError(
                f"a state of {owner} is a dict, got {reprlib.repr(state)}: pass what state_dict() "
                "returned."
            )
        expected = sorted(names)
        if exactly and set(state) != set(expected):
            raise OptionError(
                f"a state of {owner} holds {expected}, the state to load "
                f"{sorted(map(str, state))}: it was saved by another policy."
            )
        missing = [name for name in expected if name not in state]
        if missing:
            raise OptionError(f"the state of {owner} lacks {missing}.")
        self._state = state

    def __getitem__(self, name: str) -> Any:
        return self._state[name]

    def error(self, name: str, expected: str, value: object) -> OptionError:
        """Return the error that an entry is not what it has to be."""
        return OptionError(
            f"the state of {self.owner} is malformed: {name} must be {expected}, got "
            f"{reprlib.repr(value)}."
        )

    def integer(self, name: str, least: int = 0, most: int | None = _MOST) -> int:
        """Return an entry that is an integer from ``least`` to ``most``, if that is no None."""
        value = self[name]
        if not is_integer(value) or value < least or (most is not None and value > most):
            bound = f">= {least}" if most in (_MOST, None) else f"from {least} to {most}"
            raise self.error(name, f"an integer {bound}", value)
        return int(value)

    def number(self, name: str, low: float = -math.inf, high: float = math.inf) -> float:
        """Return an entry that is a finite number from ``low`` to ``high``."""
        value = self[name]
        if not _is_finite(value) or not low <= value <= high:
            raise self.error(name, _range(low, high), value)
        return float(value)

    def number_or_none(self, name: str, low: float = -math.inf) -> float | None:
        """Return an entry that is None, or a finite number of at least ``low``."""
        return None if self[name] is None else self.number(name, low)

    def flag(self, name: str) -> bool:
        """Return an entry that is True or False."""
        value = self[name]
        if not isinstance(value, (bool, np.bool_)):
            raise self.error(name, "True or False", value)
        return bool(value)

    def sequence(self, name: str, size: int | None = None) -> Sequence[Any]:
        """Return an entry that is a list or tuple, of a given length if there is one."""
        value = self[name]
        if not isinstance(value, (list, tuple)) or size not in (None, len(value)):
            raise self.error(name, "a list" + ("" if size is None else f" of {size}"), value)
        return value

    def text(self, name: str) -> str:
        """Return an entry that is a string."""
        value = self[name]
        if not isinstance(value, str):
            raise self.error(name, "a string", value)
        return value

    def texts(self, name: str) -> list[str]:
        """Return an entry that is a list of strings."""
        values = self.sequence(name)
        if not all(isinstance(value, str) for value in values):
            raise self.error(name, "a list of strings", values)
        return list(values)

    def integers(self, name: str, size: int) -> tuple[int, ...]:
        """Return an entry that is a list of integers of at least 0."""
        values = self.sequence(name, size)
        if not all(_is("integer", value) for value in values):
            raise self.error(name, f"{size} integers >= 0", values)
        return tuple(map(int, values))

    def vector(
        self,
        name: str,
        size: int | None = None,
        *,
        low: float = -math.inf,
        high: float = math.inf,
        nan: bool = False,
    ) -> NDArray[np.float64]:
        """Return an entry that is a list of finite numbers, and perhaps NaN, as float64."""
        values = self.sequence(name, size)
        if not all(is_number(value) for value in values):
            raise self.error(name, "a list of numbers", values)
        array = _as_float64(values)
        good = np.isfinite(array) & (array >= low) & (array <= high)
        if nan:
            good |= np.isnan(array)
        if not good.all():
            worst = values[int(np.flatnonzero(~good)[0])]
            raise self.error(f"every entry of {name}", _range(low, high), worst)
        return array

    def rows(self, name: str, *kinds: Kind) -> list[tuple[Any, ...]]:
        """Return an entry that is a list of rows, each with one entry of each kind.

        Integers are at least 0, numbers finite.
        """
        rows = []
        for row in self.sequence(name):
            if not isinstance(row, (list, tuple)) or len(row) != len(kinds):
                raise self.error(f"every row of {name}", f"{len(kinds)} entries", row)
            if not all(_is(kind, value) for kind, value in zip(kinds, row, strict=True)):
                raise self.error(f"every row of {name}", " and ".join(kinds), row)
            rows.append(tuple(_TYPES[kind](value) for kind, value in zip(kinds, row, strict=True)))
        return rows


def load_policies(policies: Sequence[Policy], states: Sequence[Any], owner: str) -> None:
    """Load states into policies, all of them or none.

    Parameters
    ----------
    policies
        The policies.
    states
        Their states, in the same order.
    owner
        Whose policies they are, in the words of the message.

    Raises
    ------
    OptionError
        If a policy does not take its state; all policies are then as they were.
    """
    before = [copy.deepcopy(policy.state_dict()) for policy in policies]
    try:
        for policy, state in zip(policies, states, strict=True):
            policy.load_state_dict(state)
    except Exception as error:
        for policy, state in zip(policies, before, strict=True):
            with contextlib.suppress(Exception):
                policy.load_state_dict(state)
        if isinstance(error, OptionError):
            raise
        raise OptionError(
            f"the state of {owner} is malformed: {type(error).__name__}: {error}"
        ) from error


_TYPES: dict[Kind, Any] = {"integer": int, "number": float, "flag": bool}


def _is(kind: Kind, value: object) -> bool:
    if kind == "integer":
        return is_integer(value) and 0 <= value <= _MOST
    return _is_finite(value) if kind == "number" else isinstance(value, (bool, np.bool_))


def _is_finite(value: Any) -> bool:
    if not is_number(value):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond float64
        return False


def _as_float64(values: Sequence[Any]) -> NDArray[np.float64]:
    """Return numbers as float64; an int beyond it becomes infinite."""
    try:
        return np.array(values, dtype=np.float64)
    except OverflowError:
        return np.array([value if _is_finite(value) else math.inf for value in values])


def _range(low: float, high: float) -> str:
    words = "a finite number"
    if low > -math.inf:
        words += f" of at least {low:g}"
    return words + (f" and at most {high:g}" if high < math.inf else "")
