"""The calls of a model's layers in one forward, and what follows from them for each sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.parametrize import is_parametrized

from subsetopt_torch.model.batches import Rows, map_rows, per_sample, take_rows, tensors_of
from subsetopt_torch.signals.layer_gradients import (
    CONVOLUTIONS,
    Gradients,
    Rule,
    at_least_single,
    convolution_squares,
    lookup_squares,
    product_squares,
    rule_of,
    squared_norms,
    without_padding,
)

__all__ = [
    "LayerCall",
    "UnclearRowsError",
    "chunk_bytes",
    "parameters_replaced",
    "recorded_calls",
    "squares_of_calls",
]

# Bytes of per-sample gradients that are held at a time, by device type and for all other types.
# A CPU makes them fastest while they stay in its cache.
_CHUNK_BYTES = {"cpu": 2**21}
_OTHER_CHUNK_BYTES = 2**28

# Which parameter it is: the object's id, equal for one that several layers share.
_Key: TypeAlias = int


class UnclearRowsError(Exception):
    """It cannot be told which rows of a layer's input or output belong to which sample."""


@dataclass(slots=True)
class LayerCall:
    """One call of a layer.

    Attributes
    ----------
    layer
        The layer, which has a closed form, or else is taken as a whole with what is in it.
    rule
        Its closed form; None for a layer without.
    trained
        The parameters that are trained, by their names in the layer.
    inputs
        The positional and keyword arguments of the call.
    edges
        Where the gradients of the outputs arrive: one for each tensor in them that has one.
    places
        Which of the tensors in the outputs these are.
    version
        The version of the first input, which in-place changes raise.
    is_spread
        Whether the output was one for all samples, and got a row for each.
    gradients
        The gradients with respect to the outputs, one for each edge, once they are known.
    """

    layer: nn.Module
    rule: Rule | None
    trained: dict[str, nn.Parameter]
    inputs: tuple[tuple[Any, ...], dict[str, Any]]
    edges: list[GradientEdge]
    places: list[int]
    version: int
    is_spread: bool
    gradients: list[Tensor]

    @property
    def features(self) -> Tensor:
        """The tensor that a layer with a closed form reads."""
        args, keywords = self.inputs
        tensor: Tensor = args[0] if args else keywords["input"]
        return tensor

    def receive(self, gradients: Sequence[Tensor | None]) -> None:
        """Take the gradients with respect to the outputs, and forget outputs without."""
        arrived = [(i, g) for i, g in enumerate(gradients) if g is not None]
        self.places = [self.places[i] for i, _ in arrived]
        self.gradients = [g for _, g in arrived]

    def rows(self, n: int) -> Rows:
        """Return which parts of the input have rows of each of n samples.

        Raises
        ------
        UnclearRowsError
            If inputs and outputs do not have equally many rows of each sample, or the input was
            changed after the call.
        """
        name = type(self.layer).__name__
        read = [self.features] if self.rule else list(tensors_of(self.inputs))
        if read and read[0]._version != self.version:
            raise UnclearRowsError(f"the input of a layer {name} is changed in place")
        if self.rule:
            rows = self.features.shape[0] if self.features.ndim else 0
            good = bool(rows) and rows % n == 0 and self.gradients[0].shape[0] == rows
        elif self.layer.training:
            raise UnclearRowsError(
                f"a layer {name} is in training mode and may draw anew when it is asked again"
            )
        else:
            good = any(tensor.ndim and tensor.shape[0] == n for tensor in read)
            good = good and all(g.ndim and g.shape[0] == n for g in self.gradients)
        if not good:
            raise UnclearRowsError(f"a layer {name} has no rows of its own for each sample")
        if self.rule:
            return [rows == n, self.is_spread]
        return per_sample(self.inputs, n)

    def of_samples(self, samples: slice, n: int, wanted: frozenset[str]) -> Gradients:
        """Return the gradients of some of n samples with respect to the parameters wanted."""
        if self.rule is None:
            return self._as_a_whole(samples, n, wanted)
        count = samples.stop - samples.start
        x, g = self.features, self.gradients[0]
        if count < n:
            x, g = (_rows_of(part, samples, n) for part in (x, g))
        x = at_least_single(x) if x.is_floating_point() else x
        return self.rule(self.layer, x, at_least_single(g), count, wanted)

    def _as_a_whole(self, samples: slice, n: int, wanted: frozenset[str]) -> Gradients:
        has_rows = per_sample(self.inputs, n)
        at = torch.arange(n)[samples]
        inputs = take_rows(self.inputs, at, has_rows)
        gradients = [g[samples] for g in self.gradients]
        parameters = {name: self.trained[name] for name in wanted}
        made = None
        if not isinstance(self.layer, nn.RNNBase):  # vmap does not take these
            made = self._by_vmap(inputs, has_rows, gradients, parameters)
        return made or self._by_loop(inputs, has_rows, gradients, parameters)

    def _by_vmap(
        self,
        inputs: Any,
        has_rows: Any,
        gradients: list[Tensor],
        parameters: dict[str, nn.Parameter],
    ) -> Gradients | None:
        """Return the gradients from one vectorized pass over the layer; None if it fails."""
        leaves: list[Tensor] = []
        map_rows(leaves.append, has_rows, inputs)

        def of_one(rows: list[Tensor], by_outputs: list[Tensor]) -> Gradients:
            left = iter(rows)
            single = map_rows(lambda leaf: next(left).unsqueeze(0), has_rows, inputs)

            def outputs_of(values: dict[str, Tensor]) -> tuple[Tensor, ...]:
                with parameters_replaced(
                    self.layer, {id(parameters[name]): value for name, value in values.items()}
                ):
                    return self._outputs(single)

            detached = {name: parameter.detach() for name, parameter in parameters.items()}
            pull = vjp(outputs_of, detached)[1]
            pulled: Gradients = pull(tuple(g.unsqueeze(0) for g in by_outputs))[0]
            return pulled

        try:
            # The attention of other backends is not vectorized.
            with sdpa_kernel(SDPBackend.MATH):
                made: Gradients = vmap(of_one)(leaves, gradients)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception:
            return None
        return made

    def _by_loop(
        self,
        inputs: Any,
        has_rows: Any,
        gradients: list[Tensor],
        parameters: dict[str, nn.Parameter],
    ) -> Gradients:
        """Return the gradients from one backward pass through the layer for each sample."""
        made: list[list[Tensor]] = []
        for i in range(gradients[0].shape[0]):
            single = take_rows(inputs, torch.tensor([i]), has_rows)
            with torch.enable_grad():
                outputs = self._outputs(single)
            found = torch.autograd.grad(
                outputs,
                list(parameters.values()),
                [g[i : i + 1] for g in gradients],
                allow_unused=True,
                materialize_grads=True,
            )
            made.append(list(found))
        return {
            name: torch.stack(rows)
            for name, rows in zip(parameters, zip(*made, strict=True), strict=True)
        }

    def _outputs(self, inputs: tuple[tuple[Any, ...], dict[str, Any]]) -> tuple[Tensor, ...]:
        """Return the tensors among the outputs for other inputs."""
        args, keywords = inputs
        tensors = list(tensors_of(self.layer(*args, **keywords)))
        return tuple(tensors[place] for place in self.places)


