"""Choosing samples by their records."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

import subsetopt as so
from subsetopt.policies import WithSize, has
from subsetopt.problem import size_from_rate
from subsetopt_torch.loading.record_copy import RecordCopy
from subsetopt_torch.recorded.settings import ScoreSignal
from subsetopt_torch.selection.answers import training_weights
from subsetopt_torch.selection.named_policy import NamedPolicy

__all__ = ["Chosen", "RecordedChoice"]

# The loss and the score of samples without a record where none has one.
_UNKNOWN = np.float32(1.0)

Chosen = tuple[NDArray[np.int64], NDArray[np.float64]]
Seeds = tuple[int, ...]


class RecordedChoice:
    """Lets a policy choose from all samples, or from some candidates, by what is recorded.

    Parameters
    ----------
    named
        The policy.
    solve
        Solves the problems that it states.
    records
        The records.
    column
        The signal that their scores are; None where they have none.
    rate
        The part of the recorded samples that :meth:`subset` takes; None leaves it to the policy.
    """

    def __init__(
        self,
        named: NamedPolicy,
        solve: partial[so.Solution],
        records: RecordCopy,
        column: ScoreSignal | None,
        rate: float | None,
    ) -> None:
        self._named, self._solve = named, solve
        self._records, self._column, self._rate = records, column, rate

    def subset_size(self, now: int) -> int:
        """Return how many samples :meth:`subset` takes."""
        known, usable, certain = self._split(now)
        return certain.size + self._size(known, usable)

    def subset(self, now: int, seeds: Seeds) -> Chosen:
        """Choose a part of the data set; samples without a record to choose by are all taken.

        Parameters
        ----------
        now
            The step that ages count from.
        seeds
            The seed of the choice.

        Returns
        -------
        tuple
            Positions (k,) and weights (k,), with which the sum of losses estimates the mean loss
            of the data set.
        """
        known, usable, certain = self._split(now)
        picked, weights = self._ask(known, usable, self._size(known, usable), seeds)
        n = known.size + certain.size
        return (
            np.concatenate([certain, known[picked]]),
            np.concatenate([np.full(certain.size, 1.0 / n), weights * (known.size / n)]),
        )

    def batch(self, candidates: NDArray[np.int64] | None, k: int, now: int, seeds: Seeds) -> Chosen:
        """Choose a batch.

        Parameters
        ----------
        candidates
            Positions to choose from, shape (m,); None stands for the whole data set.
        k
            The size of the batch, at most m.
        now, seeds
            As for :meth:`subset`.

        Returns
        -------
        tuple
            Positions (k,) and training weights (k,).
        """
        usable = self._records.usable(now, candidates)
        rows = np.arange(usable.size) if candidates is None else candidates
        if usable.all() or self._means or self._named.draws_designs:
            picked, weights = self._ask(rows, usable, k, seeds)
            return rows[picked], weights
        absent = np.flatnonzero(~usable)
        if absent.size > k:
            absent = np.random.default_rng([*seeds, 4]).choice(absent, k, replace=False)
        known = rows[usable]
        rest = k - absent.size
        picked, weights = self._ask(known, usable[usable], rest, seeds)
        return (
            np.concatenate([rows[absent], known[picked]]),
            np.concatenate([np.full(absent.size, 1.0 / k), weights * (rest / k)]),
        )

    @property
    def _means(self) -> bool:
        """Whether samples without a record count as average ones."""
        return self._records.settings.missing == "mean"

    def _split(self, now: int) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
        """Return what to choose from, which of it has a usable record, and what is certain."""
        usable = self._records.usable(now)
        if self._means:
            return np.arange(usable.size), usable, np.empty(0, dtype=np.int64)
        return np.flatnonzero(usable), usable[usable], np.flatnonzero(~usable)

    def _size(self, known: NDArray[np.int64], usable: NDArray[np.bool_]) -> int:
        if self._rate is not None:
            return size_from_rate(known.size, self._rate)
        assert has(self._named.policy, WithSize)
        losses, _ = self._signals(known, usable)
        return self._named.policy.size(losses)

    def _ask(
        self, rows: NDArray[np.int64], usable: NDArray[np.bool_], k: int, seeds: Seeds
    ) -> Chosen:
        """Return the numbers of the chosen rows, and their weights.

        Parameters
        ----------
        rows
            Positions to choose from, shape (m,).
        usable
            Which of the rows have a record to choose by, shape (m,).
        k
            How many to choose.
        seeds
            The seed of the choice.
        """
        if not k:
            return np.empty(0, dtype=np.int64), np.empty(0)
        losses, scores = self._signals(rows, usable)
        signals = {"losses": losses, "ids": rows, "positions": np.arange(rows.size)}
        settings = self._records.settings
        if self._column is not None:
            mean = float(np.add.reduce(scores, dtype=np.float64)) / rows.size
            signals[self._column] = (1.0 - settings.mix) * scores + settings.mix * mean
        problem = self._named.policy.propose(signals, k, np.random.default_rng([*seeds, 1]))
        solution = self._solve(problem, seed=seeds).require()
        if not solution.indices.size:  # a policy that sets its own size may take none
            drawn = np.random.default_rng([*seeds, 2]).choice(rows.size, k, replace=False)
            return drawn, np.full(k, 1.0 / k)
        weights = training_weights(self._named, solution)
        if settings.max_weight is not None:
            weights = np.minimum(weights, settings.max_weight / k)
        return solution.indices, weights

    def _signals(
        self, rows: NDArray[np.int64], usable: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return losses and scores, with those of samples without a record filled in.

        Where no score is read, the losses stand in their place.
        """
        columns = self._records.columns
        losses = columns["losses"][rows]
        scores = losses if self._column is None else columns["scores"][rows]
        if not usable.all():
            for values in (losses, scores):
                known = values[usable]
                if not known.size:
                    values[:] = _UNKNOWN
                elif self._means:
                    values[~usable] = known.mean(dtype=np.float64)
                else:
                    values[~usable] = known.max()
        return losses, scores
