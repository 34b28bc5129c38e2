"""One iteration over a batch sampler, for loaders that save the states of iterators."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from subsetopt_torch.arguments import check_state

__all__ = ["BatchIterator", "BatchSource"]


class BatchSource(Protocol):
    """A sampler, as far as an iteration needs it."""

    @property
    def selections(self) -> int:
        """How many batches were handed out in all epochs."""

    def batches(self) -> Iterator[list[int]]:
        """Yield the batches of one epoch."""

    def skip_until(self, selection: int) -> None:
        """Take batches as delivered up to a number of selections."""


class BatchIterator(Iterator[list[int]]):
    """The batches of one iteration over a sampler, with a state for loaders that save their own.

    Parameters
    ----------
    sampler
        The sampler that chooses the batches.
    """

    def __init__(self, sampler: BatchSource) -> None:
        self._sampler = sampler
        self._batches = sampler.batches()

    def __iter__(self) -> BatchIterator:
        return self

    def __next__(self) -> list[int]:
        return next(self._batches)

    def state_dict(self) -> dict[str, Any]:
        """Return how many batches the sampler had handed out."""
        return {"selections": self._sampler.selections}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the batches that were handed out, in a sampler that has loaded its state.

        Raises
        ------
        OptionError
            If the state is incomplete.
        """
        check_state("iterator", state, ("selections",))
        self._sampler.skip_until(int(state["selections"]))
