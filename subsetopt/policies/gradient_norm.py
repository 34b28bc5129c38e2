"""Gradient norm: the k largest per-sample gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from subsetopt.policies.scored import SignalPolicy

__all__ = ["GradientNorm"]


@dataclass(frozen=True)
class GradientNorm(SignalPolicy):
    r"""Choose the k samples with the largest gradient norms.

    .. math:: s_i = \lVert \nabla_\theta \, l_i \rVert_2

    over all parameters. The norms cost a backward pass per sample, more than the selection can
    save: this is the yardstick for ``upper-bound``, which costs nothing beyond the scoring pass.

    References
    ----------
    Zhang et al., AdaSelection, section 3.1.

    Examples
    --------
    >>> import numpy as np, subsetopt as so
    >>> norms = np.array([0.1, 3.0, 2.0])
    >>> problem = GradientNorm().propose({"gradient_norms": norms}, 2, np.random.default_rng(0))
    >>> so.solve(problem).indices
    array([1, 2])
    """

    name: ClassVar[str] = "gradient-norm"
    requires: ClassVar[frozenset[str]] = frozenset({"gradient_norms"})
