"""A batch sampler: a policy chooses samples of the data set before anything is loaded."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.data import Sampler

import subsetopt as so
from subsetopt.inputs import checked_count, checked_integer, is_integer
from subsetopt.ledger import Ledger
from subsetopt.policies import Policy, WithRefresh, WithWantsRefresh, has
from subsetopt.policies.parts.saved_state import SavedState, load_policies
from subsetopt_torch.arguments import Ids, check_state, checked_seed
from subsetopt_torch.loading.arguments import (
    PlanOptions,
    check_needs,
    checked_ledger,
    data_size,
)
from subsetopt_torch.loading.choosing import Choosing
from subsetopt_torch.loading.issued_batches import IssuedBatch, IssuedBatches, checked_waiting
from subsetopt_torch.loading.iteration import BatchIterator
from subsetopt_torch.loading.map_style import MapStyle
from subsetopt_torch.loading.plans import Plan
from subsetopt_torch.loading.ranks import Ranks
from subsetopt_torch.loading.record_copy import RecordCopy
from subsetopt_torch.loading.recorded_choice import RecordedChoice
from subsetopt_torch.loading.reports import Reports
from subsetopt_torch.loading.translation import IdTranslation, ids_of_samples
from subsetopt_torch.loading.with_ids import returned_ids
from subsetopt_torch.recorded.settings import RecordedScores
from subsetopt_torch.selection.annealing import first_full
from subsetopt_torch.selection.named_policy import HasNamedPolicy, NamedPolicy, SolverLike

__all__ = ["SubsetBatchSampler"]

# Loaders have fewer batches fetched ahead of those that they have returned.
_AHEAD = 1000
# The number of batches that are never observed after which a sampler with a ledger warns.
_PATIENCE = 20


class SubsetBatchSampler(HasNamedPolicy, Sampler[list[int]]):
    """Batches of sample ids that a policy chooses over a whole map-style data set.

    For ``DataLoader(dataset, batch_sampler=sampler)``: what is not chosen is never loaded. Policy
    and ledger learn from the losses that the training loop reports with :meth:`observe`.

    Parameters
    ----------
    data
        A map-style data set, or the number of its samples.
    policy
        A registered name or a policy object that needs no forward pass over the candidates:
        ``"online-batch"``, ``"prioritized"``, ``"uniform"``; with a ledger also those that need
        losses, ``upper_bound`` or ``gradient_norms``.
    batch_size
        Samples per batch, at least 1; at most the number of samples is used.
    ledger
        An open ledger, or :class:`RecordedScores` of one, with the rules for records that are
        missing or old; for a ledger alone these are the default ones with ``mix=0.5``, since scores
        of what was not chosen grow old. None (the default) chooses by ids alone.
    plan
        With a ledger: ``"batch"`` (the default) chooses every batch when it is asked for;
        ``"epoch"`` chooses the samples of a whole epoch when it begins, and serves them in random
        order.
    rate
        The part of the data set that an epoch trains on, above 0, at most 1. None takes all of it,
        and with ``plan="epoch"`` as much as the policy says (``infobatch``).
    candidates
        With ``plan="batch"``: every batch is chosen from a window of as many samples, at least
        ``batch_size``, of a pass over the data in random order. None chooses from the whole data
        set, which takes a while for every batch if that is large.
    reread
        ``"epoch"`` takes up records that others have written to the ledger, when an epoch begins.
        None (the default) reads the ledger once.
    full_after, epochs
        The part of the run, from 0 to 1, after which every epoch is a pass over all samples with
        equal weights, and the number of epochs of the run. None: no epoch is.
    seed
        A nonnegative int; batch t of epoch e on rank r uses ``(seed, e, t, r)``. None draws one,
        which ``state_dict`` then holds.
    steps_per_epoch
        Batches per epoch; None takes as many as one pass over the data needs, over its windows, or
        over the part that ``rate`` is.
    policy_options
        Hyperparameters of a policy given by name.
    solver, options
        The solver, and its hyperparameters, for the problems that the policy states.
    ids
        The id that each sample comes with, shape (n,), all different: integers of 64 bits, strings
        or bytes. None (the default) takes positions in the data set, and in a part of a data set
        with :class:`WithIds` those in the whole. Samples have the same ids in the ledger.
    rank, world_size
        Number of this process, and of those that share epochs; None asks ``torch.distributed``,
        and stands for 0 and 1 without it.

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
    of batches only, unless there are windows or a plan. Each iteration is the next epoch, unless
    :meth:`set_epoch` says which.

    *Records.* The sampler has a copy of them in memory, 24 bytes per sample, and writes what it is
    told to the ledger, too. Samples without a record that can be used are all in a plan, each for
    itself, so that a first epoch is a whole pass; in a window they come first (``missing="mean"``
    takes them for average ones instead; ``"score"`` is ``"take"`` here). The mean over the batches
    of a plan of their weighted losses is the estimate of the mean loss that the policy makes.

    *Workers.* A DataLoader with workers asks for ``num_workers * prefetch_factor`` batches (2 per
    worker by default) before it returns the first, so that every batch is chosen without the
    losses of that many batches before it. Without workers nothing is chosen ahead.

    *Resuming.* The state holds the batches that were issued and not observed; they come again
    first, so that no batch is lost and none is trained on twice. If the state is taken between two
    steps and the loader has as many workers as before, all batches are then bit-identical to those
    of the run that was not interrupted. The plan and the copy of the records are in the state, so
    that this is true whatever a ledger holds by then, unless it is reread.

    A loader that saves its own state (torchdata's ``StatefulDataLoader``) saves that of the
    iterator, too, in which every batch handed out counts as delivered: after a resume comes what
    that loader had not delivered. What the policy learned since it asked for a batch is lost then.

    *Processes.* Without a ledger every rank draws batches of its own, from what its own policy
    remembers. With one the ranks share windows and plans: they tell each other at the beginning of
    an epoch what they have recorded, the first of them makes the plan, and all get as many batches.

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
        ledger: Ledger | RecordedScores | None = None,
        rate: float | None = None,
        candidates: int | None = None,
        plan: Literal["batch", "epoch"] = "batch",
        reread: Literal["epoch"] | None = None,
        full_after: float | None = None,
        epochs: int | None = None,
        seed: int | None = None,
        steps_per_epoch: int | None = None,
        policy_options: Mapping[str, Any] | None = None,
        solver: SolverLike = "auto",
        options: Mapping[str, Any] | None = None,
        ids: Ids | None = None,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        self.n = data_size(data)
        own = ids_of_samples(ids, self.n)
        own = returned_ids(data) if own is None else own
        self._translation = IdTranslation(own)
        self._named = NamedPolicy.of(policy, policy_options)
        settings = checked_ledger(ledger)
        column = check_needs(self._named, settings)
        self.batch_size = min(checked_integer("batch_size", batch_size, 1), self.n)
        steps = checked_count("steps_per_epoch", steps_per_epoch)
        asked = PlanOptions(plan, rate, candidates, reread)
        asked.check(self._named, self.batch_size, steps, recorded=settings is not None)
        first = first_full(full_after, epochs, "epochs")
        self._ranks = Ranks.of(rank, world_size, shared=settings is not None or first < math.inf)
        self.seed = checked_seed(seed)
        self.rank = rank
        self._reread = reread is not None
        solve = self._named.solve_with(solver, 0, options=options)
        self._records: RecordCopy | None = None
        recorded = None
        if settings is not None:
            known = np.arange(self.n) if own is None else own
            self._records = RecordCopy(settings, column is not None, known)
            recorded = RecordedChoice(self._named, solve, self._records, column, rate)
        self._reports = Reports(self._named, self._records, column)
        if self._records is not None:
            self._reports.tell_policy(self._records.recorded())
        self._choosing = Choosing(
            self._named, solve, self.n, self.batch_size, steps, self._ranks, recorded, asked, first
        )
        self._choosing.check_steps()
        self.epoch = 0
        self.issued = 0
        self._next_epoch = 0
        self._selections = 0
        self._resumed = False
        self._is_loaded = False
        self._first_epoch = 0  # the epoch that callers of set_epoch have as 0
        self._iteration = 0
        self._waiting = IssuedBatches()
        self._plan: Plan | None = None
        self._length = 0  # the number of batches of the epoch in progress
        self._unheard = 0  # batches of epochs that went by almost unobserved

    def __repr__(self) -> str:
        size = self._choosing.repr_of_length()
        return f"SubsetBatchSampler({self.n}, {self.policy_name!r}, {self.batch_size}, {size})"

    def __len__(self) -> int:
        if 0 < self.issued and (self.issued < self._length or self.waiting):
            return self._length
        return self._choosing.length(self._next_epoch, self._now)

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

    def observe(
        self,
        ids: Ids,
        losses: Tensor | ArrayLike | None = None,
        scores: Tensor | ArrayLike | None = None,
    ) -> None:
        """Tell policy and ledger the losses of a batch, and count the batch as trained on.

        Parameters
        ----------
        ids
            The ids of a batch as it came from the loader, shape (k,).
        losses
            Its per-sample losses, unweighted, shape (k,), aligned with the ids; gradients are
            ignored. None only counts the batch.
        scores
            The signal that is recorded besides losses, shape (k,): needed where the policy
            requires ``upper_bound`` or ``gradient_norms``, and refused where nothing records it.

        Raises
        ------
        ProblemError
            If these are not the ids of a batch that was issued in this epoch and not observed yet,
            the losses or scores are malformed or not finite, or scores are missing.
        OptionError
            If there are scores, and nothing that records them.
        """
        host = self._translation.positions(ids)
        batch = self._waiting.find(host, ids)
        chosen = self._records is not None and not self._choosing.is_full(self.epoch)
        self._reports.observe(batch, host, losses, scores, chosen=chosen)
        self._waiting.remove(batch)

    def refresh(
        self,
        losses: Tensor | ArrayLike,
        ids: Ids | None = None,
        scores: Tensor | ArrayLike | None = None,
    ) -> None:
        """Give policy and ledger losses that were computed outside training.

        Parameters
        ----------
        losses
            The losses of all n samples in order, shape (n,), or of those that ``ids`` names, shape
            (m,).
        ids
            Sample ids, shape (m,); None stands for all n samples.
        scores
            As for :meth:`observe`, aligned with the losses.

        Raises
        ------
        OptionError
            If the policy remembers no losses and nothing is recorded.
        ProblemError
            If losses, ids or scores are malformed.
        """
        if self._records is None and not has(self.policy, WithRefresh):
            raise so.OptionError(
                f"policy {self.policy_name!r} remembers no losses, so that there is nothing to "
                "refresh."
            )
        known = self._translation.known_positions
        positions = np.arange(self.n) if ids is None else known(ids, self.n)
        self._reports.refresh(positions, losses, scores, self._now())

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs, as plain values and tensors that ``torch.save`` takes.

        Tensors may share memory with the sampler, which does not write to it. Do not either.
        """
        return {
            "policy_name": self.policy_name,
            "policy": self.policy.state_dict(),
            "shape": self._choosing.shape,
            "mode": self._choosing.mode,
            "seed": self.seed,
            "epoch": self.epoch,
            "next_epoch": self._next_epoch,
            "issued": self.issued,
            "selections": self._selections,
            "waiting": self._waiting.state(),
            "plan": None if self._plan is None else self._plan.state(),
            "records": None if self._records is None else self._records.state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken; the next iteration is the rest of that epoch.

        Where none of an epoch's batches was ever observed, an epoch in progress starts over and
        one that was handed out to the end counts as done.

        Raises
        ------
        OptionError
            If the state is incomplete or malformed, of another policy, data size, batch size or
            kind of plan, or in the middle of an epoch of another process; nothing is then loaded.
        """
        check_state("sampler", state, self.state_dict())
        entries = SavedState("the sampler", state, self.state_dict(), exactly=False)
        self._choosing.check_same(entries)
        seed = entries.integer("seed", most=None)
        epoch, next_epoch = (entries.integer(name) for name in ("epoch", "next_epoch"))
        selections = entries.integer("selections")
        plan, length = self._choosing.checked_plan(entries, epoch)
        issued = entries.integer("issued", 0, length)
        waiting = checked_waiting(entries, self.n, self._choosing.largest_batch, selections)
        records = None if self._records is None else self._records.checked(state["records"])
        load_policies([self.policy], [state["policy"]], f"policy {self.policy_name!r}")
        if self._records is not None and records is not None:
            self._records.load(*records)
        self._waiting.load(waiting)
        self.seed, self.epoch, self._next_epoch = seed, epoch, next_epoch
        self.issued, self._selections = issued, selections
        self._plan, self._length = plan, length
        unfinished = self.issued < self._length or 0 < self.waiting < self.issued
        self._resumed = self.issued > 0 and unfinished
        self._is_loaded, self._first_epoch = True, 0
        self._iteration += 1

    def _begin(self) -> None:
        self._is_loaded = False
        if not self._resumed:
            self._check_heard()
            self.epoch, self.issued = self._next_epoch, 0
            self._waiting.clear()
            if self._records is not None:
                self._reports.tell_policy(self._records.begin(reread=self._reread))
            self._plan = self._choosing.plan(self.seed, self.epoch, self._now)
            self._length = self._choosing.begun_length(self._plan, self.epoch)
        self._resumed = False
        self._next_epoch = self.epoch + 1
        self._iteration += 1

    def _check_current(self, iteration: int) -> None:
        if iteration != self._iteration:
            raise so.OptionError(
                "this iteration of the sampler is over: another one was begun, or a state was "
                "loaded. Use one sampler per loader."
            )

    def _check_heard(self) -> None:
        """Warn if the batches of the epoch before were not observed."""
        self._reports.count(self.waiting)
        if self._records is None or self._reread or 2 * self.waiting < max(1, self.issued):
            return
        before, self._unheard = self._unheard, self._unheard + self.waiting
        if before < _PATIENCE <= self._unheard:
            warnings.warn(
                f"{self._unheard} batches were never observed, so that nothing is recorded of "
                "them: call observe(ids, losses) after every step. If Accelerate deals batches "
                "out to several processes, do not let it prepare this loader: processes share an "
                "epoch by themselves.",
                UserWarning,
                stacklevel=4,
            )

    def _issue(self) -> IssuedBatch:
        """Choose a batch, and note that it was handed out."""
        seeds = (self.seed, self.epoch, self.issued, self._choosing.seed_rank)
        ids, weights = self._choosing.batch(self._plan, seeds, self._now)
        order = np.argsort(ids, kind="stable")
        batch = IssuedBatch(self._selections, ids[order], weights[order])
        self._waiting.add(batch)
        if self.waiting > _AHEAD:
            self._reports.count()
        self.issued += 1
        self._selections += 1
        return batch

    def _now(self) -> int:
        """Return the step that ages of records count from; 0 where there are none."""
        return 0 if self._records is None else self._records.now(self._selections)
