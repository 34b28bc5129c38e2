"""Options of policies as texts on the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from subsetopt import OptionError
from subsetopt.errors import did_you_mean

__all__ = ["parse_policy_options"]


def parse_policy_options(
    texts: Sequence[str], policies: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return ``{policy: {name: value}}`` for ``policy:name=value`` texts.

    Parameters
    ----------
    texts
        ``policy:name=value``, or ``name=value`` where only one policy is compared. A value is
        JSON (``3``, ``0.5``, ``true``, ``null``, ``["a", "b"]``) or, where it is not, a string.
    policies
        The policies that are compared.

    Raises
    ------
    OptionError
        If a text has another form, names a policy that is not compared, or an option twice.

    Examples
    --------
    >>> parse_policy_options(["cardinality=at_most", "obtf:choices=1"], ["obtf"])
    {'obtf': {'cardinality': 'at_most', 'choices': 1}}
    """
    parsed: dict[str, dict[str, Any]] = {}
    for text in texts:
        policy, name, value = _parts(text, policies)
        options = parsed.setdefault(policy, {})
        if name in options:
            raise OptionError(f"the option {name!r} of the policy {policy!r} is given twice.")
        options[name] = _value(value)
    return parsed


def _parts(text: str, policies: Sequence[str]) -> tuple[str, str, str]:
    left, equals, value = text.partition("=")
    policy, colon, name = left.rpartition(":")
    if not equals or not name or (colon and not policy):
        raise OptionError(f"a policy option must be policy:name=value, got {text!r}.")
    if not colon and len(policies) > 1:
        raise OptionError(
            f"{text!r} does not say which policy it is for; {', '.join(policies)} are compared: "
            f"write {policies[0]}:{text}."
        )
    policy = policy if colon else policies[0]
    if policy not in policies:
        raise OptionError(
            f"{text!r} is for {policy!r}, which is not compared; compared are "
            f"{', '.join(policies)}.{did_you_mean(policy, policies)}"
        )
    return policy, name, value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
