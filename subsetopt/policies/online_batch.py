"""Online batch selection: probabilities that fall with the rank of the latest known loss."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from subsetopt.inputs import checked_count, checked_number
from subsetopt.objectives import SamplingDesign, TopScores
from subsetopt.policies.arrays import Array
from subsetopt.policies.base import Signals
from subsetopt.policies.parts.loss_order import LossOrder, rank_keys
from subsetopt.policies.parts.memory import RememberingPolicy, positions_below
from subsetopt.policies.parts.sample_ids import checked_ids, id_bits
from subsetopt.policies.parts.saved_state import SavedState
from subsetopt.problem import Problem
from subsetopt.solution import Solution

__all__ = ["OnlineBatch"]

# Distinct ranks are drawn by rejection if a draw misses the k likeliest ranks with at least this
# probability, and otherwise by sorting random keys of all ranks.
_RETRY = 0.25
# The number that settles the order of equal losses lies below this.
_SALTS = 1 << 32


class OnlineBatch(RememberingPolicy):
    r"""Draw samples with probabilities that fall exponentially with the rank of their loss.

    .. math:: p_i \propto \exp\left( - \frac{\log s_e}{N} \right)^{\operatorname{rank}(i)}, \qquad
              s_e = s_0 \left( \frac{s_{end}}{s_0} \right)^{\min(1,\, t / T)}

    N is the number of candidates: those of the batch, or the whole data set. Rank 0 is the largest
    of the latest known losses (counting from 1 gives the same probabilities), so that the largest
    is drawn about :math:`s_e` times as often as the smallest. Samples never seen have an infinite
    loss and come first; equal losses come in random order. The draws are independent, with
    replacement, and the training weights 1/k: biased, as published.

    Parameters
    ----------
    pressure, final_pressure
        The selection pressure at first (:math:`s_0`) and in the end (:math:`s_{end}`), at least 1.
        With 1 the draws are uniform.
    steps
        T, the number of selections over which the pressure decays: epochs times batches per epoch.
        None: it does not decay.
    recompute_every
        The number of selections after which all losses ought to be computed anew, at least 1:
        ``wants_refresh`` is then True until ``refresh`` is called. None: losses come from training
        alone.
    replacement
        Whether the same sample may be drawn twice for one batch. False: the draws are successive
        ones without replacement, better when k is not small beside N.

    Attributes
    ----------
    step
        Selections made so far: t, with which the pressure falls.
    memory
        The latest loss of every sample.

    Raises
    ------
    OptionError
        If a pressure is below 1, or ``steps`` or ``recompute_every`` is no positive integer.

    Notes
    -----
    It reads ids alone, so there is no scoring pass, and it learns from ``observe`` alone. Losses
    are ranked in single precision. Within a batch a selection takes O(n log n). Over a data set
    (``draw``) it takes O(k), and every ``observe`` moves O(N) numbers in memory; the paper sorts
    now and then instead.

    References
    ----------
    Loshchilov & Hutter, Online Batch Selection for Faster Training of Neural Networks, 2015.

    Examples
    --------
    >>> policy = OnlineBatch(pressure=16.0)
    >>> policy.refresh(np.arange(4), np.array([0.1, 2.0, 0.3, 1.0]))
    >>> policy.probabilities(np.arange(4)).round(3)
    array([0.067, 0.533, 0.133, 0.267])
    """

    name: ClassVar[str] = "online-batch"

    def __init__(
        self,
        pressure: float = 100.0,
        final_pressure: float = 1.0,
        steps: int | None = None,
        recompute_every: int | None = None,
        replacement: bool = True,
    ) -> None:
        super().__init__(steps)
        self.pressure = checked_number("pressure", pressure, 1.0)
        self.final_pressure = checked_number("final_pressure", final_pressure, 1.0)
        self.recompute_every = checked_count("recompute_every", recompute_every)
        self.replacement = bool(replacement)
        self._refreshed = 0
        self._salt: int | None = None
        self._order: LossOrder | None = None

    def __repr__(self) -> str:
        return (
            f"OnlineBatch(pressure={self.pressure}, final_pressure={self.final_pressure}, "
            f"steps={self.steps}, recompute_every={self.recompute_every}, "
            f"replacement={self.replacement})"
        )

    @property
    def draws_designs(self) -> bool:
        """Whether its problems are random designs, which take no constraints."""
        return self.replacement

    @property
    def current_pressure(self) -> float:
        """The selection pressure of the next selection."""
        decay: float = (self.final_pressure / self.pressure) ** self._progress
        return self.pressure * decay

    @property
    def wants_refresh(self) -> bool:
        """Whether it is time to compute the losses of all samples anew."""
        if self.recompute_every is None:
            return False
        return self.step - self._refreshed >= self.recompute_every

    def probabilities(self, ids: Array) -> NDArray[np.float64]:
        """Return the probability of every candidate, shape (n,), summing to 1.

        The first selection draws the order of equal losses; before it their order is by the mixed
        bits of the ids.
        """
        candidates = checked_ids(ids)
        keys = rank_keys(self.memory.of(candidates), id_bits(candidates), self._salt or 0)
        probabilities = np.empty(candidates.size)
        probabilities[np.argsort(keys, kind="stable")] = _by_rank(
            candidates.size, self.current_pressure
        )
        return probabilities

    def propose(self, signals: Signals, k: int, rng: np.random.Generator) -> Problem:
        """Return the design of the draw; without replacement, a top-k of random keys."""
        self._draw_salt(rng)
        p = self.probabilities(self._candidates(signals))
        self.step += 1
        if self.replacement:
            return Problem(SamplingDesign(p, replacement=True), k)
        return Problem(TopScores(_random_keys(p, rng)), k)

    def weigh(self, solution: Solution) -> NDArray[np.float64]:
        """Return 1/k for every draw."""
        return _equal(solution.indices.size)

    def refresh(self, ids: Array, losses: Array) -> None:
        """Remember losses that were computed outside training; ``wants_refresh`` is then False."""
        super().refresh(ids, losses)
        self._refreshed = self.step

    def _drawn(
        self, n: int, k: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        self._draw_salt(rng)
        if self._order is None or len(self._order) != n:
            self._order = LossOrder(self.memory.first(n), self._salt or 0)
        draw_ranks = _ranks if self.replacement else _distinct_ranks
        ranks = draw_ranks(n, k, self.current_pressure, rng)
        return self._order.ids(ranks), _equal(k)

    def _own_state(self) -> dict[str, Any]:
        return {"refreshed": self._refreshed, "salt": self._salt}

    def _load_own_state(self, saved: SavedState, step: int) -> None:
        refreshed = saved.integer("refreshed", 0, step)
        self._salt = None if saved["salt"] is None else saved.integer("salt", 0, _SALTS - 1)
        self._refreshed = refreshed
        self._order = None

    def _changed(self, ids: NDArray[Any], losses: NDArray[np.float64]) -> None:
        if self._order is not None:
            known = np.unique(positions_below(len(self._order), ids))
            self._order.update(known, self.memory.of(known))

    def _draw_salt(self, rng: np.random.Generator) -> None:
        """Draw, in the first selection, the number that settles the order of equal losses."""
        if self._salt is None:
            self._salt = int(rng.integers(_SALTS))


def _by_rank(n: int, pressure: float) -> NDArray[np.float64]:
    """Return the probabilities of the ranks 0 to n-1."""
    falling: NDArray[np.float64] = np.exp(np.arange(n) * (-math.log(pressure) / max(n, 1)))
    return falling / falling.sum() if n else falling


def _ranks(n: int, k: int, pressure: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw k ranks with replacement, by inverting the distribution function.

    With ``L = log(pressure)`` it is ``(1 - exp(-L (r + 1) / n)) / (1 - exp(-L))``.
    """
    uniform, log = rng.random(k), math.log(pressure)
    share = uniform if log == 0.0 else -np.log1p(uniform * math.expm1(-log)) / log
    return np.minimum((share * n).astype(np.int64), n - 1)


def _distinct_ranks(n: int, k: int, pressure: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw k ranks one after the other, each among those that are not drawn yet."""
    if _share_below(k / n, pressure) < _RETRY:
        keys = _random_keys(_by_rank(n, pressure), rng)
        return np.argpartition(-keys, k - 1)[:k]
    drawn = np.empty(0, dtype=np.int64)
    while drawn.size < k:
        # To leave out a rank that came before is to draw among those that are not drawn yet.
        drawn = np.concatenate([drawn, _ranks(n, k, pressure, rng)])
        drawn = drawn[np.sort(np.unique(drawn, return_index=True)[1])]
    return drawn[:k]


def _share_below(part: float, pressure: float) -> float:
    """Return the probability of all ranks but the first ones, which are the given part of all."""
    log = math.log(pressure)
    return 1.0 - part if log == 0.0 else 1.0 - math.expm1(-log * part) / math.expm1(-log)


def _random_keys(p: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return random keys; their k largest are k successive draws in proportion to p."""
    keys: NDArray[np.float64] = np.log(p) - np.log(rng.standard_exponential(p.size))
    return keys


def _equal(k: int) -> NDArray[np.float64]:
    return np.full(k, 1.0 / k if k else 0.0)
