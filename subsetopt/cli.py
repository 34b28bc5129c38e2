"""The command line: ``subsetopt solvers``, ``subsetopt solve``, and commands of other packages.

A package adds a command by an entry point in the group ``subsetopt.commands`` that names a function
that typer accepts. A command is loaded only when it is called, so that listing the commands imports
nothing that they need.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import json
import math
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any, NoReturn, cast

import numpy as np
import typer
from rich import box
from rich.console import Console
from rich.status import Status
from rich.table import Table

import subsetopt as so
from subsetopt.errors import OptionError, SubsetOptError
from subsetopt.files import read_losses, write_whole
from subsetopt.kernels.progress import watched
from subsetopt.problem import Cardinality
from subsetopt.registry import Availability, SolverSpec, availability, plugins, spec_of
from subsetopt.solvers.spec import FEATURES

__all__ = ["main"]

# The entry-point group of the commands of other packages.
_GROUP = "subsetopt.commands"
# The exit code for a mistake of the user.
_MISTAKE = 2
# The exit code where there is no subset to return.
_NO_ANSWER = 1
# The exit code after Ctrl-C.
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    Parameters
    ----------
    arguments
        The words after the program's name; None takes those of ``sys.argv``.

    Raises
    ------
    SystemExit
        With code 0; 1 when there is no subset to return; 2 for a mistake of the user, with one
        line on stderr; 130 when interrupted, after the best subset found until then was printed.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _app(arguments)(args=arguments, prog_name="subsetopt", standalone_mode=False)
        sys.stdout.flush()  # a full disk is told here, not on exit
    except (KeyboardInterrupt, typer.Abort):
        _stop("interrupted", _INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()  # or the interpreter reports the closed pipe again on exit
        sys.exit(_NO_ANSWER)
    except SubsetOptError as error:
        _stop(str(error), _MISTAKE)
    except OSError as error:
        _stop(f"{error.filename or 'error'}: {error.strerror or error}", _MISTAKE)
    except Exception as error:
        # A usage error has a class of click or of typer, depending on typer's version.
        if not hasattr(error, "format_message"):
            raise
        _stop(error.format_message(), getattr(error, "exit_code", _MISTAKE))
    sys.exit(code if isinstance(code, int) else 0)


def _stop(message: str, code: int) -> NoReturn:
    """Print one line on stderr and exit."""
    print(f"subsetopt: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def _app(arguments: Sequence[str]) -> typer.Typer:
    """Return the application; among commands of other packages it loads only the called one."""
    app = typer.Typer(
        help="Which samples deserve a backward pass? Solvers for data selection.",
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_root)
    app.command("solvers")(_solvers)
    app.command("solve")(_solve)
    for entry in sorted(importlib.metadata.entry_points(group=_GROUP)):
        called = bool(arguments) and arguments[0] == entry.name
        command = _load(entry) if called else _placeholder(entry)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=entry.name)
        else:
            app.command(entry.name)(command)
    return app


def _load(entry: importlib.metadata.EntryPoint) -> Any:
    """Import a command of another package, or say what it needs."""
    try:
        return entry.load()
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        if isinstance(error, SubsetOptError) or not missing:
            _stop(f"'subsetopt {entry.name}' cannot be loaded: {error}", _MISTAKE)
        _stop(f"'subsetopt {entry.name}' needs {missing}: {_install(entry, missing)}", _MISTAKE)


def _install(entry: importlib.metadata.EntryPoint, missing: str) -> str:
    """Return the pip line for a missing package: the extra of that name where there is one."""
    extras = entry.dist.metadata.get_all("Provides-Extra") if entry.dist is not None else None
    if entry.dist is not None and missing in (extras or []):
        return f"pip install '{entry.dist.name}[{missing}]'"
    return f"pip install {missing}"


def _placeholder(entry: importlib.metadata.EntryPoint) -> Callable[[], None]:
    """Return a command that only has a line in the list of commands."""

    def placeholder() -> None:
        pass

    package = entry.module.partition(".")[0]
    placeholder.__doc__ = f"See 'subsetopt {entry.name} --help' (from {package})."
    return placeholder


def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if version:
        print(f"subsetopt {so.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


def _solvers(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the solvers: what each can do, and whether it can be used here."""
    with Console(stderr=True).status("Looking for backends"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = [(spec, availability(spec.name)) for spec in so.list_solvers()]
    for line in plugins.broken:
        print(f"subsetopt: {line}", file=sys.stderr)
    if as_json:
        records = [
            _row(spec) | {"available": state.usable, "why_not": state.reason or None}
            for spec, state in rows
        ]
        print(json.dumps(records, indent=2))
        return
    console = Console(markup=False, highlight=False)
    console.print(_table(rows))
    for spec, state in rows:
        if not state.usable:
            console.print(f"{spec.name} is not available: {state.reason}", soft_wrap=True)
    console.print(
        "solver='auto' chooses among these. exact: proves optimality, given time; the others "
        "prove it where a bound allows."
    )


def _table(rows: list[tuple[SolverSpec, Availability]]) -> Table:
    """Return one row per solver, in 80 columns without a broken word."""
    cells = [
        (
            spec.name,
            "yes" if spec.exact else "no",
            ", ".join(spec.objectives).replace("[", " ["),
            _features(spec),
            "yes" if state.usable else "no",
        )
        for spec, state in rows
    ]
    table = Table(title="Solvers", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    longest = max(len(word) for row in cells for word in row[2].split())
    table.add_column("solver", no_wrap=True)
    table.add_column("exact", no_wrap=True)
    table.add_column("objectives", width=longest)
    table.add_column("features")
    table.add_column("available", no_wrap=True)
    for row in cells:
        table.add_row(*row)
    return table


def _features(spec: SolverSpec) -> str:
    """Return the features of a solver, or those that it lacks if they are fewer."""
    lacking = FEATURES - spec.features
    if len(lacking) < len(spec.features):
        return "all" + (f" but {', '.join(sorted(lacking))}" if lacking else "")
    return ", ".join(sorted(spec.features)) or "-"


def _row(spec: SolverSpec) -> dict[str, Any]:
    """Return a row of the registry as JSON can hold it."""
    return {
        "name": spec.name,
        "exact": spec.exact,
        "guarantee": spec.guarantee,
        "objectives": list(spec.objectives),
        "features": sorted(spec.features),
        "requires": list(spec.requires),
        "extra": spec.extra,
        "reference": spec.reference,
        "summary": spec.summary,
    }


def _solve(
    losses: Annotated[
        Path,
        typer.Argument(
            metavar="LOSSES",
            help="Loss vector: .npy, or .csv/.txt with one column or one row; - reads stdin.",
        ),
    ],
    k: Annotated[int | None, typer.Option("--k", help="How many samples to choose.")] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", help="Fraction of the samples to choose, 0 to 1.")
    ] = None,
    solver: Annotated[
        str,
        typer.Option("--solver", help="A solver, or several with commas: fall over along them."),
    ] = "auto",
    time_limit: Annotated[
        float | None, typer.Option("--time-limit", help="Seconds; default: a work limit.")
    ] = None,
    max_iterations: Annotated[
        int | None, typer.Option("--max-iterations", help="Work limit: reproduces, given a seed.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed; default: fresh.")] = None,
    cardinality: Annotated[
        str, typer.Option("--cardinality", help="'exact' (k samples) or 'at_most' (k or fewer).")
    ] = "exact",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", help="Write the choice: .npy indices, .csv index and weight, .json all."
        ),
    ] = None,
) -> None:
    """Choose samples whose mean loss is that of all."""
    if output is not None:
        _check_output(output)
    so.Deadline(time_limit)  # checks it
    values = read_losses(losses, sys.stdin.buffer.read)
    names = [name.strip() for name in solver.split(",")]
    select = functools.partial(
        so.select,
        values,
        k,
        rate=rate,
        cardinality=cast(Cardinality, cardinality),  # Problem checks it
        solver=names[0] if len(names) == 1 else names,
        max_iterations=max_iterations,
        seed=seed,
    )
    # A limit of 0 seconds does no work, and finds every mistake before kernels are loaded.
    select(time_limit=0)
    console = Console(stderr=True)
    with console.status("Loading solvers") as status, _told_of_compiling(console, status):
        _warm_up(names)
        status.update("Solving")
        solution = select(time_limit=time_limit, on_interrupt="return")
    if output is not None and solution.has_solution:
        _write(solution, output)
    if as_json:
        print(_as_json(_facts(solution)))
    else:
        _show(solution, output)
    if solution.stop_reason is so.StopReason.INTERRUPTED:
        print("subsetopt: interrupted", file=sys.stderr)
        raise typer.Exit(_INTERRUPTED)
    if not solution.has_solution:
        why = solution.extras.get("error") or solution.stop_reason.value
        print(f"subsetopt: {solution.status.value} ({solution.solver}: {why})", file=sys.stderr)
        raise typer.Exit(_NO_ANSWER)


