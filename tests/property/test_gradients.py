"""Closed-form gradients against slow twins in 60 digits and against torch's autograd."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import subsetopt as so
from subsetopt.policies import (
    binary_cross_entropy_gradients,
    cross_entropy_gradients,
    row_norms,
    squared_error_gradients,
)

torch = pytest.importorskip("torch")
from torch.nn import functional  # noqa: E402

KINDS: dict[str, Callable[[Any], Any]] = {"numpy": np.asarray, "torch": torch.as_tensor}
DTYPES = st.sampled_from(["float32", "float64"])
RTOL = {"float32": 1e-4, "float64": 1e-9}
IGNORED = -100


@st.composite
def scores(draw: st.DrawFn, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Draw logits: spread out, tied, far apart (certain), and large."""
    shape = draw(st.tuples(st.integers(0, 5), st.integers(1, 6))) if shape is None else shape
    dtype = draw(DTYPES)
    elements = draw(
        st.sampled_from(
            [
                st.floats(-5.0, 5.0, width=32),
                st.sampled_from([0.0, 1.0, -1.0]),
                st.floats(-40.0, 40.0, width=32),
                st.floats(-3e4, 3e4, width=16),
            ]
        )
    )
    return draw(hnp.arrays(dtype, shape, elements=elements))


@st.composite
def classified(draw: st.DrawFn, probabilities: bool) -> tuple[np.ndarray, np.ndarray]:
    logits = draw(scores())
    n, classes = logits.shape
    if not probabilities:
        numbers = st.sampled_from([*range(classes), IGNORED])
        return logits, draw(hnp.arrays(np.int64, n, elements=numbers))
    raw = draw(hnp.arrays(np.float64, (n, classes), elements=st.floats(0.0, 1.0, width=16)))
    raw[:, 0] += raw.sum(axis=1) == 0.0
    return logits, (raw / raw.sum(axis=1, keepdims=True)).astype(logits.dtype)


@st.composite
def weightings(draw: st.DrawFn, classes: int, dtype: np.dtype) -> dict[str, Any]:
    weights = hnp.arrays(dtype, classes, elements=st.floats(0.0, 8.0, width=16))
    return {
        "label_smoothing": draw(st.sampled_from([0.0, 0.1, 0.5, 1.0])),
        "class_weights": draw(st.none() | weights),
    }


def softmax_twin(row: np.ndarray) -> list[Decimal]:
    powers = [Decimal(float(z)).exp() for z in row]
    return [power / sum(powers) for power in powers]


