"""From the URL of a ledger to its medium."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

from subsetopt.errors import OptionError, SolverUnavailableError, did_you_mean
from subsetopt.inputs import check_options
from subsetopt.ledger.medium import Medium

__all__ = ["open_medium"]


class _Scheme(NamedTuple):
    """What a URL begins with.

    Attributes
    ----------
    target
        ``module:function`` that opens the medium.
    options
        Names of further keywords.
    extra
        The extra of the distribution that the medium needs, which is also the name of the package.
    """

    target: str
    options: tuple[str, ...]
    extra: str | None = None


_DENSE = _Scheme("subsetopt.ledger.dense.medium:open_dense", ("capacity",))
_LMDB = _Scheme("subsetopt.ledger.lmdb_.medium:open_lmdb", ("map_size",), "lmdb")
_REDIS = _Scheme("subsetopt.ledger.redis_.medium:open_redis", ("name", "timeout"), "redis")
_SCHEMES = {
    "dense": _DENSE,
    "lmdb": _LMDB,
    **dict.fromkeys(("redis", "rediss", "unix", "valkey", "valkeys"), _REDIS),
}


def open_medium(url: str, *, readonly: bool, durable: bool, options: dict[str, Any]) -> Medium[Any]:
    """Return the medium of a URL.

    Raises
    ------
    OptionError
        If the URL or an option is unknown.
    SolverUnavailableError
        If a package is missing.
    LedgerError
        If the medium cannot be opened.
    """
    if not isinstance(url, str):
        raise OptionError(f"a ledger is opened by a URL such as 'dense:FILE', got {url!r}.")
    scheme, colon, rest = url.partition(":")
    if scheme not in _SCHEMES or not colon or not rest.strip("/"):
        raise OptionError(
            f"{url!r} is no URL of a ledger.{did_you_mean(scheme, _SCHEMES)} "
            "Accepted: dense:FILE, lmdb:FOLDER, redis://HOST:PORT/DB."
        )
    row = _SCHEMES[scheme]
    check_options(f"a ledger in {scheme!r}", options, row.options)
    module, _, function = row.target.partition(":")
    try:
        opener = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        if row.extra is None or error.name != row.extra:
            raise
        raise SolverUnavailableError(
            f"a ledger in {scheme!r} needs {row.extra}, which is not installed: "
            f"pip install 'subsetopt[{row.extra}]'"
        ) from None
    medium: Medium[Any] = opener(url, readonly=readonly, durable=durable, **options)
    return medium
