"""Weighted scores: several methods' importances of every sample, put together into one score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from subsetopt.errors import ProblemError, did_you_mean
from subsetopt.inputs import as_finite_vector, as_float, is_number
from subsetopt.objectives.linear import TopScores
from subsetopt.objectives.loss_scores import LOSS_SCORES

__all__ = ["WeightedScores", "curriculum_reward", "sample_importance"]


class WeightedScores(TopScores):
    r"""Choose the k samples with the largest total of a score that several methods make up.

    .. math:: \text{maximize} \quad \sum_i s_i z_i, \qquad
              s_i = r_i \sum_{m=1}^M w_m\, \alpha_i^m, \qquad z \in \{0, 1\}^n

    The objective is linear in the choice: every solver of :class:`TopScores` solves it.

    Parameters
    ----------
    losses
        Per-sample losses, shape (n,), any real dtype, finite.
    methods
        Names of methods whose scores follow from the losses alone, ``"big-loss"``,
        ``"small-loss"``, ``"adaboost"``, ``"coreset-1"`` and ``"coreset-2"``; the importance is
        then the softmax over the batch of the standardized score. Or a mapping from any names to
        importances :math:`\alpha^m`, shape (n,), finite, which are taken as they are.
    weights
        The methods' weights :math:`w_m`, shape (M,) in the order of ``methods`` or a mapping from
        their names, finite, at least 0; None: 1/M each.
    reward
        :math:`r_i`: shape (n,), finite, at least 0, taken as it is; or a number :math:`a \ge 0`
        for the curriculum reward, which is larger for easier samples,
        :math:`r_i \propto \exp(-a\, l_i / \sum_j l_j^2)`, scaled so that the largest is 1. At
        iteration t AdaSelection has :math:`a = t^c` with c below 0. None: 1 for every sample.

    Raises
    ------
    ProblemError
        If an array is not a finite real vector of the right length, a name is unknown or given
        twice, there is no method, or a weight or reward is negative.

    Notes
    -----
    The attributes ``names``, ``importances`` (M, n), ``weights`` (M,), ``reward`` (n,) and
    ``scores`` (n,) are computed once. Where all scores of a method are equal, so are its
    importances. The curriculum reward depends on the unit of the losses: with all losses near l its
    exponents are near :math:`-a / (n l)`. Where all losses are 0 it is 1.

    References
    ----------
    Zhang et al., AdaSelection, eqs. 1, 2, 4 and 5 and section 3.1.

    Examples
    --------
    >>> objective = WeightedScores([0.0, 1.0, 5.0], ["big-loss", "small-loss"], weights=[0.7, 0.3])
    >>> objective.scores.argmax(), objective.names
    (np.int64(2), ('big-loss', 'small-loss'))
    >>> given = {"mine": [0.2, 0.8], "theirs": [1.0, 0.0]}
    >>> WeightedScores([1.0, 2.0], given, weights={"mine": 2.0, "theirs": 1.0}).scores
    array([1.4, 1.6])
    """

    __slots__ = ("importances", "losses", "names", "reward", "weights")

    def __init__(
        self,
        losses: ArrayLike,
        methods: Mapping[str, ArrayLike] | Sequence[str] = ("big-loss", "small-loss"),
        weights: Mapping[str, float] | ArrayLike | None = None,
        reward: ArrayLike | None = None,
    ) -> None:
        self.losses, _ = as_finite_vector(losses, "losses")
        self.names = _checked_names(methods)
        self.importances = _importances(self.losses, self.names, methods)
        self.weights = _checked_weights(weights, self.names)
        self.reward = _checked_reward(reward, self.losses)
        # A matrix product would give equal samples scores that differ in the last bit.
        parts = self.weights[:, None] * self.importances
        super().__init__(self.reward * np.add.reduce(parts, axis=0))

    def __repr__(self) -> str:
        return f"WeightedScores(n={self.n}, methods={list(self.names)})"


def sample_importance(scores: Any, xp: Any = np) -> Any:
    r"""Return the softmax of the standardized scores: a method's importance of every sample.

    .. math:: \alpha_i = \frac{e^{u_i}}{\sum_j e^{u_j}}, \qquad
              u_i = \frac{s_i - \bar s}{\sqrt{\tfrac1n \sum_j (s_j - \bar s)^2}}

    Parameters
    ----------
    scores
        Scores of one method, shape (n,), or of M methods, shape (M, n); float64, finite; an array
        of the library ``xp``.
    xp
        An array-API namespace; NumPy by default.

    Returns
    -------
    Array
        Importances, an array of the scores' shape and library; 1/n where all scores of a method
        are equal.

    Raises
    ------
    ProblemError
        If a score is not finite, or their range overflows float64.

    Notes
    -----
    Scale and origin of the scores do not matter: the scores are first moved into [0, 1], so that no
    square over- or underflows. The result sums to 1 up to rounding.
    """
    if scores.shape[-1] == 0:
        return scores
    along = {"axis": -1, "keepdims": True}
    with np.errstate(over="ignore", invalid="ignore"):
        unit = scores - xp.min(scores, **along)
    width = xp.max(unit, **along)
    if not bool(xp.all(xp.isfinite(width))):
        raise ProblemError("scores must be finite, and so must be their range.")
    one = xp.ones_like(width)
    unit = unit / xp.where(width > 0.0, width, one)
    unit = unit - xp.mean(unit, **along)
    spread = xp.sqrt(xp.mean(unit * unit, **along))
    unit = unit / xp.where(width > 0.0, spread, one)
    powers = xp.exp(unit - xp.max(unit, **along))
    return powers / xp.sum(powers, **along)


def curriculum_reward(losses: NDArray[np.float64], pace: float) -> NDArray[np.float64]:
    r"""Return :math:`\exp(-a\,(l_i - \min l) / \sum_j l_j^2)`: at most 1, larger for easier ones.

    Parameters
    ----------
    losses
        Shape (n,), float64, finite.
    pace
        The factor a, at least 0; ``t**c`` at iteration t.

    Returns
    -------
    NDArray
        Shape (n,); ones where all losses are 0.

    References
    ----------
    Zhang et al., AdaSelection, eq. 4, which fixes the reward up to a factor.
    """
    largest = float(np.abs(losses).max(initial=0.0))
    if largest == 0.0:
        return np.ones(losses.size)
    # The sum of squares, divided by the largest loss.
    squares = largest * float(np.square(losses / largest).sum())
    with np.errstate(over="ignore"):
        exponents = pace * ((losses - losses.min()) / largest) / squares
    reward: NDArray[np.float64] = np.exp(-exponents)
    return reward


def _checked_names(methods: object) -> tuple[str, ...]:
    if isinstance(methods, str) or not isinstance(methods, (Mapping, Sequence)):
        raise ProblemError(
            "methods must be a list of names or a mapping from names to importances, got "
            f"{methods!r}."
        )
    names = tuple(methods)
    if not names:
        raise ProblemError(f"methods is empty; known by name are {', '.join(LOSS_SCORES)}.")
    for name in names:
        known = isinstance(name, str) and name in LOSS_SCORES
        if not isinstance(methods, Mapping) and not known:
            raise ProblemError(
                f"no method named {name!r} follows from the losses alone."
                f"{did_you_mean(name, LOSS_SCORES)} Known: {', '.join(LOSS_SCORES)}. Of any other, "
                "pass the importances: methods={name: importances}."
            )
        if names.count(name) > 1:
            raise ProblemError(f"methods names {name!r} twice; give it a larger weight instead.")
    return names


def _importances(
    losses: NDArray[np.float64],
    names: tuple[str, ...],
    methods: Mapping[str, ArrayLike] | Sequence[str],
) -> NDArray[np.float64]:
    """Return one row of importances per method."""
    if not isinstance(methods, Mapping):
        scores = np.stack([LOSS_SCORES[name](losses) for name in names])
        importances: NDArray[np.float64] = sample_importance(scores)
        return importances
    rows = []
    for name in names:
        row, _ = as_finite_vector(methods[name], f"the importances of {name!r}")
        if row.size != losses.size:
            raise ProblemError(
                f"the importances of {name!r} have {row.size} entries for {losses.size} losses; "
                "pass one each."
            )
        rows.append(row)
    return np.stack(rows)


def _checked_weights(
    weights: Mapping[str, float] | ArrayLike | None, names: tuple[str, ...]
) -> NDArray[np.float64]:
    if weights is None:
        return np.full(len(names), 1.0 / len(names))
    if isinstance(weights, Mapping):
        if set(weights) != set(names):
            raise ProblemError(
                f"weights has the names {', '.join(map(repr, weights)) or 'none'}, but the "
                f"methods are {', '.join(map(repr, names))}; give each method one weight."
            )
        weights = [weights[name] for name in names]
    vector, _ = as_finite_vector(weights, "weights")
    if vector.size != len(names):
        raise ProblemError(
            f"weights has {vector.size} entries for {len(names)} methods; give each one weight."
        )
    return _nonnegative(vector, "weights")


def _checked_reward(reward: ArrayLike | None, losses: NDArray[np.float64]) -> NDArray[np.float64]:
    if reward is None:
        return np.ones(losses.size)
    if is_number(reward):
        if not 0.0 <= as_float(reward) < math.inf:
            raise ProblemError(f"reward must be finite and at least 0, got {reward!r}.")
        return curriculum_reward(losses, float(reward))
    vector, _ = as_finite_vector(reward, "reward")
    if vector.size != losses.size:
        raise ProblemError(
            f"reward has {vector.size} entries for {losses.size} losses; pass one each, or one "
            "number for the curriculum reward."
        )
    return _nonnegative(vector, "reward")


def _nonnegative(vector: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    negative = np.flatnonzero(vector < 0.0)
    if negative.size:
        at = int(negative[0])
        raise ProblemError(f"{name} must be at least 0, got {vector[at]:g} at position {at}.")
    return vector
