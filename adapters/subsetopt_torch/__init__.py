"""Data selection in a torch training loop.

:class:`BatchSelector` turns the losses of a batch into the samples worth a backward pass;
:class:`SelectiveStep` is a whole training step around it: score, select, forward, backward,
update. :class:`SubsetBatchSampler` chooses over the data set, before anything is loaded.

Names are loaded on first use, so that the command line can offer its commands without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from subsetopt_torch.loading.sampler import SubsetBatchSampler
    from subsetopt_torch.loading.with_ids import WithIds
    from subsetopt_torch.model.scoring_pass import scoring_pass
    from subsetopt_torch.proxies.irreducible import irreducible_losses
    from subsetopt_torch.proxies.proxy import ProxyScores, train_proxy
    from subsetopt_torch.recorded.records import RecordedUse
    from subsetopt_torch.recorded.settings import RecordedScores
    from subsetopt_torch.selection.picked import Picked
    from subsetopt_torch.selection.presample import Presample
    from subsetopt_torch.selection.selector import BatchSelector, SelectionWarning
    from subsetopt_torch.signals.sample_gradients import gradient_norms
    from subsetopt_torch.training.result import StepResult
    from subsetopt_torch.training.step import SelectiveStep
    from subsetopt_torch.training.timings import Timings

__all__ = [
    "BatchSelector",
    "Picked",
    "Presample",
    "ProxyScores",
    "RecordedScores",
    "RecordedUse",
    "SelectionWarning",
    "SelectiveStep",
    "StepResult",
    "SubsetBatchSampler",
    "Timings",
    "WithIds",
    "gradient_norms",
    "irreducible_losses",
    "scoring_pass",
    "train_proxy",
]

_HOMES = {
    "BatchSelector": "selection.selector",
    "Picked": "selection.picked",
    "Presample": "selection.presample",
    "ProxyScores": "proxies.proxy",
    "RecordedScores": "recorded.settings",
    "RecordedUse": "recorded.records",
    "SelectionWarning": "selection.selector",
    "SelectiveStep": "training.step",
    "StepResult": "training.result",
    "SubsetBatchSampler": "loading.sampler",
    "Timings": "training.timings",
    "WithIds": "loading.with_ids",
    "gradient_norms": "signals.sample_gradients",
    "irreducible_losses": "proxies.irreducible",
    "scoring_pass": "model.scoring_pass",
    "train_proxy": "proxies.proxy",
}


if not TYPE_CHECKING:  # a type checker that saw it would take a misspelt name for Any

    def __getattr__(name: str) -> object:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
