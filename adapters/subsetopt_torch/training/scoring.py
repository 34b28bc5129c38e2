"""The scoring pass of a step: losses and signals of the candidates."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from subsetopt_torch.arguments import Autocast
from subsetopt_torch.model.losses import LossFunction
from subsetopt_torch.model.scoring_pass import ScoringMode, scoring_pass
from subsetopt_torch.signals.last_layer import LastLayer
from subsetopt_torch.signals.scoring_forward import ScoringForward
from subsetopt_torch.training.selected import Batch

__all__ = ["Scoring"]


@dataclass(frozen=True, slots=True)
class Scoring:
    """Gives the losses of candidates, and the signals that a policy wants to know.

    Attributes
    ----------
    model
        The model that scores.
    loss_fn
        ``loss_fn(outputs, targets)``, one loss per sample.
    last_layer
        The layer that ``features`` and ``last_layer_gradients`` belong to.
    mode
        The mode of the scoring pass, ``"eval"`` or ``"train"``.
    update_norm
        Whether normalization layers update their running statistics in the pass.
    autocast
        Makes the context that the forward runs in.
    pad
        Whether fewer candidates than usual are filled up with repeats.
    """

    model: nn.Module
    loss_fn: LossFunction
    last_layer: LastLayer
    mode: ScoringMode
    update_norm: bool
    autocast: Autocast
    pad: bool

    def __call__(
        self, candidates: Batch, full: int, wanted: frozenset[str]
    ) -> tuple[Tensor, dict[str, Tensor]]:
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
        forward = ScoringForward(self.model, self.loss_fn, self.last_layer, self.mode)
        devices = (candidates.device,)
        with (
            scoring_pass(self.model, self.mode, update_norm=self.update_norm, devices=devices),
            self.autocast(),
        ):
            losses, signals = forward(rows.inputs, rows.targets, rows.n, wanted)
        if rows.n > n:
            losses, signals = losses[:n], {name: value[:n] for name, value in signals.items()}
        return losses, signals
