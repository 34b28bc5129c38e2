"""The exact gradient norm of every sample."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from subsetopt import OptionError, ProblemError, SubsetOptError
from subsetopt_torch.model.batches import (
    Rows,
    batch_size,
    call_model,
    map_entries,
    map_rows,
    take_rows,
    tensors_of,
)
from subsetopt_torch.model.known_rows import KnownRows
from subsetopt_torch.model.losses import LossFunction, check_per_sample
from subsetopt_torch.model.scoring_pass import ScoringMode, norm_modules, scoring_pass
from subsetopt_torch.signals.layer_calls import (
    UnclearRowsError,
    chunk_bytes,
    parameters_replaced,
    recorded_calls,
    squares_of_calls,
)
from subsetopt_torch.signals.layer_gradients import at_least_single, squared_norms

__all__ = ["gradient_norms", "norms_of_rows"]

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_WRAPPERS = (nn.parallel.DistributedDataParallel, nn.DataParallel)

# How many samples a fast way is checked on against single backward passes.
_CHECKED = 3
# The part of a norm by which the check lets two ways differ: rounding, as that of TF32 and of
# half types, is less, and samples that are taken for one another differ by more.
_AGREEMENT = 0.02
_HALF_AGREEMENT = 0.2
# The most losses per model for which it is remembered which way was right.
_REMEMBERED = 8


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
        Number of samples in a forward, at least 1. None (the default) takes all of them at once.

    Returns
    -------
    Tensor
        Shape (n,), detached, at least float32.

    Raises
    ------
    ProblemError
        If the loss is not per sample, no parameter is trained, a normalization layer mixes the
        samples of a batch, or the parameters are sharded: there is then no gradient of one sample
        alone on this process. Also if the model fails on a single sample, or if it cannot be told
        which parts of the batch have one row per sample.
    OptionError
        If ``chunk`` is less than 1.

    Warns
    -----
    UserWarning
        Once per model, if only a backward pass for each sample gives its gradients.

    Notes
    -----
    One forward and one backward pass, which stops at the outputs of the layers. The norms follow
    from these gradients and the layers' inputs in closed form for linear, convolution, embedding
    and normalization layers; any other layer with parameters of its own gets a backward pass of its
    own for each sample, vectorized where ``torch.func.vmap`` takes it. What several layers share
    is added up before the norm is taken.

    That a row of a layer's input belongs to one sample is not taken on trust: at the first batch,
    and again at the second, fourth, eighth and so on, the norms of three samples are compared with
    those of single backward passes. Where they differ, the whole model is vectorized by
    ``torch.func.vmap``, or else gets one backward pass per sample.

    Within autocast it all runs in the parameters' own precision.

    References
    ----------
    Goodfellow, Efficient Per-Example Gradient Computations, 2015. Li, Tramer, Liang & Hashimoto,
    Large Language Models Can Be Strong Differentially Private Learners, ICLR 2022.

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
    n, known = batch_size(targets, inputs), _known_rows.setdefault(model, KnownRows())
    rows = known.of(inputs, targets, n)
    return norms_of_rows(
        model, loss_fn, inputs, targets, rows, mode=mode, chunk=chunk, look=known.confirm
    )


def norms_of_rows(
    model: nn.Module,
    loss_fn: LossFunction,
    inputs: object,
    targets: object,
    rows: Sequence[Rows],
    *,
    mode: ScoringMode = "eval",
    chunk: int | None = None,
    look: Callable[[object, int], None] | None = None,
) -> Tensor:
    """Return what :func:`gradient_norms` does, where it is known which parts have rows.

    Parameters
    ----------
    model, loss_fn, inputs, targets, mode, chunk
        As there.
    rows
        Which parts of inputs and targets have one row per sample, as ``per_sample`` says.
    look
        Called with the outputs of each forward and their number of samples; None for nothing.

    Raises
    ------
    ProblemError
        As there.
    """
    model = _unwrapped(model)
    modules = list(model.modules())
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise ProblemError(
            "no parameter of the model is trained (requires_grad), so that gradients have no norm."
        )
    _refuse_shards(modules, trained)
    n, first = batch_size(targets, inputs), trained[0]
    kind = first.device.type
    narrow = first if torch.is_autocast_enabled(kind) else None
    batch = _detached((inputs, targets), narrow)
    work = _Work(model, loss_fn, trained, batch, list(rows), n, look)
    with ExitStack() as stack:
        stack.enter_context(scoring_pass(model, mode, devices=(first.device,)))
        stack.enter_context(torch.autocast(kind, enabled=False))
        if any(isinstance(module, nn.RNNBase) for module in modules):
            # The backward pass of cuDNN's recurrent layers needs training mode.
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        if any(isinstance(module, _BATCH_NORMS) for module in modules) or norm_modules(model):
            _refuse_mixing(model)
        if n == 0:
            return at_least_single(first.new_empty(0))
        choice = _choice(work) if n > _CHECKED else _Choice(_reference(loss_fn), ())
        size = min(n, chunk or n)
        parts = [
            _squares(work.samples(range(at, min(at + size, n))), choice) for at in range(0, n, size)
        ]
        dtype = at_least_single(first).dtype
        return torch.cat(parts, 1).sum(0).sqrt().to(dtype)


@dataclass(frozen=True, slots=True)
class _Work:
    """A batch whose gradients are wanted.

    Attributes
    ----------
    model, loss_fn
        The model and its loss.
    trained
        The parameters that gradients are taken with respect to.
    batch
        Inputs and targets.
    rows
        Which parts of inputs and targets have rows, as :func:`per_sample` says.
    n
        The number of samples.
    look
        Called with the outputs of each forward, and their number of samples.
    """

    model: nn.Module
    loss_fn: LossFunction
    trained: list[nn.Parameter]
    batch: tuple[Any, Any]
    rows: list[Rows]
    n: int
    look: Callable[[object, int], None] | None

    def samples(self, positions: range) -> _Work:
        """Return the work for some of the samples."""
        if positions == range(self.n):
            return self
        batch = take_rows(self.batch, torch.tensor(positions), self.rows)
        return replace(self, batch=tuple(batch), n=len(positions))

    def losses(self) -> Tensor:
        """Return the losses of the samples."""
        inputs, targets = self.batch
        outputs = call_model(self.model, inputs, self.rows[0])
        if self.look is not None:
            self.look(outputs, self.n)
        return check_per_sample(self.loss_fn(outputs, targets), self.n)


@dataclass(slots=True)
class _Choice:
    """How the gradients of a model and a loss are made, and what is known of that.

    Attributes
    ----------
    loss_fn
        The loss, by a weak reference.
    build
        What the batch and the trained parameters look like.
    batches
        The number of batches so far.
    at
        The place of the way in ``_WAYS``.
    layout
        Which rows belong to samples in the layers' calls, as it was when that was checked.
    reasons
        Why other ways were given up.
    """

    loss_fn: weakref.ReferenceType[Any]
    build: tuple[Any, ...]
    batches: int = 0
    at: int = 0
    layout: list[Rows] | None = None
    reasons: list[str] = field(default_factory=list)


# Returns the squared norms of the samples' gradients by parameter, shape (parameters, n).
_Way: TypeAlias = Callable[[_Work, _Choice], Tensor]

# What is known of the batches that users have passed, by model.
_known_rows: weakref.WeakKeyDictionary[nn.Module, KnownRows] = weakref.WeakKeyDictionary()
_choices: weakref.WeakKeyDictionary[nn.Module, list[_Choice]] = weakref.WeakKeyDictionary()
_slow: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def _choice(work: _Work) -> _Choice:
    """Return the choice for a model and a loss; it is checked at batches 1, 2, 4, 8 and so on."""
    leaves = tensors_of(work.batch)
    build = (
        tuple((leaf.dtype, leaf.shape[1:]) for leaf in leaves),
        tuple(map(id, work.trained)),
    )
    known = _choices.setdefault(work.model, [])
    for choice in known:
        if choice.loss_fn() is work.loss_fn and choice.build == build:
            break
    else:
        choice = _Choice(_reference(work.loss_fn), build)
        known.append(choice)
        del known[:-_REMEMBERED]
    choice.batches += 1
    if choice.batches & (choice.batches - 1) == 0:
        _check(work, choice)
    return choice


def _check(work: _Work, choice: _Choice) -> None:
    """Choose the first way whose norms of some samples are those of single backward passes."""
    step = max(1, (work.n - 1) // (_CHECKED - 1))
    some = work.samples(range(0, step * (_CHECKED - 1) + 1, step))
    with scoring_pass(work.model, "eval"):
        expected = _tried(_by_samples, some, choice).sqrt()
        choice.reasons = []
        for choice.at, way in enumerate(_WAYS[:-1]):
            choice.layout = None
            try:
                if _agree(_tried(way, some, choice).sqrt(), expected, work.trained):
                    return
                choice.reasons.append("norms that are not those of single samples")
            except _FailedError as error:
                choice.reasons.append(str(error))
    choice.at = len(_WAYS) - 1


def _agree(found: Tensor, expected: Tensor, trained: list[nn.Parameter]) -> bool:
    """Return whether norms by parameter and sample are the same but for rounding."""
    good = expected.isfinite().all(0)
    found, expected = found[:, good].to(expected.dtype), expected[:, good]
    half = min(p.dtype.itemsize for p in trained) < 4
    relative = _HALF_AGREEMENT if half else _AGREEMENT
    slack = relative * (expected + 0.01 * expected.square().sum(0).sqrt())
    return bool(((found - expected).abs() <= slack).all())


class _FailedError(Exception):
    """A way did not work; the message says why."""


def _tried(way: _Way, work: _Work, choice: _Choice) -> Tensor:
    """Return what a way gives.

    Raises
    ------
    _FailedError
        If anything but the user's misuse or the memory is in its way.
    """
    try:
        return way(work, choice)
    except (SubsetOptError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        if way is _by_samples:
            raise ProblemError(
                f"{type(work.model).__name__} fails on a single sample ({reason[:200]}), so that "
                "there is no gradient of one sample alone. Use the policy 'upper-bound', which "
                "needs the gradients with respect to the model's outputs only."
            ) from error
        raise _FailedError(reason[:200]) from error


def _squares(work: _Work, choice: _Choice) -> Tensor:
    """Return squared norms by parameter and sample, the chosen way or the first after it."""
    if work.n <= _CHECKED:
        return _tried(_by_samples, work, choice)
    while True:
        way = _WAYS[choice.at]
        if way is _by_samples and work.model not in _slow:
            _slow.add(work.model)
            warnings.warn(
                f"the gradient norms of {type(work.model).__name__} take a backward pass for each "
                f"sample, since neither its layers nor torch.func.vmap give them "
                f"({'; '.join(choice.reasons)}). The policy 'upper-bound' costs far less.",
                stacklevel=4,
            )
        try:
            return _tried(way, work, choice)
        except _FailedError as error:
            choice.reasons.append(str(error))
            choice.at += 1


def _by_layers(work: _Work, choice: _Choice) -> Tensor:
    """Make one forward and one backward pass down to the layers' outputs."""
    with torch.enable_grad():
        with recorded_calls(work.model, work.n) as calls:
            losses = work.losses()
        edges = [edge for call in calls for edge in call.edges]
        known = edges and losses.requires_grad
        found = torch.autograd.grad(losses.sum(), edges, allow_unused=True) if known else ()
    gradients = iter(found)
    for call in calls if known else ():
        call.receive([next(gradients) for _ in call.edges])
    used = [call for call in calls if call.gradients]
    layout = [call.rows(work.n) for call in used]
    if choice.layout is None:
        choice.layout = layout
    elif choice.layout != layout:
        raise UnclearRowsError(
            "the layers' inputs have other rows than in the batch that was checked"
        )
    return squares_of_calls(used, work.trained, work.n)


