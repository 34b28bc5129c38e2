"""Products in integers against products in double precision."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from subsetopt.kernels.vectors import nnls as cone
from subsetopt.kernels.vectors.integer_products import STEP, multiply, padded
from subsetopt.kernels.vectors.moments import squares_and_sum
from subsetopt.kernels.vectors.quantized import (
    NEVER,
    SCALE,
    ceilings,
    code_bytes,
    code_rows,
    code_vector,
    reach,
)
from subsetopt.nnls import ActiveSet

SEEDS = st.integers(0, 2**32 - 1)


@given(n=st.integers(0, 11), steps=st.integers(1, 4), seed=SEEDS)
@example(n=4, steps=1, seed=0)
def test_products_of_integers_are_exact(n: int, steps: int, seed: int) -> None:
    rng, width = np.random.default_rng(seed), steps * STEP
    # As large as 32 bits allow in sums of this many.
    most = min(2**15 - 1, (2**31 - 1) // (2**15 * width))
    code = rng.integers(-(2**15), 2**15, width).astype(np.int16)
    for dtype, largest in ((np.int8, min(most, 127)), (np.int16, most)):
        codes = rng.integers(-largest, largest + 1, (n, width)).astype(dtype)
        products = np.empty(n, dtype=np.int32)
        multiply(codes, code, products)
        assert products.tolist() == (codes.astype(np.int64) @ code.astype(np.int64)).tolist()


def _vectors(n: int, d: int, seed: int, scales: tuple[float, ...]) -> np.ndarray:
    """Return Gaussian rows of several scales, some with one large entry, some zero."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, d)) * rng.choice(scales, size=(n, 1))
    spiked = rng.random(n) < 0.3
    vectors[spiked, 0] *= 1000.0
    vectors[rng.random(n) < 0.1] = 0.0
    return vectors


def _norms(vectors: np.ndarray) -> np.ndarray:
    """Return norms without under- or overflow."""
    largest = np.abs(vectors).max(axis=1)
    unit = np.where(largest > 0.0, largest, 1.0)
    return largest * np.linalg.norm(vectors / unit[:, None], axis=1)


@given(
    n=st.integers(1, 40),
    d=st.integers(1, 70),
    seed=SEEDS,
    scales=st.sampled_from([(1.0,), (1e-3, 1.0, 50.0), (1e-300, 1e-160, 1.0), (1e55,)]),
    by_angle=st.booleans(),
)
def test_products_in_8_bits_are_off_by_what_they_say(n, d, seed, scales, by_angle) -> None:
    vectors, rng = _vectors(n, d, seed, scales), np.random.default_rng(seed + 1)
    x, shut = rng.normal(size=d) * 3.0, (rng.random(n) < 0.2).astype(np.int8)
    norms, size = _norms(vectors), float(np.linalg.norm(x))
    lengths = norms if by_angle else np.full(n, norms.max())
    codes = np.empty((n, padded(d)), dtype=np.int8)
    units, errors, keys = np.empty((3, n), dtype=np.float32)
    code_bytes(vectors, norms, lengths, codes, units, errors)
    code, products = np.empty(padded(d), dtype=np.int16), np.empty(n, dtype=np.int32)
    code_vector(x, size, code)
    multiply(codes, code, products)
    floor = ceilings(products, units, errors, shut, keys)
    shares = np.divide(vectors, lengths[:, None], out=np.zeros((n, d)), where=lengths[:, None] > 0)
    scores = shares @ (x / size)
    usable = shut == 0
    assert (keys[usable] >= scores[usable]).all()
    assert (keys[~usable] == NEVER).all()
    if usable.any():
        assert floor <= scores[usable].max()
    else:
        assert floor < -4.0
    # And it says little: each entry is off by at most half a 127th of the largest.
    widest = np.abs(shares).max(axis=1) / 127
    coded = norms > 1e-290
    assert (errors <= 0.51 * widest * np.sqrt(d) + 2e-3)[coded].all()


@given(n=st.integers(1, 40), d=st.integers(1, 70), seed=SEEDS)
def test_products_in_16_bits_are_within_reach(n: int, d: int, seed: int) -> None:
    vectors = _vectors(n, d, seed, (1e-300, 1e-3, 1.0, 1e3))
    norms, x = _norms(vectors), np.random.default_rng(seed + 1).normal(size=d)
    size = float(np.linalg.norm(x))
    codes = np.empty((n, padded(d)), dtype=np.int16)
    code_rows(vectors, norms, np.arange(n), codes)
    code, products = np.empty(padded(d), dtype=np.int16), np.empty(n, dtype=np.int32)
    code_vector(x, size, code)
    multiply(codes, code, products)
    shares = np.divide(vectors, norms[:, None], out=np.zeros((n, d)), where=norms[:, None] > 0)
    assert (np.abs(products / SCALE**2 - shares @ (x / size)) <= reach(d) + 1e-12).all()


@given(seed=SEEDS, by_angle=st.booleans(), scale=st.sampled_from([(1.0,), (1e-3, 1.0, 50.0)]))
def test_integers_choose_what_double_precision_chooses(seed, by_angle, scale) -> None:
    points = _vectors(300, 64, seed, scale)
    target = points.mean(axis=0)
    fits = [ActiveSet(points, target, 20, by_angle=by_angle) for _ in range(2)]
    coded, plain = fits
    fitted, codes, *rest = plain._arrays
    assert cone.Coded(*coded._arrays[1]).codes.shape == (300, 64)
    # Without rows in integers the points themselves are read.
    plain._arrays = (fitted, tuple(cone.Coded(*codes)._replace(codes=codes[0][:0])), *rest)
    for fit in fits:
        fit.step(20)
    assert coded.chosen.tolist() == plain.chosen.tolist()
    assert np.allclose(coded.weights, plain.weights, rtol=1e-9, atol=0.0)


def test_integers_see_the_end_of_a_fit() -> None:
    points = np.random.default_rng(0).normal(size=(1100, 16))
    fit = ActiveSet(points, points.mean(axis=0), 17)
    assert cone.Coded(*fit._arrays[1]).codes.shape[0] == 1100
    assert fit.step(100)[0] == cone.CONVERGED
    left = points.mean(axis=0) - fit.weights @ points[fit.chosen]
    assert np.linalg.norm(left) <= 1e-13


@given(n=st.integers(1, 9), d=st.integers(1, 40), seed=SEEDS)
def test_squares_and_sum_are_those_of_rows(n: int, d: int, seed: int) -> None:
    vectors = _vectors(n, d, seed, (1e-3, 1.0, 1e3))
    squares, total = np.empty(n), np.zeros(d)
    squares_and_sum(vectors, squares, total)
    assert np.allclose(squares, (vectors**2).sum(axis=1), rtol=1e-12)
    assert np.allclose(total, vectors.sum(axis=0), rtol=0.0, atol=1e-12 * np.abs(vectors).max() * n)
