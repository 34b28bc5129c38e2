"""Claim 7: no problem gives an infeasible, wrongly certified, inconsistent or crashed answer."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

import subsetopt as so
from benchmarks.harness.command import command
from benchmarks.harness.fuzz_claims import FAULTS, Oracle
from benchmarks.harness.fuzz_questions import ask
from benchmarks.harness.fuzz_trials import run_trial
from benchmarks.harness.options import RUNS, Out, Seed
from benchmarks.harness.output import Result, bar, console
from subsetopt import OptionError

# Problems of a piece, which is kept on disk as soon as it is done; backends take longer.
_PIECE, _BACKENDS_PIECE = 500, 50
# Pieces per process, after which a new process takes its place.
_PIECES = 50
_SHOWN = 20


@dataclass(slots=True)
class Piece:
    """The problems with the numbers ``first`` to ``stop - 1``, and what came of them."""

    seed: int  #: the seed that problems are made from, with their numbers
    first: int  #: the number of the first problem
    stop: int  #: the number after the last one
    backends: bool  #: whether mixed-integer backends were asked, not the native solvers
    #: what the problems consisted of, and how many answers each solver gave
    counts: dict[str, int] = field(default_factory=dict)
    #: the problem's number, the solver, the kind of each failure, and what is wrong
    failures: list[tuple[int, str, str, str]] = field(default_factory=list)
    seconds: float = 0.0  #: the time it took

    @property
    def key(self) -> tuple[int, int, int, bool]:
        return self.seed, self.first, self.stop, self.backends


@command
def fuzz(
    count: Annotated[int, typer.Option(help="Problems for the native solvers.")] = 100_000,
    backends: Annotated[int, typer.Option(help="Problems for the MIP backends.")] = 0,
    seed: Seed = 0,
    start: Annotated[int, typer.Option(help="The first i; problem i is made from (seed, i).")] = 0,
    workers: Annotated[int, typer.Option(help="Processes; 0: one per core.")] = 0,
    fresh: Annotated[bool, typer.Option(help="Forget what was tried before.")] = False,
    only: Annotated[
        int | None,
        typer.Option(help="Show one problem and its failures; with --backends, one for these."),
    ] = None,
    out: Out = RUNS,
) -> Result:
    """Claim 7: random problems of every objective, held against all their subsets.

    Each number stands for one problem, which is given to "auto" and to some of the other solvers,
    or to all MIP backends that take it. A run that was cut short goes on where it was, and tries
    the pieces with failures anew.
    """
    if min(count, backends, start, workers) < 0:
        raise OptionError("count, backends, start and workers must be at least 0.")
    if only is not None:
        raise typer.Exit(_show_one(seed, only, backends=backends > 0))
    workers = workers or os.cpu_count() or 1
    path = out / "fuzz.jsonl"
    if fresh:
        path.unlink(missing_ok=True)
    wanted = _pieces(seed, start, count, _PIECE, backends=False)
    wanted += _pieces(seed, start, backends, _BACKENDS_PIECE, backends=True)
    pieces = _run(wanted, path, workers)
    settings = {"count": count, "backends": backends, "seed": seed, "start": start,
                "processes": workers}  # fmt: skip
    result = Result("fuzz", "Fuzzing against all subsets", settings)
    _present(result, pieces)
    result.refuted = sum(len(piece.failures) for piece in pieces)
    return result


def check_piece(piece: Piece) -> Piece:
    """Try the problems of a piece. A warning counts as a crash, as in the tests."""
    begin = time.perf_counter()
    counts: Counter[str] = Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for i in range(piece.first, piece.stop):
            trial = run_trial(piece.seed, i, backends=piece.backends)
            counts.update(trial.counts)
            piece.failures += [(i, *failure) for failure in trial.failures]
    piece.counts, piece.seconds = dict(counts), time.perf_counter() - begin
    return piece


def _pieces(seed: int, start: int, count: int, size: int, *, backends: bool) -> list[Piece]:
    stops = [*range(start + size, start + count, size), start + count]
    firsts = range(start, start + count, size)
    return [Piece(seed, a, b, backends) for a, b in zip(firsts, stops, strict=False)]


def read_pieces(path: Path) -> list[Piece]:
    """Return the pieces of a file; a last line that was cut short is left out."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    return [
        Piece(**{**record, "failures": [tuple(failure) for failure in record["failures"]]})
        for record in records
    ]


