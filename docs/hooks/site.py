"""What mkdocs does besides: generated tables, formulas without a script, and a completeness check.

Tables come from the registry and the enums, so that no page can disagree with the code. Formulas
become MathML, which browsers render on their own, with no script from another machine.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

import subsetopt as so
import subsetopt_torch as st
from subsetopt.policies import list_policies

_PLACE = re.compile(r"<!-- generated: ([\w-]+) -->")
_FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\s*\\([(\[])(.*?)\\[)\]]\s*</\1>', flags=re.DOTALL
)
_DIRECTIVE = re.compile(r"^::: ([\w.]+)", flags=re.MULTILINE)


def on_files(files: Any, config: Any) -> Any:
    """Fail the build when a public name stands on no API page."""
    missing = undocumented(Path(config["docs_dir"]))
    if missing:
        raise PluginError(f"public names on no page of docs/api: {', '.join(missing)}")
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put what is generated in place."""
    return _PLACE.sub(lambda match: _generated(match[1]), markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Turn formulas into MathML."""
    return _FORMULA.sub(_mathml, content)


def undocumented(docs: Path) -> list[str]:
    """Return the public names that stand on no API page."""
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (docs / "api").glob("*.md"))
    shown = {_package_and_name(path) for path in _DIRECTIVE.findall(pages)}
    return [
        f"{package.__name__}.{name}"
        for package in (so, st)
        for name in package.__all__
        if (package.__name__, name) not in shown
    ]


def _package_and_name(path: str) -> tuple[str, str]:
    return path.partition(".")[0], path.rpartition(".")[2]


def _mathml(match: re.Match[str]) -> str:
    display = "inline" if match[1] == "span" else "block"
    return str(convert(html.unescape(match[3]).strip(), display=display))


def _generated(name: str) -> str:
    if name not in _GENERATED:
        raise PluginError(f"nothing is generated as {name!r}; known: {', '.join(_GENERATED)}")
    return _GENERATED[name]()


def _markdown(heading: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heading = list(heading)
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _solvers() -> str:
    return _markdown(
        ("solver", "what it does", "guarantee", "objectives", "constraints", "needs"),
        (
            (
                f"`{spec.name}`",
                spec.summary + (f" ({spec.reference})" if spec.reference else ""),
                spec.guarantee,
                ", ".join(f"`{name}`" for name in spec.objectives),
                _constraints(spec),
                f"`{spec.install_hint}`" if spec.extra else "-",
            )
            for spec in so.list_solvers()
        ),
    )


def _constraints(spec: so.SolverSpec) -> str:
    known = ("include", "exclude", "quotas", "capacity", "at_most")
    able = [name for name in known if name in spec.features]
    return "all" if len(able) == len(known) else ", ".join(able) or "-"


def _enum(kind: type[Enum]) -> Callable[[], str]:
    return lambda: _markdown(
        (kind.__name__, "says"), ((f"`{member.name}`", member.value) for member in kind)
    )


def _policies() -> str:
    return _markdown(
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
    path = Path(__file__).parents[1] / "methods" / f"{name}.md"
    return f"[`{name}`](methods/{name}.md)" if path.exists() else f"`{name}`"


def _classes(rows: Iterable[Any]) -> str:
    """Return an API directive for the class behind every row."""
    return "\n\n".join(f"::: {row.target.replace(':', '.')}" for row in rows)


_GENERATED = {
    "solvers": _solvers,
    "statuses": _enum(so.Status),
    "stop-reasons": _enum(so.StopReason),
    "policies": _policies,
    "solver-classes": lambda: _classes(so.list_solvers()),
    "policy-classes": lambda: _classes(list_policies()),
}
