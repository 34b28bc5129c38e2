"""Per-sample scores, and the sampling probabilities in proportion to them."""

from __future__ import annotations

import math
from typing import Any, Literal

from subsetopt.errors import ProblemError
from subsetopt.inputs import checked_choice
from subsetopt.policies.arrays import Array, as_float64, namespace
from subsetopt.policies.base import Signals, signal

__all__ = [
    "SCORE_SIGNALS",
    "SampleScore",
    "check_score",
    "mixed_scores",
    "normalized_scores",
    "read_scores",
    "tau_estimate",
]

SampleScore = Literal["upper_bound", "loss", "gradient_norm"]

# The signal behind each score.
SCORE_SIGNALS = {
    "upper_bound": "upper_bound",
    "loss": "losses",
    "gradient_norm": "gradient_norms",
}


def check_score(score: object) -> None:
    """Raise unless it is the name of a score.

    Raises
    ------
    OptionError
        With the names of all scores.
    """
    checked_choice("score", score, tuple(SCORE_SIGNALS), listed=True)


def read_scores(signals: Signals, score: str, policy: str) -> Array:
    """Return the named score of every candidate, shape (n,), float64, finite, at least 0.

    Raises
    ------
    ProblemError
        If the signal is missing, or a value is not finite or negative; the message says where.
    """
    name = SCORE_SIGNALS[score]
    scores = as_float64(signal(signals, name, policy))
    if scores.ndim != 1:
        raise ProblemError(f"the signal {name!r} must have shape (n,), got {tuple(scores.shape)}.")
    xp = namespace(scores)
    good = xp.isfinite(scores) & (scores >= 0.0)
    if not bool(xp.all(good)):
        at = int(xp.argmin(xp.astype(good, xp.int8)))
        hint = " Shift the losses, or use score='upper_bound'." if score == "loss" else ""
        raise ProblemError(
            f"policy {policy!r} samples in proportion to {name!r}, which must be finite and at "
            f"least 0, got {float(scores[at]):g} at position {at}.{hint}"
        )
    return scores


def normalized_scores(scores: Array) -> Array:
    r"""Return probabilities :math:`g_i = s_i / \sum_j s_j`; uniform where all scores are 0."""
    unit = _unit(scores)
    return unit / namespace(unit).sum(unit)


def mixed_scores(scores: Array, mix: float) -> Array:
    r"""Return :math:`(1 - m)\, s_i / \bar s + m`, with mean 1; ones where all scores are 0."""
    if scores.shape[0] == 0:
        return scores
    unit = _unit(scores)
    return (1.0 - mix) * (unit / namespace(unit).mean(unit)) + mix


def tau_estimate(scores: Any) -> float:
    r"""Return what sampling in proportion to scores is worth: a ratio of standard deviations.

    With :math:`g_i = s_i / \sum_j s_j` over the set U of samples that were scored,

    .. math:: \frac 1 \tau = \sqrt{1 - \frac{\sum_i (g_i - 1/|U|)^2}{\sum_i g_i^2}}
              \quad\Longleftrightarrow\quad \tau = \sqrt{|U| \sum_i g_i^2},

    the second form without cancellation. If the scores are the norms of the samples' gradients,
    sampling in proportion to them has a second moment :math:`\tau^2` times smaller than uniform
    sampling.

    Parameters
    ----------
    scores
        Shape (n,), at least 0, finite: a NumPy array or a tensor.

    Returns
    -------
    float
        From 1 (equal scores) to sqrt(n) (all scores but one are 0); 1 if all are 0 or n is 0.

    References
    ----------
    Katharopoulos & Fleuret, Not All Samples Are Created Equal, ICML 2018, eq. 26.

    Examples
    --------
    >>> import numpy as np
    >>> tau_estimate(np.array([1.0, 1.0, 1.0, 5.0])), tau_estimate(np.ones(4))
    (1.3228756555322954, 1.0)
    """
    values = as_float64(scores)
    n = int(values.shape[0])
    if n == 0:
        return 1.0
    g = normalized_scores(values)
    squares = float(namespace(g).sum(g * g))
    return min(max(1.0, math.sqrt(n * squares)), math.sqrt(n))


def _unit(scores: Array) -> Array:
    """Return scores divided by the largest, so that no sum overflows; ones if all are 0."""
    xp = namespace(scores)
    if scores.shape[0] == 0:
        return scores
    largest = float(xp.max(scores))
    return scores / largest if largest > 0.0 else xp.ones_like(scores)
