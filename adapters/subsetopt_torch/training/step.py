"""A training step that pays the backward pass for the chosen samples only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from subsetopt import OptionError, ProblemError
from subsetopt.inputs import checked_choice
from subsetopt.ledger import Ledger
from subsetopt.policies.parts.saved_state import SavedState
from subsetopt_torch.arguments import Autocast, Constraints, Ids, Signal, as_ids, check_state
from subsetopt_torch.model.batches import Rows, batch_size, per_sample
from subsetopt_torch.model.buffers import buffers_kept, norm_modules
from subsetopt_torch.model.known_rows import KnownRows
from subsetopt_torch.model.losses import LossFunction
from subsetopt_torch.model.parameters import device_of, model_weight_dtype
from subsetopt_torch.model.scoring_pass import ScoringMode
from subsetopt_torch.recorded.records import BatchRecords
from subsetopt_torch.recorded.settings import RecordedScores
from subsetopt_torch.selection.named_policy import NamedPolicy
from subsetopt_torch.selection.proposal import NonfiniteError
from subsetopt_torch.selection.selector import BatchSelector
from subsetopt_torch.signals.last_layer import LastLayer
from subsetopt_torch.signals.output_layer import OutputLayer
from subsetopt_torch.signals.scoring_forward import ScoringForward, learns_from
from subsetopt_torch.training.feedback import Reporting
from subsetopt_torch.training.finite import FiniteCheck
from subsetopt_torch.training.forward import ForwardResult, TrainingForward
from subsetopt_torch.training.gathering import Gathering, checked_gathered, combined
from subsetopt_torch.training.notices import Notices
from subsetopt_torch.training.recorded_scoring import RecordedScoring
from subsetopt_torch.training.result import StepResult
from subsetopt_torch.training.scoring import Scoring
from subsetopt_torch.training.selected import Batch, SelectedBatch
from subsetopt_torch.training.selecting import FullSizes, Selecting
from subsetopt_torch.training.timings import Clock
from subsetopt_torch.training.update import Update, check_needs_no_closure

__all__ = ["SelectiveStep"]


@dataclass(frozen=True, slots=True)
class Fitted:
    """What became of an update."""

    forward: ForwardResult  #: the training forward
    loss: Tensor | None  #: its weighted loss, a detached scalar; None where no sample was left
    updated: bool  #: whether the optimizer changed the parameters

    @property
    def selected(self) -> SelectedBatch:
        """The batch, with the samples that were trained on."""
        return self.forward.selected


class SelectiveStep:
    """Score a batch, select, and do forward, backward and update on the chosen samples.

    Parameters
    ----------
    model
        The model to train, called as ``model(x)``, ``model(*x)`` for a tuple or list of parts and
        ``model(**x)`` for a dict.
    loss_fn
        ``loss_fn(outputs, targets)``, one loss per sample, shape (n,): ``reduction="none"``.
    optimizer
        An optimizer of the model's parameters. One that needs a closure (LBFGS) is refused.
    selector
        Chooses the samples of each batch.
    scoring_mode
        ``"eval"`` (the default) runs the scoring pass in eval mode. ``"train"`` leaves every module
        in its mode, batch statistics and dropout included, and updates nothing.
    update_bn
        Where BatchNorm's running statistics come from: ``"picked"`` (the default) takes them from
        the training forward, ``"scored"`` from the scoring pass over the whole batch, in which
        normalization layers in training mode then use batch statistics. A step without a scoring
        pass takes them from the training forward.
    last_batch
        What to do with a batch smaller than ``batch_size``. ``"shrink"`` (the default) takes k from
        its own n. ``"drop"`` skips it. ``"pad"`` keeps the shapes of a full batch: samples are
        repeated for scoring and ignored in the choice, and the training forward is filled up with
        repeated samples of weight 0.
    batch_size
        Number of samples of a full batch, at least 1; None takes the largest seen so far.
    accumulate
        Whether to gather picked samples until there are ``batch_size`` of them, make one update on
        these and carry the rest over. By default the picked samples of every batch make an update.
    last_layer
        The ``nn.Linear`` of the model, or its name, whose input is the signal ``features`` and
        whose weights ``last_layer_gradients`` are of. None finds the one that makes the logits.
    scaler
        Scales the loss for gradients in half precision; None scales nothing.
    autocast
        Makes the context that both forwards run in, for example
        ``lambda: torch.autocast("cuda", torch.bfloat16)``; None for no such context.
    synchronize
        Whether to wait for a CUDA device at the end of each part, so that ``timings`` says where
        time went. Off by default, since it costs speed.
    recorded
        A ledger, or :class:`RecordedScores` of one. Losses and scores are then looked up by ids in
        place of a scoring pass, and what was trained on is recorded.

    Raises
    ------
    OptionError
        If an option has none of its values, ``last_layer`` is no linear layer of the model, the
        optimizer needs a closure, or the policy requires signals that are not recorded.

    Notes
    -----
    With k = n, or a policy that wants no scores, there is no scoring pass. With k = n the
    parameters are bit-identical to those of ``loss_fn(model(x), y).mean().backward()``. The
    selector's ``nonfinite`` says whether a loss that is not finite, of the scoring pass or of the
    training forward, raises before the parameters change, or whether its sample is left out.

    With ``accumulate``, sample i of batch t, which has the weight w_i among the k_t samples picked
    there, has the weight ``w_i * k_t / batch_size`` in its update. Equal weights become
    1 / batch_size, and an update is the mean of the estimates of its batches. Samples carried over
    are copies and part of the state; :meth:`flush` trains on the rest at the end. Where a policy
    takes all samples of every full batch there is nothing to gather.

    Where a policy has a method ``presample``, only the candidates that it names are scored.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Linear(3, 2)
    >>> step = SelectiveStep(
    ...     model,
    ...     torch.nn.CrossEntropyLoss(reduction="none"),
    ...     torch.optim.SGD(model.parameters(), lr=0.1),
    ...     BatchSelector("big-loss", rate=0.25, seed=0),
    ... )
    >>> step(torch.zeros(8, 3), torch.zeros(8, dtype=torch.long)).picked
    Picked(2 of 8)
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction,
        optimizer: torch.optim.Optimizer,
        selector: BatchSelector,
        *,
        scoring_mode: ScoringMode = "eval",
        update_bn: Literal["picked", "scored"] = "picked",
        last_batch: Literal["shrink", "drop", "pad"] = "shrink",
        batch_size: int | None = None,
        accumulate: bool = False,
        last_layer: nn.Linear | str | None = None,
        scaler: torch.amp.GradScaler | None = None,
        autocast: Autocast | None = None,
        synchronize: bool = False,
        recorded: Ledger | RecordedScores | None = None,
    ) -> None:
        checked_choice("scoring_mode", scoring_mode, ("eval", "train"), listed=True)
        checked_choice("update_bn", update_bn, ("picked", "scored"), listed=True)
        checked_choice("last_batch", last_batch, ("shrink", "drop", "pad"), listed=True)
        if batch_size is not None and batch_size < 1:
            raise OptionError(f"batch_size must be at least 1 or None, got {batch_size!r}.")
        check_needs_no_closure(optimizer)
        self.model = model
        self.loss_fn = loss_fn
        self.optimizer = optimizer
        self.selector = selector
        self.scoring_mode: ScoringMode = scoring_mode
        self.update_bn = update_bn
        self.last_batch = last_batch
        self.accumulate = accumulate
        self.scaler = scaler
        self.autocast: Autocast = autocast or nullcontext
        self.synchronize = synchronize
        self._last_layer = LastLayer(model, last_layer)
        self._output_layer = OutputLayer()
        self._named = NamedPolicy(selector.policy, selector.policy_name)
        self._learns_from = learns_from(selector.policy)
        self._sizes = FullSizes(batch_size)
        self._gathering = Gathering()
        selector.hear(None)
        self._notices = Notices()
        self._rows = KnownRows()
        self._records = None if recorded is None else self._of_ledger(recorded)

    @property
    def batch_size(self) -> int:
        """Size of a full batch: as given, or the largest seen so far."""
        return self._sizes.batch

    @property
    def gathered(self) -> int:
        """How many picked samples wait for an update."""
        return len(self._gathering)

    def __call__(
        self,
        inputs: object,
        targets: object,
        *,
        ids: Ids | None = None,
        constraints: Constraints | None = None,
        **signals: Signal,
    ) -> StepResult:
        """Make one training step.

        Parameters
        ----------
        inputs, targets
            Tensors, or tuples, lists and dicts of them, nested, samples along dimension 0; or lists
            of one entry per sample, which the model gets as they are.
        ids
            Sample ids, shape (n,), for policies that remember samples, and for records: integers of
            64 bits, strings or bytes.
        constraints
            Constraints for this batch, as for :meth:`BatchSelector.__call__`.
        signals
            Signals of the samples by name, one row each. What is given is not computed: where all
            that the policy requires is given, ``losses=`` included, there is no scoring pass.

        Raises
        ------
        OptionError
            If a keyword is the name of no signal.
        ProblemError
            If the loss is reduced or not finite, the batch has no batch dimension, or gradients are
            switched off.
        """
        if not torch.is_grad_enabled():
            raise ProblemError(
                "a step makes gradients, and they are switched off here (torch.no_grad or "
                "torch.inference_mode): call it outside."
            )
        if self._records is not None:
            self._records.check_ids(ids)
        n = batch_size(targets, inputs)
        self._sizes.see_batch(n)
        self._set_floor(n)
        batch = self._batch(inputs, targets, ids, n)
        clock = Clock(batch.device, self.synchronize)
        if n == 0 or (self.last_batch == "drop" and n < self.batch_size):
            return self._nothing(batch).result(clock.timings)
        selected = self._selecting()(batch, constraints, signals, clock)
        clock.lap("selection")
        if not len(selected.picked):
            return selected.result(clock.timings)
        if self._must_gather(selected):
            return self._gather(selected, clock)
        return self._train(selected, clock)

    def flush(self) -> StepResult:
        """Train on the gathered samples that did not fill a batch, if there are any.

        For the end of training with ``accumulate``; the weights are those of an update of just
        this size. The result's ``picked`` is empty: nothing was picked now.
        """
        batch = Batch(None, None, None, 0, device_of(self.model), (False, False))
        clock = Clock(batch.device, self.synchronize)
        updates = [self._fit_gathered(self.gathered, clock)] if self.gathered else []
        return self._nothing(batch).result(clock.timings, *combined(updates))

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs besides the model's and the optimizer's own state."""
        return {
            "selector": self.selector.state_dict(),
            "largest_batch": self._sizes.largest_batch,
            "gathered": self._gathering.state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken.

        Raises
        ------
        OptionError
            If the state is incomplete or malformed or belongs to another policy, or holds gathered
            samples and this step gathers none; nothing is then loaded.
        """
        names = ("selector", "largest_batch", "gathered")
        check_state("step", state, names)
        saved = SavedState("the step", state, names, exactly=False)
        largest_batch = saved.integer("largest_batch")
        gathered = checked_gathered(state["gathered"])
        if gathered and not self.accumulate:
            raise OptionError(
                "the step state holds gathered samples, which this step would never train on: make "
                "it with accumulate=True."
            )
        self.selector.load_state_dict(state["selector"])
        self._sizes.largest_batch = largest_batch
        self._gathering.load(gathered)

    def _batch(self, inputs: object, targets: object, ids: Ids | None, n: int) -> Batch:
        """Return a batch, after a look at which of its parts have one row per sample.

        Raises
        ------
        ProblemError
            If samples are to be taken from it, and it cannot be told how.
        """
        if ids is not None:
            ids = as_ids(ids)
            if ids.shape[:1] != (n,):
                count = len(ids) if ids.ndim else "no vector of"
                raise ProblemError(f"got {count} ids for {n} samples: pass one for each.")
        rows: Sequence[Rows]
        if n and self.selector.size(n) < n:
            rows = self._rows.of(inputs, targets, n)
        else:
            rows = (per_sample(inputs, n), per_sample(targets, n))
        return Batch(inputs, targets, ids, n, device_of(self.model, inputs), rows)

    def _set_floor(self, n: int) -> None:
        """Have 2 of n samples chosen instead of 1 where BatchNorm needs more than one."""
        selector = self.selector
        selector.floor = 1
        if n > 1 and selector.size(n) == 1 and not self.accumulate and _needs_two(self.model):
            selector.floor = 2
            self._notices.warn(
                "floor",
                f"1 of {n} samples is to be picked, and BatchNorm1d in training mode has no "
                "statistics of one sample: 2 are picked, here and wherever it would be 1. Use a "
                "larger rate or k, or last_batch='drop'.",
            )

    def _of_ledger(self, recorded: Ledger | RecordedScores) -> BatchRecords:
        """Return what looks batches up and records them.

        Raises
        ------
        OptionError
            If the policy requires signals that are not recorded, or the statistics of BatchNorm are
            to come from a scoring pass, which there is none of.
        """
        if self.update_bn == "scored":
            raise OptionError(
                "update_bn='scored' takes running statistics from the scoring pass, which recorded="
                " does without: leave update_bn at 'picked'."
            )
        return BatchRecords.of(recorded, self._named)

    # The parts of a step are made for every batch, so that they follow the attributes above.

    def _scoring(self) -> Scoring:
        forward = ScoringForward(
            self.model, self.loss_fn, self._last_layer, self.scoring_mode, self._output_layer
        )
        return Scoring(
            forward,
            update_norm=self.update_bn == "scored",
            autocast=self.autocast,
            pad=self.last_batch == "pad",
        )

    def _selecting(self) -> Selecting:
        dtype, scoring = model_weight_dtype(self.model), self._scoring()
        records = self._records
        if records is None:
            return Selecting(self.selector, scoring, self._sizes, dtype)
        lookup = RecordedScoring(
            scoring, records, records.now(self.selector.step), self._named.draws_designs
        )
        cap = records.settings.max_weight
        return Selecting(self.selector, lookup, self._sizes, dtype, cap)

    def _forward(self, full: int) -> TrainingForward:
        size = full if self.last_batch == "pad" else 0
        return TrainingForward(
            self.model, self.loss_fn, self.autocast, self.selector, self._notices, self._rows, size
        )

    def _update(self) -> Update:
        return Update(self.optimizer, self.scaler)

    def _reporting(self) -> Reporting:
        wanted = self._learns_from
        if self._records is not None:
            wanted = wanted | self._records.learns_from
        return Reporting(self.loss_fn, self.autocast, wanted, self._output_layer)

    def _train(self, selected: SelectedBatch, clock: Clock) -> StepResult:
        """Make an update on the picked samples of a batch."""
        fitted = self._fit(selected, self.selector.size(self.batch_size), clock)
        self._report(fitted)
        if fitted.loss is None:
            return fitted.selected.result(clock.timings)
        k = len(fitted.selected.picked)
        losses = fitted.forward.losses.detach()[:k]
        return fitted.selected.result(clock.timings, fitted.loss, k, fitted.updated, losses)

    def _must_gather(self, selected: SelectedBatch) -> bool:
        """Whether picked samples wait for others; where all of a full batch is taken, none do."""
        is_plain = selected.is_whole and self.selector.size(self.batch_size) == self.batch_size
        return self.accumulate and (self.gathered > 0 or not is_plain)

    def _gather(self, selected: SelectedBatch, clock: Clock) -> StepResult:
        """Keep the picked samples, and make an update for every full batch that there is."""
        self._gathering.add(selected)
        clock.lap("selection")
        updates = []
        while self.gathered >= self.batch_size:
            updates.append(self._fit_gathered(self.batch_size, clock))
        return selected.result(clock.timings, *combined(updates))

    def _fit_gathered(self, size: int, clock: Clock) -> tuple[Tensor | None, int, bool]:
        """Make an update on the oldest samples; return loss, number of samples, whether updated.

        The samples are dropped after the update only: if it raises, they go on waiting, except
        where a loss is not finite and the next update would raise for the same samples.
        """
        selected = self._gathering.first(size).selected(clock.device)
        try:
            fitted = self._fit(selected, self.batch_size, clock)
        except NonfiniteError:
            self._gathering.drop(size)
            raise
        self._gathering.drop(size)
        self._report(fitted)
        return fitted.loss, len(fitted.selected.picked), fitted.updated

    def _fit(self, selected: SelectedBatch, full: int, clock: Clock) -> Fitted:
        """Make an update.

        ``full`` is the number of samples of a full update, which padding fills up to.
        """
        update, making = self._update(), self._forward(full)
        update.clear()
        with self._norms_kept(selected):
            before = making.before()
            forward = making(selected)
            loss = forward.weighted_loss()
            check = FiniteCheck(loss)
            update.backward(loss)
            if not check.passed() and not forward.is_finite():
                update.clear()
                forward = making.without_nonfinite(forward, before)
                if not len(forward.selected.picked):
                    return Fitted(forward, None, updated=False)
                loss = forward.weighted_loss()
                update.backward(loss)
        clock.lap("training")
        updated = update.apply()
        clock.lap("update")
        return Fitted(forward, loss.detach(), updated)

    def _report(self, fitted: Fitted) -> None:
        """Tell policy and ledger what the training forward gave, where there was an update."""
        listens, records = self.selector.listens, self._records
        if fitted.loss is None or not (listens or records is not None):
            return
        feedback = self._reporting()(fitted.forward, self.selector.step - 1)
        if listens:
            self.selector.hear(feedback)
        if records is not None:
            records.hear(feedback)

    def _norms_kept(self, selected: SelectedBatch) -> AbstractContextManager[object]:
        """Keep the running statistics where they come from the scoring pass."""
        if self.update_bn != "scored" or not selected.is_scored:
            return nullcontext()
        return buffers_kept(norm_modules(self.model))

    def _nothing(self, batch: Batch) -> SelectedBatch:
        """Return a batch from which nothing is picked."""
        dtype = model_weight_dtype(self.model)
        return SelectedBatch.unscored(batch, self.selector.nothing(batch.n, batch.device, dtype))


def _needs_two(model: nn.Module) -> bool:
    """Whether a layer in training mode takes the statistics of one value per sample."""
    return any(isinstance(m, nn.BatchNorm1d) and m.training for m in model.modules())
