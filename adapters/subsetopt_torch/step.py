"""A training step that pays the backward pass for the chosen samples only."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from subsetopt import OptionError
from subsetopt.policies import Feedback, to_host
from subsetopt_torch.batches import batch_size, call_model, first_tensor, take
from subsetopt_torch.picked import Picked
from subsetopt_torch.scoring import (
    ScoringMode,
    buffers_kept,
    check_choice,
    norm_buffers,
    norm_modules,
    scoring_pass,
)
from subsetopt_torch.selector import BatchSelector
from subsetopt_torch.signals import check_per_sample, weight_dtype

__all__ = ["SelectiveStep", "StepResult", "Timings"]


@dataclass(slots=True)
class Timings:
    """Seconds that the parts of a step took.

    On a device that works ahead of the host these are the host's seconds, and work lands in the
    part that waits for it (the selection waits for the scoring pass), unless the step was made
    with ``synchronize=True``.

    Attributes
    ----------
    scoring
        The forward pass over all candidates; 0 when there was none.
    selection
        From the losses to the indices, transfers included.
    training
        Forward and backward of the chosen samples.
    update
        The optimizer's step.
    """

    scoring: float = 0.0
    selection: float = 0.0
    training: float = 0.0
    update: float = 0.0

    @property
    def total(self) -> float:
        """The sum of the parts."""
        return self.scoring + self.selection + self.training + self.update


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step did.

    Attributes
    ----------
    loss
        The weighted loss of the chosen samples in the training forward, a detached scalar; nan
        when nothing was trained on.
    batch_loss
        Mean over all scored samples, a detached scalar: the honest curve. With all samples chosen
        it is the mean of the training forward; nan where no forward over the batch was made
        (``uniform`` below rate 1).
    picked
        The chosen samples.
    timings
        Seconds spent.
    losses
        Per-sample losses of the scoring pass, shape (n,), detached; None without one.
    updated
        Whether the parameters were updated: False for an empty or dropped batch.
    """

    loss: Tensor
    batch_loss: Tensor
    picked: Picked
    timings: Timings
    losses: Tensor | None = field(default=None, repr=False)
    updated: bool = True


