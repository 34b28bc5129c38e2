"""Gradients of each sample's loss with respect to a layer's parameters, in closed form.

They follow from what went into the layer and the gradients of the losses with respect to what came
out. A layer that is not listed here has none of its own: see ``layer_calls``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv1d_weight, conv2d_weight, conv3d_weight

__all__ = [
    "CONVOLUTIONS",
    "Gradients",
    "Rule",
    "at_least_single",
    "convolution_squares",
    "lookup_squares",
    "product_squares",
    "rule_of",
    "squared_norms",
]

# Gradients of n samples with respect to a layer's parameters by name, each of shape (n, ...).
Gradients: TypeAlias = dict[str, Tensor]

# Takes a layer, its input, the gradients with respect to its output, the number of samples n, and
# the names of the parameters wanted. The rows of both tensors belong to the samples in order,
# equally many to each.
Rule: TypeAlias = Callable[[Any, Tensor, Tensor, int, frozenset[str]], Gradients]

# A Gram matrix of positions is made in float64, which takes about this many times as long.
_DOUBLE_COST = 4


def rule_of(layer: nn.Module) -> Rule | None:
    """Return the closed form of a layer; None if it has none, or does not compute as its type."""
    rule = _RULES.get(type(layer))
    if rule is None or "forward" in vars(layer):
        return None
    own = {name for name, parameter in layer._parameters.items() if parameter is not None}
    if not own <= {"weight", "bias"} or (own and layer._parameters.get("weight") is None):
        return None  # weights made from other parameters, as by spectral_norm
    return None if getattr(layer, "scale_grad_by_freq", False) else rule


def at_least_single(values: Tensor) -> Tensor:
    """Return values in at least single precision."""
    return values if values.dtype.itemsize >= 4 else values.float()


def squared_norms(gradients: Tensor) -> Tensor:
    """Return the squared norm of every sample's gradient, shape (n,), from a shape (n, ...)."""
    flat = gradients.flatten(1)
    if flat.device.type == "mps" or flat.dtype == torch.float64:
        return flat.square().sum(1)
    norms: Tensor = torch.linalg.vector_norm(flat, dim=1, dtype=torch.float64)
    return norms.square()


def product_squares(inputs: Tensor, outputs: Tensor) -> Tensor | None:
    r"""Return the squared norms of :math:`\sum_t g_t a_t^T`, where it need not be made for that.

    At one position it is :math:`\|g\|^2 \|a\|^2`; at T positions the sum of the products of the
    two Gram matrices, in float64, since their sum may cancel.

    Parameters
    ----------
    inputs
        :math:`a`, shape (n, T, H).
    outputs
        Gradients :math:`g` with respect to the outputs, shape (n, T, C).

    Returns
    -------
    Tensor | None
        Shape (n,). None where the gradients themselves are made faster.
    """
    positions, width, classes = inputs.shape[1], inputs.shape[2], outputs.shape[2]
    if positions == 1:
        return squared_norms(inputs) * squared_norms(outputs)
    if inputs.device.type == "mps" or not _gram_is_cheaper(positions, width, classes):
        return None
    wide_in, wide_out = inputs.double(), outputs.double()
    gram = torch.bmm(wide_in, wide_in.mT) * torch.bmm(wide_out, wide_out.mT)
    return gram.sum((1, 2)).clamp(min=0.0)


def _gram_is_cheaper(positions: int, width: int, classes: int) -> bool:
    return _DOUBLE_COST * positions * (width + classes) <= width * classes


