"""The pictures of the method cards: small PNG files, the same bytes for the same runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["accuracy", "tau", "weights"]

_BASE = ("#4d4d4d", "#0072b2")
_OWN = ("#d55e00", "#009e73")
_WIDTH, _HEIGHT = 6.0, 3.5
_TICKS = (10, 50, 80, 90, 95, 98)
_SAMPLES = (100, 130_000)  # the axis is the same in every card
_POINTS = 20
_NEAR = 25  # this many steps are shown around the first and the last switch
_COLORS = 96  # a file takes a quarter of the bytes of full color and looks the same

Curves = Mapping[str, tuple[Sequence[int], Sequence[float]]]


def accuracy(runs: Mapping[str, Sequence[Any]], path: Path) -> None:
    """Draw test accuracy against samples backpropagated.

    Single epochs scatter too much to be read: a point is the mean of several, 20 points in all, and
    the band the range over these epochs and the seeds.
    """
    figure = _figure(_HEIGHT)
    axes = figure.add_subplot()
    for color, (label, found) in zip((*_BASE, *_OWN), runs.items(), strict=False):
        work, values = _grouped(found, "backpropagated"), 100.0 * _grouped(found, "accuracy")
        across, over = work.mean((0, 2)), {"axis": (0, 2)}
        axes.plot(across, values.mean(**over), color=color, label=label, lw=1.5, marker="o", ms=2.5)
        axes.fill_between(across, values.min(**over), values.max(**over), color=color, alpha=0.15,
                          lw=0)  # fmt: skip
    # Errors are on a logarithmic scale, where 90 to 95% is as far as 80 to 90%.
    axes.set_yscale("function", functions=(_stretched, _unstretched))
    axes.set(xscale="log", xlabel="samples backpropagated", ylabel="test accuracy, %",
             yticks=_TICKS, xlim=_SAMPLES, ylim=(5, 99))  # fmt: skip
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", fontsize="small")
    _write(figure, path)


def tau(runs: Sequence[tuple[Curves, float]], path: Path) -> None:
    """Draw tau, its threshold and where sampling was on: a panel per run.

    The first panel has the whole run, the others the steps around the switches.
    """
    figure = _figure(2.2 * len(runs))
    panels = figure.subplots(len(runs), 1, squeeze=False)[:, 0]
    for number, (panel, (curves, threshold)) in enumerate(zip(panels, runs, strict=True)):
        steps, values = (np.asarray(part) for part in curves["tau"])
        found = _stretches(curves["on"][1])
        shown = slice(None)
        if number and found:
            shown = slice(max(0, found[0][0] - _NEAR), found[-1][0] + _NEAR)
        panel.plot(steps[shown], values[shown], color=_BASE[1], lw=1.2, label="tau")
        panel.axhline(threshold, color=_OWN[0], ls="--", lw=1.2, label="threshold")
        for at, (first, end) in enumerate(found):
            panel.axvspan(steps[first] - 0.5, steps[end - 1] + 0.5, color=_OWN[1], alpha=0.2, lw=0,
                          label="_" if at else "on")  # fmt: skip
        panel.set(ylabel="tau", title=f"threshold {threshold:g}", xlim=steps[shown][[0, -1]])
        panel.grid(alpha=0.3)
    panels[0].legend(loc="lower right", fontsize="small")
    panels[-1].set_xlabel("step")
    _write(figure, path)


def weights(settings: Mapping[str, Curves], path: Path) -> None:
    """Draw the weights of the candidates over the steps: a panel per setting."""
    figure = _figure(2.8)
    panels = figure.subplots(1, len(settings), sharey=True, squeeze=False)[0]
    for panel, (title, curves) in zip(panels, settings.items(), strict=True):
        for color, (name, curve) in zip((_OWN[0], _OWN[1], _BASE[1]), curves.items(), strict=False):
            panel.plot(*curve, color=color, linewidth=1.2, label=name)
        panel.set(xlabel="step", title=title, ylim=(-0.03, 1.03))
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("weight")
    panels[-1].legend(fontsize="small")
    _write(figure, path)


def _grouped(runs: Sequence[Any], name: str) -> Any:
    """Return a field of the points after the first, shape (seeds, points, epochs of a point)."""
    values = np.array([[getattr(point, name) for point in run.curve[1:]] for run in runs])
    size = max(1, values.shape[1] // _POINTS)
    # The first epochs are left out, so that every point stands for equally many.
    rest = values.shape[1] % size
    return values[:, rest:].reshape(len(runs), -1, size)


def _stretches(on: Any) -> list[tuple[int, int]]:
    """Return (first, end) of every run of nonzero values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(on) != 0, [0]])))
    return [(int(first), int(end)) for first, end in edges.reshape(-1, 2)]


def _stretched(percent: Any) -> Any:
    return -np.log10(np.maximum(1e-3, 1.0 - np.asarray(percent) / 100.0))


def _unstretched(value: Any) -> Any:
    return 100.0 * (1.0 - 10.0 ** -np.asarray(value))


def _figure(height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _write(figure: Any, path: Path) -> None:
    """Write a PNG with a palette, and with no date or version in it."""
    from PIL import Image

    figure.canvas.draw()
    image = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    image.quantize(_COLORS, dither=Image.Dither.NONE).save(path, optimize=True)
