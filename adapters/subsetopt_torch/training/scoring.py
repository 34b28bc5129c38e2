"""The scoring pass of a step: losses and signals of the candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from subsetopt_torch.arguments import Autocast
from subsetopt_torch.model.scoring_pass import scoring_pass
from subsetopt_torch.recorded.records import RecordedUse
from subsetopt_torch.signals.scoring_forward import ScoringForward
from subsetopt_torch.training.selected import Batch

__all__ = ["Scored", "Scoring"]


class Scored(NamedTuple):
    """What is known of n candidates."""

    losses: Tensor  #: shape (n,), detached
    signals: dict[str, Tensor]  #: signals by name, one row each
    recorded: RecordedUse | None = None  #: what records had of them; None without a ledger
    rows: NDArray[np.int64] | None = None  #: which were scored all the same, ascending
    taken: NDArray[np.int64] | None = None  #: which go before others, being unknown


@dataclass(frozen=True, slots=True)
class Scoring:
    """Gives the losses of candidates, and the signals that a policy wants to know."""

    forward: ScoringForward  #: makes losses and signals
    update_norm: bool  #: whether normalization layers update their running statistics
    autocast: Autocast  #: makes the context that the forward runs in
    pad: bool  #: whether fewer candidates than usual are filled up with repeats

    def __call__(self, candidates: Batch, full: int, wanted: frozenset[str]) -> Scored:
        """Return the losses of n candidates and their signals, one row per candidate.

        Parameters
        ----------
        candidates
            The samples to score.
        full
            The usual number of candidates, which padding fills up to.
        wanted
            Names of the derived signals to return besides ``logits``.
        """
        n = candidates.n
        rows = candidates.filled(full) if self.pad else candidates
        model, mode, devices = self.forward.model, self.forward.mode, (candidates.device,)
        loss_fn, update_norm = self.forward.loss_fn, self.update_norm
        with (
            scoring_pass(model, mode, update_norm=update_norm, devices=devices, loss_fn=loss_fn),
            self.autocast(),
        ):
            losses, signals = self.forward(rows.inputs, rows.targets, rows.n, wanted, rows.rows)
        if rows.n > n:
            losses, signals = losses[:n], {name: value[:n] for name, value in signals.items()}
        return Scored(losses, signals)
