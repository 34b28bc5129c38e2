"""How a step uses what a ledger has recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from subsetopt import OptionError
from subsetopt.inputs import checked_choice, checked_integer, checked_number
from subsetopt.ledger import Ledger
from subsetopt.policies import list_policies
from subsetopt.policies.base import FORWARD_SIGNALS
from subsetopt_torch.selection.named_policy import NamedPolicy

__all__ = ["Missing", "RecordedScores", "ScoreSignal", "score_signal"]

# What becomes of samples without a record that can be used.
Missing: TypeAlias = Literal["score", "take", "mean"]

# The signals that the column of scores may hold.
ScoreSignal: TypeAlias = Literal["upper_bound", "gradient_norms"]


@dataclass(eq=False, slots=True)
class RecordedScores:
    """A ledger, and the rules for records that are missing, old or misleading.

    Parameters
    ----------
    ledger
        An open ledger. Its losses are the signal ``losses``; its scores are the signal ``scores``.
    scores
        The signal that the column of scores holds: ``"upper_bound"`` or ``"gradient_norms"``. None
        (the default) takes the one that the policy requires, and where it requires neither, scores
        are not read and not recorded.
    max_age
        The largest age of a record that is used, in steps; None (the default) uses them all.
    max_versions
        How many model versions older than ``model_version`` a record may be; None (the default)
        uses them all.
    missing
        What becomes of samples without a record that is used. ``"score"`` (the default) makes a
        scoring pass over these alone, and records it. ``"take"`` trains on them before others: on
        the first k in the order of the batch; a policy that makes random draws with given
        probabilities takes them for as hard as the hardest of the batch instead. ``"mean"`` gives
        them the mean loss and score of the others.
    refresh
        The part of every batch, from 0 (the default) to 1, whose records are the oldest and which
        is scored anew.
    mix
        m, from 0 to 1: scores s are read as ``(1 - m) * s + m * mean(s)``, so that no sample whose
        recorded score is small has a small chance and a large weight. The default is 0.2. Losses
        are not mixed, since their mean is what many policies match.
    max_weight
        The largest training weight, in units of 1/k, at least 1; 5 by default, None for no cap.
        Weights above it are cut. It bounds what a sample can do that looked easy and no longer is.
    model_version
        The version that is recorded, and that ``max_versions`` counts from. Set it anew whenever
        the model changes by more than training steps.
    clock
        Returns the step that is recorded and that ages count from, an integer that never goes back.
        None (the default) counts the selections. Needed where others record by another clock, such
        as seconds.

    Raises
    ------
    OptionError
        If an option has none of its values.

    Notes
    -----
    A record whose loss or score is NaN counts as missing. Of ``"gradient_norms"`` a training
    forward makes none, so that such records come from scoring passes alone, and training writes
    none.
    """

    ledger: Ledger
    scores: ScoreSignal | None = None
    max_age: int | None = None
    max_versions: int | None = None
    missing: Missing = "score"
    refresh: float = 0.0
    mix: float = 0.2
    max_weight: float | None = 5.0
    model_version: int = 0
    clock: Callable[[], int] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.ledger, Ledger):
            raise OptionError(
                f"recorded must be a ledger, as Ledger.open returns it, or RecordedScores of one; "
                f"got {type(self.ledger).__name__}."
            )
        checked_choice("scores", self.scores, (*get_args(ScoreSignal), None), listed=True)
        checked_choice("missing", self.missing, get_args(Missing), listed=True)
        for name in ("max_age", "max_versions"):
            if getattr(self, name) is not None:
                checked_integer(name, getattr(self, name), 0)
        self.refresh = checked_number("refresh", self.refresh, 0.0, 1.0)
        self.mix = checked_number("mix", self.mix, 0.0, 1.0)
        if self.max_weight is not None:
            self.max_weight = checked_number("max_weight", self.max_weight, 1.0)
        checked_integer("model_version", self.model_version, 0)

    @classmethod
    def of(cls, recorded: Ledger | RecordedScores) -> RecordedScores:
        """Return the settings themselves, or the default ones for a ledger."""
        return recorded if isinstance(recorded, RecordedScores) else cls(recorded)


def score_signal(settings: RecordedScores, named: NamedPolicy) -> ScoreSignal | None:
    """Return the signal that the column of scores holds for a policy; None for none.

    Raises
    ------
    OptionError
        If the policy requires a signal that no record has. The message names the policies that
        require none.
    """
    required = frozenset(named.policy.requires)
    signals = get_args(ScoreSignal) if settings.scores is None else (settings.scores,)
    column = next((name for name in signals if name in required), settings.scores)
    lacking = (required & FORWARD_SIGNALS) - {"losses", column}
    if lacking:
        held = "losses" if settings.scores is None else f"losses and {settings.scores}"
        if settings.scores is None:
            held += f" and one of {' and '.join(get_args(ScoreSignal))}"
        able = [
            spec.name
            for spec in list_policies()
            if not (frozenset(spec.requires) & FORWARD_SIGNALS) - {"losses", *signals}
        ]
        raise OptionError(
            f"policy {named.name!r} requires {', '.join(sorted(lacking))}, and records hold "
            f"{held}. Policies that can live on these: {', '.join(able)}."
        )
    return column
