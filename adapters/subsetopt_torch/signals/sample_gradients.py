"""The exact gradient norm of every sample."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from subsetopt import OptionError, ProblemError
from subsetopt_torch.model.batches import batch_size, call_model, map_rows, per_sample
from subsetopt_torch.model.losses import LossFunction, check_per_sample
from subsetopt_torch.model.scoring_pass import ScoringMode, norm_modules, scoring_pass

__all__ = ["gradient_norms"]

# Bytes of per-sample gradients that are held at a time, by device type and for all other types.
# A CPU makes them fastest while they stay in its cache.
_CHUNK_BYTES = {"cpu": 2**23}
_OTHER_CHUNK_BYTES = 2**28
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def gradient_norms(
    model: nn.Module,
    loss_fn: LossFunction,
    inputs: object,
    targets: object,
    *,
    mode: ScoringMode = "eval",
    chunk: int | None = None,
) -> Tensor:
    r"""Return ``||d loss_i / d theta||_2`` over all parameters that are trained, for each sample.

    Parameters
    ----------
    model
        Called as :class:`SelectiveStep` calls it, and left as it was.
    loss_fn
        ``loss_fn(outputs, targets)``, one loss per sample, shape (n,).
    inputs, targets
        A batch of tensors, or tuples, lists and dicts of them, samples along dimension 0.
    mode
        ``"eval"`` (the default) or ``"train"``, as for :func:`scoring_pass`.
    chunk
        Number of samples at a time, at least 1. None takes as many as have 8 MiB of gradients
        together on a CPU, and 256 MiB on other devices.

    Returns
    -------
    Tensor
        Shape (n,), detached, at least float32.

    Raises
    ------
    ProblemError
        If the loss is not per sample, no parameter is trained, a list of n entries is no tensor,
        or a normalization layer mixes the samples of a batch: there is then no gradient of one
        sample alone.
    OptionError
        If ``chunk`` is less than 1.

    Notes
    -----
    ``torch.func`` does it in one vectorized pass: a forward and a backward per sample, and the
    memory of ``chunk`` gradients. The forward must be one that ``torch.func.vmap`` takes: no
    ``.item()``, no branch on values. Within autocast it runs in the parameters' own precision.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> inputs = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    >>> gradient_norms(model, lambda outputs, targets: outputs[:, 0], inputs, None)
    tensor([5., 0.])
    """
    if chunk is not None and chunk < 1:
        raise OptionError(f"chunk must be at least 1 or None, got {chunk!r}.")
    model = _unwrapped(model)
    trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    if not trained:
        raise ProblemError(
            "no parameter of the model is trained (requires_grad), so that gradients have no norm."
        )
    n = batch_size(targets, inputs)
    batch = (inputs, targets)
    has_rows = per_sample(batch, n)
    tensors: list[Tensor] = []
    map_rows(lambda leaf: tensors.append(_detached(leaf)), has_rows, batch)

    def loss_of(parameters: dict[str, Tensor], *rows: Tensor) -> Tensor:
        leaves = iter(rows)
        x, y = map_rows(lambda leaf: next(leaves).unsqueeze(0), has_rows, batch)
        outputs = call_model(lambda *a, **k: functional_call(model, parameters, a, k), x)
        return check_per_sample(loss_fn(outputs, y), 1)[0]

    def squares_of(*rows: Tensor) -> Tensor:
        gradients = grad(loss_of)(trained, *rows).values()
        return torch.stack([_wide(g).square().sum() for g in gradients]).sum()

    first = next(iter(trained.values()))
    kind = first.device.type
    if torch.is_autocast_enabled(kind):
        tensors = [_as_wide_as(first, tensor) for tensor in tensors]
    with scoring_pass(model, mode, devices=(first.device,)), torch.autocast(kind, enabled=False):
        _refuse_mixing(model)
        if n == 0:
            return _wide(first.new_empty(0))
        chunk = chunk or _chunk(trained, kind)
        vectorized = vmap(squares_of, randomness="different", chunk_size=chunk)
        squares: Tensor = vectorized(*tensors)
        return squares.sqrt()


def _wide(values: Tensor) -> Tensor:
    """Return values in at least single precision."""
    return values if values.dtype.itemsize >= 4 else values.float()


def _as_wide_as(parameter: Tensor, values: Tensor) -> Tensor:
    """Return values in the dtype of a parameter where theirs is narrower, as under autocast."""
    narrow = values.is_floating_point() and values.dtype.itemsize < parameter.dtype.itemsize
    return values.to(parameter.dtype) if narrow else values


def _chunk(trained: dict[str, Tensor], kind: str) -> int:
    """Return how many samples' gradients are held at a time on a type of device."""
    each = sum(p.numel() * p.itemsize for p in trained.values())
    return max(1, _CHUNK_BYTES.get(kind, _OTHER_CHUNK_BYTES) // max(1, each))


def _unwrapped(model: nn.Module) -> nn.Module:
    """Return the module within ``torch.compile`` and ``DistributedDataParallel``."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        return _unwrapped(model.module)
    inner = getattr(model, "_orig_mod", None)
    return _unwrapped(inner) if isinstance(inner, nn.Module) else model


def _refuse_mixing(model: nn.Module) -> None:
    """Raise if a layer mixes the samples of a batch."""
    running = {id(module) for module in norm_modules(model)}
    for name, module in model.named_modules():
        if id(module) in running and module.training:
            raise ProblemError(
                f"the layer {name!r} ({type(module).__name__}) is in training mode and mixes the "
                "samples of a batch, so that there is no gradient of one sample alone. Score in "
                "eval mode: mode='eval', in a SelectiveStep scoring_mode='eval'."
            )
        if isinstance(module, _BATCH_NORMS) and id(module) not in running:
            raise ProblemError(
                f"the layer {name!r} ({type(module).__name__}) keeps no running statistics and "
                "mixes the samples of a batch in every mode, so that there is no gradient of one "
                "sample alone. Use GroupNorm or LayerNorm, or the signal 'upper_bound'."
            )


def _detached(leaf: object) -> Tensor:
    """Return a tensor with one row per sample, without its gradient.

    Raises
    ------
    ProblemError
        If it is no tensor.
    """
    if not isinstance(leaf, Tensor):
        raise ProblemError(
            f"gradient norms are computed from tensors alone, but the batch holds a "
            f"{type(leaf).__name__} with one entry per sample."
        )
    return leaf.detach()
