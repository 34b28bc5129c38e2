"""Records in place of a scoring pass, and a pass over the samples that have none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from subsetopt_torch.recorded.records import BatchRecords, RecordedUse, chosen_ids
from subsetopt_torch.training.scoring import Scored, Scoring
from subsetopt_torch.training.selected import Batch

__all__ = ["RecordedScoring"]

# The loss and the score of a sample without a record where no other sample of its batch has one.
_UNKNOWN = 1.0


@dataclass(frozen=True, slots=True)
class RecordedScoring:
    """Gives losses and signals of candidates by looking them up."""

    scoring: Scoring  #: scores samples without a record, and those to refresh
    records: BatchRecords  #: looks up and writes
    now: int  #: the step to record, which ages count from
    draws_designs: bool  #: whether the policy draws with given probabilities

    def __call__(self, candidates: Batch, full: int, wanted: frozenset[str]) -> Scored:
        """Return the losses of n candidates and the signal that is recorded, float32.

        Parameters
        ----------
        candidates
            The samples, with ids.
        full
            The usual number of candidates, which padding fills up to.
        wanted
            Names of the signals that the policy reads besides the losses.
        """
        settings, column = self.records.settings, self.records.column
        assert candidates.ids is not None
        known = self.records.known(candidates.ids, self.now)
        usable, rows = (
            known.usable,
            known.to_score(settings.refresh, missing=settings.missing == "score"),
        )
        ages = known.ages[np.setdiff1d(np.flatnonzero(usable), rows, assume_unique=True)]
        use = RecordedUse(
            candidates.n, ages.size, rows.size, float(ages.mean()) if ages.size else float("nan")
        )
        losses, scores = known.losses, known.scores
        if rows.size:
            fresh = self._scored(candidates, full, rows)
            losses[rows], scores[rows] = fresh
            usable = usable.copy()
            usable[rows] = True
        absent = np.flatnonzero(~usable)
        if absent.size:
            hardest = settings.missing == "take" and self.draws_designs
            for values in (losses, scores):
                there = values[usable] if usable.any() else np.array([_UNKNOWN])
                values[absent] = there.max() if hardest else there.mean()
        signals: dict[str, Tensor] = {}
        if column is not None and column in wanted:
            mixed = (1.0 - settings.mix) * scores + settings.mix * scores.mean()
            signals[column] = _single(mixed, candidates.device)
        taken = absent if settings.missing == "take" and not self.draws_designs else None
        return Scored(_single(losses, candidates.device), signals, use, rows, taken)

    def _scored(
        self, candidates: Batch, full: int, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return losses and scores of some candidates from a scoring pass, and record them."""
        part = candidates
        if rows.size < candidates.n:
            part = candidates.take(torch.from_numpy(rows).to(candidates.device))
        column = self.records.column
        fresh = self.scoring(part, full, frozenset() if column is None else frozenset({column}))
        scores = fresh.losses if column is None else fresh.signals[column]
        assert candidates.ids is not None
        ids = chosen_ids(candidates.ids, rows)
        self.records.write(ids, fresh.losses, None if column is None else scores, self.now)
        return _doubles(fresh.losses), _doubles(scores)


def _doubles(values: Tensor) -> NDArray[np.float64]:
    return values.detach().to("cpu", torch.float64).numpy()


def _single(values: NDArray[np.float64], device: torch.device) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).to(device)
