"""Checks of what a batch sampler is made with and told."""

from __future__ import annotations

import numpy as np
from torch.utils.data import IterableDataset

import subsetopt as so
from subsetopt.inputs import is_integer
from subsetopt.policies import list_policies
from subsetopt_torch.loading.map_style import MapStyle, is_map_style
from subsetopt_torch.selection.named_policy import NamedPolicy

__all__ = ["check_needs", "data_size"]

# Signals that are known of samples before anything is loaded.
_KNOWN = frozenset({"ids", "positions"})


def data_size(data: MapStyle | int) -> int:
    """Return the number of samples of a map-style data set, or the number itself.

    Raises
    ------
    OptionError
        If ``data`` is neither, or there is no sample.
    """
    if isinstance(data, IterableDataset):
        raise so.OptionError(
            f"{type(data).__name__} is an iterable data set: its samples cannot be chosen before "
            "they are loaded. Choose within each batch, with BatchSelector or SelectiveStep."
        )
    size: object = data
    if not isinstance(data, (int, np.integer)):
        if not is_map_style(data) or isinstance(data, (tuple, dict, str)):
            raise so.OptionError(
                "data must be a map-style data set (with __len__ and __getitem__) or the number of "
                f"samples, got {type(data).__name__}."
            )
        size = len(data)
    if not is_integer(size) or size < 1:
        raise so.OptionError(f"there must be at least 1 sample to choose from, got {size!r}.")
    return int(size)


def check_needs(named: NamedPolicy) -> None:
    """Raise if a policy needs to know more about the candidates than their ids.

    Raises
    ------
    OptionError
        With the names of the policies that need no more.
    """
    missing = frozenset(named.policy.requires) - _KNOWN
    if missing:
        able = [spec.name for spec in list_policies() if set(spec.requires) <= _KNOWN]
        raise so.OptionError(
            f"policy {named.name!r} needs {', '.join(sorted(missing))} of every candidate, and "
            f"before anything is loaded only ids are known. Policies that choose by ids alone: "
            f"{', '.join(able)}. Within a batch, use BatchSelector or SelectiveStep."
        )
