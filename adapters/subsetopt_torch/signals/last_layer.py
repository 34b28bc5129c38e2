"""The last linear layer of a model: what goes into it, and the gradients of its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from subsetopt import OptionError, ProblemError
from subsetopt.errors import did_you_mean

__all__ = ["Call", "LastLayer"]

# Puts logits, or gradients of their shape, in the order in which the layer made them.
Arrange: TypeAlias = Callable[[Tensor], Tensor]


class Call(NamedTuple):
    """One call of a linear layer, with the version of its output, which in-place changes raise."""

    layer: nn.Linear
    features: Tensor
    output: Tensor
    version: int


class LastLayer:
    """Finds the linear layer that makes a model's logits, and gives what follows from its input.

    All linear layers are watched in the first forward, and from then on only the one that made the
    logits.

    Parameters
    ----------
    model
        The model; one of its ``nn.Linear`` modules makes the logits.
    layer
        That module or its name; None finds the last one whose output is the logits.

    Raises
    ------
    OptionError
        If the layer named is not a linear layer of the model.
    """

    def __init__(self, model: nn.Module, layer: nn.Linear | str | None = None) -> None:
        self.model = model
        self._named = None if layer is None else _layer_of(model, layer)
        # The layer that makes the logits, and the order in which it makes them, once known.
        self._known: nn.Linear | None = None
        self._arrange: Arrange = _as_it_is

    @contextmanager
    def recording(self) -> Iterator[list[Call]]:
        """Record the calls of the watched layers until the context is left."""
        calls: list[Call] = []

        def record(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
        ) -> None:
            assert isinstance(module, nn.Linear)
            features: Tensor = args[0] if args else kwargs["input"]
            calls.append(Call(module, features.detach(), output, output._version))

        handles = []
        try:
            for layer in self._watched():
                handles.append(layer.register_forward_hook(record, with_kwargs=True))
            yield calls
        finally:
            for handle in handles:
                handle.remove()

    def features(self, calls: list[Call], logits: Tensor | None, n: int) -> Tensor:
        """Return what went into the layer, shape (n, H), averaged over positions if it has any.

        The layer is the one named; where none is, the one that made the logits; where none did,
        the last one called.

        Raises
        ------
        ProblemError
            If no such layer was called, or not with n rows.
        """
        call = None if self._named or logits is None else self._maker(calls, logits)
        if call is None and not calls:
            raise ProblemError(_UNSEEN)
        features = (calls[-1] if call is None else call).features
        if features.ndim < 2 or features.shape[0] % n:
            raise ProblemError(
                f"the last linear layer was called with shape {tuple(features.shape)} for {n} "
                "samples; name one that gets one row per sample: last_layer=."
            )
        if features.ndim == 2 and features.shape[0] == n:
            return features
        return features.reshape(n, -1, features.shape[-1]).mean(1)

    def gradients(self, calls: list[Call], logits: Tensor, gradients: Tensor) -> Tensor:
        """Return the gradients of each sample's loss with respect to the layer's parameters.

        For a layer that is applied once per sample this is the outer product of logit gradient and
        features; for one that is applied at several positions, the sum of these products.

        Parameters
        ----------
        calls
            The calls that were recorded in the forward.
        logits
            The logits, shape (n, C) or (n, ...).
        gradients
            Gradients of the losses with respect to the logits, of their shape.

        Returns
        -------
        Tensor
            Shape (n, C * H), column c * H + h for the weight (c, h); (n, C * H + C) with a bias.

        Raises
        ------
        ProblemError
            If the logits are not the output of a linear layer, or of one called more than once.
        """
        call = self._maker(calls, logits)
        if call is None:
            raise ProblemError(_UNMADE if calls else _UNSEEN)
        if sum(other.layer is call.layer for other in calls) > 1:
            raise ProblemError(
                "the last linear layer was called more than once in a forward: the gradients of "
                "its weights do not follow from one of the calls."
            )
        n, (classes, width) = logits.shape[0], call.layer.weight.shape
        by_layer = self._arrange(gradients).reshape(n, -1, classes)
        features = call.features.reshape(n, -1, width).to(by_layer.dtype)
        with torch.autocast(logits.device.type, enabled=False):
            outer = torch.bmm(by_layer.transpose(1, 2), features).flatten(1)
        return outer if call.layer.bias is None else torch.cat((outer, by_layer.sum(1)), 1)

    def _maker(self, calls: list[Call], logits: Tensor) -> Call | None:
        """Return the last call that made the logits."""
        for same in (_in_place, _in_value):
            for call in reversed(calls):
                if call.layer is self._known and call.output.numel() == logits.numel():
                    return call
                for arrange in (_as_it_is, _classes_last):
                    if same(call, arrange(logits)):
                        self._known, self._arrange = call.layer, arrange
                        return call
        return None

    def _watched(self) -> list[nn.Linear]:
        if self._named is not None:
            return [self._named]
        linear = [module for module in self.model.modules() if isinstance(module, nn.Linear)]
        known = [module for module in linear if module is self._known]
        return known or linear  # all of them again where the model has been rebuilt


def _as_it_is(logits: Tensor) -> Tensor:
    return logits


def _classes_last(logits: Tensor) -> Tensor:
    """Return logits with classes in dimension 1 as a layer makes them: classes last."""
    return logits.movedim(1, -1) if logits.ndim > 2 else logits


def _in_place(call: Call, logits: Tensor) -> bool:
    """Return whether logits and output are the same memory, in the same order."""
    output = call.output
    if output.data_ptr() != logits.data_ptr() or output.numel() != logits.numel():
        return False
    alike = output.shape == logits.shape and output.stride() == logits.stride()
    return call.version == output._version and (
        alike or (output.is_contiguous() and logits.is_contiguous())
    )


def _in_value(call: Call, logits: Tensor) -> bool:
    """Return whether the logits are a copy of the output, possibly in another precision."""
    output = call.output.detach()
    if output.numel() != logits.numel() or call.version != output._version:
        return False
    values = output.to(logits.dtype).reshape(logits.shape)
    return bool(((values == logits) | (values.isnan() & logits.isnan())).all())


def _layer_of(model: nn.Module, layer: nn.Linear | str) -> nn.Linear:
    """Return the linear layer of a model that is meant.

    Raises
    ------
    OptionError
        If the model has no such layer.
    """
    linear = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    named = linear.get(layer) if isinstance(layer, str) else layer
    if named is None or not any(named is module for module in linear.values()):
        shown = repr(layer) if isinstance(layer, str) else f"a {type(layer).__name__}"
        raise OptionError(
            f"last_layer must be a linear layer of the model, or its name, got {shown}."
            f"{did_you_mean(layer, linear)} There are: {', '.join(map(repr, linear)) or 'none'}."
        )
    return named


_UNSEEN = (
    "no call of a linear layer was seen in the forward: 'features' and 'last_layer_gradients' need "
    "a model that calls an nn.Linear and runs the hooks on it, which torch.compile may leave out."
)
_UNMADE = (
    "'last_layer_gradients' need logits that are the output of an nn.Linear (of last_layer, where "
    "it is given), but the model returns something else. Return its output as it is, and leave "
    "further arithmetic to loss_fn."
)
