"""Rows on disk: appended one by one, so that a run that was cut short goes on where it was."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

__all__ = ["Key", "Row", "Store", "read_rows"]

Key = tuple[str, int, int, bool, int, str, float]


@dataclass(slots=True)
class Row:
    """One solve of one instance by one solver under one limit. Seconds, and absolute residuals.

    ``residual``, ``feasible`` are recomputed independently; ``objective`` and ``bound`` are what
    the solver claims. ``skipped`` has the reason when nothing was run. ``sampled`` tells a solve
    that belongs to the curve over limits alone, not to the tables.
    """

    family: str
    n: int
    k: int
    rate: float
    constrained: bool
    seed: int
    solver: str
    limit: float
    sampled: bool = False
    skipped: str = ""
    error: str = ""
    status: str = ""
    stop: str = ""
    native: str = ""
    by: str = ""
    feasible: bool = False
    residual: float = float("nan")
    objective: float = float("nan")
    bound: float = float("nan")
    scale: float = float("nan")
    tolerance: float = float("nan")
    build: float = float("nan")
    setup: float = float("nan")
    total: float = float("nan")
    repeats: int = 0

    @property
    def key(self) -> Key:
        return (*self.instance, self.solver, self.limit)

    @property
    def instance(self) -> tuple[str, int, int, bool, int]:
        return (self.family, self.n, self.k, self.constrained, self.seed)

    @property
    def relative(self) -> float:
        """The residual over mean|l|."""
        return self.residual / self.scale if self.scale else self.residual

    @property
    def within(self) -> bool:
        """Whether a feasible subset within tolerance of the target was found."""
        return self.feasible and self.residual <= self.tolerance * (1.0 + 1e-6)


_FIELDS = [f.name for f in fields(Row)]
_PARSERS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": lambda text: text == "True",
}
_TYPES = {f.name: _PARSERS[str(f.type)] for f in fields(Row)}


class Store:
    """A CSV file of rows, keyed; use as a context manager.

    A row is on disk as soon as it is added. A last line that was cut short is dropped on opening.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.rows = read_rows(path) if path.is_file() else []
        self.by_key = {row.key: row for row in self.rows}

    def __enter__(self) -> Store:
        self._mend()
        self._file = self.path.open("a", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._file, _FIELDS)
        if not self._file.tell():
            self._writer.writeheader()
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def __contains__(self, key: Key) -> bool:
        return key in self.by_key

    def add(self, row: Row) -> None:
        self.rows.append(row)
        self.by_key[row.key] = row
        try:
            self._writer.writerow({k: _one_line(v) for k, v in asdict(row).items()})
        finally:
            self._file.flush()

    def _mend(self) -> None:
        if self.path.is_file():
            whole = self.path.read_bytes()
            self.path.write_bytes(whole[: whole.rfind(b"\n") + 1])


def _one_line(value: Any) -> Any:
    """Return a value without line breaks: a row is a line, so that a torn one can be told."""
    return " ".join(value.split()) if isinstance(value, str) else value


def read_rows(path: Path) -> list[Row]:
    """Return the complete rows of a file; of rows with the same key, the last."""
    text = path.read_bytes().decode("utf-8")
    complete = text[: text.rfind("\n") + 1]
    found = {row.key: row for row in _parsed(csv.DictReader(io.StringIO(complete)))}
    return list(found.values())


def _parsed(reader: csv.DictReader[str]) -> Iterator[Row]:
    for raw in reader:
        values: dict[str, Any] = {name: _TYPES[name](raw[name] or "") for name in _FIELDS}
        yield Row(**values)
