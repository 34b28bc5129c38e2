"""Choosing before loading by what is recorded: what plans and batches cost."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

from benchmarks.harness.command import command
from benchmarks.harness.options import integers
from benchmarks.harness.output import Result, bar, ms, us

__all__ = ["plans"]

POLICIES = ("balanced", "obtf", "infobatch", "big-loss", "importance")
# The longest processor time of a plan over a million records, and of a batch, in seconds.
_PLAN, _BATCH = 0.5, 0.2e-3
_COUNT, _SIZE = 1_000_000, 128
# An estimate at which ``importance`` is on whatever the size.
_ON = 100.0


class Cost(NamedTuple):
    """The seconds of something that was done several times."""

    wall: float  #: median by the clock
    processor: float  #: median of the processor
    least: float  #: least of the processor


@command
def plans(
    records: Annotated[int, typer.Option(help="Samples, all with a record.")] = _COUNT,
    rate: Annotated[float, typer.Option(help="The part that an epoch trains on.")] = 0.3,
    batch: Annotated[int, typer.Option(help="Samples per batch.")] = _SIZE,
    windows: Annotated[str, typer.Option(help="Candidates of a batch.")] = "256,1280",
    repeats: Annotated[int, typer.Option(help="Plans; a hundred times as many batches.")] = 5,
) -> Result:
    """Time the choice of an epoch's samples, and of a batch from a window, by records."""
    settings = {"records": records, "rate": rate, "batch": batch, "repeats": repeats}
    result = Result("plans", "Choosing before loading by what is recorded", settings)
    sizes = integers(windows)
    epochs: dict[str, tuple[Cost, Cost]] = {}
    batches: dict[tuple[str, int], Cost] = {}
    with tempfile.TemporaryDirectory() as folder, bar() as progress:
        task = progress.add_task("", total=len(POLICIES) * (1 + len(sizes)))
        with _recorded(Path(folder), records) as ledger:
            for policy in POLICIES:
                progress.update(task, description=policy)
                epochs[policy] = _epoch(policy, ledger, records, rate, batch, repeats)
                progress.advance(task)
                for size in sizes:
                    sampler = _sampler(policy, ledger, records, batch, candidates=size)
                    batches[policy, size] = _typical(iter(sampler), sampler, 100 * repeats)
                    progress.advance(task)
    rows = [
        [policy, ms(plan.wall), ms(plan.processor), ms(plan.least), us(served.wall)]
        for policy, (plan, served) in epochs.items()
    ]
    columns = ("policy", "plan", "processor time", "least", "a batch of it")
    result.table(f"A plan over {records:,} records", columns, rows)
    columns = ("policy", "candidates", "batch", "processor time", "least")
    rows = [
        [policy, size, us(cost.wall), us(cost.processor), us(cost.least)]
        for (policy, size), cost in batches.items()
    ]
    result.table(f"A batch of {batch} from a window", columns, rows)
    for policy, (plan, _) in epochs.items():
        if records == _COUNT:
            what = f"{policy}: plan over {records:,} records, least processor time"
            result.check(what, 1e3 * plan.least, 1e3 * _PLAN, "ms", least=False)
    for (policy, size), cost in batches.items():
        if batch == _SIZE and size == min(sizes):
            what = f"{policy}: {batch} of {size} candidates, least processor time"
            result.check(what, 1e3 * cost.least, 1e3 * _BATCH, "ms", least=False)
    result.notes.append(
        "Times are medians, but for the least. All is done by one process without waiting, so that "
        "its processor time is what the clock shows on an idle machine; on a busy one the clock "
        "shows the time of others, too, and what they do to caches costs processor time: the least "
        "has the least of it. A plan is that of a first batch, with the copy that an epoch keeps "
        "of all records."
    )
    return result


def _recorded(folder: Path, count: int) -> Any:
    """Return a ledger with losses that are exponential and scores that resemble them."""
    from subsetopt.ledger import Ledger

    rng = np.random.default_rng(0)
    losses = rng.exponential(size=count).astype(np.float32)
    scores = losses * np.exp(0.3 * rng.standard_normal(count)).astype(np.float32)
    ledger = Ledger.open(f"dense:{folder / 'plans.ledger'}", capacity=count)
    ledger.record(np.arange(count), losses, scores, step=0)
    return ledger


def _sampler(policy: str, ledger: Any, count: int, batch: int, **options: Any) -> Any:
    import subsetopt_torch as st
    from subsetopt.policies import make_policy

    made: Any = make_policy(policy)
    if policy == "importance":
        made.tau = _ON
    return st.SubsetBatchSampler(count, made, batch, ledger=ledger, seed=0, **options)


def _epoch(
    policy: str, ledger: Any, count: int, rate: float, batch: int, repeats: int
) -> tuple[Cost, Cost]:
    """Return the cost of a plan, and of a batch of it."""
    found = []
    own = None if policy == "infobatch" else rate
    sampler = _sampler(policy, ledger, count, batch, plan="epoch", rate=own)
    for _ in range(1 + repeats):
        batches = iter(sampler)
        found.append(_timed(lambda batches=batches: next(batches)))
    return _cost(found[1:]), _typical(batches, sampler, 100 * repeats)


def _typical(batches: Any, sampler: Any, count: int) -> Cost:
    """Return the median cost of a batch, each observed before the next one."""
    found = []
    for _ in range(count):
        ids: list[int] = []
        times = _timed(lambda ids=ids: ids.extend(next(batches, ())))
        if not ids:
            break
        found.append(times)
        sampler.observe(ids)
    return _cost(found)


def _cost(times: list[tuple[float, float]]) -> Cost:
    wall, processor = zip(*times, strict=True)
    return Cost(median(wall), median(processor), min(processor))


def _timed(action: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds that something takes, by the clock and of the processor."""
    wall, processor = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - wall, time.process_time() - processor
