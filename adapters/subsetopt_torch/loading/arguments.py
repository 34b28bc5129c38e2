"""Checks of what a batch sampler is made with and told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from torch.utils.data import IterableDataset

import subsetopt as so
from subsetopt.inputs import checked_choice, checked_integer, checked_number, is_integer
from subsetopt.ledger import Ledger
from subsetopt.policies import WithSize, has, list_policies
from subsetopt_torch.loading.map_style import MapStyle, is_map_style
from subsetopt_torch.recorded.settings import RecordedScores, ScoreSignal, score_signal
from subsetopt_torch.selection.named_policy import NamedPolicy

__all__ = ["PlanKind", "PlanOptions", "check_needs", "checked_ledger", "data_size"]

# Whether every batch is a choice of its own, or a whole epoch is.
PlanKind: TypeAlias = Literal["batch", "epoch"]

# Signals that are known of samples before anything is loaded.
_KNOWN = frozenset({"ids", "positions"})
# The part of the mean that is mixed into recorded scores by default. A sample that is not chosen
# is not looked at, so that its score grows older than in a step. With 0.2 one of 18 runs on digits
# (balanced, plans of 0.3 of the data, learning rate 0.3) lost 25 points of accuracy near its end,
# with 0.5 none did.
_MIX = 0.5
# Signals that a ledger may have recorded.
_RECORDED = frozenset({"losses", *get_args(ScoreSignal)})


def data_size(data: MapStyle | int) -> int:
    """Return the number of samples of a map-style data set, or the number itself.

    Raises
    ------
    OptionError
        If ``data`` is neither, or there is no sample.
    """
    if isinstance(data, IterableDataset):
        raise so.OptionError(
            f"{type(data).__name__} is an iterable data set: its samples cannot be chosen before "
            "they are loaded. Choose within each batch, with BatchSelector or SelectiveStep."
        )
    size: object = data
    if not isinstance(data, (int, np.integer)):
        if not is_map_style(data) or isinstance(data, (tuple, dict, str)):
            raise so.OptionError(
                "data must be a map-style data set (with __len__ and __getitem__) or the number of "
                f"samples, got {type(data).__name__}."
            )
        size = len(data)
    if not is_integer(size) or size < 1:
        raise so.OptionError(f"there must be at least 1 sample to choose from, got {size!r}.")
    return int(size)


def check_needs(named: NamedPolicy, settings: RecordedScores | None) -> ScoreSignal | None:
    """Return the signal that recorded scores are to the policy, None where it reads none.

    Parameters
    ----------
    named
        The policy.
    settings
        The ledger and its rules; None where nothing is recorded.

    Raises
    ------
    OptionError
        If the policy needs to know more about the candidates, with the names of the policies that
        need no more.
    """
    required = frozenset(named.policy.requires)
    if settings is not None:
        column = score_signal(settings, named)
        missing = required - _KNOWN - {"losses", column}
        if missing:
            raise so.OptionError(
                f"policy {named.name!r} needs {', '.join(sorted(missing))} of every candidate, and "
                "before anything is loaded only ids and records are known."
            )
        return column
    missing = required - _KNOWN
    if missing:
        needs = {spec.name: frozenset(spec.requires) for spec in list_policies()}
        able = [name for name, needed in needs.items() if needed <= _KNOWN]
        recorded = [
            name
            for name, needed in needs.items()
            if name not in able and needed <= _KNOWN | _RECORDED
        ]
        raise so.OptionError(
            f"policy {named.name!r} needs {', '.join(sorted(missing))} of every candidate, and "
            f"before anything is loaded only ids are known. Policies that choose by ids alone: "
            f"{', '.join(able)}. By what a ledger has recorded (ledger=): {', '.join(recorded)}. "
            "Within a batch, use BatchSelector or SelectiveStep."
        )
    return None


def checked_ledger(ledger: object) -> RecordedScores | None:
    """Return the rules of a ledger, by default those for a sampler; None for none.

    Raises
    ------
    OptionError
        If it is neither a ledger nor such rules.
    """
    if ledger is None:
        return None
    if not isinstance(ledger, (Ledger, RecordedScores)):
        raise so.OptionError(
            "ledger must be a ledger, as Ledger.open returns it, or RecordedScores of one; got "
            f"{type(ledger).__name__}."
        )
    return RecordedScores(ledger, mix=_MIX) if isinstance(ledger, Ledger) else ledger


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """How a sampler makes use of records, as the user asked for it."""

    plan: PlanKind  #: whether every batch is a choice of its own, or a whole epoch is
    rate: float | None  #: the part of the data set that an epoch trains on
    candidates: int | None  #: the size of the windows that batches are chosen from
    reread: Literal["epoch"] | None  #: when records of others are taken up

    def check(
        self, named: NamedPolicy, batch_size: int, steps: int | None, *, recorded: bool
    ) -> None:
        """Raise unless these options fit together.

        Parameters
        ----------
        named
            The policy.
        batch_size, steps
            Samples per batch, and batches per epoch if the user says how many.
        recorded
            Whether there is a ledger.

        Raises
        ------
        OptionError
            With what to leave out or to add.
        """
        checked_choice("plan", self.plan, get_args(PlanKind))
        checked_choice("reread", self.reread, ("epoch", None))
        if not recorded:
            self._check_unused()
            return
        if self.rate is not None and not 0.0 < checked_number("rate", self.rate, 0.0, 1.0):
            raise so.OptionError("rate must be above 0, got 0: nothing would ever be trained on.")
        if self.candidates is not None:
            self._check_windows(batch_size)
        if self.plan == "epoch":
            self._check_epochs(named, steps)

    def _check_unused(self) -> None:
        given = {
            "rate": self.rate,
            "candidates": self.candidates,
            "plan": None if self.plan == "batch" else self.plan,
            "reread": self.reread,
        }
        for name, value in given.items():
            if value is not None:
                raise so.OptionError(
                    f"{name}={value!r} is for choosing by what is recorded: pass ledger=, or leave "
                    "it out."
                )

    def _check_windows(self, batch_size: int) -> None:
        size = checked_integer("candidates", self.candidates, batch_size)
        for name, value in (("rate", self.rate), ("plan", self.plan)):
            if value not in (None, "batch"):
                raise so.OptionError(
                    f"candidates={size} has every batch of {batch_size} chosen from {size} "
                    f"samples, which leaves no room for {name}={value!r}: pass one of them."
                )

    def _check_epochs(self, named: NamedPolicy, steps: int | None) -> None:
        if steps is not None:
            raise so.OptionError(
                "with plan='epoch' an epoch has as many batches as its plan needs: leave "
                f"steps_per_epoch={steps} out."
            )
        if self.rate is None and not has(named.policy, WithSize):
            raise so.OptionError(
                f"plan='epoch' with the policy {named.name!r} needs rate, the part of the data set "
                "that an epoch trains on."
            )
