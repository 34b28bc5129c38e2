"""InfoBatch: samples below the mean loss are pruned at random, and the rest of them weigh more."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from subsetopt.errors import OptionError
from subsetopt.inputs import checked_number
from subsetopt.objectives import SamplingDesign
from subsetopt.objectives.inclusion import inclusion_probabilities
from subsetopt.policies.arrays import Array, as_float64, namespace, to_host
from subsetopt.policies.base import Signals, StatelessPolicy, signal
from subsetopt.problem import Problem

__all__ = ["InfoBatch"]


@dataclass(frozen=True)
class InfoBatch(StatelessPolicy):
    r"""Keep the samples whose loss is at least the mean, and a random part of the others.

    With the prune ratio r, the inclusion probabilities and training weights are

    .. math:: \pi_i = \min(1, c\, s_i), \quad \sum_i \pi_i = k, \qquad
              s_i = \begin{cases} 1 - r & l_i < \bar l \\ 1 & \text{otherwise} \end{cases},
              \qquad w_i = \frac{1}{n \pi_i}.

    With k = :meth:`size` this is InfoBatch: everything at or above the mean is kept, exactly
    :math:`\lfloor (1 - r)\, n_{\text{low}} \rfloor` of the :math:`n_{\text{low}}` samples below it,
    and these weigh 1 / (1 - r) times as much, up to rounding. With a larger k fewer samples below
    the mean are pruned; with a smaller k all samples are thinned by one common factor. The weighted
    loss is unbiased for the mean over the candidates.

    Parameters
    ----------
    prune
        r, the part of the samples below the mean that is left out, from 0 to below 1.

    Raises
    ------
    OptionError
        If ``prune`` is out of range.

    References
    ----------
    Qin et al., InfoBatch: Lossless Training Speed Up by Unbiased Dynamic Data Pruning, ICLR 2024,
    eqs. 3 and 5.

    Examples
    --------
    >>> import subsetopt as so
    >>> losses = np.array([0.1, 3.0, 0.2, 0.1, 2.0, 0.2])
    >>> policy = InfoBatch()
    >>> policy.size(losses)
    4
    >>> problem = policy.propose({"losses": losses}, 4, np.random.default_rng(0))
    >>> problem.objective.inclusion
    array([0.5, 1. , 0.5, 0.5, 1. , 0.5])
    """

    prune: float = 0.5
    requires: ClassVar[frozenset[str]] = frozenset({"losses"})

    # Its problems are random designs, which take no constraints.
    draws_designs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if checked_number("prune", self.prune, 0.0, 1.0) == 1.0:
            raise OptionError(
                "prune must be below 1, got 1.0: what is never drawn cannot be made up for by "
                "weights. Use the policy 'big-loss' to leave easy samples out."
            )

    def size(self, losses: Array) -> int:
        """Return how many of the candidates InfoBatch keeps.

        Parameters
        ----------
        losses
            Losses, shape (n,).
        """
        return self._size(self._below_mean(losses))

    def propose(self, signals: Signals, k: int, rng: np.random.Generator) -> Problem:
        """Return the design that keeps k of the candidates."""
        low = self._below_mean(signal(signals, "losses", "infobatch"))
        below = int(np.count_nonzero(low))
        if k >= self._size(low):
            # Rounding the number of samples below the mean must not cost one above it its place.
            pi = np.where(low, (k - low.size + below) / max(1, below), 1.0)
        else:
            pi = inclusion_probabilities(np.where(low, 1.0 - self.prune, 1.0), k)
        return Problem(SamplingDesign(pi), k)

    def _size(self, low: NDArray[np.bool_]) -> int:
        below = int(np.count_nonzero(low))
        return low.size - below + math.floor((1.0 - self.prune) * below)

    def _below_mean(self, losses: Array) -> NDArray[np.bool_]:
        """Return which losses are below their mean, on the host; the mean is of float64."""
        values = as_float64(losses)
        if not values.shape[0]:
            return np.zeros(0, dtype=bool)
        xp = namespace(values)
        # Losses in units of the largest have a sum that does not overflow.
        largest = float(xp.max(xp.abs(values)))
        unit = values / largest if largest > 0.0 else values
        return to_host(unit < xp.mean(unit))
