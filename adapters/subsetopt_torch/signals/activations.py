"""Activations at the end of a model, and gradients with respect to what goes into them.

The bound of a sample's gradient is the norm of the loss's gradient with respect to what the last
layer makes *before* its activation. A model that ends in a softmax, a sigmoid or the like returns
something else, whose gradient may say nothing: that of NLLLoss is -1 for every sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Activation", "elementwise_activation", "has_range", "normalizing_activation"]

# What autograd calls operations that leave the values as they are.
_VIEWS = frozenset(
    {
        "AliasBackward0",
        "CloneBackward0",
        "ReshapeAliasBackward0",
        "SelectBackward0",
        "SliceBackward0",
        "SqueezeBackward0",
        "SqueezeBackward1",
        "ToCopyBackward0",
        "TransposeBackward0",
        "UnsafeViewBackward0",
        "UnsqueezeBackward0",
        "ViewBackward0",
    }
)
# The derivative of each activation, from its value o. BCELoss divides by o (1 - o), but by no less
# than 1e-12; the same bound here makes the product exact for probabilities of 0 and 1.
_SLOPES: dict[str, Callable[[Tensor], Tensor]] = {
    "SigmoidBackward0": lambda o: (o * (1 - o)).clamp_min(1e-12),
    "TanhBackward0": lambda o: 1 - o * o,
    "LogSigmoidBackward0": lambda o: -torch.expm1(o),
    "ReluBackward0": lambda o: (o > 0).to(o.dtype),
}
# How far sums of probabilities are from 1 through rounding, in single and in lower precision.
_ROUNDING, _COARSE = 1e-3, 3e-2


class Activation(NamedTuple):
    """An activation, by the name that autograd has for it, and the dimension that it normalizes."""

    name: str
    dim: int = 0

    def before(self, outputs: Tensor, gradients: Tensor) -> Tensor:
        """Return gradients with respect to what went in, from those with respect to the outputs."""
        values = outputs.detach().to(gradients.dtype)
        if self.name == "log_softmax":
            return gradients - values.exp() * gradients.sum(self.dim, keepdim=True)
        if self.name == "softmax":
            return values * (gradients - (gradients * values).sum(self.dim, keepdim=True))
        return gradients * _SLOPES[self.name](values)


def normalizing_activation(outputs: Tensor) -> Activation | None:
    """Return the softmax or log-softmax that made some outputs, as their values tell; else None.

    Parameters
    ----------
    outputs
        Shape (n, C) or (n, ...), classes in dimension 1 or in the last one, at least two.
    """
    values = outputs.detach()
    values = values if values.dtype.itemsize >= 4 else values.float()
    tolerance = _ROUNDING if outputs.dtype.itemsize >= 4 else _COARSE
    if not values.numel():
        return None
    for dim in dict.fromkeys((1, values.ndim - 1)):
        if values.ndim < 2 or values.shape[dim] < 2:
            continue
        if bool((values.logsumexp(dim).abs() <= tolerance).all()):
            return Activation("log_softmax", dim)
        if bool((values >= 0).all() & ((values.sum(dim) - 1).abs() <= tolerance).all()):
            return Activation("softmax", dim)
    return None


def has_range(outputs: Tensor) -> bool:
    """Return whether some values lie in the range of an activation that works element by element.

    Values that are none of an activation lie on both sides of zero, and some beyond 1.
    """
    low, high = outputs.detach().aminmax()
    return bool((low >= 0) | (high <= 0) | ((low >= -1) & (high <= 1)))


def elementwise_activation(outputs: Tensor) -> Activation | None:
    """Return the activation that made some outputs element by element, as autograd noted; or None.

    Parameters
    ----------
    outputs
        What a model returned while gradients were on.
    """
    for name in _operations(outputs.grad_fn):
        if name not in _VIEWS:
            return Activation(name) if name in _SLOPES else None
    return None


def _operations(node: Any) -> Iterator[str]:
    """Yield the names of the operations behind a tensor, the last one first."""
    while node is not None:
        yield type(node).__name__
        node = node.next_functions[0][0] if node.next_functions else None
