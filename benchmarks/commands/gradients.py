"""What the choice does to the gradient: figure 1 of the importance-sampling paper, for all."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import subsetopt as so
from benchmarks.harness.command import command
from benchmarks.harness.moments import Moment, record_moments
from benchmarks.harness.options import RUNS, DataDir, Out, Save, integers
from benchmarks.harness.output import RESULTS, Result, bar, us
from benchmarks.rivals.gradient_methods import METHODS, ORACLE, Method
from subsetopt import OptionError

# Moments are counted in updates with batches of 128: an epoch has 12 on digits, 469 on MNIST.
_STEPS = {"digits": "20,60,400,1500", "mnist": "20,469,3752,7035"}
_EARLY = 0
Cells = dict[tuple[str, int, int, str], list[tuple[float, float]]]


@command
def gradients(
    data: Annotated[str, typer.Option(help="Comma-separated: digits, mnist.")] = "digits",
    steps: Annotated[str | None, typer.Option(help="Updates before each moment.")] = None,
    sizes: Annotated[str, typer.Option(help="How many of 128 are chosen.")] = "13,32,64",
    batches: Annotated[int, typer.Option(help="Batches at each moment.")] = 20,
    draws: Annotated[int, typer.Option(help="Picks per batch of a random method.")] = 5,
    methods: Annotated[str | None, typer.Option(help="Semicolon-separated; default all.")] = None,
    data_dir: DataDir = None,
    out: Out = RUNS,
    save: Save = False,
) -> Result:
    """Distance of the chosen (weighted) gradient from the batch gradient, over uniform's."""
    so.warmup()
    chosen = _methods(methods)
    names = data.split(",")
    moments: list[Moment] = []
    for name in names:
        if name not in _STEPS and steps is None:
            raise OptionError(f"no data set named {name!r} has default steps; pass --steps.")
        moments += record_moments(name, data_dir, integers(steps or _STEPS[name]), batches)
    settings = {"data": data, "batch": 128, "batches": batches, "draws": draws,
                "network": "two hidden layers of 256", "lr": 0.1}  # fmt: skip
    result = Result(
        "gradients", "Distance of the chosen gradient from the batch gradient", settings
    )
    cells = measure(moments, chosen, integers(sizes), draws)
    _tables(result, cells, chosen)
    if len(chosen) == len(METHODS) and 32 in integers(sizes):
        _claims(result, cells, names)
    for folder in (out, RESULTS) if save else (out,):
        folder.mkdir(parents=True, exist_ok=True)
        drawn = draw(cells, folder)
    result.notes += [f"![{title}]({name})\n" for title, name in drawn]
    return result


def _methods(wanted: str | None) -> list[Method]:
    if wanted is None:
        return list(METHODS.values())
    for name in (names := ["uniform", *(n.strip() for n in wanted.split(";") if n != "uniform")]):
        if name not in METHODS:
            raise OptionError(f"no method named {name!r}. Known: {'; '.join(METHODS)}.")
    return [METHODS[name] for name in names]


def measure(
    moments: Sequence[Moment], methods: Iterable[Method], sizes: Sequence[int], draws: int
) -> Cells:
    """Return (distance, seconds) of every pick by (data, step, k, method)."""
    cells: Cells = defaultdict(list)
    with bar() as progress:
        methods = list(methods)
        task = progress.add_task("", total=len(moments) * len(methods))
        for number, moment in enumerate(moments):
            for method in methods:
                progress.update(task, advance=1, description=method.name)
                for k in sizes:
                    for turn in range(draws if method.random else 1):
                        start = time.perf_counter()
                        indices, weights = method.pick(moment, k, 1000 * number + turn)
                        taken = time.perf_counter() - start
                        cells[moment.data, moment.step, k, method.name].append(
                            (moment.distance(indices, weights), taken)
                        )
    return dict(cells)


def relative(cells: Cells, data: str, step: int, k: int, method: str) -> float:
    """Return a method's mean distance over uniform's."""
    own = np.mean([distance for distance, _ in cells[data, step, k, method]])
    return float(own / np.mean([distance for distance, _ in cells[data, step, k, "uniform"]]))


