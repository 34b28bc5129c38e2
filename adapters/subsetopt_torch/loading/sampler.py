"""A batch sampler: a policy chooses samples of the data set before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import Sampler

import subsetopt as so
from subsetopt.inputs import checked_integer, is_integer
from subsetopt.policies import (
    Feedback,
    Policy,
    WithDraw,
    WithEpochOrder,
    WithRefresh,
    WithWantsRefresh,
    has,
    listens,
    to_host,
)
from subsetopt.policies.parts.saved_state import SavedState, load_policies
from subsetopt_torch.arguments import Ids, check_state, checked_seed, process_rank
from subsetopt_torch.loading.arguments import check_needs, data_size
from subsetopt_torch.loading.issued_batches import (
    IssuedBatch,
    IssuedBatches,
    checked_waiting,
    shown_ids,
)
from subsetopt_torch.loading.map_style import MapStyle
from subsetopt_torch.loading.translation import IdTranslation, ids_of_samples
from subsetopt_torch.loading.with_ids import returned_ids
from subsetopt_torch.selection.answers import training_weights
from subsetopt_torch.selection.hearing import Hearing
from subsetopt_torch.selection.named_policy import HasNamedPolicy, NamedPolicy, SolverLike

__all__ = ["SubsetBatchSampler"]

# Loaders have fewer batches than this fetched ahead of those that they have returned.
_AHEAD = 1000
# What a policy needs in order to learn.
_REMEDY = "call sampler.observe(ids, losses) with the ids and the per-sample losses of the batch"


class BatchIterator(Iterator[list[int]]):
    """The batches of one iteration over a sampler, with a state for loaders that save their own.

    Parameters
    ----------
    sampler
        The sampler that chooses the batches.
    """

    def __init__(self, sampler: SubsetBatchSampler) -> None:
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


class SubsetBatchSampler(HasNamedPolicy, Sampler[list[int]]):
    """Batches of sample ids that a policy chooses over a whole map-style data set.

    For ``DataLoader(dataset, batch_sampler=sampler)``: what is not chosen is never loaded. The
    policy learns from the losses that the training loop reports with :meth:`observe`.

    Parameters
    ----------
    data
        A map-style data set, or the number of its samples.
    policy
        A registered name or a policy object that needs no forward pass over the candidates:
        ``"online-batch"``, ``"prioritized"``, ``"uniform"``.
    batch_size
        Samples per batch, at least 1; at most the number of samples is used.
    seed
        A nonnegative int; batch t of epoch e on rank r uses ``(seed, e, t, r)``. None draws one,
        which ``state_dict`` then holds.
    steps_per_epoch
        Batches per epoch; None takes as many as one pass over the data needs.
    policy_options
        Hyperparameters of a policy given by name.
    solver, options
        The solver, and its hyperparameters, for the problem over all samples that a policy states
        where it has no other way to draw from a data set.
    ids
        The id that each sample comes with, shape (n,), all different: integers of 64 bits, strings
        or bytes. None (the default) takes positions in the data set, and in a part of a data set
        with :class:`WithIds` those in the whole.
    rank
        Number of this process; None asks ``torch.distributed``, and stands for 0 without it.

    Attributes
    ----------
    policy
        The policy, with what it remembers.
    policy_name
        Its registered name, or the name of its class.
    epoch
        The epoch in progress, or the last one.
    issued
        Batches handed out in it, including those that a loader fetched ahead.

    Raises
    ------
    OptionError
        If the data set is iterable or has no length, the policy needs losses of samples that were
        not looked at, or an option is wrong.

    Notes
    -----
    *Epochs.* ``uniform`` passes over the data in random order, so that its batches share no sample
    and the last one may be smaller. Other policies draw every batch anew, and an epoch is a number
    of batches only. Each iteration is the next epoch, unless :meth:`set_epoch` says which.

    *Workers.* A DataLoader with workers asks for ``num_workers * prefetch_factor`` batches (2 per
    worker by default) before it returns the first, so that every batch is chosen without the
    losses of that many batches before it. Without workers nothing is chosen ahead.

    *Resuming.* The state holds the batches that were issued and not observed; they come again
    first, so that no batch is lost and none is trained on twice. If the state is taken between two
    steps and the loader has as many workers as before, all batches are then bit-identical to those
    of the run that was not interrupted.

    A loader that saves its own state (torchdata's ``StatefulDataLoader``) saves that of the
    iterator, too, in which every batch handed out counts as delivered: after a resume comes what
    that loader had not delivered. What the policy learned since it asked for a batch is lost then.

    *Processes.* Every rank draws batches of its own, from what its own policy remembers.

    Examples
    --------
    >>> sampler = SubsetBatchSampler(6, "prioritized", batch_size=3, seed=0)
    >>> for ids in sampler:
    ...     weights = sampler.weights(ids)
    ...     sampler.observe(ids, torch.ones(3))
    >>> len(sampler), weights
    (2, tensor([0.3333, 0.3333, 0.3333]))
    """

    def __init__(
        self,
        data: MapStyle | int,
        policy: str | Policy,
        batch_size: int,
        *,
        seed: int | None = None,
        steps_per_epoch: int | None = None,
        policy_options: Mapping[str, Any] | None = None,
        solver: SolverLike = "auto",
        options: Mapping[str, Any] | None = None,
        ids: Ids | None = None,
        rank: int | None = None,
    ) -> None:
        self.n = data_size(data)
        own = ids_of_samples(ids, self.n)
        self._translation = IdTranslation(returned_ids(data) if own is None else own)
        self._named = NamedPolicy.of(policy, policy_options)
        check_needs(self._named)
        self.batch_size = min(checked_integer("batch_size", batch_size, 1), self.n)
        one_pass = -(-self.n // self.batch_size)
        self._length = one_pass
        if steps_per_epoch is not None:
            self._length = checked_integer("steps_per_epoch", steps_per_epoch, 1)
        if self._length > one_pass and has(self.policy, WithEpochOrder):
            raise so.OptionError(
                f"an epoch of {self.policy_name!r} is one pass over the data, at most {one_pass} "
                f"batches of {self.batch_size} of {self.n} samples, got steps_per_epoch="
                f"{self._length}."
            )
        self.seed = checked_seed(seed)
        self.rank = rank
        self._solve = self._named.solve_with(solver, 0, options=options)
        self.epoch = 0
        self.issued = 0
        self._next_epoch = 0
        self._selections = 0
        self._resumed = False
        self._is_loaded = False
        self._first_epoch = 0  # the epoch that callers of set_epoch have as 0
        self._iteration = 0
        self._waiting = IssuedBatches()
        self._hearing = Hearing(_REMEDY)
        self._order: NDArray[np.int64] | None = None

    def __repr__(self) -> str:
        return (
            f"SubsetBatchSampler({self.n}, {self.policy_name!r}, {self.batch_size}, "
            f"steps_per_epoch={self._length})"
        )

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> BatchIterator:
        """Return the batches of one epoch; after loading a state, the rest of that epoch."""
        return BatchIterator(self)

    def batches(self) -> Iterator[list[int]]:
        """Yield the batches of one epoch; after loading a state, the rest of that epoch."""
        # The epoch begins when the first batch is asked for, since DataLoader may call iter twice.
        self._begin()
        iteration = self._iteration
        for batch in self._waiting.in_order():
            self._check_current(iteration)
            yield batch.ids.tolist()
        while self.issued < self._length:
            self._check_current(iteration)
            yield self._issue().ids.tolist()

    @property
    def selections(self) -> int:
        """How many batches were handed out in all epochs."""
        return self._selections

    def skip_until(self, selection: int) -> None:
        """Take the batches of a loaded state as delivered up to a number of selections.

        For the state of an iterator: a loader that saves its own state has handed these out.
        """
        for batch in self._waiting.in_order():
            if batch.number < selection:
                self._waiting.remove(batch)
        self._resumed = self.waiting > 0 or 0 < self.issued < self._length

    @property
    def waiting(self) -> int:
        """How many batches were handed out and not observed yet."""
        return len(self._waiting)

    @property
    def wants_refresh(self) -> bool:
        """Whether the policy asks for the losses of all samples: see :meth:`refresh`."""
        return has(self.policy, WithWantsRefresh) and bool(self.policy.wants_refresh)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration is; by default one more than the last.

        An epoch in progress in a loaded state goes on if it is this one, and is given up if not. A
        loader that counts from 0 again after a state was loaded is understood: its 0 is the epoch
        that the state goes on with, and its later numbers count from there.

        Raises
        ------
        OptionError
            If it is not a nonnegative int.
        """
        if not is_integer(epoch) or epoch < 0:
            raise so.OptionError(f"epoch must be a nonnegative int, got {epoch!r}.")
        if self._is_loaded:
            self._is_loaded = False
            goes_on = self.epoch if self._resumed else self._next_epoch
            self._first_epoch = goes_on if epoch == 0 else 0
        number = self._first_epoch + int(epoch)
        self._resumed = self._resumed and number == self.epoch
        self._next_epoch = number

    def weights(self, ids: Ids) -> Tensor:
        """Return the training weights of a batch: the loss is ``(losses * weights).sum()``.

        Parameters
        ----------
        ids
            The ids of a batch as it came from the loader, shape (k,), in whatever order.

        Returns
        -------
        Tensor
            Shape (k,), float32, aligned with the ids and on their device.

        Raises
        ------
        ProblemError
            If these are not the ids of a batch that was issued in this epoch and not observed yet.
        """
        host = self._translation.positions(ids)
        weights = self._waiting.find(host, ids).weights_of(host)
        device = ids.device if isinstance(ids, Tensor) else None
        return torch.as_tensor(weights, dtype=torch.float32, device=device)

    def observe(self, ids: Ids, losses: Tensor | ArrayLike | None = None) -> None:
        """Tell the policy the losses of a batch, and count the batch as trained on.

        Parameters
        ----------
        ids
            The ids of a batch as it came from the loader, shape (k,).
        losses
            Its per-sample losses, unweighted, shape (k,), aligned with the ids; gradients are
            ignored. None only counts the batch.

        Raises
        ------
        ProblemError
            If these are not the ids of a batch that was issued in this epoch and not observed yet,
            or the losses are malformed or not finite.
        """
        host = self._translation.positions(ids)
        batch = self._waiting.find(host, ids)
        if losses is None:
            self._hearing.count(self._named)
        else:
            values = to_host(torch.as_tensor(losses))
            if values.shape != host.shape:
                raise so.ProblemError(
                    f"losses must be one per sample, shape {host.shape}, got {values.shape}: use "
                    "reduction='none'."
                )
            weights = batch.weights_of(host)
            self._hearing.settle()
            if listens(self.policy):
                self.policy.observe(Feedback(batch.number, host, weights, values, ids=host))
        self._waiting.remove(batch)

    def refresh(self, losses: Tensor | ArrayLike, ids: Ids | None = None) -> None:
        """Give the policy losses that were computed outside training.

        Parameters
        ----------
        losses
            The losses of all n samples in order, shape (n,), or of those that ``ids`` names, shape
            (m,).
        ids
            Sample ids, shape (m,); None stands for all n samples.

        Raises
        ------
        OptionError
            If the policy remembers no losses.
        ProblemError
            If losses or ids are malformed.
        """
        if not has(self.policy, WithRefresh):
            raise so.OptionError(
                f"policy {self.policy_name!r} remembers no losses, so that there is nothing to "
                "refresh."
            )
        positions = np.arange(self.n) if ids is None else self._translation.positions(ids)
        unknown = np.flatnonzero((positions < 0) | (positions >= self.n))
        if ids is not None and unknown.size:
            raise so.ProblemError(
                f"no sample of this sampler's data has the id {shown_ids(ids)[unknown[0]]}: pass "
                "the ids that the data set returns."
            )
        self.policy.refresh(positions, losses)
        self._hearing.settle()

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs, as plain values that ``torch.save`` takes."""
        return {
            "policy_name": self.policy_name,
            "policy": self.policy.state_dict(),
            "shape": (self.n, self.batch_size, self._length),
            "seed": self.seed,
            "epoch": self.epoch,
            "next_epoch": self._next_epoch,
            "issued": self.issued,
            "selections": self._selections,
            "waiting": self._waiting.state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken; the next iteration is the rest of that epoch.

        Where none of an epoch's batches was ever observed, an epoch in progress starts over and
        one that was handed out to the end counts as done.

        Raises
        ------
        OptionError
            If the state is incomplete or malformed, or of another policy, data size or batch size;
            nothing is then loaded.
        """
        check_state("sampler", state, self.state_dict())
        own = (self.policy_name, (self.n, self.batch_size, self._length))
        entries = SavedState("the sampler", state, self.state_dict(), exactly=False)
        saved = (entries.text("policy_name"), entries.integers("shape", 3))
        if saved != own:
            raise so.OptionError(
                "the state was saved by a sampler with policy, (n, batch_size, steps_per_epoch) = "
                f"{saved}, this one has {own}."
            )
        seed = entries.integer("seed", most=None)
        epochs = [entries.integer(name) for name in ("epoch", "next_epoch")]
        selections = entries.integer("selections")
        issued = entries.integer("issued", 0, self._length)
        waiting = checked_waiting(entries, self.n, self.batch_size, selections)
        load_policies([self.policy], [state["policy"]], f"policy {self.policy_name!r}")
        self._waiting.load(waiting)
        self.seed, (self.epoch, self._next_epoch) = seed, epochs
        self.issued, self._selections = issued, selections
        unfinished = self.issued < self._length or 0 < self.waiting < self.issued
        self._resumed = self.issued > 0 and unfinished
        self._is_loaded, self._first_epoch = True, 0
        self._order = None
        self._iteration += 1

    def _begin(self) -> None:
        self._is_loaded = False
        if not self._resumed:
            self._hearing.count(self._named, self.waiting)
            self.epoch, self.issued = self._next_epoch, 0
            self._waiting.clear()
        self._resumed = False
        self._next_epoch = self.epoch + 1
        self._order = None
        self._iteration += 1

    def _check_current(self, iteration: int) -> None:
        if iteration != self._iteration:
            raise so.OptionError(
                "this iteration of the sampler is over: another one was begun, or a state was "
                "loaded. Use one sampler per loader."
            )

    def _issue(self) -> IssuedBatch:
        """Choose a batch, and note that it was handed out."""
        ids, weights = self._choose()
        order = np.argsort(ids, kind="stable")
        batch = IssuedBatch(self._selections, ids[order], weights[order])
        self._waiting.add(batch)
        if self.waiting > _AHEAD:
            self._hearing.count(self._named)
        self.issued += 1
        self._selections += 1
        return batch

    def _choose(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        rank = process_rank(self.rank)
        if has(self.policy, WithEpochOrder):
            return self._next_of_pass(self.policy, rank)
        seeds = (self.seed, self.epoch, self.issued, rank)
        rng = np.random.default_rng([*seeds, 1])
        if has(self.policy, WithDraw):
            return self.policy.draw(self.n, self.batch_size, rng)
        everyone = np.arange(self.n)
        problem = self.policy.propose(
            {"positions": everyone, "ids": everyone}, self.batch_size, rng
        )
        solution = self._solve(problem, seed=seeds).require()
        return solution.indices, training_weights(self._named, solution)

    def _next_of_pass(
        self, policy: WithEpochOrder, rank: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the next samples of a pass over the data."""
        if self._order is None:
            rng = np.random.default_rng([self.seed, self.epoch, 0, rank, 2])
            self._order = np.asarray(policy.epoch_order(self.n, rng), dtype=np.int64)
        start = self.issued * self.batch_size
        ids = self._order[start : start + self.batch_size]
        return ids, np.full(ids.size, 1.0 / ids.size)