@dataclass(slots=True)
class _Run:
    """One step in progress: the batch, its constants and the clock."""

    inputs: Any
    targets: Any
    n: int
    device: torch.device
    synchronize: bool
    whole: bool = False  # everything was taken, with weights 1/n
    timings: Timings = field(default_factory=Timings)
    mark: float = field(default_factory=time.perf_counter)

    def lap(self, part: str) -> None:
        """Charge the time since the last mark to a part of the step."""
        if self.synchronize and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        setattr(self.timings, part, getattr(self.timings, part) + now - self.mark)
        self.mark = now


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
        self.scaler = scaler
        self.autocast = autocast or nullcontext
        self.synchronize = synchronize
        self._fixed_size = batch_size
        self._largest = 0

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
        run = self._start(inputs, targets)
        if run.n == 0 or (self.last_batch == "drop" and run.n < self.batch_size):
            return self._nothing(run, None)
        signals.update({} if ids is None else {"ids": ids})
        scored: Tensor | None = None
        free = not (constraints or self.selector.constraints)
        if (k := self.selector.size(run.n)) == run.n and free:
            run.whole = True
            picked = self.selector.everything(run.n, run.device, self._dtype())
        elif k and self.selector.needs_scoring(run.n):
            scored, outputs = self._score(run)
            run.lap("scoring")
            picked = self.selector(
                scored,
                constraints=constraints,
                **{**_model_signals(outputs, targets, run.n), **signals},
            )
        else:
            picked = self.selector.without_losses(
                run.n,
                run.device,
                self._dtype(),
                constraints=constraints,
                **{**_model_signals(None, targets, run.n), **signals},
            )
        run.lap("selection")
        if len(picked) == 0:
            return self._nothing(run, scored, picked)
        return self._train(run, picked, scored, ids)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs besides the model's and the optimizer's own state."""
        return {"selector": self.selector.state_dict(), "largest_batch": self._largest}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken.

        Raises
        ------
        OptionError
            If the state is incomplete or belongs to another policy.
        """
        missing = {"selector", "largest_batch"} - set(state)
        if missing:
            raise OptionError(f"the step state lacks {sorted(missing)}.")
        self.selector.load_state_dict(state["selector"])
        self._largest = int(state["largest_batch"])

    def _start(self, inputs: Any, targets: Any) -> _Run:
        n = batch_size(targets, inputs)
        self._largest = max(self._largest, n)
        parameter = next(self.model.parameters(), None)
        tensor = first_tensor(inputs)
        device = parameter.device if tensor is None and parameter is not None else None
        if device is None:
            device = tensor.device if tensor is not None else torch.device("cpu")
        return _Run(inputs, targets, n, device, self.synchronize)

    def _dtype(self) -> torch.dtype:
        parameter = next((p for p in self.model.parameters() if p.is_floating_point()), None)
        return weight_dtype(torch.float32 if parameter is None else parameter.dtype)

    def _padding(self, n: int, size: int) -> int:
        """Return how many repeats fill ``size`` up to what a full batch would have."""
        return max(0, size - n) if self.last_batch == "pad" else 0

    def _score(self, run: _Run) -> tuple[Tensor, Any]:
        """Return the losses of all n candidates, and the model's outputs."""
        n, inputs, targets = run.n, run.inputs, run.targets
        padding = self._padding(n, self.batch_size)
        if padding:
            rows = torch.arange(n + padding, device=run.device) % n
            inputs, targets = take(inputs, rows, n), take(targets, rows, n)
        update_norm = self.update_bn == "scored"
        with (
            scoring_pass(
                self.model, self.scoring_mode, update_norm=update_norm, devices=(run.device,)
            ),
            self.autocast(),
        ):
            outputs = call_model(self.model, inputs)
            losses = check_per_sample(self.loss_fn(outputs, targets), n + padding)
        if padding:
            rows = torch.arange(n, device=losses.device)
            losses, outputs = losses[:n], take(outputs, rows, n + padding)
        return losses.detach(), outputs

    def _train(self, run: _Run, picked: Picked, scored: Tensor | None, ids: Any) -> StepResult:
        self.optimizer.zero_grad(set_to_none=True)
        with ExitStack() as stack:
            if self.update_bn == "scored" and scored is not None:
                norms = [b for m in norm_modules(self.model) for b in norm_buffers(m)]
                stack.enter_context(buffers_kept(norms))
            losses, outputs, picked = self._forward(run, picked, checked=scored is not None)
            if len(picked) == 0:
                return self._nothing(run, scored, picked)
            loss = self._loss(run, losses, picked)
            self._backward(loss)
        run.lap("training")
        self._update()
        run.lap("update")
        self._observe(run, picked, losses, outputs, ids, scored is not None)
        batch_loss = self._batch_loss(losses, picked, scored)
        return StepResult(loss.detach(), batch_loss, picked, run.timings, scored)

    def _forward(self, run: _Run, picked: Picked, *, checked: bool) -> tuple[Tensor, Any, Picked]:
        """Return the losses of the picked samples, without those that are not finite.

        ``checked`` samples had their losses looked at in the scoring pass.
        """
        guard = not checked and self.selector.nonfinite == "exclude"
        before = [(b, b.detach().clone()) for b in self.model.buffers()] if guard else []
        losses, outputs = self._forward_rows(run, picked)
        if checked:
            return losses, outputs, picked
        values = losses.detach()[: len(picked)]
        good = values.isfinite()
        if bool(good.all()):
            return losses, outputs, picked
        # A NaN reaches every gradient and BatchNorm's statistics: forward again without it.
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)
        if guard:
            good = self._finite_alone(run, picked, good)
        self.selector.exclude_nonfinite(to_host(picked.indices[~good]), to_host(values[~good]))
        left = _left_out(picked, good)
        if len(left):
            losses, outputs = self._forward_rows(run, left)
            if not bool(losses.detach().isfinite().all()):
                left = _left_out(left, torch.zeros_like(left.indices, dtype=torch.bool))
        return losses, outputs, left

    def _finite_alone(self, run: _Run, picked: Picked, together: Tensor) -> Tensor:
        """Return which losses are finite when no sample sees another, as in eval mode.

        Under BatchNorm one NaN makes the losses of the whole batch NaN; the others are innocent.
        """
        with scoring_pass(self.model, devices=(run.device,)):
            alone = self._forward_rows(run, picked)[0][: len(picked)].isfinite()
        return together if bool(alone.all()) else alone

    def _forward_rows(self, run: _Run, picked: Picked) -> tuple[Tensor, Any]:
        rows, inputs, targets = picked.indices, run.inputs, run.targets
        padding = self._padding(len(picked), self.selector.size(self.batch_size))
        if padding:
            rows = rows[torch.arange(len(picked) + padding, device=rows.device) % len(picked)]
        if padding or len(picked) < run.n:
            inputs, targets = take(inputs, rows, run.n), take(targets, rows, run.n)
        with self.autocast():
            outputs = call_model(self.model, inputs)
            return check_per_sample(self.loss_fn(outputs, targets), rows.shape[0]), outputs

    def _loss(self, run: _Run, losses: Tensor, picked: Picked) -> Tensor:
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

    def _observe(
        self, run: _Run, picked: Picked, losses: Tensor, outputs: Any, ids: Any, scored: bool
    ) -> None:
        if not self.selector.listens:
            return
        k = len(picked)
        rows = torch.arange(k, device=picked.indices.device)
        logits = _logits(outputs, losses.shape[0])
        self.selector.observe(
            Feedback(
                self.selector.step - 1,
                picked.indices,
                picked.weights,
                losses.detach()[:k],
                None if logits is None else take(logits.detach(), rows, losses.shape[0]),
                take(run.targets, picked.indices, run.n),
                None if ids is None else take(ids, picked.indices, run.n),
                scored,
            )
        )

    def _batch_loss(self, losses: Tensor, picked: Picked, scored: Tensor | None) -> Tensor:
        if scored is None:
            whole = len(picked) + picked.excluded == picked.n
            return losses.detach()[: len(picked)].mean() if whole else _nan(losses.device)
        values = scored.to(weight_dtype(scored.dtype))
        return values[values.isfinite()].mean() if picked.excluded else values.mean()

    def _nothing(
        self, run: _Run, scored: Tensor | None, picked: Picked | None = None
    ) -> StepResult:
        """Return the result of a step that trained on nothing."""
        nan = _nan(run.device)
        if picked is None:
            picked = self.selector.nothing(run.n, run.device, self._dtype())
        batch_loss = nan if scored is None else self._batch_loss(scored, picked, scored)
        return StepResult(nan, batch_loss, picked, run.timings, scored, updated=False)


def _left_out(picked: Picked, good: Tensor) -> Picked:
    """Return the pick without some of its samples, their weight spread over the others."""
    weights = picked.weights[good]
    total = weights.sum()
    scale = picked.weights.sum() / total if len(weights) else total
    return Picked(
        picked.indices[good],
        weights * scale,
        picked.n,
        lambda: picked.solution,
        int((~good).sum()),
        picked.fallback,
    )


def _logits(outputs: Any, n: int) -> Tensor | None:
    """Return what can be taken for the logits of a model's outputs: one row per sample."""
    logits = getattr(outputs, "logits", None)
    tensor = logits if isinstance(logits, Tensor) else first_tensor(outputs)
    return tensor if tensor is not None and tensor.ndim and tensor.shape[0] == n else None


def _model_signals(outputs: Any, targets: Any, n: int) -> dict[str, Any]:
    logits = None if outputs is None else _logits(outputs, n)
    found = {"logits": logits, "targets": targets if isinstance(targets, Tensor) else None}
    return {name: value for name, value in found.items() if value is not None}


def _nan(device: torch.device) -> Tensor:
    return torch.full((), float("nan"), device=device)
