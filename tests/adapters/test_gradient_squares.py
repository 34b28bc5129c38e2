"""Squared norms of products and of lookups, against the products and tables themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as hs

torch = pytest.importorskip("torch")

from subsetopt_torch.signals import layer_gradients  # noqa: E402


@given(
    n=hs.integers(1, 4), positions=hs.integers(1, 6), width=hs.integers(1, 20),
    classes=hs.integers(1, 20), seed=hs.integers(0, 99),
)  # fmt: skip
def test_norms_of_products_need_no_product(
    n: int, positions: int, width: int, classes: int, seed: int
) -> None:
    torch.manual_seed(seed)
    a, g = torch.randn(n, positions, width), torch.randn(n, positions, classes)
    found = layer_gradients.product_squares(a, g)
    expected = torch.bmm(g.mT.double(), a.double()).square().sum((1, 2))
    if found is not None:
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-12)
    else:
        assert positions > 1


@given(
    rows=hs.integers(1, 5),
    n=hs.integers(1, 4),
    positions=hs.integers(1, 6),
    seed=hs.integers(0, 99),
)
def test_norms_of_lookups_need_no_table(rows: int, n: int, positions: int, seed: int) -> None:
    torch.manual_seed(seed)
    tokens, g = torch.randint(0, rows, (n, positions)), torch.randn(n, positions, 3)
    table = torch.zeros(n, rows, 3)
    for i in range(n):
        for t in range(positions):
            table[i, tokens[i, t]] += g[i, t]
    found = layer_gradients.lookup_squares(tokens, g, rows)
    torch.testing.assert_close(found.float(), table.square().sum((1, 2)))
