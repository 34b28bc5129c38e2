"""Rows that other packages offer through entry points: loaded when first looked for."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["Plugins"]


class Plugins:
    """The entries of one group, registered once.

    Parameters
    ----------
    group
        The entry-point group, such as ``"subsetopt.solvers"``.
    kind
        The class of a row. An entry names one row, or a list or tuple of them.
    rows
        The table, by name.
    register
        Adds a row to the table.

    Attributes
    ----------
    broken
        One line for every entry that cannot be used.
    """

    def __init__(
        self, group: str, kind: type[Any], rows: Mapping[str, Any], register: Callable[[Any], None]
    ) -> None:
        self.group, self.kind, self.rows, self.register = group, kind, rows, register
        self.broken: list[str] = []
        self._loaded = False

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