def cross_entropy_twin(
    logits: np.ndarray,
    targets: np.ndarray,
    label_smoothing: float = 0.0,
    class_weights: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradients, and the size of the terms that each is a difference of."""
    n, classes = logits.shape
    gradients, sizes = np.zeros((n, classes)), np.zeros((n, classes))
    smoothing = Decimal(label_smoothing)
    with localcontext() as context:
        context.prec, context.Emin = 60, -100_000
        for i in range(n):
            if targets.ndim == 1 and targets[i] == IGNORED:
                continue
            p = softmax_twin(logits[i])
            q = []
            for c in range(classes):
                y = Decimal(float(targets[i, c] if targets.ndim == 2 else targets[i] == c))
                w = Decimal(1 if class_weights is None else float(class_weights[c]))
                q.append(w * ((1 - smoothing) * y + smoothing / classes))
            for j in range(classes):
                # loss = -sum_c q_c log p_c, and d log p_c / d z_j = [c = j] - p_j
                rest = sum(p[c] for c in range(classes) if c != j)  # 1 - p_j, beyond 60 digits
                terms = [q[c] * (-rest if c == j else p[j]) for c in range(classes)]
                gradients[i, j] = float(sum(terms))
                sizes[i, j] = float(sum(q)) * float(p[j]) + float(q[j])
    return gradients, sizes


def converted(kind: str, keywords: dict[str, Any]) -> dict[str, Any]:
    return {k: KINDS[kind](v) if isinstance(v, np.ndarray) else v for k, v in keywords.items()}


def assert_near(ours: Any, twin: np.ndarray, dtype: np.dtype, slack: Any = 0.0) -> None:
    ours = np.asarray(ours)
    assert ours.dtype == dtype and ours.shape == twin.shape
    tiny = 1e-30 if dtype == np.float32 else 1e-290  # below it the type has no full precision
    difference = np.abs(ours.astype(np.float64) - twin)
    assert (difference <= RTOL[dtype.name] * (np.abs(twin) + slack) + tiny).all()


@pytest.mark.parametrize("kind", KINDS)
@given(case=classified(probabilities=False))
def test_cross_entropy_of_labels_is_exact_in_every_entry(
    kind: str, case: tuple[np.ndarray, np.ndarray]
) -> None:
    logits, targets = case
    make = KINDS[kind]
    twin, _ = cross_entropy_twin(logits, targets)
    assert_near(cross_entropy_gradients(make(logits), make(targets)), twin, logits.dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("probabilities", [False, True])
@given(data=st.data())
def test_cross_entropy_with_smoothing_and_weights(
    kind: str, probabilities: bool, data: st.DataObject
) -> None:
    logits, targets = data.draw(classified(probabilities))
    keywords = data.draw(weightings(logits.shape[1], logits.dtype))
    make = KINDS[kind]
    twin, sizes = cross_entropy_twin(logits, targets, **keywords)
    ours = cross_entropy_gradients(make(logits), make(targets), **converted(kind, keywords))
    # A soft target may lie as near to the softmax as one likes: exact relative to the two terms.
    soft = probabilities or keywords["label_smoothing"]
    assert_near(ours, twin, logits.dtype, sizes if soft else 0.0)


@pytest.mark.parametrize("probabilities", [False, True])
@given(data=st.data())
def test_cross_entropy_is_what_autograd_says(probabilities: bool, data: st.DataObject) -> None:
    logits, targets = (torch.as_tensor(part) for part in data.draw(classified(probabilities)))
    keywords = converted("torch", data.draw(weightings(logits.shape[1], logits.numpy().dtype)))
    leaf = logits.clone().requires_grad_()
    losses = functional.cross_entropy(
        leaf,
        targets,
        reduction="none",
        weight=keywords["class_weights"],
        label_smoothing=keywords["label_smoothing"],
    )
    (autograd,) = torch.autograd.grad(losses.sum(), leaf)
    ours = cross_entropy_gradients(logits, targets, **keywords)
    # Autograd subtracts the target from the softmax, and is exact relative to the target only.
    single = logits.dtype == torch.float32
    rtol, atol = (1e-4, 1e-5) if single else (1e-9, 1e-14)
    torch.testing.assert_close(ours, autograd, rtol=rtol, atol=atol)


@given(case=classified(probabilities=False), other=st.sampled_from([0, -1, 7]))
def test_another_ignore_index(case: tuple[np.ndarray, np.ndarray], other: int) -> None:
    logits, targets = case
    targets = np.where(targets == IGNORED, other, targets)
    ours = cross_entropy_gradients(logits, targets, ignore_index=other, label_smoothing=0.1)
    twin, sizes = cross_entropy_twin(logits, np.where(targets == other, IGNORED, targets), 0.1)
    assert_near(ours, twin, logits.dtype, sizes)


def binary_twin(z: float, y: float, v: float) -> tuple[float, float]:
    with localcontext() as context:
        context.prec, context.Emin = 60, -100_000
        up = 1 / (1 + (-Decimal(z)).exp())
        down = 1 / (1 + Decimal(z).exp())  # 1 - up, exactly
        # d/dz of -(v y log up + (1 - y) log down)
        first, second = (1 - Decimal(y)) * up, Decimal(v) * Decimal(y) * down
        return float(first - second), float(first + second)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_binary_cross_entropy(kind: str, data: st.DataObject) -> None:
    shape = data.draw(st.sampled_from([(0,), (4,), (3, 2), (2, 2, 2)]))
    logits = data.draw(scores(shape))
    targets = data.draw(hnp.arrays(logits.dtype, shape, elements=st.floats(0.0, 1.0, width=16)))
    targets = data.draw(st.sampled_from([targets, np.round(targets)]))
    weight = data.draw(st.sampled_from([None, 0.0, 3.0]))
    make = KINDS[kind]
    pos_weight = None if weight is None else make(np.asarray(weight, dtype=logits.dtype))
    ours = binary_cross_entropy_gradients(make(logits), make(targets), pos_weight=pos_weight)
    v = 1.0 if weight is None else weight
    pairs = zip(logits.ravel(), targets.ravel(), strict=True)
    twins = np.array([binary_twin(float(z), float(y), v) for z, y in pairs]).reshape(-1, 2)
    hard = (targets == 0.0) | (targets == 1.0)
    sizes = np.where(hard, 0.0, twins[:, 1].reshape(shape))
    assert_near(ours, twins[:, 0].reshape(shape), logits.dtype, sizes)
    leaf = torch.tensor(logits, requires_grad=True)
    losses = functional.binary_cross_entropy_with_logits(
        leaf, torch.tensor(targets), reduction="none", pos_weight=torch.as_tensor(v)
    )
    (autograd,) = torch.autograd.grad(losses.sum(), leaf)
    np.testing.assert_allclose(np.asarray(ours), autograd.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_squared_error(kind: str, data: st.DataObject) -> None:
    shape = data.draw(st.sampled_from([(0,), (4,), (3, 2)]))
    outputs = data.draw(scores(shape))
    targets = data.draw(hnp.arrays(outputs.dtype, shape, elements=st.floats(-9, 9, width=16)))
    make = KINDS[kind]
    ours = squared_error_gradients(make(outputs), make(targets))
    pairs = zip(outputs.ravel(), targets.ravel(), strict=True)
    twin = np.array([2.0 * (float(o) - float(y)) for o, y in pairs]).reshape(shape)
    assert_near(ours, twin, outputs.dtype)
    leaf = torch.tensor(outputs, requires_grad=True)
    loss = functional.mse_loss(leaf, torch.tensor(targets), reduction="none").sum()
    (autograd,) = torch.autograd.grad(loss, leaf)
    np.testing.assert_allclose(np.asarray(ours), autograd.numpy(), rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_row_norms(kind: str, data: st.DataObject) -> None:
    shape = data.draw(st.sampled_from([(0, 3), (3, 0), (4,), (3, 1), (3, 5), (2, 3, 2), (0, 3, 2)]))
    rows = data.draw(scores(shape))
    scale = data.draw(st.sampled_from([1.0, 1e-25, 1e30] + [1e-250, 1e300] * (rows.itemsize == 8)))
    rows = rows * rows.dtype.type(scale)
    twin = np.array([math.hypot(*map(float, row.ravel())) for row in rows])
    assert_near(row_norms(KINDS[kind](rows)), twin.reshape(shape[0]), rows.dtype)


def test_row_norms_of_rows_that_are_not_finite() -> None:
    rows = np.array([[math.inf, 1.0], [math.nan, 1.0], [3.0, 4.0]])
    np.testing.assert_array_equal(row_norms(rows), [math.inf, math.nan, 5.0])


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_half_types_are_computed_in_float32(name: str) -> None:
    logits = torch.randn(5, 3).to(getattr(torch, name))
    targets = torch.tensor([0, 1, 2, 0, 1])
    for half, full in (
        (
            cross_entropy_gradients(logits, targets),
            cross_entropy_gradients(logits.float(), targets),
        ),
        (row_norms(logits), row_norms(logits.float())),
    ):
        assert half.dtype == torch.float32 and torch.equal(half, full)
    assert row_norms(np.ones((1, 4), dtype=np.float16)).dtype == np.float32
    assert row_norms(np.array([[3, 4]])).dtype == np.float64


def test_gradients_and_inputs_stay_apart() -> None:
    logits = torch.randn(4, 3, requires_grad=True)
    gradients = cross_entropy_gradients(logits, torch.tensor([0, 1, 2, 0]))
    assert not gradients.requires_grad and logits.grad is None


def test_targets_of_another_kind_come_to_the_logits() -> None:
    logits = torch.zeros(2, 2)
    expected = torch.tensor([[-0.5, 0.5], [0.5, -0.5]])
    assert torch.equal(cross_entropy_gradients(logits, np.array([0, 1])), expected)
    assert torch.equal(cross_entropy_gradients(logits, [0, 1]), expected)


LOGITS = np.zeros((3, 4))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: cross_entropy_gradients(np.zeros(3), np.zeros(3, int)),
            so.ProblemError,
            r"shape \(n, C\) with at least one class, got \(3,\)",
        ),
        (
            lambda: cross_entropy_gradients(np.zeros((3, 0)), np.zeros(3, int)),
            so.ProblemError,
            r"at least one class, got \(3, 0\)",
        ),
        (
            lambda: cross_entropy_gradients(LOGITS, np.zeros(2, int)),
            so.ProblemError,
            r"numbers of shape \(3,\) or class probabilities of shape \(3, 4\) .*, got \(2,\)",
        ),
        (
            lambda: cross_entropy_gradients(LOGITS, np.zeros(3)),
            so.ProblemError,
            "class numbers of an integer type, got float64",
        ),
        (
            lambda: cross_entropy_gradients(LOGITS, np.array([0, 4, 1])),
            so.ProblemError,
            "class number 4, but logits have 4 columns: accepted are 0 to 3 and ignore_index=-100",
        ),
        (
            lambda: cross_entropy_gradients(LOGITS, np.array([0, -1, -100])),
            so.ProblemError,
            "class number -1",
        ),
        (
            lambda: cross_entropy_gradients(LOGITS, np.zeros(3, int), label_smoothing=1.5),
            so.OptionError,
            r"label_smoothing must be in \[0, 1\], got 1.5",
        ),
        (
            lambda: cross_entropy_gradients(LOGITS, np.zeros(3, int), class_weights=[1.0]),
            so.ProblemError,
            r"class_weights must have shape \(4,\), one per class, got \(1,\)",
        ),
        (
            lambda: binary_cross_entropy_gradients(np.zeros(3), np.zeros((3, 1))),
            so.ProblemError,
            r"must have the shape of logits, \(3,\), got \(3, 1\)",
        ),
        (
            lambda: squared_error_gradients(np.zeros(3), np.zeros(2)),
            so.ProblemError,
            r"must have the shape of outputs, \(3,\), got \(2,\)",
        ),
        (
            lambda: row_norms(np.asarray(1.0)),
            so.ProblemError,
            r"must have shape \(n, ...\), got a single number",
        ),
    ],
)
def test_what_is_refused(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