def chunk_bytes(device: torch.device) -> int:
    """Return how many bytes of per-sample gradients are held at a time on a device."""
    return _CHUNK_BYTES.get(device.type, _OTHER_CHUNK_BYTES)


@contextmanager
def recorded_calls(model: nn.Module, n: int) -> Iterator[list[LayerCall]]:
    """Record the calls of all layers that have trained parameters, until the context is left.

    An embedding of something that all n samples share (their positions) gets a row for each sample
    in its output, so that the samples' gradients arrive apart.

    Raises
    ------
    UnclearRowsError
        If the model itself has parameters, so that it would have to be taken as a whole.
    """
    calls: list[LayerCall] = []

    def hook_of(rule: Rule | None, trained: dict[str, nn.Parameter]) -> Callable[..., Any]:
        def record(layer: nn.Module, args: Any, keywords: Any, output: Any) -> Any:
            is_spread = isinstance(layer, nn.Embedding) and _is_shared(args, n)
            if is_spread:
                args, output = (_spread(args[0], n, 1),), _spread(output, n, 2)
            tensors = list(tensors_of(output))
            places = [i for i, tensor in enumerate(tensors) if tensor.requires_grad]
            if not places:
                return output
            inputs = _detached((args, keywords))
            first = next(tensors_of(inputs), None)
            calls.append(
                LayerCall(
                    layer,
                    rule,
                    trained,
                    inputs,
                    # An in-place change of the output leads to another tensor, but not to
                    # another edge.
                    [get_gradient_edge(tensors[i]) for i in places],
                    places,
                    0 if first is None else first._version,
                    is_spread,
                    [],
                )
            )
            return output

        return record

    handles = []
    try:
        for layer, rule, trained in _layers(model):
            if layer is model and rule is None:
                raise UnclearRowsError(
                    f"the model {type(model).__name__} has parameters of its own"
                )
            hook = hook_of(rule, trained)
            handles.append(layer.register_forward_hook(hook, prepend=True, with_kwargs=True))
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def squares_of_calls(calls: Sequence[LayerCall], trained: Sequence[nn.Parameter], n: int) -> Tensor:
    """Return the squared norms of n samples' gradients by parameter, shape (parameters, n).

    A parameter that several calls use has the norm of the sum of their gradients.
    """
    uses: dict[_Key, list[tuple[LayerCall, str]]] = {}
    for call in calls:
        for name, parameter in call.trained.items():
            uses.setdefault(id(parameter), []).append((call, name))
    squares: dict[_Key, Tensor] = {}
    for key, calls_of_one in uses.items():
        closed = _without_gradients(calls_of_one, n)
        if closed is not None:
            squares[key] = closed
    for group in _groups(calls, uses, done=squares.keys()):
        _add_squares(group, squares, n)
    first = trained[0]
    zero = torch.zeros(n, device=first.device, dtype=at_least_single(first).dtype)
    rows = [squares.get(id(parameter), zero) for parameter in trained]
    if len({(row.dtype, row.device) for row in rows}) > 1:
        widest = max((row.dtype for row in rows), key=lambda dtype: dtype.itemsize)
        rows = [row.to(first.device, widest) for row in rows]
    return torch.stack(rows)


