"""Gradient matching: the subset whose gradient is the batch's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from subsetopt.inputs import checked_choice, checked_flag, checked_integer
from subsetopt.objectives import VectorMatching
from subsetopt.policies.arrays import to_host
from subsetopt.policies.base import Signals, StatelessPolicy, signal
from subsetopt.policies.members import SolverChoice
from subsetopt.problem import Problem

__all__ = ["GradientMatching"]

# How often the search looks at every vector of logit gradients, where the user does not say.
_LOOKS = 16
_AUTO = SolverChoice("auto")


@dataclass(frozen=True)
class GradientMatching(StatelessPolicy):
    r"""Choose k samples whose weighted mean gradient is the mean gradient of the batch.

    .. math:: \text{minimize} \quad \Bigl\| \frac 1 n \sum_i v_i - \sum_{i \in S} w_i v_i
              \Bigr\|_2, \qquad |S| \le k,

    where :math:`v_i` is a part of sample i's gradient that needs no backward pass.

    Parameters
    ----------
    signal
        What :math:`v_i` is. ``"logit_gradients"``: the gradient with respect to the C logits, and
        so with respect to the last layer's bias. ``"last_layer_gradients"``: with respect to the
        last layer's weights, C x H numbers per sample for H inputs of that layer.
    weights
        ``"uniform"``: 1/k each, exactly k samples; ``"nonnegative"``: at least 0, fitted together
        with the choice, at most k samples.
    total
        Whether nonnegative weights are to sum to 1, as well as match the gradient: every
        :math:`v_i` then has one more coordinate, the mean norm of all of them. Uniform weights sum
        to 1 anyway.
    looks
        With uniform weights and the solver "auto": how often the search looks at every vector, at
        least 1. None: 16 for the logit gradients, no such limit for those of the last layer. A few
        coordinates can be matched more closely than they describe the whole gradient: a longer
        search finds extreme subsets, whose whole gradient is further from the batch's.

    Raises
    ------
    OptionError
        If an option is none of these.

    Notes
    -----
    The problem depends on the signals alone, and not on the generator. With nonnegative weights
    there is a subset without error once k is at least the number of independent coordinates, C - 1
    for the logit gradients of C classes, and ``omp``, which ``auto`` takes, finds it.

    References
    ----------
    Killamsetty et al., GRAD-MATCH, ICML 2021; Campbell & Broderick, JMLR 2019.

    Examples
    --------
    >>> import subsetopt as so
    >>> gradients = np.array([[0.5, -0.5], [-0.2, 0.2], [0.1, -0.1], [0.8, -0.8]])
    >>> problem = GradientMatching(weights="nonnegative", total=True).propose(
    ...     {"logit_gradients": gradients}, 2, np.random.default_rng(0)
    ... )
    >>> solution = so.solve(problem, seed=0)
    >>> (solution.weights @ gradients[solution.indices]).round(6), gradients.mean(axis=0)
    (array([ 0.3, -0.3]), array([ 0.3, -0.3]))
    >>> float(solution.weights.sum().round(6))
    1.0
    """

    signal: Literal["logit_gradients", "last_layer_gradients"] = "logit_gradients"
    weights: Literal["uniform", "nonnegative"] = "uniform"
    total: bool = False
    looks: int | None = None

    def __post_init__(self) -> None:
        checked_choice("signal", self.signal, ("logit_gradients", "last_layer_gradients"))
        checked_choice("weights", self.weights, ("uniform", "nonnegative"))
        checked_flag("total", self.total)
        if self.looks is not None:
            checked_integer("looks", self.looks, 1)

    @property
    def requires(self) -> frozenset[str]:  # type: ignore[override]
        """The vectors that are matched."""
        return frozenset({self.signal})

    @property
    def solver(self) -> SolverChoice:
        """What the solver "auto" stands for.

        With uniform weights it is a search by swaps that looks at every vector ``looks`` times.
        With nonnegative weights it is a matching pursuit by the largest product, which takes large
        gradients at moderate weights; one by the least angle takes tiny gradients, whose weights
        have no bound. If the weights are to sum to 1, no vector is tiny, and the angle, by which
        ``omp`` goes without options, matches better.
        """
        if self.weights == "nonnegative":
            return _AUTO if self.total else SolverChoice("omp", {"pick": "product"})
        looks = self.looks or (_LOOKS if self.signal == "logit_gradients" else None)
        return _AUTO if looks is None else SolverChoice("swap", {"looks": looks})

    def propose(self, signals: Signals, k: int, rng: np.random.Generator) -> Problem:
        """Return the vector matching problem; the vectors are brought to the host once."""
        vectors = to_host(signal(signals, self.signal, "gradient-matching"))
        if self.total and self.weights == "nonnegative" and vectors.ndim == 2:
            vectors = np.column_stack([vectors, _units(vectors)])
        return Problem(VectorMatching(vectors, weights=self.weights), k)


def _units(vectors: NDArray[Any]) -> NDArray[Any]:
    """Return the mean norm of the vectors, once for each, in their dtype; ones if all are 0."""
    unit = np.linalg.norm(vectors, axis=1).mean() if len(vectors) else 0.0
    return np.full(len(vectors), unit if unit > 0.0 else 1.0, dtype=vectors.dtype)