def _by_vmap(work: _Work, choice: _Choice) -> Tensor:
    """Make one vectorized pass of all samples, each with parameters of its own."""
    leaves: list[Tensor] = []
    map_rows(leaves.append, work.rows, work.batch)
    parameters = {id(p): p.detach() for p in work.trained}

    def loss_of(values: dict[int, Tensor], *rows: Tensor) -> Tensor:
        left = iter(rows)
        x, y = map_rows(lambda leaf: next(left).unsqueeze(0), work.rows, work.batch)
        with parameters_replaced(work.model, values):
            outputs = call_model(work.model, x, work.rows[0])
        return check_per_sample(work.loss_fn(outputs, y), 1)[0]

    def squares_of(*rows: Tensor) -> Tensor:
        gradients = grad(loss_of)(parameters, *rows)
        return torch.stack([at_least_single(gradients[id(p)]).square().sum() for p in work.trained])

    each = sum(p.numel() * p.itemsize for p in work.trained)
    chunk = max(1, chunk_bytes(work.trained[0].device) // max(1, each))
    vectorized = vmap(squares_of, out_dims=1, randomness="different", chunk_size=chunk)
    with sdpa_kernel(SDPBackend.MATH):  # the attention of other backends is not vectorized
        squares: Tensor = vectorized(*leaves)
    return squares


def _by_samples(work: _Work, choice: _Choice) -> Tensor:
    """Make one forward and one backward pass for each sample."""
    columns = []
    for i in range(work.n):
        with torch.enable_grad():
            loss = work.samples(range(i, i + 1)).losses()[0]
            found = (
                torch.autograd.grad(loss, work.trained, materialize_grads=True, allow_unused=True)
                if loss.requires_grad
                else [torch.zeros_like(p) for p in work.trained]
            )
        columns.append(torch.stack([squared_norms(at_least_single(g)[None])[0] for g in found]))
    return torch.stack(columns, 1)


_WAYS: tuple[_Way, ...] = (_by_layers, _by_vmap, _by_samples)


def _reference(loss_fn: LossFunction) -> weakref.ReferenceType[Any]:
    """Return a weak reference to a loss; to nothing, where there can be none."""
    try:
        return weakref.ref(loss_fn)
    except TypeError:
        return weakref.ref(_Nothing())


class _Nothing:
    """Something that is gone at once."""


def _detached(part: Any, narrow: Tensor | None) -> Any:
    """Return a batch whose tensors have no gradients, at least as wide as ``narrow`` if given."""
    if not isinstance(part, Tensor):
        return map_entries(lambda entry: _detached(entry, narrow), part)
    values = part.detach()
    if narrow is None or not values.is_floating_point():
        return values
    return values.to(narrow.dtype) if values.dtype.itemsize < narrow.dtype.itemsize else values


def _unwrapped(model: nn.Module) -> nn.Module:
    """Return the module within ``torch.compile``, ``DistributedDataParallel``, ``DataParallel``."""
    inner = model.module if isinstance(model, _WRAPPERS) else getattr(model, "_orig_mod", None)
    return _unwrapped(inner) if isinstance(inner, nn.Module) else model


def _refuse_shards(modules: list[nn.Module], trained: list[nn.Parameter]) -> None:
    """Raise if a process has a part of each parameter only."""
    names = {type(module).__name__ for module in modules}
    if "FullyShardedDataParallel" in names or any(hasattr(p, "device_mesh") for p in trained):
        raise ProblemError(
            "the parameters of this model are sharded over processes (FSDP, DTensor), so that no "
            "process has the gradient of a sample. Use the policy 'upper-bound', which needs the "
            "gradients with respect to the model's outputs only."
        )


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