@contextmanager
def parameters_replaced(model: nn.Module, values: Mapping[_Key, Tensor]) -> Iterator[None]:
    """Let a model compute with other values for its parameters, which are given by their ids.

    Every module is changed once, also one that is registered under two names, and is given its own
    parameters back.
    """
    before = [
        (module, name, parameter)
        for module in model.modules()
        for name, parameter in module._parameters.items()
        if id(parameter) in values
    ]
    try:
        for module, name, parameter in before:
            module._parameters[name] = values[id(parameter)]  # type: ignore[assignment]
        yield
    finally:
        for module, name, parameter in before:
            module._parameters[name] = parameter


def _layers(
    module: nn.Module,
) -> Iterator[tuple[nn.Module, Rule | None, dict[str, nn.Parameter]]]:
    """Yield the layers to be watched: with their closed form, or as a whole with all within."""
    seen: set[int] = set()

    def visit(module: nn.Module) -> Iterator[tuple[nn.Module, Rule | None, dict[str, Any]]]:
        if id(module) in seen:
            return
        seen.add(id(module))
        rule = rule_of(module)
        own = [p for p in module._parameters.values() if p is not None and p.requires_grad]
        if rule is not None or own or is_parametrized(module):
            named = module._parameters.items() if rule else module.named_parameters()
            trained = {name: p for name, p in named if p is not None and p.requires_grad}
            if trained:
                yield module, rule, trained
            return
        for child in module.children():
            yield from visit(child)

    return visit(module)


