"""The selection of a step: from a batch to the samples to train on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from subsetopt.policies.base import FORWARD_SIGNALS
from subsetopt_torch.arguments import Constraints, Signal
from subsetopt_torch.model.losses import as_loss_vector
from subsetopt_torch.selection.constraints import checked_constraints, included_rows
from subsetopt_torch.selection.picked import Picked
from subsetopt_torch.selection.selector import BatchSelector
from subsetopt_torch.signals.scoring_forward import DERIVED
from subsetopt_torch.training.recorded_scoring import RecordedScoring
from subsetopt_torch.training.scoring import Scoring
from subsetopt_torch.training.selected import Batch, Scores, SelectedBatch
from subsetopt_torch.training.timings import Clock

__all__ = ["FullSizes", "Selecting"]


@dataclass(slots=True)
class FullSizes:
    """The sizes of a full batch and of a full presample."""

    fixed: int | None  #: the size of a full batch; None takes the largest seen so far
    largest_batch: int = 0  #: the largest number of samples seen so far
    largest_presample: int = 0  #: the largest number of presampled candidates seen so far

    @property
    def batch(self) -> int:
        """The size of a full batch."""
        return self.fixed or self.largest_batch

    def see_batch(self, n: int) -> None:
        """Take note of a batch of n samples."""
        self.largest_batch = max(self.largest_batch, n)

    def see_presample(self, m: int) -> int:
        """Take note of a presample of m candidates, and return the size of a full one."""
        self.largest_presample = max(self.largest_presample, m)
        return self.largest_presample


@dataclass(frozen=True, slots=True)
class Selecting:
    """Picks the samples to train on, after a scoring pass where the policy wants one."""

    selector: BatchSelector  #: chooses the samples
    scoring: Scoring | RecordedScoring  #: makes the scoring pass, or looks up records
    sizes: FullSizes  #: the sizes that padding fills up to
    dtype: torch.dtype  #: the dtype of the weights where no losses are known
    max_weight: float | None = None  #: a cap where records are used, in units of 1/k

    def __call__(
        self,
        batch: Batch,
        constraints: Constraints | None,
        signals: Mapping[str, Signal],
        clock: Clock,
    ) -> SelectedBatch:
        """Return a batch with the samples picked from it.

        Parameters
        ----------
        batch
            At least one sample.
        constraints
            Constraints for this batch, or None.
        signals
            What is known of the samples besides targets and ids, one row per sample.
        clock
            Is told when the scoring pass ends.
        """
        selector, n, k = self.selector, batch.n, self.selector.size(batch.n)
        selector.check_signals(signals)
        if k == n and not (constraints or selector.constraints):
            return SelectedBatch.whole(batch, selector.everything(n, batch.device, self.dtype))
        known = _with_samples(signals, batch)
        losses = known.pop("losses", None)
        passed = {name for name, value in known.items() if value is not None}
        lacking = self.selector.policy.requires & FORWARD_SIGNALS - passed
        if losses is not None:
            lacking = lacking - {"losses"}
        if k and lacking and selector.needs_scoring(n):
            return self._scored(batch, constraints, known, losses, clock)
        if losses is not None:
            given = as_loss_vector(losses).to(batch.device)
            picked = selector(given, presample=None, constraints=constraints, **known)
            return SelectedBatch(batch, picked, scores=Scores(given, None))
        picked = selector.without_losses(
            n, batch.device, self.dtype, constraints=constraints, **known
        )
        return SelectedBatch.unscored(batch, picked)

    def _scored(
        self,
        batch: Batch,
        constraints: Constraints | None,
        known: dict[str, Signal],
        given: Signal,
        clock: Clock,
    ) -> SelectedBatch:
        """Return a batch with the samples picked after a scoring pass over the candidates.

        ``given`` are losses that the selector gets in place of those of the pass.
        """
        known["losses"] = given
        candidates, indices, full = batch, None, self.sizes.batch
        presample = self.selector.presample(batch.n, constraints=constraints)
        if presample is not None:
            indices, full = presample.on(batch.device), self.sizes.see_presample(len(presample))
            candidates, known = batch.take(indices), presample.rows(known)
        given = known.pop("losses")
        passed = {name for name, value in known.items() if value is not None}
        wanted = (DERIVED & self.selector.policy.requires) - passed
        scored = self.scoring(candidates, full, wanted)
        losses = scored.losses
        clock.lap("scoring")
        signals: dict[str, Signal] = {**scored.signals, **known}
        picked = self.selector(
            losses if given is None else as_loss_vector(given).to(losses.device),
            presample=presample,
            constraints=self._with_taken(constraints, scored.taken, batch.n),
            **signals,
        )
        if scored.recorded is None:
            return SelectedBatch.scored(batch, picked, Scores(losses, indices))
        assert scored.rows is not None
        rows = torch.from_numpy(scored.rows).to(losses.device)
        scores = Scores(losses, indices, scored.recorded, rows)
        return SelectedBatch.scored(batch, self._capped(picked), scores)

    def _with_taken(
        self, constraints: Constraints | None, taken: NDArray[np.int64] | None, n: int
    ) -> Constraints | None:
        """Return constraints that also include the first of the samples to take, at most k."""
        if taken is None or not taken.size:
            return constraints
        included = included_rows(
            {**self.selector.constraints, **checked_constraints(constraints)}, n
        )
        room = max(0, self.selector.size(n) - included.size)
        rows = np.union1d(included, np.setdiff1d(taken, included)[:room])
        return {**(constraints or {}), "include": rows}

    def _capped(self, picked: Picked) -> Picked:
        """Return a pick without weights above the cap for records."""
        if self.max_weight is None or not len(picked):
            return picked
        return picked.capped(self.max_weight / len(picked))


def _with_samples(signals: Mapping[str, Signal], batch: Batch) -> dict[str, Signal]:
    """Return signals with targets and ids, unless they are passed already."""
    known = dict(signals)
    if batch.ids is not None:
        known["ids"] = batch.ids
    if isinstance(batch.targets, Tensor):
        known.setdefault("targets", batch.targets)
    return known