def _run(wanted: list[Piece], path: Path, workers: int) -> list[Piece]:
    """Return the pieces, those of the file as they are, all others tried and added to it.

    Pieces of the file with failures are tried anew.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    known = {piece.key: piece for piece in read_pieces(path) if not piece.failures}
    done = [known[piece.key] for piece in wanted if piece.key in known]
    left = [piece for piece in wanted if piece.key not in known]
    if not left:
        return done
    so.warmup()
    with bar() as progress, path.open("a", encoding="utf-8") as file:
        if file.tell() and not path.read_bytes().endswith(b"\n"):
            file.write("\n")
        total = sum(piece.stop - piece.first for piece in wanted)
        ready = sum(piece.stop - piece.first for piece in done)
        task = progress.add_task("Fuzzing", total=total, completed=ready)
        for piece in _results(iter(left), workers):
            file.write(json.dumps(asdict(piece)) + "\n")
            file.flush()
            done.append(piece)
            failed = sum(len(one.failures) for one in done)
            advance = piece.stop - piece.first
            progress.update(task, advance=advance, description=f"Fuzzing ({failed} failed)")
    return done


def _results(pieces: Iterator[Piece], workers: int) -> Iterator[Piece]:
    """Yield every piece as it is done; a process that dies is a crash, told with its piece."""
    spawn = multiprocessing.get_context("spawn")
    while pending := list(islice(pieces, _PIECES * workers)):
        with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_use_one_core) as pool:
            futures = {pool.submit(check_piece, piece): piece for piece in pending}
            for future in as_completed(futures):
                try:
                    yield future.result()
                except BrokenProcessPool:
                    piece = futures[future]
                    what = "a process died; it was at this piece, or another one of its pool"
                    piece.failures = [(piece.first, "?", "crashed", what)]
                    yield piece


def _use_one_core() -> None:
    """Let compiled loops use one thread, as there is a process per core; they are loaded later."""
    os.environ["NUMBA_NUM_THREADS"] = "1"


def _present(result: Result, pieces: list[Piece]) -> None:
    for backends, who in ((False, "native solvers"), (True, "MIP backends")):
        chosen = [piece for piece in pieces if piece.backends is backends]
        if not chosen:
            continue
        counts: Counter[str] = Counter()
        for piece in chosen:
            counts.update(piece.counts)
        answers = {k: v for k, v in counts.items() if k.startswith("answers of ")}
        seconds = sum(piece.seconds for piece in chosen)
        result.table(
            f"Problems for the {who}",
            ("problems", "answers", "without a feasible subset", "refused", "process seconds"),
            [[counts["problems"], sum(answers.values()), counts["problems without an answer"],
              sum(v for k, v in counts.items() if k.startswith("refused")), seconds]],
        )  # fmt: skip
        others = {k: v for k, v in counts.items() if not k.startswith("problems")}
        result.table(f"Counts, {who}", ("of", "count"), sorted(others.items()))
    kinds = Counter(kind for piece in pieces for _, _, kind, _ in piece.failures)
    for kind in FAULTS:
        result.check(f"{kind} answers", kinds[kind], 0, "", least=False)
    failures = [(piece, failure) for piece in pieces for failure in piece.failures]
    for piece, (i, solver, kind, what) in failures[:_SHOWN]:
        again = f"python -m benchmarks fuzz --seed {piece.seed} --only {i}"
        again += " --backends 1" if piece.backends else ""
        result.notes.append(f"Problem {i}, {solver}, {kind}: {what.strip()}\n  {again}")


def _show_one(seed: int, i: int, *, backends: bool) -> int:
    """Print one problem as plain values, its optimum and failures; return the exit code."""
    question = ask(seed, i, backends=backends)
    console.print(f"Problem {i} of seed {seed}: {', '.join(question.features)}", highlight=False)
    print(f"data = {_plain(question.data)}\nk = {question.k}")
    print(f"keywords = {_plain(question.keywords)}")
    if not question.masked:
        print(f"optimum = {Oracle(question).best!r}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trial = run_trial(seed, i, backends=backends)
    names = [name for name in trial.counts if name.startswith(("answers of", "refused"))]
    print(", ".join(names))
    for solver, kind, what in trial.failures:
        print(f"{solver}: {kind}: {what}")
    print(f"{len(trial.failures)} failures" if trial.failures else "no failure")
    return int(bool(trial.failures))


def _plain(values: dict[str, Any]) -> str:
    """Return arguments as Python code, all digits of their numbers included."""
    words = {
        name: f"np.array({value.tolist()!r}, dtype=np.{value.dtype})"
        if hasattr(value, "tolist") and value.dtype.kind in "fiub" else repr(value)
        for name, value in values.items()
    }  # fmt: skip
    return "{" + ", ".join(f"{name!r}: {word}" for name, word in words.items()) + "}"
