"""The documentation as a site: `sphinx-build -W -b html -c docs/site . build/site` in the repository's root.

The root of the repository is the source folder, so that a link in a page leads to the same place here as in the
repository's own view: README, CONTRIBUTING, model cards and the Slicer extension's page are part of the site.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT)]

from navigation import add_contents  # noqa: E402

project = "napari-mamba"
author = "The napari-mamba developers"
version = release = version_of("napari-mamba")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
include_patterns = [
    "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/**.md", "docs/*/**.md",
    "sample_data/README.md", "slicer_extension/README.md", "napari_mamba/bundles/shipped/*/README.md",
    "benchmarks/*/results/*.md",
]  # fmt: skip
root_doc = "docs/index"

# pages
myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]
suppress_warnings = ["myst.header", "misc.highlighting_failure", "ref.python"]

# docstrings
default_role = "code"  # `so`
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_param = False
napoleon_use_rtype = False
add_module_names = False

# looks
html_theme = "furo"
html_title = "napari-mamba"
html_copy_source = False
html_show_sourcelink = False
html_additional_pages = {"index": "first.html"}
templates_path = ["templates"]


def plain_references(app, what, name, thing, options, lines: list[str]) -> None:
    """Show the numbered references of a docstring as text: those of several docstrings stand on one page."""
    for i, line in enumerate(lines):
        lines[i] = re.sub(r"^(\s*)\.\. (\[\d+\])", r"\1| \2", re.sub(r"(\[\d+\])_", r"\1", line))


def setup(app) -> None:
    """Let the front page have its contents."""
    app.connect("source-read", add_contents)
    app.connect("autodoc-process-docstring", plain_references)
