"""Proportional loss: k drawn without replacement, each draw proportional to the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from subsetopt.errors import ProblemError
from subsetopt.inputs import checked_choice
from subsetopt.policies.arrays import Array, as_float64, from_host, namespace
from subsetopt.policies.base import Signals, signal
from subsetopt.policies.scored import ScoredPolicy

__all__ = ["ProportionalLoss"]


@dataclass(frozen=True)
class ProportionalLoss(ScoredPolicy):
    r"""Draw k samples one after the other, with probability proportional to the loss.

    The k largest of the keys :math:`\log l_i + G_i` with independent Gumbel :math:`G_i`: the order
    of the keys is that of successive draws without replacement. Samples with loss 0 come after all
    others, in random order. The training weights are 1/k: the choice is biased, on purpose.

    Parameters
    ----------
    negative
        What to do with a negative loss, to which no probability can be proportional: ``"raise"``
        (the default), or ``"shift"`` all losses of the batch so that the smallest becomes 0.

    References
    ----------
    OBTF's baseline "Selective-Backprop" (Dong et al., section 4); Efraimidis & Spirakis,
    Inf. Process. Lett. 97, 2006.

    Examples
    --------
    >>> import numpy as np, subsetopt as so
    >>> losses = np.array([0.0, 3.0, 0.0, 2.0])
    >>> problem = ProportionalLoss().propose({"losses": losses}, 2, np.random.default_rng(0))
    >>> so.solve(problem).indices
    array([1, 3])
    """

    requires: ClassVar[frozenset[str]] = frozenset({"losses"})

    negative: Literal["raise", "shift"] = "raise"

    def __post_init__(self) -> None:
        checked_choice("negative", self.negative, ("raise", "shift"))

    def scores(self, signals: Signals, k: int, rng: np.random.Generator) -> Array:
        """Return random keys, the k largest of which are the draw.

        Raises
        ------
        ProblemError
            If a loss is negative and ``negative="raise"``.
        """
        losses = as_float64(signal(signals, "losses", "proportional-loss"))
        gumbel = -np.log(rng.standard_exponential(losses.shape[0]))
        return _keys(losses, from_host(gumbel, losses), shift=self.negative == "shift")


def _keys(losses: Array, gumbel: Array, *, shift: bool) -> Array:
    """Return finite keys; those of zero losses lie below all others."""
    xp = namespace(losses)
    if losses.shape[0] == 0 or not bool(xp.all(xp.isfinite(losses))):
        return losses  # the objective says what is wrong with them, and where
    smallest = float(xp.min(losses))
    if smallest < 0.0:
        if not shift:
            raise ProblemError(
                f"proportional-loss needs losses of at least 0, got {smallest:g} at position "
                f"{int(xp.argmin(losses))}. Use make_policy('proportional-loss', "
                "negative='shift'), or a policy that takes any sign, such as 'obtf'."
            )
        losses = losses - smallest
    positive = losses > 0.0
    keys = xp.log(xp.where(positive, losses, xp.ones_like(losses))) + gumbel
    if not bool(xp.any(positive)):
        return keys
    lowest = xp.min(xp.where(positive, keys, xp.full_like(keys, xp.inf)))
    # A Gumbel number has no lower bound; exp(-exp(-g)) lies in [0, 1] and rises with g.
    below = lowest - 2.0 + xp.exp(-xp.exp(-gumbel))
    return xp.where(positive, keys, below)
