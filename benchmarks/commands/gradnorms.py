"""The time that exact gradient norms take, beside a plain backward pass, and their error."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.harness.command import command
from benchmarks.harness.output import Result, bar

__all__ = ["gradnorms"]

# The relative error from which on the norms count as wrong.
_LARGEST_ERROR = 1e-5


@command
def gradnorms(
    batch: Annotated[int, typer.Option(help="Samples in a batch.")] = 128,
    repeats: Annotated[int, typer.Option(help="Timings of each; the least counts.")] = 20,
    threads: Annotated[int, typer.Option(help="Threads of torch.")] = 1,
) -> Result:
    """Time exact gradient norms against a plain backward pass, and compare them with a loop."""
    from subsetopt_torch import gradient_norms
    from subsetopt_torch.experiment.comparison import torch_threads

    settings = {"batch": batch, "repeats": repeats, "threads": threads}
    result = Result("gradnorms", "Exact gradient norms", settings)
    rows, cases = [], _cases(batch)
    with torch_threads(threads), bar() as progress:
        task = progress.add_task("", total=len(cases))
        for name, (model, loss_fn, x, y) in cases.items():
            progress.update(task, description=name)
            model.eval()
            errors = [_error(model, loss_fn, x, y, wide) for wide in (True, False)]
            forward, backward, ours = _times(
                repeats,
                lambda m=model, x=x: m(x),
                _backward_of(model, loss_fn, x, y),
                lambda m=model, f=loss_fn, x=x, y=y: gradient_norms(m, f, x, y),
            )
            rows.append([name, f"{1e3 * forward:.2f}", f"{1e3 * backward:.2f}",
                         f"{1e3 * ours:.2f}", f"{ours / backward:.2f}",
                         *(f"{error:.1e}" for error in errors)])  # fmt: skip
            result.refuted += errors[0] > _LARGEST_ERROR
            progress.advance(task)
    columns = ("model", "forward, ms", "backward, ms", "norms, ms", "in backward passes",
               "error, float64", "error, float32")  # fmt: skip
    result.table("Least times, and the largest relative error against the loop", columns, rows)
    result.notes.append(
        "Backward: what `loss.mean().backward()` takes after the forward. Norms: everything that "
        "`gradient_norms` does, its own forward included; at most 2 backward passes are wanted for "
        "the first two. Error: against one backward pass per sample, both in this precision; in "
        "float32 an activation near 0 may round to the other side."
    )
    return result


def _cases(n: int) -> dict[str, Any]:
    import torch
    from torch import nn

    torch.manual_seed(0)
    cross_entropy = nn.CrossEntropyLoss(reduction="none")
    digits = nn.Sequential(
        nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
    )
    labels = torch.randint(0, 10, (n,))
    return {
        "digits MLP": (digits, cross_entropy, torch.rand(n, 64), labels),
        "ResNet, 8 layers, 32 x 32": (_resnet(), cross_entropy, torch.rand(n, 3, 32, 32), labels),
        "transformer, 2 layers of 64": (
            _transformer(), cross_entropy, torch.randint(0, 100, (n, 32)), labels,
        ),
    }  # fmt: skip


def _resnet() -> Any:
    """Return a residual network of three blocks, 16 to 64 channels."""
    from torch import nn

    class Block(nn.Module):
        def __init__(self, width: int, out: int, stride: int) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(width, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU(),
                nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out),
            )  # fmt: skip
            self.skip = nn.Conv2d(width, out, 1, stride, bias=False)

        def forward(self, x: Any) -> Any:
            return (self.body(x) + self.skip(x)).relu()

    stem = (nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    blocks = (Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2))
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def _transformer() -> Any:
    """Return a classifier of token sequences, its embedding of positions included."""
    import torch
    from torch import nn

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.positions = nn.Embedding(100, 64), nn.Embedding(32, 64)
            layer = nn.TransformerEncoderLayer(64, 4, 128, 0.0, batch_first=True)
            self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.last = nn.Linear(64, 10)

        def forward(self, x: Any) -> Any:
            at = torch.arange(x.shape[1], device=x.device)[None]
            return self.last(self.layers(self.tokens(x) + self.positions(at)).mean(1))

    return Classifier()


def _backward_of(model: Any, loss_fn: Any, x: Any, y: Any) -> Callable[[], float]:
    """Return a function that makes a plain step's forward and backward and times the backward."""

    def run() -> float:
        model.zero_grad(set_to_none=True)
        loss = loss_fn(model(x), y).mean()
        start = time.perf_counter()
        loss.backward()
        return time.perf_counter() - start

    return run


def _times(repeats: int, *functions: Callable[[], Any]) -> list[float]:
    """Return the least time of each function, run in turn; its own, if it returns one."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats):
        for column, function in zip(times, functions, strict=True):
            start = time.perf_counter()
            own = function()
            column.append(own if isinstance(own, float) else time.perf_counter() - start)
    return [min(column) for column in times]


def _error(model: Any, loss_fn: Any, x: Any, y: Any, wide: bool) -> float:
    """Return the largest relative difference from one backward pass per sample."""
    import torch

    from subsetopt_torch import gradient_norms

    dtype = torch.float64 if wide else torch.float32
    model = copy.deepcopy(model).to(dtype)
    x = x.to(dtype) if x.is_floating_point() else x
    norms = gradient_norms(model, loss_fn, x, y).double().numpy()
    expected = []
    for i in range(len(x)):
        loss = loss_fn(model(x[i : i + 1]), y[i : i + 1]).sum()
        found = torch.autograd.grad(loss, list(model.parameters()))
        expected.append(float(torch.cat([g.double().flatten() for g in found]).norm()))
    reference = np.array(expected)
    return float((np.abs(norms - reference) / reference).max())