def _places(cells: Cells) -> list[tuple[str, int]]:
    return list(dict.fromkeys((data, step) for data, step, _, _ in cells))


def _tables(result: Result, cells: Cells, methods: Sequence[Method]) -> None:
    places = _places(cells)
    for k in dict.fromkeys(k for _, _, k, _ in cells):
        rows: list[list[Any]] = []
        for method in methods:
            times = [t for d, s in places for _, t in cells[d, s, k, method.name]]
            shown = [f"{relative(cells, d, s, k, method.name):.3f}" for d, s in places]
            rows.append([method.name, "yes" if method.weighted else "", *shown,
                         us(float(np.median(times)))])  # fmt: skip
        plain = ["", *(f"{np.mean([v for v, _ in cells[d, s, k, 'uniform']]):.2f}"
                       for d, s in places), ""]  # fmt: skip
        rows.append(["uniform's distance over the batch gradient's norm", *plain])
        columns = ("method", "weights", *(f"{d}, step {s:,}" for d, s in places), "median time")
        result.table(f"k = {k} of 128: mean distance over uniform's", columns, rows)


def _claims(result: Result, cells: Cells, names: Sequence[str]) -> None:
    for data in names:
        steps = [step for place, step in _places(cells) if place == data]
        early, late = steps[_EARLY], steps[-1]
        least = relative(cells, data, early, 32, ORACLE)
        for what, step, method, target in (
            ("early", early, "matching, uniform, logit_gradients", 0.5),
            ("early", early, "matching, uniform, last_layer_gradients", 0.4),
            *(("late", late, m.name, 0.4) for m in METHODS.values()
              if m.name in ("matching, nonnegative, last_layer_gradients",
                            "matching, nonnegative, logit_gradients", "importance, upper_bound",
                            "balanced, upper_bound")),
        ):  # fmt: skip
            value = relative(cells, data, step, 32, method)
            best = (least, "swap on whole gradients") if step == early else None
            what = f"{data}, {what} (step {step:,}), k = 32: {method}"
            result.check(what, value, target, "of uniform's", least=False, best=best)


def draw(cells: Cells, folder: Path) -> list[tuple[str, str]]:
    """Draw the distance over uniform's against the step, a panel per k; return titles and names."""
    made = []
    for data in dict.fromkeys(data for data, *_ in cells):
        name = f"gradients-{data}.png"
        _plot({key[1:]: cell for key, cell in cells.items() if key[0] == data}, data,
              folder / name)  # fmt: skip
        made.append((f"Gradient distance over uniform's on {data}", name))
    return made


def _plot(cells: dict[tuple[int, int, str], Any], data: str, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sizes = list(dict.fromkeys(k for _, k, _ in cells))
    steps = list(dict.fromkeys(step for step, _, _ in cells))
    names = list(dict.fromkeys(name for *_, name in cells))
    # The legend sets the height.
    size = (4.2 * len(sizes) + 4.5, max(5.0, 0.18 * len(names) + 0.4))
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
    whole = {(data, *key): cell for key, cell in cells.items()}
    for panel, k in zip(panels, sizes, strict=True):
        for i, name in enumerate(names):
            values = [relative(whole, data, step, k, name) for step in steps]
            style = dict(color=f"C{i % 10}", marker="osv^D<>PX"[i % 9], markersize=4,
                         linestyle=("-", "--", ":", "-.")[i // 10 % 4])  # fmt: skip
            panel.plot(steps, values, label=name if k == sizes[0] else None, **style)
        panel.set(xscale="log", yscale="log", xlabel="step", title=f"{data}: {k} of 128")
        panel.set_xticks(steps, [f"{step:,}" for step in steps], rotation=45)
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("distance from the batch gradient, over uniform's")
    figure.legend(loc="outside right upper", fontsize="small")
    figure.savefig(path, dpi=90, metadata={"Software": None})
