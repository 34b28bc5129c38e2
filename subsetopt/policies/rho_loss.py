"""RHO-LOSS: what can still be learned of a sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from subsetopt.errors import OptionError, ProblemError
from subsetopt.policies.arrays import Array, as_float64, from_host, to_host
from subsetopt.policies.base import Signals, signal
from subsetopt.policies.scored import ScoredPolicy

__all__ = ["RhoLoss"]


@dataclass(frozen=True, eq=False)
class RhoLoss(ScoredPolicy):
    r"""Choose the k samples with the largest reducible holdout loss.

    .. math:: s_i = l_i - l^{\text{irreducible}}_i

    The irreducible loss is that of a small model trained on held-out data. A noisy sample is hard
    for both models and is left alone; so is a sample that is learned already.

    Parameters
    ----------
    irreducible
        The irreducible losses of the training data: an array (N,) indexed by sample id, a mapping
        from sample id to loss, or the path of a ``.npy`` file of such an array.
        ``subsetopt_torch.irreducible_losses`` makes the array. NaN stands for a loss not known.

    Raises
    ------
    OptionError
        If no irreducible losses are given, or they are malformed.

    References
    ----------
    Mindermann et al., Prioritized Training on Points that are Learnable, Worth Learning, and Not
    Yet Learnt, ICML 2022, eq. 3.

    Examples
    --------
    >>> import numpy as np, subsetopt as so
    >>> policy = RhoLoss([0.1, 2.9, 0.1])
    >>> signals = {"losses": np.array([3.0, 0.5]), "ids": np.array([1, 2])}
    >>> policy.scores(signals, 1, np.random.default_rng(0))
    array([0.1, 0.4])
    """

    requires: ClassVar[frozenset[str]] = frozenset({"losses", "ids"})

    irreducible: ArrayLike | Mapping[Any, float] | str | Path | None = field(
        default=None, repr=False
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "irreducible", _table(self.irreducible))

    def scores(self, signals: Signals, k: int, rng: np.random.Generator) -> Array:
        """Return the reducible losses.

        Raises
        ------
        ProblemError
            If the irreducible loss of an id is not known; the message names it.
        """
        losses = as_float64(signal(signals, "losses", "rho-loss"))
        ids = to_host(signal(signals, "ids", "rho-loss"))
        return losses - from_host(self._look_up(ids), losses)

    def _look_up(self, ids: NDArray[Any]) -> NDArray[np.float64]:
        if ids.ndim != 1:
            raise ProblemError(f"ids must have shape (n,), got {ids.shape}; pass one per sample.")
        if isinstance(self.irreducible, dict):
            keys = ids.tolist()
            losses = np.array([self.irreducible.get(key, np.nan) for key in keys], dtype=np.float64)
            known = f"a mapping of {len(self.irreducible)} ids"
        else:
            table = cast("NDArray[np.float64]", self.irreducible)
            if ids.dtype.kind not in "iu":
                raise ProblemError(
                    f"ids must be integers to index the irreducible losses, got dtype {ids.dtype}; "
                    "for other ids pass a mapping."
                )
            inside = (ids >= 0) & (ids < table.size)
            losses = np.full(ids.size, np.nan)
            losses[inside] = table[ids[inside]]
            known = f"an array of {table.size} losses, ids 0 to {table.size - 1}"
        if np.isnan(losses).any():
            at = int(np.isnan(losses).argmax())
            raise ProblemError(
                f"rho-loss knows no irreducible loss of id {ids[at].item()!r} (position {at}): it "
                f"has {known}. Pass ids= in the numbering of the data that the irreducible losses "
                "were computed on."
            )
        return losses


def _table(irreducible: object) -> dict[Any, float] | NDArray[np.float64]:
    """Return a copy of the irreducible losses: an array indexed by id, or a mapping from ids."""
    if irreducible is None:
        raise OptionError(
            "rho-loss needs the irreducible losses of the training data: pass irreducible= an "
            "array indexed by sample id, a mapping, or the path of a .npy file. "
            "subsetopt_torch.irreducible_losses computes them."
        )
    if isinstance(irreducible, Mapping):
        return {key: _number(key, value) for key, value in irreducible.items()}
    if isinstance(irreducible, (str, Path)):
        irreducible = _loaded(Path(irreducible))
    array = to_host(irreducible)
    if array.ndim != 1 or array.dtype.kind not in "fiu":
        raise OptionError(
            "irreducible must be a vector of real numbers indexed by sample id, got shape "
            f"{array.shape} and dtype {array.dtype}."
        )
    return array.astype(np.float64)


def _number(key: object, value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise OptionError(
            f"the irreducible loss of id {key!r} must be a number, got {value!r}."
        ) from None


def _loaded(path: Path) -> NDArray[Any]:
    try:
        return cast("NDArray[Any]", np.load(path, allow_pickle=False))
    except (OSError, ValueError) as error:
        raise OptionError(
            f"irreducible losses cannot be read from {path} ({error}); pass the path of an array "
            "saved by numpy.save."
        ) from None
