"""Linear scores: choose the samples with the largest total score."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from subsetopt.inputs import as_finite_vector
from subsetopt.objectives.base import Objective, Sense

__all__ = ["LinearObjective", "TopScores"]


class LinearObjective(Objective):
    """A total score to maximize; what else a subset must satisfy is for subclasses to say.

    Attributes
    ----------
    scores
        Per-sample scores, shape (n,), float64, finite.
    """

    __slots__ = ("n", "scale", "scores", "tolerance")

    sense: ClassVar[Sense] = "maximize"

    def __init__(self, scores: ArrayLike) -> None:
        self.scores, _ = as_finite_vector(scores, "scores")
        self.n = self.scores.size
        self.scale = None
        self.tolerance = 1e-9 * float(np.abs(self.scores).max()) if self.n else 0.0

    @property
    def values(self) -> NDArray[np.float64]:
        """Return the scores, under the name that solvers know values by."""
        return self.scores

    def evaluate(self, indices: NDArray[np.int64], weights: NDArray[np.float64]) -> float:
        """Return the total score of the chosen indices; the weights do not matter."""
        return float(np.add.reduce(self.scores[indices]))


class TopScores(LinearObjective):
    r"""Choose the k samples with the largest total score.

    .. math:: \text{maximize} \quad \sum_i s_i z_i, \qquad z \in \{0, 1\}^n

    Big loss (``s = l``), small loss (``s = -l``), gradient norm and uncertainty selection are all
    this problem with another score.

    Parameters
    ----------
    scores
        Per-sample scores, shape (n,), any real dtype, finite. A float64 array is kept without a
        copy: do not change it while the problem is in use.

    Raises
    ------
    ProblemError
        If the scores are not a finite real vector.

    Notes
    -----
    ``tolerance`` is ``1e-9`` of the largest score's magnitude.

    Examples
    --------
    >>> TopScores([0.5, 2.0, 1.0]).n
    3
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"TopScores(n={self.n})"
