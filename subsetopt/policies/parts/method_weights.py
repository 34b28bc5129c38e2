"""The weights of several methods, learned from how much the loss of each changes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subsetopt.policies.parts.saved_state import SavedState

__all__ = ["MethodWeights"]

# Relative changes of a method's loss are cut down to this number.
_CLIP = 10.0
# A loss below this part of the batch's mean magnitude cannot be told from 0 in float32.
_PRECISION = float(np.finfo(np.float32).eps)
# The weights of a saved state sum to 1 but for this much.
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class MethodWeights:
    r"""What is remembered of the methods from one iteration to the next.

    .. math:: w_t^m \propto w_{t-1}^m \exp \Bigl( \beta\,
              \frac{|l_t^m - l_{t-1}^m|}{l_{t-1}^m} \Bigr)

    Attributes
    ----------
    t
        The number of iterations so far.
    log_weights
        Logarithms of the weights, so that a method that fell far behind can come back.
    losses
        The methods' losses in the last iteration; None before the first.
    floor
        The least divisor in the next iteration, below which no loss of the last batch can be told
        from 0.

    References
    ----------
    Zhang et al., AdaSelection, eq. 3.
    """

    t: int
    log_weights: tuple[float, ...]
    losses: tuple[float, ...] | None = None
    floor: float = 0.0

    @classmethod
    def equal(cls, count: int) -> MethodWeights:
        """Return the state before the first iteration."""
        return cls(0, (-math.log(count),) * count)

    @property
    def weights(self) -> NDArray[np.float64]:
        """The methods' weights, which sum to 1; one that is far behind may round to 0."""
        weights = np.exp(np.array(self.log_weights))
        normalized: NDArray[np.float64] = weights / weights.sum()
        return normalized

    def after(self, losses: tuple[float, ...], magnitude: float, beta: float) -> MethodWeights:
        """Return the state after an iteration.

        Parameters
        ----------
        losses
            The loss of every method in this iteration.
        magnitude
            The mean magnitude of the losses of the batch.
        beta
            The factor in the exponent, from -1 to 1.
        """
        logs = self.log_weights
        if self.losses is not None:
            changes = [
                _relative_change(now, before, self.floor)
                for now, before in zip(losses, self.losses, strict=True)
            ]
            logs = tuple(log + beta * change for log, change in zip(logs, changes, strict=True))
            total = max(logs) + math.log(math.fsum(math.exp(log - max(logs)) for log in logs))
            logs = tuple(log - total for log in logs)
        return MethodWeights(self.t + 1, logs, losses, _PRECISION * magnitude)

    def state_dict(self) -> dict[str, Any]:
        """Return the attributes as numbers and lists."""
        return {
            "t": self.t,
            "log_weights": list(self.log_weights),
            "method_losses": None if self.losses is None else list(self.losses),
            "floor": self.floor,
        }

    @classmethod
    def from_state(cls, saved: SavedState, count: int) -> MethodWeights:
        """Return the weights that ``state_dict`` was taken from, of ``count`` methods.

        Raises
        ------
        OptionError
            If an entry is malformed.
        """
        logs = saved.vector("log_weights", count, high=_ROUNDING)
        if abs(math.fsum(np.exp(logs)) - 1.0) > _ROUNDING:
            raise saved.error("log_weights", "logarithms of weights that sum to 1", logs.tolist())
        losses = saved["method_losses"]
        return cls(
            saved.integer("t"),
            tuple(logs.tolist()),
            None if losses is None else tuple(saved.vector("method_losses", count).tolist()),
            saved.number("floor", 0.0),
        )


def _relative_change(now: float, before: float, floor: float) -> float:
    """Return ``|now - before| / |before|``, at most 10, with a floor under the divisor."""
    change, base = abs(now - before), max(abs(before), floor)
    if change == 0.0:
        return 0.0
    return _CLIP if change >= _CLIP * base else change / base
