"""The scoring pass: a forward that leaves no trace in the model or in any random stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from subsetopt.inputs import checked_choice

__all__ = [
    "ScoringMode",
    "buffers_kept",
    "norm_buffers",
    "norm_modules",
    "scoring_pass",
    "temporarily",
]

ScoringMode: TypeAlias = Literal["eval", "train"]

_Value = TypeVar("_Value")

# Names of the buffers that hold a normalization layer's running statistics.
_RUNNING = ("running_mean", "running_var", "num_batches_tracked")


@contextmanager
def scoring_pass(
    model: nn.Module,
    mode: ScoringMode = "eval",
    *,
    update_norm: bool = False,
    devices: Iterable[torch.device] = (),
) -> Iterator[None]:
    """Run forwards that change nothing: no gradients, and everything put back afterwards.

    What is put back, also when the forward raises, is the train or eval mode of every submodule,
    the random streams of the CPU and of the model's devices, and in train mode every buffer
    (BatchNorm's running statistics, spectral norm's vectors).

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

    Raises
    ------
    OptionError
        If the mode is unknown.
    """
    checked_choice("scoring_mode", mode, ("eval", "train"), listed=True)
    modules = list(model.modules())
    modes = [module.training for module in modules]
    awake = {id(m) for m in norm_modules(model) if m.training} if update_norm else set()
    spared = {id(b) for m in norm_modules(model) for b in norm_buffers(m)} if update_norm else set()
    touched = [b for b in model.buffers() if id(b) not in spared] if mode == "train" else []
    with ExitStack() as stack:
        _keep_random_streams(stack, model, devices)
        stack.enter_context(buffers_kept(touched))
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
        yield


def norm_modules(model: nn.Module) -> list[nn.Module]:
    """Return the modules that keep running statistics."""
    return [m for m in model.modules() if isinstance(getattr(m, "running_mean", None), Tensor)]


def norm_buffers(module: nn.Module) -> list[Tensor]:
    """Return the running statistics of a module."""
    buffers = (getattr(module, name, None) for name in _RUNNING)
    return [buffer for buffer in buffers if isinstance(buffer, Tensor)]


@contextmanager
def buffers_kept(buffers: Iterable[Tensor]) -> Iterator[None]:
    """Put the values of buffers back on leaving; the tensors stay the same objects."""
    saved = [(buffer, buffer.detach().clone()) for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in saved:
                buffer.copy_(value)


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
