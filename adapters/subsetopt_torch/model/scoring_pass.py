"""The scoring pass: a forward that leaves no trace in the model or in any random stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from typing import Literal, TypeAlias, TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from subsetopt.inputs import checked_choice
from subsetopt_torch.model.buffers import buffers_kept, norm_modules

__all__ = ["ScoringMode", "norm_modules", "scoring_pass", "temporarily"]

ScoringMode: TypeAlias = Literal["eval", "train"]

_Value = TypeVar("_Value")


@contextmanager
def scoring_pass(
    model: nn.Module,
    mode: ScoringMode = "eval",
    *,
    update_norm: bool = False,
    devices: Iterable[torch.device] = (),
    loss_fn: object = None,
) -> Iterator[None]:
    """Run forwards that change nothing: no gradients, and everything put back afterwards.

    What is put back, also when the forward raises, is the train or eval mode of every submodule,
    the random streams of the CPU and of the model's devices, and every buffer (BatchNorm's running
    statistics, spectral norm's vectors, what observers of quantization have seen).

    Parameters
    ----------
    model
        The model that will be called.
    mode
        ``"eval"`` puts every submodule into eval mode; ``"train"`` leaves each as it is, so that a
        model in training uses batch statistics and dropout.
    update_norm
        Let normalization layers in training mode use batch statistics and update their running
        statistics, once. Everything else is as ``mode`` says.
    devices
        Devices whose random streams are put back besides those of the model.
    loss_fn
        The loss that will be called. Where it is a module, or a method or a
        ``functools.partial`` of one, its modes and buffers are treated as those of the model. By
        default, and for any other function, nothing is known of it.

    Raises
    ------
    OptionError
        If the mode is unknown.
    """
    checked_choice("scoring_mode", mode, ("eval", "train"), listed=True)
    owners = [model, *_modules_of(loss_fn)]
    modules = list(dict.fromkeys(chain.from_iterable(m.modules() for m in owners)))
    modes = [module.training for module in modules]
    norms = norm_modules(*owners) if update_norm else []
    awake = {id(m) for m in norms if m.training}
    spared = {id(m) for m in norms}
    with ExitStack() as stack:
        _keep_random_streams(stack, model, devices)
        # Weights that autocast casts here would be cached without gradients, and a training
        # forward inside the same autocast region would use them again.
        stack.enter_context(
            temporarily(torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled, False)
        )
        stack.enter_context(torch.no_grad())
        # Modes are set one by one, since a model may override eval() to do more than that.
        stack.callback(_set_modes, modules, modes)
        if mode == "eval":
            _set_modes(modules, [id(module) in awake for module in modules])
        holding = [m for m in modules if m._buffers and id(m) not in spared]
        touched = [m for m in holding if not _is_constant(m)]
        if touched:
            stack.enter_context(buffers_kept(touched))
        yield


@contextmanager
def temporarily(
    read: Callable[[], _Value], write: Callable[[_Value], object], value: _Value
) -> Iterator[None]:
    """Write a setting of the process, and write the former value back on leaving."""
    before = read()
    write(value)
    try:
        yield
    finally:
        write(before)


def _set_modes(modules: list[nn.Module], modes: list[bool]) -> None:
    for module, training in zip(modules, modes, strict=True):
        module.training = training


def _modules_of(function: object) -> Iterator[nn.Module]:
    """Yield the modules that a function is, or is a method or a ``functools.partial`` of."""
    if isinstance(function, nn.Module):
        yield function
    elif isinstance(function, partial):
        for part in (function.func, *function.args, *function.keywords.values()):
            yield from _modules_of(part)
    elif isinstance(owner := getattr(function, "__self__", None), nn.Module):
        yield owner


def _is_constant(module: nn.Module) -> bool:
    """Whether a module changes no buffer: torch's own normalization layers in eval mode."""
    return isinstance(module, _NormBase) and not (
        module.training or type(module).__module__.partition(".")[0] != "torch"
    )


def _keep_random_streams(
    stack: ExitStack, model: nn.Module, devices: Iterable[torch.device]
) -> None:
    """Fork the CPU's random stream and those of all accelerators the forward may draw from."""
    used = {p.device for p in model.parameters()} | {b.device for b in model.buffers()}
    by_type: dict[str, set[int]] = {}
    for device in used | set(devices):
        if device.type in ("cuda", "xpu"):
            index = 0 if device.index is None else device.index
            by_type.setdefault(device.type, set()).add(index)
    stack.enter_context(torch.random.fork_rng(devices=[]))
    for kind, indices in by_type.items():
        stack.enter_context(torch.random.fork_rng(devices=sorted(indices), device_type=kind))
