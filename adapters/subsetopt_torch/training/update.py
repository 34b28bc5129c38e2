"""The update of a step: gradients cleared, made and applied."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import torch
from torch import Tensor

from subsetopt import OptionError

__all__ = ["Update", "check_needs_no_closure", "innermost"]


@dataclass(frozen=True, slots=True)
class Update:
    """Turns a loss into a change of the parameters."""

    optimizer: torch.optim.Optimizer  #: the optimizer of the model's parameters
    scaler: torch.amp.GradScaler | None  #: scales the loss of a forward in half precision

    def clear(self) -> None:
        """Drop the gradients of the last update."""
        self.optimizer.zero_grad(set_to_none=True)

    def backward(self, loss: Tensor) -> None:
        """Make the gradients of a loss."""
        scaled = loss if self.scaler is None else self.scaler.scale(loss)
        scaled.backward()  # type: ignore[no-untyped-call]

    def apply(self) -> bool:
        """Let the optimizer change the parameters, and return whether it did.

        It does not where the scaler skips an update that is not finite, or where a wrapper around
        the optimizer (one that accumulates gradients) lets the call pass without a step.
        """
        inner = innermost(self.optimizer)
        if (self.scaler is None and inner is self.optimizer) or not _has_hooks(inner):
            self._step()
            return True
        # A fused optimizer is always called, and skips the update itself where this is not 0.
        skipped: list[Tensor | None] = []

        def note(optimizer: torch.optim.Optimizer, *_: object) -> None:
            skipped.append(getattr(optimizer, "found_inf", None))

        handle = inner.register_step_post_hook(note)
        try:
            self._step()
        finally:
            handle.remove()
        return any(found is None or not bool(found) for found in skipped)

    def _step(self) -> None:
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()


def innermost(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Return the optimizer within the wrappers around it, which have it as ``optimizer``."""
    inner = getattr(optimizer, "optimizer", None)
    return innermost(inner) if isinstance(inner, torch.optim.Optimizer) else optimizer


def check_needs_no_closure(optimizer: torch.optim.Optimizer) -> None:
    """Raise if the method ``step`` of an optimizer must be given a closure.

    Raises
    ------
    OptionError
        With the name of the optimizer.
    """
    inner = innermost(optimizer)
    try:
        closure = inspect.signature(inner.step).parameters.get("closure")
    except (TypeError, ValueError):
        return  # a step written in C tells no signature
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise OptionError(
            f"{type(inner).__name__} evaluates the loss several times in an update (its step needs "
            "a closure), and a SelectiveStep makes one forward of the picked samples; use an "
            "optimizer whose step() needs no closure, or a BatchSelector in a loop of your own."
        )


def _has_hooks(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer calls hooks after its steps, as all do that torch has initialized."""
    return hasattr(optimizer, "_optimizer_step_post_hooks")
