"""Upper bound: the k largest gradients with respect to the model's outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from subsetopt.policies.scored import SignalPolicy

__all__ = ["UpperBound"]


@dataclass(frozen=True)
class UpperBound(SignalPolicy):
    r"""Choose the k samples whose loss moves most with the model's outputs.

    .. math:: s_i = \Bigl\lVert \frac{\partial l_i}{\partial z_i} \Bigr\rVert_2

    with :math:`z_i` the outputs of the last layer (logits); up to a constant it bounds the norm of
    the sample's whole gradient from above. A top-k is biased toward hard samples; for an unbiased
    use of the same scores see ``importance`` and ``balanced``.

    References
    ----------
    Katharopoulos & Fleuret, Not All Samples Are Created Equal, eq. 20.

    Examples
    --------
    >>> import numpy as np, subsetopt as so
    >>> from subsetopt.policies import cross_entropy_gradients, row_norms
    >>> logits, labels = np.array([[5.0, 0.0], [0.0, 2.0], [0.0, 0.0]]), np.array([0, 0, 1])
    >>> bounds = row_norms(cross_entropy_gradients(logits, labels))
    >>> problem = UpperBound().propose({"upper_bound": bounds}, 2, np.random.default_rng(0))
    >>> so.solve(problem).indices
    array([1, 2])
    """

    name: ClassVar[str] = "upper-bound"
    requires: ClassVar[frozenset[str]] = frozenset({"upper_bound"})
