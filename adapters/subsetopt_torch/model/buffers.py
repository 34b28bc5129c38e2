"""The buffers of modules: which they are, and putting them back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

__all__ = ["Snapshot", "buffers_kept", "norm_modules"]


class Snapshot:
    """The buffers of some modules, as they are when it is made.

    A buffer gets its value back, and stays the same tensor, whether a forward wrote into it,
    resized it or put another tensor in its place. Lazy buffers, which have no value yet, and
    expanded ones, which cannot be written to, are left out.

    Parameters
    ----------
    modules
        The modules whose own buffers are kept, those of their children not included.
    """

    __slots__ = ("_entries",)

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        # A buffer that stands in several places is copied once.
        copies: dict[int, Tensor] = {}
        self._entries: list[tuple[nn.Module, str, Tensor, Tensor]] = []
        for module in modules:
            for name, buffer in module._buffers.items():
                if buffer is not None and _is_plain(buffer):
                    if id(buffer) not in copies:
                        copies[id(buffer)] = buffer.detach().clone()
                    self._entries.append((module, name, buffer, copies[id(buffer)]))

    def put_back(self) -> None:
        """Give every buffer the value that it had."""
        with torch.no_grad():
            for module, name, buffer, value in self._entries:
                if buffer.shape != value.shape:
                    buffer.resize_(value.shape)
                buffer.copy_(value)
                module._buffers[name] = buffer


@contextmanager
def buffers_kept(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Put the buffers of modules back on leaving, as :class:`Snapshot` does."""
    before = Snapshot(modules)
    try:
        yield
    finally:
        before.put_back()


def norm_modules(*owners: nn.Module) -> list[nn.Module]:
    """Return the modules within some modules that keep running statistics."""
    modules = dict.fromkeys(chain.from_iterable(owner.modules() for owner in owners))
    return [m for m in modules if isinstance(getattr(m, "running_mean", None), Tensor)]


def _is_plain(buffer: Tensor) -> bool:
    """Whether a buffer has a value that can be written back."""
    if is_lazy(buffer) or buffer.is_inference():
        return False
    if buffer.layout is not torch.strided:
        return True
    return not any(
        stride == 0 and size > 1 for size, stride in zip(buffer.shape, buffer.stride(), strict=True)
    )
