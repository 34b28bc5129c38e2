"""Tables of named things that register themselves."""

from __future__ import annotations

from typing import Protocol, TypeVar

__all__ = ["Named", "Table"]


class Named(Protocol):
    """Anything with a name."""

    @property
    def name(self) -> str:
        """The name, which a table holds once."""


T = TypeVar("T", bound=Named)


class Table(dict[str, T]):
    """Named things in the order of their registration; ``what`` is their kind, for messages."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def register(self, item: T) -> T:
        """Add an item; it then takes part in every command."""
        if item.name in self:
            raise ValueError(f"a {self.what} named {item.name!r} is registered already")
        self[item.name] = item
        return item
