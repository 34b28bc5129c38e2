"""How Sphinx builds the site; `make docs` runs it."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "extensions"), str(HERE.parent), str(HERE.parent / "adapters")]

import subsetopt as so  # noqa: E402

project = "subsetopt"
author = "The subsetopt developers"
release = version = so.__version__
language = "en"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "mathml",
    "site_parts",
]
exclude_patterns = ["extensions"]
nitpicky = True
# These names belong to the standard library, NumPy and PyTorch, whose pages are not at hand here.
# Constraints is the type of Problem.constraints, which solvers read and users do not; a name with
# an underscore is a type variable.
nitpick_ignore_regex = [
    (r"py:.*", r"(np|numpy|torch|nn|npt)\..*"),
    (r"py:.*", r"(ArrayLike|NDArray|Tensor|Dataset|Path|AbstractContextManager|Enum)"),
    (r"py:.*", r"(collections\.abc|contextlib|pathlib|enum)\..*"),
    (r"py:.*", r"(.*\.Constraints|_\w+)"),
    (r"py:.*", r"(Any|Callable|Iterable|Iterator|Literal|Mapping|Sequence|Set)"),
]
highlight_language = "text"
copybutton_exclude = ".linenos, .gp, .go"

myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 4

add_module_names = False
autodoc_default_options = {"members": True, "special-members": "__call__"}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
maximum_signature_line_length = 80
napoleon_google_docstring = False
# Entries such as "status, stop_reason" are those of several attributes, as they are for parameters.
napoleon_custom_sections = [("Attributes", "params_style")]
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"subsetopt {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_copyright = False
html_domain_indices = False
html_use_index = False
html_show_sourcelink = False
# A summary of a search result is fetched from its page, which browsers refuse for local files.
html_show_search_summary = False
