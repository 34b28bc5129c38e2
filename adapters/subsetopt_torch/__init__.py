"""Data selection in a torch training loop.

:class:`BatchSelector` turns the losses of a batch into the samples worth a backward pass;
:class:`SelectiveStep` is a whole training step around it: score, select, forward, backward,
update.

Names are loaded on first use, so that the command line can offer its commands without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subsetopt_torch.picked import Picked
    from subsetopt_torch.scoring import scoring_pass
    from subsetopt_torch.selector import BatchSelector, SelectionWarning
    from subsetopt_torch.step import SelectiveStep, StepResult, Timings

__all__ = [
    "BatchSelector",
    "Picked",
    "SelectionWarning",
    "SelectiveStep",
    "StepResult",
    "Timings",
    "scoring_pass",
]

_HOMES = {
    "BatchSelector": "selector",
    "Picked": "picked",
    "SelectionWarning": "selector",
    "SelectiveStep": "step",
    "StepResult": "step",
    "Timings": "step",
    "scoring_pass": "scoring",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