def lookup_squares(tokens: Tensor, outputs: Tensor, rows: int) -> Tensor:
    """Return the squared norms of the gradients of an embedding, without making them.

    Parameters
    ----------
    tokens
        The rows that each sample looked up, shape (n, T), int.
    outputs
        Gradients with respect to what was found there, shape (n, T, H).
    rows
        The number of rows of the embedding.
    """
    n, positions, width = outputs.shape
    samples = torch.arange(n, device=tokens.device).repeat_interleave(positions)
    places, inverse = torch.unique(samples * rows + tokens.flatten(), return_inverse=True)
    sums = outputs.new_zeros(places.shape[0], width)
    sums.index_add_(0, inverse, outputs.reshape(-1, width))
    squares = squared_norms(sums)
    return squares.new_zeros(n).index_add_(0, places // rows, squares)


def _linear(layer: nn.Linear, x: Tensor, g: Tensor, n: int, wanted: frozenset[str]) -> Gradients:
    x, g = x.reshape(n, -1, x.shape[-1]), g.reshape(n, -1, g.shape[-1])
    found = {"weight": torch.bmm(g.mT, x)} if "weight" in wanted else {}
    return found | ({"bias": g.sum(1)} if "bias" in wanted else {})


def _embedding(
    layer: nn.Embedding, x: Tensor, g: Tensor, n: int, wanted: frozenset[str]
) -> Gradients:
    tokens, g = x.reshape(n, -1), without_padding(layer, x, g).reshape(n, -1, g.shape[-1])
    gradients = g.new_zeros(n, *layer.weight.shape)
    samples = torch.arange(n, device=g.device)[:, None].expand_as(tokens)
    gradients.index_put_((samples, tokens), g, accumulate=True)
    return {"weight": gradients}


def without_padding(layer: nn.Embedding, tokens: Tensor, gradients: Tensor) -> Tensor:
    """Return gradients with 0 for the padding token, whose row of an embedding is not trained."""
    if layer.padding_idx is None:
        return gradients
    return gradients.masked_fill((tokens == layer.padding_idx)[..., None], 0.0)


_Convolution: TypeAlias = "nn.Conv1d | nn.Conv2d | nn.Conv3d"
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_WEIGHT_GRADIENTS: dict[type, Callable[..., Tensor]] = {
    nn.Conv1d: conv1d_weight,
    nn.Conv2d: conv2d_weight,
    nn.Conv3d: conv3d_weight,
}


def _convolution(
    layer: _Convolution, x: Tensor, g: Tensor, n: int, wanted: frozenset[str]
) -> Gradients:
    """Take every sample as a group of its own in one convolution of all of them."""
    found: Gradients = {}
    if "weight" in wanted:
        rows, shape = x.shape[0], layer.weight.shape
        x, padding = _padded(layer, x)
        by_row = _WEIGHT_GRADIENTS[type(layer)](
            x.reshape(1, -1, *x.shape[2:]),
            (rows * shape[0], *shape[1:]),
            g.reshape(1, -1, *g.shape[2:]),
            stride=layer.stride,
            padding=padding,
            dilation=layer.dilation,
            groups=rows * layer.groups,
        )
        found["weight"] = by_row.reshape(n, -1, *shape).sum(1)
    if "bias" in wanted:
        found["bias"] = _over_positions(g, n)
    return found


def convolution_squares(layer: _Convolution, x: Tensor, g: Tensor) -> Tensor | None:
    """Return squared norms for a convolution of few positions; None where gradients are cheaper.

    The convolution is a linear layer that is applied to the patch at each position.

    Parameters
    ----------
    layer
        The convolution.
    x
        Its input, shape (n, channels, ...).
    g
        Gradients with respect to its output, shape (n, out channels, ...).
    """
    n, groups, positions = x.shape[0], layer.groups, prod(g.shape[2:])
    classes, width = layer.weight.shape[0] // groups, prod(layer.weight.shape[1:])
    if positions > 1 and not _gram_is_cheaper(positions, width, classes):
        return None
    x, padding = _padded(layer, x)
    if padding:
        x = functional.pad(x, [side for amount in reversed(padding) for side in (amount, amount)])
    geometry = zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)
    for dim, (size, stride, dilation) in enumerate(geometry, start=2):
        x = x.unfold(dim, dilation * (size - 1) + 1, stride)[..., ::dilation]
    dims = len(layer.kernel_size)
    x = x.reshape(n, groups, -1, *x.shape[2:])
    order = (0, 1, *range(3, 3 + dims), 2, *range(3 + dims, 3 + 2 * dims))
    patches = x.permute(order).reshape(n * groups, positions, width)
    outputs = g.reshape(n * groups, classes, positions).mT
    squares = product_squares(patches, outputs)
    return None if squares is None else squares.reshape(n, groups).sum(1)