def _without_gradients(uses: Sequence[tuple[LayerCall, str]], n: int) -> Tensor | None:
    """Return squared norms for a parameter whose gradients need not be made; None if they must."""
    kinds, names = {type(call.layer) for call, _ in uses}, {name for _, name in uses}
    if len(names) > 1 or len(kinds) > 1 or any(call.rule is None for call, _ in uses):
        return None
    pairs = [(call.features, at_least_single(call.gradients[0])) for call, _ in uses]
    if names == {"bias"}:
        if kinds != {nn.Linear}:
            return None
        sums = [g.reshape(n, -1, g.shape[-1]).sum(1) for _, g in pairs]
        return squared_norms(sums[0] if len(sums) == 1 else torch.stack(sums).sum(0))
    layer, (x, g) = uses[0][0].layer, pairs[0]
    if isinstance(layer, nn.Linear):
        pairs = [(at_least_single(x), g) for x, g in pairs]
        return product_squares(*(_at_positions(parts, n) for parts in zip(*pairs, strict=True)))
    if isinstance(layer, nn.Embedding):
        found = [without_padding(layer, x, g) for x, g in pairs]
        tokens = _at_positions([x[..., None] for x, _ in pairs], n)[..., 0]
        return lookup_squares(tokens, _at_positions(found, n), layer.num_embeddings)
    if isinstance(layer, CONVOLUTIONS) and len(uses) == 1 and x.shape[0] == n:
        return convolution_squares(layer, at_least_single(x), g)
    return None


def _at_positions(parts: Sequence[Tensor], n: int) -> Tensor:
    """Return rows of several calls as one tensor, shape (n, positions, width)."""
    rows = [part.reshape(n, -1, part.shape[-1]) for part in parts]
    return rows[0] if len(rows) == 1 else torch.cat(rows, 1)


_Group: TypeAlias = "list[tuple[LayerCall, frozenset[str]]]"


def _groups(
    calls: Sequence[LayerCall], uses: Mapping[_Key, Sequence[Any]], done: Any
) -> Iterator[_Group]:
    """Yield the calls that have gradients to be made: one by one, or all that share parameters."""
    shared: _Group = []
    for call in calls:
        wanted = {name for name, p in call.trained.items() if id(p) not in done}
        if any(len(uses[id(call.trained[name])]) > 1 for name in wanted):
            shared.append((call, frozenset(wanted)))
        elif wanted:
            yield [(call, frozenset(wanted))]
    if shared:
        yield shared


def _add_squares(group: _Group, squares: dict[_Key, Tensor], n: int) -> None:
    """Make the gradients of a group of calls, some samples at a time, and take up their norms."""
    parameters = {
        id(call.trained[name]): call.trained[name] for call, names in group for name in names
    }
    each = sum(p.numel() * max(4, p.itemsize) for p in parameters.values())
    device = next(iter(parameters.values())).device
    chunk = max(1, chunk_bytes(device) // max(1, each))
    found: dict[_Key, list[Tensor]] = {key: [] for key in parameters}
    for start in range(0, n, chunk):
        sums: dict[_Key, Tensor] = {}
        for call, wanted in group:
            samples = slice(start, min(start + chunk, n))
            for name, gradients in call.of_samples(samples, n, wanted).items():
                key = id(call.trained[name])
                gradients = at_least_single(gradients)
                sums[key] = sums[key] + gradients if key in sums else gradients
        for key, gradients in sums.items():
            found[key].append(squared_norms(gradients))
    squares.update(
        {key: parts[0] if len(parts) == 1 else torch.cat(parts) for key, parts in found.items()}
    )


def _is_shared(args: tuple[Any, ...], n: int) -> bool:
    """Return whether an embedding looks up the same for all n samples."""
    if not args or n == 1 or not args[0].ndim:
        return False
    tokens = args[0]
    return bool(tokens.shape[0] == 1 if tokens.ndim > 1 else tokens.shape[0] % n)


def _spread(values: Tensor, n: int, dims: int) -> Tensor:
    """Return values of ``dims`` dimensions, perhaps after one of length 1, once for each sample."""
    rows = values[None] if values.ndim == dims else values
    return rows.expand(n, *rows.shape[1:])


def _rows_of(part: Tensor, samples: slice, n: int) -> Tensor:
    """Return the rows that belong to some of n samples."""
    return part.reshape(n, -1, *part.shape[1:])[samples].flatten(0, 1)


def _detached(part: Any) -> Any:
    """Return arguments with every tensor without its gradient; the memory is the same."""
    if isinstance(part, Tensor):
        return part.detach()
    if isinstance(part, Mapping):
        return {key: _detached(value) for key, value in part.items()}
    if isinstance(part, (tuple, list)) and not hasattr(part, "_fields"):
        return type(part)(_detached(value) for value in part)
    return part
