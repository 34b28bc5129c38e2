"""URLs of ledgers, and what importing and opening costs."""

from __future__ import annotations

import re
from typing import Any

import pytest
from processes import modules_loaded_by

import subsetopt as so


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("dens:losses", "'dens:losses' is no URL of a ledger. Did you mean 'dense'?"),
        ("losses.ledger", "Accepted: dense:FILE, lmdb:FOLDER, redis://HOST:PORT/DB"),
        ("dense:", "'dense:' is no URL of a ledger"),
        ("dense", "'dense' is no URL of a ledger"),
        ("", "'' is no URL of a ledger"),
        (7, "a ledger is opened by a URL such as 'dense:FILE', got 7"),
    ],
)
def test_a_url_that_is_none(url: Any, message: str) -> None:
    with pytest.raises(so.OptionError, match=re.escape(message)):
        so.ledger.Ledger.open(url)


def test_an_option_of_another_medium_is_refused() -> None:
    with pytest.raises(so.OptionError, match=r"'dense' has no option 'capacty'. Did you mean"):
        so.ledger.Ledger.open("dense:unused", capacty=3)
    with pytest.raises(so.OptionError, match="durable must be True or False, got 'yes'"):
        so.ledger.Ledger.open("dense:unused", durable="yes")  # type: ignore[arg-type]


def test_the_package_of_ledgers_is_imported_when_asked_for() -> None:
    code = "import sys, subsetopt as so; assert 'subsetopt.ledger' not in sys.modules; so.ledger"
    assert not {"lmdb", "redis", "numba", "torch"} & modules_loaded_by(code)
    with pytest.raises(AttributeError, match="has no attribute 'ledgers'"):
        so.ledgers  # type: ignore[attr-defined]  # noqa: B018
