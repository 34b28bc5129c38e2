"""Between the device and the host: one transfer in each direction."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from subsetopt import ProblemError
from subsetopt.policies import to_host
from subsetopt.policies.arrays import Array
from subsetopt_torch.arguments import Constraints, Signal

__all__ = [
    "Both",
    "cleared",
    "constraints_to_host",
    "ordinary_tensors",
    "policy_signals",
    "to_device",
]


class Both(NamedTuple):
    """A vector on the host, and the tensor that it was copied from."""

    host: NDArray[Any]
    device: Tensor


def ordinary_tensors() -> AbstractContextManager[object]:
    """Make tensors that a loss with gradients may use, also within ``torch.inference_mode``."""
    return torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()


def to_device(
    indices: NDArray[np.int64],
    weights: NDArray[np.float64],
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Return indices and weights on a device, packed into one transfer.

    The float64 bits of the weights travel as the second row of an int64 array.
    """
    packed = np.empty((2, indices.size), dtype=np.int64)
    packed[0] = indices
    packed[1] = weights.view(np.int64)
    with ordinary_tensors():
        if device.type == "mps":  # no float64 there to read the bits as
            return (
                torch.from_numpy(packed[0]).to(device),
                torch.from_numpy(weights.astype(np.float32)).to(device, dtype),
            )
        moved = torch.from_numpy(packed).to(device)
        return moved[0], moved[1].view(torch.float64).to(dtype)


def policy_signals(
    signals: Mapping[str, Signal | Both],
    names: frozenset[str],
    n: int,
    device: torch.device,
) -> dict[str, Array]:
    """Return the named signals, all as NumPy vectors or all as tensors on the device.

    Where all are vectors, they go to the host. Where one of them has more dimensions (logits), all
    are put on the device, and the policy brings its own scores to the host: n numbers instead of
    n x classes. Strings and bytes (ids) are NumPy vectors in either case.

    Parameters
    ----------
    signals
        What is known, by name.
    names
        Names of the signals to return.
    n
        The number of candidates, and of rows that each signal must have.
    device
        The device of the losses.

    Raises
    ------
    ProblemError
        If a signal does not have one row per candidate.
    """
    taken = {name: signals[name] for name in sorted(names)}
    shapes = {name: _shape(value) for name, value in taken.items()}
    for name, shape in shapes.items():
        if not shape or shape[0] != n:
            raise ProblemError(
                f"the signal {name!r} has shape {shape} for {n} candidates; pass one row each."
            )
    if all(len(shape) == 1 for shape in shapes.values()):
        return {
            name: value.host if isinstance(value, Both) else to_host(value)
            for name, value in taken.items()
        }
    return {
        name: value if _is_text(value) else _on_device(value, device)
        for name, value in taken.items()
    }


def _is_text(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "OSU"


def _on_device(value: Any, device: torch.device) -> Tensor:
    tensor = torch.as_tensor(value.device if isinstance(value, Both) else value)
    return tensor.detach().to(device)


def _shape(value: Any) -> tuple[int, ...]:
    if isinstance(value, Both):
        return value.host.shape
    return tuple(value.shape) if isinstance(value, Tensor) else np.shape(value)


def cleared(signal: Array, rows: NDArray[np.int64]) -> Array:
    """Return a NumPy or torch signal with zeros in the given rows; the signal is not changed."""
    if not rows.size:
        return signal
    if isinstance(signal, Tensor):
        return signal.index_fill(0, torch.from_numpy(rows).to(signal.device), 0)
    copied = signal.copy()
    copied[rows] = 0
    return copied


def constraints_to_host(constraints: Constraints | None) -> dict[str, object]:
    """Return constraints with every tensor as a NumPy array; None entries are dropped."""
    return {
        name: to_host(value) if isinstance(value, Tensor) else value
        for name, value in (constraints or {}).items()
        if value is not None
    }
