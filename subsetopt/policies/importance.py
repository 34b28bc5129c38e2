"""Importance sampling that switches itself on when it pays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from subsetopt.errors import OptionError, ProblemError
from subsetopt.inputs import checked_number
from subsetopt.objectives import SamplingDesign, TopScores
from subsetopt.policies.arrays import to_host
from subsetopt.policies.base import Feedback, SelectionState, Signals, candidate_count
from subsetopt.policies.parts.history import record
from subsetopt.policies.parts.sample_scores import (
    SCORE_SIGNALS,
    SampleScore,
    check_score,
    normalized_scores,
    read_scores,
    tau_estimate,
)
from subsetopt.policies.parts.saved_state import SavedState
from subsetopt.policies.parts.weight_cap import CappedPolicy, WeightCap
from subsetopt.problem import Problem

__all__ = ["Importance", "TauRow", "largest_speedup"]


class TauRow(NamedTuple):
    """One step of the history of ``importance``.

    Attributes
    ----------
    step
        The selection, counted from 0.
    tau
        The smoothed estimate after it.
    on
        Whether its samples were drawn by importance.
    """

    step: int
    tau: float
    on: bool


class Importance(CappedPolicy):
    r"""Draw with replacement in proportion to a score, once that is worth a scoring pass.

    Algorithm 1. While on, B of the n candidates are drawn uniformly and scored, and b = k of these
    are drawn with probabilities :math:`g_i = s_i / \sum_j s_j` and trained on with weights
    :math:`1 / (B g_i b)`: unbiased for the batch mean. While off, b of the n candidates are drawn
    uniformly, without a scoring pass. Every step gives an estimate of what sampling by g is worth,
    over the set U of the samples whose scores are known (the B scored ones while on, the b
    trained ones while off):

    .. math:: \tau \leftarrow a \tau + (1 - a) \sqrt{|U| \textstyle\sum_{i \in U} g_i^2},
              \qquad \text{on when } \tau > \tau_{th}.

    Parameters
    ----------
    presample
        B / b, at least 1: ``round(presample * k)`` candidates are scored, or all n if there are
        fewer. The paper advises 2 to 6. None: all n.
    score
        ``"upper_bound"``: the norm of the gradient of the loss with respect to the logits;
        ``"loss"``: the loss; ``"gradient_norm"``: the norm of the gradient with respect to all
        parameters, exact and expensive.
    tau_threshold
        :math:`\tau_{th}`; None is ``(B + 3b) / (3b)``, above which a speed-up is guaranteed where
        a backward pass costs two forward passes. The paper's experiments use less (1.5).
    momentum
        a, from 0 to below 1.
    max_weight
        Largest training weight in units of 1/b, at least 1, which makes the estimate biased;
        None: no cap.

    Attributes
    ----------
    tau
        The smoothed estimate, at first 0.
    history
        A :class:`TauRow` per step, at most 4,095: at the next one every second row is dropped, and
        from then on every second step is recorded.
    switches
        The steps at which importance sampling came on, as ``(step, True)``, or went off, as
        ``(step, False)``; all of them.
    clipped
        What ``max_weight`` cut from the weights, in all: a
        :class:`~subsetopt.policies.Clipped`.

    Raises
    ------
    OptionError
        If an option is out of range. On the first batch, if it could never switch on: an estimate
        from b samples is at most sqrt(b), so that ``sqrt(b) > tau_threshold`` is needed. This is
        asked of the largest b seen, not of a smaller last batch.

    Notes
    -----
    It learns from feedback alone: without a :class:`subsetopt_torch.SelectiveStep`, call
    ``selector.observe`` after every step, or it never switches on. While off, the scores of the
    trained samples come from the training forward (``Feedback.losses``, or
    ``Feedback.signals["upper_bound"]``, which stands in for exact gradient norms, too).

    References
    ----------
    Katharopoulos & Fleuret, Not All Samples Are Created Equal: Deep Learning with Importance
    Sampling, ICML 2018, algorithm 1, eqs. 20 and 26.

    Examples
    --------
    >>> import subsetopt as so
    >>> policy = Importance(momentum=0.0)
    >>> bounds = np.array([0.1, 0.1, 0.1, 2.0, 0.1, 0.1, 0.1, 0.1, 0.1])
    >>> policy.observe(Feedback(0, None, None, None, signals={"upper_bound": bounds}))
    >>> policy.tau > policy.threshold(n=27, k=9)
    True
    >>> problem = policy.propose({"upper_bound": np.tile(bounds, 3)}, 9, np.random.default_rng(0))
    >>> so.solve(problem, seed=0).weights.round(3)
    array([0.017, 0.017, 0.017, 0.017, 0.346, 0.017, 0.017, 0.017, 0.017])
    """

    # Its problems are random designs, which take no constraints.
    draws_designs: ClassVar[bool] = True

    def __init__(
        self,
        presample: float | None = 3.0,
        score: SampleScore = "upper_bound",
        tau_threshold: float | None = None,
        momentum: float = 0.9,
        max_weight: float | None = None,
    ) -> None:
        check_score(score)
        self.ratio = None if presample is None else checked_number("presample", presample, 1.0)
        self.score = score
        self.tau_threshold = (
            None if tau_threshold is None else checked_number("tau_threshold", tau_threshold, 0.0)
        )
        self.momentum = checked_number("momentum", momentum, 0.0, 1.0)
        if self.momentum == 1.0:
            raise OptionError("momentum must be below 1, got 1: the estimate would never move.")
        self.tau = 0.0
        self.history: list[TauRow] = []
        self.switches: list[tuple[int, bool]] = []
        # The number of estimates learned so far; one in ``_stride`` of them is recorded.
        self._learned, self._stride = 0, 1
        self._cap = WeightCap(max_weight)
        self._largest_k = 0
        # Whether the last proposal was by importance, and its estimate until ``observe`` takes it.
        self._on = False
        self._proposed: float | None = None

    def __repr__(self) -> str:
        return (
            f"Importance(presample={self.ratio}, score={self.score!r}, "
            f"tau_threshold={self.tau_threshold}, momentum={self.momentum}, "
            f"max_weight={self._cap.limit})"
        )

    @property
    def requires(self) -> frozenset[str]:
        """The signal behind the score."""
        return frozenset({SCORE_SIGNALS[self.score]})

    @property
    def learns_from(self) -> frozenset[str]:
        """The signals of the training forward pass that it needs besides the losses."""
        return frozenset() if self.score == "loss" else frozenset({"upper_bound"})

    def curves(self) -> dict[str, tuple[list[int], list[float]]]:
        """Return tau, and 1 where it was on, over the steps, for plots."""
        steps = [row.step for row in self.history]
        return {
            "tau": (steps, [row.tau for row in self.history]),
            "on": (steps, [float(row.on) for row in self.history]),
        }

    def presampled(self, n: int, k: int) -> int:
        """Return B: the number of n candidates that get a scoring pass while it is on."""
        return n if self.ratio is None else min(n, max(k, math.floor(self.ratio * k + 0.5)))

    def threshold(self, n: int, k: int) -> float:
        """Return the value that tau has to exceed for k of n samples."""
        if self.tau_threshold is not None:
            return self.tau_threshold
        return (self.presampled(n, k) + 3 * k) / (3 * k)

    def needs_scoring(self, state: SelectionState) -> bool:
        """Return whether it is on.

        Raises
        ------
        OptionError
            If it could never switch on.
        """
        return self._is_on(state.n, state.k)

    def presample(
        self, state: SelectionState, rng: np.random.Generator
    ) -> NDArray[np.int64] | None:
        """Return the positions of the B candidates to score, sorted; None for all."""
        size = self.presampled(state.n, state.k)
        if size >= state.n:
            return None
        return np.sort(rng.choice(state.n, size, replace=False)).astype(np.int64, copy=False)

    def propose(self, signals: Signals, k: int, rng: np.random.Generator) -> Problem:
        """Return a design over the scored candidates, or a uniform draw while off."""
        n = candidate_count(signals)
        self._proposed = None
        self._on = bool(n and k and self._is_on(n, k))
        if not self._on:
            return Problem(TopScores(rng.random(n)), k)
        scores = read_scores(signals, self.score, "importance")
        self._proposed = tau_estimate(scores)
        return Problem(SamplingDesign(to_host(normalized_scores(scores)), replacement=True), k)

    def observe(self, feedback: Feedback) -> None:
        """Take up the estimate of the scored candidates, or else of the trained samples.

        Raises
        ------
        ProblemError
            If the scores of the trained samples are needed, and missing or malformed.
        """
        estimate, on = self._proposed, self._proposed is not None
        if estimate is None:
            if self._on and feedback.scored:
                return  # the estimate of this draw was taken up before, and the draw is not uniform
            estimate = tau_estimate(self._trained_scores(feedback))
        self._proposed = None
        self.tau = self.momentum * self.tau + (1.0 - self.momentum) * estimate
        self._record(feedback.step, on)

    def state_dict(self) -> dict[str, Any]:
        """Return tau, the history, and what else a resumed run needs."""
        return {
            "tau": self.tau,
            "learned": self._learned,
            "stride": self._stride,
            "switches": list(self.switches),
            "largest_k": self._largest_k,
            "on": self._on,
            "proposed": self._proposed,
            "history": [tuple(row) for row in self.history],
            "cap": self._cap.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the state was taken.

        Raises
        ------
        OptionError
            If the state is not one of this policy, or malformed; nothing is then loaded.
        """
        saved = SavedState("importance", state, self.state_dict())
        tau, proposed = saved.number("tau", 0.0), saved.number_or_none("proposed", 0.0)
        largest_k, on = saved.integer("largest_k"), saved.flag("on")
        history = [TauRow(*row) for row in saved.rows("history", "integer", "number", "flag")]
        switches = [(step, now) for step, now in saved.rows("switches", "integer", "flag")]
        learned, stride = saved.integer("learned"), saved.integer("stride", 1)
        self._cap.take_up(*self._cap.checked(saved["cap"]))
        self.tau, self._proposed, self._largest_k, self._on = tau, proposed, largest_k, on
        self.history, self.switches = history, switches
        self._learned, self._stride = learned, stride

    def _record(self, step: int, on: bool) -> None:
        if on is not (bool(self.switches) and self.switches[-1][1]):
            self.switches.append((step, on))
        row = TauRow(step, self.tau, on)
        self._stride = record(self.history, row, self._learned, self._stride)
        self._learned += 1

    def _is_on(self, n: int, k: int) -> bool:
        threshold = self.threshold(n, k)
        if k >= self._largest_k:
            self._largest_k = k
            if math.sqrt(k) <= threshold:
                raise OptionError(self._hopeless(n, k, threshold))
        return self.tau > threshold

    def _hopeless(self, n: int, k: int, threshold: float) -> str:
        """Return why it could never switch on, and what to do."""
        root = math.sqrt(k)
        if self.tau_threshold is not None:
            source, ways = "", f"pass tau_threshold below {root:.4g}"
        else:
            size = self.presampled(n, k)
            source = f" = (B + 3b)/(3b) with B = {size} scored of n = {n}"
            ways = f"pass tau_threshold, below {root:.4g}"
            if 3.0 * (root - 1.0) > 1.0:
                ways = f"pass presample below {3.0 * (root - 1.0):.4g}, or {ways}"
        return (
            f"importance could never switch on with b = {k}: while it is off, tau is at most "
            f"sqrt(b) = {root:.4g}, and tau_threshold is {threshold:.4g}{source}. Choose more "
            f"samples per batch, or {ways}."
        )

    def _trained_scores(self, feedback: Feedback) -> Any:
        if self.score == "loss":
            return read_scores({"losses": feedback.losses}, "loss", "importance")
        if "upper_bound" not in feedback.signals:
            names = ", ".join(sorted(feedback.signals)) or "none"
            raise ProblemError(
                "importance, while off, learns from the upper bounds of the trained samples: pass "
                f"Feedback(signals={{'upper_bound': ...}}), got {names}."
            )
        return read_scores(feedback.signals, "upper_bound", "importance")


def largest_speedup(presampled: int, k: int) -> float:
    """Return how many times faster a step can get than one with as little variance.

    It is ``3B / (B + 3b)``. To score B candidates and train on b of them takes the time of B + 3b
    forward passes, to train on all B that of 3B, since a backward pass takes as long as two.

    Parameters
    ----------
    presampled, k
        B, the number of candidates scored, and b, the number trained on, both at least 1.

    Raises
    ------
    OptionError
        If one is below 1.

    References
    ----------
    Katharopoulos & Fleuret, ICML 2018, section 3.3, which prints the reciprocal.

    Examples
    --------
    >>> largest_speedup(presampled=384, k=128)
    1.5
    """
    size, b = checked_number("presampled", presampled, 1), checked_number("k", k, 1)
    return 3.0 * size / (size + 3.0 * b)
