"""A training step that pays the backward pass for the chosen samples only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from subsetopt import OptionError
from subsetopt.policies import Feedback
from subsetopt_torch.arguments import check_choice
from subsetopt_torch.model.batches import batch_size, take
from subsetopt_torch.model.losses import weight_dtype
from subsetopt_torch.model.outputs import find_logits
from subsetopt_torch.model.scoring_pass import (
    ScoringMode,
    buffers_kept,
    norm_buffers,
    norm_modules,
    scoring_pass,
)
from subsetopt_torch.selection.picked import Picked
from subsetopt_torch.selection.selector import BatchSelector
from subsetopt_torch.signals.last_layer import LastLayer
from subsetopt_torch.signals.scoring_forward import DERIVED, ScoringForward, learned, learns_from
from subsetopt_torch.training.forward import TrainingForward
from subsetopt_torch.training.gathering import Gathering, combined
from subsetopt_torch.training.progress import Clock, StepRun, device_of
from subsetopt_torch.training.result import StepResult

__all__ = ["SelectiveStep"]


class SelectiveStep:
    """Score a batch, select, and do forward, backward and update on the chosen samples.

    Parameters
    ----------
    model
        Called as ``model(x)``, ``model(*x)`` for a tuple and ``model(**x)`` for a dict.
    loss_fn
        ``loss_fn(outputs, targets)``, one loss per sample, shape (n,): ``reduction="none"``.
    optimizer
        Any optimizer of the model's parameters.
    selector
        Chooses the samples.
    scoring_mode
        ``"eval"``: the scoring pass runs in eval mode (the default). ``"train"``: in the modes the
        modules are in, batch statistics and dropout included, without updating anything.
    update_bn
        Where BatchNorm's running statistics come from: ``"picked"``, the training forward (the
        default), or ``"scored"``, the scoring pass over the whole batch; its normalization layers
        in training mode then use batch statistics. Without a scoring pass, the training forward.
    last_batch
        What to do with a batch smaller than ``batch_size``: ``"shrink"`` takes k from its own n
        (the default), ``"drop"`` skips it, ``"pad"`` keeps the shapes of a full one: samples are
        repeated for scoring and ignored in the choice, and the training forward is filled up with
        repeated samples of weight 0.
    batch_size
        Size of a full batch; None takes the largest seen so far.
    accumulate
        Let picked samples gather until ``batch_size`` of them are there, then make one update on
        those and carry the rest over. Off by default: every batch's picked samples make an update.
    last_layer
        The ``nn.Linear`` of the model, or its name, whose input is the signal ``features`` and
        whose weights ``last_layer_gradients`` are of. None finds the one that makes the logits.
    scaler
        A ``torch.amp.GradScaler``.
    autocast
        Makes the context that both forwards run in, for example
        ``lambda: torch.autocast("cuda", torch.bfloat16)``.
    synchronize
        Wait for a CUDA device at the end of each part, so that ``timings`` says where time went.
        Off by default: it costs speed.

    Raises
    ------
    OptionError
        If an option has a value it does not know.

    Notes
    -----
    With k = n (or a policy that wants no scores) the scoring pass is left out; with k = n the
    parameters are bit-identical to those of ``loss_fn(model(x), y).mean().backward()``. A sample's
    loss that is not finite raises before anything is updated, or is left out, as the selector's
    ``nonfinite`` says; where there was no scoring pass this is asked of the training forward.

    With ``accumulate`` sample i of batch t, of weight w_i among k_t picked, has the weight
    ``w_i * k_t / batch_size`` in its update: 1 / batch_size for equal weights, and the mean of the
    batches' own estimates for any. Samples carried over are copies and part of the state;
    :meth:`flush` trains on what is left at the end. Where a policy takes all of every full batch
    there is nothing to gather, and the step is the plain one.

    A policy with a method ``presample`` has only the candidates scored that it names there.

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
        loss_fn: Callable[[Any, Any], Tensor],
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
        autocast: Callable[[], AbstractContextManager[Any]] | None = None,
        synchronize: bool = False,
    ) -> None:
        check_choice("scoring_mode", scoring_mode, ("eval", "train"))
        check_choice("update_bn", update_bn, ("picked", "scored"))
        check_choice("last_batch", last_batch, ("shrink", "drop", "pad"))
        if batch_size is not None and batch_size < 1:
            raise OptionError(f"batch_size must be at least 1 or None, got {batch_size!r}.")
        self.model = model
        self.loss_fn = loss_fn
        self.optimizer = optimizer
        self.selector = selector
        self.scoring_mode: ScoringMode = scoring_mode
        self.update_bn = update_bn
        self.last_batch = last_batch
        self.accumulate = accumulate
        self.scaler = scaler
        self.autocast = autocast or nullcontext
        self.synchronize = synchronize
        self._last_layer = LastLayer(model, last_layer)
        self._learns_from = learns_from(selector.policy)
        self._fixed_size = batch_size
        self._largest = 0
        self._largest_presample = 0
        self._gathering = Gathering()

    @property
    def batch_size(self) -> int:
        """Size of a full batch: as given, or the largest seen so far."""
        return self._fixed_size or self._largest

    def __call__(
        self,
        inputs: Any,
        targets: Any,
        *,
        ids: Any = None,
        constraints: Mapping[str, Any] | None = None,
        **signals: Any,
    ) -> StepResult:
        """Make one training step.

        Parameters
        ----------
        inputs, targets
            Tensors, or tuples, lists and dicts of them, nested; samples along dimension 0.
        ids
            Sample ids, shape (n,), for policies that remember samples.
        constraints
            For this batch, as for :meth:`BatchSelector.__call__`.
        signals
            Further signals that the policy requires, one row per sample.

        Raises
        ------
        ProblemError
            If the loss is reduced or not finite, or the batch has no batch dimension.
        """
        n = batch_size(targets, inputs)
        self._largest = max(self._largest, n)
        run = self._start(inputs, targets, ids, n)
        if run.n == 0 or (self.last_batch == "drop" and run.n < self.batch_size):
            return self._nothing(run)
        picked = self._pick(run, constraints, signals)
        run.clock.lap("selection")
        if len(picked) == 0:
            return self._nothing(run, picked)
        return self._gather(run, picked) if self._gathers(run) else self._train(run, picked)

    def flush(self) -> StepResult:
        """Train on the gathered samples that did not fill a batch, if there are any.

        For the end of training with ``accumulate``; their weights are those of an update of just
        this size. The result's ``picked`` is empty: nothing was picked now.
        """
        waiting = len(self._gathering)
        run = self._start(None, None, None, 0)
        updates = [self._fit_gathered(run, waiting)] if waiting else []
        picked = self.selector.nothing(0, run.device, self._dtype())
        return run.result(picked, *combined(updates))

    @property
    def gathered(self) -> int:
        """How many picked samples wait for an update."""
        return len(self._gathering)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs besides the model's and the optimizer's own state."""
        return {
            "selector": self.selector.state_dict(),
            "largest_batch": self._largest,
            "gathered": self._gathering.state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken.

        Raises
        ------
        OptionError
            If the state is incomplete or belongs to another policy, or holds gathered samples and
            this step gathers none.
        """
        missing = {"selector", "largest_batch", "gathered"} - set(state)
        if missing:
            raise OptionError(f"the step state lacks {sorted(missing)}.")
        if state["gathered"] and not self.accumulate:
            raise OptionError(
                "the step state holds gathered samples, which this step would never train on: make "
                "it with accumulate=True."
            )
        self.selector.load_state_dict(state["selector"])
        self._largest = int(state["largest_batch"])
        self._gathering.load(state["gathered"])

    def _start(self, inputs: Any, targets: Any, ids: Any, n: int) -> StepRun:
        clock = Clock(device_of(self.model, inputs), self.synchronize)
        return StepRun(inputs, targets, ids, n, self.batch_size, clock)

    def _pick(
        self, run: StepRun, constraints: Mapping[str, Any] | None, signals: dict[str, Any]
    ) -> Picked:
        """Choose from a batch, after the scoring pass where there is one."""
        signals = signals if run.ids is None else {**signals, "ids": run.ids}
        free = not (constraints or self.selector.constraints)
        if (k := self.selector.size(run.n)) == run.n and free:
            run.whole = True
            return self.selector.everything(run.n, run.device, self._dtype())
        if isinstance(run.targets, Tensor):
            signals = {"targets": run.targets, **signals}
        if not k or not self.selector.needs_scoring(run.n):
            return self.selector.without_losses(
                run.n, run.device, self._dtype(), constraints=constraints, **signals
            )
        presample = self.selector.presample(run.n, constraints=constraints)
        part = run
        if presample is not None:
            run.scored_indices = presample.on(run.device)
            self._largest_presample = max(self._largest_presample, len(presample))
            part = run.part(run.scored_indices, self._largest_presample)
            signals = presample.rows(signals)
        given = {name for name, value in signals.items() if value is not None}
        wanted = (DERIVED & self.selector.policy.requires) - given
        run.losses, made = self._score(part, wanted)
        run.scored = True
        run.clock.lap("scoring")
        known = {**made, **signals}
        return self.selector(run.losses, presample=presample, constraints=constraints, **known)

    def _dtype(self) -> torch.dtype:
        parameter = next((p for p in self.model.parameters() if p.is_floating_point()), None)
        return weight_dtype(torch.float32 if parameter is None else parameter.dtype)

    def _padding(self, n: int, size: int) -> int:
        """Return how many repeats fill ``size`` up to what a full batch would have."""
        return max(0, size - n) if self.last_batch == "pad" else 0

    def _score(self, run: StepRun, wanted: frozenset[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the losses of all samples of a run, and their signals."""
        n, inputs, targets = run.n, run.inputs, run.targets
        padding = self._padding(n, run.full)
        if padding:
            rows = torch.arange(n + padding, device=run.device) % n
            inputs, targets = take(inputs, rows, n), take(targets, rows, n)
        update_norm = self.update_bn == "scored"
        forward = ScoringForward(self.model, self.loss_fn, self._last_layer, self.scoring_mode)
        with (
            scoring_pass(
                self.model, self.scoring_mode, update_norm=update_norm, devices=(run.device,)
            ),
            self.autocast(),
        ):
            losses, signals = forward(inputs, targets, n + padding, wanted)
        if padding:
            losses, signals = losses[:n], {name: value[:n] for name, value in signals.items()}
        return losses, signals

    def _train(self, run: StepRun, picked: Picked) -> StepResult:
        """Make an update on the picked samples of a batch."""
        loss, losses, picked = self._fit(run, picked, self.selector.size(self.batch_size))
        if loss is None:
            return self._nothing(run, picked)
        return run.result(picked, loss, len(picked), losses.detach()[: len(picked)])

    def _gathers(self, run: StepRun) -> bool:
        """Whether picked samples wait for others; where all of a full batch is taken, none do."""
        plain = run.whole and self.selector.size(self.batch_size) == self.batch_size
        return self.accumulate and (self.gathered > 0 or not plain)

    def _gather(self, run: StepRun, picked: Picked) -> StepResult:
        """Keep the picked samples, and make an update for every full batch that there is."""
        self._gathering.add(run, picked)
        run.clock.lap("selection")
        updates = []
        while self.gathered >= self.batch_size:
            updates.append(self._fit_gathered(run, self.batch_size))
        return run.result(picked, *combined(updates))

    def _fit_gathered(self, run: StepRun, size: int) -> tuple[Tensor | None, int]:
        """Make an update on the oldest samples; return its loss, and how many they were."""
        gathered = self._gathering.pop(size)
        inputs, targets, ids = gathered.samples
        batch = StepRun(inputs, targets, ids, size, self.batch_size, run.clock)
        batch.scored, batch.positions = gathered.scored, gathered.positions
        loss, _, picked = self._fit(batch, gathered.pick(), self.batch_size)
        return loss, len(picked)

    def _fit(self, run: StepRun, picked: Picked, full: int) -> tuple[Tensor | None, Tensor, Picked]:
        """Make an update; return its loss (None without one), those of the samples, and these."""
        self.optimizer.zero_grad(set_to_none=True)
        size = full if self.last_batch == "pad" else 0
        forward = TrainingForward(self.model, self.loss_fn, self.autocast, self.selector, size)
        with ExitStack() as stack:
            if self.update_bn == "scored" and run.scored:
                norms = [b for m in norm_modules(self.model) for b in norm_buffers(m)]
                stack.enter_context(buffers_kept(norms))
            losses, outputs, picked = forward(run, picked)
            if len(picked) == 0:
                return None, losses, picked
            loss = self._loss(run, losses, picked)
            self._backward(loss)
        run.clock.lap("training")
        self._update()
        run.clock.lap("update")
        self._observe(run, picked, losses, outputs)
        return loss.detach(), losses, picked

    def _loss(self, run: StepRun, losses: Tensor, picked: Picked) -> Tensor:
        k = len(picked)
        if run.whole and k == losses.shape[0] == run.n:
            return losses.mean()  # the very operation of the plain loop, to the last bit
        return (losses[:k] * picked.weights.to(losses.device)).sum()

    def _backward(self, loss: Tensor) -> None:
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]

    def _update(self) -> None:
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()

    def _observe(self, run: StepRun, picked: Picked, losses: Tensor, outputs: Any) -> None:
        if not self.selector.listens:
            return
        k, size = len(picked), losses.shape[0]
        logits = find_logits(outputs, size)
        positions = picked.indices
        if run.positions is not None:
            positions = run.positions[positions]
        self.selector.observe(
            Feedback(
                self.selector.step - 1,
                positions,
                picked.weights,
                losses.detach()[:k],
                None if logits is None else logits.detach()[:k],
                take(run.targets, picked.indices, run.n),
                None if run.ids is None else take(run.ids, picked.indices, run.n),
                run.scored,
                self._learned(run, picked, outputs, size),
            )
        )

    def _learned(self, run: StepRun, picked: Picked, outputs: Any, size: int) -> dict[str, Tensor]:
        """Return what the policy learns of the picked samples from ``size`` rows of outputs."""
        if not self._learns_from:
            return {}
        k = len(picked)
        rows = picked.indices[torch.arange(size, device=picked.indices.device) % k]
        targets = take(run.targets, rows, run.n)
        with self.autocast():
            signals = learned(self.loss_fn, outputs, targets, size, self._learns_from)
        return {name: value[:k] for name, value in signals.items()}

    def _nothing(self, run: StepRun, picked: Picked | None = None) -> StepResult:
        """Return the result of a step that trained on nothing."""
        if picked is None:
            picked = self.selector.nothing(run.n, run.device, self._dtype())
        return run.result(picked, None)
