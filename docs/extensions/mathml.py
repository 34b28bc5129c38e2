"""Formulas as MathML, made while the site is built: browsers show it without a script."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

# latex2mathml keeps the names of delimiters whose size is given, and that of the operator arg.
_SIZED = re.compile(r"(\\[bB]igg?[lrm]?)\s*\\(\||[lr]Vert|[lr]vert|langle|rangle)")
_DELIMITERS = {"|": "‖", "lVert": "‖", "rVert": "‖", "lvert": "|", "rvert": "|",
               "langle": "⟨", "rangle": "⟩"}  # fmt: skip
_ARG = re.compile(r"\\arg(?![a-zA-Z])")


def to_mathml(latex: str, display: str) -> str:
    """Return a formula as MathML; a command that is not known is an error."""
    plain = _SIZED.sub(lambda match: match[1] + _DELIMITERS[match[2]], latex.strip())
    formula = str(convert(_ARG.sub(r"\\operatorname{arg}", plain), display=display))
    if "\\" in formula:
        raise ExtensionError(f"this formula has a command that MathML output lacks: {latex}")
    return formula


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the way formulas are written."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(to_mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def _block(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="formula">{to_mathml(node.astext(), "block")}</div>\n')
    raise nodes.SkipNode
