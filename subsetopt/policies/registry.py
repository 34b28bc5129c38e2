"""The table of policies: one row each, like the table of solvers."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from subsetopt.errors import OptionError, did_you_mean
from subsetopt.policies.base import Policy

__all__ = ["PolicySpec", "list_policies", "make_policy", "register_policy"]


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """One row of the table of policies.

    Attributes
    ----------
    name
        What users pass as ``policy``.
    target
        ``"package.module:Class"``, imported on first use; or the class (or function) itself.
    requires
        Names of the signals it reads with default options.
    reference
        Paper.
    summary
        One line for tables.
    """

    name: str
    target: str | Callable[..., Policy]
    requires: tuple[str, ...] = ()
    reference: str = ""
    summary: str = ""


_OBTF = "Dong et al., One Backward from Ten Forward"

_BUILTIN = (
    PolicySpec(
        "uniform",
        "subsetopt.policies.uniform:Uniform",
        summary="k at random; needs no scoring pass",
    ),
    PolicySpec(
        "big-loss",
        "subsetopt.policies.big_loss:BigLoss",
        ("losses",),
        "Zhang et al., AdaSelection, section 3.1",
        "the k largest losses",
    ),
    PolicySpec(
        "small-loss",
        "subsetopt.policies.small_loss:SmallLoss",
        ("losses",),
        "Shah, Wu & Sanghavi, AISTATS 2020",
        "the k smallest losses (min-k)",
    ),
    PolicySpec(
        "proportional-loss",
        "subsetopt.policies.proportional_loss:ProportionalLoss",
        ("losses",),
        _OBTF + ", section 4",
        "k drawn without replacement, each draw proportional to the loss",
    ),
    PolicySpec(
        "obtf",
        "subsetopt.policies.obtf:Obtf",
        ("losses",),
        _OBTF + ", eq. 5",
        "the subset whose mean loss is the batch's",
    ),
)

_rows: dict[str, PolicySpec] = {spec.name: spec for spec in _BUILTIN}


def list_policies() -> list[PolicySpec]:
    """Return the rows of the table, in order of registration.

    Examples
    --------
    >>> "obtf" in [spec.name for spec in list_policies()]
    True
    """
    return list(_rows.values())


def register_policy(spec: PolicySpec) -> None:
    """Add a row; the policy is then known by name everywhere.

    Raises
    ------
    OptionError
        If the name is taken, or the row is not a PolicySpec.
    """
    if not isinstance(spec, PolicySpec):
        raise OptionError(f"register_policy takes a PolicySpec, got {type(spec).__name__}.")
    if spec.name in _rows:
        raise OptionError(
            f"a policy named {spec.name!r} is registered already; choose another name."
        )
    _rows[spec.name] = spec


def unregister_policy(name: str) -> None:
    """Remove a row that user code added; for tests."""
    if name in {spec.name for spec in _BUILTIN}:
        raise OptionError(f"{name!r} is built in and cannot be removed.")
    _rows.pop(name, None)


def make_policy(name: str, **options: Any) -> Policy:
    """Return a new policy.

    Parameters
    ----------
    name
        A registered name; see ``list_policies()``.
    options
        Its hyperparameters; see its page.

    Raises
    ------
    OptionError
        If no policy has that name, or it has no such option or refuses its value; the message
        names the nearest.

    Examples
    --------
    >>> make_policy("obtf", cardinality="at_most")
    Obtf(cardinality='at_most', choices=8)
    """
    spec = _rows.get(name) if isinstance(name, str) else None
    if spec is None:
        raise OptionError(
            f"no policy named {name!r}.{did_you_mean(name, _rows)} Registered: {', '.join(_rows)}."
        )
    maker = _load(spec)
    if options:
        _check_options(spec.name, maker, options)
    return maker(**options)


def _check_options(name: str, maker: Callable[..., Policy], options: dict[str, Any]) -> None:
    parameters = inspect.signature(maker).parameters.values()
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return
    valid = [p.name for p in parameters]
    for option in options:
        if option not in valid:
            raise OptionError(
                f"policy {name!r} has no option {option!r}.{did_you_mean(option, valid)} "
                + (f"Its options: {', '.join(valid)}." if valid else "It has none.")
            )


def _load(spec: PolicySpec) -> Callable[..., Policy]:
    if not isinstance(spec.target, str):
        return spec.target
    module, _, attribute = spec.target.partition(":")
    try:
        maker: Callable[..., Policy] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise OptionError(
            f"the target {spec.target!r} of policy {spec.name!r} cannot be imported ({error})."
        ) from error
    return maker
