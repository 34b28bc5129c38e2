"""The pictures that ``subsetopt train`` leaves behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from subsetopt.files import write_whole
from subsetopt_torch.experiment.comparison import Experiment

__all__ = ["write_accuracy", "write_policy_curves"]

_COLORS = ("#4d4d4d", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def write_accuracy(experiment: Experiment, path: Path) -> None:
    """Write a PNG of test accuracy against samples backpropagated, mean and range over seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for number, method in enumerate(experiment.settings.methods):
        curves = [run.curve[1:] for run in experiment.of(method)]
        work = np.mean([[point.backpropagated for point in curve] for curve in curves], axis=0)
        accuracy = 100.0 * np.array([[point.accuracy for point in curve] for curve in curves])
        color = _COLORS[number % len(_COLORS)]
        axes.plot(work, accuracy.mean(0), color=color, label=method, linewidth=1.8)
        axes.fill_between(work, accuracy.min(0), accuracy.max(0), color=color, alpha=0.15, lw=0)
    axes.set_xscale("log")
    axes.set_xlabel("samples backpropagated")
    axes.set_ylabel("test accuracy (%)")
    axes.set_title(f"{experiment.data.name}, rate {experiment.settings.rate:g}")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    write_whole(path, lambda file: figure.savefig(file, format="png"))


def write_policy_curves(experiment: Experiment, folder: Path) -> list[Path]:
    """Write a PNG per policy that remembers its steps: a panel per curve, a line per seed.

    Returns
    -------
    list
        The files: ``<policy>.png``.
    """
    written = []
    for method in experiment.settings.methods:
        runs = [run for run in experiment.of(method) if run.policy_curves]
        if runs:
            written.append(folder / f"{method}.png")
            _write_curves(method, [run.policy_curves for run in runs], written[-1])
    return written


def _write_curves(
    method: str, seeds: list[dict[str, tuple[list[int], list[float]]]], path: Path
) -> None:
    from matplotlib.figure import Figure

    labels = list(seeds[0])
    figure = Figure(figsize=(7.0, 1.2 + 1.8 * len(labels)), dpi=150, layout="constrained")
    panels = figure.subplots(len(labels), 1, sharex=True, squeeze=False)[:, 0]
    for number, (panel, label) in enumerate(zip(panels, labels, strict=True)):
        for curves in seeds:
            panel.plot(*curves[label], color=_COLORS[(number + 1) % len(_COLORS)], lw=1, alpha=0.7)
        panel.set_ylabel(label)
        panel.grid(alpha=0.3)
    panels[0].set_title(f"{method}, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}")
    panels[-1].set_xlabel("step")
    write_whole(path, lambda file: figure.savefig(file, format="png"))
