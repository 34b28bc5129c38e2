"""Arguments that several rooms share: their types and checks, and the rank of this process."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

import subsetopt as so
from subsetopt.inputs import is_integer
from subsetopt.policies.parts.sample_ids import id_array
from subsetopt.problem import Quotas

__all__ = [
    "Autocast",
    "Constraints",
    "Ids",
    "Signal",
    "as_ids",
    "check_size",
    "check_state",
    "checked_seed",
    "process_rank",
]

# Makes the context that a forward runs in, for example one of ``torch.autocast``.
Autocast: TypeAlias = Callable[[], AbstractContextManager[object]]

# Sample ids, shape (n,): integers, strings or bytes.
Ids: TypeAlias = Tensor | NDArray[Any] | Sequence[int] | Sequence[str] | Sequence[bytes]

# A signal: something known about each sample of a batch, one row per sample; None if unknown.
Signal: TypeAlias = Tensor | ArrayLike | None

# Constraints by the names that ``subsetopt.Problem`` has for them.
Constraints: TypeAlias = Mapping[str, Tensor | ArrayLike | Quotas | None]


def as_ids(ids: Ids) -> Tensor | NDArray[Any]:
    """Return ids as a tensor where they are one, and else as an array in which each is kept."""
    return ids if isinstance(ids, Tensor) else id_array(ids)


def checked_seed(seed: object) -> int:
    """Return a nonnegative int; one is drawn for None.

    Raises
    ------
    OptionError
        If the seed is anything else.
    """
    if seed is None:
        return secrets.randbits(62)
    if not is_integer(seed) or seed < 0:
        raise so.OptionError(
            f"seed must be a nonnegative int or None, got {seed!r}: a selector derives the seed "
            "of every step and rank from it."
        )
    return int(seed)


def check_state(owner: str, state: Mapping[str, object], names: Iterable[str]) -> None:
    """Raise unless a saved state has every entry that its owner needs.

    Raises
    ------
    OptionError
        If it is no dict, or with the names of the entries that it lacks.
    """
    if not isinstance(state, Mapping):
        raise so.OptionError(
            f"a {owner} state is a dict, got {type(state).__name__}: pass what state_dict() "
            "returned."
        )
    missing = set(names) - set(state)
    if missing:
        raise so.OptionError(f"the {owner} state lacks {sorted(missing)}.")


def check_size(rate: float | None, k: int | None) -> None:
    """Raise unless exactly one of rate and k is given, and is in its range.

    Raises
    ------
    ProblemError
        If both or none are given, rate is not in [0, 1], or k is no integer of at least 0.
    """
    if (rate is None) == (k is None):
        raise so.ProblemError(
            f"pass rate (a fraction of each batch) or k (a count), one of them; got rate={rate!r}, "
            f"k={k!r}."
        )
    if rate is not None:
        so.size_from_rate(1, rate)
    elif not is_integer(k) or k < 0:
        raise so.ProblemError(f"k must be an integer >= 0, got {k!r}; for a fraction use rate.")


def process_rank(rank: int | None = None) -> int:
    """Return a rank that is given, or else that of this process in ``torch.distributed``.

    The rank is 0 where ``torch.distributed`` is not initialized.
    """
    if rank is not None:
        return rank
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    return 0
