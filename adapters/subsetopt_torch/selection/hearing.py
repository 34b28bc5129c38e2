"""What a policy hears of the training forward in a loop of one's own."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import subsetopt as so
from subsetopt.policies import Feedback, listens, to_host
from subsetopt_torch.arguments import Signal
from subsetopt_torch.model.losses import as_loss_vector
from subsetopt_torch.selection.named_policy import NamedPolicy
from subsetopt_torch.selection.picked import Picked
from subsetopt_torch.signals.scoring_forward import from_logits, learns_from

__all__ = ["Hearing", "feedback_on", "finite"]

# The number of selections without any feedback after which a policy that learns from it warns.
_PATIENCE = 20
# What the user of a selector is to do for its policy to hear some.
_OF_SELECTOR = (
    "call selector.observe(picked, losses=..., logits=..., targets=...), or train with a "
    "SelectiveStep, which does"
)


class Hearing:
    """Whether a policy that learns from feedback hears any; if not, it says so once.

    Parameters
    ----------
    remedy
        What the user is to do for it to hear some, as the end of a sentence; by default what the
        user of a selector is to do.
    """

    def __init__(self, remedy: str = _OF_SELECTOR) -> None:
        self._remedy = remedy
        self._expected = True
        self._selections = 0

    def settle(self) -> None:
        """Note that there is feedback, or will be: nothing is said from now on."""
        self._expected = False

    def count(self, named: NamedPolicy, selections: int = 1) -> None:
        """Note selections, by default one; after some without feedback, warn."""
        if not self._expected:
            return
        self._selections += selections
        if self._selections < _PATIENCE:
            return
        self.settle()
        if listens(named.policy):
            warnings.warn(
                f"policy {named.name!r} learns from the training forward, and has heard nothing in "
                f"{self._selections} selections: after every update, {self._remedy}.",
                stacklevel=4,
            )


def feedback_on(
    named: NamedPolicy, picked: Picked, losses: Signal, logits: Signal, targets: Signal
) -> Feedback:
    """Return the feedback on a selection of at least one sample.

    Parameters
    ----------
    named
        The policy that hears it.
    picked
        The selection.
    losses, logits, targets
        What the training forward gave for the picked samples, in their order.

    Raises
    ------
    ProblemError
        If something is malformed, or the policy needs what is missing.
    """
    origin, k = picked.origin, len(picked)
    if origin is None:
        raise so.ProblemError(
            "this pick was not made by a selector, so that no policy learns of it."
        )
    known = {"logits": logits, "targets": targets}
    tensors = {name: _rows(name, value, k) for name, value in known.items() if value is not None}
    wanted = learns_from(named.policy)
    missing = [name for name in ("logits", "targets") if name not in tensors]
    if missing and (wanted or losses is None):
        what = f"learns from {' and '.join(sorted(wanted))}" if wanted else "learns from the losses"
        raise so.ProblemError(
            f"policy {named.name!r} {what} of the training forward: pass "
            f"{' and '.join(f'{name}=' for name in missing)} to observe"
            + ("." if wanted else ", or losses=.")
        )
    if losses is None:
        losses = torch.nn.functional.cross_entropy(
            tensors["logits"].float(), tensors["targets"], reduction="none"
        )
    vector = as_loss_vector(losses)
    if vector.shape[0] != k:
        raise so.ProblemError(
            f"observe takes the losses of the {k} picked samples, unweighted and in the order of "
            f"picked.indices, got {vector.shape[0]}."
        )
    signals = from_logits(tensors, wanted) if wanted else {}
    return Feedback(
        origin.step,
        picked.indices,
        picked.weights,
        vector,
        tensors.get("logits"),
        tensors.get("targets"),
        origin.ids,
        origin.is_scored,
        {name: signals[name] for name in wanted},
    )


def finite(feedback: Feedback) -> tuple[Feedback, Feedback]:
    """Return the feedback on samples whose loss is finite, and that on the others, on the host."""
    losses = to_host(feedback.losses)
    good = np.isfinite(losses)
    if good.all():
        return feedback, _some(feedback, np.empty(0, dtype=np.int64))
    bad = _some(feedback, np.flatnonzero(~good))
    on_host = replace(bad, indices=to_host(bad.indices), losses=to_host(bad.losses))
    return _some(feedback, np.flatnonzero(good)), on_host


def _some(feedback: Feedback, rows: NDArray[np.int64]) -> Feedback:
    """Return the feedback on some of its samples."""

    def taken(values: Any) -> Any:
        if isinstance(values, Tensor):
            return values[torch.from_numpy(rows).to(values.device)]
        return None if values is None else values[rows]

    names = ("indices", "weights", "losses", "logits", "targets", "ids")
    parts = {name: taken(getattr(feedback, name)) for name in names}
    signals = {name: taken(values) for name, values in feedback.signals.items()}
    return replace(feedback, **parts, signals=signals)


def _rows(name: str, value: Signal, k: int) -> Tensor:
    """Return a signal as a detached tensor with one row per picked sample."""
    tensor = torch.as_tensor(value).detach()
    if not tensor.ndim or tensor.shape[0] != k:
        raise so.ProblemError(
            f"observe takes {name} of the {k} picked samples, one row each, got shape "
            f"{tuple(tensor.shape)}."
        )
    return tensor
