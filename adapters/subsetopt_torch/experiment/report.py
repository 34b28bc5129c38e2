"""The report of ``subsetopt train``: a table and a JSON file."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich import box
from rich.table import Table

import subsetopt as so
from subsetopt.files import write_whole
from subsetopt_torch.experiment.comparison import Experiment, Run

__all__ = ["check_writable", "table", "write_json"]


def table(experiment: Experiment) -> Table:
    """Return one row per method: means over the seeds. 80 columns hold every number whole."""
    settings = experiment.settings
    report = Table(
        title=f"{experiment.data.name}: rate {settings.rate:g}, {settings.epochs} epochs, "
        f"batch {settings.batch_size}, SGD {settings.lr:g}, {settings.seeds} seed(s)",
        caption=f"{experiment.steps_per_run:,} steps per run. acc.: test accuracy, mean; spread: "
        "largest minus smallest over the seeds; s: mean seconds per run; train: forward, backward, "
        "update; residual: |batch mean - subset mean| / mean|l|.",
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
    )
    report.add_column("\nmethod", overflow="fold")
    for heading in (
        "\nacc. %",
        "\nspread",
        "samples\ntrained",
        "score\ns",
        "select\ns",
        "train\ns",
        "resid.\nmedian",
        "resid.\nworst",
    ):
        report.add_column(heading, justify="right", no_wrap=True)
    for method in settings.methods:
        report.add_row(method, *_cells(experiment.of(method)))
    return report


def write_json(experiment: Experiment, path: Path) -> None:
    """Write settings, versions and every run, all at once or not at all."""
    content = {
        "settings": asdict(experiment.settings),
        "data": {
            "name": experiment.data.name,
            "train": len(experiment.data.train_x),
            "test": len(experiment.data.test_x),
        },
        "machine": _machine(),
        "runs": [run.to_dict() for run in experiment.runs],
    }
    write_whole(
        path, lambda file: file.write((json.dumps(_no_nan(content), indent=1) + "\n").encode())
    )


def check_writable(folder: Path) -> None:
    """Make a folder, and raise now if nothing can be written into it.

    Raises
    ------
    OptionError
        If nothing can be written there, with the reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise so.OptionError(
            f"cannot write into {folder}: {error.strerror or error}. Pass another --out."
        ) from None


def _cells(runs: list[Run]) -> list[str]:
    accuracy = [100.0 * run.accuracy for run in runs]
    residuals = np.concatenate([np.array(run.residuals) for run in runs])
    return [
        f"{np.mean(accuracy):.2f}",
        f"{max(accuracy) - min(accuracy):.2f}",
        f"{np.mean([run.backpropagated for run in runs]):,.0f}",
        *(_seconds(runs, part) for part in ("scoring", "selection")),
        f"{np.mean([run.seconds['training'] + run.seconds['update'] for run in runs]):.2f}",
        f"{np.median(residuals):.1e}" if residuals.size else "-",
        f"{residuals.max():.1e}" if residuals.size else "-",
    ]


def _seconds(runs: list[Run], part: str) -> str:
    mean = float(np.mean([run.seconds[part] for run in runs]))
    return f"{mean:.2f}" if mean > 0.0 else "-"


def _machine() -> dict[str, Any]:
    return {
        "subsetopt": so.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "numba": importlib.metadata.version("numba"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
    }


def _no_nan(value: object) -> object:
    """Return a JSON value with None in place of numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _no_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_no_nan(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
