"""Select via Proxy on digits: the accuracy of a target model trained on what proxies kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

import subsetopt as so
from benchmarks.harness.command import command
from benchmarks.harness.options import numbers
from benchmarks.harness.output import Result, bar
from subsetopt import OptionError
from subsetopt.proxy import class_balanced_selection, rank_combination

_LR, _BATCH = 0.05, 64
_WIDTH, _TARGET_WIDTH = 16, 256
_PROXIES = 3
_TARGET_SEED = 100  # larger than the seed of any proxy
Rows = NDArray[np.int64]
# A selection maps the proxies' scores (P, n), the labels, k and a seed to the rows that are kept.
Way = Callable[[NDArray[np.float64], NDArray[np.int64], int, int], Rows]


def _uniform(scores: NDArray[np.float64], labels: Rows, k: int, seed: int) -> Rows:
    return np.random.default_rng(seed).choice(labels.size, k, replace=False)


def _top(scores: NDArray[np.float64], k: int) -> Rows:
    return so.solve(so.Problem(so.TopScores(scores), k)).require().indices


WAYS: dict[str, Way] = {
    "uniform": _uniform,
    "uncertain": lambda scores, labels, k, seed: _top(scores[0], k),
    f"uncertain, {_PROXIES} proxies by rank": lambda scores, labels, k, seed: _top(
        rank_combination(scores), k
    ),
    "uncertain, class-balanced": lambda scores, labels, k, seed: class_balanced_selection(
        scores[0], labels, k
    ),
}


@command
def proxy(
    kept: Annotated[str, typer.Option(help="Shares of the data that are kept.")] = "0.5,0.2,0.1",
    epochs: Annotated[int, typer.Option(help="Passes of the target over what was kept.")] = 60,
    proxy_epochs: Annotated[int, typer.Option(help="Passes of a proxy over all data.")] = 5,
    seeds: Annotated[int, typer.Option(help="Runs of each kind.")] = 5,
) -> Result:
    """Train on the samples that proxies are unsure of, on a uniform share, and on all."""
    shares = numbers(kept)
    for share in shares:
        if not 0.0 < share <= 1.0:
            raise OptionError(f"a share of the data must be in (0, 1], got {share:g}.")
    settings = {"data": "digits", "proxy": f"64-{_WIDTH}-10", "target": f"64-{_TARGET_WIDTH}-10",
                "proxy_epochs": proxy_epochs, "epochs": epochs, "lr": _LR, "batch": _BATCH,
                "score": "entropy", "seeds": seeds}  # fmt: skip
    result = Result("proxy", "Select via Proxy on digits", settings)
    found = measure(shares, epochs, proxy_epochs, seeds)
    _tables(result, shares, found)
    result.notes.append(
        f"Run s trains proxies with the seeds {_PROXIES} s to {_PROXIES} s + {_PROXIES - 1}, of "
        f"which one alone is the first, and a target with the seed {_TARGET_SEED} + s. SGD with "
        "momentum 0.9. The test set is the same in all runs."
    )
    return result


def measure(
    shares: Sequence[float], epochs: int, proxy_epochs: int, seeds: int
) -> dict[tuple[float, str], list[float]]:
    """Return the test accuracies by share and way, a value per seed; the share 1 is all data."""
    from subsetopt_torch.experiment.comparison import torch_threads
    from subsetopt_torch.experiment.data import load_data

    data = load_data("digits")
    found: dict[tuple[float, str], list[float]] = {}
    with torch_threads(1), bar() as progress:
        task = progress.add_task("", total=seeds * (len(shares) * len(WAYS) + 1))
        for seed in range(seeds):
            progress.update(task, description=f"seed {seed + 1} of {seeds}")
            scores = _scores(data, proxy_epochs, seed)
            for cell, rows in _selections(scores, data.train_y.numpy(), shares, seed):
                found.setdefault(cell, []).append(_accuracy(data, rows, epochs, seed))
                progress.advance(task)
    return found


def _scores(data: Any, epochs: int, seed: int) -> NDArray[np.float64]:
    """Return how unsure each of the proxies of a run is of every sample."""
    import subsetopt_torch as st

    return np.stack([
        st.train_proxy(
            _network(_WIDTH, data.classes, start), (data.train_x, data.train_y), epochs=epochs,
            lr=_LR, batch_size=_BATCH, seed=start,
        ).scores
        for start in range(_PROXIES * seed, _PROXIES * (seed + 1))
    ])  # fmt: skip


def _selections(
    scores: NDArray[np.float64], labels: Rows, shares: Sequence[float], seed: int
) -> Iterator[tuple[tuple[float, str], Rows]]:
    yield (1.0, "all"), np.arange(labels.size)
    for share in shares:
        k = max(1, round(share * labels.size))
        for name, way in WAYS.items():
            yield (share, name), way(scores, labels, k, seed)


def _accuracy(data: Any, rows: Rows, epochs: int, seed: int) -> float:
    """Return the test accuracy of the target, trained on some rows of the data."""
    import torch

    import subsetopt_torch as st

    start = _TARGET_SEED + seed
    model = _network(_TARGET_WIDTH, data.classes, start)
    chosen = torch.from_numpy(np.sort(rows))
    st.train_proxy(
        model, (data.train_x[chosen], data.train_y[chosen]), epochs=epochs, lr=_LR,
        batch_size=_BATCH, seed=start,
    )  # fmt: skip
    with torch.no_grad():
        return float((model(data.test_x).argmax(1) == data.test_y).double().mean())


def _network(width: int, classes: int, seed: int) -> Any:
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, classes))


def _tables(
    result: Result, shares: Sequence[float], found: dict[tuple[float, str], list[float]]
) -> None:
    everything = 100.0 * np.array(found[1.0, "all"])
    rows = [
        [f"{share:.0%}", *(f"{100.0 * np.mean(found[share, way]):.1f}" for way in WAYS)]
        for share in shares
    ]
    rows.append(["100%", f"{everything.mean():.1f}", *["-"] * (len(WAYS) - 1)])
    result.table("Test accuracy in percent, mean over seeds", ("kept", *WAYS), rows)
    rows = [[f"{share:.0%}", *(_range(found[share, way]) for way in WAYS)] for share in shares]
    rows.append(["100%", _range(found[1.0, "all"]), *["-"] * (len(WAYS) - 1)])
    result.table("Range over the seeds", ("kept", *WAYS), rows)


def _range(accuracies: Sequence[float]) -> str:
    return f"{100.0 * min(accuracies):.1f} to {100.0 * max(accuracies):.1f}"
