"""A griffe extension: the reStructuredText of the docstrings, in the Markdown of the site."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import griffe

import subsetopt as so

_ROLE = re.compile(r":(?:class|func|meth|attr|exc|mod|data):`~?([\w.]+)`")
_MATH = re.compile(r"^( *)\.\. math::[ \t]*(.*(?:\n(?:\1 +.*|[ \t]*(?=\n\1 )))*)", re.MULTILINE)


def to_markdown(text: str) -> str:
    """Return a docstring with its roles and formulas in Markdown."""
    return _MATH.sub(_formula, _ROLE.sub(_reference, text))


def _reference(match: re.Match[str]) -> str:
    short = match[1].rpartition(".")[2]
    return f"[`{short}`][subsetopt.{short}]" if short in so.__all__ else f"`{short}`"


def _formula(match: re.Match[str]) -> str:
    body = textwrap.dedent(match[2]).strip()
    lines = [line.strip() for line in body.splitlines() if line.strip()]
    return "\n".join(match[1] + line for line in ("$$", *lines, "$$"))


class Docstrings(griffe.Extension):
    """Rewrite every docstring when it is collected."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)