def _check_output(path: Path) -> None:
    """Raise unless a result can be written there."""
    if path.suffix not in (".npy", ".csv", ".json"):
        raise OptionError(f"--output must end in .npy, .csv or .json, got {path}.")
    if path.is_dir():
        raise OptionError(f"--output {path} is a folder.")
    try:
        with tempfile.TemporaryFile(dir=path.resolve().parent):
            pass
    except OSError as error:
        raise OptionError(f"--output {path} cannot be written: {error.strerror}.") from None


def _told_of_compiling(console: Console, status: Status) -> AbstractContextManager[None]:
    """Count compiled kernels beside the spinner; without a terminal, the log says a line."""
    if not console.is_terminal:
        return contextlib.nullcontext()
    return watched(lambda kernels: status.update(f"First use: compiling kernels, {kernels} done"))


def _warm_up(names: list[str]) -> None:
    """Load what the solvers need, so that the time of the real call is that of the solve alone."""
    for name in names:
        with contextlib.suppress(SubsetOptError):
            # 24 losses are enough to reach every kernel; a backend only has to start.
            n = 5 if name != "auto" and spec_of(name).extra else 24
            losses = np.random.default_rng(0).exponential(size=n)
            so.select(losses, k=n // 5, solver=name, max_iterations=2000, seed=0)


def _write(solution: so.Solution, path: Path) -> None:
    """Write a solution in the format that the file's suffix names."""
    if path.suffix == ".npy":
        write_whole(path, lambda file: np.save(file, solution.indices))
        return
    if path.suffix == ".csv":
        pairs = zip(solution.indices.tolist(), solution.weights.tolist(), strict=True)
        text = "\n".join(["index,weight", *(f"{index},{weight!r}" for index, weight in pairs)])
    else:
        text = _as_json(_facts(solution))
    write_whole(path, lambda file: file.write(f"{text}\n".encode()))


def _as_json(facts: dict[str, Any]) -> str:
    """Return facts as JSON with one line for each, however long its value is."""
    lines = [f"  {json.dumps(name)}: {json.dumps(fact)}" for name, fact in facts.items()]
    return "{\n" + ",\n".join(lines) + "\n}"


def _facts(solution: so.Solution) -> dict[str, Any]:
    """Return a solution as JSON can hold it, with null for numbers that are not finite."""
    return {
        "status": solution.status.name,
        "status_text": solution.status.value,
        "stop_reason": solution.stop_reason.name,
        "stop_reason_text": solution.stop_reason.value,
        "solver": solution.solver,
        "n": solution.n,
        "k": int(solution.indices.size),
        "objective": _finite(solution.objective),
        "relative_residual": _finite(_relative(solution.objective, solution.scale)),
        "bound": _finite(solution.bound),
        "gap": _finite(solution.gap),
        "relative_gap": _finite(solution.relative_gap),
        "setup_time": solution.setup_time,
        "solve_time": solution.solve_time,
        "iterations": solution.iterations,
        "indices": solution.indices.tolist(),
        "weights": solution.weights.tolist(),
        "extras": json.loads(json.dumps(solution.extras, default=str)),
    }


def _finite(value: float) -> float | None:
    """Return a finite value, or None."""
    return float(value) if math.isfinite(value) else None


def _relative(objective: float, scale: float | None) -> float:
    """Return the residual over the mean magnitude of the losses."""
    if scale is None or math.isnan(objective):
        return math.nan
    return objective / scale if scale > 0.0 else (0.0 if objective == 0.0 else math.inf)


def _show(solution: so.Solution, output: Path | None) -> None:
    """Print a solution as a table of two columns."""
    facts = {
        "status": f"{solution.status.name}: {solution.status.value}",
        "stopped": f"{solution.stop_reason.name}: {solution.stop_reason.value}",
        "solver": solution.solver,
        "chosen": f"{solution.indices.size} of {solution.n}",
        "objective": f"{solution.objective:.6g}",
        "relative residual": f"{_relative(solution.objective, solution.scale):.3g}",
        "bound": f"{solution.bound:.6g}",
        "gap": f"{solution.gap:.6g} (relative {solution.relative_gap:.3g})",
        "set-up time": f"{solution.setup_time * 1e3:.3f} ms",
        "solve time": f"{solution.solve_time * 1e3:.3f} ms (from call to return)",
        "iterations": f"{solution.iterations:,}",
    }
    for name, why in solution.extras.get("fallbacks", []):
        facts[f"fell over from {name}"] = why
    if output is not None and solution.has_solution:
        facts["written to"] = str(output)
    elif solution.has_solution:
        facts["indices"] = " ".join(map(str, solution.indices.tolist()))
    grid = Table.grid(padding=(0, 2))
    for name, fact in facts.items():
        grid.add_row(name, fact)
    Console(markup=False, highlight=False).print(grid)
