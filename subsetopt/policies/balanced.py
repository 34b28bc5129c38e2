"""Balanced: a random subset, hard samples likelier, whose weighted totals are the batch's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from subsetopt.errors import ProblemError
from subsetopt.inputs import checked_choice, checked_number
from subsetopt.objectives import SamplingDesign
from subsetopt.objectives.inclusion import inclusion_probabilities
from subsetopt.policies.arrays import Array, as_float64, namespace, to_host
from subsetopt.policies.base import Signals, StatelessPolicy, signal
from subsetopt.policies.parts.sample_scores import (
    SCORE_SIGNALS,
    SampleScore,
    check_score,
    mixed_scores,
    read_scores,
)
from subsetopt.policies.parts.weight_cap import CappedPolicy, WeightCap
from subsetopt.problem import Problem
from subsetopt.solution import Solution

__all__ = ["Balanced"]

Balance = Literal["loss", "logit_gradients"]

# The signals that each choice balances, the most important first.
_BALANCES: dict[str | None, tuple[str, ...]] = {
    None: (),
    "loss": ("losses",),
    "logit_gradients": ("losses", "logit_gradients"),
}


@dataclass
class Balanced(CappedPolicy, StatelessPolicy):
    r"""Draw k samples without replacement, balanced on the loss, in proportion to a score.

    The inclusion probabilities are

    .. math:: \pi_i = \min(1, c\, \tilde s_i), \quad \sum_i \pi_i = k, \qquad
              \tilde s_i = (1 - m)\, s_i / \bar s + m,

    and the cube method draws a subset S with exactly these, of exactly k samples, such that
    :math:`\sum_{i \in S} w_i l_i` with the weights :math:`w_i = 1 / (n \pi_i)` is the mean loss of
    the batch, up to the last few candidates. The weighted gradient is unbiased without a cap; with
    one the weights are :math:`\min(w_i, M / k)`. With a power below 1 the weights are

    .. math:: w_i = \frac{\pi_i^{-\gamma}}{\sum_j \pi_j^{1 - \gamma}},

    which sum to 1 in expectation, as those with :math:`\gamma = 1` do, and are 1/k for
    :math:`\gamma = 0`.

    Parameters
    ----------
    score
        ``"upper_bound"``: the norm of the gradient of the loss with respect to the logits;
        ``"loss"``: the loss; ``"gradient_norm"``: the norm of the gradient with respect to all
        parameters, exact and expensive.
    mix
        m, from 0 (the default) to 1: the part of a uniform draw in the scores. It bounds the
        weights by ``1 / (m k)`` without any bias. A value such as 0.2 is advisable where scores are
        older than the gradients (recorded ones) or come from another forward pass (dropout).
    balance
        What is balanced besides the size: ``"loss"``; ``"logit_gradients"``, which is the loss and
        after it the gradient with respect to every logit; None, nothing.
    max_weight
        M, the largest training weight in units of 1/k, at least 1; None: no cap. A sample that
        looked easy and turns out hard has a large gradient and a huge weight: without a cap
        training diverges at high learning rates.
    weight_power
        :math:`\gamma`, from 0 to 1. With 1 (the default) the weights undo the preference for hard
        samples and the weighted gradient is unbiased. With less they undo a part of it: they vary
        less, and hard samples count for more than their share.

    Raises
    ------
    OptionError
        If ``mix`` or ``weight_power`` is not from 0 to 1, ``max_weight`` below 1, or a name none of
        those above.

    Notes
    -----
    A sample whose score is 0 is never drawn unless ``mix > 0`` or fewer than k scores are positive.

    References
    ----------
    Deville & Tille, Efficient balanced sampling: the cube method, Biometrika 2004; the scores are
    those of Katharopoulos & Fleuret, ICML 2018, eq. 20.

    Examples
    --------
    >>> import subsetopt as so
    >>> bounds, losses = np.array([0.1, 0.8, 0.3, 1.2]), np.array([0.1, 1.5, 0.4, 3.0])
    >>> policy = Balanced(mix=0.2)
    >>> signals = {"upper_bound": bounds, "losses": losses}
    >>> problem = policy.propose(signals, 2, np.random.default_rng(0))
    >>> problem.objective.inclusion.round(3)
    array([0.167, 0.633, 0.3  , 0.9  ])
    >>> drawn = so.solve(problem, seed=0)
    >>> policy.weigh(drawn).size
    2
    """

    score: SampleScore = "upper_bound"
    mix: float = 0.0
    balance: Balance | None = "loss"
    max_weight: float | None = 10.0
    weight_power: float = 1.0
    # The expected sum of pi**-weight_power over a draw of the last proposal.
    _power_sum: float = field(default=math.nan, init=False, repr=False, compare=False)
    _cap: WeightCap = field(init=False, repr=False, compare=False)

    # Its problems are random designs, which take no constraints.
    draws_designs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_score(self.score)
        self.mix = checked_number("mix", self.mix, 0.0, 1.0)
        checked_choice("balance", self.balance, ("loss", "logit_gradients", None))
        self.weight_power = checked_number("weight_power", self.weight_power, 0.0, 1.0)
        self._cap = WeightCap(self.max_weight)

    @property
    def requires(self) -> frozenset[str]:  # type: ignore[override]  # depends on the options here
        """The signal behind the score, and those that are balanced."""
        return frozenset({SCORE_SIGNALS[self.score], *_BALANCES[self.balance]})

    def propose(self, signals: Signals, k: int, rng: np.random.Generator) -> Problem:
        """Return the balanced design of the scores.

        Raises
        ------
        ProblemError
            If a signal is missing or malformed, or a score is negative.
        """
        scores = mixed_scores(read_scores(signals, self.score, "balanced"), self.mix)
        totals = [signal(signals, name, "balanced") for name in _BALANCES[self.balance]]
        table = to_host(_as_columns(scores, *map(as_float64, totals)))
        pi = inclusion_probabilities(table[:, 0], k)
        if self.weight_power < 1.0:
            self._power_sum = _expected_power_sum(pi, self.weight_power)
        return Problem(SamplingDesign(pi, table[:, 1:] if totals else None), k)

    def weigh(self, solution: Solution) -> NDArray[np.float64]:
        """Return the weights to train with, for a draw from the last proposal.

        Raises
        ------
        ProblemError
            If ``weight_power`` is below 1 and nothing was proposed.
        """
        if self.weight_power == 1.0:
            return super().weigh(solution)
        if math.isnan(self._power_sum):
            raise ProblemError(
                f"with weight_power={self.weight_power:g} the weights of 'balanced' depend on the "
                "probabilities of all candidates: call propose() first."
            )
        inverse = solution.n * solution.weights  # 1 / pi
        return self._cap(inverse**self.weight_power / self._power_sum)

    def state_dict(self) -> dict[str, Any]:
        """Return the record of what was cut."""
        return self._cap.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a record.

        Raises
        ------
        OptionError
            If the state is not one of this policy.
        """
        self._cap.load_state_dict(state)


def _expected_power_sum(pi: NDArray[np.float64], power: float) -> float:
    """Return what divides ``pi**-power``, so that a draw's weights sum to what 1 / (n pi) do."""
    positive = pi[pi > 0.0]
    return float((positive ** (1.0 - power)).sum()) * pi.size / max(1, positive.size)


def _as_columns(*parts: Array) -> Array:
    """Return vectors and matrices as the columns of one matrix, for one transfer to the host."""
    columns = [part[:, None] if part.ndim == 1 else part for part in parts]
    for part in columns:
        if part.ndim != 2 or part.shape[0] != columns[0].shape[0]:
            raise ProblemError(
                f"every signal must have one row for each of the {columns[0].shape[0]} candidates, "
                f"got shape {tuple(part.shape)}."
            )
    return namespace(columns[0]).concat(columns, axis=1)
