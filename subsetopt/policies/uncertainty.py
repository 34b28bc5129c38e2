"""Uncertainty: the samples that the model's own probabilities are least sure of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from subsetopt.errors import ProblemError
from subsetopt.inputs import checked_choice
from subsetopt.policies.arrays import Array, as_float64, namespace
from subsetopt.policies.base import Signals, signal
from subsetopt.policies.scored import ScoredPolicy

__all__ = ["Uncertainty", "UncertaintyScore", "check_uncertainty_score", "uncertainty_scores"]

UncertaintyScore = Literal["confidence", "margin", "entropy", "loss"]


@dataclass(frozen=True)
class Uncertainty(ScoredPolicy):
    """Choose the k samples that the model is least sure of.

    Parameters
    ----------
    score
        ``"confidence"``, ``"margin"`` or ``"entropy"`` of the model's probabilities, see
        :func:`uncertainty_scores`; they do not look at the targets. ``"loss"`` is the loss, which
        makes the choice that of ``big-loss``.

    Raises
    ------
    OptionError
        If the score is none of these.

    Notes
    -----
    Requires ``logits``; with ``score="loss"``, ``losses`` alone.

    References
    ----------
    Coleman et al., Select via Proxy, section 3.2.

    Examples
    --------
    >>> import numpy as np, subsetopt as so
    >>> logits = np.array([[9.0, 0.0], [0.2, 0.0], [0.0, 4.0]])
    >>> problem = Uncertainty("margin").propose({"logits": logits}, 1, np.random.default_rng(0))
    >>> so.solve(problem).indices
    array([1])
    """

    score: UncertaintyScore = "entropy"

    def __post_init__(self) -> None:
        check_uncertainty_score(self.score)

    @property
    def requires(self) -> frozenset[str]:  # type: ignore[override]  # depends on the option here
        """Return the signal that the score is made from."""
        return frozenset({"losses" if self.score == "loss" else "logits"})

    def scores(self, signals: Signals, k: int, rng: np.random.Generator) -> Array:
        """Return the uncertainties.

        Raises
        ------
        ProblemError
            If the logits do not have one row per candidate.
        """
        if self.score == "loss":
            return signal(signals, "losses", "uncertainty")
        return uncertainty_scores(signal(signals, "logits", "uncertainty"), self.score)


def uncertainty_scores(logits: Array, score: UncertaintyScore = "entropy") -> Array:
    r"""Return how unsure a classifier is of each sample.

    With :math:`P(y|x)` the softmax of the logits and :math:`\hat y` the most probable class,

    .. math::

        \text{confidence:} \quad & 1 - P(\hat y|x) \\
        \text{margin:} \quad & 1 - \min_{y \ne \hat y} \bigl( P(\hat y|x) - P(y|x) \bigr) \\
        \text{entropy:} \quad & - \sum_y P(y|x) \log P(y|x)

    Parameters
    ----------
    logits
        Shape (n, C), any real dtype, a NumPy array or a tensor. Shape (n, 1) or (n,) is the logit
        of the second of two classes: the sigmoid is its probability. A class may be ruled out by
        -inf.
    score
        ``"confidence"``, ``"margin"`` or ``"entropy"``.

    Returns
    -------
    Array
        Shape (n,), float64, on the device of the logits; larger for less sure. NaN where a row
        holds NaN, +inf or nothing but -inf.

    Raises
    ------
    OptionError
        If the score is none of these.
    ProblemError
        If the logits have another shape.

    Notes
    -----
    Nothing is subtracted from 1, so that very sure samples keep their order where the probability
    rounds to 1.

    References
    ----------
    Coleman et al., Select via Proxy, eqs. 1-3.

    Examples
    --------
    >>> import numpy as np
    >>> logits = np.log([[0.7, 0.2, 0.1], [0.4, 0.4, 0.2]])
    >>> uncertainty_scores(logits, "confidence").round(3), uncertainty_scores(logits, "margin")
    (array([0.3, 0.6]), array([0.5, 1. ]))
    """
    check_uncertainty_score(score, ("confidence", "margin", "entropy"))
    z = _class_logits(as_float64(logits))
    xp = namespace(z)
    top = xp.max(z, axis=1, keepdims=True)
    shifted = xp.where(xp.isfinite(top), z, xp.full_like(z, xp.nan)) - top
    odds = xp.exp(shifted)  # the odds of each class against the most probable one
    others = xp.where(_is_first_largest(z), xp.zeros_like(odds), odds)
    rest = xp.sum(others, axis=1)  # the most probable class has P = 1 / (1 + rest)
    if score == "confidence":
        return rest / (1.0 + rest)
    if score == "margin":
        return (rest + xp.max(others, axis=1)) / (1.0 + rest)
    surprise = xp.log1p(rest)[:, None] - shifted
    # The surprise of a class that is ruled out is infinite, and its part in the sum is 0.
    surprise = xp.where(odds > 0.0, surprise, xp.zeros_like(surprise))
    return xp.sum(odds * surprise, axis=1) / (1.0 + rest)


def check_uncertainty_score(score: object, valid: tuple[str, ...] | None = None) -> None:
    """Raise unless it is the name of an uncertainty score.

    Raises
    ------
    OptionError
        With the nearest valid name.
    """
    valid = get_args(UncertaintyScore) if valid is None else valid
    checked_choice("score", score, valid, listed=True)


def _class_logits(logits: Array) -> Array:
    """Return logits with one column per class, at least two."""
    xp = namespace(logits)
    if logits.ndim == 1:
        logits = logits[:, None]
    if logits.ndim != 2 or logits.shape[1] == 0:
        raise ProblemError(
            "logits must have shape (n, classes), or (n,) for two classes, got "
            f"{tuple(logits.shape)}; pass one row per sample."
        )
    return xp.concat([xp.zeros_like(logits), logits], axis=1) if logits.shape[1] == 1 else logits


def _is_first_largest(z: Array) -> Array:
    """Return a mask (n, C) of the largest entry of every row, the first one of ties."""
    from array_api_compat import device

    xp = namespace(z)
    columns = xp.arange(z.shape[1], device=device(z))
    return columns[None, :] == xp.argmax(z, axis=1)[:, None]
