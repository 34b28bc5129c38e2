"""What a training loop reports of a batch, passed on to the policy and to the records."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

import subsetopt as so
from subsetopt.policies import Feedback, WithRefresh, has, listens, to_host
from subsetopt_torch.loading.issued_batches import IssuedBatch
from subsetopt_torch.loading.record_copy import RecordCopy
from subsetopt_torch.recorded.settings import ScoreSignal
from subsetopt_torch.selection.hearing import Hearing
from subsetopt_torch.selection.named_policy import NamedPolicy

__all__ = ["Reports", "Values"]

# Losses or scores, one per sample; None for none.
Values = Tensor | ArrayLike | None

# What a policy needs in order to learn.
_REMEDY = "call sampler.observe(ids, losses) with the ids and the per-sample losses of the batch"


class Reports:
    """Passes losses and scores of samples on.

    Parameters
    ----------
    named
        The policy.
    records
        The records; None where there are none.
    column
        The signal that their scores are; None where they have none.
    """

    def __init__(
        self, named: NamedPolicy, records: RecordCopy | None, column: ScoreSignal | None
    ) -> None:
        self._named, self._records, self._column = named, records, column
        self._hearing = Hearing(_REMEDY)

    def count(self, batches: int = 1) -> None:
        """Note batches without losses; a policy that hears none for long warns."""
        self._hearing.count(self._named, batches)

    def observe(
        self,
        batch: IssuedBatch,
        positions: NDArray[np.int64],
        losses: Values,
        scores: Values,
        *,
        chosen: bool,
    ) -> None:
        """Pass on what the training forward gave for a batch.

        Parameters
        ----------
        batch
            The batch.
        positions
            Its samples in the order of losses and scores, shape (k,).
        losses, scores
            As for the sampler's ``observe``.
        chosen
            Whether the batch was chosen by losses or scores.
        """
        if losses is None:
            self.count()
            return
        values = _vector(losses, positions.shape, "losses")
        single = None if self._records is None else _recordable(values, "losses")
        column = self._scores(positions.shape, scores)
        self._hearing.settle()
        policy = self._named.policy
        if listens(policy):
            signals = {} if column is None else {str(self._column): column}
            weights = batch.weights_of(positions)
            policy.observe(
                Feedback(
                    batch.number,
                    positions,
                    weights,
                    values,
                    ids=positions,
                    scored=chosen,
                    signals=signals,
                )
            )
        if self._records is not None and single is not None:
            step = self._records.now(batch.number)
            self._records.update(positions, single, column, step)

    def refresh(
        self, positions: NDArray[np.int64], losses: Values, scores: Values, step: int
    ) -> None:
        """Pass on losses and scores that were computed outside training."""
        policy = self._named.policy
        if self._records is not None:
            single = _recordable(_vector(losses, positions.shape, "losses"), "losses")
            column = self._scores(positions.shape, scores)
            self._records.update(positions, single, column, step)
        elif scores is not None:
            self._scores(positions.shape, scores)
        if has(policy, WithRefresh):
            policy.refresh(positions, losses)
        self._hearing.settle()

    def tell_policy(self, positions: NDArray[np.int64]) -> None:
        """Let a policy that remembers losses know those that others have recorded."""
        policy = self._named.policy
        if self._records is not None and positions.size and has(policy, WithRefresh):
            losses = self._records.columns["losses"][positions]
            good = np.isfinite(losses)
            policy.refresh(positions[good], losses[good])

    def _scores(self, shape: tuple[int, ...], scores: Values) -> NDArray[np.float32] | None:
        """Return the scores that go with losses as they are recorded; None where there are none."""
        if scores is not None:
            if self._column is None:
                raise so.OptionError(
                    f"policy {self._named.name!r} reads no recorded scores here: leave scores out, "
                    "or pass RecordedScores(ledger, scores=...) to record them."
                )
            return _recordable(_vector(scores, shape, "scores"), "scores")
        if self._column is not None:
            raise so.ProblemError(
                f"{self._column} is recorded besides the losses: pass scores=, shape {shape}, the "
                f"{self._column} of each sample."
            )
        return None


def _vector(values: Values, shape: tuple[int, ...], name: str) -> NDArray[Any]:
    array = to_host(torch.as_tensor(values).detach())
    if array.shape != shape:
        raise so.ProblemError(
            f"{name} must be one per sample, shape {shape}, got {array.shape}: use "
            "reduction='none'."
        )
    return array


def _recordable(values: NDArray[Any], name: str) -> NDArray[np.float32]:
    """Return losses or scores in single precision, all finite."""
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    good = np.isfinite(single)
    if not good.all():
        at = int(np.flatnonzero(~good)[0])
        raise so.ProblemError(
            f"{name} must be finite in single precision to be recorded, got {values[at]} at "
            f"position {at}; call observe(ids) alone for a batch that is not to be recorded."
        )
    return single
