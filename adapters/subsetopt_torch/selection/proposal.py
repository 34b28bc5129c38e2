"""From what is known of the candidates to the problem that a policy proposes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import subsetopt as so
from subsetopt.errors import did_you_mean
from subsetopt.policies import to_host
from subsetopt.policies.base import FORWARD_SIGNALS
from subsetopt_torch.arguments import Signal, as_ids
from subsetopt_torch.selection.constraints import Rules, constrained
from subsetopt_torch.selection.named_policy import NamedPolicy
from subsetopt_torch.selection.presample import Presample
from subsetopt_torch.selection.transfer import Both, cleared, policy_signals
from subsetopt_torch.signals.scoring_forward import from_logits

__all__ = [
    "NonfiniteError",
    "Request",
    "check_names",
    "checked_signals",
    "mended",
    "nonfinite_error",
    "proposed",
]

# Signals that are set to zero for a sample whose loss is not finite: a forward pass gives no
# sensible value of them. The loss itself gets another value, see ``mended``.
_MENDABLE = FORWARD_SIGNALS - {"losses"}
# Signals that a caller may pass whatever the policy requires.
_CALLERS = FORWARD_SIGNALS | {"targets", "ids"}


class NonfiniteError(so.ProblemError):
    """A loss is not finite, and the selector says that this raises."""


@dataclass(frozen=True, slots=True)
class Request:
    """One selection: what is known of the candidates, and what must hold.

    Attributes
    ----------
    n
        The size of the batch.
    presample
        The candidates that the signals belong to; None when they belong to all n samples.
    device, dtype
        The device and the dtype of the losses; where there are none, of the answer.
    signals
        What is known by name, one row per candidate.
    rules
        The user's constraints on the whole batch.
    bad
        Rows of the candidates whose loss is not finite, int64, ascending.
    deadline
        When the answer is due.
    """

    n: int
    presample: Presample | None
    device: torch.device
    dtype: torch.dtype
    signals: Mapping[str, Signal | Both]
    rules: Rules
    bad: NDArray[np.int64]
    deadline: so.Deadline

    def ids_at(self, rows: NDArray[np.int64]) -> NDArray[Any] | None:
        """Return the ids of some candidates; None where there are none."""
        ids = self.signals.get("ids")
        return None if ids is None else to_host(ids)[rows]

    @property
    def candidates(self) -> int:
        """The number of candidates: n, or the size of the presample."""
        return self.n if self.presample is None else len(self.presample)


def proposed(
    named: NamedPolicy, request: Request, k: int, scoring: bool, rng: np.random.Generator
) -> so.Problem:
    """Return the policy's problem, with the user's constraints and without the bad candidates.

    Parameters
    ----------
    named
        The policy that proposes.
    request
        What is known of the candidates, and what must hold.
    k
        The number to choose; clipped to the number of candidates with finite losses.
    scoring
        Whether the policy wants a scoring pass now. If not, it goes without the signals that only
        such a pass can give.
    rng
        The random stream of the policy.

    Raises
    ------
    ProblemError
        If a signal is missing or malformed, or a constraint is.
    """
    policy = named.policy
    n, presample = request.candidates, request.presample
    k = min(k, n - request.bad.size)
    if n == 0 or k == 0:
        return so.Problem(so.TopScores(np.zeros(n)), 0)
    signals = from_logits(request.signals, policy.requires)
    names = frozenset(s for s in policy.requires if signals.get(s) is not None)
    missing = policy.requires - names - (frozenset() if scoring else FORWARD_SIGNALS)
    if missing:
        first = min(missing)
        raise so.ProblemError(
            f"policy {named.name!r} needs the signal {first!r}: pass {first}= to the selector."
        )
    known = policy_signals(signals, names, n, request.device)
    known.update({s: cleared(known[s], request.bad) for s in names & _MENDABLE})
    known["positions"] = np.arange(n) if presample is None else presample.positions
    rules = request.rules if presample is None else presample.rules(request.rules)
    return constrained(policy.propose(known, k, rng), rules, request.bad)


def check_names(named: NamedPolicy, names: Iterable[str]) -> None:
    """Raise unless every name is that of a signal.

    Raises
    ------
    OptionError
        If one is neither a signal that this library knows nor one that the policy requires.
    """
    for name in names:
        if name not in _CALLERS and name not in named.policy.requires:
            known = sorted(_CALLERS | named.policy.requires)
            raise so.OptionError(
                f"no signal or keyword named {name!r}.{did_you_mean(name, known)} Signals are "
                f"{', '.join(known)}."
            )


def checked_signals(named: NamedPolicy, signals: Mapping[str, Signal]) -> dict[str, Signal]:
    """Return signals after a look at their names, with ids that are strings or bytes kept whole.

    Raises
    ------
    OptionError
        If a name is that of no signal.
    """
    check_names(named, signals)
    ids = signals.get("ids")
    return {**signals, "ids": as_ids(ids)} if ids is not None else dict(signals)  # type: ignore[arg-type]


def nonfinite_error(
    positions: NDArray[np.int64], values: NDArray[Any], where: str
) -> NonfiniteError:
    """Return the error that names the first samples whose loss is not finite."""
    pairs = zip(positions[:5], values[:5], strict=True)
    shown = ", ".join(f"{i} ({v})" for i, v in pairs)
    more = f" and {positions.size - 5} more" if positions.size > 5 else ""
    return NonfiniteError(
        f"losses are not finite at positions {shown}{more} of {where}. Mend the samples or the "
        "loss, or pass nonfinite='exclude' to train without them."
    )


def mended(losses: NDArray[Any], bad: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
    """Return the losses with the mean of the finite ones in place of those at ``bad``.

    The mean of the batch is then the mean of the finite losses, whatever a policy does.
    """
    values = losses.astype(np.float64)
    values[bad] = 0.0
    count = losses.size - bad.size
    values[bad] = math.fsum(values) / count if count else 0.0
    return values.astype(losses.dtype)
