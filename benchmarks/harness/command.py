"""A command: a function that returns a Result, with the options that all commands share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

import typer

from benchmarks.harness.families import SOURCE
from benchmarks.harness.options import RUNS, Data, DataDir, Out, Save
from benchmarks.harness.output import Result

__all__ = ["command", "recorded_command"]

_KEPT = {"out": (Out, RUNS), "save": (Save, False)}
_RECORDED = {"data": (Data, None), "data_dir": (DataDir, None)}


def command(measure: Callable[..., Result], *, recorded: bool = False) -> Callable[..., None]:
    """Return a command that shows the Result of a function, and writes it.

    The command takes the function's own options, and ``--out`` and ``--save``; with ``recorded``
    also ``--data`` and ``--data-dir``, from which recorded losses are then made. The function
    receives those of them that it declares itself.
    """
    shared = _RECORDED | _KEPT if recorded else _KEPT
    own = inspect.signature(measure).parameters
    hints = get_type_hints(measure, include_extras=True)
    options = [parameter.replace(annotation=hints[name]) for name, parameter in own.items()] + [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
        )
        for name, (annotation, default) in shared.items()
        if name not in own
    ]
    signature = inspect.Signature(options)

    @functools.wraps(measure)
    def run(*arguments: Any, **keywords: Any) -> None:
        bound = signature.bind(*arguments, **keywords)
        bound.apply_defaults()
        values = bound.arguments
        if recorded:
            SOURCE.configure(values["data"], values["data_dir"], values["out"] / "cache")
        result = measure(**{name: values[name] for name in own})
        result.finish(values["out"], save=values["save"])
        if result.refuted:
            raise typer.Exit(1)

    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {option.name: option.annotation for option in options}
    return run


def recorded_command(measure: Callable[..., Result]) -> Callable[..., None]:
    """Return a :func:`command` that also takes the options of recorded losses."""
    return command(measure, recorded=True)
