"""A loader that saves its own state, as that of torchdata does, without being it."""

from __future__ import annotations

import copy
from typing import Any

import subsetopt_torch as st

__all__ = ["StatefulLoader"]


class StatefulLoader:
    """As torchdata's loader: fetches ahead, and keeps the states of when it asked for a batch."""

    def __init__(self, sampler: st.SubsetBatchSampler, ahead: int, state: Any = None) -> None:
        self.sampler, self.ahead = sampler, ahead
        if state is not None:
            sampler.load_state_dict(state["sampler"])
        self.batches = iter(sampler)
        if state is not None:
            self.batches.load_state_dict(state["iterator"])
        self.state: Any = None

    def __iter__(self) -> Any:
        queue: list[Any] = []
        for batch in self.batches:
            state = {
                "sampler": self.sampler.state_dict(),
                "iterator": self.batches.state_dict(),
            }
            queue.append((batch, copy.deepcopy(state)))
            if len(queue) > self.ahead:
                batch, self.state = queue.pop(0)
                yield batch
        for batch, self.state in queue:
            yield batch
