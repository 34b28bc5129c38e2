"""Command-line options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from subsetopt import OptionError

__all__ = [
    "Data", "DataDir", "Families", "Out", "Save", "Seed", "integers", "numbers",
]  # fmt: skip

Out = Annotated[Path, typer.Option("--out", help="Folder for what is written (git-ignored).")]
Save = Annotated[bool, typer.Option("--save", help="Also write to benchmarks/results.")]
Seed = Annotated[int, typer.Option("--seed", help="The seed of everything that is drawn.")]
Families = Annotated[
    str | None, typer.Option("--families", help="Comma-separated; 'recorded' means all epochs.")
]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Folder that holds mnist/; default: $SUBSETOPT_DATA."),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data", help="What to record: mnist or digits; default: mnist when it is there."
    ),
]
T = TypeVar("T")
RUNS = Path("runs")


def integers(text: str) -> list[int]:
    """Return a comma-separated list of whole numbers."""
    return _parsed(text, int, "whole numbers")


def numbers(text: str) -> list[float]:
    """Return a comma-separated list of numbers."""
    return _parsed(text, float, "numbers")


def _parsed(text: str, parse: Callable[[str], T], what: str) -> list[T]:
    try:
        return [parse(part) for part in text.split(",")]
    except ValueError:
        raise OptionError(f"expected comma-separated {what}, got {text!r}.") from None
