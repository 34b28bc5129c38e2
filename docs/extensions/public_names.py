"""The public names with their signatures, in the words of the source.

Run as a script, it writes the listing that the test of the public names compares with the code:

    python docs/extensions/public_names.py
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any, ForwardRef, get_origin

import subsetopt as so
import subsetopt_torch as st
from subsetopt import instances, ledger, policies, proxy, testing

LISTING = Path(__file__).parents[1] / "api" / "public_names.txt"
PACKAGES: tuple[ModuleType, ...] = (so, policies, proxy, ledger, instances, testing, st)
_WORD = re.compile(r"\b[A-Z]\w+")


def public_names() -> list[str]:
    """Return the full name of every public object; a name of two packages stands for the first."""
    shown: dict[int, str] = {}
    for package in PACKAGES:
        for name in package.__all__:
            shown.setdefault(id(getattr(package, name)), f"{package.__name__}.{name}")
    return list(shown.values())


def undocumented(documented: set[str]) -> list[str]:
    """Return the public names that are not among the documented ones."""
    return [name for name in public_names() if name not in documented]


def listing() -> str:
    """Return a line for every public name, every public member of a class and every type alias."""
    names = [line for name in public_names() for line in _lines(name, resolve(name))]
    aliases = [f"type {name} = {value}" for name, value in type_aliases().items()]
    return "\n".join([*names, *aliases, ""])


def resolve(name: str) -> Any:
    """Return the object of a full name."""
    package, _, short = name.rpartition(".")
    return getattr(importlib.import_module(package), short)


def signature_of(function: Any) -> tuple[str, str]:
    """Return the parameters, in brackets, and the type returned, as the source writes them."""
    signature = inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
    returned = signature.return_annotation
    return f"({', '.join(_arguments(parameters))})", _type(returned)


def type_aliases(*further: str) -> dict[str, str]:
    """Return the type aliases, and their values, that the signatures of all these names use."""
    names = (*public_names(), *further)
    lines = [line for name in names for line in _lines(name, resolve(name))]
    objects = {name.rpartition(".")[2] for name in names if get_origin(resolve(name)) is None}
    named = set(_WORD.findall("\n".join(lines))) - objects
    folders = [Path(str(package.__file__)).parent for package in (so, st)]
    sources = sorted(path for folder in folders for path in folder.rglob("*.py"))
    found = {name: value for path in sources for name, value in _aliases(path) if name in named}
    return dict(sorted(found.items()))


def _lines(name: str, value: Any) -> Iterator[str]:
    if not inspect.isclass(value):
        if inspect.isfunction(value):
            yield f"def {name}{_call(value)}"
        elif get_origin(value) is None:
            yield f"data {name}"
        return
    yield f"class {name}{_construction(value)}"
    for member, found in _members(value):
        yield f"    {member}{found}"


def _construction(kind: type) -> str:
    if issubclass(kind, BaseException):
        return f"({', '.join(base.__name__ for base in kind.__bases__)})"
    if issubclass(kind, Enum) or getattr(kind, "_is_protocol", False):
        return ""
    return signature_of(kind)[0]


def _members(kind: type) -> Iterator[tuple[str, str]]:
    if issubclass(kind, Enum):
        yield from ((member, "") for member in kind.__members__)
    elif dataclasses.is_dataclass(kind):
        yield from ((f.name, f": {f.type}") for f in dataclasses.fields(kind))
    for name, value in sorted(_own(kind).items()):
        if name.startswith("_") and name != "__call__":
            continue
        if isinstance(value, property):
            yield name, f": {signature_of(value.fget)[1]}"
        elif isinstance(value, (staticmethod, classmethod)) or inspect.isfunction(value):
            yield name, _call(getattr(kind, name))


def _own(kind: type) -> dict[str, Any]:
    """Return what a class defines, and what it has from small bases that add a few members."""
    mixed_in = [
        base
        for base in kind.__bases__
        if base.__bases__ == (object,) and base.__module__.startswith("subsetopt")
    ]
    return {name: value for base in [*mixed_in, kind] for name, value in vars(base).items()}


def _call(function: Any) -> str:
    parameters, returned = signature_of(function)
    return f"{parameters} -> {returned}" if returned else parameters


def _arguments(parameters: list[inspect.Parameter]) -> Iterator[str]:
    starred = False
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            yield "*"
        starred |= parameter.kind in (parameter.VAR_POSITIONAL, parameter.KEYWORD_ONLY)
        yield _argument(parameter)


def _argument(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    text = stars + parameter.name
    kind = _type(parameter.annotation)
    if kind:
        text += f": {kind}"
    if parameter.default is parameter.empty:
        return text
    return f"{text}{' = ' if kind else '='}{_default(parameter.default)}"


def _type(annotation: Any) -> str:
    if annotation is inspect.Signature.empty:
        return ""
    if isinstance(annotation, ForwardRef):
        return annotation.__forward_arg__
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _default(value: Any) -> str:
    """Return the default as the reader would write it."""
    if callable(value) or repr(value).startswith("<"):
        return "..."
    if isinstance(value, frozenset) and not value:
        return "frozenset()"
    return repr(value)


def _aliases(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the module-level assignments to capitalized names of a source file."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
            continue
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if isinstance(target, ast.Name) and _WORD.fullmatch(target.id) and not target.id.isupper():
            yield target.id, ast.unparse(node.value)


if __name__ == "__main__":
    LISTING.write_text(listing(), encoding="utf-8")
