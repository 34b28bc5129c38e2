"""How the batches of an epoch come about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

import subsetopt as so
from subsetopt.policies import WithDraw, WithEpochOrder, has
from subsetopt.policies.parts.saved_state import SavedState
from subsetopt.problem import size_from_rate
from subsetopt_torch.loading.arguments import PlanOptions
from subsetopt_torch.loading.plans import Plan
from subsetopt_torch.loading.ranks import Ranks, from_first
from subsetopt_torch.loading.recorded_choice import Chosen, RecordedChoice
from subsetopt_torch.selection.answers import training_weights
from subsetopt_torch.selection.named_policy import NamedPolicy

__all__ = ["Choosing"]

# A sample of a plan that the first process sends to the others.
_PLANNED = np.dtype([("ids", np.int64), ("weights", np.float64)])
# The streams of random numbers of an epoch: the order of a pass, the choice of a plan, and its
# order.
_PASS, _CHOICE, _ORDER = 5, 6, 7


@dataclass(frozen=True, slots=True)
class Choosing:
    """Chooses the batches of an epoch: by ids alone, by records, or all samples."""

    named: NamedPolicy  #: the policy
    solve: partial[so.Solution]  #: solves the problems that it states
    n: int  #: the number of samples
    batch_size: int  #: samples per batch
    steps: int | None  #: batches per epoch as the user asked for; None leaves it open
    ranks: Ranks  #: which process this is
    recorded: RecordedChoice | None  #: chooses by records; None where there are none
    asked: PlanOptions  #: what the user wants of records
    first_full: float  #: the first epoch that is a pass over all samples; infinite if none is

    @property
    def candidates(self) -> int | None:
        """The size of the windows that batches are chosen from; None for the whole data set."""
        size = self.asked.candidates
        return None if size is None else min(size, self.n)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The numbers of samples, of samples per batch, and of batches, 0 where plans say so."""
        return self.n, self.batch_size, 0 if self._whole else self.usual_length

    @property
    def mode(self) -> str:
        """What batches are chosen from, in a word that tells states of other samplers apart."""
        if self.recorded is None:
            return "ids"
        return "windows" if self.candidates is not None else self.asked.plan

    @property
    def usual_length(self) -> int:
        """The number of batches of an epoch that is neither a plan of its own nor a full pass."""
        if self.steps is not None:
            return self.steps
        if self.candidates is not None:
            return self._rounds(self.n, self.candidates)
        rate = self.asked.rate
        size = self.n if rate is None else size_from_rate(self.n, rate)
        if self.recorded is None or self._has_order:
            return -(-size // self.batch_size)
        return self._rounds(size, self.batch_size)

    @property
    def largest_batch(self) -> int:
        """The largest number of samples in a batch, also of a policy that sets its own size."""
        if self.recorded is None or self._whole:
            return self.batch_size
        return max(self.batch_size, self.candidates or self.n)

    @property
    def seed_rank(self) -> int:
        """The number of this process in the seeds of its batches."""
        return self.ranks.own() if self.recorded is None else self.ranks.place()[0]

    def is_full(self, epoch: int) -> bool:
        """Return whether an epoch is a pass over the whole data set, whatever the policy."""
        return epoch >= self.first_full

    def repr_of_length(self) -> str:
        """Return the length of an epoch as the representation of a sampler shows it."""
        return "plan='epoch'" if self._whole else f"steps_per_epoch={self.usual_length}"

    def length(self, epoch: int, now: Callable[[], int]) -> int:
        """Return the number of batches of an epoch that did not begin.

        Parameters
        ----------
        epoch
            Its number.
        now
            Returns the step that ages of records count from.
        """
        if self.is_full(epoch):
            return self._rounds(self.n, self.batch_size)
        if self._whole:
            assert self.recorded is not None
            return self._rounds(self.recorded.subset_size(now()), self.batch_size)
        return self.usual_length

    def begun_length(self, plan: Plan | None, epoch: int) -> int:
        """Return the number of batches of an epoch with a plan, or with none."""
        if plan is not None and (self._whole or self.is_full(epoch)):
            return len(plan)
        return self.usual_length

    def plan(self, seed: int, epoch: int, now: Callable[[], int]) -> Plan | None:
        """Return the plan of an epoch that begins; None where every batch is a choice of its own.

        Parameters
        ----------
        seed
            The sampler's.
        epoch
            The number of the epoch.
        now
            Returns the step that ages of records count from.
        """
        place = self._place_in(epoch)
        if self.is_full(epoch):
            return Plan.of_pass(self._shuffled(seed, epoch), self.batch_size, place)
        if self._whole:
            planned = from_first(partial(self._drawn, seed, epoch, now()), _PLANNED)
            ids, weights = planned["ids"].copy(), planned["weights"].copy()
            rng = np.random.default_rng([seed, epoch, _ORDER])
            return Plan.of_subset(ids, weights, self.batch_size, place, rng)
        if self.candidates is not None:
            return Plan.of_windows(self._shuffled(seed, epoch), self.candidates, place)
        if has(self.named.policy, WithEpochOrder):
            rng = np.random.default_rng([seed, epoch, 0, self.ranks.own(), 2])
            order = np.asarray(self.named.policy.epoch_order(self.n, rng), dtype=np.int64)
            return Plan.of_pass(order, self.batch_size, place)
        return None

    def batch(
        self, plan: Plan | None, seeds: tuple[int, int, int, int], now: Callable[[], int]
    ) -> Chosen:
        """Return the positions and the training weights of a batch.

        Parameters
        ----------
        plan
            The plan of the epoch.
        seeds
            The seed of the batch: that of the sampler, the epoch, the number of the batch in it,
            and the process.
        now
            Returns the step that ages of records count from.
        """
        if plan is not None:
            ids, weights = plan.part(seeds[2])
            return self._from_window(ids, seeds, now()) if weights is None else (ids, weights)
        policy = self.named.policy
        if has(policy, WithDraw):
            return policy.draw(self.n, self.batch_size, np.random.default_rng([*seeds, 1]))
        if self.recorded is not None:
            return self.recorded.batch(None, self.batch_size, now(), seeds)
        everyone = np.arange(self.n)
        signals = {"positions": everyone, "ids": everyone}
        problem = policy.propose(signals, self.batch_size, np.random.default_rng([*seeds, 1]))
        solution = self.solve(problem, seed=seeds).require()
        return solution.indices, training_weights(self.named, solution)

    def check_steps(self) -> None:
        """Raise if an epoch is a pass over the data and more batches are asked for.

        Raises
        ------
        OptionError
            With the most batches that a pass has.
        """
        if self.candidates is not None:
            most, size = self._rounds(self.n, self.candidates), self.candidates
        elif self._has_order:
            most, size = -(-self.n // self.batch_size), self.batch_size
        else:
            return
        if self.steps is not None and self.steps > most:
            kind = "batches" if self.candidates is None else "windows"
            raise so.OptionError(
                f"an epoch of {self.named.name!r} is one pass over the data, at most {most} {kind} "
                f"of {size} of {self.n} samples, got steps_per_epoch={self.steps}."
            )

    def check_same(self, saved: SavedState) -> None:
        """Raise unless a state is that of a sampler which chooses in the same way.

        Raises
        ------
        OptionError
            With what differs.
        """
        own = (self.named.name, self.shape)
        theirs = (saved.text("policy_name"), saved.integers("shape", 3))
        if theirs != own:
            raise so.OptionError(
                "the state was saved by a sampler with policy, (n, batch_size, steps_per_epoch) = "
                f"{theirs}, this one has {own}."
            )
        mode = saved.text("mode")
        if mode != self.mode:
            raise so.OptionError(
                f"the state was saved by a sampler that chooses by {mode!r}, this one chooses by "
                f"{self.mode!r}: pass the ledger, plan and candidates that it had."
            )

    def checked_plan(self, saved: SavedState, epoch: int) -> tuple[Plan | None, int]:
        """Return the plan of a state, or None, and the number of batches of its epoch.

        Parameters
        ----------
        saved
            The state.
        epoch
            The epoch in progress in it.

        Raises
        ------
        OptionError
            If the plan is missing, malformed, or the share of another process.
        """
        state, planned = saved["plan"], self._is_planned(epoch)
        if state is None:
            if planned and saved.integer("issued"):
                raise saved.error("plan", "that of the epoch in progress", state)
            return None, 0 if planned else self.usual_length
        if not planned:
            raise saved.error("plan", "None, since every batch is a choice of its own", state)
        windows = self.candidates if not self.is_full(epoch) else None
        size = self.batch_size if windows is None else windows
        plan = Plan.checked(state, self.n, size, weighted=windows is None)
        length = self.begun_length(plan, epoch)
        if len(plan) < length:
            raise saved.error("plan", f"one of {length} batches", len(plan))
        if plan.place != self._place_in(epoch):
            (there, those), (here, these) = plan.place, self._place_in(epoch)
            raise so.OptionError(
                f"the state holds the share of process {there} of {those} in an epoch, this is "
                f"process {here} of {these}: save and load a state for every process."
            )
        return plan, length

    @property
    def _whole(self) -> bool:
        """Whether epochs are chosen as a whole, full passes aside."""
        return self.asked.plan == "epoch"

    @property
    def _has_order(self) -> bool:
        """Whether the policy orders the samples of an epoch, and nothing else is asked for."""
        alone = not self._whole and self.candidates is None
        return alone and has(self.named.policy, WithEpochOrder)

    def _is_planned(self, epoch: int) -> bool:
        windows = self.candidates is not None
        return self.is_full(epoch) or windows or self._whole or self._has_order

    def _place_in(self, epoch: int) -> tuple[int, int]:
        """Return the number of this process, and how many share an epoch."""
        alone = self._has_order and not self.is_full(epoch)
        return (0, 1) if alone else self.ranks.place()

    def _shuffled(self, seed: int, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([seed, epoch, _PASS]).permutation(self.n)

    def _drawn(self, seed: int, epoch: int, now: int) -> NDArray[np.void]:
        assert self.recorded is not None
        ids, weights = self.recorded.subset(now, (seed, epoch, _CHOICE))
        planned = np.empty(ids.size, dtype=_PLANNED)
        planned["ids"], planned["weights"] = ids, weights
        return planned

    def _from_window(
        self, window: NDArray[np.int64], seeds: tuple[int, int, int, int], now: int
    ) -> Chosen:
        """Return a batch from a window, smaller where the window is."""
        assert self.recorded is not None and self.candidates is not None
        size = int(self.batch_size * window.size / self.candidates + 0.5)
        return self.recorded.batch(window, max(1, size), now, seeds)

    def _rounds(self, count: int, size: int) -> int:
        return -(-count // (size * self.ranks.place()[1]))
