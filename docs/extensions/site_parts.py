"""What the site has besides its pages: generated tables, readable signatures, a completeness check.

Tables come from the registry and the enums, so that no page can disagree with the code. Signatures
show types as the source writes them. A short name in a docstring or a signature links to the public
object of that name. The build fails when a public name stands on no page.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import Path
from typing import Any, get_origin, is_typeddict

from docutils import nodes
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

import public_names
import subsetopt as so
from subsetopt.policies import list_policies

_ROLE = re.compile(r":\w+:`~?([^`]+)`")
_METHODS = Path(__file__).parents[1] / "methods"


def generated(name: str) -> str:
    """Return what stands in place of a generated part, in the markup of the page it is for."""
    if name not in _GENERATED:
        raise ExtensionError(f"nothing is generated as {name!r}; known: {', '.join(_GENERATED)}")
    return _GENERATED[name]()


class Generated(SphinxDirective):
    """Put a generated part in place."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the parsed nodes."""
        source, _ = self.get_source_info()
        lines = StringList(generated(self.arguments[0]).splitlines(), source=source)
        parent = nodes.Element()
        self.state.nested_parse(lines, self.content_offset, parent)
        return parent.children


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive and the hooks."""
    app.add_directive("generated", Generated)
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-process-docstring", _no_type_before_colon, priority=400)
    app.connect("missing-reference", _short_name)
    app.connect("env-check-consistency", _check_complete)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _signature(
    app: Sphinx,
    what: str,
    name: str,
    value: Any,
    options: Any,
    signature: str | None,
    returned: str,
) -> tuple[str, str] | None:
    if signature is None or what not in ("class", "function", "method"):
        return None
    if what == "class" and _not_constructed(value):
        return "", ""
    parameters, kind = public_names.signature_of(value)
    return parameters, "" if what == "class" else kind


def _not_constructed(kind: type) -> bool:
    """Return whether users name a class without ever making an object by calling it."""
    protocol = getattr(kind, "_is_protocol", False)
    return protocol or is_typeddict(kind) or issubclass(kind, Enum)


def _no_type_before_colon(
    app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]
) -> None:
    """Keep napoleon from reading the words before a colon as the type of a property.

    It looks at the first line only, which an empty comment now is.
    """
    if what in ("property", "attribute", "data"):
        lines[:0] = ["..", ""]


def _short_name(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, content: nodes.TextElement
) -> nodes.Node | None:
    """Link a name without its module to the only documented object of that name."""
    if node.get("refdomain") != "py":
        return None
    module, _, short = node["reftarget"].rpartition(".")
    places = {
        (entry.docname, entry.node_id)
        for name, entry in env.domains.python_domain.objects.items()
        if name.rpartition(".")[2] == short and not (module and entry.objtype == "type")
    }
    if len(places) != 1:
        return None
    ((page, anchor),) = places
    return make_refnode(app.builder, node["refdoc"], page, anchor, content, short)


def _check_complete(app: Sphinx, env: BuildEnvironment) -> None:
    missing = public_names.undocumented(set(env.domains.python_domain.objects))
    if missing:
        raise ExtensionError(f"public names on no page of docs/api: {', '.join(missing)}")


def _table(heading: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heading = list(heading)
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _solvers() -> str:
    return _table(
        ("solver", "what it does", "guarantee", "objectives", "constraints", "extra"),
        (
            (
                f"`{spec.name}`",
                spec.summary + (f" ({spec.reference})" if spec.reference else ""),
                spec.guarantee,
                ", ".join(f"`{name}`" for name in spec.objectives),
                _constraints(spec),
                f"`{spec.extra}`" if spec.extra else "-",
            )
            for spec in so.list_solvers()
        ),
    )


def _constraints(spec: so.SolverSpec) -> str:
    known = ("include", "exclude", "quotas", "capacity", "at_most")
    able = [name for name in known if name in spec.features]
    return "all" if len(able) == len(known) else ", ".join(able) or "-"


def _enum(kind: type[Enum]) -> Callable[[], str]:
    return lambda: _table(
        (kind.__name__, "says"), ((f"`{member.name}`", member.value) for member in kind)
    )


def _policies() -> str:
    return _table(
        ("policy", "what it does", "signals", "reference"),
        (
            (
                _card(spec.name),
                spec.summary,
                ", ".join(f"`{signal}`" for signal in sorted(spec.requires)) or "-",
                spec.reference or "-",
            )
            for spec in list_policies()
        ),
    )


def _card(name: str) -> str:
    """Return the name of a policy, as a link where it has a method card."""
    page = _METHODS / f"{name}.md"
    return f"[`{name}`](methods/{name}.md)" if page.exists() else f"`{name}`"


def _public_names() -> str:
    return _table(
        ("name", "what it is"),
        (
            (f"[`{name}`](#{name})", _summary(public_names.resolve(name)))
            for name in public_names.public_names()
        ),
    )


def _summary(value: Any) -> str:
    """Return the first paragraph of a docstring, its roles as plain code."""
    if not inspect.isclass(value) and not inspect.isfunction(value):
        return "type" if get_origin(value) else "data"
    text = " ".join((inspect.getdoc(value) or "").partition("\n\n")[0].split())
    return _ROLE.sub(r"`\1`", text).replace("``", "`")


def _classes(rows: Iterable[Any]) -> str:
    """Return an autodoc directive for the class behind every row."""
    return "\n\n".join(f".. autoclass:: {row.target.replace(':', '.')}" for row in rows)


def _aliases() -> str:
    homes = {name.rpartition(".")[2]: name for name in public_names.public_names()}
    rows = [row.target.replace(":", ".") for row in (*so.list_solvers(), *list_policies())]
    return "\n\n".join(
        f".. py:type:: {name}\n   :module: {homes.get(name, '').rpartition('.')[0]}\n"
        f"   :canonical: {value}"
        for name, value in public_names.type_aliases(*rows).items()
    )


_GENERATED = {
    "solvers": _solvers,
    "statuses": _enum(so.Status),
    "stop-reasons": _enum(so.StopReason),
    "policies": _policies,
    "solver-classes": lambda: _classes(so.list_solvers()),
    "policy-classes": lambda: _classes(list_policies()),
    "public-names": _public_names,
    "type-aliases": _aliases,
}
