"""The rules of a table of rows that users and other packages add to."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from subsetopt.errors import OptionError

__all__ = ["Plugins"]


class Plugins:
    """The rows that users add, and those of other packages: loaded when first looked for.

    Parameters
    ----------
    noun
        What a row stands for, as messages call it.
    group
        The entry-point group, such as ``"subsetopt.solvers"``.
    kind
        The class of a row. An entry names one row, or a list or tuple of them.
    rows
        The table, by name; what it holds at first is built in.
    register
        Adds a row to the table.

    Attributes
    ----------
    broken
        One line for every entry that cannot be used.
    """

    def __init__(
        self,
        noun: str,
        group: str,
        kind: type[Any],
        rows: dict[str, Any],
        register: Callable[[Any], None],
    ) -> None:
        self.noun, self.group, self.kind = noun, group, kind
        self.rows, self.register = rows, register
        self.builtin = frozenset(rows)
        self.broken: list[str] = []
        self._loaded = False

    def check(self, row: object, *reserved: str) -> None:
        """Raise if a row cannot be added.

        Parameters
        ----------
        row
            What the user passed.
        reserved
            Names that no row may have.

        Raises
        ------
        OptionError
            If it is no row, or its name is taken.
        """
        if not isinstance(row, self.kind):
            raise OptionError(
                f"register_{self.noun} takes a {self.kind.__name__}, got {type(row).__name__}."
            )
        if row.name in self.rows or row.name in reserved:
            raise OptionError(
                f"a {self.noun} named {row.name!r} is registered already; choose another name."
            )

    def remove(self, name: str) -> None:
        """Remove a row, if there is one.

        Raises
        ------
        OptionError
            If it is built in.
        """
        if name in self.builtin:
            raise OptionError(f"{name!r} is built in and cannot be removed.")
        self.rows.pop(name, None)

    def load(self) -> None:
        """Register all entries, on the first call only; one that is broken is a warning."""
        if self._loaded:
            return
        self._loaded = True  # now, since an entry may ask for the table itself
        # Imported here, since it takes as long as the rest of the package.
        import importlib.metadata

        for entry in sorted(importlib.metadata.entry_points(group=self.group)):
            try:
                offered = entry.load()
                for row in offered if isinstance(offered, (list, tuple)) else [offered]:
                    if not isinstance(row, self.kind):
                        raise TypeError(f"it is no {self.kind.__name__} but {row!r:.80}")
                    # A package may register a row when it is imported, too.
                    if self.rows.get(row.name) != row:
                        self.register(row)
            except (Exception, SystemExit) as error:
                why = " ".join(f"{type(error).__name__}: {error}".split())
                self.broken.append(
                    f"the entry {entry.name!r} ({entry.value}) of {self.group} cannot be used: "
                    f"{why:.300}"
                )
        for line in self.broken:
            warnings.warn(line, RuntimeWarning, stacklevel=3)
