"""AdaSelection: several scoring policies at once, the weight of each learned while training."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from subsetopt.errors import OptionError, ProblemError
from subsetopt.inputs import as_finite_vector, checked_choice, checked_number, is_number
from subsetopt.objectives import WeightedScores
from subsetopt.objectives.weighted_scores import sample_importance
from subsetopt.policies.arrays import Array, as_float64, from_host, namespace, to_host
from subsetopt.policies.base import Feedback, SelectionState, Signals, signal
from subsetopt.policies.members import WithLearnsFrom, has
from subsetopt.policies.parts.candidates import make_candidates
from subsetopt.policies.parts.history import record
from subsetopt.policies.parts.method_weights import MethodWeights
from subsetopt.policies.parts.saved_state import SavedState, load_policies
from subsetopt.policies.scored import ScoredPolicy
from subsetopt.problem import Problem

__all__ = ["AdaSelection"]

MethodLoss = Literal["picked", "batch"]

# With beta=0.5 the accuracy was 21% on MNIST, digits and CIFAR-10; with -0.5 it was 96% on digits.
_RUINOUS = (
    "adaselection with beta={} gives weight to the methods whose loss changes most: usually the "
    "smallest losses, on which a model learns nothing. Pass a beta below 0; the default is -0.5."
)


class AdaSelection:
    r"""Combine the scores of several policies, each with a weight that is learned while training.

    At iteration t (from 1), with candidates m = 1, ..., M, losses :math:`l_i` of the n samples and
    the losses :math:`l_t^m` of the methods,

    .. math:: \alpha_i^m = \operatorname{softmax}_i \frac{s_i^m - \bar s^m}{\sigma^m}, \qquad
              w_t^m \propto w_{t-1}^m \exp \Bigl( \beta\,
              \frac{|l_t^m - l_{t-1}^m|}{l_{t-1}^m} \Bigr), \qquad
              r_i \propto \exp \Bigl( -t^c \frac{l_i}{\sum_j l_j^2} \Bigr),

    and the k largest of :math:`r_i \sum_m w_t^m \alpha_i^m` are chosen: a
    :class:`~subsetopt.WeightedScores` problem. The weights begin at 1/M and sum to 1.

    Parameters
    ----------
    candidates
        Names of registered policies that score, or such policies themselves (anything with
        ``requires`` and ``scores``, see :class:`ScoredPolicy`), at least one. The default is the
        paper's setting of three.
    beta
        From -1 to 1. Below 0, a method whose loss changes much loses weight; above 0 it gains
        weight, which has ruined training wherever it was tried and gives a warning; with 0 the
        weights stay equal. The default is -0.5.
    curriculum
        The exponent c of the reward, below 0, so that the preference for easy samples fades; None
        turns the reward off.
    method_loss
        What :math:`l_t^m` is. ``"picked"``: the mean loss of the k samples that method m alone
        would pick from the batch. ``"batch"``: the mean loss of the batch, as the paper's text
        says; it is the same for every method, and so the weights never leave 1/M.

    Attributes
    ----------
    names
        The candidates: registered names, and class names of policy objects; a second one of the
        same name gets ``-2``.
    weights
        Mapping from names to the present weights; one that is far behind may read 0.
    history
        Rows ``(t, weights)`` for plots, weights a tuple in the order of ``names``: one per
        iteration, at most 4,095. At the next one every second row is dropped, and from then on
        every second iteration is recorded.

    Raises
    ------
    OptionError
        If an option is out of range, or a candidate is unknown or cannot score; the message says
        which can.

    Notes
    -----
    Every call of ``propose`` with k of at least 1 is an iteration. The relative change is clipped
    at 10. Its divisor is at least ``eps(float32)`` times the mean magnitude of that batch's losses.
    Ties of a method's scores go to the lower index. The reward is scaled so that its largest value
    is 1.

    Candidates share the generator, in their order: ``"uniform"`` scores by fresh random numbers in
    every batch. What they observe, and their state, is passed on and saved.

    References
    ----------
    Zhang et al., AdaSelection, eqs. 2 to 6 and algorithm 2.

    Examples
    --------
    >>> import numpy as np, subsetopt as so
    >>> policy = AdaSelection(["big-loss", "small-loss"])
    >>> rng = np.random.default_rng(0)
    >>> for losses in ([0.1, 3.0, 2.0], [0.1, 1.0, 0.5]):
    ...     problem = policy.propose({"losses": np.array(losses)}, 1, rng)
    >>> so.solve(problem).indices
    array([0])
    >>> {name: round(weight, 3) for name, weight in policy.weights.items()}
    {'big-loss': 0.417, 'small-loss': 0.583}
    """

    def __init__(
        self,
        candidates: Sequence[str | ScoredPolicy] = ("big-loss", "small-loss", "uniform"),
        beta: float = -0.5,
        curriculum: float | None = -0.5,
        method_loss: MethodLoss = "picked",
    ) -> None:
        self.beta = checked_number("beta", beta, -1.0, 1.0)
        if self.beta > 0.0:
            warnings.warn(_RUINOUS.format(beta), stacklevel=2)
        self.curriculum = _checked_curriculum(curriculum)
        self.method_loss: MethodLoss = checked_choice(
            "method_loss", method_loss, ("picked", "batch")
        )
        self._candidates = make_candidates(candidates)
        self._methods = MethodWeights.equal(len(self._candidates))
        self.history: list[tuple[int, tuple[float, ...]]] = []
        self._stride = 1

    def __repr__(self) -> str:
        return (
            f"AdaSelection({list(self.names)}, beta={self.beta}, curriculum={self.curriculum}, "
            f"method_loss={self.method_loss!r})"
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The candidates' names."""
        return tuple(self._candidates)

    @property
    def combines(self) -> tuple[ScoredPolicy, ...]:
        """The candidates themselves, in the order of ``names``."""
        return tuple(self._candidates.values())

    @property
    def weights(self) -> dict[str, float]:
        """The present weight of every candidate."""
        return dict(zip(self.names, map(float, self._methods.weights), strict=True))

    def curves(self) -> dict[str, tuple[list[int], list[float]]]:
        """Return the weight of every candidate over the recorded iterations, for plots."""
        steps = [t for t, _ in self.history]
        return {
            name: (steps, [weights[m] for _, weights in self.history])
            for m, name in enumerate(self.names)
        }

    @property
    def requires(self) -> frozenset[str]:
        """Return the losses, and the signals that the candidates require."""
        return frozenset({"losses"}).union(*(p.requires for p in self._candidates.values()))

    @property
    def learns_from(self) -> frozenset[str]:
        """Return the signals of the training forward pass that the candidates learn from."""
        learning = [p for p in self._candidates.values() if has(p, WithLearnsFrom)]
        return frozenset().union(*(policy.learns_from for policy in learning))

    def needs_scoring(self, state: SelectionState) -> bool:
        """Return True: the losses are always needed."""
        return True

    def propose(self, signals: Signals, k: int, rng: np.random.Generator) -> Problem:
        """Return the top-k of the combined scores, after the weights have learned from the batch.

        Raises
        ------
        ProblemError
            If a required signal is missing or the scores of a candidate are not finite, one per
            sample.
        """
        losses = as_float64(signal(signals, "losses", "adaselection"))
        host, _ = as_finite_vector(to_host(losses), "losses")
        scores = self._scores(signals, losses, k, rng)
        methods = self._methods
        if k:
            magnitude = float(np.abs(host).mean()) if host.size else 0.0
            methods = methods.after(self._method_losses(losses, scores, k), magnitude, self.beta)
        problem = Problem(self._objective(host, scores, methods), k)
        if k:
            self._remember(methods)
        return problem

    def observe(self, feedback: Feedback) -> None:
        """Pass the feedback on to the candidates."""
        for policy in self._candidates.values():
            policy.observe(feedback)

    def state_dict(self) -> dict[str, Any]:
        """Return weights, last losses, history and the candidates' states: numbers and lists."""
        return {
            "names": list(self.names),
            **self._methods.state_dict(),
            "history": [(t, weights) for t, weights in self.history],
            "stride": self._stride,
            "candidates": [policy.state_dict() for policy in self._candidates.values()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state that ``state_dict`` returned.

        Raises
        ------
        OptionError
            If it is incomplete or malformed, or was saved with other candidates; nothing is then
            loaded.
        """
        saved = SavedState("adaselection", state, self.state_dict(), exactly=False)
        names = saved.texts("names")
        if names != list(self.names):
            raise OptionError(
                f"the state was saved with the candidates {names}, this policy has "
                f"{list(self.names)}."
            )
        count = len(self.names)
        methods, stride = MethodWeights.from_state(saved, count), saved.integer("stride", 1)
        history = []
        for row in saved.sequence("history"):
            step, weights = row if isinstance(row, (list, tuple)) and len(row) == 2 else (row, None)
            entry = SavedState("adaselection", {"t": step, "weights": weights}, ["t", "weights"])
            shown = tuple(entry.vector("weights", count, low=0.0, high=1.0).tolist())
            history.append((entry.integer("t"), shown))
        states = saved.sequence("candidates", count)
        load_policies(list(self._candidates.values()), states, "adaselection")
        self._methods, self.history, self._stride = methods, history, stride

    def _scores(self, signals: Signals, losses: Array, k: int, rng: np.random.Generator) -> Array:
        """Return the candidates' scores (M, n) in float64, on the device of the losses."""
        rows = []
        for name, policy in self._candidates.items():
            row = _beside(policy.scores(signals, k, rng), losses)
            if tuple(row.shape) != tuple(losses.shape):
                raise ProblemError(
                    f"the candidate {name!r} must give one score per sample, shape "
                    f"{tuple(losses.shape)}, got {tuple(row.shape)}."
                )
            rows.append(row)
        xp = namespace(losses)
        scores = xp.stack(rows)
        if not bool(xp.all(xp.isfinite(scores))):
            for name, row in zip(self.names, rows, strict=True):
                as_finite_vector(to_host(row), f"the scores of the candidate {name!r}")
        return scores

    def _method_losses(self, losses: Array, scores: Array, k: int) -> tuple[float, ...]:
        """Return the loss of every method in this batch."""
        xp = namespace(losses)
        if self.method_loss == "batch":
            return (float(xp.mean(losses)),) * len(self.names)
        order = xp.argsort(-scores, axis=1, stable=True)[:, :k]
        picked = xp.reshape(xp.take(losses, xp.reshape(order, (-1,))), order.shape)
        return tuple(map(float, to_host(xp.mean(picked, axis=1))))

    def _objective(
        self, losses: NDArray[np.float64], scores: Array, methods: MethodWeights
    ) -> WeightedScores:
        rows = to_host(sample_importance(scores, namespace(scores)))
        pace = None if self.curriculum is None else float(max(methods.t, 1)) ** self.curriculum
        importances = dict(zip(self.names, rows, strict=True))
        return WeightedScores(losses, importances, methods.weights, pace)

    def _remember(self, methods: MethodWeights) -> None:
        """Take up the state after an iteration, and record its weights."""
        self._methods = methods
        row = (methods.t, tuple(map(float, methods.weights)))
        self._stride = record(self.history, row, methods.t - 1, self._stride)


def _beside(scores: Array, losses: Array) -> Array:
    """Return a candidate's scores in float64, of the kind of the losses and on their device."""
    if isinstance(losses, np.ndarray):
        scores = to_host(scores)
    elif isinstance(scores, np.ndarray):
        scores = from_host(scores, losses)
    return as_float64(scores)


def _checked_curriculum(curriculum: object) -> float | None:
    if curriculum is None:
        return None
    if not is_number(curriculum) or not -math.inf < curriculum < 0.0:
        raise OptionError(
            "curriculum must be a number below 0, so that the reward fades with time, or None for "
            f"no reward, got {curriculum!r}."
        )
    return float(curriculum)
