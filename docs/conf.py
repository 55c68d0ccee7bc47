"""Sphinx: pages in Markdown (MyST), the reference from docstrings.  `python -m sphinx -b html docs docs/_build/html`"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the pages of this checkout, installed or not

import scifm

project = "scifm"
author = "The scifm maintainers"
project_copyright = "The scifm maintainers, Apache-2.0"
version = release = scifm.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
default_role = "code"  # docstrings write `names` as Markdown does
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]

myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"scifm {release}"


def plain_docstrings(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are written for the reader of the code: (B, *event) is a shape and |k| a length, not markup.

    Stars before a word and bars are escaped outside backticks; indented passages of a module's theory, which are
    formulas and tables, become literal blocks.
    """
    out: list[str] = []
    literal = False
    for n, line in enumerate(lines):
        indented = line.startswith("    ")
        if what == "module" and indented and not literal and n and not lines[n - 1].strip():
            out += ["::", ""]
            literal = True
        elif line.strip() and not indented:
            literal = False
        if literal or ">>>" in line:
            out.append(line)
            continue
        parts = re.split(r"(`+[^`]*`+)", line)
        parts[::2] = [re.sub(r"(?<![*\\\w])\*(?=\w)|\|", r"\\\g<0>", part) for part in parts[::2]]
        out.append("".join(parts))
    lines[:] = out


def setup(app: Any) -> None:
    # before napoleon (500), which turns Args: into fields and would hide where a line came from
    app.connect("autodoc-process-docstring", plain_docstrings, priority=400)
