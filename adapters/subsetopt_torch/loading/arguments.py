"""Checks of what a batch sampler is made with and told."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset

import subsetopt as so
from subsetopt.policies import Policy, list_policies, to_host

__all__ = ["check_needs", "checked_count", "data_size", "ids_on_host"]

# What is known of samples that nobody has looked at.
_KNOWN = frozenset({"ids", "positions"})


def data_size(data: Any) -> int:
    """Return the number of samples of a map-style data set, or the number itself.

    Raises
    ------
    OptionError
        If it is neither, or there is no sample.
    """
    if isinstance(data, IterableDataset):
        raise so.OptionError(
            f"{type(data).__name__} is an iterable data set: its samples cannot be chosen before "
            "they are loaded. Choose within each batch, with BatchSelector or SelectiveStep."
        )
    if not isinstance(data, (int, np.integer)):
        sized = hasattr(data, "__len__") and hasattr(data, "__getitem__")
        if not sized or isinstance(data, (tuple, dict, str)):
            raise so.OptionError(
                "data must be a map-style data set (with __len__ and __getitem__) or the number of "
                f"samples, got {type(data).__name__}."
            )
        data = len(data)
    if isinstance(data, bool) or data < 1:
        raise so.OptionError(f"there must be at least 1 sample to choose from, got {data!r}.")
    return int(data)


def checked_count(name: str, value: object) -> int:
    """Return an option that is a count.

    Raises
    ------
    OptionError
        If it is not an integer of at least 1.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise so.OptionError(f"{name} must be an integer >= 1, got {value!r}.")
    return int(value)


def check_needs(policy: Policy, name: str) -> None:
    """Raise if a policy needs to know more of the candidates than their ids.

    Raises
    ------
    OptionError
        With the policies that do not.
    """
    missing = frozenset(policy.requires) - _KNOWN
    if missing:
        able = [spec.name for spec in list_policies() if set(spec.requires) <= _KNOWN]
        raise so.OptionError(
            f"policy {name!r} needs {', '.join(sorted(missing))} of every candidate, and before "
            f"anything is loaded only ids are known. Policies that choose by ids alone: "
            f"{', '.join(able)}. Within a batch, use BatchSelector or SelectiveStep."
        )


def ids_on_host(ids: Any) -> NDArray[np.int64]:
    """Return the ids of a batch as int64 on the host.

    Raises
    ------
    ProblemError
        If they are not a vector of integers.
    """
    array = to_host(ids if isinstance(ids, (Tensor, np.ndarray)) else np.asarray(ids))
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise so.ProblemError(
            f"ids must be a vector of integers, got shape {array.shape} and dtype {array.dtype}; "
            "pass the ids that the data set returns, for example those of WithIds."
        )
    return array.astype(np.int64, copy=False)
