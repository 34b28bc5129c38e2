"""Quotas in normal form: how many candidates of each group a subset may have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subsetopt.constraints.labels import codes_of

__all__ = ["GroupQuotas"]


@dataclass(frozen=True, eq=False, slots=True)
class GroupQuotas:
    """How many candidates of each group a subset may have.

    Attributes
    ----------
    codes
        Group number of every candidate, shape (n,); the last number is the group of all labels
        without a quota.
    low, high
        Least and greatest count of each group, shape (groups,), both inclusive.
    labels
        Label of each group number but the last, for messages.
    """

    codes: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    labels: tuple[Any, ...]

    @classmethod
    def of(cls, groups: NDArray[Any], quotas: Mapping[Any, tuple[int, int]]) -> GroupQuotas:
        """Return the normal form of labels (n,) and of a range of counts per label.

        Raises
        ------
        ProblemError
            If a label cannot be one of the groups, see :func:`codes_of`.
        """
        labels = tuple(quotas)
        codes = codes_of(groups, labels)
        most = groups.size
        low = np.array([min(quotas[label][0], most + 1) for label in labels] + [0], dtype=np.int64)
        high = np.array([min(quotas[label][1], most + 1) for label in labels] + [most], np.int64)
        return cls(codes, low, high, labels)

    @classmethod
    def unlimited(cls, n: int) -> GroupQuotas:
        """Return the quotas of one group that holds all n candidates and may have any count."""
        return cls(np.zeros(n, dtype=np.int64), np.array([0]), np.array([n]), ())

    @property
    def size(self) -> int:
        """The number of groups."""
        return self.low.size

    def counts(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many of the candidates ``indices`` each group has, shape (groups,)."""
        return np.bincount(self.codes[indices], minlength=self.low.size)

    def after(self, indices: NDArray[np.int64]) -> GroupQuotas:
        """Return the quotas of what is chosen besides the candidates ``indices``.

        A greatest count is negative where these exceed it.
        """
        if not indices.size:
            return self
        counts = self.counts(indices)
        low = np.maximum(self.low - counts, 0)
        return GroupQuotas(self.codes, low, self.high - counts, self.labels)

    def violations(self, indices: NDArray[np.int64]) -> list[str]:
        """Return every quota that the candidates ``indices`` break, in words."""
        counts = self.counts(indices)
        return [
            f"{counts[code]} of group {label!r} chosen, its quota is "
            f"({self.low[code]}, {self.high[code]})"
            for code, label in enumerate(self.labels)
            if not self.low[code] <= counts[code] <= self.high[code]
        ]