def _padded(layer: _Convolution, x: Tensor) -> tuple[Tensor, Any]:
    """Return what a convolution reads, and how much it is still to be padded with zeros."""
    if layer.padding_mode == "zeros" and layer.padding != "same":
        return x, 0 if layer.padding == "valid" else layer.padding
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return functional.pad(x, layer._reversed_padding_repeated_twice, mode=mode), 0


def _layer_norm(
    layer: nn.LayerNorm, x: Tensor, g: Tensor, n: int, wanted: frozenset[str]
) -> Gradients:
    normalized = functional.layer_norm(x, layer.normalized_shape, eps=layer.eps)
    return _of_trailing(layer.normalized_shape, normalized, g, n, wanted)


def _rms_norm(layer: Any, x: Tensor, g: Tensor, n: int, wanted: frozenset[str]) -> Gradients:
    normalized = functional.rms_norm(x, list(layer.normalized_shape), eps=layer.eps)
    return _of_trailing(layer.normalized_shape, normalized, g, n, wanted)


def _of_trailing(
    shape: Sequence[int], normalized: Tensor, g: Tensor, n: int, wanted: frozenset[str]
) -> Gradients:
    """Return gradients of a scale and a shift of the last dimensions."""
    parts = {"weight": g * normalized, "bias": g}
    return {
        name: parts[name].reshape(n, -1, prod(shape)).sum(1).reshape(n, *shape) for name in wanted
    }


def _group_norm(
    layer: nn.GroupNorm, x: Tensor, g: Tensor, n: int, wanted: frozenset[str]
) -> Gradients:
    return _of_channels(functional.group_norm(x, layer.num_groups, eps=layer.eps), g, n, wanted)


def _batch_norm(layer: Any, x: Tensor, g: Tensor, n: int, wanted: frozenset[str]) -> Gradients:
    """Use the running statistics, as in eval mode."""
    statistics = (layer.running_mean.to(x.dtype), layer.running_var.to(x.dtype))
    normalized = functional.batch_norm(x, *statistics, eps=layer.eps)
    return _of_channels(normalized, g, n, wanted)


def _instance_norm(layer: Any, x: Tensor, g: Tensor, n: int, wanted: frozenset[str]) -> Gradients:
    running = layer.track_running_stats and not layer.training
    mean, variance = (
        (layer.running_mean.to(x.dtype), layer.running_var.to(x.dtype)) if running else (None, None)
    )
    normalized = functional.instance_norm(
        x, mean, variance, use_input_stats=not running, eps=layer.eps
    )
    return _of_channels(normalized, g, n, wanted)


def _of_channels(normalized: Tensor, g: Tensor, n: int, wanted: frozenset[str]) -> Gradients:
    """Return gradients of a scale and a shift of the channels, dimension 1."""
    parts = {"weight": g * normalized, "bias": g}
    return {name: _over_positions(parts[name], n) for name in wanted}


def _over_positions(values: Tensor, n: int) -> Tensor:
    """Return the sums over all positions, shape (n, C), from rows of shape (C, ...)."""
    return values.reshape(n, -1, *values.shape[1:]).transpose(1, 2).flatten(2).sum(2)


_RULES: dict[type, Rule] = {
    nn.Linear: _linear,
    nn.Embedding: _embedding,
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), _convolution),
    **dict.fromkeys(
        (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm), _batch_norm
    ),
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), _instance_norm),
}
if hasattr(nn, "RMSNorm"):
    _RULES[nn.RMSNorm] = _rms_norm
