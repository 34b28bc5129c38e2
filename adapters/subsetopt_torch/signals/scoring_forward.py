"""Signals made from the scoring forward: gradients of each sample's loss, as far as wanted.

From cheap to dear: ``logit_gradients`` and their norms ``upper_bound`` (closed forms for the common
losses, and one call of autograd with respect to the logits for any other), ``features`` and
``last_layer_gradients`` (a hook on the last linear layer), and ``gradient_norms`` (a forward
and a backward pass, and the norms by layer).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from subsetopt import OptionError, ProblemError
from subsetopt.policies import (
    Policy,
    WithLearnsFrom,
    cross_entropy_gradients,
    has,
    row_norms,
)
from subsetopt_torch.model.batches import Rows, call_model, per_sample, take_rows
from subsetopt_torch.model.buffers import buffers_kept, norm_modules
from subsetopt_torch.model.losses import LossFunction, check_per_sample
from subsetopt_torch.model.outputs import find_logits, real_outputs
from subsetopt_torch.model.scoring_pass import ScoringMode
from subsetopt_torch.signals.known_losses import closed_form, is_known, is_of_outputs
from subsetopt_torch.signals.last_layer import LastLayer
from subsetopt_torch.signals.output_layer import OutputLayer, Targets, Trace
from subsetopt_torch.signals.sample_gradients import norms_of_rows

__all__ = ["DERIVED", "ScoringForward", "from_logits", "learned", "learns_from"]

_Signal = TypeVar("_Signal")

# How far target probabilities may be from the sum 1, as they are in half precision.
_SUM_TOLERANCE = 1e-2

# Signals that follow from the logits alone, so that the training forward gives them as well.
_OF_LOGITS = frozenset({"logit_gradients", "upper_bound"})
# Signals that need what goes into the last layer.
_OF_LAYER = frozenset({"features", "last_layer_gradients"})
# Signals that a scoring forward makes besides losses and logits.
DERIVED = _OF_LOGITS | _OF_LAYER | {"gradient_norms"}
# Signals that need the gradients with respect to the logits.
_NEED_GRADIENTS = _OF_LOGITS | {"last_layer_gradients"}


@dataclass(frozen=True, slots=True)
class ScoringForward:
    """The forward of a scoring pass, with the signals that follow from it."""

    model: nn.Module  #: the model that scores
    loss_fn: LossFunction  #: ``loss_fn(outputs, targets)``, one loss per sample
    last_layer: LastLayer  #: the linear layer whose input is ``features``
    mode: ScoringMode = "eval"  #: the mode of the modules in the pass, ``"eval"`` or ``"train"``
    #: what is known of the outputs and the loss; by default nothing yet
    output_layer: OutputLayer = field(default_factory=OutputLayer)

    def __call__(
        self,
        inputs: object,
        targets: object,
        n: int,
        wanted: frozenset[str] = frozenset(),
        rows: Sequence[Rows] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the losses of n samples and their signals: the logits, and what is wanted.

        To be called within :func:`scoring_pass`, and within autocast if the training forward is.

        Parameters
        ----------
        inputs, targets
            The samples, along dimension 0.
        n
            The number of samples.
        wanted
            Names of the derived signals to make; none by default.
        rows
            Which parts of inputs and targets have one row per sample; None looks at their sizes.

        Returns
        -------
        tuple[Tensor, dict[str, Tensor]]
            Losses, shape (n,), detached; ``logits`` where the outputs have them, and the signals
            wanted, one row per sample.

        Raises
        ------
        ProblemError
            If the loss is not per sample, or a signal cannot be made; the message says why.
        """
        rows = rows or [per_sample(inputs, n), per_sample(targets, n)]
        with ExitStack() as stack:
            watched = bool(wanted & _OF_LAYER)
            calls = stack.enter_context(self.last_layer.recording()) if watched else []
            outputs = call_model(self.model, inputs, rows[0])
        logits = find_logits(outputs, n)
        signals: dict[str, Tensor] = {} if logits is None else {"logits": logits}
        if wanted & _NEED_GRADIENTS:
            logits = _logits_of(outputs, n)
            losses, gradients = _with_gradients(
                self.output_layer,
                self.loss_fn,
                outputs,
                Targets(targets, rows[1]),
                n,
                partial(self._few, inputs, rows[0], n),
            )
            signals.update(_of_gradients(gradients, wanted))
            if "upper_bound" in signals:
                self.output_layer.look_at_norms(signals["upper_bound"], logits)
            if "last_layer_gradients" in wanted:
                if gradients.shape != logits.shape:
                    raise ProblemError(
                        "'last_layer_gradients' are those of one layer, but the loss depends on "
                        "several outputs of the model. Use the signal 'upper_bound', which takes "
                        "all of them together."
                    )
                by_weights = self.last_layer.gradients(calls, logits, gradients)
                signals["last_layer_gradients"] = by_weights
        else:
            losses = check_per_sample(self.loss_fn(outputs, targets), n)
        if "features" in wanted:
            signals["features"] = self.last_layer.features(calls, logits, n)
        if "gradient_norms" in wanted:
            norms = norms_of_rows(self.model, self.loss_fn, inputs, targets, rows, mode=self.mode)
            signals["gradient_norms"] = norms
        return losses.detach(), signals

    def _few(self, inputs: object, rows: Rows, n: int) -> list[Tensor]:
        """Return the outputs of at most two samples, made with gradients."""
        m = min(n, 2)
        few = take_rows(inputs, torch.arange(m), rows)
        with torch.enable_grad(), buffers_kept(norm_modules(self.model)):
            return real_outputs(call_model(self.model, few, rows), m)


