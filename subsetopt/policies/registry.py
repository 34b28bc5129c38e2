"""The table of policies: one row each, like the table of solvers."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from subsetopt.errors import OptionError, did_you_mean
from subsetopt.inputs import check_options
from subsetopt.plugins import Plugins
from subsetopt.policies.base import Policy
from subsetopt.policies.members import check_members

__all__ = ["PolicySpec", "list_policies", "make_policy", "register_policy"]


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """One row of the table of policies.

    Attributes
    ----------
    name
        The name that users pass as ``policy``.
    target
        ``"package.module:Class"``, imported on first use; or the class (or function) itself.
    requires
        The names of the signals it reads with default options.
    reference
        The paper it comes from.
    summary
        One line for tables that says what it chooses.
    """

    name: str
    target: str | Callable[..., Policy]
    requires: tuple[str, ...] = ()
    reference: str = ""
    summary: str = ""


_OBTF = "Dong et al., One Backward from Ten Forward"
_ADASELECTION = "Zhang et al., AdaSelection"

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
        _ADASELECTION + ", section 3.1",
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
        "selective-backprop",
        "subsetopt.policies.selective_backprop:SelectiveBackprop",
        ("losses",),
        "Jiang et al., Accelerating Deep Learning by Focusing on the Biggest Losers",
        "each kept with a probability that rises with the rank of its loss",
    ),
    PolicySpec(
        "gradient-norm",
        "subsetopt.policies.gradient_norm:GradientNorm",
        ("gradient_norms",),
        _ADASELECTION + ", section 3.1",
        "the k largest per-sample gradients over all parameters",
    ),
    PolicySpec(
        "upper-bound",
        "subsetopt.policies.upper_bound:UpperBound",
        ("upper_bound",),
        "Katharopoulos & Fleuret, Not All Samples Are Created Equal, eq. 20",
        "the k largest gradients with respect to the model's outputs",
    ),
    PolicySpec(
        "adaboost",
        "subsetopt.policies.adaboost:AdaBoost",
        ("losses",),
        _ADASELECTION + ", eq. 1",
        "the k largest AdaBoost weights",
    ),
    PolicySpec(
        "coreset-1",
        "subsetopt.policies.coreset_1:Coreset1",
        ("losses",),
        _ADASELECTION + ", section 3.1",
        "half of k from the largest losses, half from the smallest",
    ),
    PolicySpec(
        "coreset-2",
        "subsetopt.policies.coreset_2:Coreset2",
        ("losses",),
        _ADASELECTION + ", section 3.1",
        "the k losses nearest the mean",
    ),
    PolicySpec(
        "obtf",
        "subsetopt.policies.obtf:Obtf",
        ("losses",),
        _OBTF + ", eq. 5",
        "the subset whose mean loss is the batch's",
    ),
    PolicySpec(
        "adaselection",
        "subsetopt.policies.adaselection:AdaSelection",
        ("losses",),
        _ADASELECTION + ", eqs. 2-6",
        "the k largest of several policies' scores, weighted as training goes",
    ),
    PolicySpec(
        "importance",
        "subsetopt.policies.importance:Importance",
        ("upper_bound",),
        "Katharopoulos & Fleuret, Not All Samples Are Created Equal, algorithm 1",
        "weighted draws in proportion to the upper bound, once they pay",
    ),
    PolicySpec(
        "rho-loss",
        "subsetopt.policies.rho_loss:RhoLoss",
        ("ids", "losses"),
        "Mindermann et al., ICML 2022, eq. 3",
        "the k largest losses in excess of a held-out model's",
    ),
    PolicySpec(
        "online-batch",
        "subsetopt.policies.online_batch:OnlineBatch",
        ("ids",),
        "Loshchilov & Hutter, Online Batch Selection for Faster Training, 2015",
        "draws whose probability falls with the rank of the latest known loss",
    ),
    PolicySpec(
        "prioritized",
        "subsetopt.policies.prioritized:Prioritized",
        ("ids",),
        "Schaul et al., Prioritized Experience Replay, ICLR 2016",
        "weighted draws in proportion to a power of the latest known loss",
    ),
    PolicySpec(
        "infobatch",
        "subsetopt.policies.infobatch:InfoBatch",
        ("losses",),
        "Qin et al., InfoBatch, ICLR 2024",
        "all at or above the mean loss, and a weighted random part of the rest",
    ),
    PolicySpec(
        "gradient-matching",
        "subsetopt.policies.gradient_matching:GradientMatching",
        ("logit_gradients",),
        "Killamsetty et al., GRAD-MATCH, ICML 2021",
        "the subset whose mean gradient is the batch's",
    ),
    PolicySpec(
        "balanced",
        "subsetopt.policies.balanced:Balanced",
        ("losses", "upper_bound"),
        "Deville & Tille, Biometrika 2004",
        "weighted draws in proportion to the upper bound, balanced on the loss",
    ),
    PolicySpec(
        "uncertainty",
        "subsetopt.policies.uncertainty:Uncertainty",
        ("logits",),
        "Coleman et al., Select via Proxy, eqs. 1-3",
        "the k samples that the model is least sure of",
    ),
)

_rows: dict[str, PolicySpec] = {spec.name: spec for spec in _BUILTIN}


def list_policies() -> list[PolicySpec]:
    """Return the rows of the table, in order of registration.

    Those that other packages offer in the entry-point group ``subsetopt.policies`` are among them;
    an entry that cannot be used is a warning.

    Examples
    --------
    >>> "obtf" in [spec.name for spec in list_policies()]
    True
    """
    plugins.load()
    return list(_rows.values())


def register_policy(spec: PolicySpec) -> None:
    """Add a row; the policy is then known by name everywhere.

    Raises
    ------
    OptionError
        If the name is taken, the row is not a PolicySpec, or the class has a member with a
        misspelt name.
    """
    plugins.check(spec)
    if isinstance(spec.target, type):
        check_members(spec.target)
    _rows[spec.name] = spec


#: The policies that users and other packages add.
plugins = Plugins("policy", "subsetopt.policies", PolicySpec, _rows, register_policy)


def unregister_policy(name: str) -> None:
    """Remove a row that user code added; for tests."""
    plugins.remove(name)


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
        If no policy has that name, or it has no such option or refuses its value, or a member of
        it has a misspelt name; the message names the nearest.

    Examples
    --------
    >>> make_policy("obtf", cardinality="at_most")
    Obtf(cardinality='at_most', choices=8)
    """
    if isinstance(name, str) and name not in _rows:
        plugins.load()
    spec = _rows.get(name) if isinstance(name, str) else None
    if spec is None:
        raise OptionError(
            f"no policy named {name!r}.{did_you_mean(name, _rows)} Registered: {', '.join(_rows)}."
        )
    maker = load_target(spec)
    if options:
        _check_options(spec.name, maker, options)
    policy = maker(**options)
    check_members(policy)
    return policy


def _check_options(name: str, maker: Callable[..., Policy], options: dict[str, Any]) -> None:
    parameters = inspect.signature(maker).parameters.values()
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return
    check_options(f"policy {name!r}", options, [p.name for p in parameters])


def load_target(spec: PolicySpec) -> Callable[..., Policy]:
    """Return the class or function behind a row.

    Raises
    ------
    OptionError
        If it cannot be imported.
    """
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
