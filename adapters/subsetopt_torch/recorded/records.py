"""The records of a batch: which can be used, and what is written."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from subsetopt import LedgerError, ProblemError
from subsetopt.ledger import Ledger
from subsetopt.ledger.records import columns, empty_rows
from subsetopt.policies import Feedback, to_host
from subsetopt_torch.arguments import Ids
from subsetopt_torch.recorded.settings import RecordedScores, ScoreSignal, score_signal
from subsetopt_torch.selection.named_policy import NamedPolicy

# The signals that a training forward gives.
_OF_TRAINING = frozenset({"upper_bound"})

__all__ = ["BatchRecords", "KnownScores", "RecordedUse"]


@dataclass(frozen=True, slots=True)
class RecordedUse:
    """What a step had of its ledger.

    Attributes
    ----------
    candidates
        The number of samples that were looked up.
    used
        How many of them had a record that was used.
    scored
        How many had a scoring pass now: those without such a record under ``missing="score"``, and
        those to refresh.
    mean_age
        The mean age of the records used, in steps; nan where none was.
    """

    candidates: int
    used: int
    scored: int
    mean_age: float


@dataclass(frozen=True, slots=True)
class KnownScores:
    """What is recorded of the n samples of a batch."""

    losses: NDArray[np.float64]  #: shape (n,); where a record is not used it means nothing
    scores: NDArray[np.float64]  #: as the losses
    ages: NDArray[np.int64]  #: shape (n,), in steps
    usable: NDArray[np.bool_]  #: which records are used, shape (n,)

    def to_score(self, refresh: float, *, missing: bool) -> NDArray[np.int64]:
        """Return which rows get a scoring pass, ascending.

        Parameters
        ----------
        refresh
            The part of all rows that is scored anew, those with the oldest records.
        missing
            Whether rows without a record that is used are among them.
        """
        chosen = ~self.usable if missing else np.zeros(self.usable.size, dtype=bool)
        count = min(int(refresh * self.usable.size + 0.5), int(np.count_nonzero(self.usable)))
        if count:
            ages = np.where(self.usable, self.ages, -1)
            chosen[np.argsort(-ages, kind="stable")[:count]] = True
        return np.flatnonzero(chosen)


class BatchRecords:
    """Looks batches up in a ledger, and writes what was scored or trained on.

    Parameters
    ----------
    settings
        The ledger and the rules.
    column
        The signal that scores are; None where there are none.
    """

    def __init__(self, settings: RecordedScores, column: ScoreSignal | None) -> None:
        self.settings = settings
        self.column = column
        self._warned: set[str] = set()

    @classmethod
    def of(cls, recorded: Ledger | RecordedScores, named: NamedPolicy) -> BatchRecords:
        """Return the records of a ledger for a policy.

        Raises
        ------
        OptionError
            If the policy requires signals that are not recorded.
        """
        settings = RecordedScores.of(recorded)
        return cls(settings, score_signal(settings, named))

    def now(self, step: int) -> int:
        """Return the time to record at selection number ``step``."""
        clock = self.settings.clock
        return step if clock is None else int(clock())

    @property
    def learns_from(self) -> frozenset[str]:
        """The signals of a training forward that are recorded besides losses."""
        return _OF_TRAINING & {self.column}

    def check_ids(self, ids: Ids | None) -> None:
        """Raise unless there are ids.

        Raises
        ------
        ProblemError
            If there are none.
        """
        if ids is None:
            raise ProblemError(
                "records are looked up by the ids of samples: pass ids=, shape (n,), to the step."
            )

    def known(self, ids: Ids, now: int) -> KnownScores:
        """Return what is recorded of samples: nothing, with a warning, if the ledger fails."""
        settings = self.settings
        try:
            records = settings.ledger.lookup(_on_host(ids))
        except LedgerError as error:
            self._warn_once("lost", f"{error} Training goes on as if nothing were recorded.")
            records = columns(empty_rows(len(ids)))
        usable = records.found & np.isfinite(records.losses)
        if self.column is not None:
            usable &= np.isfinite(records.scores)
        ages = now - records.steps
        if settings.max_age is not None:
            usable &= ages <= settings.max_age
        if settings.max_versions is not None:
            usable &= settings.model_version - records.model_versions <= settings.max_versions
        return KnownScores(
            records.losses.astype(np.float64), records.scores.astype(np.float64), ages, usable
        )

    def hear(self, feedback: Feedback) -> None:
        """Record what a training forward gave; without the scores of the column, nothing."""
        assert feedback.ids is not None
        if self.column is None or self.column in feedback.signals:
            scores = None if self.column is None else feedback.signals[self.column]
            self.write(feedback.ids, feedback.losses, scores, self.now(feedback.step))

    def write(self, ids: Ids, losses: Tensor, scores: Tensor | None, now: int) -> None:
        """Record the losses of samples, and their scores where the column has any.

        Losses and scores that are not finite are left out. A record of a later step stays what it
        is, and the first time that this happens there is a warning.
        """
        values = to_host(losses.detach()).astype(np.float64)
        good = np.isfinite(values)
        column = None if scores is None else to_host(scores.detach()).astype(np.float64)
        if column is not None:
            good &= np.isfinite(column)
        rows = np.flatnonzero(good)
        keys = chosen_ids(ids, rows)
        try:
            written = self.settings.ledger.record(
                keys,
                values[rows],
                None if column is None else column[rows],
                step=now,
                model_version=self.settings.model_version,
            )
        except LedgerError as error:
            self._warn_once("unwritten", f"{error} Training goes on, and this is not recorded.")
            return
        if written < rows.size == len(set(list(keys))):
            self._warn_once(
                "late",
                f"{rows.size - written} of {rows.size} samples have a record of a step later than "
                f"{now}, which stays: it is of a run that got further than this one, or of someone "
                "who counts by another clock. Pass that clock to RecordedScores(clock=...), or "
                "begin with an empty ledger.",
            )

    def _warn_once(self, subject: str, message: str) -> None:
        if subject not in self._warned:
            self._warned.add(subject)
            warnings.warn(message, UserWarning, stacklevel=5)


def chosen_ids(ids: Ids, rows: NDArray[np.int64]) -> Ids:
    """Return the ids of some samples on the host."""
    host = _on_host(ids)
    return host[rows] if isinstance(host, np.ndarray) else [host[i] for i in rows]


def _on_host(ids: Ids) -> NDArray[Any] | Sequence[Any]:
    return to_host(ids) if isinstance(ids, Tensor) else ids