def learns_from(policy: Policy) -> frozenset[str]:
    """Return which derived signals of the training forward a policy learns from.

    Raises
    ------
    OptionError
        If its attribute ``learns_from`` names a signal that does not follow from the logits.
    """
    names = frozenset(policy.learns_from if has(policy, WithLearnsFrom) else ())
    if not names <= _OF_LOGITS:
        raise OptionError(
            f"a policy can learn from {' and '.join(sorted(_OF_LOGITS))} of the training forward; "
            f"learns_from of {type(policy).__name__} names {', '.join(sorted(names - _OF_LOGITS))}."
        )
    return names


def learned(
    output_layer: OutputLayer,
    loss_fn: LossFunction,
    outputs: object,
    targets: Targets,
    n: int,
    wanted: frozenset[str],
) -> dict[str, Tensor]:
    """Return derived signals of a training forward, from its outputs alone, detached.

    Parameters
    ----------
    output_layer
        What is known of the outputs and the loss.
    loss_fn, outputs, targets, n
        As for :meth:`OutputLayer.gradients`.
    wanted
        Names of the signals: any of ``upper_bound`` and ``logit_gradients``.

    Raises
    ------
    ProblemError
        If the outputs have no logits, the loss mixes samples, or it is not a known one and the
        logits cannot be replaced.
    """
    if not wanted:
        return {}
    logits = _logits_of(outputs, n)
    devices = [] if logits.device.type == "cpu" else [logits.device]
    with (
        torch.no_grad(),
        nullcontext()
        if is_known(loss_fn)
        else torch.random.fork_rng(devices, device_type=logits.device.type),
    ):
        traced = partial(real_outputs, outputs, n)
        gradients = _with_gradients(output_layer, loss_fn, outputs, targets, n, traced)[1]
    return _of_gradients(gradients.detach(), wanted)


def from_logits(
    signals: Mapping[str, _Signal], names: frozenset[str]
) -> dict[str, _Signal | Tensor]:
    """Return signals with those added that follow from logits and targets by cross entropy.

    Parameters
    ----------
    signals
        The signals that are known, by name.
    names
        Names of the signals that are wanted. ``upper_bound`` and ``logit_gradients`` are added
        where they are missing and there are ``logits``, shape (n, C), and ``targets`` for them.
    """
    missing = frozenset(name for name in names & _OF_LOGITS if signals.get(name) is None)
    logits, targets = signals.get("logits"), signals.get("targets")
    if not missing or logits is None or targets is None:
        return dict(signals)
    _check_for_cross_entropy(torch.as_tensor(logits), targets)
    gradients = cross_entropy_gradients(torch.as_tensor(logits), targets)
    return {**signals, **_of_gradients(gradients, missing)}


def _check_for_cross_entropy(logits: Tensor, targets: object) -> None:
    """Raise if targets are no labels and no probabilities of classes.

    Raises
    ------
    ProblemError
        If rows of real targets do not sum to 1.
    """
    given = torch.as_tensor(targets)
    if given.ndim != 2 or given.shape != logits.shape:
        return
    sums = given.detach().sum(1).float()
    if not bool(((sums - 1).abs() <= _SUM_TOLERANCE).all()):
        raise ProblemError(
            "targets of several labels per sample have no cross entropy, which is what a selector "
            "makes 'upper_bound' and 'logit_gradients' from: pass the signal itself, for example "
            "upper_bound=row_norms(binary_cross_entropy_gradients(logits, targets)) of "
            "subsetopt.policies, or use a SelectiveStep, which knows the loss."
        )


def _with_gradients(
    output_layer: OutputLayer,
    loss_fn: LossFunction,
    outputs: object,
    targets: Targets,
    n: int,
    traced: Trace,
) -> tuple[Tensor, Tensor]:
    """Return losses and the gradients with respect to the logits; see ``OutputLayer.gradients``."""
    gradients = closed_form(loss_fn, outputs, targets.values) if is_known(loss_fn) else None
    if gradients is None:
        return output_layer.gradients(loss_fn, outputs, targets, n, traced)
    losses = check_per_sample(loss_fn(outputs, targets.values), n)
    if is_of_outputs(loss_fn):
        assert isinstance(outputs, Tensor)
        gradients = output_layer.before_activation(outputs, gradients, 0, n, traced)
    return losses, gradients


def _of_gradients(gradients: Tensor, wanted: frozenset[str]) -> dict[str, Tensor]:
    """Return the signals that follow from logit gradients, one row per sample."""
    rows = gradients.reshape(gradients.shape[0], -1)
    signals: dict[str, Tensor] = {}
    if "logit_gradients" in wanted:
        signals["logit_gradients"] = rows
    if "upper_bound" in wanted:
        signals["upper_bound"] = _norms(rows)
    return signals


def _norms(rows: Tensor) -> Tensor:
    """Return the norms of rows, computed in float64, in which their squares do not underflow.

    MPS has no float64; there, as for float64 values, scaling keeps the squares in range.
    """
    if rows.device.type == "mps" or rows.dtype == torch.float64:
        return torch.as_tensor(row_norms(rows))
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
    return norms.to(rows.dtype)


def _logits_of(outputs: object, n: int) -> Tensor:
    """Return the logits within outputs that must have them.

    Raises
    ------
    ProblemError
        If they have none.
    """
    logits = find_logits(outputs, n)
    return real_outputs(outputs, n)[0] if logits is None else logits
