"""What a policy is: the protocol, what it is given, and the defaults of one without memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from subsetopt.errors import OptionError, ProblemError
from subsetopt.policies.arrays import Array
from subsetopt.problem import Problem

__all__ = [
    "FORWARD_SIGNALS",
    "Feedback",
    "Policy",
    "SelectionState",
    "Signals",
    "StatelessPolicy",
    "candidate_count",
    "signal",
]

Signals = Mapping[str, Array]

# Signals that only a forward pass over the candidates can give; the others come with the batch.
FORWARD_SIGNALS = frozenset(
    {
        "losses",
        "logits",
        "outputs",
        "features",
        "upper_bound",
        "logit_gradients",
        "last_layer_gradients",
        "gradient_norms",
    }
)


@dataclass(frozen=True, slots=True)
class SelectionState:
    """What is known before any forward pass.

    Attributes
    ----------
    step
        The number of selections made so far.
    n, k
        The number of candidates of this selection, and the number to be chosen from them.
    """

    step: int
    n: int
    k: int


@dataclass(frozen=True, slots=True)
class Feedback:
    """What the training forward pass says about the samples that were trained on.

    Attributes
    ----------
    step
        The selection this belongs to, counted from 0.
    indices, weights
        The chosen candidates (k,) and their training weights (k,). Where samples of several
        batches were gathered for one update, the indices are positions in those batches.
    losses
        Their losses in the training forward, shape (k,), detached.
    logits, targets
        The model's outputs for them and their targets, as the model and the batch have them; None
        where there is no such array.
    ids
        Their sample ids, shape (k,); None where the batch has no ids.
    scored
        Whether a scoring pass preceded the choice.
    signals
        Derived signals of the chosen samples (``upper_bound``, ``logit_gradients``), one row each,
        made from the logits of the training forward pass: those that the policy names in its
        attribute ``learns_from``.
    """

    step: int
    indices: Array
    weights: Array
    losses: Array
    logits: Array | None = None
    targets: Any = None
    ids: Array | None = None
    scored: bool = False
    signals: Signals = field(default_factory=dict)


@runtime_checkable
class Policy(Protocol):
    """Turns signals into a problem; it knows neither the solver nor the training loop.

    A policy writes its arithmetic once against the array API and never imports torch. Vectors with
    one number per sample arrive as NumPy arrays. A policy that requires anything larger (logits,
    features) gets every signal on the model's device, and brings only its own result to the host,
    with ``to_host``: a vector of n scores instead of n x classes numbers.

    A policy may have further members, each described by a protocol of ``subsetopt.policies``:
    ``presample`` (:class:`WithPresample`), ``weigh`` (:class:`WithWeigh`), ``solver``
    (:class:`WithSolver`), ``learns_from`` (:class:`WithLearnsFrom`), ``curves``
    (:class:`WithCurves`) and, for choosing over a data set, ``draw`` (:class:`WithDraw`),
    ``epoch_order`` (:class:`WithEpochOrder`), ``refresh`` (:class:`WithRefresh`),
    ``wants_refresh`` (:class:`WithWantsRefresh`) and ``size`` (:class:`WithSize`). A name
    that is nearly one of these, but for the last, is refused.
    """

    @property
    def requires(self) -> frozenset[str]:
        """Return the names of the signals that ``propose`` reads."""

    def needs_scoring(self, state: SelectionState) -> bool:
        """Return whether a forward pass over all candidates is wanted now."""

    def propose(self, signals: Signals, k: int, rng: np.random.Generator) -> Problem:
        """Return the problem whose solution is trained on."""

    def observe(self, feedback: Feedback) -> None:
        """Learn from the training forward pass over what was chosen."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed run needs to go on bit-identically."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state that ``state_dict`` returned."""


class StatelessPolicy:
    """The part of the protocol that a policy without memory shares with every other.

    A subclass writes ``propose``. A scoring pass is wanted if and only if a required signal can
    come from nowhere else.
    """

    requires: ClassVar[frozenset[str]] = frozenset()

    def needs_scoring(self, state: SelectionState) -> bool:
        """Return whether any required signal comes from a forward pass only."""
        return bool(self.requires & FORWARD_SIGNALS)

    def observe(self, feedback: Feedback) -> None:
        """Learn nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Return an empty dict."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Accept an empty state.

        Raises
        ------
        OptionError
            If the state is no dict, or holds anything: it belongs to another policy.
        """
        if not isinstance(state, Mapping):
            raise OptionError(
                f"a state of {type(self).__name__} is a dict, got {type(state).__name__}: pass "
                "what state_dict() returned."
            )
        if state:
            raise OptionError(
                f"{type(self).__name__} has no state, but the state to load holds "
                f"{sorted(map(str, state))}: it was saved by another policy."
            )


def signal(signals: Signals, name: str, policy: str) -> Array:
    """Return a signal.

    Raises
    ------
    ProblemError
        If it is missing; the message names the signals that are there.
    """
    try:
        return signals[name]
    except KeyError:
        names = ", ".join(sorted(signals)) or "none"
        raise ProblemError(
            f"policy {policy!r} needs the signal {name!r}, got {names}; pass {name}=."
        ) from None


def candidate_count(signals: Signals) -> int:
    """Return n: the length of any signal.

    The selector always passes ``positions`` (0 to n-1, or those that were presampled), so that a
    policy that reads nothing else knows how many candidates there are.

    Raises
    ------
    ProblemError
        If there is no signal at all.
    """
    for array in signals.values():
        return int(array.shape[0])
    raise ProblemError(
        "the number of candidates is unknown without any signal; pass losses= or positions=."
    )
